"""Figure 4: which messages a server discards. Each function returns the line of the figure that discards one, or None.

The lines are texts such as "4 A6"; None says that the message may be handled. Lines that the paper lacks are named
after their reasons: "leader" (a message that is not from, or not at, the leader of its view; Departure 15) and
"newcomer" (a message that this server does not handle before it is admitted; `storage_identity`).
"""

from __future__ import annotations

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Accept, HandOver, Ordered, Prepare, PrepareOK, Proposal, State, VCProof, ViewChange


def view_change(data: DataStructures, message: ViewChange, *, progress_timer_set: bool) -> str | None:
    """Figure 4, Block A: a VIEW_CHANGE is handled only in an election in which no view is preinstalled.

    `progress_timer_set` says whether the Progress_Timer runs: in an election it does so only once a view is
    preinstalled. So a vote for another view interrupts neither a view that works nor a view that is being prepared.
    """
    if message.server_id == data.server.server_id:
        return "4 A2"
    if data.server.state is not State.LEADER_ELECTION:
        return "4 A4"
    if progress_timer_set:
        return "4 A6"
    if message.attempted <= data.views.last_installed:
        return "4 A8"
    return None


def vc_proof(data: DataStructures, message: VCProof) -> str | None:
    """Figure 4, Block B: a VC_PROOF is handled only by a server in an election.

    A stale leader therefore learns of a later view only after its own Progress_Timer has expired (G26).
    """
    if message.server_id == data.server.server_id:
        return "4 B2"
    if data.server.state is not State.LEADER_ELECTION:
        return "4 B4"
    return None


def prepare(data: DataStructures, membership: Membership, message: Prepare) -> str | None:
    """Figure 4, Block C: a PREPARE is handled only if the leader of the attempted view has sent it for that view."""
    if message.server_id == data.server.server_id:
        return "4 C2"
    if message.view != data.views.last_attempted:
        return "4 C4"
    if membership.leader_of(message.view) != message.server_id:
        return "leader"
    return None


def prepare_ok(data: DataStructures, membership: Membership, message: PrepareOK) -> str | None:
    """Figure 4, Block D: a PREPARE_OK is handled only by the leader of its view, and until that view is prepared."""
    if data.server.state is not State.LEADER_ELECTION:
        return "4 D2"
    if message.view != data.views.last_attempted:
        return "4 D4"
    if not membership.i_lead(message.view) or data.views.last_installed != message.view:
        return "leader"
    return None


def part_wanted(data: DataStructures, message: PrepareOK) -> str | None:
    """Departure 47: a leader's request for a part of a promise is handled by a server that follows it in that view.

    The lines are those of a PREPARE_OK, since the request is a message of that type without a data list.
    """
    if data.server.state is not State.REG_NONLEADER:
        return "4 D2"
    if message.view != data.views.last_installed:
        return "4 D4"
    return None


def proposal(data: DataStructures, membership: Membership, message: Proposal | HandOver) -> str | None:
    """Figure 4, Block E: a PROPOSAL is handled only by a follower, and only from the leader of its installed view.
    Departure 59: so is a HAND_OVER.

    Safety rests on line E6: the model in docs/spec/index.rst breaks if a server accepts in an older view, or in a later
    one that it has not installed.
    """
    if message.server_id == data.server.server_id:
        return "4 E2"
    if data.server.state is not State.REG_NONLEADER:
        return "4 E4"
    if message.view != data.views.last_installed:
        return "4 E6"
    if membership.leader_of(message.view) != message.server_id:
        return "leader"
    return None


def accept(data: DataStructures, message: Accept) -> str | None:
    """Figure 4, Block F: an ACCEPT of a view before the installed one is discarded.

    Line F6, which requires that the slot holds the proposal, is left out (G17): an ACCEPT may overtake its PROPOSAL.
    Votes are stored by view, so an ACCEPT of a view that this server has not installed yet is never counted with
    ACCEPTs of another view.
    """
    if message.server_id == data.server.server_id:
        return "4 F2"
    if message.view < data.views.last_installed:
        return "4 F4"
    return None


def ordered(data: DataStructures, membership: Membership, message: Ordered) -> str | None:
    """Departure 55: an ORDERED is handled only if it comes from the leader of its view, in a cluster whose leader tells
    what is ordered.

    If its view is before the installed one, the line that is returned is that for an ACCEPT, since an ORDERED stands
    for ACCEPTs.
    """
    if message.view < data.views.last_installed:
        return "4 F4"
    if not membership.leader_tells or message.view == 0 or membership.leader_of(message.view) != message.server_id:
        return "leader"
    return None
