"""Figures 2 and 5: the state of a server, and how messages change that state.

The state is plain data, and the handlers hold the behaviour: a handler changes the variables that change in its own
figure of the paper. The Progress_Timer of block E is in `progress_timer`, the Update_Timers are in `update_timers`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from attrs import define, evolve, field

from pfsb.paxos.messages import (
    Batch,
    ClientUpdate,
    GloballyOrderedUpdate,
    Prepare,
    PrepareOK,
    Proposal,
    State,
    ViewChange,
)

VOTED_VIEWS_MAX = 8
"""Maximum number of views whose ACCEPTs are kept for one slot."""


@define
class Slot:
    """One entry of Global_History: what this server knows about one sequence number."""

    proposal: Proposal | None = None
    """The proposal of the latest view that this server has accepted here, or has learned from a data list; None: there
    is none."""
    voters: dict[int, dict[int, bytes]] = field(factory=dict)
    """view -> server -> digest of the batch that the server has accepted in that view (Departure 39).

    ACCEPTs may precede the PROPOSAL (G17).
    """
    told: tuple[int, bytes] | None = None
    """(view, digest of the batch) of the latest ORDERED for this slot, until the slot is ordered (Departure 55); None:
    there is none.

    It may precede the PROPOSAL.
    """
    ordered: Batch | None = None
    """The batch that is ordered at this sequence number, or None: never changed once it is set."""
    on_disk: Batch | None = None
    """The batch that a restart would find on disk for this sequence number, or None."""
    sent_at: float = 0.0
    """Time, by the clock in seconds, at which this server, as leader, last sent the slot's PROPOSAL (section 5.9), or,
    as a follower, accepted it."""
    written_at: int = 0
    """Only at a leader that tells what is ordered (Departure 55): the record of its own proposal is on disk when
    `Turn.durable_position`, the number of disk writes that are done, has reached this number."""
    first_sent_at: float = 0.0
    """Time, by the clock in seconds, at which the first copy of the slot's PROPOSAL was sent or accepted (Departure
    49)."""


@define
class GlobalHistory:
    """Global_History: the slots that are in memory, by sequence number.

    Only `ensure` creates slots; `forget_up_to` drops the lowest ones, after they have been executed.
    """

    floor: int = 0
    """The number of the highest slot that was dropped from memory: all slots up to it are ordered and executed."""
    top: int = 0
    """The number of the highest slot with a proposal or an ordered batch."""
    slots: dict[int, Slot] = field(factory=dict)
    batch_bytes: int = 0
    """Total size, in bytes, of the ordered batches that are in memory."""

    def get(self, seq: int) -> Slot | None:
        return self.slots.get(seq)

    def ensure(self, seq: int) -> Slot:
        slot = self.slots.get(seq)
        if slot is None:
            assert seq > self.floor, "a slot that was executed and dropped does not come back (G12)"
            slot = self.slots[seq] = Slot()
        return slot

    def above(self, seq: int) -> Iterator[tuple[int, Slot]]:
        """Yield (number, slot) for the slots above `seq` that are in memory, in ascending order."""
        first = max(seq, self.floor) + 1
        numbers: Iterable[int] = range(first, self.top + 1)
        if self.top - first > len(self.slots):
            # Few slots lie far apart: look at them, and not at all numbers between them.
            numbers = sorted(number for number in self.slots if number >= first)
        for number in numbers:
            slot = self.slots.get(number)
            if slot is not None:
                yield number, slot

    def cut_above(self, seq: int) -> None:
        """Forget the slots above `seq`, which an epoch of the membership has left behind: they are void (Departure
        59)."""
        for number in [number for number in self.slots if number > seq]:
            slot = self.slots.pop(number)
            if slot.ordered is not None:
                self.batch_bytes -= len(slot.ordered.data)
        self.top = min(self.top, seq)

    def forget_up_to(self, seq: int) -> None:
        numbers: Iterable[int] = range(self.floor + 1, seq + 1)
        if seq - self.floor > len(self.slots):
            numbers = [number for number in self.slots if number <= seq]
        for number in numbers:
            slot = self.slots.pop(number, None)
            if slot is not None and slot.ordered is not None:
                self.batch_bytes -= len(slot.ordered.data)
        self.floor = max(self.floor, seq)


@define
class LastExecuted:
    """Last_Executed: the timestamp of each client's latest executed update, so that no update executes twice (G15).

    The table is a function of the executed slots, so it is equal on all servers that have executed the same slots.

    Departure 7: an entry that no update has touched for a horizon (`OrderedUpdateQueue`) is dropped. No update runs
    twice because of that: an update that the entry would have filtered out was made before the entry was last touched,
    so it is too old to be executed (`ClientUpdate.made_at`).
    """

    timestamps: OrderedDict[str, tuple[int, int]] = field(factory=OrderedDict)
    """client id -> (timestamp of its latest executed update, slot of that update), least recently touched first."""

    def of(self, client_id: str) -> int:
        entry = self.timestamps.get(client_id)
        return 0 if entry is None else entry[0]

    def note(self, client_id: str, timestamp: int, seq: int) -> None:
        self.timestamps[client_id] = (timestamp, seq)
        self.timestamps.move_to_end(client_id)

    def drop_older_than(self, seq: int) -> None:
        while self.timestamps:
            client_id, (_, touched) = next(iter(self.timestamps.items()))
            if touched >= seq:
                return
            del self.timestamps[client_id]


@define
class PrepareOKs:
    """The parts of one server's PREPARE_OK that have arrived, all of one edition."""

    view: int
    edition: int
    parts: int
    arrived: dict[int, PrepareOK] = field(factory=dict)
    reported: dict[int, bytes] = field(factory=dict)
    """Slot -> digest of the batch that the data list has there as a proposal (Departure 39); empty for this server's
    own PREPARE_OK."""

    @property
    def complete(self) -> bool:
        return len(self.arrived) == self.parts

    @property
    def lacking(self) -> int:
        """Number of parts that have not arrived."""
        return self.parts - len(self.arrived)

    def missing(self) -> Iterator[int]:
        """The parts that have not arrived, ascending."""
        return (part for part in range(self.parts) if part not in self.arrived)


@define
class ServerData:
    """Figure 2, Block A: the id and the state of this server."""

    server_id: int
    state: State = State.LEADER_ELECTION
    incarnation: int = 0
    """Number of times that the storage of this server was started, this time included."""
    start_mark: int = 0
    """The mark of this start: random bits, which tell it from starts of copies of this storage (Departure 53)."""
    storage_identity: bytes = b""
    """Random bytes that the storage of this server was made with; empty until the storage is opened."""

    @property
    def incarnation_name(self) -> str:
        """A name that no other incarnation of any server has: server, identity of the storage, incarnation, mark.

        A storage counts its incarnations from 1. Only the identity tells those of a new storage from those of one that
        was lost, and only the mark those of two copies of one storage.
        """
        return f"{self.server_id}.{self.storage_identity.hex()}.{self.incarnation}.{self.start_mark:x}"


@define
class ViewData:
    """Figure 2, Block B: the views last attempted and last installed, and the VIEW_CHANGEs for the attempted view."""

    last_attempted: int = 0
    last_installed: int = 0
    vc: dict[int, ViewChange] = field(factory=dict)


@define
class PrepareData:
    """Figure 2, Block C: the PREPARE of the last preinstalled view, and the PREPARE_OKs that answer it."""

    prepare: Prepare | None = None
    prepare_oks: dict[int, PrepareOKs] = field(factory=dict)
    """server id -> the parts of that server's PREPARE_OK; this server's entry is the PREPARE_OK that it has made."""


@define
class OrderingData:
    """Figure 2, Block D: Local_Aru, the highest sequence number that this server, as leader, has proposed, and the
    slots."""

    local_aru: int = 0
    last_proposed: int = 0
    global_history: GlobalHistory = field(factory=GlobalHistory)


@define
class TimerData:
    """Figure 2, Block E: the present length of the Progress_Timer, in seconds.

    The timers themselves are `ProgressTimer` and `UpdateTimers`.
    """

    progress_seconds: float


@define
class ClientData:
    """Figure 2, Block F: the updates that wait to be ordered or executed, and the latest timestamps of each client."""

    last_executed: LastExecuted
    update_queue: deque[ClientUpdate] = field(factory=deque)
    last_enqueued: dict[str, int] = field(factory=dict)
    pending_updates: dict[str, ClientUpdate] = field(factory=dict)
    """client id -> the update that this server answers for; a client has one update outstanding (G22)."""


@define
class DataStructures:
    """All variables of Figure 2, with the update rules of Figure 5 as methods."""

    server: ServerData
    views: ViewData
    preparing: PrepareData
    ordering: OrderingData
    timers: TimerData
    clients: ClientData

    def apply_view_change(self, message: ViewChange) -> bool:
        """Figure 5, Block A: store a server's VIEW_CHANGE, unless one of the same server is stored already. Returns
        whether it was stored."""
        return self.views.vc.setdefault(message.server_id, message) is message

    def apply_prepare(self, message: Prepare) -> None:
        """Figure 5, Block B: remember the PREPARE of the view that is being installed."""
        self.preparing.prepare = message

    def apply_prepare_ok(self, message: PrepareOK) -> bool:
        """Figure 5, Block C: store one part of a server's PREPARE_OK; return True if the part is new.

        Lines C5-C6, which apply the data list of a new part, are `PrepareHandler.on_prepare_ok`. A PREPARE_OK of a
        later edition replaces all parts of an earlier edition: two incarnations of a server may cut the same data list
        at different slots, so a mixture of their parts could lack a slot, and with it a chosen batch (S1).
        """
        entry = self.preparing.prepare_oks.get(message.server_id)
        if entry is None or (entry.view, entry.edition) < (message.view, message.edition):
            entry = PrepareOKs(message.view, message.edition, message.parts)
            self.preparing.prepare_oks[message.server_id] = entry
        if (entry.view, entry.edition, entry.parts) != (message.view, message.edition, message.parts):
            return False
        if message.part in entry.arrived:
            return False
        is_own = message.server_id == self.server.server_id
        # The slots have the entries of its data list.
        entry.arrived[message.part] = message if is_own else evolve(message, data_list=())
        return True

    def apply_proposal(self, message: Proposal) -> Slot | None:
        """Figure 5, Block D: store a proposal, unless its slot is ordered or holds a proposal of this view or a later
        one.

        Returns the slot if the proposal was stored, else None. Votes are stored by view, so a proposal of a later view
        need not clear the votes in the slot: votes of an earlier view never count for a proposal of a later one
        (Departure 5).
        """
        history, seq = self.ordering.global_history, message.seq
        if seq <= self.ordering.local_aru:
            return None
        slot = history.ensure(seq)
        if slot.ordered is not None or (slot.proposal is not None and slot.proposal.view >= message.view):
            return None
        slot.proposal = message
        if seq > history.top:
            history.top = seq
        return slot

    def apply_accept(self, server_id: int, view: int, slot: Slot, digest: bytes) -> bool:
        """Figure 5, Block E: store that a server has accepted, in this view, a batch with this digest in this slot.

        One vote is kept for each server and view, so no server is counted twice (G14, G17). Returns whether the vote is
        stored now, and was not before.
        """
        voters = slot.voters
        votes = voters.get(view)
        if votes is None:
            if len(voters) >= VOTED_VIEWS_MAX and not self._make_room(voters, view):
                return False
            votes = voters[view] = {}
        elif votes.get(server_id) == digest:
            return False
        votes[server_id] = digest
        return True

    def apply_ordered(self, view: int, slot: Slot, digest: bytes) -> None:
        """Departure 55: store that the leader of `view` has told that this batch is ordered in this slot.

        One ORDERED is kept for each slot: of those whose views are not below Last_Installed, the one with the lowest
        view (Departure 37), since a server in error may tell of views that there never are. To drop the others is safe,
        as if the network had lost them.
        """
        told = slot.told
        if told is None or told[0] < self.views.last_installed or view <= told[0]:
            slot.told = (view, digest)

    def _make_room(self, voters: dict[int, dict[int, bytes]], view: int) -> bool:
        """Departure 37: forget a slot's votes of views below Last_Installed; if too many views are left, forget those
        of the highest one.

        The votes of the highest view stay if it is not above `view`. Returns whether the slot has room for votes of one
        more view. To forget a vote is safe, as if the network had lost it: the leader repeats its proposal.
        """
        for old in [voted for voted in voters if voted < self.views.last_installed]:
            del voters[old]
        if len(voters) >= VOTED_VIEWS_MAX and (highest := max(voters)) > view:
            del voters[highest]
        return len(voters) < VOTED_VIEWS_MAX

    def apply_globally_ordered_update(self, message: GloballyOrderedUpdate) -> Slot | None:
        """Figure 5, Block F: store the ordered batch of a slot (G12). Returns the slot; None if its ordered batch was
        known before.
        """
        history, seq = self.ordering.global_history, message.seq
        if seq <= self.ordering.local_aru:
            return None
        slot = history.ensure(seq)
        if slot.ordered is not None:
            assert slot.ordered.data == message.batch.data, f"two values ordered at {seq} (S1)"
            return None
        slot.ordered = message.batch
        slot.proposal = slot.told = None
        slot.voters.clear()
        if seq > history.top:
            history.top = seq
        history.batch_bytes += len(message.batch.data)
        return slot
