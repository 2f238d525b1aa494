"""The command line of `pfsb demo`, which plays one scenario and records it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, Final, TextIO

import click
from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred

from pfsb.demo.processes import ProcessCluster
from pfsb.demo.recording import Screen, merge_traces, summary, verdict_lines
from pfsb.demo.scenarios import Scenario, Size, Stage
from pfsb.demo.verdict import Verdict
from pfsb.support.command_line import Number, subcommand

LINES_MIN: Final = 100
LINES_MAX: Final = 10_000_000
CLIENTS_MAX: Final = 1_000


@define
class Options:
    """Command line of `pfsb demo`."""

    scenario: Scenario | None
    """The scenario to play; None: all of them are listed."""
    out: Path
    lines: int
    clients: int


@subcommand("demo")
@click.argument("names", nargs=-1, metavar="SCENARIO")
@click.option("--list", "shows_list", is_flag=True, help="Show the scenarios.")
@click.option("--out", type=click.Path(), metavar="DIR", help="Directory for the recording; it must be new or empty.")
@click.option(
    "--lines", type=Number(LINES_MIN, LINES_MAX), default=Size().lines, help="How many lines the clients say."
)
@click.option("--clients", type=Number(1, CLIENTS_MAX), default=Size().clients, help="How many clients there are.")
def command(names: tuple[str, ...], shows_list: bool, out: str | None, lines: int, clients: int) -> Options:
    """Play a scenario with real servers on free ports of this machine, and record it.

    DIR gets summary.md, trace.jsonl (what happened in all servers), terminals.cast (an asciicast), acknowledged.jsonl
    and the servers' files. The exit status is 1 if anything is not as it should be.
    """
    if shows_list:
        return Options(None, Path(), lines, clients)
    known = ", ".join(Scenario.known)
    if len(names) != 1:
        raise click.UsageError(f"name one scenario: {known} (example: pfsb demo normal --out /tmp/normal)")
    if names[0] not in Scenario.known:
        raise click.UsageError(f"there is no scenario {names[0]}; known are {known}")
    if out is None:
        raise click.UsageError(f"--out is missing (example: pfsb demo {names[0]} --out /tmp/demo)")
    directory = Path(out)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise click.UsageError(f"--out: {directory} is there already; name a directory that is new or empty")
    return Options(Scenario.known[names[0]], directory, lines, clients)


async def run(reactor: Any, options: Options) -> None:
    """Play a scenario. Raises `SystemExit` with status 1 if one of its checks fails."""
    if options.scenario is None:
        for scenario in Scenario.known.values():
            print(f"{scenario.name:<14}{scenario.help}")
        return
    size = evolve(Size(), lines=options.lines, clients=options.clients)
    playing = Deferred.fromCoroutine(perform(reactor, options.scenario, size, options.out, sys.stdout))
    trigger = reactor.addSystemEventTrigger("before", "shutdown", _interrupt, playing)
    verdict, trouble = await playing
    with contextlib.suppress(ValueError):  # the trigger has fired
        reactor.removeSystemEventTrigger(trigger)
    if trouble or not verdict.holds:
        raise SystemExit(1)


def _interrupt(playing: Deferred[Any]) -> Deferred[None]:
    """Called at the reactor's shutdown, as after Ctrl-C: end the scenario.

    The Deferred fires when no server runs any more, and the recording up to then is complete.
    """
    recorded: Deferred[None] = Deferred()

    def ended(result: Any) -> Any:
        recorded.callback(None)
        return result

    playing.addBoth(ended)
    playing.cancel()
    return recorded


async def perform(reactor: Any, scenario: Scenario, size: Size, directory: Path, out: TextIO) -> tuple[Verdict, str]:
    """Play a scenario and record it in `directory`.

    Returns the verdict, and the reason if the scenario ended early, else "".
    """
    directory.mkdir(parents=True, exist_ok=True)
    title = f"{scenario.name}: {scenario.help}"
    cluster = ProcessCluster(reactor, directory / "servers", scenario.servers, trace=True, changes=scenario.changes)
    trouble = ""
    with open(directory / "terminals.cast", "w", encoding="utf-8") as cast:
        screen = Screen(cast, out, reactor.seconds, title)
        stage = Stage(reactor, directory, cluster, screen, size)
        screen.say(title)
        async with cluster:
            try:
                await scenario.play(stage)
            except CancelledError:
                trouble = "it was interrupted"
            except Exception as error:
                trouble = f"{type(error).__name__}: {error}"
            finally:
                await stage.load.abandon()
        parts = cluster.trace_files()
        merge_traces(parts, directory / "trace.jsonl")
        for part in parts:
            part.unlink()
        screen.say("\n".join(["", *verdict_lines(stage.verdict, trouble)]))
    text = summary(title, stage.story, stage.verdict, trouble)
    (directory / "summary.md").write_text(text, encoding="utf-8")
    return stage.verdict, trouble
