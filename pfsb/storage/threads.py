"""The two threads of a SQLite storage: one writes groups, one reads history for servers that are behind.

Neither thread knows the reactor. Both call their callbacks from the thread itself, so a callback must use
`callFromThread` to reach the reactor.
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
    """A group that was written as one transaction."""

    write: int
    """The number of the last write in the group. A write is the records of one `sync`; `Acknowledgements` numbers
    writes."""
    records: int
    batch_bytes: int
    seconds: float
    position: int
    """Number of groups that the storage has written in its whole life, this one included; see
    `IStableStorage.position`."""


class _Write(NamedTuple):
    number: int
    records: Sequence[Record]


@define(eq=False)
class GroupWriter:
    """The thread that writes: it takes the records of all syncs that wait, and writes them as one transaction, again
    and again.

    The syncs that come in while a transaction is being written form the next transaction, so group commit needs no
    timer. The first exception ends the thread. After a failed write the content of the disk is unknown, and a second
    attempt could report as durable data that the kernel has already dropped. For the same reason the database is not
    closed after a failure: closing would write once more.
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
        """Finish all waiting writes and close the database; False if that has not happened within the timeout."""
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
        """Wait for the records of a sync, and write them together with those of all other syncs that wait by then.

        Returns False if the thread has to end.
        """
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
        position = self._database.views.position
        self._written(WrittenGroup(writes[-1].number, len(records), batch_bytes(records), seconds, position))


SWITCH_SECONDS_MAX = 0.0001
"""How long, in seconds, a thread waits at most for Python's global interpreter lock before it demands the lock.

Python's default is 0.005. A reactor that makes a system call every few milliseconds and computes in between releases
the lock and takes it again before the writer's thread has woken up, and each time the writer's wait begins anew. In a
test of that, one write took up to ten seconds with the default, and ten milliseconds with this value.
"""


@frozen
class _Read:
    first: int
    last: int
    bytes_max: int
    found: HistoryCallback


@define(eq=False)
class HistoryReader:
    """The thread that reads: ranges of history, one after the other, while the writer goes on writing."""

    _database: ReadingDatabase
    _found: Callable[[HistoryCallback, list[tuple[int, Batch]]], None]
    _failed: Callable[[Failure], None]
    _queue: SimpleQueue[_Read | None] = field(factory=SimpleQueue, init=False)
    _thread: Thread = field(init=False)

    def start(self) -> None:
        self._thread = Thread(target=self._run, name="pfsb storage reader", daemon=True)
        self._thread.start()

    def read(self, first: int, last: int, bytes_max: int, found: HistoryCallback) -> bool:
        """Queue the reading of the ordered slots from `first` to `last`, for a call of `found` with them.

        Returns False, and queues nothing, if `READS_WAITING_MAX` ranges wait already.
        """
        if self._queue.qsize() >= READS_WAITING_MAX:
            return False
        self._queue.put(_Read(first, last, bytes_max, found))
        return True

    def stop(self, timeout_seconds: float) -> bool:
        """Read all queued ranges and close the database; False if that has not happened within the timeout."""
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
"""Maximum number of ranges that may wait to be read.

Requests beyond it are answered with an empty list; the server that wanted the range then asks another one.
"""
