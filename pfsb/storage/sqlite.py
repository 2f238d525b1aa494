"""Stable storage in one SQLite file, with group commit on a thread of its own (docs/internals/storage.rst)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.paxos.interfaces import IStableStorage, StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.records import Record, Recovered
from pfsb.storage.acknowledgements import Acknowledgements
from pfsb.storage.counters import StorageCounters
from pfsb.storage.database import (
    ReadingDatabase,
    StorageIdentity,
    StorageOwner,
    WritingDatabase,
    create,
    read_ordered,
    refuse_old_library,
)
from pfsb.storage.directory import DirectoryLock, DirectoryWatch
from pfsb.storage.effect import ORDERED_VIEW, HistoryCallback
from pfsb.storage.position_note import PositionNote, note_of
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN, unusable
from pfsb.storage.room import Room
from pfsb.storage.threads import GroupWriter, HistoryReader, WrittenGroup
from pfsb.storage.wal import acknowledged_commits_lost, log_of
from pfsb.support.limits import IDENTITY_BYTES

CLOSE_SECONDS_MAX = 10.0
"""How long, in seconds, `close` waits for each of the two threads to end. The reactor stands still in this time."""
CLOSE_SECONDS_MIN = 0.2
"""How long, in seconds, `close` waits at least for each thread, however long its disk has not answered."""
LOOK_SECONDS = 0.5
"""Time, in seconds, from one look at the room of the disk to the next.

If all servers have one disk, all of them must notice that it is full within a Progress_Timer, or the leader finds
itself without followers (Departure 45).
"""


class IStorageReactor(IReactorTime, IReactorFromThreads):
    """The parts of the reactor that a storage uses."""


@implementer(IStableStorage)
@define(eq=False)
class SQLiteStorage:
    """One server's stable storage, `<directory>/pfsb.sqlite3`.

    `cluster_digest` stands for the cluster's name and founding membership; the name and `members` (ids, ascending) are
    stored beside it to be shown to people. `random_bytes(n)` makes the identity of a new storage. `on_failure` is
    called once, in the reactor, with the first failure to write or to read. From then on nothing is written and no
    callback says that anything is durable; the server has to stop, because after a failed write the content of the disk
    is unknown. `reserve_bytes` is how much of the file system must be free: with less, `is_full` becomes true (`Room`).
    """

    _log: ClassVar[Logger] = Logger()

    _directory: Path
    _cluster_digest: bytes
    _cluster_name: str
    _server_id: int
    _reactor: IStorageReactor
    _random_bytes: Callable[[int], bytes]
    _on_failure: Callable[[Failure], None]
    _members: tuple[int, ...] = ()
    _reserve_bytes: int = 0
    counters: StorageCounters = field(factory=StorageCounters, init=False)
    position: int = field(default=0, init=False)
    is_full: bool = field(default=False, init=False)
    _lock: DirectoryLock = field(init=False)
    _acknowledgements: Acknowledgements = field(init=False)
    _appended: list[Record] = field(factory=list, init=False)
    _writer: GroupWriter | None = field(default=None, init=False)
    _reader: HistoryReader | None = field(default=None, init=False)
    _watch: DirectoryWatch | None = field(default=None, init=False)
    _note: PositionNote = field(init=False)
    """Set by `_check`, before anything is written."""
    _running: bool = field(default=False, init=False)
    """True from `recover` to `close` or a failure: records are taken."""
    _failed: bool = field(default=False, init=False)
    _looks: bool = field(default=False, init=False)
    """Whether the writer has been asked to look at the room of the disk, and has not answered yet."""
    _look_call: IDelayedCall | None = field(default=None, init=False)

    @_lock.default
    def _make_lock(self) -> DirectoryLock:
        return DirectoryLock(self._directory)

    @_acknowledgements.default
    def _make_acknowledgements(self) -> Acknowledgements:
        return Acknowledgements(self._fail)

    @property
    def path(self) -> Path:
        return self._directory / "pfsb.sqlite3"

    # IStableStorage

    def recover(self) -> Recovered:
        """Figure 14: read the server's state from disk; see `IStableStorage.recover`.

        Before this method returns it has checked owner and format, the whole file by SQLite's own check, the
        write-ahead log, every row above Local_Aru, and that no row up to Local_Aru is missing. The rows up to Local_Aru
        are checked while `Recovered.ordered` is read, which raises `StorageRefused` at a damaged row.
        """
        assert not self._running, "recover is called once"
        self._lock.acquire()
        try:
            recovered = self._recover()
        except (sqlite3.Error, OSError, ValueError) as error:
            self._lock.release()
            raise unusable(self.path, error) from error
        except StorageRefused:
            self._lock.release()
            raise
        self._running = True
        return recovered

    def refuse_if_unusable(self) -> None:
        """Raise the `StorageRefused` that `recover` would raise, as far as a quick look can tell.

        The incarnation is not increased and no thread is started. A directory without a database is usable.
        """
        refuse_old_library()
        if not self.path.exists():
            self._refuse_leftovers()
            return
        self._lock.acquire()
        try:
            self._make_or_find()
        except (sqlite3.Error, OSError, ValueError) as error:
            raise unusable(self.path, error) from error
        finally:
            self._lock.release()

    def add_pass(self, seq: int, digest: bytes, *, unseen: bool) -> None:
        """Store on disk that slot `seq`, whose batch has this digest, must be passed and not executed (Departure 38).

        The server must not be running. With `unseen` the batch need not be stored here: when the server learns which
        batch is ordered in the slot, it compares the digests. A digest that was stored for the slot before is replaced.
        Raises `StorageRefused`, and changes nothing, if the directory cannot be used or another batch is ordered in the
        slot.
        """
        if not self.path.exists():
            raise StorageRefused(f"{self.path}: missing; the data directory of a server that has run is needed")
        self._lock.acquire()
        try:
            self._make_or_find()
            database = WritingDatabase.open(self.path)
            try:
                _refuse_wrong_pass(self.path, database, seq, digest, unseen)
                database.add_pass(seq, digest)
            finally:
                database.close()
        except (sqlite3.Error, OSError, ValueError) as error:
            raise unusable(self.path, error) from error
        finally:
            self._lock.release()

    def append(self, record: Record) -> None:
        if self._running:
            self._appended.append(record)

    def sync(self, durable: Callable[[], None]) -> None:
        if not self._running:
            return
        self._hand_over()
        if self._acknowledgements.wait(durable):
            self._reactor.callLater(0, self._acknowledgements.release)

    def read_history(self, first: int, last: int, bytes_max: int, found: HistoryCallback) -> None:
        if not self._running:
            return
        assert self._reader is not None
        if not self._reader.read(first, last, bytes_max, found):
            self._reactor.callLater(0, self._answer, found, [])

    def forget_history(self, up_to: int) -> bool:
        """Keep the slots: a restart executes all of them again, since there are no snapshots yet."""
        return False

    def close(self) -> bool:
        """Let both threads finish the waiting reads and writes, and close the files; returns whether that was done.

        If a thread does not end, the directory stays locked, since the writer may still write there. A disk that hangs
        already is not waited for: a write may take `CLOSE_SECONDS_MAX`, counted from its beginning.
        """
        self._hand_over()
        self._running = False
        self._stop_looking()
        if self._watch is not None:
            self._watch.stop()
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        if reader is None or writer is None:
            self._lock.release()
            return True
        reader.begin_stop()
        writer.begin_stop()
        written = writer.has_stopped(max(CLOSE_SECONDS_MIN, CLOSE_SECONDS_MAX - writer.busy_seconds))
        if reader.has_stopped(CLOSE_SECONDS_MAX if written else CLOSE_SECONDS_MIN) and written:
            self._note.close()
            self._lock.release()
            return True
        self._log.error("storage: {path} does not answer; what was not acknowledged may be lost", path=str(self.path))
        return False

    # Start

    def _recover(self) -> Recovered:
        self._make_or_find()
        database = WritingDatabase.open(self.path)
        room = Room(self._directory, self._reserve_bytes)
        self.is_full = room.look()
        try:
            recovered = self._read(database)
            reading = ReadingDatabase.open(self.path)
        except BaseException:
            database.close()
            raise
        self._start_threads(database, reading, room)
        self._look_call = self._reactor.callLater(LOOK_SECONDS, self._look_at_room)
        return recovered

    def _make_or_find(self) -> None:
        """Make a new storage, or check the one that is there. What is refused is not changed."""
        refuse_old_library()
        log = log_of(self.path)
        if not self.path.exists():
            self._refuse_leftovers()
            create(self.path, StorageIdentity.new(self._owner(), self._random_bytes(IDENTITY_BYTES)))
        elif log.exists() and acknowledged_commits_lost(log):
            raise StorageRefused(
                f"{log}: damaged before its end, where acknowledged records stand; {MUST_NOT_VOTE_AGAIN}"
            )
        self._check()

    def _refuse_leftovers(self) -> None:
        """Raise `StorageRefused` if files are there that belong to a database which is not there any more."""
        for left, name in ((log_of(self.path), "log"), (note_of(self.path), "position note")):
            if left.exists():
                raise StorageRefused(
                    f"{self.path}: missing, although its {name} {left.name} is there; {MUST_NOT_VOTE_AGAIN}"
                )

    def _check(self) -> None:
        """Raise `StorageRefused` if the database is damaged, not this server's, or lacks what was in its log."""
        database = WritingDatabase.look(self.path)
        try:
            identity = database.identity()
            identity.check(self.path, self._owner())
            database.check_pages()
            position = database.read_views().position
        finally:
            database.close()
        self._note = PositionNote(note_of(self.path), bytes.fromhex(identity.storage_identity), self._reactor.seconds)
        if identity.incarnation == 0 and not self._note.path.exists():
            self._note.create(position)
        self._note.refuse_less(self.path, position)

    def _owner(self) -> StorageOwner:
        return StorageOwner(self._cluster_name, self._cluster_digest, self._members, self._server_id)

    def _read(self, database: WritingDatabase) -> Recovered:
        """Read and check the storage, and only then increase the incarnation: a refused storage is not changed."""
        identity = database.identity()
        views = database.read_views()
        database.check_history()
        accepted = database.accepted()
        peers = database.peers()
        passes = database.passes()
        identity = database.begin_incarnation(identity)
        self.position = database.views.position
        self._note.open(self.position)
        return Recovered(
            identity=bytes.fromhex(identity.storage_identity),
            incarnation=identity.incarnation,
            last_attempted=views.last_attempted,
            last_installed=views.last_installed,
            local_aru=views.local_aru,
            ordered=read_ordered(self.path, views.local_aru),
            accepted=accepted,
            peers=peers,
            passes=passes,
        )

    def _start_threads(self, database: WritingDatabase, reading: ReadingDatabase, room: Room) -> None:
        in_reactor = self._reactor.callFromThread
        self._writer = GroupWriter(
            database,
            self._reactor.seconds,
            self._written,
            lambda failure: in_reactor(self._fail, failure),
            room,
            lambda is_full: in_reactor(self._room_seen, is_full),
        )
        self._reader = HistoryReader(
            reading,
            lambda found, batches: in_reactor(self._answer, found, batches),
            lambda failure: in_reactor(self._fail, failure),
        )
        self._watch = DirectoryWatch(
            (self.path, log_of(self.path), self._note.path), lambda failure: in_reactor(self._fail, failure)
        )
        self._writer.start()
        self._reader.start()
        self._watch.start()

    # In the writer's thread

    def _written(self, group: WrittenGroup) -> None:
        """Tell the reactor, and then the position note: the reactor is not kept waiting for a guard that nothing rests
        on but the next start."""
        self._reactor.callFromThread(self._group_written, group)
        self._note.tell(group.position)

    # In the reactor

    def _look_at_room(self) -> None:
        """Have the writer look at the room of the disk, unless it is still busy with the last look."""
        self._look_call = self._reactor.callLater(LOOK_SECONDS, self._look_at_room)
        if self._running and self._writer is not None and not self._looks:
            self._looks = True
            self._writer.look()

    def _stop_looking(self) -> None:
        if self._look_call is not None:
            self._look_call.cancel()
            self._look_call = None

    def _room_seen(self, is_full: bool) -> None:
        self._looks = False
        self.is_full = is_full

    def _hand_over(self) -> None:
        if self._appended:
            assert self._writer is not None
            records, self._appended = self._appended, []
            self._writer.write(self._acknowledgements.new_write(), records)

    def _group_written(self, group: WrittenGroup) -> None:
        if self.counters.count(group.records, group.batch_bytes, group.seconds):
            self._log.warn(
                "storage: writing {records} records ({batch_bytes} bytes) took {seconds:.3f} s",
                records=group.records,
                batch_bytes=group.batch_bytes,
                seconds=group.seconds,
            )
        if not self._failed:
            self.position = group.position
            self._acknowledgements.reached(group.write)

    def _answer(self, found: HistoryCallback, batches: list[tuple[int, Batch]]) -> None:
        if not self._failed:
            found(batches)

    def _fail(self, failure: Failure) -> None:
        if not self._failed:
            self._failed = True
            self._running = False
            self._appended.clear()
            self._acknowledgements.forget()
            self._stop_looking()
            self._on_failure(failure)


def _refuse_wrong_pass(path: Path, database: WritingDatabase, seq: int, digest: bytes, unseen: bool) -> None:
    """Raise `StorageRefused` unless the slot may be left out here with this batch.

    A batch that was accepted here, and is not known as ordered, may yet be replaced by another one.
    """
    if database.passes().get(seq) == digest:
        raise StorageRefused(f"{path}: slot {seq} is left out already, with this digest")
    stored = database.slot(seq)
    if stored is not None and batch_digest(stored.batch.data) == digest:
        return
    is_ordered = stored is not None and (seq <= database.read_views().local_aru or stored.view == ORDERED_VIEW)
    if is_ordered or not unseen:
        found = (
            "is not here" if stored is None else f"holds the batch with digest {batch_digest(stored.batch.data).hex()}"
        )
        hint = "" if is_ordered else "; if this server was behind when the others stopped, give --unseen"
        raise StorageRefused(f"{path}: slot {seq} {found}{hint}")
