"""Stable storage in a log, with group commit on a thread of its own (docs/internals/log.rst)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar

from attrs import define, evolve, field
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.paxos.interfaces import IStableStorage, StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.records import Accepted, AruRecord, Record, Recovered, SnapshotRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.storage import sqlite
from pfsb.storage.acknowledgements import Acknowledgements
from pfsb.storage.counters import ArchiveCounters, StorageCounters
from pfsb.storage.directory import DirectoryLock, DirectoryWatch, bytes_in, sync_directory
from pfsb.storage.durable import NoRoom
from pfsb.storage.effect import ORDERED_VIEW, Effect, HistoryCallback, SnapshotCallback, ignore_lost
from pfsb.storage.log import migration
from pfsb.storage.log.archive import Archive, archive_of
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.groups import SALT_BYTES
from pfsb.storage.log.items import Content, StoredSnapshot
from pfsb.storage.log.maker import SegmentMaker
from pfsb.storage.log.reader import LogReader
from pfsb.storage.log.scan import Log, scan, scan_end
from pfsb.storage.log.segments import (
    FORMAT_VERSION,
    SegmentHead,
    drop_segments,
    make_segment,
    room_of,
    segment_path,
)
from pfsb.storage.log.snapshot_files import SnapshotFiles, SnapshotReader
from pfsb.storage.log.snapshots import FetchedSnapshot, SnapshotFile, SnapshotStore, SnapshotThread
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.owner import StorageOwner
from pfsb.storage.position_note import PositionNote, note_of
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN, unusable
from pfsb.storage.room import Room
from pfsb.storage.threads import GroupWriter, HistoryReader, WrittenGroup
from pfsb.support.limits import IDENTITY_BYTES, START_MARK_BYTES

CLOSE_SECONDS_MAX = 10.0
"""How long, in seconds, `close` waits for each of the four threads to end. The reactor stands still in this time."""
CLOSE_SECONDS_MIN = 0.2
"""Minimum time, in seconds, that `close` waits for each thread, even if its disk has not answered for long."""
LOOK_SECONDS = 0.5
"""Time, in seconds, from one look at the room of the disk to the next.

If all servers have one disk, all of them must notice that it is full within a Progress_Timer, or the leader finds
itself without followers (Departure 45).
"""
READ_AGAIN_SECONDS = 0.02
"""How long, in seconds, a read of a snapshot waits that finds `READS_WAITING_MAX` reads before it."""
SNAPSHOT_OPEN_SECONDS = 60.0
"""How long, in seconds, the snapshot that another server has read last stays open. If a newer one has replaced it, the
other server can read the rest of it until then, and it takes room on the disk."""


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
    system must be free: with less, `is_full` becomes true (`Room`). `slack` is how much of the history that a snapshot
    holds stays readable. `archive` is the directory of this server in an archive, to which files go that a snapshot has
    made superfluous; None: they are deleted.
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
    _slack: Slack = field(factory=Slack)
    _archive_directory: Path | None = None
    counters: StorageCounters = field(factory=StorageCounters, init=False)
    on_snapshot_lost: Callable[[SnapshotName, str], None] = field(default=ignore_lost, init=False)
    position: int = field(default=0, init=False)
    is_full: bool = field(default=False, init=False)
    compacted: int = field(default=0, init=False)
    lock: DirectoryLock = field(init=False)
    """Keeps other processes from the directory, from `recover` to `close` or a failure."""
    _acknowledgements: Acknowledgements = field(init=False)
    _appended: list[Record] = field(factory=list, init=False)
    _writer: GroupWriter | None = field(default=None, init=False)
    _reader: HistoryReader | None = field(default=None, init=False)
    _maker: SegmentMaker | None = field(default=None, init=False)
    _watch: DirectoryWatch | None = field(default=None, init=False)
    snapshot_store: SnapshotStore | None = field(default=None, init=False)
    """The snapshots of the storage; None before its start."""
    _archive: Archive | None = field(default=None, init=False)
    _snapshot_read: float | None = field(default=None, init=False)
    """Time, by the reactor's clock, at which bytes of a snapshot were asked for last; None: none is open."""
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

    @property
    def snapshot_files(self) -> SnapshotFiles:
        """The files of snapshots, which lie beside the log."""
        return SnapshotFiles.beside(self.path)

    # IStableStorage

    @property
    def kept_above(self) -> int | None:
        return self._slack.kept_above

    @kept_above.setter
    def kept_above(self, seq: int | None) -> None:
        self._slack.kept_above = seq

    @property
    def snapshot(self) -> SnapshotName | None:
        return None if self.snapshot_store is None else self.snapshot_store.snapshot

    def recover(self) -> Recovered:
        """Figure 14: read the server's state from disk; see `IStableStorage.recover`.

        Before this method returns it has checked owner and format, the whole log, and the snapshot, which may be lost
        (`Recovered.lost`). The snapshot, and
        the groups up to Local_Aru, are read once more while `Recovered.snapshot_bytes` and `Recovered.ordered` are
        read, which raise `StorageRefused` if something has changed meanwhile.
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

    def refuse_if_in_use(self) -> None:
        """Raise `StorageRefused` if the directory has a storage, or something that was beside one: no new one can be
        made there then."""
        if self._place.exists():
            raise StorageRefused(f"{self._place}: there already; a new storage needs a directory without one")
        self._refuse_leftovers()

    def begin_with_snapshot(self, name: SnapshotName, portions: Iterable[bytes]) -> None:
        """Make a new storage whose server starts with the state of a snapshot, and has executed the slots up to its
        own; all of it is on disk when this returns.

        `portions` are the bytes of the snapshot. Raises `StorageRefused` as `refuse_if_in_use` does, or if the
        directory cannot be written. The log gets its name last, so a storage that is not complete is none.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self.refuse_if_in_use()
            self.snapshot_files.write(name, portions)
            effect = Effect()
            effect.apply_all([SnapshotRecord(name), AruRecord(name.seq)])
            self._create(effect)

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
        """Keep the slots, and return False: a restart executes them again, but for those that a snapshot holds."""
        return False

    def write_snapshot(self, seq: int, cluster_identity: bytes) -> SnapshotFile:
        assert self.snapshot_store is not None, "the storage was started"
        return self.snapshot_store.write(seq, cluster_identity)

    def fetch_snapshot(self, name: SnapshotName) -> FetchedSnapshot:
        assert self.snapshot_store is not None, "the storage was started"
        return self.snapshot_store.fetch(name)

    def read_snapshot(self, name: SnapshotName, offset: int, bytes_max: int, found: SnapshotCallback) -> None:
        if not self._running:
            return
        assert self._reader is not None and self.snapshot_store is not None
        if self._snapshot_read is None and name == self.snapshot:
            self.snapshot_store.look(reads_all=True)
        self._snapshot_read = self._reactor.seconds()
        if not self._reader.read_snapshot(name, self.snapshot_store.path(name), offset, bytes_max, found):
            # The reader has much to do. No bytes would mean that the snapshot is not there.
            self._reactor.callLater(READ_AGAIN_SECONDS, self.read_snapshot, name, offset, bytes_max, found)

    def close(self) -> bool:
        """Let the threads finish the waiting reads and writes, and close the files; returns whether that was done. A
        snapshot that is being made is given up, and one that is being fetched is kept as far as it is written.

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
        snapshots = self.snapshot_store
        if reader is None or writer is None or maker is None or snapshots is None:
            self.lock.release()
            return True
        snapshots.stop()
        for thread in (reader, writer, maker, snapshots.thread):
            thread.begin_stop()
        written = writer.has_stopped(max(CLOSE_SECONDS_MIN, CLOSE_SECONDS_MAX - writer.busy_seconds))
        seconds = CLOSE_SECONDS_MAX if written else CLOSE_SECONDS_MIN
        if all(thread.has_stopped(seconds) for thread in (reader, maker, snapshots.thread)) and written:
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
        lost = self._lost_snapshot(log)
        room = Room(self._directory, self._reserve_bytes)
        self.is_full = room.look()
        self._make_segment_of_this_format(log)
        maker = self._make_maker(log, room)
        named = partial(self._snapshot_named, log.head)
        writer = LogWriter.open(log, maker.take, maker.want, named, self._slack)
        try:
            leftovers = self._delete_leftovers(log, is_lost=lost is not None)
            if log.head.version < FORMAT_VERSION:
                writer.go_on()
            recovered = self._begin(log, writer, lost)
        except BaseException:
            writer.close()
            raise
        self._start_threads(log, writer, maker, room, None if lost is not None else _snapshot_of(log))
        self._archive_leftovers(log, *leftovers)
        self._look_call = self._reactor.callLater(LOOK_SECONDS, self._look_at_room)
        return recovered

    def _lost_snapshot(self, log: Log) -> SnapshotName | None:
        """The snapshot that the log names, if its file is missing or damaged; else None."""
        name = _snapshot_of(log)
        fate = None if name is None else self.snapshot_files.fate(name)
        if name is None or fate is None:
            return None
        self._log.error(
            "storage: {path}: {fate}; the log beside it is whole",
            path=str(self.snapshot_files.path(name.seq)),
            fate=fate,
        )
        return name

    def _make_segment_of_this_format(self, log: Log) -> None:
        """If the last segment of the log was made by an earlier version of pfsb, which knows no snapshots, make the
        next one, or make the last one anew if it has no group.

        An earlier version then refuses the directory for its format, before there is anything in it that it does not
        know.
        """
        if log.head.version == FORMAT_VERSION:
            return
        number = log.segment if log.end == log.head.size else log.segment + 1
        salt = self._random_bytes(SALT_BYTES)
        head = evolve(log.head, number=number, room=room_of(number), salt=salt, version=FORMAT_VERSION)
        make_segment(self.path, head)
        log.heads[number] = head
        if number == log.segment:
            log.go_on_in(head)
            log.torn_bytes = 0

    def _delete_leftovers(self, log: Log, *, is_lost: bool) -> tuple[list[int], list[Path]]:
        """Delete what a crash has left of the time before the present snapshot. Returns the numbers of segments and the
        paths of snapshots that are to be moved into the archive instead, if there is one.

        The log was opened for writing before, so the group that names the snapshot is on disk by now.
        """
        name = _snapshot_of(log)
        segments, snapshots = list[int](), list[Path]()
        if self._archive_directory is not None:
            segments, snapshots = log.leftovers.copy(), self.snapshot_files.older(name)
        elif log.leftovers:
            drop_segments(self.path, log.leftovers, log.head, lambda: None)
        log.leftovers.clear()
        self.snapshot_files.delete_leftovers(name, keep=snapshots, is_lost=is_lost)
        return segments, snapshots

    def _archive_leftovers(self, log: Log, segments: list[int], snapshots: list[Path]) -> None:
        """Have the thread of snapshots move into the archive what earlier starts have left of the time before the
        present snapshot, because of a crash or because the archive did not take it."""
        archive, store = self._archive, self.snapshot_store
        assert store is not None, "the threads are started"
        if archive is not None:
            store.thread.do(partial(archive.take, segments, snapshots, log.state.compacted))
            store.thread.do(archive.count)
            store.thread.do(self._count_bytes)
            store.thread.do(store.count_bytes)

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

    def _create(self, first: Effect | None = None) -> None:
        """Make a log: complete and on disk before it gets its final name. `first` is what its first group holds; None:
        it has no group.

        Therefore an incomplete one under the final name has been damaged: it cannot be a new one whose making was cut
        short. The directory and its parent are forced to disk too: otherwise power loss could remove the name of the
        log, and with it the first promises that this server has given.
        """
        unfinished = self.path.with_name(self.path.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        identity, salt = self._random_bytes(IDENTITY_BYTES), self._random_bytes(SALT_BYTES)
        make_segment(unfinished, SegmentHead(1, room_of(1), identity, salt, self._owner()))
        if first is not None:
            writer = LogWriter.open(scan(unfinished, self._owner()))
            try:
                writer.write(first)
            finally:
                writer.close()
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

    def _begin(self, log: Log, writer: LogWriter, lost: SnapshotName | None) -> Recovered:
        """Count the incarnation, and return the content of the log. If its snapshot is lost, and no slot was dropped
        for it, the whole history is executed again.

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
        self.compacted = log.state.compacted
        views, local_aru = log.state.views, log.state.local_aru
        name = None if lost is not None else _snapshot_of(log)
        if lost is not None and not log.state.compacted:
            self._log.warn("storage: executes the whole history again, which is there from slot 1 on")
            lost = None
        return Recovered(
            identity=log.head.identity,
            incarnation=incarnation,
            start_mark=int.from_bytes(self._random_bytes(START_MARK_BYTES), "big"),
            last_attempted=views.last_attempted,
            last_installed=views.last_installed,
            local_aru=local_aru,
            snapshot=name,
            snapshot_bytes=() if name is None else self.snapshot_files.portions(name),
            lost=lost,
            ordered=() if lost is not None else LogReader(log).ordered(local_aru, 0 if name is None else name.seq),
            ordered_after=lambda seq: LogReader(log).ordered(local_aru, seq),
            accepted=accepted,
            peers=dict(log.state.effect.peers),
            passes=dict(log.state.passes),
            members=log.state.effect.members,
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

    def _start_threads(
        self, log: Log, writer: LogWriter, maker: SegmentMaker, room: Room, snapshot: SnapshotName | None
    ) -> None:
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
            self._fail_from_thread,
            LogReader(log),
            SnapshotReader(),
            lambda found, batches: in_reactor(self._answer, found, batches),
            lambda found, data: in_reactor(self._answer_snapshot, found, data),
        )
        snapshots = SnapshotThread(self._fail_from_thread)
        self._archive = self._make_archive(log, snapshots)
        self.snapshot_store = SnapshotStore(
            self.snapshot_files,
            snapshots,
            room,
            in_reactor,
            self.counters,
            snapshot,
            self._snapshot_lost,
            self._archive,
        )
        self._count_bytes()
        self._watch = DirectoryWatch([*map(log.path, log.heads), self._note.path], self._fail_from_thread)
        self._maker = maker
        self._watch.start()
        for thread in (self._writer, self._reader, maker, self.snapshot_store.thread):
            thread.start()

    def _make_archive(self, log: Log, thread: SnapshotThread) -> Archive | None:
        if self._archive_directory is None:
            return None
        directory = archive_of(self._archive_directory, log.head.identity)
        counters = self.counters.archive = ArchiveCounters(str(directory))
        return Archive(
            directory,
            self.path,
            log.head,
            counters,
            self._reactor.seconds,
            partial(self._reactor.callFromThread, self._tell_of_archive),
            thread.pause,
            thread.ends,
        )

    # In the maker's thread

    def _segment_made(self, path: Path) -> None:
        assert self._watch is not None, "the maker starts after the watch"
        self._watch.add(path)
        self._count_bytes()

    # In the thread that makes or deletes segments

    def _count_bytes(self) -> None:
        self.counters.log_bytes = bytes_in(self.path)

    def _drop_segments(self, head: SegmentHead, stored: StoredSnapshot, numbers: list[int]) -> None:
        """Delete these segments, which a snapshot has made superfluous, or move them into the archive. `head` is that
        of any segment of this log."""
        assert self._watch is not None and self.snapshot_store is not None, "the thread starts after both"
        for number in numbers:
            self._watch.forget(segment_path(self.path, number))
        if self._archive is not None:
            self._archive.take(numbers, (), stored.compacted)
        elif numbers:
            drop_segments(self.path, numbers, head, self.snapshot_store.thread.pause)
        self._count_bytes()

    # In the writer's thread

    def _written(self, group: WrittenGroup) -> None:
        """Called in the writer's thread: tell the reactor that a group is on disk, and then write its position into the
        position note.

        Only the next start needs the note, so the reactor does not wait until it is written.
        """
        self._reactor.callFromThread(self._group_written, group)
        self._note.tell(group.position)

    def _snapshot_named(self, head: SegmentHead, stored: StoredSnapshot, dropped: list[int]) -> None:
        """Called in the writer's thread before `_written`: the group that is on disk now names a snapshot, which makes
        these segments superfluous. `head` is the head of any segment of this log."""
        self._reactor.callFromThread(self._snapshot_is_named, head, stored, dropped)

    def _close_note(self) -> None:
        try:
            self._note.close()
        except OSError as error:
            self._note_error = error

    # In the reactor

    def _snapshot_is_named(self, head: SegmentHead, stored: StoredSnapshot, dropped: list[int]) -> None:
        assert self.snapshot_store is not None, "the writer starts after it"
        if not self._failed:
            self.compacted = stored.compacted
            self.snapshot_store.named(stored.name, partial(self._drop_segments, head, stored, dropped))

    def _tell_of_archive(self, line: str, is_trouble: bool) -> None:
        if is_trouble:
            self._log.error("storage: {line}", line=line)
        else:
            self._log.info("storage: {line}", line=line)

    def _snapshot_lost(self, name: SnapshotName, fate: str) -> None:
        """Called when the file of the present snapshot was found missing or damaged: another one is needed, or the next
        start has no state. The server goes on: its log and its state are whole."""
        if not self._failed and self._reader is not None:
            self._reader.close_snapshot()
            self._log.error(
                "storage: {path}: {fate}, while the server was running",
                path=str(self.snapshot_files.path(name.seq)),
                fate=fate,
            )
            self.on_snapshot_lost(name, fate)

    def _close_idle_snapshot(self) -> None:
        """Close the snapshot that was read last, if that was long ago."""
        read = self._snapshot_read
        if read is not None and self._reactor.seconds() > read + SNAPSHOT_OPEN_SECONDS and self._reader is not None:
            self._snapshot_read = None
            self._reader.close_snapshot()

    def _look_at_room(self) -> None:
        """Have the writer look at the room of the disk, unless it is still busy with the last look."""
        self._close_idle_snapshot()
        if self.snapshot_store is not None:
            self.snapshot_store.look()
            if self._archive is not None and self._archive.is_due():
                self.snapshot_store.thread.do(self._archive.go_on)
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

    def _answer_snapshot(self, found: SnapshotCallback, data: bytes) -> None:
        if not self._failed:
            found(data)

    def _fail_from_thread(self, failure: Failure) -> None:
        """Called by a thread with the failure that has ended it: let the reactor stop the storage."""
        self._reactor.callFromThread(self._fail, failure)

    def _fail(self, failure: Failure) -> None:
        if not self._failed:
            self._failed = True
            self._running = False
            self._appended.clear()
            if self.snapshot_store is not None:
                self.snapshot_store.stop()
            self._acknowledgements.forget()
            self._stop_looking()
            self._on_failure(failure)


def _snapshot_of(log: Log) -> SnapshotName | None:
    """The snapshot that the log names; None: it names none."""
    return None if log.state.snapshot is None else log.state.snapshot.name


def refuse_wrong_pass(log: Log, seq: int, digest: bytes, unseen: bool) -> None:
    """Raise `StorageRefused` unless slot `seq` may be left out here with the batch of this digest (see
    `LogStorage.add_pass`).

    The slot must hold this batch here, as ordered or as accepted. If `unseen` is True it may also be empty, or hold
    another batch that is accepted only: that one may yet be replaced by this one.
    """
    path = log.directory
    if seq <= log.state.snapshot_seq:
        raise StorageRefused(
            f"{path}: slot {seq} is executed: this server starts with the snapshot of slot {log.state.snapshot_seq}"
        )
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
