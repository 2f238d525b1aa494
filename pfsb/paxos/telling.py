"""Departure 56: in a cluster of five servers or more, the leader counts the votes and tells what is ordered.

Figure 10, Block B sends each ACCEPT to all servers, which takes about N² messages for each proposal. Section 4.4 of the
paper names the variant used here: an ACCEPT goes to the leader alone, and the leader tells by ORDERED which slots a
majority has accepted.

Why safe: an ORDERED leaves when the leader's own vote is on disk, as the other votes of the majority are. So the slots
are chosen, and a server that holds one of these proposals, by view and digest, holds what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.demand import Demand
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.messages import DIGEST_BYTES, Ordered, Proposal, State
from pfsb.paxos.window import Window


class TellingHandler(Handler):
    """Tells the followers, as leader, which slots are ordered (ORDERED); orders, as follower, what it is told."""

    def __init__(
        self,
        core: Core,
        ordering: GlobalOrderingHandler,
        window: Window,
        demand: Demand,
        on_missing: Callable[[int], None],
    ) -> None:
        """`on_missing` is called with a slot that is ordered as the leader says, and whose proposal is not here."""
        super().__init__(core)
        self._ordering = ordering
        self._window = window
        self._demand = demand
        self._on_missing = on_missing

    def tell(self, held: Proposal, slot: Slot) -> None:
        """Tell all other servers, as leader, that a majority has accepted a proposal of this view.

        Called in the turn that counts the majority. If the leader's own vote is on disk already, the ORDERED leaves
        early, in one frame with the PROPOSALs of this turn; else it waits at the gate for that vote.
        """
        data = self._data
        if data.server.state is not State.REG_LEADER or held.view != data.views.last_installed:
            return
        message = Ordered(data.server.server_id, held.view, (held.seq,), held.batch.digest)
        if slot.written_at <= self._turn.durable_position:
            self._turn.send_early(message)
        else:
            self._turn.send(message)

    def on_ordered(self, message: Ordered) -> None:
        """Order the slots of an ORDERED whose proposals are held here, of exactly its view and with its batches.

        An ORDERED may overtake its PROPOSAL, so what it says is stored while the slot holds no proposal of its view
        (`ProposalHandler.on_proposal` looks there). As the PROPOSAL may be lost, reconciliation brings the slot if it
        does not come soon. A slot beyond the window is left out, as for an ACCEPT.
        """
        at = 0
        ordering = self._data.ordering
        late = 0.0 if self._demand.has_clients() else self._settings.lazy_seconds  # Departure 25
        for seq in message.seqs:
            digest = message.digests[at : at + DIGEST_BYTES]
            at += DIGEST_BYTES
            if seq <= ordering.local_aru or not self._window.may_accept(seq):
                continue
            slot = ordering.global_history.ensure(seq)
            if slot.ordered is not None:
                continue
            self._data.apply_ordered(message.view, slot, digest)
            self._ordering.order_if_told(seq, slot, late)
            if slot.ordered is None:
                self._on_missing(seq)
