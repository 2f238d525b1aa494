"""Figure 4: which messages are discarded, and by which line.

Each function returns the line that the message runs into ("4 A6"), or None if it may be handled. The lines that
the paper lacks are named after their reasons: "leader" (not from, or not at, the leader of its view; Departure 15), and
"newcomer" (`introduction`).
"""

from __future__ import annotations

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Accept, Prepare, PrepareOK, Proposal, State, VCProof, ViewChange


def view_change(data: DataStructures, message: ViewChange, *, progress_timer_set: bool) -> str | None:
    """Figure 4, Block A: an unstable server cannot interrupt a working view, nor an election under way."""
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
    """Figure 4, Block B: only a server in an election has use for a proof.

    A stale leader, too, learns of a higher view only after its own timer has expired (G26).
    """
    if message.server_id == data.server.server_id:
        return "4 B2"
    if data.server.state is not State.LEADER_ELECTION:
        return "4 B4"
    return None


def prepare(data: DataStructures, membership: Membership, message: Prepare) -> str | None:
    """Figure 4, Block C: a PREPARE counts for the attempted view only."""
    if message.server_id == data.server.server_id:
        return "4 C2"
    if message.view != data.views.last_attempted:
        return "4 C4"
    if membership.leader_of(message.view) != message.server_id:
        return "leader"
    return None


def prepare_ok(data: DataStructures, membership: Membership, message: PrepareOK) -> str | None:
    """Figure 4, Block D: promises are counted until the view is prepared, by its leader."""
    if data.server.state is not State.LEADER_ELECTION:
        return "4 D2"
    if message.view != data.views.last_attempted:
        return "4 D4"
    if not membership.i_lead(message.view) or data.views.last_installed != message.view:
        return "leader"
    return None


def proposal(data: DataStructures, membership: Membership, message: Proposal) -> str | None:
    """Figure 4, Block E: only the leader of the installed view is followed."""
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
    """Figure 4, Block F: votes of views that are over do not count.

    F6 (the slot must hold the proposal) is repaired by G17: an ACCEPT may overtake its PROPOSAL, and
    the votes of a view that this server has not installed yet are kept apart, by view.
    """
    if message.server_id == data.server.server_id:
        return "4 F2"
    if message.view < data.views.last_installed:
        return "4 F4"
    return None
