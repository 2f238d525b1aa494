"""Figure 10, Block A and Figure 12, Block A: an update of a client is sent on its way to the leader."""

from __future__ import annotations

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.demand import Demand
from pfsb.paxos.messages import ClientUpdate, State
from pfsb.paxos.update_queue import UpdateQueue


class ClientUpdateHandler(Handler):
    def __init__(self, core: Core, update_queue: UpdateQueue, demand: Demand) -> None:
        super().__init__(core)
        self._update_queue = update_queue
        self._demand = demand

    def on_client_update(self, message: ClientUpdate, sender: int) -> None:
        """Figure 10, Block A: an update from an own client (`sender` is this server) or from another server.

        An update that has been executed needs nothing more (G16): its reply was given, or is in the session's cache.
        """
        if message.timestamp > self._data.clients.last_executed.of(message.client_id):
            self._client_update_handler(message, sender)

    def _client_update_handler(self, update: ClientUpdate, sender: int) -> None:
        """Figure 12, Block A: queue the update, forward it, or leave it to its own server.

        The leader's proposal follows at the end of the turn.

        Departure 31: an own update becomes pending even when Enqueue_Update refuses it. The copy that waits may name
        another server, which may be gone when the update is executed.
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
        """Relay another server's update to the leader, once for each time its own server sends it (G8.3).

        The update's own server sends it to all when it cannot reach the leader, or does not know it. Departure 17: only
        an update that comes from its own server is relayed, so no update is relayed in circles.
        """
        self._demand.note_foreign_update(update)
        leader = self._membership.leader_of(self._data.views.last_installed)
        if sender == update.server_id and leader != sender:
            self._turn.send(update, leader)
