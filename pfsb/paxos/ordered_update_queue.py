"""Ordered updates, executed once, in the order of their sequence numbers (Figure 11, Block C).

A server learns the batch that is ordered in a slot by votes, by data lists or by reconciliation. All three ways end in
`OrderedUpdateQueue.mark_ordered`, so each of them leads to execution (G13).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.frozen_history import History, HistoryRestorer
from pfsb.paxos.interfaces import IRestorer, IStateMachine
from pfsb.paxos.members import Members
from pfsb.paxos.messages import DIGEST_BYTES, Batch, ClientUpdate, GloballyOrderedUpdate, State
from pfsb.paxos.ordered_time import OrderedTime
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.records import AruRecord, OrderedRecord
from pfsb.paxos.snapshot import Piece
from pfsb.paxos.snapshot_rows import FrozenPieces
from pfsb.support.values import value

HISTORY_BYTES_KEPT = 4_000_000


@value
class Executed:
    """A slot that was executed, with all of its updates, also those that an earlier slot had executed already."""

    seq: int
    updates: Sequence[ClientUpdate]


class DigestChain:
    """A running hash over all executed batches and the outcomes of executing them (Departure 40).

    Its values after each of the last `kept` slots can be asked for.
    """

    def __init__(self, kept: int) -> None:
        self._ring = bytearray(kept * DIGEST_BYTES)
        self._kept = kept
        self.begin = 0
        """Slot from which the chain begins: 0, or that of the snapshot from which this server has started."""
        self.seq = 0
        self.head = bytes(DIGEST_BYTES)

    def extend(self, batch: bytes, outcomes: bytes) -> None:
        """Add the slot after the last one: the digest of its batch, and the outcomes of executing it."""
        self.head = blake2b(self.head + batch + outcomes, digest_size=DIGEST_BYTES).digest()
        self.seq += 1
        at = self.seq % self._kept * DIGEST_BYTES
        self._ring[at : at + DIGEST_BYTES] = self.head

    def begin_at(self, seq: int, head: bytes) -> None:
        """Begin again with slot `seq`, whose hash is `head`. The hashes of the slots below it are not known."""
        self.begin = self.seq = seq
        self.replace_head(head)

    def replace_head(self, head: bytes) -> None:
        """Replace the hash of the last slot by another one, as if executing the slot had had other outcomes.

        Only the simulator does so, to let a server diverge.
        """
        self.head = head
        at = self.seq % self._kept * DIGEST_BYTES
        self._ring[at : at + DIGEST_BYTES] = head

    def at(self, seq: int) -> bytes | None:
        """The hash over the batches and outcomes up to slot `seq`; None if it is no longer kept, or the slot is not
        executed yet."""
        if seq > self.seq or seq <= self.seq - self._kept or seq < self.begin:
            return None
        at = seq % self._kept * DIGEST_BYTES
        return bytes(self._ring[at : at + DIGEST_BYTES])


class OrderedUpdateQueue(Handler):
    """The ordered updates of this server, and the state machine that they drive."""

    _log = Logger()

    def __init__(self, core: Core, state_machine: IStateMachine) -> None:
        super().__init__(core)
        self.state_machine = state_machine
        """Executes the updates. A watcher may be put in its place before the server starts."""
        self.last_executed = core.data.clients.last_executed
        """Last_Executed of Figure 2, by which each update is executed only once (G15 i)."""
        self.horizon_slots = core.settings.horizon_slots
        """Number of slots for which an update is valid (Departure 7); the value of the cluster's settings once there
        are any."""
        self.oldest_valid = 0
        """Lowest `made_at` of an update that may still be executed.

        The value never goes back, also when the horizon grows (Departure 34): Last_Executed has dropped entries for
        older updates, so nothing would keep such an update from being executed twice.
        """
        self.time = OrderedTime(core.clock)
        self.digests = DigestChain(core.settings.digests_kept)
        self.passes: Mapping[int, bytes] = {}
        """Slot -> digest of its batch, for the slots that this server passes without executing them (Departure 38)."""
        self.on_adopted: Callable[[int, int], None] = lambda seq, oldest_valid: None
        """Called with the slot of a snapshot and `oldest_valid` when the history of the snapshot has been adopted, and
        before its state is: no update that was executed by then is pending any more."""
        self.batch_bytes = 0
        """Number of bytes of the batches that were executed since this server's start."""
        self.snapshot_slot = 0
        """The slot after whose execution `on_snapshot_slot` is called (Departure 56); 0: there is none."""
        self.on_snapshot_slot: Callable[[], None] = lambda: None
        self.next_members: Members | None = None
        """The servers of the epoch whose change is executed in the present slot; None: the slot has no change."""
        self.on_epoch: Callable[[Members, bool], None] | None = None
        """Begins an epoch of the membership; the second argument says whether a snapshot has brought it. None while
        this server recovers."""
        self.may_hold_change: Callable[[Batch], bool] = lambda batch: False
        """Says whether a batch may hold a change of the membership. A slot with such a batch is not executed while the
        disk is in trouble, since it begins an epoch, whose records are forced (Departures 45 and 60)."""

    def change_members(self, members: Members) -> None:
        """Begin a later epoch with these servers as soon as the present slot is executed; called by the state machine
        when it executes a change. An epoch that this server is in already was begun before a restart."""
        if members.epoch > self._membership.epoch:
            self.next_members = members

    def mark_ordered(self, message: GloballyOrderedUpdate) -> list[Executed]:
        """Store that `message.batch` is ordered at `message.seq`, and execute the slots that now follow without a gap.

        Returns the executed slots. This slot is not among them if an earlier one is not ordered yet.
        """
        data = self._data
        slot = data.apply_globally_ordered_update(message)
        if slot is None:
            return []
        if slot.on_disk is None or slot.on_disk.data != message.batch.data:
            slot.on_disk = message.batch
            self._turn.append(OrderedRecord(message.seq, message.batch), lazy=True)
        if self._tracer is not None:
            self._tracer.trace("ordered", seq=message.seq)
        executed = self._advance_aru()
        if executed:
            self._turn.append(AruRecord(data.ordering.local_aru), lazy=True)
            self._forget_old_slots()
        return executed

    # ------------------------------------------------------------------ snapshots

    def freeze(self) -> Generator[Piece, None, None]:
        """The pieces of a snapshot of the slots up to Local_Aru (`IStateMachine.freeze`)."""
        history = History(
            self._data.ordering.local_aru,
            self.digests.head,
            self.time.time_ms,
            self.oldest_valid,
            self.last_executed.timestamps,
            self._membership.members if self._membership.epoch else None,
        )
        machine = self.state_machine.freeze()
        return FrozenPieces(chain(history.pieces(), machine), machine.close)

    def restorer(self) -> HistoryRestorer:
        """Make a restorer, which builds the history and the state of a snapshot beside the present ones (`IRestorer`).

        The slots behind the snapshot, of which some may be ordered here, are executed by the next call of
        `mark_ordered` or `catch_up`.
        """
        return HistoryRestorer(self.state_machine.restorer(), self._adopt)

    def _adopt(self, history: History, machine: IRestorer) -> None:
        """Adopt the history of a snapshot, and by `machine` its state, as if the slot of the snapshot had just been
        executed here.

        With the state come the settings: the horizon, which bounds `oldest_valid` from the next slot on, and the
        window.
        """
        ordering = self._data.ordering
        assert history.seq > ordering.local_aru, "a snapshot does not take the state back"
        ordering.local_aru = history.seq
        ordering.global_history.forget_up_to(history.seq)
        ordering.global_history.top = max(ordering.global_history.top, history.seq)
        self.last_executed.timestamps = history.timestamps
        self.oldest_valid = history.oldest_valid
        self.time.restore(history.time_ms, self._data.server.state is State.REG_LEADER)
        self.digests.begin_at(history.seq, history.digest)
        self._turn.note_execution()
        self.on_adopted(history.seq, history.oldest_valid)
        machine.adopt()
        if history.members is not None:
            self.change_members(history.members)
        if self.next_members is not None:
            self.begin_epoch(by_snapshot=True)

    # ------------------------------------------------------------------ recovery and execution

    def recover(self, seq: int, batch: Batch) -> None:
        """Figure 14: execute again a slot that was executed before the restart."""
        data = self._data
        assert seq == data.ordering.local_aru + 1, "the history on disk has no gaps"
        data.apply_globally_ordered_update(GloballyOrderedUpdate(data.server.server_id, seq, batch))
        data.ordering.global_history.ensure(seq).on_disk = batch
        self._advance_aru()
        self._forget_old_slots()

    def catch_up(self) -> list[Executed]:
        """Figure 14: execute slots that are ordered on disk above the Local_Aru on disk. Returns them.

        There may be such slots, because a crash can keep the record that a slot is ordered, and lose the record of the
        new Local_Aru. Without this step they would never be executed: other servers do not send a slot again that this
        server knows as ordered.
        """
        executed = self._advance_aru()
        self._forget_old_slots()
        return executed

    def _advance_aru(self) -> list[Executed]:
        """Figure 11, Block C: as long as the slot after Local_Aru is ordered, execute it and raise Local_Aru. Returns
        the executed slots."""
        ordering = self._data.ordering
        executed = []
        while (slot := ordering.global_history.get(ordering.local_aru + 1)) is not None and slot.ordered is not None:
            if self.must_wait(slot.ordered):
                break
            ordering.local_aru += 1
            executed.append(self.execute_slot(ordering.local_aru, slot))
            if self.next_members is not None and not self.begin_epoch():
                break
            if ordering.local_aru == self.snapshot_slot:
                self.on_snapshot_slot()
        return executed

    def must_wait(self, batch: Batch) -> bool:
        """Whether an ordered batch must not be executed yet (`may_hold_change`)."""
        return self._turn.trouble is not None and self.may_hold_change(batch)

    def begin_epoch(self, *, by_snapshot: bool = False) -> bool:
        """Begin the epoch whose change was executed last (Departure 60). Returns False if that has to wait, while this
        server recovers: then nothing is executed behind the change."""
        if self.on_epoch is None:
            return False
        members, self.next_members = self.next_members, None
        assert members is not None, "a change was executed"
        self.on_epoch(members, by_snapshot)
        return True

    def execute_slot(self, seq: int, slot: Slot) -> Executed:
        """Execute each update of the slot that has not been executed before (G15 i), at the slot's time."""
        assert slot.ordered is not None
        slot.voters.clear()
        time_ms, updates = slot.ordered.open()
        time_ms = self.time.execute(time_ms, self._data.server.state is State.REG_LEADER)
        last_executed = self.last_executed
        oldest = self.oldest_valid = max(self.oldest_valid, seq - self.horizon_slots)
        passes = seq in self.passes and self._passes(seq, slot.ordered)
        fresh = []
        for update in updates:
            if update.timestamp <= last_executed.of(update.client_id):
                continue
            last_executed.note(update.client_id, update.timestamp, seq)
            # Departure 37: no update is made at its slot or later. If it counted, it would be valid for too long.
            if passes or not oldest <= update.made_at < seq:
                self.state_machine.too_old(update)
            else:
                fresh.append(update)
        try:
            outcomes = self.state_machine.execute(seq, time_ms, fresh)
        except Exception:
            self._tell_of_failure(seq, slot.ordered)
            raise
        self._turn.note_execution()
        last_executed.drop_older_than(oldest)
        self.digests.extend(slot.ordered.digest, outcomes)
        self.batch_bytes += len(slot.ordered.data)
        if self._tracer is not None:
            self._tracer.trace("executed", seq=seq, updates=len(fresh), digest=self.digests.head.hex())
        return Executed(seq, updates)

    def _tell_of_failure(self, seq: int, batch: Batch) -> None:
        self._log.critical(
            "slot {seq} cannot be executed, so this server stops. If all servers stop at it, and again at each start, "
            "leave the slot out: with every server stopped, run at each of them `pfsb pass {seq} --digest {digest} "
            "--config FILE --id N`",
            seq=seq,
            digest=batch_digest(batch.data).hex(),
        )

    def _passes(self, seq: int, batch: Batch) -> bool:
        """Departure 38: whether slot `seq`, one of `passes`, is passed without executing `batch`. It is executed after
        all if the digest in `passes` is that of another batch."""
        found = batch_digest(batch.data)
        if found == self.passes[seq]:
            self._log.warn("slot {seq} is left out, as it was noted by pfsb pass", seq=seq)
            return True
        self._log.warn(
            "slot {seq} holds the batch with digest {found}, and is executed: the batch with digest {noted} was to be "
            "left out",
            seq=seq,
            found=found.hex(),
            noted=self.passes[seq].hex(),
        )
        return False

    def _forget_old_slots(self) -> None:
        """Drop old executed slots from memory; recent ones stay there, to serve servers that are a little behind.

        The dropped slots stay on disk. Dropping depends only on this server's own Local_Aru, so a server that is down
        does not stop it (G21).
        """
        ordering = self._data.ordering
        history = ordering.global_history
        kept = self._settings.history_slots_kept
        history.forget_up_to(ordering.local_aru - kept)
        while history.batch_bytes > HISTORY_BYTES_KEPT and history.floor < ordering.local_aru:
            history.forget_up_to(history.floor + 1)
