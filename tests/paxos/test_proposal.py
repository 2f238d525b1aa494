"""Figure 10 B and Figure 11 A: the leader binds batches to numbers, the others accept them."""

from __future__ import annotations

from pfsb.paxos.messages import Accept, Proposal, ViewChange
from pfsb.paxos.records import Accepted, ProposalRecord
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import (
    accept,
    batch,
    client_update,
    ordered,
    prepare_ok,
    proposal,
    reply,
    view_change,
)

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


def own(client_id: str, timestamp: int = 1, **more: bytes) -> object:
    return client_update(client_id, timestamp, server_id=2, **more)  # type: ignore[arg-type]


class ProposalTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def test_proposal_is_accepted_when_it_is_on_disk(self) -> None:
        """Figure 10, Block B: a follower stores a proposal, forces it to disk, and sends its ACCEPT to all."""
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 1, batch(ALICE))])
        self.assertNotSent(Accept)
        self.storage.finish_all()
        self.assertSent(accept(2, 1, 1))

    def test_proposal_is_not_its_leaders_vote(self) -> None:
        """Departure 2: a PROPOSAL does not count as its leader's vote, which is an explicit ACCEPT after the leader's
        own disk write."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual(set(slot.voters[1]), {2})

    def test_repeated_proposal_is_answered_again_and_not_written_again(self) -> None:
        """Section 5.9 and G18: a repeated proposal is answered by another ACCEPT, since the first one may be lost, and
        is not written again."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertEqual(self.take(Accept), [self.named(accept(2, 1, 1))] * 2)
        self.assertEqual(len(self.take_records(ProposalRecord)), 1)

    def test_repetition_is_not_answered_before_the_first_is_on_disk(self) -> None:
        """G18: a repeated proposal is not answered before the record of the first is on disk, which the gate
        ensures."""
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, ALICE))
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertNotSent(Accept)
        self.storage.finish_all()
        self.assertEqual(self.take(Accept), [self.named(accept(2, 1, 1))])

    def test_executed_slot_is_answered_without_a_write(self) -> None:
        """G18: a proposal for an executed slot with the same batch is answered without a write, which helps a leader
        that has missed votes."""
        self.receive(reply(3, ordered(3, 1, ALICE)))
        self.storage.records.clear()
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.assertEqual(self.storage.records, [])

    def test_proposal_beyond_the_window_is_not_accepted(self) -> None:
        """Section 5.10: a follower answers within two windows of its Local_Aru only."""
        self.receive(proposal(1, 1, 9, ALICE))
        self.assertNotSent(Accept)
        self.assertIsNone(self.data.ordering.global_history.get(9))
        self.receive(proposal(1, 1, 8, ALICE))
        self.assertSent(accept(2, 1, 8))

    def test_vote_makes_the_majority_when_the_others_came_first(self) -> None:
        """G6, G17: a follower's own vote may make the majority when the votes of others came before the proposal."""
        self.receive(accept(1, 1, 1, of=[batch(ALICE)]))
        self.receive(accept(3, 1, 1, of=[batch(ALICE)]))
        self.assertExecuted()
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertExecuted([ALICE])
        self.assertSent(accept(2, 1, 1))

    def test_newer_view_takes_the_place_of_an_older_proposal(self) -> None:
        """Figure 5 D: a proposal of a newer view replaces that of an older one, on disk, too, since later promises
        report it."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.follow(view=3)
        self.receive(proposal(3, 3, 1, BOB))
        self.assertSent(accept(2, 3, 1))
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 3, batch(BOB))])


class SendProposalTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.lead(view=2)

    def votes(self, *seqs: int) -> None:
        for other in (1, 3):
            self.receive(accept(other, 2, *seqs))

    def test_client_update_is_proposed_at_once(self) -> None:
        """Figure 11, Block A: a client's update is proposed at once, without a fixed delay."""
        self.introduce(own("carol"))
        self.assertSent(proposal(2, 2, 1, own("carol")))
        self.assertSent(accept(2, 2, 1))

    def test_proposal_leaves_early_and_the_leaders_vote_does_not(self) -> None:
        """Departure 2: a PROPOSAL leaves before it is on the leader's disk, and the leader's vote does not, so that the
        disks of all servers work at the same time."""
        self.hold_syncs = True
        self.introduce(own("carol"))
        self.assertSent(proposal(2, 2, 1, own("carol")))
        self.assertNotSent(Accept)
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 2, batch(own("carol")))])
        self.storage.finish_all()
        self.assertSent(accept(2, 2, 1))

    def test_what_waits_in_one_turn_is_one_batch(self) -> None:
        """Departure 4, section 7.3: updates that come in one turn share one batch and one sequence number."""
        self.introduce(own("carol"), own("dave"))
        self.assertSent(proposal(2, 2, 1, own("carol"), own("dave")))
        self.assertSent(accept(2, 2, 1))

    def test_window_bounds_what_is_under_way(self) -> None:
        """Section 5.10: a leader proposes `seq` only after executing `seq - window`."""
        for n in range(6):
            self.introduce(own(f"c{n}"))
        self.assertEqual([p.seq for p in self.take(Proposal)], [1, 2, 3, 4])
        self.assertEqual(len(self.replica.update_queue), 2)
        self.take(Accept)

    def test_execution_opens_the_window(self) -> None:
        """Figure 10 D: executing a slot opens the window, and all updates that have waited are proposed in one
        batch."""
        for n in range(6):
            self.introduce(own(f"c{n}"))
        self.take(Proposal)
        self.take(Accept)
        self.votes(1)
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 5, own("c4"), own("c5"))])
        self.take(Accept)

    def test_batch_carries_the_leaders_clock(self) -> None:
        """Departure 4: a batch carries the time of the leader's clock, since state machines have no clock of their
        own."""
        self.clock.advance(0.05)
        self.introduce(own("carol"))
        self.assertSent(proposal(2, 2, 1, own("carol"), time_ms=50))
        self.assertSent(accept(2, 2, 1))

    def test_large_queue_is_cut_into_batches(self) -> None:
        """A large queue is cut into batches that fit a proposal."""
        self.introduce(*(own(f"c{n}", payload=bytes(90)) for n in range(3)))
        self.assertEqual([len(p.batch.open()[1]) for p in self.take(Proposal)], [1, 1, 1])
        self.take(Accept)

    def test_slot_that_was_learned_is_passed_over(self) -> None:
        """G1: a slot that the leader has learned as ordered is passed over, and nothing is proposed for it."""
        self.receive(reply(3, ordered(3, 2, BOB)))
        self.introduce(own("carol"))
        self.introduce(own("dave"))
        proposals = [(p.seq, p.batch) for p in self.take(Proposal)]
        self.assertEqual(proposals, [(1, batch()), (3, batch(own("carol"))), (4, batch(own("dave")))])
        self.take(Accept)

    def test_leader_that_steps_down_proposes_no_more(self) -> None:
        """G23: a leader that steps down repeats no proposals."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.take(Accept)
        self.expire_progress_timer()
        self.introduce(own("dave"))
        self.advance(0.5)
        self.assertNotSent(Proposal)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 3)})

    def test_time_is_ordered_when_asked_for(self) -> None:
        """Departure 4: when nothing is under way, `propose_time` proposes a no-op that carries the time."""
        self.clock.advance(0.05)
        self.replica.perform(self.replica.proposals.propose_time)
        self._after_event()
        self.assertSent(proposal(2, 2, 1, time_ms=50))
        self.assertSent(accept(2, 2, 1))

    def test_time_travels_with_updates_that_are_under_way(self) -> None:
        """When updates or a no-op are under way, `propose_time` proposes nothing more."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.take(Accept)
        told: list[bool] = []
        self.replica.perform(lambda: told.append(self.replica.proposals.propose_time()))
        self.assertEqual(told, [False])


class HoleTests(ReplicaTestCase):
    def test_hole_below_a_known_proposal_is_filled_with_a_no_op(self) -> None:
        """Scenario 4, G11: an empty slot 1 below a known slot 2 is filled with a no-op, though no update waits."""
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1), proposal(2, 2, 2, ALICE)])
        self.assertEqual(self.take(Accept), [self.named(accept(2, 2, 1, 2))])

    def test_update_that_waits_comes_above_the_known_slots(self) -> None:
        """G11: an update that waits is put above the known slots, in one of which it may be bound already."""
        self.introduce(own("carol"))
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.assertEqual([(p.seq, p.batch) for p in self.take(Proposal)][2], (3, batch(own("carol"))))
        self.take(Accept)

    def test_re_forwarded_update_is_not_bound_again(self) -> None:
        """Scenario 8, G15: an update that is bound in slot 2 and sent again by its server keeps that one slot."""
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.take(Proposal)
        self.take(Accept)
        self.receive(ALICE)
        self.assertNotSent(Proposal)

    def test_slots_beyond_the_window_wait_for_execution(self) -> None:
        """Section 5.10: known slots beyond the window wait for execution, as all others do."""
        self.lead(2, *(proposal(1, 1, seq, client_update(f"c{seq}")) for seq in range(1, 7)))
        self.assertEqual([p.seq for p in self.take(Proposal)], [1, 2, 3, 4])
        self.take(Accept)
        for other in (1, 3):
            self.receive(accept(other, 2, 1, 2))
        self.assertEqual([p.seq for p in self.take(Proposal)], [5, 6])
        self.take(Accept)

    def test_vote_of_the_new_leader_goes_to_disk_under_the_new_view(self) -> None:
        """Figure 11 A: a new leader writes a reported batch to disk as a proposal of its own view, before its vote for
        it leaves."""
        self.lead(7, proposal(1, 1, 1, ALICE))
        self.assertSent(proposal(2, 7, 1, ALICE))
        self.assertSent(accept(2, 7, 1))
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 7, batch(ALICE))])


class SkippedTests(ReplicaTestCase):
    """FAULT SKIP: a leader leaves a slot out, for the next leader to find."""

    def test_skipped_number_stays_empty(self) -> None:
        """FAULT SKIP: the leader leaves out one sequence number, whose slot stays empty (docs/operating.rst)."""
        self.replica.proposals.skipped.add(1)
        self.lead(view=2)
        self.introduce(own("carol"))
        self.assertEqual([p.seq for p in self.take(Proposal)], [2])
        self.take(Accept)

    def test_number_that_an_older_view_has_used_is_not_skipped(self) -> None:
        """A slot that holds a batch of an older view, which may have been chosen, is not left out: the batch is
        proposed again."""
        self.replica.proposals.skipped.add(1)
        self.lead(2, proposal(1, 1, 1, ALICE))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1, ALICE)])
        self.take(Accept)

    def test_hole_below_what_is_known_is_not_skipped(self) -> None:
        """G11: an empty slot below a known one is filled, and not left out: otherwise a cluster whose servers all leave
        out that slot would stand still for ever."""
        self.replica.proposals.skipped.add(1)
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1), proposal(2, 2, 2, ALICE)])
        self.take(Accept)

    def test_nobody_votes_in_an_older_view_for_what_it_only_heard_of(self) -> None:
        """S1: no server votes in an older view for a proposal that it has only learned from a report: an ACCEPT says
        that the proposal is on this disk."""
        self.replica.proposals.skipped.add(1)
        self.lead(2, proposal(1, 1, 1, ALICE))
        self.advance(0.3)
        self.assertEqual({vote.view for vote in self.take(Accept)}, {2})
        self.take(Proposal)


class RecoveredProposalTests(ReplicaTestCase):
    starts = False

    def test_proposal_on_disk_is_voted_for_again(self) -> None:
        """Scenario 9, G9: a server that has crashed after accepting a proposal votes again when the proposal is
        repeated."""
        self.found.last_attempted = self.found.last_installed = 1
        self.found.accepted = [Accepted(1, 1, batch(ALICE))]
        self.start()
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.assertEqual(self.take_records(ProposalRecord), [])
        for other in (1, 3):
            self.receive(accept(other, 1, 1))
        self.assertExecuted([ALICE])

    def test_promise_that_comes_too_late_changes_no_proposal(self) -> None:
        """Figure 4 D2: a promise that comes after the view was prepared changes no proposal of the leader."""
        self.start()
        self.lead(view=2)
        self.introduce(own("carol"))
        self.receive(prepare_ok(5, 2, proposal(1, 1, 1, ALICE)))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1, own("carol"))])
        self.take(Accept)


class TimeTests(ReplicaTestCase):
    def test_time_goes_on_from_the_last_executed_slot(self) -> None:
        """Departure 35: after the first slot the time of proposals goes on from that of the last executed slot, and the
        leader's wall clock has no influence."""
        self.start()
        day_ms = 86_400_000
        self.receive(reply(3, ordered(3, 1, ALICE, time_ms=day_ms)))
        self.lead(view=2)
        self.assertEqual(self.replica.proposals.now_ms(), day_ms)
        self.advance(0.05)
        self.assertEqual(self.replica.proposals.now_ms(), day_ms + 50)
        self.transport.sent.clear()

    def test_only_the_first_slot_begins_with_the_wall_clock(self) -> None:
        """Departure 35: only the proposal of slot 1 carries the wall clock: before it is executed the leader does not
        know where the time begins."""
        self.start()
        self.lead(view=2)
        self.advance(0.05)
        self.introduce(own("carol"))
        self.introduce(own("dave"))
        first, second = self.take(Proposal)
        self.assertEqual((first.batch.open()[0] > 0, second.batch.open()[0]), (True, 0))
        self.transport.sent.clear()
