"""Departure 55: among five servers, votes go to the leader, which tells what is ordered."""

from __future__ import annotations

from pfsb.paxos.messages import Accept, ClientUpdate, Heard, Ordered, Proposal, ReconciliationRequest, State
from pfsb.paxos.plausibility import VIEW_STEP_MAX
from pfsb.paxos.records import Accepted
from pfsb.paxos.start_number import start_number
from pfsb.support.views import view_of
from tests.paxos.case import ReplicaTestCase, identity_of
from tests.paxos.messages import accept, alive, batch, client_update, ordered, proposal, reply, told, vc_proof

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


def own(client_id: str) -> ClientUpdate:
    return client_update(client_id, 1, server_id=2)


class FollowerTests(ReplicaTestCase):
    leader_tells = True

    def after_start(self) -> None:
        self.follow(view=1)

    def accepted(self, seq: int = 1) -> None:
        """Let a PROPOSAL of ALICE come to the follower, which votes for it."""
        self.receive(proposal(1, 1, seq, ALICE))
        self.assertSent(accept(2, 1, seq), to=1)

    def test_vote_goes_to_the_leader_alone(self) -> None:
        """Section 4.4: a follower's ACCEPT goes to the leader alone."""
        self.accepted()
        self.assertNothingSent()

    def test_slot_is_ordered_as_the_leader_tells(self) -> None:
        """A slot is ordered when the leader's ORDERED comes, if its PROPOSAL, of that view and with that batch, is
        here."""
        self.accepted()
        self.assertExecuted()
        self.receive(told(1, 1, 1))
        self.assertExecuted([ALICE])

    def test_ordered_waits_for_its_proposal(self) -> None:
        """An ORDERED that overtakes its PROPOSAL waits for it, as an ACCEPT may (G17)."""
        self.receive(told(1, 1, 1, of=[batch(ALICE)]))
        self.assertExecuted()
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertExecuted([ALICE])
        self.assertSent(accept(2, 1, 1), to=1)

    def test_proposal_that_does_not_come_is_asked_for(self) -> None:
        """If the PROPOSAL of a slot that is told as ordered does not come, the slot is asked for, since another server
        has it."""
        self.receive(alive(3, 1, local_aru=1))
        self.receive(told(1, 1, 1, of=[batch(ALICE)]))
        self.advance(0.1)
        self.assertIn(1, [request.first for request in self.take(ReconciliationRequest)])

    def test_proposal_that_does_not_come_is_asked_of_the_leader(self) -> None:
        """If no ALIVE tells that a server has executed the slot, the leader is asked for it."""
        self.receive(told(1, 1, 1, of=[batch(ALICE)]))
        self.advance(0.1)
        self.assertSent(ReconciliationRequest(2, 1, 1), to=1)
        self.take(ReconciliationRequest)

    def test_slots_above_a_gap_wait(self) -> None:
        """Slots that are told above a gap wait; an ORDERED that was lost is noticed by the next one."""
        self.receive(alive(3, 1, local_aru=1))
        self.accepted(1)
        self.accepted(2)
        self.receive(told(1, 1, 2))
        self.assertExecuted()
        self.advance(0.1)
        self.assertTrue(self.take(ReconciliationRequest))
        self.receive(reply(3, ordered(3, 1, ALICE), local_aru=1))
        self.assertEqual(self.data.ordering.local_aru, 2)

    def test_other_batch_is_not_ordered(self) -> None:
        """Departure 39: if the ORDERED names another batch than the one held here, the slot is not ordered, and the
        difference is counted: a memory or a disk has failed."""
        self.accepted()
        self.receive(told(1, 1, 1, of=[batch(BOB)]))
        self.assertExecuted()
        self.assertEqual(self.replica.ordering.contradictions, 1)
        self.receive(told(1, 1, 1))
        self.assertExecuted([ALICE])

    def test_other_batch_is_noticed_when_the_proposal_comes(self) -> None:
        """If a PROPOSAL comes with another batch than the ORDERED that has overtaken it, the difference is noticed."""
        self.receive(told(1, 1, 1, of=[batch(BOB)]))
        self.accepted()
        self.assertExecuted()
        self.assertEqual(self.replica.ordering.contradictions, 1)

    def test_proposal_of_another_view_is_not_ordered(self) -> None:
        """A proposal of another view is not ordered by an ORDERED, which waits for the PROPOSAL of its view: a later
        leader may have another batch ordered."""
        self.accepted()
        self.receive(vc_proof(3, 3))
        self.expire_progress_timer()
        self.follow(view=3)
        self.receive(told(3, 3, 1, of=[batch(BOB)]))
        self.assertExecuted()
        self.receive(proposal(3, 3, 1, BOB))
        self.assertExecuted([BOB])
        self.assertSent(accept(2, 3, 1), to=3)
        self.assertTrue(self.transport.sent)
        self.transport.sent.clear()

    def test_only_the_leader_of_the_view_is_believed(self) -> None:
        """Departure 15: an ORDERED is believed only from the leader of its view."""
        self.accepted()
        self.receive(told(3, 1, 1))
        self.assertDiscarded("leader")
        self.assertExecuted()

    def test_view_that_is_over_is_not_believed(self) -> None:
        """Figure 4, line F4: an ORDERED of a view that is over is discarded, as the ACCEPTs would be that it stands
        for."""
        self.expire_progress_timer()
        self.follow(view=3)
        self.receive(told(1, 1, 1, of=[batch(ALICE)]))
        self.assertDiscarded("4 F4")
        self.transport.sent.clear()

    def test_of_two_views_the_one_that_is_installed_is_kept(self) -> None:
        """Departure 37: of two ORDEREDs for a slot, that of the installed view is kept: a server in error may tell of a
        view that there never is."""
        self.receive(told(1, 1, 1, of=[batch(ALICE)]))
        self.receive(told(5, 1_005, 1, of=[batch(BOB)]))
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertExecuted([ALICE])
        self.assertSent(accept(2, 1, 1), to=1)

    def test_view_that_cannot_be_is_not_believed(self) -> None:
        """Departure 37: an ORDERED of a view that cannot be is not believed; no server leads a view of another
        epoch."""
        self.receive(told(1, 1 + 5 * (VIEW_STEP_MAX + 1), 1, of=[batch(ALICE)]))
        self.assertDiscarded("implausible")
        self.receive(told(1, view_of(256, 1), 1, of=[batch(ALICE)]))
        self.assertDiscarded("leader")

    def test_time_for_which_an_ordered_may_have_been_kept_does_not_count(self) -> None:
        """Departures 25 and 48: while this server's clients wait for nothing, the leader may delay an ORDERED, and that
        time is left out of the measured time of the slot."""
        self.accepted()
        self.advance(0.03)
        self.receive(told(1, 1, 1))
        self.assertAlmostEqual(self.replica.slot_time.mean, 0.03 - self.settings.lazy_seconds)

    def test_time_of_a_slot_counts_whole_while_clients_wait(self) -> None:
        """While clients of this server wait, the leader delays no ORDERED, and the whole time of a slot is measured."""
        self.introduce(own("carol"))
        self.assertEqual(len(self.take(ClientUpdate)), 1)
        self.accepted()
        self.advance(0.03)
        self.receive(told(1, 1, 1))
        self.assertAlmostEqual(self.replica.slot_time.mean, 0.03)

    def test_slot_beyond_the_window_is_left_out(self) -> None:
        """A slot beyond the window is left out of an ORDERED, since its PROPOSAL may not be accepted yet."""
        self.receive(told(1, 1, 9, of=[batch(ALICE)]))
        self.assertIsNone(self.data.ordering.global_history.get(9))
        self.assertNotDiscarded()


class RestartedFollowerTests(ReplicaTestCase):
    leader_tells = True
    starts = False

    def test_vote_for_what_was_on_disk_goes_to_the_leader(self) -> None:
        """After a restart, the vote for a proposal on disk goes to the leader, which that record does not name: the
        first vote may have been lost in the crash."""
        self.found.last_installed = self.found.last_attempted = 1
        self.found.accepted = [Accepted(1, 1, batch(ALICE))]
        self.start()
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1), to=1)


class LeaderTests(ReplicaTestCase):
    leader_tells = True

    def after_start(self) -> None:
        self.lead(view=2)

    def test_leader_sends_no_vote(self) -> None:
        """The leader sends no ACCEPT; its own vote counts when those of others have come."""
        self.introduce(own("carol"))
        self.assertEqual(len(self.take(Proposal)), 1)
        self.assertNothingSent()

    def test_leader_tells_what_a_majority_has_accepted(self) -> None:
        """The leader tells the slots that a majority has accepted: the leader and two others of five."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.receive(accept(1, 2, 1))
        self.assertNotSent(Ordered)
        self.receive(accept(3, 2, 1))
        self.assertSent(told(2, 2, 1))
        self.receive(accept(4, 2, 1))
        self.assertNothingSent()

    def test_nothing_is_told_before_the_own_vote_is_on_disk(self) -> None:
        """Nothing is told before the leader's own vote is on disk, if only two others have voted: a crash may undo that
        vote."""
        self.hold_syncs = True
        self.introduce(own("carol"))
        self.take(Proposal)
        self.receive(accept(1, 2, 1))
        self.receive(accept(3, 2, 1))
        self.assertExecuted([own("carol")])
        self.assertNotSent(Ordered)
        self.storage.finish_all()
        self.assertSent(told(2, 2, 1))

    def test_majority_without_the_leader_needs_not_the_leaders_disk(self) -> None:
        """If three others have voted, a majority without the leader, the ORDERED does not wait for the leader's disk,
        so that a slow one slows no client."""
        self.hold_syncs = True
        self.introduce(own("carol"))
        self.take(Proposal)
        for voter in (1, 3):
            self.receive(accept(voter, 2, 1))
        self.assertExecuted([own("carol")])
        self.assertNotSent(Ordered)
        self.receive(accept(4, 2, 1))
        self.assertSent(told(2, 2, 1))
        self.receive(accept(5, 2, 1))
        self.storage.finish_all()
        self.assertNothingSent()

    def test_late_votes_count_by_server_view_and_batch(self) -> None:
        """Late votes count once for each server, and only for the same view and batch: others make no majority without
        the leader."""
        self.hold_syncs = True
        self.introduce(own("carol"))
        self.take(Proposal)
        for voter in (1, 3):
            self.receive(accept(voter, 2, 1))
        self.receive(accept(3, 2, 1))
        self.receive(accept(4, 3, 1))
        self.receive(accept(5, 2, 1, of=[batch(BOB)]))
        self.assertNotSent(Ordered)
        self.storage.finish_all()
        self.assertSent(told(2, 2, 1))

    def test_write_of_the_own_vote_is_enough(self) -> None:
        """An ORDERED waits for the write of the leader's own vote, and not for later writes."""
        self.hold_syncs = True
        self.introduce(own("carol"))
        self.introduce(own("dave"))
        self.take(Proposal)
        for voter in (1, 3):
            self.receive(accept(voter, 2, 1))
        self.storage.finish_sync()
        self.assertSent(told(2, 2, 1))
        self.storage.finish_all()
        self.assertNotSent(Ordered)

    def test_what_rests_on_a_later_incarnation_waits_until_that_is_noted(self) -> None:
        """Departure 43: an ORDERED that rests on a vote of a server that was started again waits until that incarnation
        is on disk."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.receive(accept(1, 2, 1))
        self.hold_syncs = True
        vote = self.named(accept(3, 2, 1))
        self.replica.receive(3, identity_of(3), [vote], start_number(2, 7), 5)
        self.assertSent(Heard(2, identity_of(3)), to=3)
        self.replica.receive(3, identity_of(3), [vote], start_number(2, 7), 5)
        self.assertExecuted([own("carol")])
        self.assertNotSent(Ordered)
        self.storage.finish_all()
        self.assertSent(told(2, 2, 1))

    def test_what_is_on_disk_is_told_with_the_next_proposal(self) -> None:
        """An ORDERED of slots on disk leaves with the next PROPOSAL, without waiting for the disk write of that."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.hold_syncs = True
        self.introduce(own("dave"))
        self.take(Proposal)
        self.receive(accept(1, 2, 1))
        self.receive(accept(3, 2, 1))
        self.assertSent(told(2, 2, 1))

    def test_repeated_proposal_goes_without_a_vote(self) -> None:
        """Section 5.9: a repeated PROPOSAL goes to the servers whose votes are missing, without a vote of the
        leader."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.receive(accept(1, 2, 1))
        self.advance(0.15)
        self.assertEqual(
            {sent.to for sent in self.transport.sent if isinstance(sent.message, Proposal)}, {None, 3, 4, 5}
        )
        self.take(Proposal)
        self.assertNotSent(Accept)

    def test_deposed_leader_tells_nothing(self) -> None:
        """A leader that has left its view tells nothing more, though late votes may still make a majority there."""
        self.introduce(own("carol"))
        self.take(Proposal)
        self.receive(accept(1, 2, 1))
        self.expire_progress_timer()
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.receive(accept(3, 2, 1))
        self.assertExecuted([own("carol")])
        self.assertNotSent(Ordered)
        self.transport.sent.clear()


class SmallClusterTests(ReplicaTestCase):
    leader_tells = True
    servers = (1, 2, 3, 4)

    def test_leader_of_four_tells_nothing(self) -> None:
        """Among four servers the leader tells nothing: votes go to all, and an ORDERED is not believed."""
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.receive(told(1, 1, 1))
        self.assertDiscarded("leader")
        self.assertExecuted()
