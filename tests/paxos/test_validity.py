"""Departure 37: a server takes only valid updates and batches from other servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Accept, Batch, GloballyOrderedUpdate, PrepareOK, Proposal, ReconciliationReply
from pfsb.paxos.records import OrderedRecord, ProposalRecord
from pfsb.support.limits import BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX, SLOT_MAX, TIME_STEP_MS_MAX, VIEW_MAX
from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES
from pfsb.transports.wire import encode
from tests.paxos.case import INVALID_PAYLOAD, ReplicaTestCase
from tests.paxos.messages import accept, client_update, ordered, prepare_ok, proposal, reply

VALID = client_update("alice", 1, server_id=3)
INVALID = client_update("alice", 1, server_id=3, payload=INVALID_PAYLOAD)
OF_NOBODY = client_update("alice", 1, server_id=9)
TOO_LARGE = client_update("alice", 1, server_id=3, payload=b"x" * (PAYLOAD_BYTES_MAX + 1))
LARGEST_BATCH = Batch(bytes(BATCH_BYTES_MAX))
OF_THE_FUTURE = client_update("alice", 1, server_id=3, made_at=1)


class FollowerTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def test_invalid_update_is_not_relayed(self) -> None:
        """An invalid update is not relayed, and does not count as one that waits."""
        for wrong in (INVALID, OF_NOBODY, TOO_LARGE):
            self.receive(wrong, sender=3)
            self.assertDiscarded("invalid")
        self.assertNothingSent()
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())

    def test_proposal_of_an_invalid_batch_is_not_accepted(self) -> None:
        """A PROPOSAL of an invalid batch gets no record and no vote, so it cannot be chosen. A valid batch may follow
        in the same slot of the same view."""
        for wrong in (INVALID, OF_NOBODY, OF_THE_FUTURE):
            self.receive(proposal(1, 1, 1, VALID, wrong))
            self.assertDiscarded("invalid")
        self.assertNothingSent()
        self.assertEqual(self.take_records(ProposalRecord), [])
        self.receive(proposal(1, 1, 1, VALID))
        self.assertSent(accept(2, 1, 1))

    def test_proposal_that_could_not_be_passed_on_is_not_accepted(self) -> None:
        """A PROPOSAL with a batch that fits this message, but would not fit those in which this server had to pass it
        on, is not accepted."""
        half = client_update("alice", 1, server_id=3, payload=b"x" * (BATCH_BYTES_MAX // 2))
        other = client_update("bob", 1, server_id=3, payload=b"x" * (BATCH_BYTES_MAX // 2))
        self.receive(proposal(1, 1, 1, half, other))
        self.assertDiscarded("invalid")
        self.receive(ordered(3, 1, half, other))
        self.assertDiscarded("invalid")
        self.assertNothingSent()

    def test_ordered_update_with_an_invalid_batch_is_not_believed(self) -> None:
        """An ordered update with an invalid batch is not believed: no majority has accepted it, whatever the message
        says."""
        for message in (ordered(3, 1, INVALID), reply(3, ordered(3, 1, VALID), ordered(3, 2, INVALID))):
            self.receive(message)
            self.assertDiscarded("invalid")
        self.assertExecuted()
        self.assertEqual(self.take_records(OrderedRecord), [])

    def test_update_in_this_servers_name_that_it_has_not_under_way_is_dropped(self) -> None:
        """An update in this server's name that is not pending here is dropped: it is forged, or of a former
        incarnation. A pending one may come back by a relay."""
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
        """A leader queues no invalid update."""
        self.lead(view=2)
        self.receive(INVALID, sender=3)
        self.assertDiscarded("invalid")
        self.assertEqual(len(self.replica.update_queue), 0)

    def test_update_of_the_future_is_not_proposed(self) -> None:
        """An update that claims to be made after the slot that it would get is not proposed: no follower would accept
        the batch, and nothing else could be ordered."""
        self.lead(view=2)
        self.receive(client_update("alice", 1, server_id=3, made_at=7), sender=3)
        self.receive(client_update("bob", 1, server_id=3), sender=3)
        self.assertSent(
            proposal(2, 2, 1, client_update("bob", 1, server_id=3), time_ms=self.replica.ordered_queue.time.time_ms)
        )
        self.take(Accept)

    def test_promise_with_an_invalid_batch_is_dropped_as_a_whole(self) -> None:
        """S1: a promise with an invalid batch is dropped as a whole: a data list without one of its slots would be a
        wrong promise."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(1, 2, proposal(1, 1, 1, VALID), proposal(1, 1, 2, INVALID)))
        self.assertDiscarded("invalid")
        self.assertIsNone(self.data.ordering.global_history.get(1))
        self.receive(prepare_ok(3, 2))
        self.assertNotIn(1, self.data.preparing.prepare_oks)


class ExecutionTests(ReplicaTestCase):
    def test_update_of_the_future_is_not_executed(self) -> None:
        """Departure 7: an update that claims to be made at its slot or later is not executed: it would be valid for
        longer than its horizon."""
        slot = self.data.ordering.global_history.ensure(1)
        slot.ordered = Batch.of(0, [client_update("alice", 1, made_at=1), client_update("bob", 1, made_at=0)])
        self.replica.perform(self.replica.ordered_queue.catch_up)
        self.assertExecuted([client_update("bob", 1)])
        self.assertEqual(self.machine.expired, [client_update("alice", 1, made_at=1)])

    def test_time_begins_anywhere_and_then_makes_no_long_step(self) -> None:
        """The time may begin anywhere, and then moves in bounded steps, so that one wrong clock cannot end all waits of
        the years to come."""
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


class SizeTests(SynchronousTestCase):
    def test_largest_update_fits_the_largest_batch(self) -> None:
        """The largest update, with a client id of characters of four bytes, fits the largest batch."""
        update = client_update("\U0001f600" * 300, 2**63 - 1, made_at=SLOT_MAX, payload=bytes(PAYLOAD_BYTES_MAX))
        self.assertLessEqual(len(Batch.of(2**63 - 1, [update]).data), BATCH_BYTES_MAX)

    def test_largest_batch_fits_every_message(self) -> None:
        """The largest batch fits every message: otherwise a server that has accepted it would stop when it had to pass
        it on, and so would the next leader."""
        told = GloballyOrderedUpdate(65_535, SLOT_MAX, LARGEST_BATCH)
        proposed = Proposal(65_535, VIEW_MAX, SLOT_MAX, LARGEST_BATCH)
        for message in (
            proposed,
            told,
            PrepareOK(65_535, VIEW_MAX, (proposed,), 2_000_000, 2_000_000, 2**63 - 1),
            ReconciliationReply(65_535, SLOT_MAX, SLOT_MAX, (told,)),
        ):
            self.assertLessEqual(len(encode(message)), FRAME_BYTES_MAX - OVERHEAD_BYTES - 100, type(message))
