"""Figures 2 and 5: what a server remembers, and how a message changes it.

The state is plain data; the handlers hold the behaviour. Each block of Figure 2 has one writer: the handler that owns
the figure in which the block changes. The Progress_Timer of block E is in `progress_timer`, the Update_Timers are in
`update_timers`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from attrs import define, field

from pfsb.paxos.messages import (
    Accept,
    Batch,
    ClientUpdate,
    GloballyOrderedUpdate,
    Prepare,
    PrepareOK,
    Proposal,
    State,
    ViewChange,
)


@define
class Slot:
    """One entry of Global_History: what this server knows about one sequence number."""

    proposal: Proposal | None = None
    """The latest accepted proposal."""
    voters: dict[int, set[int]] = field(factory=dict)
    """view -> the servers that have accepted that view's proposal; votes may come before the proposal (G17)."""
    ordered: Batch | None = None
    """The batch that is ordered at this number: never changed once it is set."""
    on_disk: Batch | None = None
    """The batch that a restart would find on disk for this number, or None."""
    sent_at: float = 0.0
    """When this server, as leader, last sent its proposal (section 5.9)."""


@define
class GlobalHistory:
    """Slots by sequence number. Reading creates none; ordered ones are dropped from the low end."""

    floor: int = 0
    """Slots up to here are ordered, executed and no longer in memory."""
    top: int = 0
    """The highest slot with a proposal or an ordered batch."""
    slots: dict[int, Slot] = field(factory=dict)
    batch_bytes: int = 0
    """Size of the ordered batches in memory."""

    def get(self, seq: int) -> Slot | None:
        return self.slots.get(seq)

    def ensure(self, seq: int) -> Slot:
        slot = self.slots.get(seq)
        if slot is None:
            assert seq > self.floor, "a slot that was executed and dropped does not come back (G12)"
            slot = self.slots[seq] = Slot()
        return slot

    def above(self, seq: int) -> Iterator[tuple[int, Slot]]:
        """The existing slots seq+1..top, ascending."""
        for number in range(max(seq, self.floor) + 1, self.top + 1):
            slot = self.slots.get(number)
            if slot is not None:
                yield number, slot

    def forget_up_to(self, seq: int) -> None:
        for number in range(self.floor + 1, seq + 1):
            slot = self.slots.pop(number, None)
            if slot is not None and slot.ordered is not None:
                self.batch_bytes -= len(slot.ordered.data)
        self.floor = max(self.floor, seq)


@define
class LastExecuted:
    """Last_Executed[client]: replicated state, a function of the executed prefix (G15).

    Departure 7: an entry that no update has touched for a horizon (`OrderedUpdateQueue.horizon_slots`) is dropped. No duplicate gets through
    because of that: an update that the entry would have filtered was made before the entry was last touched, so it is
    too old to be executed (`ClientUpdate.made_at`).
    """

    timestamps: OrderedDict[str, tuple[int, int]] = field(factory=OrderedDict)
    """client -> (timestamp, the slot that executed it), least recently touched first."""

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

    @property
    def complete(self) -> bool:
        return len(self.arrived) == self.parts


@define
class ServerData:
    """Figure 2, Block A: who this server is, and in which state."""

    server_id: int
    state: State = State.LEADER_ELECTION
    incarnation: int = 0
    """How often the storage of this server was started."""


@define
class ViewData:
    """Figure 2, Block B: views attempted and installed, and the votes for the attempted one."""

    last_attempted: int = 0
    last_installed: int = 0
    vc: dict[int, ViewChange] = field(factory=dict)


@define
class PrepareData:
    """Figure 2, Block C: the PREPARE of the last preinstalled view, and the promises for it."""

    prepare: Prepare | None = None
    prepare_oks: dict[int, PrepareOKs] = field(factory=dict)
    """By server; a server's own entry holds its own reply."""


@define
class OrderingData:
    """Figure 2, Block D: what is ordered, up to where, and what the leader has proposed."""

    local_aru: int = 0
    last_proposed: int = 0
    global_history: GlobalHistory = field(factory=GlobalHistory)


@define
class TimerData:
    """Figure 2, Block E: the present value of the Progress_Timer, in seconds.

    The timers themselves are `ProgressTimer` and `UpdateTimers`.
    """

    progress_seconds: float


@define
class ClientData:
    """Figure 2, Block F: updates that wait for a number, and how far each client has come."""

    last_executed: LastExecuted
    update_queue: deque[ClientUpdate] = field(factory=deque)
    last_enqueued: dict[str, int] = field(factory=dict)
    pending_updates: dict[str, ClientUpdate] = field(factory=dict)
    """Updates that this server is responsible for: one per client, since a client has one outstanding (G22)."""


@define
class DataStructures:
    """Figure 2 as a whole, with the update rules of Figure 5."""

    server: ServerData
    views: ViewData
    preparing: PrepareData
    ordering: OrderingData
    timers: TimerData
    clients: ClientData

    def apply_view_change(self, message: ViewChange) -> None:
        """Figure 5, Block A: of a server's votes for the attempted view the first one is kept."""
        self.views.vc.setdefault(message.server_id, message)

    def apply_prepare(self, message: Prepare) -> None:
        """Figure 5, Block B: remember the PREPARE of the view that is being installed."""
        self.preparing.prepare = message

    def apply_prepare_ok(self, message: PrepareOK) -> bool:
        """Figure 5, Block C: store a part of a promise once; True if the part is new.

        Lines C5-C6, which apply the data list of a new part, are `PrepareHandler.on_prepare_ok`. A later edition of a
        server's promise replaces an earlier one as a whole: two incarnations may cut the same list at different slots,
        so parts of both together could lack a slot, and with it a chosen value (S1).
        """
        entry = self.preparing.prepare_oks.get(message.server_id)
        if entry is None or (entry.view, entry.edition) < (message.view, message.edition):
            entry = PrepareOKs(message.view, message.edition, message.parts)
            self.preparing.prepare_oks[message.server_id] = entry
        if (entry.view, entry.edition, entry.parts) != (message.view, message.edition, message.parts):
            return False
        if message.part in entry.arrived:
            return False
        entry.arrived[message.part] = message
        return True

    def apply_proposal(self, message: Proposal) -> bool:
        """Figure 5, Block D: an ordered slot stays; else the proposal of the highest view does.

        True if the slot now holds this proposal and did not before. Votes are kept by view, so a newer proposal clears
        no votes: those of an older view never count for it (Departure 5).
        """
        history = self.ordering.global_history
        if message.seq <= self.ordering.local_aru:
            return False
        slot = history.ensure(message.seq)
        if slot.ordered is not None or (slot.proposal is not None and slot.proposal.view >= message.view):
            return False
        slot.proposal = message
        history.top = max(history.top, message.seq)
        return True

    def apply_accept(self, message: Accept, seq: int) -> None:
        """Figure 5, Block E: note one vote for each server and view; in a set, so no server counts twice (G14, G17)."""
        self.ordering.global_history.ensure(seq).voters.setdefault(message.view, set()).add(message.server_id)

    def apply_globally_ordered_update(self, message: GloballyOrderedUpdate) -> bool:
        """Figure 5, Block F: set the slot's ordered field (G12). True if the slot was not known as ordered."""
        history = self.ordering.global_history
        if message.seq <= self.ordering.local_aru:
            return False
        slot = history.ensure(message.seq)
        if slot.ordered is not None:
            assert slot.ordered.data == message.batch.data, f"two values ordered at {message.seq} (S1)"
            return False
        slot.ordered = message.batch
        slot.proposal = None
        slot.voters.clear()
        history.top = max(history.top, message.seq)
        history.batch_bytes += len(message.batch.data)
        return True
