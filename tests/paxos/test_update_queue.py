"""Figure 13: the updates that wait for a sequence number."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.replica import new_data
from pfsb.paxos.update_queue import UpdateQueue
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import accept, batch, client_update, ordered, proposal

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)
OWN = client_update("carol", 1, server_id=2)


class QueueTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = new_data(2, SMALL)
        self.started: list[str] = []
        self.queue = UpdateQueue(self.data, SMALL, self.started.append)

    def waiting(self) -> list[object]:
        return list(self.data.clients.update_queue)


class EnqueueTests(QueueTestCase):
    def test_new_update_waits_at_the_end(self) -> None:
        """Figure 13, Block A: a new update is queued at the end."""
        self.assertTrue(self.queue.enqueue_update(ALICE))
        self.assertTrue(self.queue.enqueue_update(BOB))
        self.assertEqual(self.waiting(), [ALICE, BOB])

    def test_executed_update_is_refused(self) -> None:
        """Figure 13, Block A: an update with timestamp <= Last_Executed is refused."""
        self.data.clients.last_executed.note("alice", 1, 1)
        self.assertFalse(self.queue.enqueue_update(ALICE))
        self.assertEqual(self.waiting(), [])

    def test_update_that_was_queued_in_this_view_is_refused(self) -> None:
        """Figure 13, Block A: an update with timestamp <= Last_Enqueued is refused, also when the queued one has left
        the queue."""
        self.queue.enqueue_update(ALICE)
        self.queue.pop_batch(0)
        self.assertFalse(self.queue.enqueue_update(ALICE))

    def test_lower_number_after_a_higher_one_is_refused(self) -> None:
        """G22: an update with a lower timestamp than the queued one is refused: a client has one update outstanding,
        and one that was overtaken never runs."""
        self.queue.enqueue_update(client_update("alice", 6))
        self.assertFalse(self.queue.enqueue_update(client_update("alice", 5)))

    def test_full_queue_refuses_others_clients_and_not_ones_own(self) -> None:
        """A full queue refuses updates of other servers' clients, which those servers send again, and not those of this
        server's own, which are held back by their sessions."""
        for n in range(SMALL.queue_updates_max):
            self.assertTrue(self.queue.enqueue_update(client_update(f"c{n}", 1)))
        self.assertFalse(self.queue.enqueue_update(ALICE))
        self.assertTrue(self.queue.enqueue_update(OWN))

    def test_refused_for_lack_of_room_is_welcome_later(self) -> None:
        """An update that was refused for lack of room is queued when it comes again: Last_Enqueued does not hold it."""
        for n in range(SMALL.queue_updates_max):
            self.queue.enqueue_update(client_update(f"c{n}", 1))
        self.queue.enqueue_update(ALICE)
        self.queue.pop_batch(0)
        self.assertTrue(self.queue.enqueue_update(ALICE))


class PendingTests(QueueTestCase):
    def test_pending_update_has_a_timer(self) -> None:
        """Figure 13, Block B: an update that becomes pending gets an Update_Timer."""
        self.queue.add_to_pending_updates(OWN)
        self.assertEqual(self.data.clients.pending_updates, {"carol": OWN})
        self.assertEqual(self.started, ["carol"])

    def test_new_leader_queues_what_is_pending(self) -> None:
        """Figure 13, Block C: a new leader queues its pending updates."""
        self.queue.add_to_pending_updates(OWN)
        self.queue.enqueue_unbound_pending_updates()
        self.assertEqual(self.waiting(), [OWN])

    def test_pending_update_that_is_queued_already_is_not_queued_again(self) -> None:
        """Figure 13, Block C: a pending update that is queued already is not queued again."""
        self.queue.enqueue_update(OWN)
        self.queue.add_to_pending_updates(OWN)
        self.queue.enqueue_unbound_pending_updates()
        self.assertEqual(self.waiting(), [OWN])


class NewLeaderTests(QueueTestCase):
    def become_leader(self) -> None:
        self.queue.remove_bound_updates_from_queue()
        self.queue.enqueue_unbound_pending_updates()

    def test_bound_pending_update_is_not_queued(self) -> None:
        """Departure 14: Block D runs before Block C, so that a pending update that is bound is in Last_Enqueued, and is
        not queued."""
        self.queue.add_to_pending_updates(OWN)
        self.data.apply_proposal(proposal(1, 1, 1, OWN))
        self.become_leader()
        self.assertEqual(self.waiting(), [])
        self.assertEqual(self.data.clients.last_enqueued, {"carol": 1})

    def test_bound_update_leaves_the_queue(self) -> None:
        """Figure 13, Block D: an update that is bound, by a proposal or an ordered slot above Local_Aru, leaves the
        queue."""
        self.queue.enqueue_update(ALICE)
        self.queue.enqueue_update(BOB)
        self.queue.enqueue_update(OWN)
        self.data.apply_proposal(proposal(1, 1, 2, ALICE))
        self.data.apply_globally_ordered_update(ordered(1, 3, OWN))
        self.become_leader()
        self.assertEqual(self.waiting(), [BOB])

    def test_executed_update_leaves_the_queue(self) -> None:
        """Figure 13, Block D: an executed update leaves the queue."""
        self.queue.enqueue_update(ALICE)
        self.data.clients.last_executed.note("alice", 1, 1)
        self.become_leader()
        self.assertEqual(self.waiting(), [])

    def test_foreign_update_kept_over_a_view_change_is_not_queued_twice(self) -> None:
        """Scenario 8, G15: a foreign update that is still in the queue after a view change, and that its server sends
        again, is not queued twice."""
        self.queue.enqueue_update(ALICE)
        self.queue.forget_enqueued()
        self.become_leader()
        self.assertFalse(self.queue.enqueue_update(ALICE))
        self.assertEqual(self.waiting(), [ALICE])

    def test_bound_update_that_is_sent_again_is_refused(self) -> None:
        """G15 (ii): an update that is bound, and is sent again, is refused."""
        self.data.apply_proposal(proposal(1, 1, 1, ALICE))
        self.become_leader()
        self.assertFalse(self.queue.enqueue_update(ALICE))

    def test_new_view_takes_again_what_the_old_one_has_lost(self) -> None:
        """Figure 6 E: with a new view, Last_Enqueued keeps only the queue, so an update whose proposal no server heard
        may be queued again."""
        self.queue.enqueue_update(ALICE)
        self.queue.pop_batch(0)
        self.queue.forget_enqueued()
        self.become_leader()
        self.assertTrue(self.queue.enqueue_update(ALICE))


class BatchTests(QueueTestCase):
    def test_empty_queue_gives_no_batch(self) -> None:
        """Figure 11 A: an empty queue gives no batch."""
        self.assertIsNone(self.queue.pop_batch(7))

    def test_batch_takes_what_fits(self) -> None:
        """Departure 4: a batch has updates of up to `batch_bytes_max` bytes together, in the order of arrival."""
        updates = [client_update(f"c{n}", 1, payload=bytes(30)) for n in range(4)]
        for update in updates:
            self.queue.enqueue_update(update)
        self.assertEqual(self.queue.pop_batch(7), batch(*updates[:2], time_ms=7))
        self.assertEqual(self.queue.pop_batch(8), batch(*updates[2:], time_ms=8))

    def test_update_larger_than_a_batch_travels_alone(self) -> None:
        """An update that is larger than `batch_bytes_max` has a batch to itself."""
        large = client_update("alice", 1, payload=bytes(500))
        self.queue.enqueue_update(large)
        self.queue.enqueue_update(BOB)
        self.assertEqual(self.queue.pop_batch(0), batch(large))

    def test_batch_of_many_small_updates_fits_too(self) -> None:
        """A batch of many small updates fits a frame: the size of each counts with its client id and the bytes around
        it."""
        for n in range(50):
            self.queue.enqueue_update(client_update(f"a-client-with-a-long-name-{'é' * 40}-{n}", 1, server_id=2))
        while (taken := self.queue.pop_batch(0)) is not None:
            self.assertLessEqual(len(taken.data), SMALL.batch_bytes_max)

    def test_update_that_has_run_meanwhile_takes_no_number(self) -> None:
        """G15: an update that was executed while it waited, ordered by an older view's proposal, gets no sequence
        number."""
        self.queue.enqueue_update(ALICE)
        self.queue.enqueue_update(BOB)
        self.data.clients.last_executed.note("alice", 1, 1)
        self.assertEqual(self.queue.pop_batch(0), batch(BOB))


class LeakTests(ReplicaTestCase):
    def test_last_enqueued_forgets_clients_that_have_what_they_asked_for(self) -> None:
        """Last_Enqueued forgets clients whose updates were executed: a view may last for years, and Last_Executed
        refuses them as well, and is bounded."""
        self.lead(view=2)
        for n in range(1, 30):
            update = client_update(f"visitor{n}", 1, server_id=3)
            self.receive(update, sender=3)
            self.assertSent(proposal(2, 2, n, update))
            self.assertSent(accept(2, 2, n))
            self.receive(accept(1, 2, n))
            self.receive(accept(3, 2, n))
        self.assertEqual(self.data.ordering.local_aru, 29)
        self.assertEqual(self.data.clients.last_enqueued, {})

    def test_last_enqueued_remembers_what_is_under_way(self) -> None:
        """Figure 13 A: when an older update of a client is executed, Last_Enqueued still holds a newer one that is
        under way."""
        self.lead(view=2)
        for timestamp in (1, 2):
            update = client_update("alice", timestamp, server_id=3)
            self.receive(update, sender=3)
            self.assertSent(proposal(2, 2, timestamp, update))
            self.assertSent(accept(2, 2, timestamp))
        self.receive(accept(1, 2, 1))
        self.receive(accept(3, 2, 1))
        self.assertEqual(self.data.clients.last_enqueued, {"alice": 2})
