"""Stable storage in a log, with group commit on a thread of its own (docs/internals/log.rst)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from pfsb.paxos.records import Accepted, Record, Recovered
from pfsb.storage import sqlite
from pfsb.storage.acknowledgements import Acknowledgements
from pfsb.storage.counters import StorageCounters
from pfsb.storage.directory import DirectoryLock, DirectoryWatch, sync_directory
from pfsb.storage.durable import NoRoom
from pfsb.storage.effect import ORDERED_VIEW, Effect, HistoryCallback
from pfsb.storage.log import migration
from pfsb.storage.log.groups import SALT_BYTES
from pfsb.storage.log.items import Content
from pfsb.storage.log.maker import SegmentMaker
from pfsb.storage.log.reader import LogReader
from pfsb.storage.log.scan import Log, scan, scan_end
from pfsb.storage.log.segments import SegmentHead, make_segment, room_of
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.owner import StorageOwner
from pfsb.storage.position_note import PositionNote, note_of
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN, unusable
from pfsb.storage.room import Room
from pfsb.storage.threads import GroupWriter, HistoryReader, WrittenGroup
from pfsb.support.limits import IDENTITY_BYTES, START_MARK_BYTES

CLOSE_SECONDS_MAX = 10.0
"""How long, in seconds, `close` waits for each of the three threads to end. The reactor stands still in this time."""
CLOSE_SECONDS_MIN = 0.2
"""Minimum time, in seconds, that `close` waits for each thread, even if its disk has not answered for long."""
LOOK_SECONDS = 0.5
"""Time, in seconds, from one look at the room of the disk to the next.

If all servers have one disk, all of them must notice that it is full within a Progress_Timer, or the leader finds
itself without followers (Departure 45).
"""


class IStorageReactor(IReactorTime, IReactorFromThreads):
    """The parts of the reactor that a storage uses."""


@implementer(IStableStorage)
@define(eq=False)
class LogStorage:
    """One server's stable storage, the log in `<directory>/log`.

    `cluster_digest` stands for the cluster's name and founding membership; the name and `members` (ids, ascending) are
    stored beside it to be shown to people. `random_bytes(n)` makes the identity of a new storage. `on_failure` is
    called once, in the reactor, with the first failure to write, to read or to make a segment, or when a file was
    deleted or replaced. From then on nothing is written and no callback says that anything is durable; the server has
    to stop, because after a failed write the content of the disk is unknown. `reserve_bytes` is how much of the file
    system must be free: with less, `is_full` becomes true (`Room`).
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
    lock: DirectoryLock = field(init=False)
    """Keeps other processes from the directory, from `recover` to `close` or a failure."""
    _acknowledgements: Acknowledgements = field(init=False)
    _appended: list[Record] = field(factory=list, init=False)
    _writer: GroupWriter | None = field(default=None, init=False)
    _reader: HistoryReader | None = field(default=None, init=False)
    _maker: SegmentMaker | None = field(default=None, init=False)
    _watch: DirectoryWatch | None = field(default=None, init=False)
    _note: PositionNote = field(init=False)
    """The position note: the file beside the storage that says how many groups the storage must hold. Set when the
    storage is checked, before any group is written."""
    _note_error: OSError | None = field(default=None, init=False)
    """Why the note could not be forced to disk at the end; None: it could, or this was not tried yet."""
    _running: bool = field(default=False, init=False)
    """Whether the storage takes records: from `recover` to `close` or a failure."""
    _failed: bool = field(default=False, init=False)
    _looks: bool = field(default=False, init=False)
    """Whether the writer has been asked to look at the room of the disk, and has not answered yet."""
    _look_call: IDelayedCall | None = field(default=None, init=False)

    @lock.default
    def _make_lock(self) -> DirectoryLock:
        return DirectoryLock(self._directory)

    @_acknowledgements.default
    def _make_acknowledgements(self) -> Acknowledgements:
        return Acknowledgements(self._fail)

    @property
    def path(self) -> Path:
        return self._directory / "log"

    @property
    def old_path(self) -> Path:
        """The path of the database that earlier versions of pfsb had in place of the log."""
        return migration.old_files(self._directory)[0]

    # IStableStorage

    def recover(self) -> Recovered:
        """Figure 14: read the server's state from disk; see `IStableStorage.recover`.

        Before this method returns it has checked owner and format, and the whole log. The groups up to Local_Aru are
        read once more while `Recovered.ordered` is read, which raises `StorageRefused` if one has changed meanwhile.
        A database of format 3 is taken over first (`pfsb.storage.log.migration`).
        """
        assert not self._running, "recover is called once"
        self.lock.acquire()
        try:
            recovered = self._recover()
        except sqlite.errors_and(OSError, NoRoom, ValueError) as error:
            self.lock.release()
            raise unusable(self._place, error) from error
        except StorageRefused:
            self.lock.release()
            raise
        self._running = True
        return recovered

    def refuse_if_unusable(self) -> None:
        """Raise the `StorageRefused` that `recover` would raise, as far as a quick look can tell.

        The incarnation is not increased and no thread is started. A directory without a storage is usable.
        """
        if not self._place.exists():
            self._refuse_leftovers()
            return
        with self._locked():
            if self.path.exists():
                self._check(scan_end(self.path, self._owner()))
            else:
                self._check_old()

    def take_over(self) -> Log:
        """Make a log of a database of format 3, as the first start would, and return it; a log that is there is
        checked.

        The server must not be running. Raises `StorageRefused` if a start would, or if the directory holds neither a
        log nor a database; a database that is there stays then.
        """
        self._refuse_empty()
        with self._locked():
            return self._find_log()

    def add_pass(self, seq: int, digest: bytes, *, unseen: bool) -> None:
        """Store on disk that slot `seq`, whose batch has this digest, must be passed and not executed (Departure 38).

        The server must not be running. With `unseen` the batch need not be stored here: when the server learns which
        batch is ordered in the slot, it compares the digests. A digest that was stored for the slot before is replaced.
        Raises `StorageRefused`, and changes nothing, if the directory cannot be used, if another batch is ordered in
        the slot, or if the slot is noted with this digest already.
        """
        self._refuse_empty()
        with self._locked():
            log = self._find_log()
            refuse_wrong_pass(log, seq, digest, unseen)
            self._append_pass(log, seq, digest)

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
        """Keep the slots, and return False: a restart executes all of them again, since there are no snapshots yet."""
        return False

    def close(self) -> bool:
        """Let the threads finish the waiting reads and writes, and close the files; returns whether that was done.

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
        maker, self._maker = self._maker, None
        if reader is None or writer is None or maker is None:
            self.lock.release()
            return True
        for thread in (reader, writer, maker):
            thread.begin_stop()
        written = writer.has_stopped(max(CLOSE_SECONDS_MIN, CLOSE_SECONDS_MAX - writer.busy_seconds))
        seconds = CLOSE_SECONDS_MAX if written else CLOSE_SECONDS_MIN
        if reader.has_stopped(seconds) and maker.has_stopped(seconds) and written:
            if self._note_error is None:
                self.lock.release()
                return True
            # The groups are on disk; the server must end all the same.
            self._log.error(
                "storage: the position note of {path} was not forced: {error}",
                path=str(self.path),
                error=self._note_error,
            )
            return False
        self._log.error("storage: {path} does not answer; what was not acknowledged may be lost", path=str(self.path))
        return False

    # Start

    def _refuse_empty(self) -> None:
        if not self._place.exists():
            raise StorageRefused(f"{self.path}: missing; the data directory of a server that has run is needed")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from the directory for a while. Errors of disk and database become `StorageRefused`."""
        self.lock.acquire()
        try:
            yield
        except sqlite.errors_and(OSError, NoRoom, ValueError) as error:
            raise unusable(self._place, error) from error
        finally:
            self.lock.release()

    @property
    def _place(self) -> Path:
        """Path of the storage in this directory: the database of an earlier version if there is one and no log, else
        the log."""
        return self.old_path if self.old_path.exists() and not self.path.exists() else self.path

    def _recover(self) -> Recovered:
        log = self._find_log()
        room = Room(self._directory, self._reserve_bytes)
        self.is_full = room.look()
        maker = self._make_maker(log, room)
        writer = LogWriter.open(log, maker.take, maker.want)
        try:
            recovered = self._begin(log, writer)
        except BaseException:
            writer.close()
            raise
        self._start_threads(log, writer, maker, room)
        self._look_call = self._reactor.callLater(LOOK_SECONDS, self._look_at_room)
        return recovered

    def _find_log(self) -> Log:
        """The whole log, read and checked, which may be a new one, or made of a database of an earlier version; that is
        deleted then."""
        self.make_or_find()
        log = self._read_log()
        migration.delete_old_files(self._directory)
        return log

    def make_or_find(self) -> None:
        """Make a new log, unless there is one; a database of an earlier version is taken over. Raises `StorageRefused`
        if the files that are there cannot be used, and leaves these unchanged."""
        if self.path.exists():
            return
        if self.old_path.exists():
            self._check_old()
            self._log.info("storage: takes over {path}, once; that may take a while", path=str(self.old_path))
            migration.migrate(self.old_path, self.path, self._owner(), self._random_bytes)
        else:
            self._refuse_leftovers()
            self._create()

    def _create(self) -> None:
        """Make a log: complete and on disk before it gets its final name.

        Therefore an incomplete one under the final name has been damaged: it cannot be a new one whose making was cut
        short. The directory and its parent are forced to disk too: otherwise power loss could remove the name of the
        log, and with it the first promises that this server has given.
        """
        unfinished = self.path.with_name(self.path.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        identity, salt = self._random_bytes(IDENTITY_BYTES), self._random_bytes(SALT_BYTES)
        make_segment(unfinished, SegmentHead(1, room_of(1), identity, salt, self._owner()))
        os.rename(unfinished, self.path)
        sync_directory(self._directory)
        sync_directory(self._directory.parent)

    def _refuse_leftovers(self) -> None:
        """Raise `StorageRefused` if the directory, which has no storage, holds files that were beside one: then a
        storage was there, and is lost.
        """
        old_log = migration.old_files(self._directory)[1]
        for left, name, lost in (
            (old_log, "log", self.old_path),
            (note_of(self.path), "position note", self.path),
        ):
            if left.exists():
                raise StorageRefused(
                    f"{lost}: missing, although its {name} {left.name} is there; {MUST_NOT_VOTE_AGAIN}"
                )

    def _read_log(self) -> Log:
        """Read and check the whole log. Raises `StorageRefused`."""
        log = scan(self.path, self._owner())
        self._check(log)
        log.refuse_gap()
        return log

    def _check(self, log: Log) -> None:
        """Raise `StorageRefused` if the log holds fewer groups than its position note says."""
        self._check_note(self.path, log.head.identity, log.state.incarnation or 0, log.position)

    def _check_old(self) -> None:
        identity, views = migration.refuse_if_unusable(self.old_path, self._owner())
        self._check_note(self.old_path, bytes.fromhex(identity.storage_identity), identity.incarnation, views.position)

    def _check_note(self, path: Path, identity: bytes, incarnation: int, position: int) -> None:
        self._note = PositionNote(note_of(path), identity, self._reactor.seconds)
        if incarnation == 0 and not self._note.path.exists():
            self._note.create(position)
        self._note.refuse_less(path, position)

    def _owner(self) -> StorageOwner:
        return StorageOwner(self._cluster_name, self._cluster_digest, self._members, self._server_id)

    def _begin(self, log: Log, writer: LogWriter) -> Recovered:
        """Count the incarnation, and return the content of the log.

        The incarnation is on disk before the server sends anything, so no two incarnations ever have the same number. A
        start counts as a group, so the log of a server that was started is never empty.
        """
        reader = LogReader(log)
        accepted = reader.accepted()
        reader.close()
        incarnation = (log.state.incarnation or 0) + 1
        writer.append(Content(incarnation))
        self.position = log.position
        self._note.open(self.position)
        views = log.state.views
        return Recovered(
            identity=log.head.identity,
            incarnation=incarnation,
            start_mark=int.from_bytes(self._random_bytes(START_MARK_BYTES), "big"),
            last_attempted=views.last_attempted,
            last_installed=views.last_installed,
            local_aru=log.state.local_aru,
            ordered=LogReader(log).ordered(log.state.local_aru),
            accepted=accepted,
            peers=dict(log.state.effect.peers),
            passes=dict(log.state.passes),
        )

    def _append_pass(self, log: Log, seq: int, digest: bytes) -> None:
        """Write a group which says that slot `seq`, with the batch of this digest, is left out. It is on disk when this
        method returns."""
        content = Content(passes={seq: digest})
        own = log.state.effect.peers.get(self._server_id)
        if own is not None:
            content.effect = Effect(peers={self._server_id: own.leaving_out(1)})
        writer = LogWriter.open(log)
        try:
            writer.append(content)
        finally:
            writer.close()
        self._note.open(log.position)
        self._note.close()

    def _make_maker(self, log: Log, room: Room) -> SegmentMaker:
        return SegmentMaker(
            self._fail_from_thread,
            self.path,
            log.head,
            self._random_bytes,
            room,
            self._segment_made,
            log.heads.get(log.segment + 1),
        )

    def _start_threads(self, log: Log, writer: LogWriter, maker: SegmentMaker, room: Room) -> None:
        in_reactor = self._reactor.callFromThread
        self._writer = GroupWriter(
            self._fail_from_thread,
            writer,
            self._reactor.seconds,
            self._written,
            room,
            lambda is_full: in_reactor(self._room_seen, is_full),
            self._close_note,
        )
        self._reader = HistoryReader(
            self._fail_from_thread, LogReader(log), lambda found, batches: in_reactor(self._answer, found, batches)
        )
        self._watch = DirectoryWatch([*map(log.path, log.heads), self._note.path], self._fail_from_thread)
        self._maker = maker
        self._watch.start()
        for thread in (self._writer, self._reader, maker):
            thread.start()

    # In the maker's thread

    def _segment_made(self, path: Path) -> None:
        assert self._watch is not None, "the maker starts after the watch"
        self._watch.add(path)

    # In the writer's thread

    def _written(self, group: WrittenGroup) -> None:
        """Called in the writer's thread: tell the reactor that a group is on disk, and then write its position into the
        position note.

        Only the next start needs the note, so the reactor does not wait until it is written.
        """
        self._reactor.callFromThread(self._group_written, group)
        self._note.tell(group.position)

    def _close_note(self) -> None:
        try:
            self._note.close()
        except OSError as error:
            self._note_error = error

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

    def _fail_from_thread(self, failure: Failure) -> None:
        """Called by a thread with the failure that has ended it: let the reactor stop the storage."""
        self._reactor.callFromThread(self._fail, failure)

    def _fail(self, failure: Failure) -> None:
        if not self._failed:
            self._failed = True
            self._running = False
            self._appended.clear()
            self._acknowledgements.forget()
            self._stop_looking()
            self._on_failure(failure)


def refuse_wrong_pass(log: Log, seq: int, digest: bytes, unseen: bool) -> None:
    """Raise `StorageRefused` unless slot `seq` may be left out here with the batch of this digest (see
    `LogStorage.add_pass`).

    The slot must hold this batch here, as ordered or as accepted. If `unseen` is True it may also be empty, or hold
    another batch that is accepted only: that one may yet be replaced by this one.
    """
    path = log.directory
    if log.state.passes.get(seq) == digest:
        raise StorageRefused(f"{path}: slot {seq} is left out already, with this digest")
    reader = LogReader(log)
    stored: Accepted | None = reader.slot(seq)
    reader.close()
    if stored is not None and batch_digest(stored.batch.data) == digest:
        return
    is_ordered = stored is not None and (seq <= log.state.local_aru or stored.view == ORDERED_VIEW)
    if is_ordered or not unseen:
        found = (
            "is not here" if stored is None else f"holds the batch with digest {batch_digest(stored.batch.data).hex()}"
        )
        hint = "" if is_ordered else "; if this server was behind when the others stopped, give --unseen"
        raise StorageRefused(f"{path}: slot {seq} {found}{hint}")
