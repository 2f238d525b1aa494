"""Figure 10 C4-D and Figure 11 B: when a majority has accepted a proposal, its slot is ordered and executed."""

from __future__ import annotations

from collections.abc import Callable

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.messages import GloballyOrderedUpdate, State
from pfsb.paxos.ordered_update_queue import Executed, OrderedUpdateQueue
from pfsb.paxos.peers import Peers
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.update_queue import UpdateQueue


class GlobalOrderingHandler(Handler):
    def __init__(
        self,
        core: Core,
        ordered_queue: OrderedUpdateQueue,
        update_queue: UpdateQueue,
        progress_timer: ProgressTimer,
        peers: Peers,
    ) -> None:
        super().__init__(core)
        self._ordered_queue = ordered_queue
        self._update_queue = update_queue
        self._progress_timer = progress_timer
        self._peers = peers
        self.on_gap: Callable[[int], None] = lambda seq: None
        """Told of a slot that is ordered out of order (section 5.6, trigger 2)."""

    def try_order(self, seq: int) -> None:
        """Figure 10 C4-C6: a proposal that a majority has accepted is ordered."""
        slot = self._data.ordering.global_history.get(seq)
        if slot is not None and self.globally_ordered_ready(slot):
            assert slot.proposal is not None
            ordered_in_this_view = slot.proposal.view == self._data.views.last_installed
            self._order(seq, slot, ordered_in_this_view)

    def on_globally_ordered_update(self, message: GloballyOrderedUpdate) -> None:
        """Another server says what stands in a slot: a data list (Figure 5 C) or reconciliation."""
        self._execute(self._ordered_queue.mark_ordered(message), ordered_in_this_view=False)

    def _order(self, seq: int, slot: Slot, ordered_in_this_view: bool) -> None:
        assert slot.proposal is not None
        message = GloballyOrderedUpdate(self._data.server.server_id, seq, slot.proposal.batch)
        executed = self._ordered_queue.mark_ordered(message)
        self._execute(executed, ordered_in_this_view)
        if not executed and seq > self._data.ordering.local_aru:
            self.on_gap(seq)

    def globally_ordered_ready(self, slot: Slot) -> bool:
        """Figure 11, Block B: a majority has accepted this very proposal: same slot, same view.

        Distinct voters, oneself included (G14): a server counts its own vote in the turn that makes it, since
        nothing leaves the turn before the vote is on disk. Holding a PROPOSAL counts for nobody (Departure 2).
        """
        if slot.proposal is None or slot.ordered is not None:
            return False
        return len(slot.voters.get(slot.proposal.view, ())) >= self.quorum

    def _execute(self, executed: list[Executed], ordered_in_this_view: bool) -> None:
        for slot in executed:
            self._upon_executing(slot)
        if executed and ordered_in_this_view:
            self._progress_timer.back_to_default()
        if executed and self._is_progress(ordered_in_this_view):
            self._progress_timer.start()

    def _is_progress(self, ordered_in_this_view: bool) -> bool:
        """Departure 23: a server that missed a view change must find out, however much it learns from the others."""
        if self._data.server.state is State.LEADER_ELECTION:
            return False
        return ordered_in_this_view or not self._peers.a_later_view_is_led(self._data.views.last_installed)

    def _upon_executing(self, executed: Executed) -> None:
        """Figure 10, Block D: what this server answers for is settled; there is global progress.

        The reply itself comes from the state machine (Departure 22), which knows what the update came to. The leader's
        next proposals are sent at the end of the turn (`ProposalHandler.send_proposal`).
        """
        for update in executed.updates:
            self._update_queue.drop_executed(update)
