"""Section 5.9: lost messages are sent again.

Receiver-driven: PREPARE_OK and ACCEPT answer a repeated PREPARE and PROPOSAL (in their handlers). Sender-driven, in
this module: VIEW_CHANGE while electing, PREPARE until the view is prepared, PROPOSAL until it is ordered. Client
updates have their Update_Timers; ALIVE and VC_PROOF are sent all the time.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.messages import State
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.proposal import ProposalHandler
from pfsb.paxos.reconciliation import ReconciliationHandler


class Retransmission(Handler):
    """Two periodic timers: a quick one for messages that have had no effect, a slow one for ALIVE and VC_PROOF."""

    def __init__(
        self,
        core: Core,
        election: LeaderElectionHandler,
        prepare: PrepareHandler,
        proposals: ProposalHandler,
        alive: AliveHandler,
        reconciliation: ReconciliationHandler,
    ) -> None:
        super().__init__(core)
        self._reconciliation = reconciliation
        self._election = election
        self._prepare = prepare
        self._proposals = proposals
        self._alive = alive
        self._calls: dict[str, IDelayedCall] = {}

    def start(self) -> None:
        self.resend_due()
        self.alive_due()

    def stop(self) -> None:
        for call in self._calls.values():
            if call.active():
                call.cancel()
        self._calls.clear()

    def resend_due(self) -> None:
        """Send again the messages that had no effect, and wait.

        A plain delayed call, not a LoopingCall: an exception in a turn stops the server, never just one of its timers.
        """
        self._turn.run(self._resend)
        if not self._turn.stopped:
            self._calls["resend"] = self._clock.callLater(self._settings.resend_seconds, self.resend_due)

    def alive_due(self) -> None:
        """Send ALIVE and VC_PROOF, write lazy records that still wait, forget what all servers have, and wait."""
        self._turn.run(self._keep_informed)
        self._turn.flush_lazy()
        if not self._turn.stopped:
            self._calls["alive"] = self._clock.callLater(self._settings.alive_seconds, self.alive_due)

    def _keep_informed(self) -> None:
        self._alive.send_alive()
        self._reconciliation.forget_what_all_have()

    def _resend(self) -> None:
        """Repeat the messages of the present state: a server that leaves a state repeats none of its messages (G23)."""
        views = self._data.views
        if self._data.server.state is State.REG_LEADER:
            self.resend_proposals()
        elif self._data.server.state is State.LEADER_ELECTION and views.last_attempted > 0:
            if views.last_installed == views.last_attempted and self._membership.i_lead(views.last_installed):
                self._prepare.send_prepare()
            self._election.send_view_change()

    def resend_proposals(self) -> None:
        """Send proposals that are due again, oldest first.

        Departure 32: at most four frames of proposals at a time, lest repetitions flood a slow network.
        """
        ordering = self._data.ordering
        due = self._clock.seconds() - self._settings.resend_seconds
        room = 4 * self._settings.frame_data_bytes_max
        for seq, slot in ordering.global_history.above(ordering.local_aru):
            if seq > ordering.last_proposed or room < 0:
                return
            if slot.proposal is not None and slot.ordered is None and slot.sent_at <= due:
                room -= len(slot.proposal.batch.data)
                self._proposals.resend(seq)
