"""Figure 6: servers vote for the next view, and install it together."""

from __future__ import annotations

from typing import Any

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import Accept, Heard, Prepare, PrepareOK, State, ViewChange
from pfsb.paxos.records import PeerRecord, Recovered, ViewRecord
from tests.paxos.case import ReplicaTestCase, identity_of
from tests.paxos.messages import (
    accept,
    alive,
    client_update,
    ordered,
    prepare,
    proposal,
    reply,
    vc_proof,
    view_change,
)

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


class StartTests(ReplicaTestCase):
    def test_new_server_votes_for_view_1(self) -> None:
        """Figure 14 and Figure 6 E: a new server starts in an election, votes for view 1, and sets no timer."""
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual(self.data.views.last_attempted, 1)
        self.assertFalse(self.replica.progress_timer.running)
        self.assertEqual(self.data.views.vc, {2: view_change(2, 1)})

    def test_vote_forces_nothing_to_disk(self) -> None:
        """A VIEW_CHANGE is no promise, so it forces nothing to disk."""
        self.assertEqual(self.storage.records, [])


class ShiftToLeaderElectionTests(ReplicaTestCase):
    def test_expiry_tries_the_next_view(self) -> None:
        """Figure 6, Blocks A and E: when the timer expires, the server votes for Last_Attempted + 1, and sets State and
        timer (G3)."""
        self.follow(view=1)
        self.advance(1.0)
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertFalse(self.replica.progress_timer.running)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 2)})

    def test_votes_and_promises_of_the_old_view_are_forgotten(self) -> None:
        """Figure 6, Block E: VC, Prepare and Prepare_OK are cleared."""
        self.begin_prepare_phase(view=2)
        self.expire_progress_timer()
        self.assertEqual(self.data.views.vc, {2: view_change(2, 3)})
        self.assertIsNone(self.data.preparing.prepare)
        self.assertEqual(self.data.preparing.prepare_oks, {})
        self.assertSent(view_change(2, 3))

    def test_own_queue_survives_the_election(self) -> None:
        """Section 5.5, case 4: the leader's own queue survives the election, so that it is there if this server leads
        again, and nothing is queued twice (G15)."""
        self.lead(view=2)
        self.data.clients.update_queue.append(ALICE)
        self.expire_progress_timer()
        self.assertSent(view_change(2, 3))
        self.assertEqual(list(self.data.clients.update_queue), [ALICE])
        self.assertEqual(self.data.clients.last_enqueued, {"alice": 1})


class ViewChangeTests(ReplicaTestCase):
    def test_first_vote_of_a_server_is_answered(self) -> None:
        """Section 5.9: the first vote of a server is answered with this server's vote, which may have been discarded
        there while it still followed its leader (4 A4)."""
        self.ignore_answered_votes = False
        self.receive(view_change(3, 1))
        self.assertSent(view_change(2, 1), to=3)
        self.receive(view_change(3, 1))
        self.assertNothingSent()

    def test_leader_that_votes_for_another_view_is_gone(self) -> None:
        """G10, Departure 11: a leader that votes for another view never leads this one again, so its vote hurries its
        followers; it does not count as a vote here."""
        self.follow(view=1)
        self.receive(view_change(1, 2))
        self.assertDiscarded("4 A4")
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.advance(0.03)
        self.assertEqual(self.take(ViewChange), [view_change(2, 2)])

    def test_vote_of_another_server_than_the_leader_hurries_nobody(self) -> None:
        """Figure 4 A4: the vote of a server other than the leader hurries no follower, so that an unstable server
        cannot disturb a working view."""
        self.follow(view=1)
        self.receive(view_change(3, 2))
        self.receive(view_change(1, 1))
        self.advance(0.9)
        self.assertNothingSent()

    def test_higher_attempt_is_joined(self) -> None:
        """Figure 6, Block B: a server that suspects its leader jumps to the higher view, and counts that vote."""
        self.receive(view_change(3, 6))
        self.assertSent(view_change(2, 6))
        self.assertEqual(self.data.views.vc, {2: view_change(2, 6), 3: view_change(3, 6)})

    def test_lower_attempt_is_not_counted(self) -> None:
        """Figure 6, Block B: a vote for a lower view than the attempted one is not counted."""
        self.receive(view_change(3, 6))
        self.assertSent(view_change(2, 6))
        self.receive(view_change(4, 5))
        self.assertNotIn(4, self.data.views.vc)

    def test_majority_of_votes_preinstalls_the_view(self) -> None:
        """Figure 6, Blocks B and D: a majority of votes preinstalls the view: the timer's length doubles, and it runs;
        nothing is installed yet."""
        self.receive(view_change(3, 1))
        self.assertFalse(self.replica.progress_timer.running)
        self.receive(view_change(4, 1))
        self.assertTrue(self.replica.progress_timer.running)
        self.assertEqual(self.data.timers.progress_seconds, 2.0)
        self.assertEqual(self.data.views.last_installed, 0)

    def test_repeated_votes_of_one_server_are_one_vote(self) -> None:
        """Figure 6, Block D: a majority is of servers, not of messages."""
        self.receive(view_change(3, 1))
        self.receive(view_change(3, 1))
        self.assertFalse(self.replica.progress_timer.running)

    def test_later_votes_do_not_preinstall_again(self) -> None:
        """Figure 6, Block B and 4 A6: votes after the majority do not preinstall the view again, so the length doubles
        once."""
        self.preinstall(view=1)
        self.receive(view_change(5, 1))
        self.assertEqual(self.data.timers.progress_seconds, 2.0)

    def test_leader_of_the_preinstalled_view_asks_for_promises(self) -> None:
        """Figure 6, Block B: the leader of a preinstalled view starts the Prepare phase."""
        self.preinstall(view=2)
        self.assertSent(Prepare(2, 2, 0))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_others_wait_for_the_prepare(self) -> None:
        """Figure 6, Block B: a server that does not lead the preinstalled view sends nothing more, and waits for the
        PREPARE."""
        self.preinstall(view=3)
        self.assertNothingSent()

    def test_preinstalled_view_without_a_leader_is_left(self) -> None:
        """Section 5.3: a preinstalled view that is not installed in time is left for the next one."""
        self.preinstall(view=1)
        self.advance(2.0)
        self.assertEqual(self.take(ViewChange)[-1], view_change(2, 2))

    def test_votes_are_repeated_while_the_election_lasts(self) -> None:
        """Section 5.9: a VIEW_CHANGE is repeated while the election lasts."""
        self.advance(0.35)
        self.assertEqual(self.take(ViewChange), [view_change(2, 1)] * 3)


class SingleServerTests(ReplicaTestCase):
    server_id = 1
    servers = (1,)

    def after_start(self) -> None:
        self.assertSent(Prepare(1, 1, 0))

    def test_single_server_elects_itself_and_orders(self) -> None:
        """G6: a single server elects itself and orders, since each condition is checked after its own step, too."""
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.introduce(ALICE)
        self.assertExecuted([ALICE])
        self.assertSent(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(1, 1, 1))

    def test_single_server_is_not_idle_into_an_election(self) -> None:
        """Departure 10: a single server that is idle stays leader, being a majority that hears itself."""
        self.advance(10)
        self.assertEqual(self.data.views.last_attempted, 1)


class VCProofTests(ReplicaTestCase):
    def test_higher_view_is_joined_with_a_timer(self) -> None:
        """Figure 6, Block C, and G5: a server that joins a higher view by a VC_PROOF runs the Progress_Timer, and so
        watches the leader."""
        self.receive(vc_proof(4, 3))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual((self.data.views.last_attempted, self.data.views.last_installed), (3, 3))
        self.assertTrue(self.replica.progress_timer.running)
        self.assertEqual(self.take_records(ViewRecord), [ViewRecord(3, 3)])

    def test_leader_that_dies_before_it_does_anything_is_suspected(self) -> None:
        """Scenario 2, G5: a server that joins a view by VC_PROOF, and whose leader dies at once, suspects it."""
        self.follow(view=3)
        self.advance(1.0)
        self.assertIn(view_change(2, 4), self.take(ViewChange))

    def test_attempted_view_may_go_back(self) -> None:
        """Figure 6, Block C: a VC_PROOF of a view below the attempted one is followed: votes are no promises, and those
        for the abandoned attempt are dropped (G4)."""
        self.receive(view_change(4, 8))
        self.assertSent(view_change(2, 8))
        self.receive(vc_proof(1, 6))
        self.assertEqual(self.data.views.last_attempted, 6)
        self.assertEqual(self.data.views.vc, {})

    def test_lower_view_is_no_news(self) -> None:
        """Figure 6, Block C: a VC_PROOF of a view below Last_Installed changes nothing."""
        self.follow(view=3)
        self.expire_progress_timer()
        self.assertSent(view_change(2, 4))
        self.receive(vc_proof(1, 1))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual(self.data.views.last_installed, 3)

    def test_proof_of_a_view_that_i_lead_and_do_not_know_is_never_led(self) -> None:
        """G10: a server that gets a VC_PROOF of a view that it has led, without knowing it, attempts a later view, and
        logs an error."""
        self.receive(vc_proof(4, 7))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertSent(view_change(2, 8))
        self.assertNotSent(Prepare)
        self.assertEqual(self.data.views.last_installed, 0)

    def test_timer_of_a_preinstalled_view_ends_with_the_election(self) -> None:
        """Figure 6, Block E and G3: the timer of a preinstalled view is stopped when a later view is attempted."""
        self.preinstall(view=1)
        self.receive(vc_proof(4, 7))
        self.assertSent(view_change(2, 8))
        self.assertFalse(self.replica.progress_timer.running)


class WayBackTests(ReplicaTestCase):
    """G9: the ways back into a server's installed view, which a VC_PROOF alone does not open."""

    def after_start(self) -> None:
        self.follow(view=1)
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))

    def learn(self, seq: int, *updates: Any) -> None:
        """Let a slot arrive by reconciliation."""
        self.receive(reply(4, ordered(4, seq, *updates)))

    def test_proof_of_the_own_view_does_not_end_a_suspicion(self) -> None:
        """G9: a VC_PROOF of the installed view does not end a suspicion: otherwise a server that is still in the view
        could hold suspecting servers there for ever."""
        self.receive(vc_proof(3, 1))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_repeated_proposal_alone_does_not_end_a_suspicion(self) -> None:
        """G9: a PROPOSAL that is only repeated does not end a suspicion: a leader that can send but not order must be
        replaced."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertDiscarded("4 E4")
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_view_that_really_orders_is_joined_again(self) -> None:
        """G9 (ii): if Local_Aru has grown since the suspicion, and the leader proposes, the view is joined again."""
        self.learn(1, ALICE)
        self.receive(proposal(1, 1, 2, BOB))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.data.views.last_attempted, 1)
        self.assertTrue(self.replica.progress_timer.running)
        self.assertSent(accept(2, 1, 2))

    def test_installed_view_is_not_installed_again(self) -> None:
        """G9: a server that goes back installs nothing: its only promise, Last_Installed, is unchanged, which makes it
        safe."""
        self.learn(1, ALICE)
        self.storage.records.clear()
        self.receive(proposal(1, 1, 2, BOB))
        self.assertSent(accept(2, 1, 2))
        self.assertEqual(self.take_records(ViewRecord), [])

    def test_progress_before_the_last_suspicion_proves_nothing(self) -> None:
        """G9 (ii): only progress since the last suspicion counts; each new attempt begins to measure anew."""
        self.learn(1, ALICE)
        self.receive(view_change(3, 5))
        self.assertSent(view_change(2, 5))
        self.receive(proposal(1, 1, 2, BOB))
        self.assertDiscarded("4 E4")

    def test_nobody_goes_back_while_a_higher_view_is_preinstalled(self) -> None:
        """G9: no server goes back while a higher view is preinstalled, so that the election under way is not
        interrupted."""
        self.preinstall(view=3)
        self.learn(1, ALICE)
        self.receive(proposal(1, 1, 2, BOB))
        self.assertDiscarded("4 E4")
        self.assertEqual(self.data.views.last_attempted, 3)

    def test_proposal_of_another_server_is_no_way_back(self) -> None:
        """G9: a PROPOSAL of another server than the leader of the view does not lead back."""
        self.learn(1, ALICE)
        self.receive(proposal(3, 1, 2, BOB))
        self.assertDiscarded("4 E4")
        self.assertNotSent(Accept)


class AlivesTestCase(ReplicaTestCase):
    """Base of tests in which ALIVEs come one after the other, at different times."""

    def pass_time(self, seconds: float = 0.2) -> None:
        """Let time pass, of itself one period of ALIVE; what this server repeats meanwhile makes no difference here."""
        self.advance(seconds)
        self.take(ViewChange)
        self.take(Heard)


class IdleWayBackTests(AlivesTestCase):
    """Departure 51: back into the installed view without an update, when the view works without this server.

    Server 2 of five has suspected server 1, which leads view 1.
    """

    def after_start(self) -> None:
        self.follow(view=1)
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))

    def hear(self, *followers: int) -> None:
        """Let each of `followers` say twice, one period of ALIVE apart, that it follows server 1, and server 1 that it
        leads."""
        for _ in range(2):
            self.pass_time()
            for server_id in followers:
                self.receive(alive(server_id, 1))
            self.receive(alive(1, 1, State.REG_LEADER))

    def follower_says_so_twice(self, server_id: int) -> None:
        self.receive(alive(server_id, 1))
        self.pass_time()
        self.receive(alive(server_id, 1))

    def assertStaysOut(self) -> None:
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_idle_view_that_a_majority_is_in_is_joined_again(self) -> None:
        """A server goes back into an idle view that a majority, the leader included, is in: its votes are not heard
        there, and no update will show it that the view works."""
        self.storage.records.clear()
        self.hear(3, 4)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual((self.data.views.last_attempted, self.data.views.last_installed), (1, 1))
        self.assertTrue(self.replica.progress_timer.running)
        self.assertEqual(self.take_records(ViewRecord), [])

    def test_server_that_came_back_suspects_again(self) -> None:
        """A server that went back into an idle view watches the leader as before, and suspects it again."""
        self.hear(3, 4)
        self.advance(1.1)
        self.assertIn(view_change(2, 2), self.take(ViewChange))

    def test_leader_without_a_majority_is_no_way_back(self) -> None:
        """A leader whose followers are no majority does not lead a server back: this server and the others may be about
        to elect another one."""
        self.hear(3)
        self.hear(3)
        self.assertStaysOut()

    def test_followers_without_a_leader_are_no_way_back(self) -> None:
        """Followers whose leader is not heard do not lead a server back: they may not know yet that their leader is
        gone."""
        for server_id in (3, 4, 5):
            self.follower_says_so_twice(server_id)
        self.assertStaysOut()

    def test_follower_that_votes_counts_no_more(self) -> None:
        """A follower that votes for another view after its ALIVE does not count any more as one that follows."""
        self.follower_says_so_twice(4)
        self.receive(view_change(4, 2))
        self.hear(3)
        self.assertStaysOut()

    def test_follower_that_has_left_counts_no_more(self) -> None:
        """A follower whose latest ALIVE says that it has left the view does not count any more."""
        self.follower_says_so_twice(4)
        self.receive(alive(4, 1, State.LEADER_ELECTION))
        self.follower_says_so_twice(5)
        self.receive(alive(5, 3))
        self.hear(3)
        self.assertStaysOut()

    def test_what_was_said_before_the_attempt_does_not_count(self) -> None:
        """ALIVEs that came before this attempt do not bring a server back into its view."""
        self.follower_says_so_twice(3)
        self.follower_says_so_twice(4)
        self.receive(view_change(5, 7))
        self.assertSent(view_change(2, 7))
        self.hear()
        self.assertStaysOut()
        self.hear(3, 4)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_leader_must_have_said_twice_that_it_leads(self) -> None:
        """The leader must have said twice during this attempt that it leads: a single late ALIVE may be that of a
        leader that is dead by now, whatever its followers say."""
        for server_id in (3, 4, 5):
            self.follower_says_so_twice(server_id)
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertStaysOut()
        self.pass_time()
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_follower_that_is_not_heard_any_more_counts_no_more(self) -> None:
        """A follower that is not heard any more does not count: it may have died, and then this server's vote may be
        needed."""
        self.follower_says_so_twice(4)
        self.pass_time(1.1)
        self.hear(3)
        self.assertStaysOut()
        self.receive(alive(4, 1))
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_second_copy_of_an_alive_does_not_count(self) -> None:
        """A second copy of an ALIVE, as a network may make it, does not count: the view must be seen to work at two
        points in time."""
        for seconds in (0.0, 0.05):
            self.pass_time(seconds)
            for server_id in (3, 4):
                self.receive(alive(server_id, 1))
            self.receive(alive(1, 1, State.REG_LEADER))
        self.assertStaysOut()
        self.pass_time(0.06)
        for server_id in (3, 4):
            self.receive(alive(server_id, 1))
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_server_whose_disk_hangs_does_not_go_back(self) -> None:
        """A server whose disk hangs does not go back: it discards updates and votes, so it cannot know that the leader
        works. ALIVEs from that time do not count later, either."""
        trouble = self.patch(self.replica.disk_watch, "find_trouble", lambda: DiskTrouble.HANGS)
        self.hear(3, 4)
        self.hear(3, 4)
        self.assertIs(self.replica.turn.trouble, DiskTrouble.HANGS)
        self.assertStaysOut()
        trouble.restore()
        self.pass_time()
        self.assertIs(self.replica.turn.trouble, None)
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertStaysOut()
        self.hear(3, 4)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_server_whose_disk_is_full_goes_back(self) -> None:
        """A server whose disk is full goes back into an idle view, so that its clients may read again."""
        self.storage.is_full = True
        self.hear(3, 4)
        self.assertIs(self.replica.turn.trouble, DiskTrouble.FULL)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_one_alive_of_each_server_is_not_enough(self) -> None:
        """One ALIVE of each server is not enough to go back: servers that have just begun to vote may have sent it
        before."""
        for server_id in (3, 4, 5):
            self.receive(alive(server_id, 1))
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertStaysOut()

    def test_update_that_waits_keeps_this_server_out(self) -> None:
        """G9: while an update waits, a server does not go back: a leader that can send but not order must be
        replaced."""
        self.introduce(ALICE)
        self.hear(3, 4)
        self.hear(3, 4)
        self.assertStaysOut()

    def test_nobody_goes_back_while_a_higher_view_is_preinstalled(self) -> None:
        """G9: no server goes back into an idle view while a higher view is preinstalled, so that the election under way
        is not interrupted."""
        self.preinstall(view=3)
        self.hear(4, 5)
        self.assertStaysOut()
        self.assertEqual(self.data.views.last_attempted, 3)

    def test_leader_of_another_view_is_no_way_back(self) -> None:
        """Safety: a server goes back only into Last_Installed, whichever leader's ALIVE it gets."""
        for view in (6, 6, 11, 11):
            self.pass_time()
            for server_id in (3, 4, 5):
                self.receive(alive(server_id, view))
            self.receive(alive(1, view, State.REG_LEADER))
        self.assertStaysOut()

    def test_server_that_does_not_lead_the_view_is_no_way_back(self) -> None:
        """An ALIVE by which server 3 says that it leads view 1, which is server 1's, does not lead back."""
        for server_id in (4, 5, 1):
            self.follower_says_so_twice(server_id)
        self.receive(alive(3, 1, State.REG_LEADER))
        self.assertStaysOut()

    def test_leader_that_has_voted_for_a_later_view_is_no_way_back(self) -> None:
        """Departure 50: a leader that has voted for a later view does not lead back by one ALIVE, which may be older
        than the vote. The second ALIVE denies the vote."""
        self.receive(view_change(1, 11))
        self.assertSent(view_change(2, 11))
        self.follower_says_so_twice(3)
        self.follower_says_so_twice(4)
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertStaysOut()
        self.pass_time()
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)


class OwnViewTests(AlivesTestCase):
    def test_leader_does_not_go_back_to_the_view_that_it_led(self) -> None:
        """G10: a server never goes back to a view that it has led, whatever the others say."""
        self.lead(view=2)
        self.expire_progress_timer()
        self.assertSent(view_change(2, 3))
        for _ in range(3):
            self.pass_time()
            for server_id in (1, 3, 4, 5):
                self.receive(alive(server_id, 2))
                self.receive(alive(server_id, 2, State.REG_LEADER))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)


class NewcomerTests(AlivesTestCase):
    introduced = False
    starts = False

    def test_server_that_is_not_admitted_follows_nobody(self) -> None:
        """Departure 51: a server that is not admitted does not go back, since it may lack what it has promised in its
        view."""
        self.found = Recovered(identity_of(2), incarnation=2, last_attempted=1, last_installed=1)
        self.found.peers = {i: PeerRecord(i, identity_of(i)) for i in (1, 3, 4, 5)}
        self.start()
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.take(Heard)
        for _ in range(3):
            self.pass_time()
            for server_id in (3, 4, 5):
                self.receive(alive(server_id, 1))
            self.receive(alive(1, 1, State.REG_LEADER))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)


class DeniedVoteTests(AlivesTestCase):
    """Departure 52: a vote is forgotten when its sender says twice that it leads or follows an earlier view."""

    def test_vote_of_a_leader_that_goes_on_is_forgotten(self) -> None:
        """A vote of a leader that goes on is forgotten, so that this server attempts the next view, as the others do,
        when the leader is gone."""
        self.follow(view=1)
        self.receive(view_change(1, 101))
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertEqual(self.replica.election.attempted_by_leader(), 101)
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertEqual(self.replica.election.attempted_by_leader(), 101, "a second copy denies nothing")
        self.pass_time(0.1)
        self.receive(alive(1, 1, State.REG_LEADER))
        self.assertEqual(self.replica.election.attempted_by_leader(), 0)
        self.expire_progress_timer()
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 2)})

    def test_vote_that_is_repeated_is_kept(self) -> None:
        """A vote that its sender repeats is kept, although an ALIVE that the vote has overtaken denies it."""
        self.follow(view=1)
        for _ in range(3):
            self.pass_time(0.1)
            self.receive(view_change(1, 101))
            self.receive(alive(1, 1, State.REG_LEADER))
        self.assertEqual(self.replica.election.attempted_by_leader(), 101)

    def test_alive_of_a_server_that_votes_denies_nothing(self) -> None:
        """An ALIVE with the state LEADER_ELECTION, as a server that votes sends it, denies no vote."""
        self.follow(view=1)
        self.receive(view_change(1, 101))
        for _ in range(3):
            self.pass_time(0.1)
            self.receive(alive(1, 1, State.REG_LEADER))
            self.receive(alive(1, 1, State.LEADER_ELECTION))
        self.assertEqual(self.replica.election.attempted_by_leader(), 101)

    def test_vote_of_a_server_that_has_gone_back_counts_no_more(self) -> None:
        """The vote of a server that has gone back to its view counts no more: a majority must vote at the same time."""
        self.receive(view_change(3, 6))
        self.receive(alive(3, 1))
        self.assertIn(3, self.data.views.vc)
        self.pass_time()
        self.receive(alive(3, 1))
        self.assertNotIn(3, self.data.views.vc)
        self.receive(view_change(4, 6))
        self.assertFalse(self.replica.progress_timer.running)
        self.receive(view_change(3, 6))
        self.assertTrue(self.replica.progress_timer.running)
        self.take(ViewChange)

    def test_server_in_the_view_that_it_voted_for_denies_nothing(self) -> None:
        """An ALIVE of a server that has installed the view it voted for denies nothing: this server may still need that
        vote to install it."""
        self.receive(view_change(3, 6))
        for _ in range(3):
            self.pass_time()
            self.receive(alive(3, 6))
        self.assertIn(3, self.data.views.vc)
        self.take(ViewChange)


class WayBackAfterRecoveryTests(ReplicaTestCase):
    starts = False

    def recovered(self, last_installed: int) -> None:
        self.found = Recovered(
            identity_of(2), incarnation=2, last_attempted=last_installed, last_installed=last_installed
        )
        self.found.peers = {i: PeerRecord(i, identity_of(i)) for i in (1, 3, 4, 5)}
        self.start()

    def test_recovered_server_returns_on_a_proof(self) -> None:
        """G9 (i), scenario 9: a recovered server returns to its view on a VC_PROOF: a crash is no suspicion, and the
        view may need its vote."""
        self.recovered(last_installed=1)
        self.receive(vc_proof(3, 1))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))

    def test_recovered_server_returns_on_a_proposal(self) -> None:
        """G9 (i): a recovered server returns to its view on a PROPOSAL, and accepts that PROPOSAL."""
        self.recovered(last_installed=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))

    def test_recovered_server_answers_the_prepare_that_it_missed(self) -> None:
        """G7, G20: a recovered server answers the PREPARE that it missed: its promise is on disk, and the PREPARE_OK is
        built anew."""
        self.recovered(last_installed=1)
        self.receive(vc_proof(1, 1))
        self.receive(prepare(1, 1))
        self.assertSent(PrepareOK(2, 1, (), edition=self.found.incarnation), to=1)

    def test_recovered_server_returns_once(self) -> None:
        """G9 (i): a recovered server returns in this way once for each start; after a suspicion a VC_PROOF does not
        lead back."""
        self.recovered(last_installed=1)
        self.receive(vc_proof(3, 1))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.receive(vc_proof(3, 1))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_recovered_leader_does_not_resume_its_view(self) -> None:
        """G10: a recovered leader does not resume its view, in which it may have sent proposals that its disk does not
        have."""
        self.recovered(last_installed=2)
        self.receive(vc_proof(3, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual(self.data.views.last_attempted, 3)
        self.assertNotSent(Prepare)

    def test_recovered_server_attempts_more_than_it_installed(self) -> None:
        """G20: a recovered server attempts a view above the one that it has installed."""
        self.found.last_installed = 4
        self.found.last_attempted = 3
        self.start()
        self.assertEqual(self.data.views.last_attempted, 5)

    def test_idle_server_that_rejoined_watches_its_leader(self) -> None:
        """G5: a server that has rejoined an idle view runs the Progress_Timer, and so watches its leader."""
        self.recovered(last_installed=1)
        self.receive(vc_proof(3, 1))
        self.receive(alive(1, 1, State.REG_LEADER))
        self.advance(1.1)
        self.assertIn(view_change(2, 2), self.take(ViewChange))
