"""Defects of leading: proposals that a leader must make, and views that it may lead (Figures 5 D, 6 C and 11 A)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfsb.paxos.data_structures import DataStructures, Slot
from pfsb.paxos.messages import (
    Batch,
    Proposal,
    State,
)
from pfsb.simulator.defects.defect import Defects, become, instead_of, override

DEFECTS = Defects()


class _TakesAnyProposal(DataStructures):
    __slots__ = ()

    def apply_proposal(self, message: Proposal) -> Slot | None:
        slot = self.ordering.global_history.get(message.seq)
        if slot is not None and slot.proposal is not None and slot.proposal.view > message.view:
            slot.proposal = message
            return slot
        return super().apply_proposal(message)


@DEFECTS.add(
    "older-proposal-replaces", "Figure 5 D", "in a data list, a proposal of an older view replaces a newer one"
)
def _older_proposal_replaces(process: Any) -> None:
    become(process.replica.data, _TakesAnyProposal)


BatchFor = Callable[[int], Batch | None]


@DEFECTS.add(
    "constraint-ignored", "Figure 11 A", "a new leader proposes fresh updates where an older view left something"
)
def _constraint_ignored(process: Any) -> None:
    proposals = process.replica.proposals

    def fresh(seq: int) -> Batch | None:
        batch: Batch | None = process.replica.update_queue.pop_batch(proposals.now_ms())
        return batch

    override(proposals, "batch_for", lambda _: fresh)


@DEFECTS.add("send-proposal-falls-through", "G1", "past an ordered slot, the leader goes on with the old number")
def _send_proposal_falls_through(process: Any) -> None:
    replica, proposals = process.replica, process.replica.proposals

    def broken() -> None:
        ordering = replica.data.ordering
        if replica.data.server.state is not State.REG_LEADER:
            return
        seq = ordering.last_proposed + 1
        if not replica.window.may_propose(seq):
            return
        if proposals.is_ordered(seq):
            ordering.last_proposed = seq
            broken()
        batch = proposals.batch_for(seq)
        if batch is not None:
            proposals.propose(Proposal(replica.membership.server_id, replica.data.views.last_installed, seq, batch))
            ordering.last_proposed = seq
            broken()

    _propose_with(process, broken)


def _propose_with(process: Any, send_proposal: Callable[[], None]) -> None:
    override(process.replica.proposals, "send_proposal", lambda _: send_proposal)


@DEFECTS.add("window-ignored", "section 5.10", "a leader proposes as much as it likes")
def _window_ignored(process: Any) -> None:
    override(process.replica.window, "may_propose", lambda _: lambda seq: True)


@DEFECTS.add("leads-again", "G10", "a leader that starts again leads on in the view that it led before")
def _leads_again(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.election, "shift_to_leader_election")
    def broken(shift: Callable[[int], None], view: int) -> None:
        replica.election.shift_to_leader_election = shift
        views = replica.data.views
        if not replica.membership.i_lead(views.last_installed):
            shift(view)
            return
        views.last_attempted = views.last_installed
        replica.prepare.shift_to_reg_leader()
