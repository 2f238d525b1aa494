"""Helpers for the tests of stable storage."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, current_thread
from time import monotonic, sleep
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, OrderedRecord, ProposalRecord, Record, Recovered
from pfsb.storage.durable import DurableFile, Piece
from pfsb.storage.log.storage import LogStorage

DIGEST = bytes(range(16))


class ThreadedClock(Clock):
    """A clock that takes calls from threads and makes them when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._from_threads: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._from_threads.put(lambda: callable(*args, **kwargs))

    def wait_for_call(self, seconds_max: float = 10.0) -> None:
        """Wait until a thread has asked for a call, and leave the call to be made later."""
        end = monotonic() + seconds_max
        while self._from_threads.empty():
            if monotonic() > end:
                raise AssertionError(f"no thread has asked for a call within {seconds_max} s")
            sleep(0.001)

    def run_until(self, condition: Callable[[], bool], seconds_max: float = 10.0) -> None:
        end = monotonic() + seconds_max
        while not condition():
            self.advance(0)
            try:
                self._from_threads.get(timeout=0.01)()
            except Empty:
                if monotonic() > end:
                    raise AssertionError(f"not reached within {seconds_max} s: {condition}") from None

    def run_what_came(self, seconds: float = 0.05) -> None:
        """Make all calls that arrive within `seconds` after the previous one, for a second at most.

        A writer without room on the disk tries again and again, and makes a call each time.
        """
        self.advance(0)
        end = monotonic() + 1.0
        try:
            while monotonic() < end:
                self._from_threads.get(timeout=seconds)()
                self.advance(0)
        except Empty:
            pass


class Server:
    """One storage on a directory, and everything that the storage has told its server."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.clock = ThreadedClock()
        self.failures: list[Failure] = []
        self.told: list[object] = []
        arguments = {
            "cluster_digest": DIGEST,
            "cluster_name": "four",
            "server_id": 2,
            "random_bytes": random.Random(7).randbytes,
            "members": (0, 1, 2, 3),
        } | changes
        self.storage = LogStorage(directory, reactor=self.clock, on_failure=self.failures.append, **arguments)

    def write(self, *records: Record) -> None:
        """Write the records and wait until they are durable."""
        self.sync("written", *records)
        self.clock.run_until(lambda: "written" in self.told)
        self.told.remove("written")

    def sync(self, name: object, *records: Record) -> None:
        for record in records:
            self.storage.append(record)
        self.storage.sync(lambda: self.told.append(name))

    def read(self, first: int, last: int, bytes_max: int = 10**6) -> list[tuple[int, Batch]]:
        answers: list[list[tuple[int, Batch]]] = []
        self.storage.read_history(first, last, bytes_max, answers.append)
        assert not answers, "answered before read_history returned"
        self.clock.run_until(lambda: bool(answers))
        return answers[0]


class Gate:
    """A gate in front of each group that the writer's thread writes: counts groups, holds them back, makes their writes
    fail."""

    def __init__(self) -> None:
        self.arrived = Event()
        self.open = Event()
        self.open.set()
        self.error: Exception | None = None
        self.writes = 0
        self.on_write: Callable[[], None] = lambda: None

    def pass_through(self) -> None:
        self.writes += 1
        self.arrived.set()
        self.open.wait(10)
        self.on_write()
        if self.error is not None:
            raise self.error

    def guard(self, case: SynchronousTestCase) -> None:
        """Put the gate in front of each group that is written from now on."""
        write = DurableFile.write

        def guarded(file: DurableFile, pieces: Sequence[Piece], offset: int) -> None:
            if current_thread().name == "pfsb storage writer":
                self.pass_through()
            write(file, pieces, offset)

        case.patch(DurableFile, "write", guarded)


def batch(text: str) -> Batch:
    return Batch(text.encode())


def slot_records(seqs: Sequence[int], view: int = 1) -> list[Record]:
    return [ProposalRecord(seq, view, batch(f"slot {seq}")) for seq in seqs]


def ordered_to(local_aru: int) -> list[Record]:
    """Slots 1..local_aru, and the record that says they are ordered."""
    slots: list[Record] = [OrderedRecord(seq, batch(f"slot {seq}")) for seq in range(1, local_aru + 1)]
    return [*slots, AruRecord(local_aru)]


def plain(recovered: Recovered) -> tuple[object, ...]:
    """All of a recovery that is equal for two storages with the same records: identities differ by chance."""
    return (
        recovered.incarnation,
        recovered.last_attempted,
        recovered.last_installed,
        recovered.local_aru,
        list(recovered.ordered),
        recovered.accepted,
        recovered.peers,
        recovered.passes,
        *(() if recovered.snapshot is None else (recovered.snapshot, b"".join(recovered.snapshot_bytes))),
    )
