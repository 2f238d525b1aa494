"""Figure 13: client updates that wait for a sequence number.

An update is *bound*, which the paper leaves undefined (G28), if some slot above Local_Aru holds a proposal or an
ordered batch with its (client_id, timestamp).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.settings import Settings
from pfsb.support.histogram import COUNTS, Histogram

Identity = tuple[str, int]

UPDATE_OVERHEAD_BYTES = 64
"""Maximum number of bytes that an update takes in a batch in addition to its payload and its client id."""
QUEUE_BYTES_MAX = 64_000_000
"""Number of bytes of queued payloads from which on no more updates of other servers are queued (Departure 30)."""


def _encoded_bytes(update: ClientUpdate) -> int:
    return len(update.payload) + len(update.client_id.encode()) + UPDATE_OVERHEAD_BYTES


class UpdateQueue:
    """Update_Queue, the updates that wait for a sequence number; Pending_Updates, those of this server's clients."""

    def __init__(
        self,
        data: DataStructures,
        settings: Settings,
        start_update_timer: Callable[[str], None],
        stop_update_timer: Callable[[str, int], None] = lambda client_id, seq: None,
    ) -> None:
        self._data = data
        self._clients = data.clients
        self._settings = settings
        self._start_update_timer = start_update_timer
        self._stop_update_timer = stop_update_timer
        self.batch_updates = Histogram(COUNTS)
        """Distribution of the number of updates in each batch that this server has made from its queue since its
        start."""

        self.payload_bytes = 0
        """Total bytes of the payloads of the updates that are queued."""

    def __len__(self) -> int:
        return len(self._clients.update_queue)

    @property
    def is_full(self) -> bool:
        """Whether the queue takes no more updates of other servers."""
        return len(self) >= self._settings.queue_updates_max or self.payload_bytes >= QUEUE_BYTES_MAX

    def enqueue_update(self, update: ClientUpdate) -> bool:
        """Figure 13, Block A: queue an update unless it has been executed, or was queued in this view already.

        Departure 30: a full queue refuses updates of other servers' clients, which those servers send again. Returns
        True if the update was queued.
        """
        clients = self._clients
        if update.timestamp <= clients.last_executed.of(update.client_id):
            return False
        if update.timestamp <= clients.last_enqueued.get(update.client_id, 0):
            return False
        if update.server_id != self._data.server.server_id and self.is_full:
            return False  # Departure 30
        clients.update_queue.append(update)
        self.payload_bytes += len(update.payload)
        clients.last_enqueued[update.client_id] = update.timestamp
        return True

    def add_to_pending_updates(self, update: ClientUpdate) -> None:
        """Figure 13, Block B: put an update of this server's own client into Pending_Updates, and start its
        Update_Timer, so that this server sends the update again until it is executed.

        Departure 3: no sync. Clients keep numbers of their own and repeat their commands, so the update need not
        survive a crash of this server.
        """
        pending = self._clients.pending_updates.get(update.client_id)
        if pending is None or pending.timestamp < update.timestamp:
            self._clients.pending_updates[update.client_id] = update
            self._start_update_timer(update.client_id)

    def enqueue_unbound_pending_updates(self) -> None:
        """Figure 13, Block C: a new leader queues its pending updates, unless a slot holds them already."""
        for update in self._clients.pending_updates.values():
            self.enqueue_update(update)

    def remove_bound_updates_from_queue(self) -> None:
        """Figure 13, Block D: a new leader drops updates that a slot holds already, or that have been executed.

        Last_Enqueued is rebuilt from the bound updates and from those that stay queued, so that a bound update is not
        queued when its client's server sends it again (G15 ii). For that to work this block runs before Block C
        (Departure 14).
        """
        clients = self._clients
        bound = self.bound_updates()
        clients.last_enqueued = {}
        for client_id, timestamp in bound:
            self._note_enqueued(client_id, timestamp)
        waiting, clients.update_queue = clients.update_queue, type(clients.update_queue)()
        self.payload_bytes = 0
        for update in waiting:
            self.enqueue_update(update)

    def drop_of_strangers(self, server_ids: Collection[int]) -> None:
        """Drop the updates of servers that are none of `server_ids`, those of the present epoch: no server of the epoch
        would accept a batch with them (Departure 60)."""
        waiting = [update for update in self._clients.update_queue if update.server_id in server_ids]
        self._clients.update_queue = type(self._clients.update_queue)(waiting)
        self.payload_bytes = sum(len(update.payload) for update in waiting)

    def clear(self) -> None:
        """Empty Update_Queue and Last_Enqueued, when this server begins to follow a leader (Figure 9 B): a follower
        queues nothing, and sends its pending updates to the leader."""
        self._clients.update_queue.clear()
        self.payload_bytes = 0
        self._clients.last_enqueued.clear()

    def forget_enqueued(self) -> None:
        """Rebuild Last_Enqueued from the queue (Figure 6 E), so that no queued update is queued again (G15).

        Departure 19: the paper clears Last_Enqueued here, although the queue is kept.
        """
        self._clients.last_enqueued = {}
        for update in self._clients.update_queue:
            self._note_enqueued(update.client_id, update.timestamp)

    def pop_batch(self, time_ms: int) -> Batch | None:
        """Take a batch for one proposal from the head of the queue, up to `batch_bytes_max` (section 7.3, Departure 4).

        Returns None if no update that is still to be executed waits. Departure 37: an update that claims to be made
        after the slot that it would get is dropped, since no other server accepts it.
        """
        seq = self._data.ordering.last_proposed + 1
        queue = self._clients.update_queue
        updates: list[ClientUpdate] = []
        room = self._settings.batch_bytes_max
        last_executed = self._clients.last_executed
        while queue and (not updates or _encoded_bytes(queue[0]) <= room):
            update = queue.popleft()
            self.payload_bytes -= len(update.payload)
            if update.timestamp > last_executed.of(update.client_id) and update.made_at < seq:
                updates.append(update)
                room -= _encoded_bytes(update)
        if not updates:
            return None
        self.batch_updates.observe(len(updates))
        return Batch.of(time_ms, updates)

    def drop_executed(self, update: ClientUpdate, seq: int) -> None:
        """Drop `update`, which was executed in slot `seq`, and earlier updates of its client from Pending_Updates.

        Figure 10 D, and G16.

        It makes no difference which server the pending copy names as the one that answers. The client's entry of
        Last_Enqueued is dropped, too: from here on Last_Executed refuses the update, and Last_Enqueued need not hold
        every client of a long view (Departure 19).
        """
        if self._clients.last_enqueued.get(update.client_id, update.timestamp + 1) <= update.timestamp:
            del self._clients.last_enqueued[update.client_id]
        pending = self._clients.pending_updates.get(update.client_id)
        if pending is not None and pending.timestamp <= update.timestamp:
            del self._clients.pending_updates[update.client_id]
            self._stop_update_timer(update.client_id, seq)

    def drop_spent(self, seq: int, oldest_valid: int) -> None:
        """Drop, as `drop_executed` does, the pending updates that no later slot executes, since a snapshot of slot
        `seq` has taken the place of the slots up to it.

        They are the updates that Last_Executed has, or that were made before slot `oldest_valid`; Last_Executed may
        have forgotten these (Departure 7).
        """
        clients = self._clients
        for update in [*clients.pending_updates.values()]:
            if clients.last_executed.of(update.client_id) >= update.timestamp or update.made_at < oldest_valid:
                self.drop_executed(update, seq)
        enqueued, executed = clients.last_enqueued, clients.last_executed
        for client_id in [each for each, timestamp in enqueued.items() if timestamp <= executed.of(each)]:
            del enqueued[client_id]

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
