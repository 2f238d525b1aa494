"""The least that a command costs on this machine with Twisted, part by part: `python -m benchmarks.floors --help`.

Each figure is the time of one step that every command needs, in a process that does nothing else. No server that
is built of these parts can be faster than they are. Sockets and disks are measured without the protocol, and the
protocol without sockets and disks. A bare cluster (`bare`) takes the whole way of a command, without pfsb and Twisted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

from attrs import frozen
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from benchmarks import bare, in_memory
from benchmarks.bare import HOST, REPLY, Disk
from benchmarks.in_memory import CASES, Case, Run
from benchmarks.processes import heard, process
from benchmarks.setting import described, list_table, loads, machine
from pfsb.bench.client import LoadClient, LoadFailed, LoadResult, client_command
from pfsb.bench.machine import cpu_seconds
from pfsb.bench.report import aligned
from pfsb.bench.workload import Workload, operations
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.records import AruRecord, ProposalRecord
from pfsb.storage.effect import Effect
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import BLOCK_BYTES, SegmentHead, make_segment
from pfsb.storage.log.storage import LogStorage
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.owner import StorageOwner
from pfsb.support.eager_write import write_now

LOADS: Final = "1x1,16x1,64x1,256x1,8x8,8x32"
PROPOSAL_BYTES: Final = 170
"""Size, in bytes, of a frame with one PROPOSAL of one small command."""
ACCEPT_BYTES: Final = 44
"""Size, in bytes, of a frame with one ACCEPT."""
PAYLOAD: Final = bytes(130)
"""A payload as large as that of an update with one PUT of 100 bytes."""
SHAPES: Final = ((1, 150), (16, 150), (100, 150), (1, 33_000))
"""Shapes of groups that are written to disk: number of slots, and the size of their batches in bytes."""
CODE_TIMES: Final = 3
"""Number of measurements of CPU time. The smallest is taken, since other programs have disturbed it least."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--loads", type=loads, default=LOADS, help=f"of lines: CONNECTIONSxDEPTH,... ({LOADS})")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load of lines lasts (default: 3)")
    parser.add_argument("--count", type=int, default=3_000, help="how many commits and datagrams (default: 3000)")
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for storage")
    parser.add_argument("--rst", type=Path, help="write the tables to this file, for the documentation")
    return parser.parse_args(given)


# ---------------------------------------------------------------------------------------------
# Processes that do one thing
# ---------------------------------------------------------------------------------------------


class Lines(Protocol):
    """Answers each line at once, and writes to the socket in the way of pfsb's front end (`write_now`)."""

    def dataReceived(self, data: bytes) -> None:
        write_now(self.transport, REPLY * data.count(b"\n"))


class Votes(DatagramProtocol):
    """Answers each datagram with a datagram as large as an ACCEPT."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(bytes(ACCEPT_BYTES), addr)


class Proposals(DatagramProtocol):
    """Sends datagrams as large as a PROPOSAL, each when the one before is answered, and measures the time of each."""

    def __init__(self, port: int, count: int, done: Callable[[list[float]], None]) -> None:
        self._port = port
        self._count = count
        self._done = done
        self._taken: list[float] = []
        self._begun = 0.0

    def startProtocol(self) -> None:
        self._send()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._taken.append(time.perf_counter() - self._begun)
        if len(self._taken) < self._count:
            self._send()
        else:
            self._done(self._taken)

    def _send(self) -> None:
        self._begun = time.perf_counter()
        assert self.transport is not None
        self.transport.write(bytes(PROPOSAL_BYTES), (HOST, self._port))


def reactor_of_this_process() -> Any:
    """Twisted's reactor. Only the processes that this program starts call this, since the import installs a reactor."""
    from twisted.internet import reactor  # the import installs the reactor

    return reactor


def answer_lines(told: Connection) -> None:
    """The work of a process that answers lines; first it sends the number of its port to `told`."""
    reactor = reactor_of_this_process()
    told.send(reactor.listenTCP(0, Factory.forProtocol(Lines), interface=HOST).getHost().port)
    reactor.run()


def answer_datagrams(told: Connection) -> None:
    """The work of a process that answers datagrams; first it sends the number of its port to `told`."""
    reactor = reactor_of_this_process()
    told.send(reactor.listenUDP(0, Votes(), interface=HOST).getHost().port)
    reactor.run()


def exchange_datagrams(told: Connection, port: int, count: int) -> None:
    """The work of a process that exchanges datagrams with `answer_datagrams`; at the end it sends their median time."""
    reactor = reactor_of_this_process()

    def done(taken: list[float]) -> None:
        told.send(median(taken))
        reactor.stop()

    reactor.listenUDP(0, Proposals(port, count, done), interface=HOST)
    reactor.run()


@frozen
class OnDisk:
    """The times, in seconds, of a group with some slots."""

    slots: int
    size: int
    seconds: float
    cpu_seconds: float

    @property
    def row(self) -> list[str]:
        shape = f"{self.slots} of {self.size:,} bytes"
        return [shape, f"{1e6 * self.seconds:.0f}", f"{1e6 * self.cpu_seconds:.0f}"]


def commit(told: Connection, directory: Path, count: int) -> None:
    """The work of a process that writes proposals to pfsb's storage, one after the other, and sends their median time.

    The time of a proposal includes the way to the storage's thread, to disk, and back into the reactor.
    """
    reactor = reactor_of_this_process()
    storage = LogStorage(directory, bytes(8), "floors", 0, reactor, os.urandom, _fail, (0,))
    storage.recover()
    taken: list[float] = []

    def write(seq: int) -> None:
        begun = time.perf_counter()

        def durable() -> None:
            taken.append(time.perf_counter() - begun)
            if seq < count:
                write(seq + 1)
            else:
                told.send(median(taken))
                reactor.stop()

        storage.append(ProposalRecord(seq, 1, Batch.of(0, [ClientUpdate("0.1.1", 0, seq, 0, PAYLOAD)])))
        storage.append(AruRecord(seq - 1))
        storage.sync(durable)

    reactor.callWhenRunning(write, 1)
    reactor.run()
    storage.close()


def write_groups(told: Connection, directory: Path, count: int) -> None:
    """The work of a process that writes groups to a log; at the end it sends an `OnDisk` for each of `SHAPES`."""
    made = [measured_groups(directory / str(number), *shape, count) for number, shape in enumerate(SHAPES)]
    told.send(made)


def measured_groups(directory: Path, slots: int, size: int, count: int) -> OnDisk:
    """Write `count` groups of this many slots with batches of `size` bytes, and measure their times."""
    directory.mkdir()
    room = 2 * BLOCK_BYTES + (count + 1) * slots * (size + 100)
    make_segment(directory, SegmentHead(1, room, bytes(8), os.urandom(16), StorageOwner("floors", bytes(8), (0,), 0)))
    writer = LogWriter.open(scan(directory))
    batches = [Batch(os.urandom(size)) for _ in range(slots)]
    taken: list[float] = []
    cpu = time.process_time()
    for number in range(count):
        effect = Effect()
        effect.apply_all(ProposalRecord(number * slots + at, 1, batch) for at, batch in enumerate(batches, start=1))
        begun = time.perf_counter()
        writer.write(effect)
        taken.append(time.perf_counter() - begun)
    cpu = time.process_time() - cpu
    writer.close()
    return OnDisk(slots, size, median(taken), cpu / count)


def _fail(failure: Any) -> None:
    failure.raiseException()


# ---------------------------------------------------------------------------------------------
# Measurements and report
# ---------------------------------------------------------------------------------------------


@frozen
class Answered:
    """The result of one load on a process that only answers lines."""

    connections: int
    depth: int
    result: LoadResult
    cpu_seconds: float

    @property
    def row(self) -> list[str]:
        per_line = 1e6 * self.cpu_seconds / (self.result.operations or 1)
        return [f"{self.connections} x {self.depth}", f"{self.result.per_second:,.0f}", f"{per_line:.1f}"]


def lines(wanted: Sequence[tuple[int, int]], seconds: float) -> Iterator[Answered]:
    """Measure loads, each given as (connections, depth), on a process that only answers lines."""
    with process(answer_lines) as (line, pid):
        target = HOST, heard(line)
        for connections, depth in wanted:
            asked = operations("put", 100)
            workload = Workload([target], asked, connections, depth, seconds=seconds, warmup=seconds / 4)
            result = LoadClient(client_command()).run(workload.render(), lambda: cpu_seconds(pid))
            yield Answered(connections, depth, result, result.ended - result.begun)


def bare_table(wanted: Sequence[tuple[int, int]], seconds: float, directory: Path) -> list[list[str]]:
    """Measure loads on bare clusters, one for each way to force data to disk, and make a table of the results."""
    rows = [[f"{connections} x {depth}"] for connections, depth in wanted]
    for disk in Disk:
        with bare.cluster(disk, directory) as cluster:
            for row, (connections, depth) in zip(rows, wanted, strict=True):
                found = cluster.load(connections, depth, seconds)
                cpu_us = 1e6 * (found.ended - found.begun) / (found.operations or 1)
                row.append(f"{found.per_second:,.0f}/s, {cpu_us:.1f} us")
    return [["a bare cluster: rate and CPU; who writes", *(disk.value for disk in Disk)], *rows]


def code_seconds(case: Case, count: int) -> float:
    """CPU time, in seconds, of pfsb's code for one command: that of three servers together, in memory."""
    run = Run(case)
    run.commands(count)
    return min(in_memory.cpu_seconds(partial(run.commands, count)) for _ in range(CODE_TIMES)) / count


def datagram_seconds(count: int) -> float:
    """Median time, in seconds, from a datagram to its answer."""
    with process(answer_datagrams) as (line, _), process(exchange_datagrams, heard(line), count) as (answer, _):
        return float(heard(answer))


def commit_seconds(directory: Path, count: int) -> float:
    """Median time, in seconds, until a proposal is on disk."""
    with process(commit, directory, count) as (line, _):
        return float(heard(line))


def groups(directory: Path, count: int) -> list[OnDisk]:
    """Measure groups of several shapes, each on disk when the next one is begun."""
    with process(write_groups, directory, count) as (line, _):
        return list(heard(line))


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints. Returns the exit status: 0 if all was measured, 1 if a part could not be measured."""
    asked = arguments(given)
    with tempfile.TemporaryDirectory(prefix="pfsb-floors-", dir=asked.directory) as scratch:
        about = machine(Path(scratch))
        try:
            (alone,) = lines([(1, 1)], asked.seconds)
            answered = list(lines(asked.loads, asked.seconds))
            code = [(case.name, code_seconds(case, asked.count)) for case in CASES]
            whole_way = bare_table(asked.loads, asked.seconds, Path(scratch))
            datagram, committed = datagram_seconds(asked.count), commit_seconds(Path(scratch) / "commits", asked.count)
            on_disk = groups(Path(scratch), asked.count // 10 + 1)
        except LoadFailed as error:
            print(f"floors: {error}", file=sys.stderr)
            return 1
    line = (alone.result.histogram.percentile(50) or 0.0) / 1e6
    whole = line + datagram + committed
    parts = [
        ["a line there and back, to a process that only answers", f"{1000 * line:.3f}"],
        ["a datagram there and back, between two such processes", f"{1000 * datagram:.3f}"],
        ["a proposal on disk: to the writer's thread, the log, and back", f"{1000 * committed:.3f}"],
        ["all three, one after the other", f"{1000 * whole:.3f}: {1 / whole:,.0f} commands a second"],
    ]
    one = [["one at a time", "ms, median"], *parts]
    many = [["lines that are only answered", "per second", "CPU us"], *(each.row for each in answered)]
    cores = os.cpu_count() or 1
    computed = [[name, f"{1e6 * seconds:.1f}", f"{cores / seconds:,.0f}"] for name, seconds in code]
    own = [["pfsb's code, three servers", "CPU us", f"per second on {cores} cores"], *computed]
    disk = [["batches in a group", "us, median", "CPU us"], *(each.row for each in on_disk)]
    titles = {
        "The way of a command": one,
        "A group on disk": disk,
        "A process that only answers": many,
        "Hops and forced writes of three servers, without pfsb": whole_way,
        "Code that only computes": own,
    }
    print("\n\n".join([described(about), *map(aligned, titles.values())]))
    if asked.rst is not None:
        tables = [line for title, rows in titles.items() for line in ("", *list_table(title, rows))]
        asked.rst.write_text("\n".join([f"Measured with {described(about)}.", *tables, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
