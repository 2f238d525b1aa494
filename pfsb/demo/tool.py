"""The command line of `pfsb demo`, which plays one scenario and records it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.python import usage

from pfsb.commands.options import number
from pfsb.demo.processes import ProcessCluster
from pfsb.demo.recording import Screen, merge_traces, summary, verdict_lines
from pfsb.demo.scenarios import Scenario, Size, Stage
from pfsb.demo.verdict import Verdict

LINES_MIN: Final = 100
LINES_MAX: Final = 10_000_000
CLIENTS_MAX: Final = 1_000


class Options(usage.Options):
    """Command line of `pfsb demo`."""

    synopsis = "Usage: pfsb demo SCENARIO --out DIR  |  pfsb demo --list"
    longdesc = (
        "Plays a scenario with real servers on free ports of this machine. DIR gets summary.md, trace.jsonl (what "
        "happened in all servers), terminals.cast (an asciicast), acknowledged.jsonl and the servers' files. "
        "The exit status is 1 if anything is not as it should be."
    )
    optFlags = [["list", None, "show the scenarios"]]  # noqa: RUF012 (read by Twisted, never changed)
    optParameters = [  # noqa: RUF012
        ["out", None, None, "directory for the recording; it must be new or empty"],
        ["lines", None, Size().lines, "how many lines the clients say", number(LINES_MIN, LINES_MAX)],
        ["clients", None, Size().clients, "how many clients there are", number(1, CLIENTS_MAX)],
    ]

    scenario: Scenario
    out: Path

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Accept the scenario's name before the options, where Twisted by itself accepts no arguments."""
        given = list(sys.argv[1:] if options is None else options)
        named = given[:1] if given and not given[0].startswith("-") else []
        super().parseOptions([*given[len(named) :], *named])

    def parseArgs(self, *names: str) -> None:
        self.names = names

    def postOptions(self) -> None:
        if self["list"]:
            return
        known = ", ".join(Scenario.known)
        if len(self.names) != 1:
            raise usage.UsageError(f"name one scenario: {known} (example: pfsb demo normal --out /tmp/normal)")
        if self.names[0] not in Scenario.known:
            raise usage.UsageError(f"there is no scenario {self.names[0]}; known are {known}")
        if self["out"] is None:
            raise usage.UsageError(f"--out is missing (example: pfsb demo {self.names[0]} --out /tmp/demo)")
        self.scenario = Scenario.known[self.names[0]]
        self.out = Path(self["out"])
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise usage.UsageError(f"--out: {self.out} is there already; name a directory that is new or empty")


async def run(reactor: Any, options: Options) -> None:
    """Play a scenario. Raises `SystemExit` with status 1 if one of its checks fails."""
    if options["list"]:
        for scenario in Scenario.known.values():
            print(f"{scenario.name:<14}{scenario.help}")
        return
    size = evolve(Size(), lines=options["lines"], clients=options["clients"])
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
