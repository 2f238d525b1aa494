"""Figure 11 C: what has a sequence number is executed in order, once."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos import ordered_update_queue
from pfsb.paxos.ordered_update_queue import DigestChain
from pfsb.paxos.records import AruRecord, OrderedRecord
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import accept, batch, client_update, ordered, proposal, reply

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


class QueueTestCase(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def learn(self, seq: int, *updates: object, time_ms: int = 0) -> None:
        self.receive(reply(3, ordered(3, seq, *updates, time_ms=time_ms)))  # type: ignore[arg-type]


class ExecutionTests(QueueTestCase):
    def test_update_bound_twice_runs_once(self) -> None:
        """Scenario 5, G15 (i): an update that is bound to two slots is executed once, since leaders cannot always
        prevent the second binding."""
        self.learn(1, ALICE)
        self.learn(2, ALICE, BOB)
        self.assertExecuted([ALICE], [BOB])

    def test_update_twice_in_one_batch_runs_once(self) -> None:
        """G15 (i): an update that is twice in one batch is executed once."""
        self.learn(1, ALICE, ALICE)
        self.assertExecuted([ALICE])

    def test_late_update_does_not_turn_back_the_count(self) -> None:
        """G16: an older update that is ordered late does not lower Last_Executed, which is a maximum."""
        self.learn(1, client_update("alice", 5))
        self.learn(2, client_update("alice", 4))
        self.assertExecuted([client_update("alice", 5)], [])
        self.assertEqual(self.data.clients.last_executed.of("alice"), 5)

    def test_no_op_moves_the_time_and_nothing_else(self) -> None:
        """G11: a no-op moves the time, and has no client, no reply, and no entry in Last_Executed."""
        self.learn(1, time_ms=70)
        self.assertEqual(self.machine.executed, [(1, 70, [])])
        self.assertEqual(len(self.data.clients.last_executed.timestamps), 0)

    def test_time_never_goes_back(self) -> None:
        """Departure 4: the time never goes back, although a new leader's clock may be behind."""
        self.learn(1, time_ms=70)
        self.learn(2, time_ms=30)
        self.learn(3, time_ms=90)
        self.assertEqual([time_ms for _, time_ms, _ in self.machine.executed], [70, 70, 90])

    def test_update_beyond_its_horizon_does_not_run(self) -> None:
        """Departure 7: an update beyond its horizon is not executed, since Last_Executed may have forgotten it; its
        server is told."""
        old = client_update("alice", 1, made_at=0)
        for seq in range(1, 101):
            self.learn(seq)
        self.learn(101, old)
        self.assertEqual(self.machine.expired, [old])
        self.assertEqual(self.machine.executed[-1], (101, 0, []))

    def test_update_runs_in_the_last_slot_of_its_horizon(self) -> None:
        """Departure 7: an update is executed up to `horizon_slots` slots after it was made."""
        last = client_update("alice", 1, made_at=0)
        for seq in range(1, 100):
            self.learn(seq)
        self.learn(100, last)
        self.assertEqual(self.machine.executed[-1], (100, 0, [last]))

    def test_forgotten_client_cannot_run_an_old_update_again(self) -> None:
        """Departure 7: an update of a client whose entry in Last_Executed was dropped is too old to be executed
        again."""
        self.learn(1, ALICE)
        for seq in range(2, 103):
            self.learn(seq)
        self.assertEqual(self.data.clients.last_executed.of("alice"), 0)
        self.learn(103, ALICE)
        self.assertEqual(self.machine.executed[-1], (103, 0, []))
        self.assertEqual(self.machine.expired, [ALICE])


class RecordTests(QueueTestCase):
    def test_learned_slot_is_written_lazily(self) -> None:
        """The record of a slot that was learned by reconciliation is lazy, and that of Local_Aru comes after it."""
        before = self.storage.syncs
        self.learn(1, ALICE)
        self.assertEqual(self.storage.records, [OrderedRecord(1, batch(ALICE)), AruRecord(1)])
        self.assertEqual(self.storage.syncs, before)

    def test_slot_that_is_on_disk_as_a_proposal_is_not_written_again(self) -> None:
        """A slot whose batch is on disk as a proposal is not written again when it is ordered."""
        self.order(1, ALICE)
        self.assertEqual(self.take_records(OrderedRecord), [])
        self.assertEqual(self.take_records(AruRecord), [AruRecord(1)])

    def test_slot_ordered_with_another_value_than_was_accepted_is_written(self) -> None:
        """A slot that is ordered with another batch than was accepted here is written, so that a restart finds the
        ordered one."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.learn(1, BOB)
        self.assertEqual(self.take_records(OrderedRecord), [OrderedRecord(1, batch(BOB))])
        self.assertEqual(self.take_records(AruRecord), [AruRecord(1)])

    def test_slot_ordered_behind_a_gap_does_not_move_local_aru(self) -> None:
        """A slot that is ordered behind a gap does not raise Local_Aru: an AruRecord promises every slot up to it."""
        self.learn(2, BOB)
        self.assertEqual(self.take_records(OrderedRecord), [OrderedRecord(2, batch(BOB))])
        self.assertEqual(self.take_records(AruRecord), [])


class ForgettingTests(QueueTestCase):
    settings = evolve(SMALL, history_slots_kept=3)

    def test_only_the_recent_past_stays_in_memory(self) -> None:
        """Only the last `history_slots_kept` slots stay in memory; older ones are read from disk."""
        for seq in range(1, 8):
            self.learn(seq, client_update("alice", seq))
        self.assertEqual(sorted(self.data.ordering.global_history.slots), [5, 6, 7])
        self.assertEqual(self.data.ordering.global_history.floor, 4)

    def test_large_batches_leave_memory_sooner(self) -> None:
        """Large batches leave memory sooner, since old slots are bounded in bytes, too; a slot that is not executed yet
        is never dropped."""
        self.patch(ordered_update_queue, "HISTORY_BYTES_KEPT", 1_000)
        self.learn(2, client_update("alice", 2, payload=bytes(900)))
        self.learn(1, client_update("alice", 1, payload=bytes(900)))
        history = self.data.ordering.global_history
        self.assertEqual(sorted(history.slots), [2])
        self.learn(4, client_update("alice", 4, payload=bytes(5_000)))
        self.learn(3)
        self.assertEqual((self.data.ordering.local_aru, history.floor, history.batch_bytes), (4, 4, 0))


class DigestTests(QueueTestCase):
    def test_digest_tells_histories_apart(self) -> None:
        """Digests are equal after the same batches, and differ after others."""
        digests = self.replica.ordered_queue.digests
        self.learn(1, ALICE)
        one = digests.at(1)
        self.learn(2, BOB)
        self.assertEqual(digests.at(1), one)
        self.assertNotEqual(digests.at(2), one)
        self.assertEqual(digests.head, digests.at(2))

    def test_digest_tells_executions_apart(self) -> None:
        """Departure 40: equal batches whose execution had different outcomes give different digests."""
        alike, unlike = DigestChain(10), DigestChain(10)
        self.machine.outcomes = b"as everywhere"
        self.learn(1, ALICE)
        alike.extend(batch(ALICE).digest, b"as everywhere")
        unlike.extend(batch(ALICE).digest, b"otherwise")
        head = self.replica.ordered_queue.digests.head
        self.assertEqual((head == alike.head, head == unlike.head), (True, False))


class DigestChainTests(SynchronousTestCase):
    def test_digest_depends_on_all_that_came_before(self) -> None:
        """The digest depends on all batches before: the same last batch after another first one gives another
        digest."""
        one, other = DigestChain(10), DigestChain(10)
        for chain, first in ((one, b"a"), (other, b"b")):
            chain.extend(first, b"")
            chain.extend(b"same", b"")
        self.assertNotEqual(one.head, other.head)

    def test_old_and_future_digests_are_not_known(self) -> None:
        """A digest is known only of the last `digests_kept` slots."""
        chain = DigestChain(3)
        heads = [chain.head]
        for _ in range(5):
            chain.extend(b"x", b"")
            heads.append(chain.head)
        self.assertEqual([chain.at(seq) for seq in range(7)], [None, None, None, *heads[3:], None])
