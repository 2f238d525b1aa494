"""Departure 56: a server takes a snapshot of its state from time to time, and then needs no slot below it any more.

The paper keeps Global_History for ever. Here each server takes snapshots by itself: when it has executed a slot whose
number is a multiple of `snapshot_every`, or many bytes since the last one, the state is frozen, and its pieces are
written to a file, a few each millisecond, while the server goes on. Nothing is ordered for that, and no other server is
asked.

Safety: a SnapshotRecord is forced when the file is complete on disk. From then on, and not before, the storage drops
slots up to the snapshot's. Each of them is ordered: this server has executed it. So the value that stands in it is on
the disks of a majority, or a snapshot that contains it is; no leader may propose another one, and a follower that has
dropped a slot answers no PREPARE that asks for it (`PrepareHandler.can_answer`, G19). A crash before the record leaves
a file that no record names, and the log as it was.

The record also waits until a majority of the servers is known to have executed these slots with the same results, and,
if others take a snapshot of the same slot, to have the same state there (Departure 40). A server whose memory has
failed would otherwise drop the history that could heal it, and offer a wrong state to others.

If the file of the present snapshot is found missing or damaged while the server runs, the next start would have no
state (Departure 58). So another snapshot is taken at once.

Slots whose numbers are multiples are the same on all servers, and so are the pieces of their snapshots: a server that
fetches one (Departure 57) can go on at another server. Where busy clients fill the slots, ten thousand of them hold
hundreds of megabytes, which fill the disk and are executed again at a start. So a server also looks at ten slots
between two multiples, the same ones on all servers, whether so much has come together that a snapshot is worthwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.interfaces import ISnapshotFile, IStableStorage
from pfsb.paxos.ordered_update_queue import OrderedUpdateQueue
from pfsb.paxos.records import SnapshotRecord
from pfsb.paxos.snapshot import Piece, SnapshotName
from pfsb.paxos.snapshot_names import SnapshotNames
from pfsb.support.limits import IDENTITY_BYTES

PIECE_PAUSE_SECONDS = 0.004
"""Pause, in seconds, after each piece of a snapshot. Making a piece takes some milliseconds, so a snapshot takes less
than half of a processor that has nothing else to do, and a heartbeat is hardly late."""
EARLY_LOOKS = 10
"""Number of slots, between two multiples of `snapshot_slots`, at which a server looks whether a snapshot is
worthwhile."""
EARLY_BYTES = 64 * 1_048_576
"""Minimum number of bytes of batches, executed since the last snapshot was begun, with which a snapshot is taken at a
slot that is no multiple of `snapshot_slots` (`EARLY_LOOKS`)."""
WAITING_BYTES_MAX = 4_000_000
"""Maximum number of bytes of a snapshot that may wait to be written: no more pieces are made meanwhile."""
RETRY_SECONDS = 10.0
"""How long, in seconds, to wait before the next try to take a snapshot in place of one that is lost."""
AGAIN_SECONDS = 0.05
"""How long, in seconds, to wait before the next look whether the disk has taken what waits."""
NAME_PERIODS = 10
"""Number of periods of ALIVE for which a complete snapshot waits at least for the names of those that other servers
make of the same slot (`SnapshotNames`)."""

Taken = Callable[[SnapshotName | None], None]
"""Function that is called with the name of a snapshot that was asked for; None: it could not be taken."""


class SnapshotTaker(Handler):
    """Takes snapshots, one at a time: at multiples of `snapshot_every` slots, and when an operator asks."""

    _log = Logger()

    def __init__(
        self, core: Core, ordered_queue: OrderedUpdateQueue, storage: IStableStorage, names: SnapshotNames
    ) -> None:
        super().__init__(core)
        self._ordered_queue = ordered_queue
        self._storage = storage
        self._names = names
        self.cluster_identity = bytes(IDENTITY_BYTES)
        """The random identity of the cluster, which is written into snapshots; zeros until slot 1 is executed."""
        self.file: ISnapshotFile | None = None
        """The file of the snapshot that is being taken; None: none is."""
        self._seq = 0
        self._pieces: Iterator[Piece] | None = None
        self._began_at = self._complete_at = 0.0
        self._is_common = False
        """Whether the snapshot that is being taken is of a slot at which other servers take one, too."""
        self._call: IDelayedCall | None = None
        self._batch_bytes = 0
        """The count `OrderedUpdateQueue.batch_bytes` when the last snapshot was begun."""
        self._asked: list[Taken] = []
        """Callbacks of requests that wait for the snapshot that is being taken."""
        self._asked_next: list[Taken] = []
        """Callbacks of requests that came while a snapshot was being taken: they get the next one."""
        self.taken = 0
        """Number of snapshots that this server has taken since its start."""
        self.failed = 0
        """Number of snapshots that were given up since the start."""
        self.seconds = 0.0
        """How long, in seconds, the last snapshot took."""
        self._waits_for_majority = False
        self.lost: SnapshotName | None = None
        """The snapshot whose file was found missing or damaged while this server runs, and in whose place there is none
        yet; None: there is none."""
        self._retry: IDelayedCall | None = None
        storage.on_snapshot_lost = self.snapshot_lost
        self.why_none: Callable[[], str | None] = lambda: None
        """Tells why no snapshot of the state can be taken; None: one can."""
        self.is_agreed: Callable[[int], bool] = lambda seq: True
        """Tells whether a majority of the servers has executed the slots up to this one as this server has."""
        ordered_queue.on_snapshot_slot = self._begin_if_worthwhile

    @property
    def seq(self) -> int:
        """The slot of the snapshot that is being taken; 0: none is."""
        return self._seq if self.file is not None else 0

    @property
    def waits_for_majority(self) -> bool:
        """Whether a snapshot is complete on disk, and waits until a majority has told that it has executed the same."""
        return self._waits_for_majority and self.file is not None

    @property
    def is_finishing(self) -> bool:
        """Whether all pieces were given to the file, which is not complete on disk yet."""
        return self.file is not None and self._pieces is None

    def begin(self) -> None:
        """Wait, from now on, for the next slot at which a snapshot may be taken. Called at the start and when a
        snapshot was installed."""
        every = self._settings.snapshot_slots
        if every:
            aru = self._data.ordering.local_aru
            steps = (every, max(1, every // EARLY_LOOKS))
            self._ordered_queue.snapshot_slot = min((aru // step + 1) * step for step in steps)

    def take_now(self, taken: Taken) -> None:
        """Take a snapshot of the present state, as soon as the one is finished that is being taken. Called in a turn.

        `taken` is called when the snapshot is on disk, and its record, too.
        """
        if self.why_none() is not None:
            self._clock.callLater(0, taken, None)
            return
        if self.file is not None:
            self._asked_next.append(taken)
            return
        present = self._storage.snapshot
        if present is not None and present.seq == self._data.ordering.local_aru:
            self._clock.callLater(0, taken, present)
            return
        self._asked.append(taken)
        self._begin_now()

    def forget(self, taken: Taken) -> None:
        """Do not tell this callback any more, whose request has its answer already."""
        for asked in (self._asked, self._asked_next):
            if taken in asked:
                asked.remove(taken)

    def snapshot_lost(self, name: SnapshotName, fate: str) -> None:
        """Take another snapshot at once, since the file of this one is missing or damaged."""
        self._log.error(
            "the file of the snapshot of slot {seq} is {fate}: the next start would lack it. Another one is taken now",
            seq=name.seq,
            fate=fate,
        )
        self.lost = name
        self._replace()

    def _replace(self) -> None:
        """Begin a snapshot in place of the one that is lost, unless one is being taken. Look again after a while
        whether there is one."""
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None
        if self.lost is not None and not self._turn.stopped:
            self._turn.run(self._replace_now)
            self._retry = self._clock.callLater(RETRY_SECONDS, self._replace)

    def _replace_now(self) -> None:
        is_able = self._turn.trouble is None and not self._turn.lacks_state and self.why_none() is None
        if self.file is None and is_able:
            self._begin_now()

    def stop(self) -> None:
        """Give up what is being taken, and say so to all who have asked, for this snapshot or the next one. Called when
        this server stops, or when a snapshot of another server takes the place of all earlier ones."""
        self.lost = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.abandon()
        self._asked, self._asked_next = self._asked_next, []
        self._answer(None)

    def abandon(self) -> None:
        """Give up the snapshot that is being taken, if there is one."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        pieces, self._pieces = self._pieces, None
        file, self.file = self.file, None
        if pieces is not None:
            pieces.close()  # type: ignore[attr-defined]
        if file is not None:
            self.failed += 1
            file.abandon()
        self._answer(None)

    def _answer(self, name: SnapshotName | None) -> None:
        """Tell those who have asked, when no turn runs: a client may ask for something else at once."""
        asked, self._asked = self._asked, []
        for taken in asked:
            self._clock.callLater(0, taken, name)

    # ------------------------------------------------------------------ begin

    def _begin_if_worthwhile(self) -> None:
        """Called inside execution when the slot `snapshot_slot` was executed.

        A snapshot is left out as long as fewer bytes of batches were executed since the last one than that one has: so
        no more is written for snapshots than for the history itself, however large the state is.
        """
        is_multiple = self._data.ordering.local_aru % self._settings.snapshot_slots == 0
        self.begin()
        if self.why_none() is not None:
            return
        present = self._storage.snapshot
        executed = self._ordered_queue.batch_bytes - self._batch_bytes
        worthwhile = max(0 if is_multiple else EARLY_BYTES, 0 if present is None else present.size)
        if self.file is None and self._turn.trouble is None and executed >= worthwhile:
            self._begin_now()
            self._is_common = True

    def _begin_now(self) -> None:
        self._seq, self._began_at = self._data.ordering.local_aru, self._clock.seconds()
        self._is_common = False
        self._batch_bytes = self._ordered_queue.batch_bytes
        self._pieces = self._ordered_queue.freeze()
        self.file = self._storage.write_snapshot(self._seq, self.cluster_identity)
        if self._tracer is not None:
            self._tracer.trace("snapshot", seq=self._seq, step="begin")
        self._call = self._clock.callLater(PIECE_PAUSE_SECONDS, self._go_on)

    # ------------------------------------------------------------------ pieces

    def _go_on(self) -> None:
        """Give the storage the next piece, unless it still has much to write; at the end, have the file finished."""
        self._call = None
        assert self.file is not None and self._pieces is not None, "a snapshot is being taken"
        if self.file.has_failed:
            self._give_up("the disk has no room for it")
            return
        if self.file.waiting_bytes > WAITING_BYTES_MAX:
            self._call = self._clock.callLater(AGAIN_SECONDS, self._go_on)
            return
        try:
            piece = next(self._pieces, None)
        except Exception:
            # The frozen state is beside the present one, so this server can go on.
            self._log.failure("a piece of the snapshot of slot {seq} could not be made", seq=self._seq)
            self._give_up("a piece of it could not be made")
            return
        if piece is None:
            self._pieces = None
            self.file.finish(self._finished)
            self._call = self._clock.callLater(AGAIN_SECONDS, self._look)
        else:
            self.file.write(piece)
            self._call = self._clock.callLater(PIECE_PAUSE_SECONDS, self._go_on)

    def _look(self) -> None:
        """Look, while the file is being finished, whether that has failed."""
        self._call = None
        if self.file is not None and self.file.has_failed:
            self._give_up("the disk has no room for it")
        elif self.file is not None:
            self._call = self._clock.callLater(AGAIN_SECONDS, self._look)

    def _give_up(self, why: str) -> None:
        self._log.error(
            "the snapshot of slot {seq} is given up: {why}; the history before it stays, and the next multiple of "
            "snapshot_every is tried",
            seq=self._seq,
            why=why,
        )
        self.abandon()
        self._turn.run(self._begin_asked)

    # ------------------------------------------------------------------ end

    def _finished(self, name: SnapshotName) -> None:
        """Called when the file is complete on disk."""
        if self._call is not None:
            self._call.cancel()
        self._complete_at = self._clock.seconds()
        self._names.complete(name)
        self._note_if_possible(name)

    def _is_name_agreed(self, name: SnapshotName) -> bool:
        """Whether the snapshot has the name that others have told, or need not wait for that any more.

        One that an operator has asked for does not wait: other servers take none of its slot. Others take theirs about
        as long as this server has taken, in which they may be later than this one.
        """
        patience = max(NAME_PERIODS * self._settings.alive_seconds, self._complete_at - self._began_at)
        has_waited = not self._is_common or self._clock.seconds() - self._complete_at >= patience
        return self._names.is_agreed(name, has_waited=has_waited)

    def _note_if_possible(self, name: SnapshotName) -> None:
        """Write the record that names the complete snapshot. Try again later if the disk is in trouble, when no record
        may be forced (Departures 44 and 45), or if no majority is known to agree with this server."""
        self._call = None
        self._waits_for_majority = not (self.is_agreed(name.seq) and self._is_name_agreed(name))
        if self._turn.trouble is None and not self._waits_for_majority:
            self._turn.run(self._note, name)
        else:
            self._call = self._clock.callLater(AGAIN_SECONDS, self._note_if_possible, name)

    def _note(self, name: SnapshotName) -> None:
        self._turn.append(SnapshotRecord(name))
        self._turn.call(self._noted, name)
        self.file = None

    def _noted(self, name: SnapshotName) -> None:
        """Called when the record that names the snapshot is on disk: tells those who have asked for the snapshot."""
        self.taken += 1
        self.seconds = self._clock.seconds() - self._began_at
        self._log.debug(
            "snapshot of slot {seq}: {size} bytes, in {seconds:.1f} s",
            seq=name.seq,
            size=name.size,
            seconds=self.seconds,
        )
        if self.lost is not None and name.seq >= self.lost.seq:
            self.lost = None
        if self._tracer is not None:
            self._tracer.trace("snapshot", seq=name.seq, step="end")
        self._answer(name)
        self._turn.run(self._begin_asked)

    def _begin_asked(self) -> None:
        """Begin the next snapshot, if one was asked for meanwhile."""
        if not self._asked_next or self.file is not None:
            return
        self._asked, self._asked_next = self._asked_next, []
        if self.why_none() is None:
            self._begin_now()
        else:
            self._answer(None)
