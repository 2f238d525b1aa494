"""The checks of the whole cluster: each finds the violation that it is there for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    ClientUpdate,
    GloballyOrderedUpdate,
    Ordered,
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

    def test_equal_executions_pass(self) -> None:
        """Two servers that execute the same slots alike pass."""
        for server_id in (0, 1):
            for seq, update in ((1, A), (2, B)):
                self.check.executed(server_id, seq, [update])
                self.check.settled(server_id, seq, 0, [update])
        self.assertEqual(self.check.settled_up_to, {0: 2, 1: 2})

    def test_second_value_of_a_slot_is_found(self) -> None:
        """A second value of a slot is found (S1), even if the server that executed the slot first has crashed since."""
        self.check.settled(0, 1, 0, [A])
        self.check.started(0)
        self.assertIn("S1", str(self.assertRaises(Violation, self.check.settled, 1, 1, 0, [B])))

    def test_second_time_of_a_slot_is_found(self) -> None:
        """A second time of the same slot is found: the state machine's time is part of the slot's value."""
        self.check.settled(0, 1, 0, [A])
        self.assertIn("S1", str(self.assertRaises(Violation, self.check.settled, 1, 1, 5, [A])))

    def test_execution_that_a_crash_has_undone_is_forgotten(self) -> None:
        """An execution in memory only, of which no message has left the server, is forgotten when the server crashes
        (docs/internals/turn.rst)."""
        self.check.executed(0, 1, [A])
        self.check.started(0)
        self.check.executed(1, 1, [B])
        self.check.settled(1, 1, 0, [B])
        self.assertEqual(self.check.values, {1: (0, (("b", 1, b"y"),))})

    def test_slot_that_is_left_out_is_found(self) -> None:
        """A server that leaves out a slot is found: slots are executed in order, each once."""
        self.assertIn("1 is next", self.violates(0, 2, [A]))
        self.check.executed(0, 1, [A])
        self.assertIn("2 is next", self.violates(0, 1, [A]))

    def test_update_that_no_client_sent_is_found(self) -> None:
        """An update that no client sent, or that has another payload than the client's, is found (S2)."""
        self.assertIn("S2", self.violates(0, 1, [ClientUpdate("c", 0, 1, 0, b"")]))
        self.assertIn("S2", self.violates(1, 1, [ClientUpdate("c", 0, 1, 0, b"")]))

    def test_update_that_runs_twice_is_found(self) -> None:
        """An update that runs twice in one incarnation is found (S3); the next incarnation executes all slots again."""
        self.check.executed(0, 1, [A])
        self.assertIn("S3", self.violates(0, 2, [A]))
        self.check.started(0)
        self.check.executed(0, 1, [A])

    def test_different_digests_are_found(self) -> None:
        """A server whose digest after a slot differs from the others' is found."""
        self.check.digest(0, 1, b"one")
        self.assertRaises(Violation, self.check.digest, 1, 1, b"other")


class NetworkCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = MessageChecker()
        for server_id in (0, 1):
            self.check.started(server_id)

    def violates(self, *args: object) -> str:
        return str(self.assertRaises(Violation, self.check.sent, *args))

    def test_two_leaders_of_a_view_are_found(self) -> None:
        """Two leaders of one view are found, by a PREPARE, a proposal, an ORDERED or an ALIVE of each."""
        self.check.sent(0, Prepare(0, 4, 0))
        self.assertIn("view 4", self.violates(1, Proposal(1, 4, 1, BATCH_A)))
        self.assertIn("view 4", self.violates(1, Alive(1, 4, State.REG_LEADER, 0)))
        self.assertIn("view 4", self.violates(1, Ordered(1, 4, (1,), BATCH_A.digest)))

    def test_view_that_two_incarnations_lead_is_found(self) -> None:
        """G10: an incarnation that leads a view of an earlier incarnation of its server is found."""
        self.check.sent(0, Prepare(0, 4, 0))
        self.check.started(0)
        self.assertIn("view 4", self.violates(0, Prepare(0, 4, 0)))

    def test_two_proposals_of_a_view_for_one_slot_are_found(self) -> None:
        """Two proposals of one view for a slot are found, also in a data list; another view may propose another
        batch."""
        self.check.sent(0, Proposal(0, 1, 5, BATCH_A))
        self.check.sent(1, Proposal(1, 2, 5, BATCH_B))
        self.assertIn("two proposals", self.violates(1, PrepareOK(1, 3, (Proposal(0, 1, 5, BATCH_B),))))

    def test_two_batches_reported_as_ordered_are_found(self) -> None:
        """Two batches of one slot that are reported as ordered are found in the messages (S1)."""
        self.check.sent(0, ReconciliationReply(0, 1, 1, (GloballyOrderedUpdate(0, 1, BATCH_A),)))
        self.assertIn("S1", self.violates(1, PrepareOK(1, 3, (GloballyOrderedUpdate(1, 1, BATCH_B),))))

    def test_number_that_falls_by_a_crash_is_found(self) -> None:
        """A View or Local_Aru that is lower after a crash is found; within an incarnation an older message may leave
        late."""
        self.check.sent(0, Alive(0, 5, State.REG_NONLEADER, 9))
        self.check.sent(0, VCProof(0, 4))
        self.check.started(0)
        self.check.sent(0, Alive(0, 5, State.REG_NONLEADER, 9))
        self.assertIn("view", self.violates(0, VCProof(0, 4)))
        self.assertIn("Local_Aru", self.violates(0, Alive(0, 5, State.REG_NONLEADER, 8)))


class DurabilityCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disks = {i: MemoryDisk() for i in range(3)}
        self.checks = ClusterChecker(self.disks, lambda server_id, seq: None)
        for server_id, disk in self.disks.items():
            self.checks.started(server_id)
            disk.contents.apply(ViewRecord(1, 1))
        self.checks.sent(0, None, [Prepare(0, 1, 0), Proposal(0, 1, 1, BATCH_A)])

    def violates(self, message: object) -> str:
        return str(self.assertRaises(Violation, self.checks.sent, 1, None, [message]))

    def test_message_before_its_view_is_on_disk_is_found(self) -> None:
        """A message of a view that leaves before the view is on disk is found."""
        for message in (
            VCProof(1, 2),
            PrepareOK(1, 2, ()),
            Alive(1, 2, State.REG_NONLEADER, 0),
            Accept(1, 2, (1,), BATCH_A.digest),
            Prepare(1, 2, 0),
            Proposal(1, 2, 1, BATCH_A),
        ):
            self.assertIn("has view 1 on disk", self.violates(message))

    def test_vote_before_its_proposal_is_on_disk_is_found(self) -> None:
        """An ACCEPT that leaves before its proposal or a later one is on disk is found."""
        self.violates(Accept(1, 1, (1,), BATCH_A.digest))
        self.disks[1].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.checks.sent(1, None, [Accept(1, 1, (1,), BATCH_A.digest)])
        self.disks[1].contents.apply(ProposalRecord(1, 2, BATCH_B))
        self.checks.sent(1, None, [Accept(1, 1, (1,), BATCH_A.digest)])

    def test_vote_for_another_batch_than_is_on_disk_is_found(self) -> None:
        """Departure 39: an ACCEPT whose digest is not that of the batch on its sender's disk is found: the sender would
        report the batch on disk after a crash."""
        self.disks[1].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.assertIn("votes in view 1 at 1", self.violates(Accept(1, 1, (1,), BATCH_B.digest)))

    def test_vote_of_an_old_view_that_is_sent_as_one_of_the_new_view_is_found(self) -> None:
        """An ACCEPT of the new view while the disk has the proposal of the old one is found: after a crash the server
        would report the old view."""
        self.disks[1].contents.apply(ProposalRecord(1, 1, BATCH_A))
        for disk in self.disks.values():
            disk.contents.apply(ViewRecord(2, 2))
        self.checks.sent(2, None, [Proposal(2, 2, 1, BATCH_A)])
        self.assertIn("votes in view 2 at 1", self.violates(Accept(1, 2, (1,), BATCH_A.digest)))

    def test_vote_for_a_chosen_batch_passes_before_it_is_on_disk(self) -> None:
        """G18: a vote for a chosen batch may leave at once, since a majority has it on disk."""
        for server_id in (0, 2):
            self.disks[server_id].contents.apply(OrderedRecord(1, BATCH_A))
        self.checks.sent(1, None, [Accept(1, 1, (1,), BATCH_A.digest)])

    def told_by(self, leader: int, view: int, batch: Batch) -> str:
        message = Ordered(leader, view, (1,), batch.digest)
        return str(self.assertRaises(Violation, self.checks.sent, leader, None, [message]))

    def votes(self, server_id: int, view: int) -> None:
        """A server accepts BATCH_A in slot 1, and sends its vote."""
        self.disks[server_id].contents.apply(ProposalRecord(1, view, BATCH_A))
        self.checks.sent(server_id, None, [Accept(server_id, view, (1,), BATCH_A.digest)])

    def test_ordered_before_the_leaders_own_vote_is_on_disk_is_found(self) -> None:
        """Departure 55: an ORDERED that leaves before the leader's own proposal is on disk is found, if the leader's
        vote is needed for a majority."""
        self.votes(1, 1)
        self.assertIn("1 disks hold what server 0 tells", self.told_by(0, 1, BATCH_A))
        self.disks[0].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.checks.sent(0, None, [Ordered(0, 1, (1,), BATCH_A.digest)])

    def test_majority_without_the_leader_is_enough(self) -> None:
        """Departure 55: an ORDERED may leave when a majority without the leader has voted, whatever is on the leader's
        disk."""
        self.votes(1, 1)
        self.votes(2, 1)
        self.checks.sent(0, None, [Ordered(0, 1, (1,), BATCH_A.digest)])

    def test_ordered_without_the_votes_of_others_is_found(self) -> None:
        """Departure 55: an ORDERED without votes of other servers is found, even if their disks hold the batch."""
        for server_id in (0, 1, 2):
            self.disks[server_id].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.assertIn("1 disks hold what server 0 tells", self.told_by(0, 1, BATCH_A))

    def test_ordered_of_another_batch_is_found(self) -> None:
        """Departures 39 and 55: an ORDERED of another batch than was voted for is found."""
        self.votes(1, 1)
        self.disks[0].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.assertIn("0 disks hold what server 0 tells", self.told_by(0, 1, BATCH_B))

    def test_vote_of_an_old_view_is_not_the_leaders_vote(self) -> None:
        """Departure 55: when the leader's disk has the proposal of an old view, that is no vote of the leader in the
        new view."""
        for disk in self.disks.values():
            disk.contents.apply(ViewRecord(3, 3))
        self.checks.sent(2, None, [Proposal(2, 3, 1, BATCH_A)])
        self.disks[2].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.votes(0, 3)
        self.assertIn("1 disks hold what server 2 tells", self.told_by(2, 3, BATCH_A))
        self.votes(1, 3)
        self.checks.sent(2, None, [Ordered(2, 3, (1,), BATCH_A.digest)])

    def test_ordered_of_what_nobody_proposed_is_found(self) -> None:
        """Departure 55: an ORDERED of a slot without a proposal is found."""
        message = Ordered(0, 1, (2,), BATCH_A.digest)
        text = str(self.assertRaises(Violation, self.checks.sent, 0, None, [message]))
        self.assertIn("tells of what was never proposed", text)

    def test_alive_before_its_aru_is_on_disk_is_found(self) -> None:
        """An ALIVE whose Local_Aru is not yet on disk is found."""
        self.assertIn("has 0 on disk", self.violates(Alive(1, 1, State.REG_NONLEADER, 3)))
        self.disks[1].contents.apply(AruRecord(3))
        self.checks.sent(1, None, [Alive(1, 1, State.REG_NONLEADER, 3)])

    def test_promise_without_one_of_its_votes_is_found(self) -> None:
        """G19: a data list that lacks one vote of its sender is found; the votes of all its parts count together."""
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

    def test_report_without_a_majority_on_disk_is_found(self) -> None:
        """A batch that is reported as ordered without being on the disks of a majority is found."""
        reply = ReconciliationReply(1, 1, 1, (GloballyOrderedUpdate(1, 1, BATCH_A),))
        self.disks[1].contents.apply(OrderedRecord(1, BATCH_A))
        self.assertIn("1 disks hold", self.violates(reply))
        self.disks[2].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.checks.sent(1, None, [reply])

    def test_answer_without_a_majority_on_disk_is_found(self) -> None:
        """An answer to a client whose command is not on the disks of a majority is found: an answered command survives
        every crash."""
        self.checks.execution.introduce(A)
        self.checks.settled(1, 1, 0, [A])
        self.disks[1].contents.apply(OrderedRecord(1, BATCH_A))
        self.assertRaises(Violation, self.checks.answered, ("a", 1), 1)
        self.disks[2].contents.apply(ProposalRecord(1, 1, BATCH_A))
        self.checks.answered(("a", 1), 1)
        self.assertRaises(Violation, self.checks.answered, ("a", 1), 2)

    def test_answer_from_a_slot_that_no_server_has_executed_is_found(self) -> None:
        """An answer from a slot that no server has executed is found, and reported in a sentence."""
        error = self.assertRaises(Violation, self.checks.answered, ("a", 1), 7)
        self.assertIn("slot 7, which no server has executed", str(error))

    def test_binding_and_relaying_are_checked_for_each_message(self) -> None:
        """`update_checker` is called for each message, and checks binding and relaying."""
        again = Proposal(0, 1, 2, Batch.of(7, [A]))
        self.assertIn("G15", str(self.assertRaises(Violation, self.checks.sent, 0, None, [again])))
        self.assertIn("relayed", self.violates(A))
