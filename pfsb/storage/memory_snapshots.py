"""Snapshots on a `MemoryDisk`, written in the same steps as on a real disk, each of which takes time by the clock.

A crash may come between any two steps. Bytes that were given to a file are on the disk after one step; the file has its
name after the next one, and the server is told of that after a third.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pfsb.paxos.interfaces import IFetchedSnapshot, ISnapshotFile
from pfsb.paxos.snapshot import Piece, SnapshotDecoder, SnapshotEncoder, SnapshotName, WrongSnapshot
from pfsb.storage.counters import StorageCounters

OPEN_MAX: Final = 4
"""Maximum number of snapshots that can be read although they were deleted, like files on a real disk that are still
open."""


class IMemoryDisk(Protocol):
    """The part of a `MemoryDisk` that holds snapshots."""

    snapshots: dict[SnapshotName, bytes]
    parts: dict[SnapshotName, bytes]

    def is_another_named(self, name: SnapshotName) -> bool:
        """Whether a record names another snapshot of the same slot as `name`."""


def is_right(data: bytes, name: SnapshotName) -> bool:
    """Whether these bytes are the snapshot of this name."""
    decoder = SnapshotDecoder()
    try:
        for _ in decoder.feed(data):
            pass
    except WrongSnapshot:
        return False
    return decoder.is_complete and decoder.name == name


@define(eq=False)
class Steps:
    """Does the steps of work on snapshots one after the other, as the thread of a real storage does.

    Each step takes as many seconds as `sync_seconds()` returns. `fails` is called at the end of each step, and returns
    True if the storage has failed in it; then no further step is done.
    """

    _clock: IReactorTime
    _sync_seconds: Callable[[], float]
    _fails: Callable[[], bool]
    _waiting: deque[Callable[[], None]] = field(factory=deque, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)
    _hangs: bool = field(default=False, init=False)
    _has_stopped: bool = field(default=False, init=False)

    def do(self, step: Callable[[], None]) -> None:
        """Do `step` after all steps that were given before."""
        if self._has_stopped:
            return
        self._waiting.append(step)
        if len(self._waiting) == 1:
            self._begin(self._sync_seconds())

    def hang(self) -> None:
        """Let no step end from now on, until `go_on`."""
        self._hangs = True
        self._cancel()

    def go_on(self) -> None:
        self._hangs = False
        if self._waiting:
            self._begin(0.0)

    def stop(self) -> None:
        """Drop all steps that are not done yet."""
        self._cancel()
        self._waiting.clear()
        self._has_stopped = True

    def _begin(self, seconds: float) -> None:
        if not self._hangs:
            self._call = self._clock.callLater(seconds, self._end)

    def _end(self) -> None:
        self._call = None
        if self._fails():
            return
        step = self._waiting.popleft()
        step()
        if self._waiting and self._call is None:
            self._begin(self._sync_seconds())

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


@define(eq=False)
class MemorySnapshots:
    """The snapshots of one incarnation of a server. `is_full()` says whether the disk has no room for them."""

    _log: ClassVar[Logger] = Logger()

    disk: IMemoryDisk
    steps: Steps
    is_full: Callable[[], bool]
    counters: StorageCounters
    _made: MemorySnapshotFile | None = field(default=None, init=False)
    fetched: MemoryFetchedSnapshot | None = field(default=None, init=False)
    """The snapshot that is fetched at present, or was fetched last."""
    _read: OrderedDict[SnapshotName, bytes] = field(factory=OrderedDict, init=False)
    """The snapshots that were read last, `OPEN_MAX` at most: they can be read although they were deleted meanwhile."""

    def write(self, seq: int, cluster_identity: bytes) -> MemorySnapshotFile:
        """Begin the file of a snapshot that this server makes (`IStableStorage.write_snapshot`)."""
        if self._made is not None:
            self._made.abandon()
        self._made = MemorySnapshotFile(self, SnapshotEncoder(seq, cluster_identity))
        return self._made

    def fetch(self, name: SnapshotName) -> MemoryFetchedSnapshot:
        """Begin, or go on with, the file of a snapshot that another server sends (`IStableStorage.fetch_snapshot`)."""
        present = self.fetched
        if present is not None and present.name == name and not present.is_over:
            return present
        if present is not None:
            present.put_aside()
        parts = self.disk.parts
        if len(parts.get(name, b"")) > name.size:
            del parts[name]
        longest = max((other for other in parts if other != name), key=lambda other: len(parts[other]), default=None)
        for other in [other for other in parts if other not in (name, longest)]:
            del parts[other]
        self.fetched = MemoryFetchedSnapshot(self, name, self._size(name))
        return self.fetched

    def read(self, name: SnapshotName, offset: int, bytes_max: int) -> bytes:
        """Read bytes of a snapshot, as `IStableStorage.read_snapshot` passes them to its callback."""
        data = self._read.get(name, self.disk.snapshots.get(name))
        if data is None:
            return b""
        self._read[name] = data
        self._read.move_to_end(name)
        if len(self._read) > OPEN_MAX:
            self._read.popitem(last=False)
        return data[offset : offset + bytes_max]

    def named(self, name: SnapshotName, delete: Callable[[], None]) -> None:
        """Called when a record on the disk names this snapshot; `delete`, called later, deletes the slots and snapshots
        that it replaces."""
        if self.fetched is not None and self.fetched.name.seq <= name.seq:
            self.fetched.give_up()
        for other in [other for other in self.disk.parts if other.seq <= name.seq]:
            del self.disk.parts[other]
        self.steps.do(lambda: self._delete(delete))

    def complete(self, name: SnapshotName, data: bytes) -> None:
        self.disk.snapshots[name] = data
        self.count_bytes()

    def count_bytes(self) -> None:
        self.counters.snapshot_bytes = sum(map(len, self.disk.snapshots.values()))

    def given_up(self, seq: int, reason: str) -> None:
        self._log.warn("storage: the snapshot of slot {seq} is given up: {reason}", seq=seq, reason=reason)

    def _size(self, name: SnapshotName) -> int:
        return name.size if name in self.disk.snapshots else len(self.disk.parts.get(name, b""))

    def _delete(self, delete: Callable[[], None]) -> None:
        delete()
        self.count_bytes()


@implementer(ISnapshotFile)
@define(eq=False)
class MemorySnapshotFile:
    """The file of a snapshot that this server makes. A crash before its end leaves nothing of it."""

    _snapshots: MemorySnapshots
    _encoder: SnapshotEncoder
    has_failed: bool = field(default=False, init=False)
    waiting_bytes: int = field(default=0, init=False)
    _waiting: list[Piece] = field(factory=list, init=False)
    _data: bytearray = field(factory=bytearray, init=False)
    _is_over: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._data += self._encoder.head()

    def write(self, piece: Piece) -> None:
        if self._is_over:
            return
        if not self._waiting:
            self._snapshots.steps.do(self._write)
        self._waiting.append(piece)
        self.waiting_bytes += len(piece.data)

    def finish(self, finished: Callable[[SnapshotName], None]) -> None:
        if not self._is_over:
            self._snapshots.steps.do(lambda: self._end(finished))

    def abandon(self) -> None:
        self._is_over = True
        self._waiting, self.waiting_bytes = [], 0

    def _write(self) -> None:
        if self._has_room():
            for piece in self._waiting:
                self._data += self._encoder.piece(piece)
            self._waiting, self.waiting_bytes = [], 0

    def _end(self, finished: Callable[[SnapshotName], None]) -> None:
        if not self._has_room():
            return
        data = bytes(self._data + self._encoder.end())
        name = self._encoder.name
        if self._snapshots.disk.is_another_named(name):
            self._give_up("there is another one of this slot already")
            return
        self._snapshots.complete(name, data)
        self._snapshots.steps.do(lambda: self._done(finished, name))

    def _has_room(self) -> bool:
        """Whether something may be written; the file is given up if the disk has no room."""
        if not self._is_over and self._snapshots.is_full():
            self._give_up("the disk has no more room than its reserve")
        return not self._is_over

    def _give_up(self, reason: str) -> None:
        self.abandon()
        self.has_failed = True
        self._snapshots.given_up(self._encoder.seq, reason)

    def _done(self, finished: Callable[[SnapshotName], None], name: SnapshotName) -> None:
        if not self._is_over:
            self._is_over = True
            finished(name)


@implementer(IFetchedSnapshot)
@define(eq=False)
class MemoryFetchedSnapshot:
    """The file of a snapshot that another server sends. A crash leaves the bytes that were written in whole steps, and
    perhaps the first bytes of the rest."""

    _snapshots: MemorySnapshots
    name: SnapshotName
    size: int
    has_failed: bool = field(default=False, init=False)
    waiting: bytes = field(default=b"", init=False)
    """The bytes that are not on the disk yet."""
    is_over: bool = field(default=False, init=False)
    """Whether nothing more is written: the file is complete, was found to be wrong, or was given up."""

    def write(self, data: bytes) -> None:
        if self.is_over or self.name in self._snapshots.disk.snapshots:
            return
        if not self.waiting:
            self._snapshots.steps.do(self._write)
        self.waiting += data
        self.size += len(data)

    def finish(self, finished: Callable[[bool], None]) -> None:
        if not self.is_over:
            self._snapshots.steps.do(lambda: self._check(finished))

    @property
    def waiting_bytes(self) -> int:
        return len(self.waiting)

    def put_aside(self) -> None:
        """Close the file, with the bytes that were given to it."""
        if not self.is_over:
            self.keep(len(self.waiting))
            self.waiting, self.is_over = b"", True

    def give_up(self) -> None:
        """Delete the file, which is not needed any more."""
        if not self.is_over:
            self.is_over = self.has_failed = True
            self.waiting = b""
            self._snapshots.disk.parts.pop(self.name, None)

    def keep(self, size: int) -> None:
        """Let the first `size` of the bytes that wait get to the disk, in a crash."""
        if size and not self.is_over:
            parts = self._snapshots.disk.parts
            parts[self.name] = parts.get(self.name, b"") + self.waiting[:size]

    def _write(self) -> None:
        if self._has_room():
            self.keep(len(self.waiting))
            self.waiting = b""

    def _check(self, finished: Callable[[bool], None]) -> None:
        if not self._has_room():
            return
        snapshots = self._snapshots
        disk = snapshots.disk
        right = self.name in disk.snapshots
        if not right:
            data = disk.parts.pop(self.name, b"")
            right = is_right(data, self.name) and not disk.is_another_named(self.name)
            if right:
                snapshots.complete(self.name, data)
        snapshots.steps.do(lambda: self._done(finished, right))

    def _has_room(self) -> bool:
        if not self.is_over and self._snapshots.is_full():
            self.give_up()
            self._snapshots.given_up(self.name.seq, "the disk has no more room than its reserve")
        return not self.is_over

    def _done(self, finished: Callable[[bool], None], right: bool) -> None:
        if not self.is_over:
            self.is_over = True
            finished(right)
