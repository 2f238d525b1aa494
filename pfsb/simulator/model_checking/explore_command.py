"""The subcommand `pfsb explore`: it explores all that can happen to a small cluster, and reports the progress."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import click
from attrs import define
from twisted.internet.task import deferLater

from pfsb.simulator.model_checking.explorer import Bounds, Exploration, Progress
from pfsb.support.command_line import Number, subcommand

STATES_MAX = 100_000_000
"""Maximum value of the option --states."""
REPORT_SECONDS = 10.0
"""How often, in seconds, the progress is reported while states of one depth are explored."""
EXAMPLE = "example: --lead-in 0:Ask,1:Proposal,0:Accept"


@define
class Options:
    """Command line of `pfsb explore`."""

    bounds: Bounds
    depth: int
    states: int


@subcommand("explore")
@click.option("--servers", type=Number(1, 5), default=3, help="How many servers there are.")
@click.option(
    "--clients",
    type=Number(0, 5),
    default=2,
    help="How many clients there are, each with one update, at servers 0, 1, ...",
)
@click.option("--views", type=Number(1, 20), default=3, help="The highest view that is attempted.")
@click.option("--crashes", type=Number(0, 10), default=1, help="How many crashes there are, each with a restart.")
@click.option("--depth", type=Number(1, 1_000), default=1_000, help="How many steps to go at most.")
@click.option(
    "--states",
    type=Number(1, STATES_MAX),
    default=1_000_000,
    help="How many states to keep; a million takes 350 MB.",
)
@click.option(
    "--cold", is_flag=True, help="Begin where all servers have just started, not where server 0 leads view 1."
)
@click.option(
    "--lead-in",
    default="",
    metavar="STEP,...",
    show_default=False,
    help=f"Steps that come first, as server:message or server:timer; {EXAMPLE}.",
)
def command(
    servers: int, clients: int, views: int, crashes: int, depth: int, states: int, cold: bool, lead_in: str
) -> Options:
    """Explore all orders of messages (lost, late, repeated), timers, disk writes, crashes and restarts of a small
    cluster, breadth first, and check after every step that no promise is broken.

    A broken promise is shown as the fewest steps that lead there; the exit status is 1 then.
    """
    bounds = Bounds(
        servers=servers,
        asks=tuple((chr(ord("a") + i), i % servers) for i in range(clients)),
        views=views,
        crashes=crashes,
        led=not cold,
        lead_in=tuple(_lead_in(lead_in, servers)),
    )
    return Options(bounds, depth, states)


def _lead_in(text: str, servers: int) -> Iterator[tuple[int, str]]:
    for step in filter(None, text.split(",")):
        server, _, what = step.strip().partition(":")
        if not (server.isdecimal() and int(server) < servers and what):
            raise click.UsageError(f"--lead-in: {step} is not server:message with a server below {servers}; {EXAMPLE}")
        yield int(server), what


async def run(reactor: Any, options: Options) -> None:
    """Explore, and report the progress. Raises `SystemExit` with status 1 if the protocol breaks a promise."""
    exploration = Exploration(options.bounds, states_max=options.states)
    gc.disable()  # the explorer hardly ever frees anything, and garbage collection would take half of the time
    try:
        await _explore(reactor, exploration, options.depth, sys.stdout)
    except ValueError as error:
        sys.stderr.write(f"pfsb explore: --lead-in: {error}\n")
        raise SystemExit(1) from None
    finally:
        gc.enable()
    if exploration.counterexample is not None:
        raise SystemExit(1)


async def _explore(reactor: Any, exploration: Exploration, depth: int, out: TextIO) -> None:
    began = told_at = reactor.seconds()
    progress, told_depth = Progress(0, 1, 0, 0), 0
    for progress in exploration.levels(depth):
        now = reactor.seconds()
        if progress.depth > told_depth or now - told_at >= REPORT_SECONDS:
            told_at, told_depth = now, progress.depth
            out.write(f"{now - began:7.0f} s  {_in_words(progress)}\n")
            out.flush()
        await deferLater(reactor, 0)
    out.write(summary(exploration, progress, reactor.seconds() - began))


def _in_words(progress: Progress) -> str:
    return (
        f"depth {progress.depth}: {progress.states:,} states, made of {progress.server_states:,} states of servers; "
        f"{progress.steps:,} steps; {_megabytes()} MB"
    )


def summary(exploration: Exploration, progress: Progress, seconds: float) -> str:
    """The final report: the bounds, how far the exploration went, the situations that it met, and the result."""
    bounds = exploration.bounds
    asks = ", ".join(f"{client}1 at server {server}" for client, server in bounds.asks) or "none"
    lines = [
        f"{bounds.servers} servers; updates: {asks}; views up to {bounds.views}; crashes: {bounds.crashes}",
        f"explored in {seconds:.0f} s: {_extent(exploration)}; {_in_words(progress)}",
        f"on the way: {', '.join(sorted(exploration.nodes.reached)) or 'nothing'}",
    ]
    if exploration.counterexample is None:
        lines.append("nothing is wrong")
    else:
        lines += ["a promise is broken:", str(exploration.counterexample)]
    return "".join(f"{line}\n" for line in lines)


def _extent(exploration: Exploration) -> str:
    if exploration.is_complete:
        return "all there is"
    if exploration.is_cut_short:
        return f"all states up to {exploration.depth} steps deep, and some of the next level"
    return f"all states up to {exploration.depth} steps deep"


def _megabytes() -> int:
    """Maximum memory of this process so far (Linux reports kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
