"""Figure 10, from line C4, and Figure 11, Block B: a slot is ordered and executed when a majority accepts it.

Figure 10, lines C1-C3, which store a vote, are `AcceptHandler.on_accept`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.demand import Demand
from pfsb.paxos.messages import GloballyOrderedUpdate, Proposal, State
from pfsb.paxos.ordered_update_queue import Executed, OrderedUpdateQueue
from pfsb.paxos.peers import Peers
from pfsb.paxos.progress_timer import ProgressTimer
from pfsb.paxos.records import AruRecord
from pfsb.paxos.round_trip import RoundTrip
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.support.views import shown

LOG_SECONDS = 60.0
"""How long, in seconds, the text log says nothing more about contradictions after a line about one."""


class GlobalOrderingHandler(Handler):
    """Orders a slot when a majority has accepted its batch, and has it executed."""

    _log = Logger()

    def __init__(
        self,
        core: Core,
        ordered_queue: OrderedUpdateQueue,
        update_queue: UpdateQueue,
        progress_timer: ProgressTimer,
        peers: Peers,
        demand: Demand,
        slot_time: RoundTrip,
    ) -> None:
        """`slot_time` is told how long each slot took (Departures 48 and 49)."""
        super().__init__(core)
        self._slot_time = slot_time
        self._ordered_queue = ordered_queue
        self._update_queue = update_queue
        self._progress_timer = progress_timer
        self._peers = peers
        self._demand = demand
        self.on_majority: Callable[[Proposal, Slot], None] | None = None
        """Called with the proposal of a slot, before the slot is ordered, when this server has counted the votes of a
        majority for it; None in a cluster whose leader does not tell what is ordered (Departure 55)."""
        self.on_gap: Callable[[int], None] = lambda seq: None
        """Called with the number of a slot, when a majority has accepted it but an earlier slot is not ordered here yet
        (section 5.6, trigger 2)."""
        self.contradictions = 0
        """Number of votes and PROPOSALs, since this server's start, that named another batch than the one held here in
        the same view and slot."""
        self._log_from = 0.0

    def try_order(self, seq: int, slot: Slot) -> None:
        """Figure 10, lines C4-C6: order slot `seq` if a majority has accepted its proposal; then execute what can be
        executed."""
        if self.globally_ordered_ready(slot):
            assert slot.proposal is not None
            if self.on_majority is not None:
                self.on_majority(slot.proposal, slot)
            self._order(seq, slot)

    def order_if_told(self, seq: int, slot: Slot) -> None:
        """Departure 55: order slot `seq` if this server holds the proposal that the leader has told of: exactly that
        view and batch. Then execute what can be executed.

        If the batch that is held in that view is another one, the difference is counted and logged (Departure 39).
        """
        held, told = slot.proposal, slot.told
        if held is None or told is None or held.view != told[0]:
            return
        if held.batch.digest == told[1]:
            self._order(seq, slot)
        else:
            self.note_contradiction(held, held.view, self._membership.leader_of(held.view))

    def on_globally_ordered_update(self, message: GloballyOrderedUpdate) -> None:
        """Store a batch that is ordered, as another server has told in a data list (Figure 5 C) or by reconciliation.

        Then execute all slots that can be executed.
        """
        self._execute(self._ordered_queue.mark_ordered(message), ordered_in_this_view=False)

    def snapshot_installed(self) -> None:
        """Departure 57: execute the slots that follow a snapshot without a gap, which was put in place just now.

        To install it is progress in the same way as to execute slots that other servers have ordered (`_is_progress`).
        """
        self.go_on()
        if self._is_progress(ordered_in_this_view=False):
            self._progress_timer.start()

    def go_on(self) -> None:
        """Execute the slots that are ordered, and were not executed when they became so: those behind a snapshot, or a
        change of the membership and those behind it, once the disk is in trouble no more."""
        executed = self._ordered_queue.catch_up()
        if executed:
            self._turn.append(AruRecord(self._data.ordering.local_aru), lazy=True)
            self._execute(executed, ordered_in_this_view=False)

    def _order(self, seq: int, slot: Slot) -> None:
        assert slot.proposal is not None
        ordered_in_this_view = slot.proposal.view == self._data.views.last_installed
        if ordered_in_this_view:
            self._measure(slot)
        message = GloballyOrderedUpdate(self._data.server.server_id, seq, slot.proposal.batch)
        executed = self._ordered_queue.mark_ordered(message)
        self._execute(executed, ordered_in_this_view)
        if not executed and seq > self._data.ordering.local_aru:
            self.on_gap(seq)

    def _measure(self, slot: Slot) -> None:
        """Measure how long a slot took that is ordered now (Departure 48).

        While no client of a follower waits, the other servers may send it their votes, or the leader its ORDERED, up to
        `lazy_seconds` late (Departure 25); a follower leaves `lazy_seconds` out of the measured time then. A leader
        gets all votes at once.
        """
        now = self._clock.seconds()
        if self._data.server.state is not State.REG_LEADER and not self._demand.has_clients():
            now = max(slot.sent_at, now - self._settings.lazy_seconds)
        self._slot_time.answered(slot.first_sent_at, slot.sent_at, now)

    def globally_ordered_ready(self, slot: Slot) -> bool:
        """Figure 11, Block B: whether a majority has accepted the slot's proposal in the view of that proposal.

        Distinct voters count, this server included (G14). A server counts its own vote in the turn that makes the vote,
        because nothing that rests on the vote leaves the server before the vote is on disk (Departure 1). A PROPOSAL is
        not counted as a vote of the leader, which sends an ACCEPT of its own (Departure 2). A vote counts only if it
        names the batch of this proposal (Departure 39).
        """
        proposal = slot.proposal
        if proposal is None or slot.ordered is not None:
            return False
        votes = slot.voters.get(proposal.view)
        if votes is None or not self.is_majority(votes):
            return False
        digest = proposal.batch.digest
        if [*votes.values()].count(digest) == len(votes):
            return True  # nearly always all votes name one batch
        return self.is_majority(voter for voter, voted in votes.items() if voted == digest)

    def note_contradiction(self, held: Proposal, view: int, server_id: int) -> None:
        """Departure 39: count and log that server `server_id` names another batch, in the same view, than this server
        holds.

        Does nothing if `view` is not the view of `held`. A leader binds one batch to a slot in one view, so a memory, a
        processor or a program has failed. The vote does not count. If it is this server that holds the wrong batch, the
        others order the slot, and reconciliation brings their batch.
        """
        if view != held.view:
            return
        self.contradictions += 1
        now = self._clock.seconds()
        if now >= self._log_from:
            self._log_from = now + LOG_SECONDS
            self._log.error(
                "server {server} has another batch than this server for slot {seq} in view {view}; so far {count} such "
                "contradictions: a memory, a disk or a program is at fault",
                server=server_id,
                seq=held.seq,
                view=shown(view),
                count=self.contradictions,
            )

    def _execute(self, executed: list[Executed], ordered_in_this_view: bool) -> None:
        """Take the steps that follow the execution of slots: Figure 10, Block D for each, then the restart of the
        Progress_Timer.

        The restart is Figure 10, lines D8-D12, and happens only if the execution is progress. The timer's length comes
        down only if the slots were ordered in the installed view (`ordered_in_this_view`; G8, Departure 48).
        """
        for slot in executed:
            self._upon_executing(slot)
        if executed and ordered_in_this_view:
            self._progress_timer.come_down()
        if executed and self._is_progress(ordered_in_this_view):
            self._progress_timer.start()

    def _is_progress(self, ordered_in_this_view: bool) -> bool:
        """Whether executing slots restarts the Progress_Timer; never in an election. `ordered_in_this_view` says
        whether the slots were ordered in the installed view.

        Departure 23: while another server leads a later view, executing slots that were not ordered in the installed
        view is no progress. Otherwise a server that has missed a view change could execute slots that it learns from
        other servers, and never suspect the leader of its old view.
        """
        if self._data.server.state is State.LEADER_ELECTION:
            return False
        return ordered_in_this_view or not self._peers.a_later_view_is_led(self._data.views.last_installed)

    def _upon_executing(self, executed: Executed) -> None:
        """Figure 10, Block D: the executed updates are no longer pending at this server.

        The other lines of the block are elsewhere. The reply to the client comes from the state machine, which has the
        result (Departure 22). Last_Executed is set before an update is executed (`OrderedUpdateQueue.execute_slot`).
        Lines D8-D12, the restart of the Progress_Timer and the leader's next proposal, are `_execute` of this class,
        once for all slots that become executable together, and `ProposalHandler.send_proposal` at the end of the turn.
        """
        for update in executed.updates:
            self._update_queue.drop_executed(update, executed.seq)
