"""Section 5.9: lost messages are sent again.

This module repeats VIEW_CHANGE during an election, PREPARE until the view is prepared, and PROPOSAL until its slot is
ordered, and it sends ALIVE and VC_PROOF periodically. A PREPARE_OK or an ACCEPT that was lost is sent again by its
handler, as the answer to a repeated PREPARE or PROPOSAL. Client updates have their Update_Timers.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.disk_watch import DiskWatch
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.messages import State
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.proposal import ProposalHandler
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.storage_identity import StorageIdentityHandler


class Retransmission(Handler):
    """Two periodic timers: a fast one repeats messages that had no effect, a slow one sends ALIVE and VC_PROOF."""

    def __init__(
        self,
        core: Core,
        election: LeaderElectionHandler,
        prepare: PrepareHandler,
        proposals: ProposalHandler,
        alive: AliveHandler,
        reconciliation: ReconciliationHandler,
        storage_identity: StorageIdentityHandler,
        disk_watch: DiskWatch,
    ) -> None:
        super().__init__(core)
        self._reconciliation = reconciliation
        self._election = election
        self._prepare = prepare
        self._proposals = proposals
        self._alive = alive
        self._storage_identity = storage_identity
        self._disk_watch = disk_watch
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
        """Send the VIEW_CHANGE, PREPARE or PROPOSALs that had no effect again, and set the timer for the next time.

        The timer is a delayed call and not a LoopingCall, which would end silently after an exception: an exception in
        a turn must stop the whole server.
        """
        self._turn.run(self._resend)
        if not self._turn.stopped:
            self._calls["resend"] = self._clock.callLater(self._settings.resend_seconds, self.resend_due)

    def alive_due(self) -> None:
        """Send ALIVE and VC_PROOF, write the lazy records that still wait, and set the timer for the next time.

        This is also when the server looks whether its disk works, and when slots that all servers have are forgotten.
        """
        self._disk_watch.look()
        self._turn.run(self._keep_informed)
        self._turn.flush_lazy()
        if not self._turn.stopped:
            self._calls["alive"] = self._clock.callLater(self._settings.alive_seconds, self.alive_due)

    def _keep_informed(self) -> None:
        self._alive.send_alive()
        self._storage_identity.ask_again()
        self._reconciliation.forget_what_all_have()

    def _resend(self) -> None:
        """Repeat the messages that belong to the present state, and none of a state that this server has left (G23).

        A server that is not admitted yet repeats nothing: it does not vote (Departure 12). Nor does a server whose disk
        is in trouble: it could not go on when the messages are answered (Departures 44, 45).
        """
        if self._storage_identity.is_newcomer or self._turn.trouble is not None:
            return
        views = self._data.views
        if self._data.server.state is State.REG_LEADER:
            self.resend_proposals()
        elif self._data.server.state is State.LEADER_ELECTION and views.last_attempted > 0:
            if views.last_installed == views.last_attempted and self._membership.i_lead(views.last_installed):
                self._prepare.ask_again()
            self._election.send_view_change()

    def resend_proposals(self) -> None:
        """Send again the proposals that were not ordered within `resend_seconds`, the lowest slot first.

        Departure 32: each call sends about four frames of batches at most, so that repetitions do not flood a slow
        network.
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
