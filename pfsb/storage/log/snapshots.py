"""The snapshots of a running server on disk: files that are made or fetched, and what is deleted behind a new one.

All methods of `SnapshotStore` and of the two kinds of files are called in the reactor, but for those that say
otherwise. The work itself is done by the thread `SnapshotThread`, in the order in which it was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import ClassVar, Final

from attrs import define, field
from twisted.logger import Logger
from zope.interface import implementer

from pfsb.paxos.interfaces import IFetchedSnapshot, ISnapshotFile
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.storage.counters import StorageCounters
from pfsb.storage.directory import sync_directory
from pfsb.storage.durable import NoRoom, lacks_room, sync_data
from pfsb.storage.log.archive import Archive
from pfsb.storage.log.snapshot_files import SnapshotFiles, fault_of
from pfsb.storage.room import Room
from pfsb.storage.worker import StorageThread

STEP_BYTES: Final = 262_144
"""Number of bytes of a snapshot that are written and forced to disk at once: a group that waits for the same disk waits
for one such step."""
PAUSE_SECONDS: Final = 0.002
"""How long, in seconds, the thread pauses after each step, and before each file that it deletes."""


class _OtherSnapshot(Exception):
    """Raised in the thread if a record names another snapshot of the same slot, whose file must stay."""


@define(eq=False)
class SnapshotThread(StorageThread):
    """The thread that writes snapshots, and deletes what they have made superfluous. The first exception ends it."""

    thread_name: ClassVar[str] = "pfsb storage snapshots"
    _queue: SimpleQueue[Callable[[], None] | None] = field(factory=SimpleQueue, init=False)
    ends: Event = field(factory=Event, init=False)
    """Set when the thread has to end soon: from then on no more bytes of snapshots are written."""
    open_files: set[GrowingFile] = field(factory=set, init=False)
    """The files that are open, to be closed when the thread ends. Used in the thread."""

    def do(self, job: Callable[[], None]) -> None:
        """Call `job` in the thread, after all jobs that were given before."""
        self._queue.put(job)

    def pause(self) -> None:
        """Called in the thread: leave the disk to the writer of groups for a moment."""
        self.ends.wait(PAUSE_SECONDS)

    def begin_stop(self) -> None:
        """Let the thread end. Bytes of snapshots that wait are not written; files that wait to be deleted are."""
        self.ends.set()
        self._queue.put(None)

    def work(self) -> None:
        while (job := self._queue.get()) is not None:
            job()
        for file in list(self.open_files):
            file.close()


@define(eq=False)
class GrowingFile:
    """A file that is written from its beginning to its end, and forced to disk in small steps. Used in the thread."""

    path: Path
    _thread: SnapshotThread
    _room: Room
    _size: int = 0
    """Size, in bytes, of the part of the file that was there when it was opened."""
    _descriptor: int = field(default=-1, init=False)
    _unforced: int = field(default=0, init=False)
    """Number of bytes that were written and not forced to disk yet."""

    def open(self) -> None:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self._size else os.O_TRUNC)
            self._descriptor = os.open(self.path, flags, 0o644)
            self._thread.open_files.add(self)

    def write(self, data: bytes) -> None:
        """Add bytes at the end. Raises `NoRoom` if they would take the reserve of the disk, or OSError."""
        try:
            self.open()
            rest = memoryview(data)
            while rest:
                step = rest[: STEP_BYTES - self._unforced]
                if self._room.is_full or not self._room.has(len(step)):
                    raise NoRoom("the disk has no more room than its reserve")
                written = os.pwrite(self._descriptor, step, self._size)
                rest = rest[written:]
                self._size += written
                self._unforced += written
                if self._unforced >= STEP_BYTES:
                    self._force()
                    self._thread.pause()
        except OSError as error:
            if lacks_room(error):
                raise NoRoom(str(error)) from error
            raise

    def finish(self, path: Path) -> None:
        """Force the file to disk and give it this name, which is on disk, too, when the method returns."""
        try:
            self.open()
            os.fsync(self._descriptor)
            self.close()
            os.rename(self.path, path)
            sync_directory(path.parent)
        except OSError as error:
            if lacks_room(error):
                raise NoRoom(str(error)) from error
            raise

    def force(self) -> None:
        """Force all that was written to disk."""
        if self._descriptor >= 0:
            self._force()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._thread.open_files.discard(self)

    def delete(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def _force(self) -> None:
        sync_data(self._descriptor)
        self._unforced = 0


@define(eq=False)
class SnapshotStore:
    """All snapshots of one storage. `snapshot` is the one that a record on disk names."""

    _log: ClassVar[Logger] = Logger()

    files: SnapshotFiles
    thread: SnapshotThread
    room: Room
    in_reactor: Callable[..., None]
    counters: StorageCounters
    snapshot: SnapshotName | None
    lost: Callable[[SnapshotName, str], None]
    """Called in the reactor when the file of the present snapshot is found missing or damaged: with the name of the
    snapshot, and its fate in words. From then on the store has no present snapshot."""
    archive: Archive | None = None
    """The archive, to which snapshots go that were named by a record and that a later one has replaced; None: they are
    deleted."""
    is_silent: bool = field(default=False, init=False)
    """Whether the storage was closed or has failed, so that no callback is called any more."""
    _complete: set[SnapshotName] = field(factory=set, init=False)
    """All snapshots whose files are complete and on disk."""
    _parts: dict[SnapshotName, int] = field(factory=dict, init=False)
    """Snapshots of which parts were fetched, at this start of the server or an earlier one, except the present one ->
    the size, in bytes, of their files."""
    _looks: bool = field(default=False, init=False)
    """Whether the thread was asked to look at the file of the present snapshot, and has not answered yet."""
    _seen: dict[SnapshotName, tuple[int, ...]] = field(factory=dict, init=False)
    """Snapshot -> the marks of its file (`_marks_of`) when the file was complete, or was looked at last. Used in the
    thread."""
    _made: SnapshotFile | None = field(default=None, init=False)
    _fetched: FetchedSnapshot | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.snapshot is not None:
            self._complete.add(self.snapshot)
        self._parts = self.files.fetched()
        self.count_bytes()

    def path(self, name: SnapshotName) -> Path | None:
        """The path of this snapshot; None: it is not complete, or was deleted."""
        return self.files.path(name.seq) if name in self._complete else None

    def write(self, seq: int, cluster_identity: bytes) -> SnapshotFile:
        """Begin the file of a snapshot that this server makes (`IStableStorage.write_snapshot`)."""
        if self._made is not None:
            self._made.abandon()
        self._made = SnapshotFile(self, SnapshotEncoder(seq, cluster_identity))
        return self._made

    def fetch(self, name: SnapshotName) -> FetchedSnapshot:
        """Begin, or go on with, the file of a snapshot that another server sends (`IStableStorage.fetch_snapshot`)."""
        present = self._fetched
        if present is not None and present.name == name and not present.is_over:
            return present
        if present is not None and present.put_aside():
            self._parts[present.name] = present.size
        size = self._parts.pop(name, 0)
        if size > name.size:
            size = 0
        # Servers have different snapshots at times. The parts of another one that have come are kept, since the server
        # that sends the present one may fall silent, too: so one of two fetches in turn comes to its end.
        longest = max(self._parts, key=lambda other: self._parts[other], default=None)
        self._drop_parts([other for other in self._parts if other != longest])
        self._fetched = FetchedSnapshot(self, name, name.size if name in self._complete else size)
        return self._fetched

    def named(self, name: SnapshotName, drop: Callable[[], None]) -> None:
        """Take notice that a record on disk names this snapshot: all older ones are deleted. `drop` is called in the
        thread before that; it deletes the part of the log that is not needed any more."""
        former, self.snapshot = self.snapshot, name
        if self._fetched is not None and self._fetched.name.seq <= name.seq:
            self._fetched.give_up()
        self._drop_parts([other for other in self._parts if other.seq <= name.seq])
        older = [other for other in self._complete if other.seq < name.seq]
        self._complete.difference_update(older)
        self.thread.do(drop)
        if self.archive is not None and former in older:
            # The other snapshots were never named by a record, so no majority may have executed the same (Departure
            # 56).
            older.remove(former)
            self.thread.do(partial(self._to_archive, self.archive, self.files.path(former.seq)))
        self.thread.do(partial(self._delete, [self.files.path(other.seq) for other in older]))

    def _drop_parts(self, names: list[SnapshotName]) -> None:
        for name in names:
            del self._parts[name]
        if names:
            self.thread.do(partial(self._delete, [self.files.fetched_path(name) for name in names]))

    def forget_parts(self, name: SnapshotName) -> None:
        """Called when the file of this snapshot, whose fetching was put aside, has been deleted."""
        self._parts.pop(name, None)

    def completed(self, name: SnapshotName) -> None:
        """Called when the file of this snapshot is complete and on disk."""
        self._complete.add(name)

    def given_up(self, seq: int, reason: str) -> None:
        self._log.warn("storage: the snapshot of slot {seq} is given up: {reason}", seq=seq, reason=reason)

    def stop(self) -> None:
        """Call no callback from now on: the storage was closed or has failed."""
        self.is_silent = True

    def is_another_named(self, name: SnapshotName) -> bool:
        """Whether a record names another snapshot of the same slot as `name`. Called in the thread."""
        return self.snapshot is not None and self.snapshot.seq == name.seq and self.snapshot != name

    def look(self, *, reads_all: bool = False) -> None:
        """Have the thread look whether the file of the present snapshot is there and the same as before. With
        `reads_all`, or if it is another one, the whole file is checked."""
        name = self.snapshot
        if name is not None and (reads_all or not self._looks):
            self._looks = True
            self.thread.do(partial(self._look, name, reads_all))

    def _look(self, name: SnapshotName, reads_all: bool) -> None:
        """Look at the file of a snapshot, in the thread, and tell the reactor of a fault."""
        self.in_reactor(self._looked, name, None if self.thread.ends.is_set() else self._fate(name, reads_all))

    def _fate(self, name: SnapshotName, reads_all: bool) -> str | None:
        """The fate of the file of a snapshot, in words; None: it is right, as far as it was looked at."""
        try:
            seen = _marks_of(self.files.path(name.seq))
            is_other = self._seen.get(name, seen) != seen
            self._seen = {other: marks for other, marks in self._seen.items() if other.seq > name.seq} | {name: seen}
            return self.files.fate(name) if reads_all or is_other else self.files.fate_by_size(name)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"not readable ({error.strerror})"

    def note_complete(self, name: SnapshotName) -> None:
        """Called in the thread when the file of a snapshot has got its name."""
        with suppress(FileNotFoundError):  # the next look finds that the file is gone
            self._seen[name] = _marks_of(self.files.path(name.seq))
        self.count_bytes()

    def _looked(self, name: SnapshotName, fate: str | None) -> None:
        self._looks = False
        if fate is not None and name == self.snapshot and not self.is_silent:
            self.snapshot = None
            self._complete.discard(name)
            self.lost(name, fate)

    def count_bytes(self) -> None:
        """Count the bytes of all complete snapshots anew. Called in the thread, or before it is started."""
        self.counters.snapshot_bytes = self.files.complete_bytes()

    def _to_archive(self, archive: Archive, path: Path) -> None:
        """Move the file of a snapshot into the archive; called in the thread."""
        archive.take((), (path,), 0)
        self.count_bytes()

    def _delete(self, paths: list[Path]) -> None:
        """Delete these files; called in the thread."""
        for path in paths:
            self.thread.pause()
            path.unlink(missing_ok=True)
        if paths:
            sync_directory(self.files.directory)
        self.count_bytes()


def _marks_of(path: Path) -> tuple[int, ...]:
    """Numbers of a file, one of which changes if it is replaced or written. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@implementer(ISnapshotFile)
@define(eq=False)
class SnapshotFile:
    """The file of a snapshot that this server makes."""

    _store: SnapshotStore
    _encoder: SnapshotEncoder
    """Encoder of the snapshot, used in the thread alone, but for its slot."""
    has_failed: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    """Whether nothing more is written: the file was abandoned or given up."""
    _file: GrowingFile = field(init=False)
    _given: int = field(default=0, init=False)
    """Number of bytes that were given to the file. Changed in the reactor alone, and `_written` in the thread alone."""
    _written: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        store = self._store
        self._file = GrowingFile(store.files.unfinished, store.thread, store.room)
        store.thread.do(self._begin)

    @property
    def waiting_bytes(self) -> int:
        return self._given - self._written

    def write(self, piece: Piece) -> None:
        if not self._is_over:
            self._given += len(piece.data)
            self._store.thread.do(partial(self._write, piece))

    def finish(self, finished: Callable[[SnapshotName], None]) -> None:
        if not self._is_over:
            self._store.thread.do(partial(self._finish, finished))

    def abandon(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._store.thread.do(self._delete)

    # In the thread

    def _begin(self) -> None:
        self._try(self._write_head)

    def _write_head(self) -> None:
        self._store.files.make_directory()
        self._file.write(self._encoder.head())

    def _write(self, piece: Piece) -> None:
        self._try(lambda: self._file.write(self._encoder.piece(piece)))
        self._written += len(piece.data)

    def _finish(self, finished: Callable[[SnapshotName], None]) -> None:
        self._try(lambda: self._end(finished))

    def _end(self, finished: Callable[[SnapshotName], None]) -> None:
        store = self._store
        self._file.write(self._encoder.end())
        name = self._encoder.name
        if store.is_another_named(name):
            raise _OtherSnapshot("there is another one of this slot already")
        self._file.finish(store.files.path(name.seq))
        store.note_complete(name)
        store.in_reactor(self._done, finished, name)

    def _try(self, step: Callable[[], None]) -> None:
        """Do a step of writing, unless the file is given up, or the thread has to end."""
        if self._is_over or self._store.thread.ends.is_set():
            return
        try:
            step()
        except (NoRoom, _OtherSnapshot) as error:
            self._is_over = self.has_failed = True
            self._delete()
            self._store.in_reactor(self._store.given_up, self._encoder.seq, str(error))

    def _delete(self) -> None:
        self._file.delete()

    # In the reactor

    def _done(self, finished: Callable[[SnapshotName], None], name: SnapshotName) -> None:
        self._store.completed(name)
        if not self._is_over and not self._store.is_silent:
            self._is_over = True
            finished(name)


@implementer(IFetchedSnapshot)
@define(eq=False)
class FetchedSnapshot:
    """The file of a snapshot that another server sends."""

    _store: SnapshotStore
    name: SnapshotName
    size: int
    has_failed: bool = field(default=False, init=False)
    is_over: bool = field(default=False, init=False)
    """Whether nothing more is written: the file is complete, was found to be wrong, or was given up."""
    is_put_aside: bool = field(default=False, init=False)
    """Whether another snapshot is fetched in place of this one."""
    _given: int = field(default=0, init=False)
    """Number of bytes that were given to the file. Changed in the reactor alone, and `_written` in the thread alone."""
    _written: int = field(default=0, init=False)
    _is_whole: bool = field(init=False)
    """Whether the snapshot is complete already, under its final name."""
    _file: GrowingFile = field(init=False)

    def __attrs_post_init__(self) -> None:
        store = self._store
        self._is_whole = store.path(self.name) is not None
        self._file = GrowingFile(store.files.fetched_path(self.name), store.thread, store.room, self.size)
        if not self._is_whole:
            store.thread.do(self._begin)

    @property
    def waiting_bytes(self) -> int:
        return self._given - self._written

    def write(self, data: bytes) -> None:
        if not self.is_over and not self._is_whole:
            self.size += len(data)
            self._given += len(data)
            self._store.thread.do(partial(self._write, data))

    def finish(self, finished: Callable[[bool], None]) -> None:
        if not self.is_over:
            self._store.thread.do(partial(self._finish, finished))

    def give_up(self) -> None:
        """Delete the file, which is not needed any more."""
        if not self.is_over:
            self.is_over = self.has_failed = True
            self._store.thread.do(self._delete)

    def put_aside(self) -> bool:
        """Close the file, with the bytes that were given to it. Returns False if there is no unfinished file."""
        if self.is_over or self._is_whole:
            return False
        self.is_put_aside = True
        self._store.thread.do(self._close)
        return True

    # In the thread

    def _begin(self) -> None:
        self._try(self._open)

    def _open(self) -> None:
        self._store.files.make_directory()
        if not self._store.room.has(self.name.size - self.size):
            raise NoRoom(f"the disk has no room for its {self.name.size} bytes and the reserve")
        self._file.open()

    def _write(self, data: bytes) -> None:
        self._try(lambda: self._file.write(data))
        self._written += len(data)

    def _close(self) -> None:
        self.is_over = True
        self._file.force()
        self._file.close()

    def _finish(self, finished: Callable[[bool], None]) -> None:
        self._try(lambda: self._check(finished))

    def _check(self, finished: Callable[[bool], None]) -> None:
        store = self._store
        if self._is_whole:
            store.in_reactor(self._done, finished, True)
            return
        self._file.force()
        is_right = not store.is_another_named(self.name) and fault_of(self._file.path, self.name) is None
        if is_right:
            self._file.finish(store.files.path(self.name.seq))
            store.note_complete(self.name)
        else:
            self._delete()
        store.in_reactor(self._done, finished, is_right)

    def _try(self, step: Callable[[], None]) -> None:
        if self.is_over or self._store.thread.ends.is_set():
            return
        try:
            step()
        except NoRoom as error:
            self.is_over = self.has_failed = True
            self._delete()
            self._store.in_reactor(self._failed, str(error))

    def _delete(self) -> None:
        if not self._is_whole:
            self._file.delete()

    # In the reactor

    def _done(self, finished: Callable[[bool], None], is_right: bool) -> None:
        if is_right and not self._is_whole:
            self._store.completed(self.name)
        if self.is_put_aside:
            self._store.forget_parts(self.name)
        elif not self.is_over and not self._store.is_silent:
            self.is_over = True
            finished(is_right)

    def _failed(self, reason: str) -> None:
        if self.is_put_aside:
            self._store.forget_parts(self.name)
        self._store.given_up(self.name.seq, reason)
