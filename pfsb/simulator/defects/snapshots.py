"""Defects of snapshots: of their contents, of taking, and of fetching and installing them (Departures 56 and 57)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, evolve, field
from zope.interface import implementer

from pfsb.applications.frozen_keys import Entry, FrozenKeys
from pfsb.paxos.interfaces import IFetchedSnapshot, ISnapshotFile
from pfsb.paxos.messages import Prepare, SnapshotPart
from pfsb.paxos.records import Record, SnapshotRecord
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.simulator.checkers.snapshot_checker import WatchedRestorer
from pfsb.simulator.cluster.storage import SimulatedStorage
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override

DEFECTS = Defects(needs_snapshots=True)
OF_STATE = Defects(needs_sessions=True, needs_snapshots=True)
"""The defects that need sessions and applications."""


def after_restore(process: Any, act: Callable[[], None]) -> None:
    """Call `act` each time that the server was restored from a snapshot, at its start or when it has fetched one."""

    @instead_of(process.replica.ordered_queue, "restorer")
    def broken(restorer: Callable[[], Any]) -> WatchedRestorer:
        return WatchedRestorer(restorer(), act)


# ---------------------------------------------------------------------------------------------
# Contents
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("snapshot-without-last-executed", "Departure 56, G15", "a snapshot leaves out Last_Executed")
def _without_last_executed(process: Any) -> None:
    after_restore(process, lambda: process.replica.ordered_queue.last_executed.timestamps.clear())


@DEFECTS.add("snapshot-without-time", "Departures 35 and 56", "a snapshot leaves out the state machine's time")
def _without_time(process: Any) -> None:
    override(process.replica.ordered_queue.time, "restore", lambda _: do_nothing)


@DEFECTS.add("snapshot-without-digest", "Departures 40 and 56", "a snapshot leaves out the digest of the history")
def _without_digest(process: Any) -> None:
    digests = process.replica.ordered_queue.digests
    override(digests, "begin_at", lambda begin_at: lambda seq, head: begin_at(seq, bytes(len(head))))


@DEFECTS.add("snapshot-without-oldest-valid", "Departures 7 and 56", "a snapshot leaves out which updates are too old")
def _without_oldest_valid(process: Any) -> None:
    after_restore(process, lambda: setattr(process.replica.ordered_queue, "oldest_valid", 0))


@DEFECTS.add(
    "snapshot-of-a-later-slot", "Departure 56", "the state is read when the first piece is made, some slots too late"
)
def _of_a_later_slot(process: Any) -> None:
    @instead_of(process.replica.ordered_queue, "freeze")
    def broken(freeze: Callable[[], Iterator[Piece]]) -> Iterator[Piece]:
        yield from freeze()


@OF_STATE.add("snapshot-without-answers", "Departure 56, G20", "a snapshot leaves out the results that sessions keep")
def _without_answers(process: Any) -> None:
    def forget() -> None:
        for session in process.server.machine.sessions.values():
            session.answers.drop_all()

    after_restore(process, forget)


@OF_STATE.add("snapshot-without-ended-sessions", "Departures 33 and 56", "a snapshot leaves out sessions that ended")
def _without_ended_sessions(process: Any) -> None:
    after_restore(process, lambda: process.server.machine.closed_sessions.clear())


@OF_STATE.add("snapshot-without-waits", "Departure 56", "a snapshot leaves out the sessions that wait for locks")
def _without_waits(process: Any) -> None:
    def forget() -> None:
        for lock in process.applications["lock"].locks.values():
            lock.places.clear()

    after_restore(process, forget)


class _OfNow(FrozenKeys):
    """A frozen state that gives entries as they are when their piece is made, not as they were when the state was
    frozen."""

    def keep(self, key: bytes, entry: Entry | None) -> None:
        pass

    def keep_deleted(self, key: bytes, entry: Entry) -> None:
        super().keep(key, entry)  # the key is absent now, so it has no present entry
        super().keep_deleted(key, entry)

    def keep_all(self, keys: object) -> None:
        pass


@OF_STATE.add("pre-images-forgotten", "Departure 56", "a piece shows what was changed since its snapshot was begun")
def _pre_images_forgotten(process: Any) -> None:
    def plant() -> None:
        @instead_of(process.applications["kv"], "state_now")
        def broken(state_now: Callable[[], FrozenKeys]) -> FrozenKeys:
            frozen = state_now()
            become(frozen, _OfNow)
            return frozen

    plant()
    after_restore(process, plant)


# ---------------------------------------------------------------------------------------------
# Taking
# ---------------------------------------------------------------------------------------------


@implementer(ISnapshotFile)
@define(eq=False)
class _HastyFile:
    """A file of a snapshot that says that it is on disk when its end was only given to the storage, which has not
    written it yet."""

    _inner: Any
    _clock: Any
    _encoder: SnapshotEncoder

    @property
    def waiting_bytes(self) -> int:
        return int(self._inner.waiting_bytes)

    @property
    def has_failed(self) -> bool:
        return bool(self._inner.has_failed)

    def write(self, piece: Piece) -> None:
        self._encoder.piece(piece)
        self._inner.write(piece)

    def finish(self, finished: Callable[[SnapshotName], None]) -> None:
        self._encoder.end()
        self._inner.finish(do_nothing)
        self._clock.callLater(0, finished, self._encoder.name)

    def abandon(self) -> None:
        self._inner.abandon()


class _HastyStorage(SimulatedStorage):
    __slots__ = ()

    def write_snapshot(self, seq: int, cluster_identity: bytes) -> Any:
        encoder = SnapshotEncoder(seq, cluster_identity)
        encoder.head()
        return _HastyFile(super().write_snapshot(seq, cluster_identity), self.server_clock, encoder)


@DEFECTS.add("dropped-before-snapshot", "Departure 56", "slots are dropped before the snapshot is complete on disk")
def _dropped_before_snapshot(process: Any) -> None:
    become(process.replica.storage, _HastyStorage)


@OF_STATE.add(
    "snapshot-of-one-opinion", "Departures 40 and 56", "a snapshot counts though no majority has executed the same"
)
def _of_one_opinion(process: Any) -> None:
    process.replica.snapshot_taker.is_agreed = lambda seq: True


@OF_STATE.add(
    "snapshot-names-ignored", "Departures 40 and 56", "no server looks whether other servers have the same snapshot"
)
def _names_ignored(process: Any) -> None:
    process.replica.snapshot_names.compare = do_nothing


# ---------------------------------------------------------------------------------------------
# Fetching and installing
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("parts-of-any-snapshot", "Departure 57", "a part of one snapshot is joined with those of another")
def _parts_of_any_snapshot(process: Any) -> None:
    fetcher = process.replica.snapshot_fetcher

    @instead_of(fetcher, "on_snapshot_part")
    def broken(take: Callable[[SnapshotPart], None], message: SnapshotPart) -> None:
        take(evolve(message, name=fetcher.fetch.name) if fetcher.fetch is not None and message.data else message)


@DEFECTS.add("older-snapshot-installed", "Departure 57", "a snapshot of a slot that was executed since is installed")
def _older_snapshot_installed(process: Any) -> None:
    override(process.replica.snapshot_fetcher, "is_wanted", lambda _: lambda name: True)


@DEFECTS.add("install-not-forced", "Departures 1 and 57", "what rests on an installed snapshot waits for no record")
def _install_not_forced(process: Any) -> None:
    @instead_of(process.replica.turn, "append")
    def broken(append: Callable[..., None], record: Record, *, lazy: bool = False) -> None:
        append(record, lazy=lazy or isinstance(record, SnapshotRecord))


@DEFECTS.add("install-not-noted", "Departure 57", "a server that has installed a snapshot writes no record of it")
def _install_not_noted(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.turn, "append")
    def broken(append: Callable[..., None], record: Record, *, lazy: bool = False) -> None:
        if not isinstance(record, SnapshotRecord) or replica.snapshot_taker.file is not None:
            append(record, lazy=lazy)


@DEFECTS.add(
    "promise-below-snapshot", "Departure 57, G19", "a server promises slots that an installed snapshot stands for"
)
def _promise_below_snapshot(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.prepare, "can_answer")
    def broken(can_answer: Callable[[Prepare], bool], message: Prepare) -> bool:
        return replica.snapshot_fetcher.installed > 0 or can_answer(message)


@DEFECTS.add(
    "silent-source-kept", "Departure 57", "a server waits for ever for the parts of a snapshot that do not come"
)
def _silent_source_kept(process: Any) -> None:
    fetcher = process.replica.snapshot_fetcher

    @instead_of(fetcher, "is_wanted")
    def broken(is_wanted: Callable[[SnapshotName], bool], name: SnapshotName) -> bool:
        if fetcher.fetch is not None:
            fetcher.fetch.progress_at = process.clock.seconds()
        return is_wanted(name)


@implementer(IFetchedSnapshot)
@define(eq=False)
class _BoldFile:
    """A file of a fetched snapshot that never says that there was no room for it on the disk."""

    _inner: Any
    has_failed: bool = field(default=False, init=False)

    @property
    def size(self) -> int:
        return int(self._inner.size)

    @property
    def waiting_bytes(self) -> int:
        return int(self._inner.waiting_bytes)

    def write(self, data: bytes) -> None:
        self._inner.write(data)

    def finish(self, finished: Callable[[bool], None]) -> None:
        self._inner.finish(finished)


class _BoldStorage(SimulatedStorage):
    __slots__ = ()

    def fetch_snapshot(self, name: SnapshotName) -> Any:
        return _BoldFile(super().fetch_snapshot(name))


@DEFECTS.add("failed-fetch-unnoticed", "Departures 45 and 57", "a server waits for ever for a file that found no room")
def _failed_fetch_unnoticed(process: Any) -> None:
    become(process.replica.storage, _BoldStorage)


@OF_STATE.add("install-not-told", "Departure 57", "clients whose commands have run in skipped slots are not told")
def _install_not_told(process: Any) -> None:
    @instead_of(process.replica, "attach")
    def broken(attach: Callable[..., None], **given: Any) -> None:
        attach(**given)
        override(process.server.local_clients, "restored", lambda _: do_nothing)


# ---------------------------------------------------------------------------------------------
# A lost snapshot
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("votes-without-state", "Departure 58", "a server whose snapshot is lost takes part before it has another")
def _votes_without_state(process: Any) -> None:
    replica = process.replica
    begin = replica.snapshot_fetcher.begin_without_state

    def broken(lost: SnapshotName) -> None:
        begin(lost)
        replica.storage_identity.has_state = lambda: True

    replica.snapshot_fetcher.begin_without_state = broken


@DEFECTS.add("votes-forgotten", "Departure 58", "a server whose snapshot was lost forgets the slots of its own log")
def _votes_forgotten(process: Any) -> None:
    fetcher = process.replica.snapshot_fetcher
    begin = fetcher.begin_without_state

    def broken(lost: SnapshotName) -> None:
        begin(lost)
        fetcher.on_state = do_nothing

    fetcher.begin_without_state = broken


@DEFECTS.add("fetchers-forgotten", "Departure 57", "slots above a snapshot are dropped while it is fetched")
def _fetchers_forgotten(process: Any) -> None:
    override(process.replica.reconciliation, "keep_for", lambda _: do_nothing)


@DEFECTS.add("snapshot-for-few-slots", "Departure 57", "a server that lacks few slots takes the first offer")
def _snapshot_for_few_slots(process: Any) -> None:
    override(process.replica.reconciliation, "ask_elsewhere", lambda _: lambda: False)


@DEFECTS.add("slots-only", "Departure 57", "a server never offers its snapshot, and sends what slots it has")
def _slots_only(process: Any) -> None:
    override(process.replica.reconciliation, "on_dropped", lambda _: lambda server_id: False)
