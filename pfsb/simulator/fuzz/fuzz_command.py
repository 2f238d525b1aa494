"""The subcommand `pfsb fuzz`: changed input of every kind, for a while, and a file for each input that fails."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import click
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from pfsb.simulator.fuzz.all_targets import TARGETS
from pfsb.simulator.fuzz.campaign import Campaign, replay, write_finding
from pfsb.simulator.fuzz.finding import Finding
from pfsb.support.command_line import Number, Seconds, subcommand
from pfsb.support.spelling import nearest

SEEDS_MAX: Final = 1_000_000_000
PROGRESS_SECONDS: Final = 10.0
"""How often, in seconds, the progress is shown."""


@define
class Options:
    """Command line of `pfsb fuzz`."""

    shows_list: bool
    seconds: float
    seed: int
    names: tuple[str, ...]
    jobs: int
    directory: str
    finding: Finding | None


@subcommand("fuzz")
@click.option("--list", "shows_list", is_flag=True, help="Show the names of the targets.")
@click.option("--for", "seconds", type=Seconds(), default=60.0, help="How long to try.")
@click.option("--seed", type=Number(0, SEEDS_MAX), help="Decides all random numbers; otherwise drawn.")
@click.option("--target", metavar="NAME,...", help="Targets, with commas between; otherwise all.")
@click.option(
    "--jobs",
    type=Number(0, 256),
    default=1,
    help="Processes that try at the same time, with seeds in a row; 0: one per core.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False),
    default="build/fuzz",
    help="Where files of failing inputs are written.",
)
@click.option("--replay", type=click.Path(), metavar="FILE", help="Repeat the failure in this file.")
def command(target: str | None, seed: int | None, replay: str | None, **given: Any) -> Options:
    """Change real input of every kind at random, and look whether something reads it that should not, raises, hangs, or
    makes servers differ.

    Each input that fails is written to a file, which --replay repeats; the exit status is 1 then. A seed and the number
    of inputs decide which inputs are tried.
    """
    names = tuple(filter(None, (target or "").split(","))) or tuple(TARGETS)
    if unknown := set(names) - set(TARGETS):
        raise click.UsageError(f"--target {min(unknown)}: there is no such target; {nearest(min(unknown), TARGETS)}")
    if seed is None:
        seed = random.SystemRandom().randrange(SEEDS_MAX)
    return Options(names=names, seed=seed, finding=None if replay is None else _read(Path(replay)), **given)


def _read(path: Path) -> Finding:
    try:
        finding = Finding.read(path)
        assert finding.target in TARGETS
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise click.UsageError(f"--replay {path}: is no file that pfsb fuzz has written") from None
    return finding


async def run(reactor: Any, options: Options) -> None:
    """Do what the command line of `pfsb fuzz` asks for. Raises `SystemExit` with status 1 if any input fails."""
    tool = FuzzTool(reactor, options, sys.stdout)
    if options.shows_list:
        tool.list_targets()
    elif options.finding is not None:
        tool.repeat(options.finding)
    elif options.jobs != 1:
        await tool.run_jobs(options.jobs or os.cpu_count() or 1)
    else:
        await tool.run_campaign()
    if tool.has_failed:
        raise SystemExit(1)


@define(eq=False)
class FuzzTool:
    """Does what the command line asks for, and reports the results."""

    reactor: Any
    options: Options
    out: TextIO
    has_failed: bool = field(default=False, init=False)

    def list_targets(self) -> None:
        for name, make in TARGETS.items():
            self.say(f"{name:16} {make().help}")

    def repeat(self, finding: Finding) -> None:
        failure = replay(TARGETS[finding.target](), finding)
        self.has_failed = bool(failure)
        self.say(f"FAILED: {failure}" if failure else f"{finding.target}: does not fail any more")

    async def run_campaign(self) -> None:
        options, seed = self.options, self.options.seed
        campaign = Campaign(seed, [TARGETS[name]() for name in options.names], self.reactor.seconds, self._found)
        begun = self.reactor.seconds()
        shown = begun
        for _ in campaign.rounds(begun + options.seconds):
            if self.reactor.seconds() - shown >= PROGRESS_SECONDS:
                shown = self.reactor.seconds()
                self.say(self._progress(campaign, shown - begun))
            await deferLater(self.reactor, 0, lambda: None)
        for record in campaign.records:
            kept, lines = len(record.kept), record.coverage.lines
            self.say(
                f"{record.target.name:16} {record.inputs:9,} inputs in {record.rounds} rounds, {lines} lines reached, "
                f"{kept} inputs kept, {record.failures} failures"
            )
        self.say(
            f"{campaign.inputs:,} inputs in {self.reactor.seconds() - begun:.0f} s from seed {seed} for "
            f"{len(campaign.records)} targets: {campaign.failures} failures"
        )

    def _progress(self, campaign: Campaign, passed: float) -> str:
        lines = sum(record.coverage.lines for record in campaign.records)
        return f"{passed:6.0f} s {campaign.inputs:,} inputs, {lines} lines reached, {campaign.failures} failures"

    def _found(self, finding: Finding) -> None:
        self.has_failed = True
        self.say(write_finding(finding, Path(self.options.directory)))

    def say(self, text: str) -> None:
        """Print a line at once."""
        self.out.write(text + "\n")
        self.out.flush()

    # ------------------------------------------------------------------ several processes

    async def run_jobs(self, jobs: int) -> None:
        """Run `jobs` campaigns with successive seeds, each in a process of its own."""
        ended = await gatherResults([self._job(self.options.seed + job) for job in range(jobs)])
        self.has_failed = not all(ended)
        failed = sum(not well for well in ended)
        self.say(f"{jobs} processes with seeds from {self.options.seed} on: {failed} with failures")

    def _job(self, seed: int) -> Deferred[bool]:
        options = self.options
        words = [sys.executable, "-m", "pfsb.simulator.fuzz", "--for", str(options.seconds), "--seed", str(seed)]
        words += ["--target", ",".join(options.names), "--directory", options.directory]
        job = _Job(self.say)
        self.reactor.spawnProcess(job, words[0], words, os.environ)
        return job.ended


class _Job(ProcessProtocol):
    """A campaign in a process of its own, whose lines are passed on; `ended` fires with True if nothing has failed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.ended: Deferred[bool] = Deferred()
        self.say = say
        self._partial = b""

    def outReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self.say(line.decode("utf-8", "replace"))

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.check(ProcessDone) is not None)
