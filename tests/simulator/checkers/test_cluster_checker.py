"""The judges of the simulator, on trial: each finds what it is there to find."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    ClientUpdate,
    GloballyOrderedUpdate,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    State,
    VCProof,
)
from pfsb.paxos.records import AruRecord, OrderedRecord, ProposalRecord, ViewRecord
from pfsb.simulator.checkers.cluster_checker import ClusterChecker, ExecutionChecker
from pfsb.simulator.checkers.message_checker import MessageChecker
from pfsb.simulator.checkers.violation import Violation
from pfsb.storage.memory import MemoryDisk

A = ClientUpdate("a", 0, 1, 0, b"x")
B = ClientUpdate("b", 0, 1, 0, b"y")
BATCH_A = Batch.of(0, [A])
BATCH_B = Batch.of(0, [B])


class ExecutionCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = ExecutionChecker()
        for update in (A, B):
            self.check.introduce(update)
        for server_id in (0, 1):
            self.check.started(server_id)

    def violates(self, *args: object) -> str:
        return str(self.assertRaises(Violation, self.check.executed, *args))

    def test_agreement_passes(self) -> None:
        """Two servers, the same slots."""
        for server_id in (0, 1):
            for seq, update in ((1, A), (2, B)):
                self.check.executed(server_id, seq, [update])
                self.check.settled(server_id, seq, 0, [update])
        self.assertEqual(self.check.settled_up_to, {0: 2, 1: 2})

    def test_other_value_at_one_number(self) -> None:
        """S1, also when the one who executed it first is long gone."""
        self.check.settled(0, 1, 0, [A])
        self.check.started(0)
        self.assertIn("S1", str(self.assertRaises(Violation, self.check.settled, 1, 1, 0, [B])))

    def test_other_time_at_one_number(self) -> None:
        """The state machine's time is part of the value."""
        self.check.settled(0, 1, 0, [A])
        self.assertIn("S1", str(self.assertRaises(Violation, self.check.settled, 1, 1, 5, [A])))

    def test_speculation_that_a_crash_has_undone(self) -> None:
        """What was executed in memory only, and told to nobody, binds nobody (docs/internals/turn.rst)."""
        self.check.executed(0, 1, [A])
        self.check.started(0)
        self.check.executed(1, 1, [B])
        self.check.settled(1, 1, 0, [B])
        self.assertEqual(self.check.values, {1: (0, (("b", 1, b"y"),))})

    def test_slot_left_out(self) -> None:
        """Slots are executed in order, each once."""
        self.assertIn("1 is next", self.violates(0, 2, [A]))
        self.check.executed(0, 1, [A])
        self.assertIn("2 is next", self.violates(0, 1, [A]))

    def test_update_from_nowhere(self) -> None:
        """S2: nobody asked for this, or not for this payload."""
        self.assertIn("S2", self.violates(0, 1, [ClientUpdate("c", 0, 1, 0, b"")]))
        self.assertIn("S2", self.violates(1, 1, [ClientUpdate("c", 0, 1, 0, b"")]))

    def test_update_twice(self) -> None:
        """S3, but a new life executes everything anew."""
        self.check.executed(0, 1, [A])
        self.assertIn("S3", self.violates(0, 2, [A]))
        self.check.started(0)
        self.check.executed(0, 1, [A])

    def test_digests_differ(self) -> None:
        """At one number there is one digest."""
        self.check.digest(0, 1, b"one")
        self.assertRaises(Violation, self.check.digest, 1, 1, b"other")


class NetworkCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = MessageChecker()
        for server_id in (0, 1):
            self.check.started(server_id)

    def violates(self, *args: object) -> str:
        return str(self.assertRaises(Violation, self.check.sent, *args))

    def test_two_leaders_of_a_view(self) -> None:
        """Whether they prepare, propose or say so."""
        self.check.sent(0, Prepare(0, 4, 0))
        self.assertIn("view 4", self.violates(1, Proposal(1, 4, 1, BATCH_A)))
        self.assertIn("view 4", self.violates(1, Alive(1, 4, State.REG_LEADER, 0)))

    def test_same_server_leads_a_view_in_two_lives(self) -> None:
        """G10."""
        self.check.sent(0, Prepare(0, 4, 0))
        self.check.started(0)
        self.assertIn("view 4", self.violates(0, Prepare(0, 4, 0)))

    def test_two_proposals_at_one_number_in_a_view(self) -> None:
        """Also when the other one is seen in a data list; another view may propose another."""
        self.check.sent(0, Proposal(0, 1, 5, BATCH_A))
        self.check.sent(1, Proposal(1, 2, 5, BATCH_B))
        self.assertIn("two proposals", self.violates(1, PrepareOK(1, 3, (Proposal(0, 1, 5, BATCH_B),))))

    def test_two_batches_called_ordered(self) -> None:
        """S1 as it is seen from outside."""
        self.check.sent(0, ReconciliationReply(0, 1, 1, (GloballyOrderedUpdate(0, 1, BATCH_A),)))
        self.assertIn("S1", self.violates(1, PrepareOK(1, 3, (GloballyOrderedUpdate(1, 1, BATCH_B),))))

    def test_crash_takes_back_what_was_told(self) -> None:
        """View and Local_Aru; within a life an older message may leave late."""
        self.check.sent(0, Alive(0, 5, State.REG_NONLEADER, 9))
        self.check.sent(0, VCProof(0, 4))
        self.check.started(0)
        self.check.sent(0, Alive(0, 5, State.REG_NONLEADER, 9))
        self.assertIn("view", self.violates(0, VCProof(0, 4)))
        self.assertIn("Local_Aru", self.violates(0, Alive(0, 5, State.REG_NONLEADER, 8)))


class DoorCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disks = {i: MemoryDisk() for i in range(3)}
        self.checks = ClusterChecker(self.disks, lambda server_id, seq: None)
        for server_id, disk in self.disks.items():
            self.checks.started(server_id)
            disk.contents.apply(ViewRecord(1, 1))
        self.checks.sent(0, None, [Prepare(0, 1, 0), Proposal(0, 1, 1, BATCH_A)])

    def violates(self, message: object) -> str:
        return str(self.assertRaises(Violation, self.checks.sent, 1, None, [message]))

    def test_view_is_not_on_disk(self) -> None:
        """Nothing that tells of a view leaves before it is."""
        for message in (
            VCProof(1, 2),
            PrepareOK(1, 2, ()),
            Alive(1, 2, State.REG_NONLEADER, 0),
            Accept(1, 2, (1,)),
            Prepare(1, 2, 0),
            Proposal(1, 2, 1, BATCH_A),
        ):
            self.assertIn("has view 1 on disk", self.violates(message))

    def test_vote_is_not_on_disk(self) -> None:
        """An ACCEPT leaves when the proposal is there, or a later one."""
        self.violates(Accept(1, 1, (1,)))
        self.disks[1].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.checks.sent(1, None, [Accept(1, 1, (1,))])
        self.disks[1].contents.apply(ProposalRecord(1, 2, BATCH_B))
        self.checks.sent(1, None, [Accept(1, 1, (1,))])

    def test_vote_for_what_is_chosen_needs_no_disk(self) -> None:
        """G18: a majority has it already."""
        for server_id in (0, 2):
            self.disks[server_id].contents.apply(OrderedRecord(1, BATCH_A))
        self.checks.sent(1, None, [Accept(1, 1, (1,))])

    def test_aru_is_not_on_disk(self) -> None:
        """ALIVE tells only of what is."""
        self.assertIn("has 0 on disk", self.violates(Alive(1, 1, State.REG_NONLEADER, 3)))
        self.disks[1].contents.apply(AruRecord(3))
        self.checks.sent(1, None, [Alive(1, 1, State.REG_NONLEADER, 3)])

    def test_promise_keeps_quiet_about_a_vote(self) -> None:
        """G19: a truncated data list; the votes of all parts count together."""
        self.disks[1].contents.apply(ViewRecord(2, 2))
        for seq in (1, 2):
            self.disks[1].contents.apply(ProposalRecord(seq, 1, BATCH_A))
        self.disks[2].contents.apply(ViewRecord(2, 2))
        self.checks.sent(2, None, [Prepare(2, 2, 0)])
        first = Proposal(0, 1, 1, BATCH_A)
        self.assertIn("at 2", self.violates(PrepareOK(1, 2, (first,))))
        self.checks.started(1)
        self.checks.sent(1, None, [PrepareOK(1, 2, (first,), 0, 2)])
        self.checks.sent(1, None, [PrepareOK(1, 2, (Proposal(0, 1, 2, BATCH_A),), 1, 2)])

    def test_called_ordered_without_a_majority_on_disk(self) -> None:
        """What others may rely on for ever must be chosen on disks, not in memories."""
        reply = ReconciliationReply(1, 1, 1, (GloballyOrderedUpdate(1, 1, BATCH_A),))
        self.disks[1].contents.apply(OrderedRecord(1, BATCH_A))
        self.assertIn("1 disks hold", self.violates(reply))
        self.disks[2].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.checks.sent(1, None, [reply])

    def test_answer_without_a_majority_on_disk(self) -> None:
        """An answered command survives every crash."""
        self.checks.execution.introduce(A)
        self.checks.settled(1, 1, 0, [A])
        self.disks[1].contents.apply(OrderedRecord(1, BATCH_A))
        self.assertRaises(Violation, self.checks.answered, ("a", 1), 1)
        self.disks[2].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.checks.answered(("a", 1), 1)
        self.assertRaises(Violation, self.checks.answered, ("a", 1), 2)

    def test_answer_from_a_slot_that_nobody_has_executed(self) -> None:
        """A sentence, as for all that is wrong."""
        error = self.assertRaises(Violation, self.checks.answered, ("a", 1), 7)
        self.assertIn("slot 7, which no server has executed", str(error))

    def test_updates_are_looked_at_as_they_leave(self) -> None:
        """`update_checks`, in its place."""
        again = Proposal(0, 1, 2, Batch.of(7, [A]))
        self.assertIn("G15", str(self.assertRaises(Violation, self.checks.sent, 0, None, [again])))
        self.assertIn("relayed", self.violates(A))
