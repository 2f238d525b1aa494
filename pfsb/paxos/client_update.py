"""Figure 10, Block A and Figure 12, Block A: an update of a client is sent on its way to the leader."""

from __future__ import annotations

from collections.abc import Callable

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.demand import Demand
from pfsb.paxos.messages import ClientUpdate, State
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.paxos.validity import INVALID, NOT_OURS, Validity


class ClientUpdateHandler(Handler):
    """Takes the updates of clients, and queues them as the leader or sends them on to the leader.

    An update comes from a client of this server, or from another server as CLIENT_UPDATE. A leader puts it into
    Update_Queue, from which it is proposed. A follower sends it to the leader as CLIENT_UPDATE. In an election, updates
    of own clients are queued, and other servers' are only noted in `Demand`. An update that was executed before is not
    queued again: it was answered. Figures 10 and 12 of the paper, Block A in both.
    """

    def __init__(
        self,
        core: Core,
        update_queue: UpdateQueue,
        demand: Demand,
        validity: Validity,
        offer: Callable[[int, int], None],
    ) -> None:
        """`offer` is called with a slot and a server that seems to lack it, and sends the slot to that server."""
        super().__init__(core)
        self._offer = offer
        self._update_queue = update_queue
        self._demand = demand
        self._validity = validity

    def on_client_update(self, message: ClientUpdate, sender: int) -> str | None:
        """Figure 10, Block A: an update from an own client (`sender` is this server) or from another server.

        An update that has been executed is ignored (G16): its reply was given, or is in the session's reply cache.
        Returns the reason by which a discarded update is counted, or None (Departure 37).
        """
        if message.timestamp > self._data.clients.last_executed.of(message.client_id):
            if sender != self._data.server.server_id and (line := self._line_against(message)):
                return line
            self._client_update_handler(message, sender)
        else:
            self._answer_executed(message, sender)
        return None

    def _answer_executed(self, update: ClientUpdate, sender: int) -> None:
        """Departure 49: called with a copy of an update that this server has executed. If this server leads, and
        `sender` is the server of the update's client, send that server the slot of the update.

        That server repeats the update because it has not executed the slot. So it has lost the PROPOSAL or the ACCEPTs,
        and may have no other reason to ask for the slot before the next ALIVE.
        """
        if self._data.server.state is State.REG_LEADER and sender == update.server_id != self._data.server.server_id:
            timestamp, seq = self._data.clients.last_executed.timestamps[update.client_id]
            if timestamp == update.timestamp:
                self._offer(seq, sender)

    def _line_against(self, update: ClientUpdate) -> str | None:
        """Departure 37: the reason to discard an update that another server has sent (`INVALID`, `NOT_OURS`), or None.

        An update in this server's own name may come back by a relay; then it is pending here. An update in this
        server's name that is not pending here is forged, or was made by a former incarnation of this server, whose
        clients are gone.
        """
        if not self._validity.of_update(update):
            return INVALID
        if update.server_id == self._data.server.server_id:
            pending = self._data.clients.pending_updates.get(update.client_id)
            return None if pending == update else NOT_OURS
        return None

    def _client_update_handler(self, update: ClientUpdate, sender: int) -> None:
        """Figure 12, Block A: a leader queues the update, a follower sends it to the leader.

        In an election, a server queues the updates of its own clients, and only remembers that those of other servers
        wait. A leader proposes the update at the end of the turn.

        Departure 31: an update of this server's own client becomes pending even when Enqueue_Update refuses it, because
        the same update is queued already. The queued copy may name another server as the one that answers the client,
        and that server may be down when the update is executed.
        """
        state = self._data.server.state
        own = update.server_id == self._data.server.server_id
        if state is State.REG_NONLEADER:
            if own:
                self._update_queue.add_to_pending_updates(update)
                self._turn.send(update, self._membership.leader_of(self._data.views.last_installed))
            else:
                self.relay_to_leader(update, sender)
        elif own or state is State.REG_LEADER:
            self._update_queue.enqueue_update(update)
            if own:  # Departure 31
                self._update_queue.add_to_pending_updates(update)
        else:
            self._demand.note_foreign_update(update)

    def relay_to_leader(self, update: ClientUpdate, sender: int) -> None:
        """Relay an update of another server's client to the leader (G8.3).

        The client's server sends the update to all servers when it cannot reach the leader, or does not know it.
        Departure 17: an update is relayed only if the client's server has sent it, so no update is relayed in circles.
        """
        self._demand.note_foreign_update(update)
        leader = self._membership.leader_of(self._data.views.last_installed)
        if sender == update.server_id and leader != sender:
            self._turn.send(update, leader)
