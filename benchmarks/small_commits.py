"""The time of one small commit, seen from a loop that waits for it: `python -m benchmarks.small_commits --help`.

Each way of `benchmarks.ways_to_write` writes the same records in turn, so that whatever disturbs the machine disturbs
all alike. Then bare clusters (`benchmarks.bare`) use these ways, one after the other, which shows how much of a commit
is left in a whole command.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final

from attrs import define, field

from benchmarks import bare
from benchmarks.bare import Disk, Writer
from benchmarks.processes import heard, process
from benchmarks.setting import described, loads, machine
from benchmarks.ways_to_write import Aio, AioSync, Inline, Thread, Uring, UringDirect, Way, make_file
from pfsb.bench.client import LoadFailed
from pfsb.bench.report import aligned

MEASURED: Final[Sequence[type[Way]]] = (Inline, Thread, AioSync, Aio, Uring, UringDirect)
CLUSTERS: Final[Sequence[Writer]] = (*Disk, Aio, Uring, UringDirect)
RECORD_BYTES: Final = 200
PAUSE_SECONDS: Final = 0.0005
"""Pause before each commit, so that all threads sleep, as between the commands of a client."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.small_commits", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--count", type=int, default=300, help="how many commits in a round (default: 300)")
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds, alternating (default: 5)")
    parser.add_argument("--loads", type=loads, default="1x1", help="of bare clusters: CONNECTIONSxDEPTH,... (1x1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each load lasts (default: 1)")
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for storage")
    return parser.parse_args(given)


@define
class Commits:
    """The times of commits in one way, one figure for each round, in seconds."""

    name: str
    begun: list[float] = field(factory=list)
    """Median time of the call that begins a write."""
    done: list[float] = field(factory=list)
    """Median time until the loop knows that the record is on disk."""
    cpu: list[float] = field(factory=list)
    """CPU time of the process for each commit, the pause before it included. Work of the kernel that it does in threads
    of its own is left out, but for those of io_uring."""

    @property
    def row(self) -> list[str]:
        return [self.name, *(f"{1e6 * median(figures):.0f}" for figures in (self.done, self.cpu, self.begun))]


def measure(told: Connection, directory: Path, count: int, rounds: int) -> None:
    """The work of a process that commits records in all ways; at the end it sends a `Commits` for each way."""
    path = directory / "file"
    make_file(path)
    ways = [way(path) for way in MEASURED]
    found = [Commits(way.name) for way in ways]
    for _ in range(rounds):
        for way, commits in zip(ways, found, strict=True):
            _measure_round(way, commits, count)
    told.send(found)


def _measure_round(way: Way, commits: Commits, count: int) -> None:
    waits = select.epoll()
    waits.register(way.descriptor, select.EPOLLIN)
    record = os.urandom(RECORD_BYTES)
    begun, done = [], []
    cpu = time.process_time()
    for _ in range(count):
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter()
        way.begin(record)
        begun.append(time.perf_counter() - start)
        waits.poll()
        way.end()
        done.append(time.perf_counter() - start)
    commits.cpu.append((time.process_time() - cpu) / count)
    commits.begun.append(median(begun))
    commits.done.append(median(done))
    waits.close()


def clusters(
    wanted: Sequence[tuple[int, int]], seconds: float, rounds: int, directory: Path
) -> Iterator[tuple[str, list[str]]]:
    """Measure bare clusters with each way to write, in alternating order; yields a name and its figures."""
    rates: dict[Writer, list[list[tuple[float, float]]]] = {disk: [] for disk in CLUSTERS}
    for number in range(rounds):
        for disk in CLUSTERS if number % 2 == 0 else CLUSTERS[::-1]:
            with tempfile.TemporaryDirectory(dir=directory) as own, bare.cluster(disk, Path(own)) as cluster:
                results = [cluster.load(*load, seconds) for load in wanted]
            rates[disk].append([(each.per_second, (each.ended - each.begun) / each.operations) for each in results])
    for disk, found in rates.items():
        columns = [tuple(map(median, zip(*each, strict=True))) for each in zip(*found, strict=True)]
        name = disk.value if isinstance(disk, Disk) else disk.name
        yield name, [f"{rate:,.0f}/s, {1e6 * cpu:.1f} us" for rate, cpu in columns]


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints. Returns the exit status: 0 if all was measured, 1 if a part could not be measured."""
    asked = arguments(given)
    with tempfile.TemporaryDirectory(prefix="pfsb-commits-", dir=asked.directory) as scratch:
        place = Path(scratch)
        try:
            about = described(machine(place))
            with process(measure, place, asked.count, asked.rounds) as (line, _):
                commits = [each.row for each in heard(line)]
            whole = [[name, *row] for name, row in clusters(asked.loads, asked.seconds, asked.rounds, place)]
        except (LoadFailed, OSError) as error:
            print(f"small_commits: {error}", file=sys.stderr)
            return 1
    names = [f"{connections} x {depth}" for connections, depth in asked.loads]
    print(about)
    print(aligned([["who writes", "on disk, us", "CPU us", "begun, us"], *commits]))
    print(aligned([["a bare cluster: rate and CPU; who writes", *names], *whole]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
