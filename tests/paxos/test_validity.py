"""Departure 37: a server takes only valid updates and batches from other servers."""

from __future__ import annotations

from pfsb.paxos.messages import Accept, Batch
from pfsb.paxos.records import OrderedRecord, ProposalRecord
from pfsb.support.limits import TIME_STEP_MS_MAX
from tests.paxos.case import INVALID_PAYLOAD, ReplicaTestCase
from tests.paxos.messages import accept, client_update, ordered, prepare_ok, proposal, reply

VALID = client_update("alice", 1, server_id=3)
INVALID = client_update("alice", 1, server_id=3, payload=INVALID_PAYLOAD)
OF_NOBODY = client_update("alice", 1, server_id=9)
OF_THE_FUTURE = client_update("alice", 1, server_id=3, made_at=1)


class FollowerTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def test_invalid_update_is_not_relayed(self) -> None:
        """An invalid update goes no further, and does not count as one that waits."""
        for wrong in (INVALID, OF_NOBODY):
            self.receive(wrong, sender=3)
            self.assertDiscarded("invalid")
        self.assertNothingSent()
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())

    def test_proposal_of_an_invalid_batch_is_not_accepted(self) -> None:
        """No record, no vote: it cannot be chosen. A valid batch may follow in the same slot of the same view."""
        for wrong in (INVALID, OF_NOBODY, OF_THE_FUTURE):
            self.receive(proposal(1, 1, 1, VALID, wrong))
            self.assertDiscarded("invalid")
        self.assertNothingSent()
        self.assertEqual(self.take_records(ProposalRecord), [])
        self.receive(proposal(1, 1, 1, VALID))
        self.assertSent(accept(2, 1, 1))

    def test_ordered_update_with_an_invalid_batch_is_not_believed(self) -> None:
        """A majority has not accepted it, so it is not ordered, whatever the message says."""
        for message in (ordered(3, 1, INVALID), reply(3, ordered(3, 1, VALID), ordered(3, 2, INVALID))):
            self.receive(message)
            self.assertDiscarded("invalid")
        self.assertExecuted()
        self.assertEqual(self.take_records(OrderedRecord), [])

    def test_update_in_this_servers_name_that_it_has_not_under_way_is_dropped(self) -> None:
        """An update that is not pending is forged, or of a former incarnation; a pending one may come back."""
        self.receive(client_update("carol", 1, server_id=2), sender=3)
        self.assertDiscarded("not ours")
        own = client_update("carol", 1, server_id=2)
        self.introduce(own)
        self.assertSent(own, to=1)
        self.receive(client_update("carol", 1, server_id=2, payload=b"another"), sender=3)
        self.assertDiscarded("not ours")
        self.receive(own, sender=3)
        self.assertNotDiscarded()
        self.assertSent(own, to=1)


class LeaderTests(ReplicaTestCase):
    def test_leader_queues_no_invalid_update(self) -> None:
        """The leader is the last who can stop it."""
        self.lead(view=2)
        self.receive(INVALID, sender=3)
        self.assertDiscarded("invalid")
        self.assertEqual(len(self.replica.update_queue), 0)

    def test_update_of_the_future_is_not_proposed(self) -> None:
        """No follower would accept the batch, and nothing else could be ordered."""
        self.lead(view=2)
        self.receive(client_update("alice", 1, server_id=3, made_at=7), sender=3)
        self.receive(client_update("bob", 1, server_id=3), sender=3)
        self.assertSent(
            proposal(2, 2, 1, client_update("bob", 1, server_id=3), time_ms=self.replica.ordered_queue.time.time_ms)
        )
        self.take(Accept)

    def test_promise_with_an_invalid_batch_is_dropped_as_a_whole(self) -> None:
        """S1: a data list without one of its slots would be a wrong promise."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(1, 2, proposal(1, 1, 1, VALID), proposal(1, 1, 2, INVALID)))
        self.assertDiscarded("invalid")
        self.assertIsNone(self.data.ordering.global_history.get(1))
        self.receive(prepare_ok(3, 2))
        self.assertNotIn(1, self.data.preparing.prepare_oks)


class ExecutionTests(ReplicaTestCase):
    def test_update_of_the_future_is_not_executed(self) -> None:
        """Departure 7: an update made later than its slot would be valid for longer than its horizon."""
        slot = self.data.ordering.global_history.ensure(1)
        slot.ordered = Batch.of(0, [client_update("alice", 1, made_at=1), client_update("bob", 1, made_at=0)])
        self.replica.perform(self.replica.ordered_queue.catch_up)
        self.assertExecuted([client_update("bob", 1)])
        self.assertEqual(self.machine.expired, [client_update("alice", 1, made_at=1)])

    def test_time_begins_anywhere_and_then_makes_no_long_step(self) -> None:
        """One wrong clock cannot end all waits of the years to come."""
        queue = self.replica.ordered_queue
        now = 1_700_000_000_000
        self.receive(ordered(3, 1, time_ms=now))
        self.assertEqual(queue.time.time_ms, now)
        self.receive(ordered(3, 2, time_ms=now + 1))
        self.assertEqual(queue.time.time_ms, now + 1)
        self.receive(ordered(3, 3, time_ms=now + 10 * TIME_STEP_MS_MAX))
        self.assertEqual(queue.time.time_ms, now + 1 + TIME_STEP_MS_MAX)
        self.receive(ordered(3, 4, time_ms=now))
        self.assertEqual(queue.time.time_ms, now + 1 + TIME_STEP_MS_MAX)
