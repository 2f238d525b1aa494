"""The two threads of a SQLite storage: one writes groups, one reads history for servers that are behind.

Neither knows the reactor: what they call is expected to go over to it by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

from attrs import define, field, frozen
from twisted.python.failure import Failure

from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Record
from pfsb.storage.database import ReadingDatabase, WritingDatabase
from pfsb.storage.effect import Effect, HistoryCallback, batch_bytes


class WrittenGroup(NamedTuple):
    """What was written as one transaction."""

    write: int
    """The number of the last of its writes."""
    records: int
    batch_bytes: int
    seconds: float


class _Write(NamedTuple):
    number: int
    records: Sequence[Record]


@define(eq=False)
class GroupWriter:
    """Writes all that waits as one transaction, then again: group commit needs no timer.

    The first exception ends the thread: after a failed write nobody knows what the disk holds, and to try
    again could report as durable what the kernel has already given up. For the same reason the database is not closed
    then, which would write once more.
    """

    _database: WritingDatabase
    _seconds: Callable[[], float]
    _written: Callable[[WrittenGroup], None]
    _failed: Callable[[Failure], None]
    _queue: SimpleQueue[_Write | None] = field(factory=SimpleQueue, init=False)
    _thread: Thread = field(init=False)

    def start(self) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS_MAX))
        self._thread = Thread(target=self._run, name="pfsb storage writer", daemon=True)
        self._thread.start()

    def write(self, number: int, records: Sequence[Record]) -> None:
        self._queue.put(_Write(number, records))

    def stop(self, timeout_seconds: float) -> bool:
        """Write what waits and close the database; False if that has not happened within the timeout."""
        self._queue.put(None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            going_on = True
            while going_on:
                going_on = self._write_waiting()
            self._database.close()
        except Exception:
            self._failed(Failure())

    def _write_waiting(self) -> bool:
        """Wait for a write, take all others that are there with it; False after the last one."""
        taken = [self._queue.get()]
        while not self._queue.empty():
            taken.append(self._queue.get())
        writes = [write for write in taken if write is not None]
        if writes:
            self._write_group(writes)
        return len(writes) == len(taken)

    def _write_group(self, writes: Sequence[_Write]) -> None:
        records = [record for write in writes for record in write.records]
        effect = Effect()
        effect.apply_all(records)
        begun = self._seconds()
        self._database.write(effect)
        seconds = self._seconds() - begun
        self._written(WrittenGroup(writes[-1].number, len(records), batch_bytes(records), seconds))


SWITCH_SECONDS_MAX = 0.0001
"""How long a thread asks politely for Python's global lock; the interpreter's own value is 0.005.

A reactor that makes a system call every few milliseconds and computes in between lets go of the lock and takes it
again before the writer has woken up, and each time the writer's patience begins anew: with the interpreter's value one
write took up to ten seconds in such a test, with this one ten milliseconds.
"""


@frozen
class _Read:
    first: int
    last: int
    bytes_max: int
    found: HistoryCallback


@define(eq=False)
class HistoryReader:
    """Reads ranges of history, one after the other, while the writer goes on."""

    _database: ReadingDatabase
    _found: Callable[[HistoryCallback, list[tuple[int, Batch]]], None]
    _failed: Callable[[Failure], None]
    _queue: SimpleQueue[_Read | None] = field(factory=SimpleQueue, init=False)
    _thread: Thread = field(init=False)

    def start(self) -> None:
        self._thread = Thread(target=self._run, name="pfsb storage reader", daemon=True)
        self._thread.start()

    def read(self, first: int, last: int, bytes_max: int, found: HistoryCallback) -> bool:
        """Queue a range; False if too many wait already."""
        if self._queue.qsize() >= READS_WAITING_MAX:
            return False
        self._queue.put(_Read(first, last, bytes_max, found))
        return True

    def stop(self, timeout_seconds: float) -> bool:
        """Read what was asked for and close the database; False if that has not happened within the timeout."""
        self._queue.put(None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (read := self._queue.get()) is not None:
                self._found(read.found, self._database.read(read.first, read.last, read.bytes_max))
            self._database.close()
        except Exception:
            self._failed(Failure())


READS_WAITING_MAX = 64
"""More are answered with an empty list, and another server is asked."""
