"""Figure 13: client updates that wait for a sequence number.

*Bound* (which the paper leaves undefined, G28): some slot above Local_Aru holds a proposal or an ordered
batch with that (client_id, timestamp).
"""

from __future__ import annotations

from collections.abc import Callable, Set

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.settings import Settings
from pfsb.support.histogram import COUNTS, Histogram

Identity = tuple[str, int]

UPDATE_OVERHEAD_BYTES = 64
"""What an update takes in a batch, at most, beside its payload and the name of its client."""


def _encoded_bytes(update: ClientUpdate) -> int:
    return len(update.payload) + len(update.client_id.encode()) + UPDATE_OVERHEAD_BYTES


class UpdateQueue:
    """What waits for a number (Update_Queue), and what this server answers for (Pending_Updates)."""

    def __init__(self, data: DataStructures, settings: Settings, start_update_timer: Callable[[str], None]) -> None:
        self._data = data
        self._clients = data.clients
        self._settings = settings
        self._start_update_timer = start_update_timer
        self.batch_updates = Histogram(COUNTS)
        """Client updates in the proposals that this server has made of them."""

    def __len__(self) -> int:
        return len(self._clients.update_queue)

    def enqueue_update(self, update: ClientUpdate) -> bool:
        """Figure 13, Block A: queue it unless it has run, or waits in this view already."""
        clients = self._clients
        if update.timestamp <= clients.last_executed.of(update.client_id):
            return False
        if update.timestamp <= clients.last_enqueued.get(update.client_id, 0):
            return False
        if update.server_id != self._data.server.server_id and len(self) >= self._settings.queue_updates_max:
            return False  # Departure 30: the update's own server will send it again
        clients.update_queue.append(update)
        clients.last_enqueued[update.client_id] = update.timestamp
        return True

    def add_to_pending_updates(self, update: ClientUpdate) -> None:
        """Figure 13, Block B: this server answers for the update until it is executed.

        Departure 3: no sync. Clients keep their own numbers and repeat them (design part 5), so the update
        need not survive a crash of this server.
        """
        pending = self._clients.pending_updates.get(update.client_id)
        if pending is None or pending.timestamp < update.timestamp:
            self._clients.pending_updates[update.client_id] = update
            self._start_update_timer(update.client_id)

    def enqueue_unbound_pending_updates(self) -> None:
        """Figure 13, Block C: a new leader queues what it answers for, unless a slot holds it already."""
        for update in self._clients.pending_updates.values():
            self.enqueue_update(update)

    def remove_bound_updates_from_queue(self) -> None:
        """Figure 13, Block D: a new leader drops what a slot holds already, or what has run.

        Rebuilds Last_Enqueued on the way from what is bound and what stays queued, so that a bound
        update that its origin sends again is not queued again (G15 ii). For that it comes before block C
        (Departure 14).
        """
        clients = self._clients
        bound = self.bound_updates()
        clients.last_enqueued = {}
        for client_id, timestamp in bound:
            self._note_enqueued(client_id, timestamp)
        waiting, clients.update_queue = clients.update_queue, type(clients.update_queue)()
        for update in waiting:
            self.enqueue_update(update)

    def clear(self) -> None:
        """Figure 9 B: a non-leader queues nothing; each origin sends its updates to the new leader."""
        self._clients.update_queue.clear()
        self._clients.last_enqueued.clear()

    def forget_enqueued(self) -> None:
        """Figure 6 E: what comes again in a new view may be queued again - but not twice (G15, Departure 19)."""
        self._clients.last_enqueued = {}
        for update in self._clients.update_queue:
            self._note_enqueued(update.client_id, update.timestamp)

    def pop_batch(self, time_ms: int) -> Batch | None:
        """What one proposal takes: the head of the queue, up to `batch_bytes_max` (section 7.3, Departure 4)."""
        queue = self._clients.update_queue
        updates: list[ClientUpdate] = []
        room = self._settings.batch_bytes_max
        last_executed = self._clients.last_executed
        while queue and (not updates or _encoded_bytes(queue[0]) <= room):
            update = queue.popleft()
            if update.timestamp > last_executed.of(update.client_id):
                updates.append(update)
                room -= _encoded_bytes(update)
        if not updates:
            return None
        self.batch_updates.observe(len(updates))
        return Batch.of(time_ms, updates)

    def drop_executed(self, update: ClientUpdate) -> None:
        """Figure 10 D: whoever introduced it, this client's update has run (G16).

        From here on Last_Executed refuses what Last_Enqueued did, which need not know every client of a long view.
        """
        if self._clients.last_enqueued.get(update.client_id, update.timestamp + 1) <= update.timestamp:
            del self._clients.last_enqueued[update.client_id]
        pending = self._clients.pending_updates.get(update.client_id)
        if pending is not None and pending.timestamp <= update.timestamp:
            del self._clients.pending_updates[update.client_id]

    def bound_updates(self) -> Set[Identity]:
        bound: set[Identity] = set()
        ordering = self._data.ordering
        for _, slot in ordering.global_history.above(ordering.local_aru):
            batch = slot.ordered if slot.proposal is None else slot.proposal.batch
            if batch is not None:
                bound.update((u.client_id, u.timestamp) for u in batch.open()[1])
        return bound

    def _note_enqueued(self, client_id: str, timestamp: int) -> None:
        enqueued = self._clients.last_enqueued
        enqueued[client_id] = max(enqueued.get(client_id, 0), timestamp)
