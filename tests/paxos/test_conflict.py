"""Figure 4: each line that discards a message, by its number, and messages that no line discards."""

from __future__ import annotations

from pfsb.paxos.messages import Accept, Prepare, PrepareOK, Proposal, State, ViewChange
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import (
    accept,
    client_update,
    prepare,
    prepare_ok,
    proposal,
    vc_proof,
    view_change,
)


class ViewChangeTests(ReplicaTestCase):
    def test_own_vote_that_comes_back_is_discarded(self) -> None:
        """Figure 4 A2: a server's own vote that comes back is discarded, since it was counted when it was made."""
        self.receive(view_change(2, 9), sender=3)
        self.assertDiscarded("4 A2")

    def test_vote_is_ignored_by_a_follower(self) -> None:
        """Figure 4 A4: a follower that does not suspect its leader ignores votes, and is not drawn into an election."""
        self.follow(view=1)
        self.receive(view_change(3, 9))
        self.assertDiscarded("4 A4")
        self.assertEqual(self.data.views.last_attempted, 1)

    def test_vote_is_ignored_by_a_leader(self) -> None:
        """Figure 4 A4: a leader that makes progress ignores votes."""
        self.lead(view=2)
        self.receive(view_change(3, 9))
        self.assertDiscarded("4 A4")
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_higher_attempt_is_ignored_while_progress_timer_is_set(self) -> None:
        """Figure 4 A6: an unstable server cannot interrupt an election."""
        self.preinstall(view=1)
        self.receive(view_change(5, 9))
        self.assertDiscarded("4 A6")
        self.assertEqual(self.data.views.last_attempted, 1)

    def test_vote_for_a_view_that_is_installed_is_discarded(self) -> None:
        """Figure 4 A8: a vote for a view that is installed or over is discarded."""
        self.follow(view=3)
        self.expire_progress_timer()
        self.assertSent(ViewChange(2, 4))
        self.receive(view_change(4, 3))
        self.assertDiscarded("4 A8")
        self.assertNotIn(4, self.data.views.vc)

    def test_vote_is_taken_in_an_election_without_timer(self) -> None:
        """Figure 4 A: in an election without a timer a vote is counted, since no line discards it."""
        self.receive(view_change(3, 1))
        self.assertNotDiscarded()
        self.assertEqual(set(self.data.views.vc), {2, 3})


class VCProofTests(ReplicaTestCase):
    def test_own_proof_is_discarded(self) -> None:
        """Figure 4 B2: a server's own VC_PROOF that comes back is discarded."""
        self.receive(vc_proof(2, 9), sender=3)
        self.assertDiscarded("4 B2")

    def test_proof_is_ignored_outside_an_election(self) -> None:
        """Figure 4 B4: outside an election a VC_PROOF is ignored: a follower leaves its view by its own timer only
        (G26)."""
        self.follow(view=1)
        self.receive(vc_proof(3, 9))
        self.assertDiscarded("4 B4")
        self.assertEqual(self.data.views.last_installed, 1)

    def test_proof_is_ignored_by_a_stale_leader(self) -> None:
        """Figure 4 B4 and G26: a VC_PROOF is ignored by a leader of an older view, which finds out by its own timer."""
        self.lead(view=2)
        self.receive(vc_proof(3, 9))
        self.assertDiscarded("4 B4")
        self.assertIs(self.data.server.state, State.REG_LEADER)


class PrepareTests(ReplicaTestCase):
    def test_own_prepare_is_discarded(self) -> None:
        """Figure 4 C2: a server's own PREPARE that comes back is discarded."""
        self.receive(prepare(2, 1), sender=3)
        self.assertDiscarded("4 C2")

    def test_prepare_of_another_view_is_discarded(self) -> None:
        """Figure 4 C4: a PREPARE counts for the attempted view only, be it newer or older."""
        self.receive(prepare(3, 3))
        self.assertDiscarded("4 C4")
        self.follow(view=3)
        self.receive(prepare(1, 1))
        self.assertDiscarded("4 C4")
        self.assertNotSent(PrepareOK)

    def test_prepare_that_is_not_from_the_leader_is_discarded(self) -> None:
        """Departure 15: a PREPARE that does not come from the leader of its view is discarded: only that leader may ask
        for promises."""
        self.receive(prepare(3, 1))
        self.assertDiscarded("leader")
        self.assertNotSent(PrepareOK)


class PrepareOKTests(ReplicaTestCase):
    def test_late_promise_is_discarded(self) -> None:
        """Figure 4 D2: a promise that comes when the view is prepared is discarded: nothing may be learned from it."""
        self.lead(view=2)
        self.receive(prepare_ok(5, 2, proposal(1, 1, 1, client_update())))
        self.assertDiscarded("4 D2")
        self.assertIsNone(self.data.ordering.global_history.get(1))

    def test_promise_for_another_view_is_discarded(self) -> None:
        """Figure 4 D4: a PREPARE_OK for another view is discarded."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 7))
        self.assertDiscarded("4 D4")
        self.assertNotIn(3, self.data.preparing.prepare_oks)

    def test_promise_to_another_leader_is_discarded(self) -> None:
        """A PREPARE_OK counts at the leader of its view alone; other servers discard it."""
        self.receive(prepare_ok(3, 1))
        self.assertDiscarded("leader")

    def test_promise_for_an_own_view_that_is_not_installed_is_discarded(self) -> None:
        """A promise for the receiver's own view is discarded while that view is not installed."""
        self.receive(view_change(3, 2))
        self.assertSent(ViewChange(2, 2))
        self.receive(prepare_ok(3, 2))
        self.assertDiscarded("leader")


class ProposalTests(ReplicaTestCase):
    def test_own_proposal_is_discarded(self) -> None:
        """Figure 4 E2: a leader's own PROPOSAL that comes back is discarded."""
        self.receive(proposal(2, 1, 1), sender=3)
        self.assertDiscarded("4 E2")

    def test_proposal_is_discarded_in_an_election(self) -> None:
        """Figure 4 E4: a server in an election, which suspects its leader, discards PROPOSALs."""
        self.receive(proposal(1, 1, 1, client_update()))
        self.assertDiscarded("4 E4")
        self.assertNotSent(Accept)

    def test_proposal_is_discarded_by_a_leader(self) -> None:
        """Figure 4 E4: a leader discards PROPOSALs of others."""
        self.lead(view=2)
        self.receive(proposal(1, 1, 1, client_update()))
        self.assertDiscarded("4 E4")
        self.assertNotSent(Accept)

    def test_proposal_of_an_older_view_is_discarded(self) -> None:
        """Figure 4 E6: a PROPOSAL of an older view is discarded, as was promised when the newer view was installed."""
        self.follow(view=3)
        self.receive(proposal(1, 1, 1, client_update()))
        self.assertDiscarded("4 E6")
        self.assertIsNone(self.data.ordering.global_history.get(1))

    def test_proposal_of_a_newer_view_is_discarded(self) -> None:
        """Figure 4 E6: a view must be installed, durably, before its proposals are accepted."""
        self.follow(view=1)
        self.receive(proposal(3, 3, 1, client_update()))
        self.assertDiscarded("4 E6")

    def test_proposal_that_is_not_from_the_leader_is_discarded(self) -> None:
        """A PROPOSAL that is not from the leader of its view is discarded: (view, seq) names one proposal only because
        one server makes it."""
        self.follow(view=1)
        self.receive(proposal(3, 1, 1, client_update()))
        self.assertDiscarded("leader")


class AcceptTests(ReplicaTestCase):
    def test_own_accept_that_comes_back_is_discarded(self) -> None:
        """Figure 4 F2: a server's own ACCEPT that comes back is discarded, since the vote was counted when it was made
        (G14)."""
        self.follow(view=1)
        self.receive(accept(2, 1, 1), sender=3)
        self.assertDiscarded("4 F2")
        self.assertIsNone(self.data.ordering.global_history.get(1))

    def test_vote_of_an_older_view_is_discarded(self) -> None:
        """Figure 4 F4: an ACCEPT of an older view is discarded."""
        self.follow(view=3)
        self.receive(accept(4, 1, 1))
        self.assertDiscarded("4 F4")

    def test_vote_that_overtakes_its_proposal_is_kept(self) -> None:
        """Figure 4 F6, repaired (G17, Departure 5): an ACCEPT that overtakes its PROPOSAL is kept, by view, until the
        PROPOSAL comes."""
        self.follow(view=1)
        self.receive(accept(3, 1, 1))
        self.assertNotDiscarded()
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual(set(slot.voters[1]), {3})


class TraceTests(ReplicaTestCase):
    def test_what_is_discarded_is_counted_and_traced(self) -> None:
        """A message that is discarded is counted by the line of Figure 4, and is in the trace."""
        self.receive(proposal(1, 1, 1))
        self.receive(proposal(1, 1, 2))
        self.assertEqual(self.replica.discarded, {"4 E4": 2})
        lines = [(fields["line"], type(fields["message"])) for fields in self.notes.of("discard")]
        self.assertEqual(lines, [("4 E4", Proposal), ("4 E4", Proposal)])

    def test_several_messages_of_one_frame_are_judged_each(self) -> None:
        """Each message of a frame meets its own conflict check, although the frame is one event."""
        self.receive(vc_proof(1, 1), prepare(1, 1), proposal(1, 3, 1))
        self.assertDiscarded("4 E6")
        self.assertEqual(len(self.take(PrepareOK)), 1)
        self.assertNotSent(Prepare)
