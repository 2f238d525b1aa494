"""Departure 37: bounds on the numbers that other servers claim.

A well-formed message may name a slot, a view or a Local_Aru that no server of this cluster can have come to. Such a
number would be stored, counted up to, or followed: one ordered update in slot 2**40 made a server walk through all
slots below it, at every start. So each number is compared with this server's own state before anything is stored,
walked through or allocated. A message with a number that cannot be is discarded, and counted as "implausible".

Why safe: a discarded message is the same as a lost one. Why live: the bounds are far above all that a server in its
right mind can say, whatever it has missed. A server that was away for long learns slots in bursts, each of which begins
at its own Local_Aru; and views far above its own are believed if a majority claims such views.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import (
    Accept,
    Alive,
    Confirm,
    Confirmed,
    DataEntry,
    GloballyOrderedUpdate,
    HandOver,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    ReadIndex,
    ReconciliationReply,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
    VCProof,
    ViewChange,
)
from pfsb.support.limits import SLOT_MAX, WINDOW_MAX
from pfsb.support.views import shown

IMPLAUSIBLE: Final = "implausible"
"""Reason, given in place of a line of Figure 4, for which a message is discarded if a number in it cannot be right.
Discarded messages are counted by their reasons."""

VIEW_STEP_MAX: Final = 2**20
"""How many views a claimed view may be above this server's own: twelve days of elections, one each second."""
BURST_SLOTS_MAX: Final = 2_048
"""Maximum number of slots in the burst that answers one RECONCILIATION_REQUEST."""
REACH_SLOTS_MAX: Final = 4 * (BURST_SLOTS_MAX + WINDOW_MAX)
"""How far above Local_Aru an ordered slot may be told, in slots: four bursts, since two are under way at once, and may
be late; and four of the largest windows, since a PREPARE_OK tells ordered slots, too."""
PROPOSED_SLOTS_MAX: Final = 16 * WINDOW_MAX
"""Maximum distance, in slots, between Local_Aru and a proposal in a PREPARE_OK. Proposals lie within four windows above
Local_Aru (Invariant 10), and a follower that has accepted proposals of several former leaders may hold some further
above. `WINDOW_MAX`, the largest window that a cluster may have, is used here, since the cluster's window may be larger
than the one in this server's configuration, and may have been larger when the proposals were made."""
HELD_BYTES_MAX: Final = 32_000_000
"""Total size, in bytes, of the ordered batches in memory. While the batches in memory have more bytes, this server
takes no ordered batch but that of the slot after Local_Aru, which can be executed at once."""
SNAPSHOT_BYTES_MAX: Final = 2**40
"""Maximum size, in bytes, of a snapshot that another server may offer."""


class Plausibility:
    """Compares the numbers in a message with the state of this server."""

    _log = Logger()

    def __init__(self, data: DataStructures, membership: Membership) -> None:
        self._views = data.views
        self._ordering = data.ordering
        self._membership = membership
        self._claims: dict[int, int] = {}
        """Server id -> a view too far above this server's own, which the last message with such a view from that server
        has named. The method `view` counts it as that server's claim that such views exist."""

    def line_against(self, message: Message, sender: int) -> str | None:
        """`IMPLAUSIBLE` if a message of `sender` must be discarded for one of its numbers, else None."""
        return None if self._is_plausible(message, sender) else IMPLAUSIBLE

    def _is_plausible(self, message: Message, sender: int) -> bool:
        match message:
            case Accept(view=view) | Ordered(view=view) | Confirm(view=view) | Confirmed(view=view):
                return self.view(view, sender)
            case ViewChange(attempted=view):
                return self.view(view, sender)
            case VCProof(installed=view):
                return self.view(view, sender)
            case Alive():
                return self._alive(message)
            case Prepare(view=view, local_aru=aru):
                return self.view(view, sender) and aru <= SLOT_MAX
            case PrepareOK():
                return (
                    message.view > 0 and message.parts <= REACH_SLOTS_MAX and all(map(self._entry, message.data_list))
                )
            case GloballyOrderedUpdate(seq=seq):
                return self.ordered(seq) and not self._holds_too_much(seq)
            case ReconciliationReply():
                return self._reply(message)
            case ReadIndex(seq=seq):
                return seq <= SLOT_MAX
            case SnapshotOffer(local_aru=aru, name=name):
                return name.seq <= aru <= SLOT_MAX and name.size <= SNAPSHOT_BYTES_MAX
            case SnapshotRequest(name=name, offset=offset, size=size):
                return offset + size <= name.size <= SNAPSHOT_BYTES_MAX
            case SnapshotPart(name=name, offset=offset, data=data):
                return offset + len(data) <= name.size
            case HandOver(view=view, next_view=later):
                members = self._membership
                is_next = view < later <= min(view + members.n, members.last_view)
                return is_next and members.leader_of(later) != members.leader_of(view)
        return True

    def view(self, view: int, sender: int) -> bool:
        """Whether a view may have been attempted: it is not far above this server's, or a majority claims such
        views."""
        if view <= self._views.last_attempted + VIEW_STEP_MAX:
            return view <= self._membership.last_view
        if sender not in self._claims:
            self._log.error(
                "server {sender} claims view {view}, which cannot be: this server attempts view {own}",
                sender=sender,
                view=shown(view),
                own=shown(self._views.last_attempted),
            )
        self._claims[sender] = view
        supporters = [i for i, claimed in self._claims.items() if claimed >= view - VIEW_STEP_MAX]
        return view <= self._membership.last_view and self._membership.is_majority(supporters)

    def ordered(self, seq: int) -> bool:
        """Whether this server takes messages that say which batch is ordered in slot `seq`: at most `REACH_SLOTS_MAX`
        slots above Local_Aru."""
        return seq <= self._ordering.local_aru + REACH_SLOTS_MAX

    def _alive(self, message: Alive) -> bool:
        """Whether the state and the view of an ALIVE can be true together: only a view that was installed is followed
        or led.
        """
        if message.local_aru > SLOT_MAX or message.view > self._membership.last_view:
            return False
        if message.state is State.LEADER_ELECTION:
            return True
        leads = self._membership.leader_of(message.view) == message.server_id
        return leads if message.state is State.REG_LEADER else message.view > 0 and not leads

    def _entry(self, entry: DataEntry) -> bool:
        if isinstance(entry, GloballyOrderedUpdate):
            return self.ordered(entry.seq)
        return entry.seq <= self._ordering.local_aru + PROPOSED_SLOTS_MAX and entry.view <= self._membership.last_view

    def _reply(self, message: ReconciliationReply) -> bool:
        """Whether a burst may be as long as the reply says, and lies where this server may have asked for it."""
        if message.local_aru > SLOT_MAX or message.burst_end > SLOT_MAX:
            return False
        if not message.updates:
            return True
        first, last = message.updates[0].seq, message.updates[-1].seq
        return self.ordered(last) and message.burst_end < first + BURST_SLOTS_MAX and not self._holds_too_much(first)

    def _holds_too_much(self, seq: int) -> bool:
        """Whether the batch of slot `seq` must be refused because it would have to wait: an earlier slot is not
        executed here yet, and the ordered batches in memory have more than `HELD_BYTES_MAX` bytes.
        """
        ordering = self._ordering
        return seq > ordering.local_aru + 1 and ordering.global_history.batch_bytes > HELD_BYTES_MAX
