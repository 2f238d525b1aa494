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
        """Figure 10, Block B: apply, sync, ACCEPT to all."""
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 1, batch(ALICE))])
        self.assertNotSent(Accept)
        self.storage.finish_all()
        self.assertSent(accept(2, 1, 1))

    def test_proposal_is_not_its_leaders_vote(self) -> None:
        """Departure 2: the leader votes by an explicit ACCEPT, after its own disk."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual(set(slot.voters[1]), {2})

    def test_repeated_proposal_is_answered_again_and_not_written_again(self) -> None:
        """Section 5.9 and G18: the first ACCEPT may be lost."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertEqual(self.take(Accept), [self.named(accept(2, 1, 1))] * 2)
        self.assertEqual(len(self.take_records(ProposalRecord)), 1)

    def test_repetition_is_not_answered_before_the_first_is_on_disk(self) -> None:
        """G18: an ACCEPT is repeated only if the first one is durable, which the gate ensures."""
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, ALICE))
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertNotSent(Accept)
        self.storage.finish_all()
        self.assertEqual(self.take(Accept), [self.named(accept(2, 1, 1))])

    def test_executed_slot_is_answered_without_a_write(self) -> None:
        """G18: the value is the same; answering helps a leader that has missed votes."""
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
        """G6, G17: readiness is tested when the proposal arrives, too."""
        self.receive(accept(1, 1, 1, of=[batch(ALICE)]))
        self.receive(accept(3, 1, 1, of=[batch(ALICE)]))
        self.assertExecuted()
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertExecuted([ALICE])
        self.assertSent(accept(2, 1, 1))

    def test_newer_view_takes_the_place_of_an_older_proposal(self) -> None:
        """Figure 5 D: on disk, too, since later promises report it."""
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
        """Figure 11, Block A: no fixed delay."""
        self.introduce(own("carol"))
        self.assertSent(proposal(2, 2, 1, own("carol")))
        self.assertSent(accept(2, 2, 1))

    def test_proposal_leaves_early_and_the_leaders_vote_does_not(self) -> None:
        """Departure 2: the leader's disk works in parallel with the others'."""
        self.hold_syncs = True
        self.introduce(own("carol"))
        self.assertSent(proposal(2, 2, 1, own("carol")))
        self.assertNotSent(Accept)
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 2, batch(own("carol")))])
        self.storage.finish_all()
        self.assertSent(accept(2, 2, 1))

    def test_what_waits_in_one_turn_is_one_batch(self) -> None:
        """Departure 4, section 7.3: several updates share a number."""
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
        """Figure 10 D: what has waited is proposed, and in one batch."""
        for n in range(6):
            self.introduce(own(f"c{n}"))
        self.take(Proposal)
        self.take(Accept)
        self.votes(1)
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 5, own("c4"), own("c5"))])
        self.take(Accept)

    def test_batch_carries_the_leaders_clock(self) -> None:
        """Departure 4: state machines have no clock of their own."""
        self.clock.advance(0.05)
        self.introduce(own("carol"))
        self.assertSent(proposal(2, 2, 1, own("carol"), time_ms=50))
        self.assertSent(accept(2, 2, 1))

    def test_large_queue_is_cut_into_batches(self) -> None:
        """A proposal fits a frame."""
        self.introduce(*(own(f"c{n}", payload=bytes(90)) for n in range(3)))
        self.assertEqual([len(p.batch.open()[1]) for p in self.take(Proposal)], [1, 1, 1])
        self.take(Accept)

    def test_slot_that_was_learned_is_passed_over(self) -> None:
        """G1: a loop, not a recursion that falls through; nothing is proposed for an ordered number."""
        self.receive(reply(3, ordered(3, 2, BOB)))
        self.introduce(own("carol"))
        self.introduce(own("dave"))
        proposals = [(p.seq, p.batch) for p in self.take(Proposal)]
        self.assertEqual(proposals, [(1, batch()), (3, batch(own("carol"))), (4, batch(own("dave")))])
        self.take(Accept)

    def test_leader_that_steps_down_proposes_no_more(self) -> None:
        """G23: re-sending ends with the State that called for it."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.take(Accept)
        self.expire_progress_timer()
        self.introduce(own("dave"))
        self.advance(0.5)
        self.assertNotSent(Proposal)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 3)})

    def test_time_is_ordered_when_asked_for(self) -> None:
        """Departure 4: a no-op that carries the clock, when nothing else is under way."""
        self.clock.advance(0.05)
        self.replica.perform(self.replica.proposals.propose_time)
        self._after_event()
        self.assertSent(proposal(2, 2, 1, time_ms=50))
        self.assertSent(accept(2, 2, 1))

    def test_time_travels_with_updates_that_are_under_way(self) -> None:
        """One no-op at a time is enough."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.take(Accept)
        told: list[bool] = []
        self.replica.perform(lambda: told.append(self.replica.proposals.propose_time()))
        self.assertEqual(told, [False])


class HoleTests(ReplicaTestCase):
    def test_hole_below_a_known_proposal_is_filled_with_a_no_op(self) -> None:
        """Scenario 4, G11: slot 2 is known, slot 1 is empty, and no update waits."""
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1), proposal(2, 2, 2, ALICE)])
        self.assertEqual(self.take(Accept), [self.named(accept(2, 2, 1, 2))])

    def test_update_that_waits_comes_above_the_known_slots(self) -> None:
        """G11: a re-forwarded update must not be put below the slot where it is bound already."""
        self.introduce(own("carol"))
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.assertEqual([(p.seq, p.batch) for p in self.take(Proposal)][2], (3, batch(own("carol"))))
        self.take(Accept)

    def test_re_forwarded_update_is_not_bound_again(self) -> None:
        """Scenario 8, G15: bound at 2, sent again by its origin: still one slot."""
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.take(Proposal)
        self.take(Accept)
        self.receive(ALICE)
        self.assertNotSent(Proposal)

    def test_slots_beyond_the_window_wait_for_execution(self) -> None:
        """Section 5.10: constrained slots keep to the window like all others."""
        self.lead(2, *(proposal(1, 1, seq, client_update(f"c{seq}")) for seq in range(1, 7)))
        self.assertEqual([p.seq for p in self.take(Proposal)], [1, 2, 3, 4])
        self.take(Accept)
        for other in (1, 3):
            self.receive(accept(other, 2, 1, 2))
        self.assertEqual([p.seq for p in self.take(Proposal)], [5, 6])
        self.take(Accept)

    def test_vote_of_the_new_leader_goes_to_disk_under_the_new_view(self) -> None:
        """Figure 11 A: what was reported becomes a proposal of this view, and is accepted here as such."""
        self.lead(7, proposal(1, 1, 1, ALICE))
        self.assertSent(proposal(2, 7, 1, ALICE))
        self.assertSent(accept(2, 7, 1))
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 7, batch(ALICE))])


class SkippedTests(ReplicaTestCase):
    """FAULT SKIP: a leader leaves a number out, for the next leader to find."""

    def test_skipped_number_stays_empty(self) -> None:
        """FAULT SKIP: the leader leaves out a sequence number (docs/operating.rst)."""
        self.replica.proposals.skipped.add(1)
        self.lead(view=2)
        self.introduce(own("carol"))
        self.assertEqual([p.seq for p in self.take(Proposal)], [2])
        self.take(Accept)

    def test_number_that_an_older_view_has_used_is_not_skipped(self) -> None:
        """A batch that may have been chosen is proposed again, even in a slot that is to be left out."""
        self.replica.proposals.skipped.add(1)
        self.lead(2, proposal(1, 1, 1, ALICE))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1, ALICE)])
        self.take(Accept)

    def test_hole_below_what_is_known_is_not_skipped(self) -> None:
        """G11: only a fresh number is left out, or a cluster that is told to skip it everywhere would stop for ever."""
        self.replica.proposals.skipped.add(1)
        self.lead(2, proposal(1, 1, 2, ALICE))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1), proposal(2, 2, 2, ALICE)])
        self.take(Accept)

    def test_nobody_votes_in_an_older_view_for_what_it_only_heard_of(self) -> None:
        """S1: an ACCEPT says that the proposal is on this disk."""
        self.replica.proposals.skipped.add(1)
        self.lead(2, proposal(1, 1, 1, ALICE))
        self.advance(0.3)
        self.assertEqual({vote.view for vote in self.take(Accept)}, {2})
        self.take(Proposal)


class RecoveredProposalTests(ReplicaTestCase):
    starts = False

    def test_proposal_on_disk_is_voted_for_again(self) -> None:
        """Scenario 9, G9: the same proposal, repeated to a server that has crashed since it accepted it."""
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
        """Figure 4 D2: a leader proposes once for each number of its view."""
        self.start()
        self.lead(view=2)
        self.introduce(own("carol"))
        self.receive(prepare_ok(5, 2, proposal(1, 1, 1, ALICE)))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1, own("carol"))])
        self.take(Accept)


class TimeTests(ReplicaTestCase):
    def test_time_goes_on_from_the_last_executed_slot(self) -> None:
        """Departure 35: after the first slot the wall clock of a leader has no influence."""
        self.start()
        day_ms = 86_400_000
        self.receive(reply(3, ordered(3, 1, ALICE, time_ms=day_ms)))
        self.lead(view=2)
        self.assertEqual(self.replica.proposals.now_ms(), day_ms)
        self.advance(0.05)
        self.assertEqual(self.replica.proposals.now_ms(), day_ms + 50)
        self.transport.sent.clear()

    def test_only_the_first_slot_begins_with_the_wall_clock(self) -> None:
        """Departure 35: a leader that has executed nothing does not know the time of the first slot."""
        self.start()
        self.lead(view=2)
        self.advance(0.05)
        self.introduce(own("carol"))
        self.introduce(own("dave"))
        first, second = self.take(Proposal)
        self.assertEqual((first.batch.open()[0] > 0, second.batch.open()[0]), (True, 0))
        self.transport.sent.clear()
