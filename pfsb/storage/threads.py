"""Two threads of a storage: one writes groups, one reads history and snapshots for servers that are behind.

Neither thread knows the reactor. Both call their callbacks from the thread itself, so a callback must use
`callFromThread` to reach the reactor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import ClassVar, Final, NamedTuple, Protocol

from attrs import define, field, frozen

from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Record
from pfsb.paxos.snapshot import SnapshotName
from pfsb.storage.durable import NoRoom
from pfsb.storage.effect import Effect, HistoryCallback, SnapshotCallback, batch_bytes
from pfsb.storage.room import Room
from pfsb.storage.worker import StorageThread


class IGroups(Protocol):
    """Writes groups, for a `GroupWriter`."""

    @property
    def position(self) -> int:
        """Number of groups that the storage has written in its whole life; see `IStableStorage.position`."""

    def write(self, effect: Effect) -> None:
        """Write a group; it is on disk when this method returns.

        Raises `NoRoom` if the disk is full; then the same group may be written again. After any other exception nothing
        more may be written.
        """

    def close(self) -> None: ...


class IHistory(Protocol):
    """Reads history, for a `HistoryReader`."""

    def read(self, first: int, last: int, bytes_max: int) -> list[tuple[int, Batch]]:
        """Read ordered slots from `first` to `last`, as `IStableStorage.read_history` passes them to its callback."""

    def close(self) -> None: ...


class ISnapshots(Protocol):
    """Reads bytes of complete snapshots, for a `HistoryReader`."""

    def read(self, name: SnapshotName, path: Path | None, offset: int, bytes_max: int) -> bytes:
        """Read bytes of a snapshot, as `IStableStorage.read_snapshot` passes them to its callback. `path` is where it
        lies; None: it was deleted."""

    def close(self) -> None:
        """Close the open file. A later read may open it again."""


class WrittenGroup(NamedTuple):
    """A group that the writer has just put on disk: the last sync in it, its number of records, the bytes of their
    batches, how many seconds the write took, and the position of the storage.
    """

    write: int
    """The number of the last `sync` whose records are in the group, as `Acknowledgements` counts them."""
    records: int
    batch_bytes: int
    seconds: float
    position: int
    """Number of groups that the storage has written in its whole life, this one included; see
    `IStableStorage.position`."""


class _Look(NamedTuple):
    """Stands in the queue of the writer for a check of how much space the file system has left."""


class _Write(NamedTuple):
    number: int
    records: Sequence[Record]


@define(eq=False)
class GroupWriter(StorageThread):
    """The thread that writes groups of records, one after the other: each group has the records of all syncs that
    waited when it was begun.

    The syncs that come in while a group is being written form the next group, so group commit needs no timer.

    The first exception ends the thread: after a failed write the content of the disk is unknown, and a second attempt
    could report data as durable that the kernel has already dropped. A write that is refused because the disk is full
    does not end it: the whole group is written again when there is room, so that nothing depends on what has become of
    the first attempt (Departure 45).
    """

    thread_name: ClassVar[str] = "pfsb storage writer"
    _groups: IGroups
    _seconds: Callable[[], float]
    _written: Callable[[WrittenGroup], None]
    _room: Room
    _room_seen: Callable[[bool], None]
    """Called with True if the disk is full, else with False: after each look at its room, and when a write was
    refused."""
    _ended: Callable[[], None] = lambda: None
    """Called in the thread, as the last thing, when the thread ends without a failure. The function may wait for the
    disk."""
    _queue: SimpleQueue[_Write | _Look | None] = field(factory=SimpleQueue, init=False)
    _ends: Event = field(factory=Event, init=False)
    _busy_since: float | None = field(default=None, init=False)
    """Time, by `_seconds`, at which the thread began with its present write or its present look at the room of the
    disk; None: the thread waits for work."""

    def start(self) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS_MAX))
        super().start()

    def write(self, number: int, records: Sequence[Record]) -> None:
        self._queue.put(_Write(number, records))

    def look(self) -> None:
        """Let the thread look at the room of the disk, once it has written all that waits, and report it
        (`_room_seen`).
        """
        self._queue.put(_Look())

    @property
    def busy_seconds(self) -> float:
        """How long, in seconds, the thread has been busy with the present write, the call of the function that is told
        of it included, since that function may wait for the disk, too; 0.0: the thread waits for work.
        """
        since = self._busy_since
        return 0.0 if since is None else self._seconds() - since

    def begin_stop(self) -> None:
        """Let the thread finish all waiting writes, close the files and end. A group for which the disk has no room
        is given up."""
        self._ends.set()
        self._queue.put(None)

    def work(self) -> None:
        while self._write_waiting():
            pass
        self._groups.close()
        self._ended()

    def _write_waiting(self) -> bool:
        """Wait until the records of a sync are queued, and write them together with those of all other syncs in the
        queue.

        They make one group, or several if they are large.

        Returns False if the thread has to end.
        """
        taken = [self._queue.get()]
        while not self._queue.empty():
            taken.append(self._queue.get())
        self._busy_since = self._seconds()
        writes = [item for item in taken if isinstance(item, _Write)]
        if not all(map(self._write_group, _groups(writes))):
            return False
        if len(writes) < len(taken) and any(isinstance(item, _Look) for item in taken):
            self._room_seen(self._room.look())
        self._busy_since = None
        return None not in taken and not (self._ends.is_set() and self._room.is_full)

    def _write_group(self, writes: Sequence[_Write]) -> bool:
        """Write a group. Returns False if it was given up; then no later one may be written."""
        records = [record for write in writes for record in write.records]
        effect = Effect()
        effect.apply_all(records)
        begun = self._busy_since = self._seconds()
        if not self._write(effect):
            return False
        seconds = self._seconds() - begun
        self._written(
            WrittenGroup(writes[-1].number, len(records), batch_bytes(records), seconds, self._groups.position)
        )
        return True

    def _write(self, effect: Effect) -> bool:
        """Write a group; while the disk has no room for it, try again and again. Returns False if the thread has to end
        meanwhile."""
        while True:
            try:
                self._groups.write(effect)
                return True
            except NoRoom:
                pass
            self._room.write_refused()
            self._room_seen(True)
            if self._ends.wait(FULL_SECONDS):
                return False


def _groups(writes: Sequence[_Write]) -> Iterator[Sequence[_Write]]:
    """Cut the writes into groups: each has at most `GROUP_BYTES` bytes of batches, or is a single write."""
    begin = size = 0
    for at, write in enumerate(writes):
        size += batch_bytes(write.records)
        if size > GROUP_BYTES and at > begin:
            yield writes[begin:at]
            begin, size = at, batch_bytes(write.records)
    if writes:
        yield writes[begin:]


GROUP_BYTES: Final = 1_048_576
"""Maximum total size of the batches, in bytes, of waiting writes that are put into one group. A server that is behind
reads single slots later, and a group is read as a whole."""
FULL_SECONDS = 0.5
"""How long, in seconds, the writer waits before it tries again to write a group for which the disk had no room."""
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


@frozen
class _ReadSnapshot:
    name: SnapshotName
    path: Path | None
    offset: int
    bytes_max: int
    found: SnapshotCallback


class _CloseSnapshot(NamedTuple):
    """Stands in the queue of the reader for the closing of the snapshot that was read last."""


@define(eq=False)
class HistoryReader(StorageThread):
    """The thread that reads ranges of the history and bytes of snapshots, one after the other, while the writer goes on
    writing."""

    thread_name: ClassVar[str] = "pfsb storage reader"
    _history: IHistory
    _snapshots: ISnapshots
    _found: Callable[[HistoryCallback, list[tuple[int, Batch]]], None]
    _found_snapshot: Callable[[SnapshotCallback, bytes], None]
    _queue: SimpleQueue[_Read | _ReadSnapshot | _CloseSnapshot | None] = field(factory=SimpleQueue, init=False)

    def read(self, first: int, last: int, bytes_max: int, found: HistoryCallback) -> bool:
        """Queue the reading of the ordered slots from `first` to `last`, for a call of `found` with them.

        Returns False, and queues nothing, if `READS_WAITING_MAX` ranges wait already.
        """
        if self._queue.qsize() >= READS_WAITING_MAX:
            return False
        self._queue.put(_Read(first, last, bytes_max, found))
        return True

    def read_snapshot(
        self, name: SnapshotName, path: Path | None, offset: int, bytes_max: int, found: SnapshotCallback
    ) -> bool:
        """Queue the reading of bytes of a snapshot, for a call of `found` with them. `path` is where it lies; None: it
        was deleted. Returns False, and queues nothing, as `read` does."""
        if self._queue.qsize() >= READS_WAITING_MAX:
            return False
        self._queue.put(_ReadSnapshot(name, path, offset, bytes_max, found))
        return True

    def close_snapshot(self) -> None:
        """Have the snapshot closed that was read last: if it was deleted, its bytes leave the disk then."""
        self._queue.put(_CloseSnapshot())

    def begin_stop(self) -> None:
        """Let the thread read all that is queued, close its files and end."""
        self._queue.put(None)

    def work(self) -> None:
        while (read := self._queue.get()) is not None:
            if isinstance(read, _Read):
                self._found(read.found, self._history.read(read.first, read.last, read.bytes_max))
            elif isinstance(read, _ReadSnapshot):
                data = self._snapshots.read(read.name, read.path, read.offset, read.bytes_max)
                self._found_snapshot(read.found, data)
            else:
                self._snapshots.close()
        self._history.close()
        self._snapshots.close()


READS_WAITING_MAX = 64
"""Maximum number of ranges of the history and of snapshots that may wait to be read.

Requests beyond it are answered with an empty list; the server that wanted the range then asks another server.
"""
