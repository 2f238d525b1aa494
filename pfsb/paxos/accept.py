"""Figure 10, lines C1-C3: the handler of ACCEPT, which stores votes for proposals.

Lines C4-C6, which order a slot that a majority has voted for, are `GlobalOrderingHandler.try_order`.
"""

from __future__ import annotations

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.messages import DIGEST_BYTES, Accept
from pfsb.paxos.telling import TellingHandler
from pfsb.paxos.window import Window


class AcceptHandler(Handler):
    """Stores votes, the ACCEPTs of all servers, until a majority has voted for one batch of a slot."""

    def __init__(self, core: Core, ordering: GlobalOrderingHandler, window: Window, telling: TellingHandler) -> None:
        super().__init__(core)
        self._ordering = ordering
        self._window = window
        self._telling = telling

    def on_accept(self, message: Accept) -> bool:
        """Figure 10, Block C: store the sender's vote for each slot of the ACCEPT, and order slots with a majority.

        An ACCEPT may overtake its PROPOSAL, so a vote is stored even while the slot holds no proposal (G17). A vote for
        a slot beyond the window is dropped: this server may not accept the proposal yet, so it could not order the
        slot. Reconciliation brings the slot later. A vote that names another batch than the one proposed here is
        stored, too, but counts for nothing (Departure 39). A vote for a slot that is ordered here may let the others be
        told of that (Departure 55).

        Returns whether a vote was stored that was not there before.
        """
        untold = self._telling.untold
        at = 0
        is_new = False
        ordering, members = self._data.ordering, self._membership.members
        for seq in message.seqs:
            digest = message.digests[at : at + DIGEST_BYTES]
            at += DIGEST_BYTES
            if untold and seq in untold:
                is_new |= self._telling.count_late(message.server_id, message.view, seq, digest)
            if seq <= ordering.local_aru or not self._window.may_accept(seq):
                continue
            slot = ordering.global_history.ensure(seq)
            if slot.ordered is not None:
                continue
            if slot.proposal is not None and slot.proposal.batch.digest != digest:
                self._ordering.note_contradiction(slot.proposal, message.view, message.server_id)
            if self._data.apply_accept(message.server_id, message.view, slot, digest):
                is_new = True
            self._ordering.try_order(seq, slot)
            if self._membership.members is not members:
                break  # Departure 60: a change was executed, so the other votes are void
        return is_new
