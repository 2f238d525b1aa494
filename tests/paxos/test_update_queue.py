"""Figure 13: what waits for a sequence number."""

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
        """Figure 13, Block A: first in, first out."""
        self.assertTrue(self.queue.enqueue_update(ALICE))
        self.assertTrue(self.queue.enqueue_update(BOB))
        self.assertEqual(self.waiting(), [ALICE, BOB])

    def test_executed_update_is_refused(self) -> None:
        """Figure 13, Block A: timestamp <= Last_Executed."""
        self.data.clients.last_executed.note("alice", 1, 1)
        self.assertFalse(self.queue.enqueue_update(ALICE))
        self.assertEqual(self.waiting(), [])

    def test_update_that_was_queued_in_this_view_is_refused(self) -> None:
        """Figure 13, Block A: timestamp <= Last_Enqueued, even when it has left the queue."""
        self.queue.enqueue_update(ALICE)
        self.queue.pop_batch(0)
        self.assertFalse(self.queue.enqueue_update(ALICE))

    def test_lower_number_after_a_higher_one_is_refused(self) -> None:
        """G22: one outstanding update a client; what is overtaken will never run."""
        self.queue.enqueue_update(client_update("alice", 6))
        self.assertFalse(self.queue.enqueue_update(client_update("alice", 5)))

    def test_full_queue_refuses_others_clients_and_not_ones_own(self) -> None:
        """Every queue has a length; the origin sends again. Own clients are held back by their sessions."""
        for n in range(SMALL.queue_updates_max):
            self.assertTrue(self.queue.enqueue_update(client_update(f"c{n}", 1)))
        self.assertFalse(self.queue.enqueue_update(ALICE))
        self.assertTrue(self.queue.enqueue_update(OWN))

    def test_refused_for_lack_of_room_is_welcome_later(self) -> None:
        """Last_Enqueued must not remember what was not queued."""
        for n in range(SMALL.queue_updates_max):
            self.queue.enqueue_update(client_update(f"c{n}", 1))
        self.queue.enqueue_update(ALICE)
        self.queue.pop_batch(0)
        self.assertTrue(self.queue.enqueue_update(ALICE))


class PendingTests(QueueTestCase):
    def test_pending_update_has_a_timer(self) -> None:
        """Figure 13, Block B."""
        self.queue.add_to_pending_updates(OWN)
        self.assertEqual(self.data.clients.pending_updates, {"carol": OWN})
        self.assertEqual(self.started, ["carol"])

    def test_new_leader_queues_what_is_pending(self) -> None:
        """Figure 13, Block C."""
        self.queue.add_to_pending_updates(OWN)
        self.queue.enqueue_unbound_pending_updates()
        self.assertEqual(self.waiting(), [OWN])

    def test_pending_update_that_is_queued_already_is_not_queued_again(self) -> None:
        """Figure 13, Block C."""
        self.queue.enqueue_update(OWN)
        self.queue.add_to_pending_updates(OWN)
        self.queue.enqueue_unbound_pending_updates()
        self.assertEqual(self.waiting(), [OWN])


class NewLeaderTests(QueueTestCase):
    def become_leader(self) -> None:
        self.queue.remove_bound_updates_from_queue()
        self.queue.enqueue_unbound_pending_updates()

    def test_bound_pending_update_is_not_queued(self) -> None:
        """Departure 14: Block D before Block C, so that Last_Enqueued knows what is bound."""
        self.queue.add_to_pending_updates(OWN)
        self.data.apply_proposal(proposal(1, 1, 1, OWN))
        self.become_leader()
        self.assertEqual(self.waiting(), [])
        self.assertEqual(self.data.clients.last_enqueued, {"carol": 1})

    def test_bound_update_leaves_the_queue(self) -> None:
        """Figure 13, Block D: bound by a proposal, or by an ordered slot above Local_Aru."""
        self.queue.enqueue_update(ALICE)
        self.queue.enqueue_update(BOB)
        self.queue.enqueue_update(OWN)
        self.data.apply_proposal(proposal(1, 1, 2, ALICE))
        self.data.apply_globally_ordered_update(ordered(1, 3, OWN))
        self.become_leader()
        self.assertEqual(self.waiting(), [BOB])

    def test_executed_update_leaves_the_queue(self) -> None:
        """Figure 13, Block D."""
        self.queue.enqueue_update(ALICE)
        self.data.clients.last_executed.note("alice", 1, 1)
        self.become_leader()
        self.assertEqual(self.waiting(), [])

    def test_foreign_update_kept_over_a_view_change_is_not_queued_twice(self) -> None:
        """Scenario 8, G15: it is in the queue still, and its origin sends it again."""
        self.queue.enqueue_update(ALICE)
        self.queue.forget_enqueued()
        self.become_leader()
        self.assertFalse(self.queue.enqueue_update(ALICE))
        self.assertEqual(self.waiting(), [ALICE])

    def test_bound_update_that_is_sent_again_is_refused(self) -> None:
        """G15 (ii)."""
        self.data.apply_proposal(proposal(1, 1, 1, ALICE))
        self.become_leader()
        self.assertFalse(self.queue.enqueue_update(ALICE))

    def test_new_view_takes_again_what_the_old_one_has_lost(self) -> None:
        """Figure 6 E: Last_Enqueued is cleared, so an update whose proposal no server heard may be queued again."""
        self.queue.enqueue_update(ALICE)
        self.queue.pop_batch(0)
        self.queue.forget_enqueued()
        self.become_leader()
        self.assertTrue(self.queue.enqueue_update(ALICE))


class BatchTests(QueueTestCase):
    def test_empty_queue_gives_no_batch(self) -> None:
        """Figure 11 A: nothing to propose."""
        self.assertIsNone(self.queue.pop_batch(7))

    def test_batch_takes_what_fits(self) -> None:
        """Departure 4: up to `batch_bytes_max` bytes, in the order of arrival."""
        updates = [client_update(f"c{n}", 1, payload=bytes(30)) for n in range(4)]
        for update in updates:
            self.queue.enqueue_update(update)
        self.assertEqual(self.queue.pop_batch(7), batch(*updates[:2], time_ms=7))
        self.assertEqual(self.queue.pop_batch(8), batch(*updates[2:], time_ms=8))

    def test_update_larger_than_a_batch_travels_alone(self) -> None:
        """Settings.batch_bytes_max: one update may be larger."""
        large = client_update("alice", 1, payload=bytes(500))
        self.queue.enqueue_update(large)
        self.queue.enqueue_update(BOB)
        self.assertEqual(self.queue.pop_batch(0), batch(large))

    def test_batch_of_many_small_updates_fits_too(self) -> None:
        """A batch that is larger than a frame could never be proposed: names count, and what surrounds them."""
        for n in range(50):
            self.queue.enqueue_update(client_update(f"a-client-with-a-long-name-{'é' * 40}-{n}", 1, server_id=2))
        while (taken := self.queue.pop_batch(0)) is not None:
            self.assertLessEqual(len(taken.data), SMALL.batch_bytes_max)

    def test_update_that_has_run_meanwhile_takes_no_number(self) -> None:
        """G15: it may have been ordered by an older view's proposal while it waited."""
        self.queue.enqueue_update(ALICE)
        self.queue.enqueue_update(BOB)
        self.data.clients.last_executed.note("alice", 1, 1)
        self.assertEqual(self.queue.pop_batch(0), batch(BOB))


class LeakTests(ReplicaTestCase):
    def test_last_enqueued_forgets_clients_that_have_what_they_asked_for(self) -> None:
        """A view may last for years, and each connection is a client; Last_Executed refuses as well, and is bounded."""
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
        """Figure 13 A: a newer update of the same client is still protected."""
        self.lead(view=2)
        for timestamp in (1, 2):
            update = client_update("alice", timestamp, server_id=3)
            self.receive(update, sender=3)
            self.assertSent(proposal(2, 2, timestamp, update))
            self.assertSent(accept(2, 2, timestamp))
        self.receive(accept(1, 2, 1))
        self.receive(accept(3, 2, 1))
        self.assertEqual(self.data.clients.last_enqueued, {"alice": 2})
