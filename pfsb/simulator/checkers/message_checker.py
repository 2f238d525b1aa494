"""Consistency of messages: no two messages of any servers, in any of their incarnations, may contradict each other."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from pfsb.paxos.messages import (
    Alive,
    GloballyOrderedUpdate,
    HandOver,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    State,
    VCProof,
)
from pfsb.simulator.checkers.violation import require


@define
class Advertised:
    """Checks one number that servers advertise in messages, a view or a Local_Aru: no restart may make it lower.

    Within one incarnation a lower number may follow a higher one, since a message that has waited behind the durability
    gate may leave after a newer message that did not have to wait.
    """

    what: str
    _highest: dict[int, int] = field(factory=dict)
    _before: dict[int, int] = field(factory=dict)
    """Server -> the highest number of this kind that it advertised in earlier incarnations; 0: none.

    The attribute `what` names the kind: view or Local_Aru.
    """

    def started(self, server_id: int) -> None:
        self._before[server_id] = self._highest.get(server_id, 0)

    def begins_anew(self, server_id: int) -> None:
        """Let a server advertise any number in this incarnation, since it has lost the state to which its former
        numbers belonged."""
        self._before[server_id] = 0

    def tell(self, server_id: int, now: int) -> None:
        before = self._before[server_id]
        require(now >= before, f"server {server_id} told of {self.what} {before} before it crashed, and now of {now}")
        self._highest[server_id] = max(now, self._highest.get(server_id, 0))


@define
class MessageChecker:
    """Checks that each view has one leader, each view and slot one proposed batch, and each slot one ordered batch.

    It also checks that no server advertises a lower view or Local_Aru than before its restart.
    """

    leaders: dict[int, tuple[int, int]] = field(factory=dict)
    """View -> the only (server, incarnation) that has sent a PREPARE, a PROPOSAL or a leader's ALIVE in it (G10)."""
    proposals: dict[tuple[int, int], bytes] = field(factory=dict)
    """(view, seq) -> the encoded batch that the leader of the view has proposed for this slot."""
    altered: set[tuple[int, int]] = field(factory=set)
    """(view, seq) of each proposal that the network has altered on its way, so that servers hold different batches: for
    these, the batches that servers report of that view are not compared."""
    handed_over: dict[int, int] = field(factory=dict)
    """View -> the next view for which its leader has left it by HAND_OVER (Departure 59)."""
    ordered: dict[tuple[int, int], bytes] = field(factory=dict)
    """(seq, epoch of the membership) -> the encoded batch that the first server to report this slot as ordered has
    named."""
    era: Callable[[int, int], int | None] = lambda seq, server_id: 0
    """Function of (seq, server) that returns the epoch that fills a slot, or None if what the server says of the slot
    is void (`Electorate.era`)."""
    views: Advertised = field(factory=lambda: Advertised("view"))
    arus: Advertised = field(factory=lambda: Advertised("Local_Aru"))
    _incarnations: dict[int, int] = field(factory=dict)

    def started(self, server_id: int) -> None:
        self._incarnations[server_id] = self._incarnations.get(server_id, 0) + 1
        self.views.started(server_id)
        self.arus.started(server_id)

    def leads(self, server_id: int, view: int) -> bool:
        """Whether this server has sent a message as the leader of `view`."""
        return view in self.leaders and self.leaders[view][0] == server_id

    def sent(self, server_id: int, message: Message) -> None:
        match message:
            case Proposal():
                self._leads(server_id, message.view)
                if self.handed_over:
                    is_left = message.view in self.handed_over
                    require(not is_left, f"view {message.view} was handed over, and its leader goes on proposing")
                self._proposed(message)
            case Prepare() | Ordered():
                self._leads(server_id, message.view)
            case Alive():
                self._advertises(server_id, message)
            case HandOver():
                self._leads(server_id, message.view)
                known = self.handed_over.setdefault(message.view, message.next_view)
                require(known == message.next_view, f"view {message.view} is handed over twice, to two servers")
            case VCProof():
                self.views.tell(server_id, message.installed)
            case PrepareOK():
                for entry in message.data_list:
                    self._entry(server_id, entry)
            case ReconciliationReply():
                for entry in message.updates:
                    self._ordered(server_id, entry)

    def _entry(self, server_id: int, entry: Proposal | GloballyOrderedUpdate) -> None:
        if isinstance(entry, Proposal):
            self._proposed(entry)
        else:
            self._ordered(server_id, entry)

    def _leads(self, server_id: int, view: int) -> None:
        incarnation = self._incarnations[server_id]
        known = self.leaders.setdefault(view, (server_id, incarnation))
        require(
            known == (server_id, incarnation),
            f"view {view} is led by {known} and by {(server_id, incarnation)} (server, life)",
        )

    def _proposed(self, message: Proposal) -> None:
        key = (message.view, message.seq)
        known = self.proposals.setdefault(key, message.batch.data)
        require(
            known == message.batch.data or key in self.altered, f"two proposals of view {message.view} at {message.seq}"
        )

    def _ordered(self, server_id: int, message: GloballyOrderedUpdate) -> None:
        era = self.era(message.seq, server_id)
        if era is not None:
            known = self.ordered.setdefault((message.seq, era), message.batch.data)
            require(known == message.batch.data, f"S1: two batches are called ordered at {message.seq}")

    def _advertises(self, server_id: int, message: Alive) -> None:
        if message.state is State.REG_LEADER:
            self._leads(server_id, message.view)
        self.views.tell(server_id, message.view)
        self.arus.tell(server_id, message.local_aru)
