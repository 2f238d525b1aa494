"""Departure 59: a leader hands its view over to another server."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.hand_over import ASK_SECONDS, STOP_SECONDS
from pfsb.paxos.messages import (
    Accept,
    Confirm,
    Confirmed,
    HandOver,
    HandOverReason,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationRequest,
    State,
    ViewChange,
)
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import accept, alive, client_update, prepare, prepare_ok, proposal, vc_proof, view_change

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)
ASKED, STOPS, PREFERRED = HandOverReason.ASKED, HandOverReason.STOPS, HandOverReason.PREFERRED
LOOK = 0.003


class LeaderCase(ReplicaTestCase):
    """Server 2 leads view 2 of a cluster of five; servers 1, 3, 4 and 5 follow."""

    followers = (1, 3, 4, 5)

    def after_start(self) -> None:
        self.told: list[str | None] = []
        self.lead(view=2)
        self.hear()

    def hear(self, seconds: float = 0.0, local_aru: int = 0) -> None:
        """The followers send an ALIVE every 0.1 s, for so long, and one more."""
        for _ in range(round(seconds / 0.1)):
            self.hear(local_aru=local_aru)
            self.advance(0.1)
        for other in self.followers:
            self.receive(alive(other, 2, local_aru=local_aru))

    def why_not(self, target: int) -> str | None:
        return self.replica.hand_over.why_not(target)

    def begin(self, target: int = 3, reason: HandOverReason = ASKED) -> int:
        """Begin to hand over. Returns the number by which the target is asked."""
        self.replica.perform(self.replica.hand_over.begin, target, reason, self.told.append)
        self._after_event()
        (asked,) = self.take(Confirm)
        self.assertSent_to(target)
        return asked.number

    def assertSent_to(self, target: int) -> None:
        """The last CONFIRM went to this server alone."""
        last = [sent for sent in self.transport.sent if isinstance(sent.message, Confirm)][-1]
        self.assertEqual(last.to, target)

    def answer(self, number: int, target: int = 3, view: int = 2) -> None:
        self.receive(Confirmed(target, view, number))
        self.advance(LOOK)

    def leave(self, target: int = 3, next_view: int = 3, reason: HandOverReason = ASKED) -> None:
        """Hand over as far as this server can by itself: it leaves, and votes."""
        self.answer(self.begin(target, reason), target)
        self.assertSent(HandOver(2, 2, next_view, reason))
        self.assertSent(ViewChange(2, next_view))

    def propose(self, *updates: object) -> None:
        for update in updates:
            self.receive(update, sender=1)

    def be_led(self, view: int = 3, leader: int = 3) -> None:
        """The target is elected, and leads; this server promises, and follows."""
        for other in (1, 4):
            self.receive(view_change(other, view))
        self.receive(prepare(leader, view))
        self.take(PrepareOK)
        self.receive(alive(leader, view, State.REG_LEADER))
        self.advance(LOOK)


class HandingOverTests(LeaderCase):
    def test_leader_asks_the_target_and_goes_on_proposing(self) -> None:
        """A leader that has asked a target goes on proposing: the target may be gone."""
        self.begin()
        self.propose(ALICE)
        self.assertSent(proposal(2, 2, 1, ALICE, time_ms=0))
        self.take(Accept)
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_leader_leaves_when_the_target_has_answered(self) -> None:
        """When the target has answered, HAND_OVER names the next view of the target; the leader's vote for it follows
        in the same turn."""
        number = self.begin()
        self.answer(number)
        sent = [each.message for each in self.transport.sent if not each.looked_at and each.to is None]
        kinds = [type(message) for message in sent if isinstance(message, HandOver | ViewChange)]
        self.assertEqual(kinds[:2], [HandOver, ViewChange])
        self.assertSent(HandOver(2, 2, 3, ASKED))
        self.assertSent(ViewChange(2, 3))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual(self.replica.progress_timer.expiries, 0)

    def test_next_view_is_the_next_one_that_the_target_leads(self) -> None:
        """The next view is the next one that the target leads: server 1 leads views 1, 6, 11 and so on."""
        self.leave(target=1, next_view=6)
        self.assertEqual(self.data.views.last_attempted, 6)

    def test_nothing_new_is_proposed_while_slots_are_under_way(self) -> None:
        """While slots are under way, new updates are queued; the leader leaves when the last of these slots is
        executed."""
        number = self.begin()
        self.propose(ALICE)
        self.assertSent(proposal(2, 2, 1, ALICE))
        self.take(Accept)
        self.answer(number)
        self.propose(BOB)
        self.assertNotSent(Proposal)
        self.assertNotSent(HandOver)
        self.assertEqual(len(self.replica.update_queue), 1)
        self.receive(accept(1, 2, 1))
        self.receive(accept(3, 2, 1))
        self.advance(LOOK)
        self.assertExecuted([ALICE])
        self.assertSent(HandOver(2, 2, 3, ASKED))
        self.assertSent(ViewChange(2, 3))
        self.assertNotSent(Proposal)

    def test_slot_that_takes_too_long_is_left_to_the_next_leader(self) -> None:
        """A leader waits for a slot under way as long as slots take, 0.1 s at least and 0.5 s at most; after that the
        promises bring the slot to the next leader."""
        number = self.begin()
        self.propose(ALICE)
        self.answer(number)
        self.advance(0.6)
        self.assertSent(HandOver(2, 2, 3, ASKED))
        self.take(Proposal)
        self.take(Accept)
        self.take(ViewChange)

    def test_time_is_not_ordered_while_nothing_new_is_proposed(self) -> None:
        """Departure 29: while nothing new is proposed, no time is ordered: a no-op would be a new proposal, too."""
        number = self.begin()
        self.propose(ALICE)
        self.answer(number)
        self.data.ordering.last_proposed = 0
        self.assertFalse(self.replica.proposals.propose_time())
        self.take(Proposal)
        self.take(Accept)
        self.take(HandOver)
        self.take(ViewChange)

    def test_caller_is_told_when_the_target_leads(self) -> None:
        """The caller is told that the hand-over is done when an ALIVE of the target says that it leads."""
        self.leave()
        self.assertEqual(self.told, [])
        self.be_led()
        self.assertEqual(self.told, [None])
        self.assertEqual((self.replica.hand_over.done, self.replica.hand_over.failed), (1, 0))
        self.assertIsNone(self.replica.hand_over.under_way)

    def test_queue_is_dropped_when_the_next_leader_is_followed(self) -> None:
        """A former leader that follows the next one drops its queue: the queued updates are pending at their own
        servers, which send them to the new leader."""
        own = client_update("carol", 1, server_id=2)
        number = self.begin()
        self.propose(ALICE)
        self.take(Proposal)
        self.take(Accept)
        self.answer(number)
        self.introduce(own)
        self.propose(BOB)
        self.advance(0.6)
        for kind in (HandOver, ViewChange, Proposal, Accept):
            self.take(kind)
        self.be_led()
        self.assertEqual(len(self.replica.update_queue), 0)
        self.assertSent(own, to=3)
        self.take(ReconciliationRequest)

    def test_leader_that_has_left_proposes_nothing_in_its_view(self) -> None:
        """An update that comes after the leader has left its view is not proposed there: it is for the next leader."""
        self.leave()
        self.propose(ALICE)
        self.advance(0.5)
        self.take(ViewChange)
        self.assertNotSent(Proposal)

    def test_leader_that_has_left_is_not_brought_back(self) -> None:
        """G10: neither a VC_PROOF nor an ALIVE brings a leader that has left its view back into the lead of it."""
        self.leave()
        self.receive(vc_proof(1, 2))
        self.receive(alive(1, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_vote_for_the_next_view_is_repeated(self) -> None:
        """The vote for the next view is repeated, so that a server that has missed the HAND_OVER comes along; the
        HAND_OVER is sent once."""
        self.leave()
        self.advance(0.5)
        self.assertIn(ViewChange(2, 3), self.take(ViewChange))
        self.assertNotSent(HandOver)

    def test_server_that_leads_again_proposes_again(self) -> None:
        """After a hand-over that came to nothing, a server that leads again proposes again: its window is open."""
        self.leave()
        self.advance(STOP_SECONDS + 0.1)
        self.assertEqual(len(self.told), 1)
        self.take(ViewChange)
        self.receive(view_change(1, 7))
        self.lead(view=7)
        self.propose(ALICE)
        self.assertEqual([each.seq for each in self.take(Proposal)], [1])
        self.take(Accept)
        self.take(Prepare)

    def test_trace_tells_the_steps(self) -> None:
        self.leave()
        self.be_led()
        self.assertEqual([each["step"] for each in self.notes.of("hand_over")], ["asks", "waits", "left", "done"])
        self.assertEqual(
            self.notes.of("hand_over")[0],
            {"step": "asks", "to": 3, "view": 2, "next_view": 3, "reason": "asked"},
        )


class FailingTests(LeaderCase):
    def test_target_that_does_not_answer_costs_nothing(self) -> None:
        """A target that does not answer is asked some times within 0.2 s; the leader goes on proposing."""
        number = self.begin()
        self.advance(ASK_SECONDS + LOOK)
        self.assertEqual({each.number for each in self.take(Confirm)}, {number})
        self.assertEqual(self.told, ["server 3 has not answered"])
        self.propose(ALICE)
        self.assertEqual(len(self.take(Proposal)), 1)
        self.take(Accept)
        self.assertNotSent(HandOver)

    def test_answer_that_comes_too_late_counts_for_nothing(self) -> None:
        """An answer that comes after the hand-over is over counts for nothing, and not for the next hand-over either,
        which has another number."""
        number = self.begin()
        self.advance(ASK_SECONDS + LOOK)
        self.take(Confirm)
        self.answer(number)
        self.assertNotSent(HandOver)
        self.assertNotEqual(self.begin(), number)
        self.answer(number)
        self.assertNotSent(HandOver)

    def test_only_the_target_answers_for_itself(self) -> None:
        """A CONFIRMED of another server, another view or another number does not count as the target's answer."""
        number = self.begin()
        self.receive(Confirmed(4, 2, number))
        self.receive(Confirmed(3, 2, number + 1))
        self.receive(Confirmed(3, 1, number))
        self.advance(LOOK)
        self.assertNotSent(HandOver)
        self.take(Confirm)

    def test_leader_that_is_suspected_meanwhile_gives_it_up(self) -> None:
        """A leader that suspects itself during a hand-over gives the hand-over up, and opens its window for the next
        view that it leads."""
        number = self.begin()
        self.propose(ALICE)
        self.answer(number)
        self.assertTrue(self.replica.window.is_closed)
        self.expire_progress_timer()
        self.advance(LOOK)
        self.assertEqual(self.told, ["this server leads no more"])
        self.assertFalse(self.replica.window.is_closed)
        self.assertNotSent(HandOver)
        for kind in (ViewChange, Proposal, Accept):
            self.take(kind)

    def test_target_that_does_not_come_to_lead(self) -> None:
        """If the target dies after its answer, the caller is told that an election is under way."""
        self.leave()
        self.advance(STOP_SECONDS + LOOK)
        self.take(ViewChange)
        self.assertEqual(self.told, ["server 3 does not lead yet; an election is under way"])
        self.assertEqual(self.replica.hand_over.failed, 1)

    def test_another_view_that_comes_first(self) -> None:
        """If an election overtakes the hand-over, the caller is told that another view has come."""
        self.leave()
        self.receive(vc_proof(4, 4))
        self.advance(LOOK)
        self.assertEqual(self.told, ["another view than that of server 3 has come"])
        self.take(ViewChange)

    def test_unfit_targets(self) -> None:
        """For each target that is not fit to lead there is a sentence that says why."""
        self.assertEqual(self.why_not(2), "server 2 does not vote")
        self.assertEqual(self.why_not(7), "server 7 does not vote")
        self.receive(alive(3, 2, State.LEADER_ELECTION))
        does_not_follow = "server {} does not follow in the present view, or has not told so yet"
        self.assertEqual(self.why_not(3), does_not_follow.format(3))
        self.receive(alive(4, 1))
        self.assertEqual(self.why_not(4), does_not_follow.format(4))
        self.replica.peers.by_id[5].lag = 8
        self.assertIsNone(self.why_not(5))
        self.replica.peers.by_id[5].lag = 9
        self.assertEqual(self.why_not(5), "server 5 is 9 slots behind")
        self.assertIsNone(self.why_not(1))

    def test_lag_counts_from_the_time_of_the_alive(self) -> None:
        """A server's lag is what it lacked at the time of its ALIVE: slots that are executed later do not count."""
        self.propose(ALICE)
        self.take(Proposal)
        self.take(Accept)
        self.receive(accept(1, 2, 1))
        self.receive(accept(3, 2, 1))
        self.assertExecuted([ALICE])
        self.assertEqual(self.replica.peers.by_id[4].lag, 0)
        self.receive(alive(4, 2, local_aru=0))
        self.receive(alive(5, 2, local_aru=1))
        self.assertEqual([self.replica.peers.by_id[i].lag for i in (4, 5)], [1, 0])

    def test_silent_target(self) -> None:
        self.replica.progress_timer.longest = 100.0
        self.followers = (1, 4)
        self.hear(1.5)
        self.assertEqual(self.why_not(3), "server 3 is not heard")
        self.assertIsNone(self.why_not(4))

    def test_leader_without_a_majority(self) -> None:
        """A leader that no majority follows does not hand over: no server could be elected."""
        for other in (1, 3, 4):
            self.receive(alive(other, 2, State.LEADER_ELECTION))
        self.assertEqual(self.why_not(5), "no majority follows this server, so none would follow another one")

    def test_leader_whose_disk_is_in_trouble(self) -> None:
        self.replica.perform(self.replica.turn.set_trouble, DiskTrouble.FULL)
        self.assertEqual(self.why_not(3), "the disk of this server takes nothing at present")

    def test_one_hand_over_at_a_time(self) -> None:
        self.begin()
        self.assertEqual(self.why_not(4), "the view is being handed over to server 3 already")

    def test_only_the_leader_hands_over(self) -> None:
        self.expire_progress_timer()
        self.take(ViewChange)
        self.assertEqual(self.why_not(3), "this server does not lead")


class FollowingTests(ReplicaTestCase):
    """Server 2 follows server 1 in view 1."""

    def after_start(self) -> None:
        self.follow(view=1)

    def hand_over(self, next_view: int = 3, view: int = 1, sender: int = 1) -> None:
        self.receive(HandOver(sender, view, next_view, STOPS), sender=sender)

    def test_follower_leaves_at_once(self) -> None:
        """A follower leaves the view at a HAND_OVER at once, without its Progress_Timer or the delay of a hint."""
        self.hand_over()
        self.assertSent(ViewChange(2, 3))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual(self.replica.progress_timer.expiries, 0)
        self.assertEqual(self.replica.hand_over.followed, 1)

    def test_target_prepares_as_soon_as_a_majority_has_voted(self) -> None:
        """The target prepares as soon as a majority has voted: its own vote, the former leader's, which follows the
        HAND_OVER, and one more of five."""
        self.hand_over(next_view=2)
        self.assertSent(ViewChange(2, 2))
        self.receive(view_change(1, 2))
        self.assertNotSent(Prepare)
        self.receive(view_change(4, 2))
        self.assertSent(Prepare(2, 2, 0))

    def test_target_needs_the_promises_of_a_majority(self) -> None:
        """The target leads when a majority has promised: a HAND_OVER alone makes no leader."""
        self.hand_over(next_view=2)
        for other in (1, 4):
            self.receive(view_change(other, 2))
        self.take(ViewChange)
        self.take(Prepare)
        self.receive(prepare_ok(1, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.receive(prepare_ok(4, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_copy_has_no_effect(self) -> None:
        """A copy of a HAND_OVER has no effect: a server that has left the view follows no leader in it."""
        self.hand_over()
        self.take(ViewChange)
        self.hand_over()
        self.assertDiscarded("4 E4")
        self.assertNothingSent()

    def test_hand_over_of_a_former_leader_has_no_effect(self) -> None:
        """A HAND_OVER of an earlier view is too late and has no effect; one of a view that is still to come is too
        early."""
        self.hand_over(next_view=2)
        self.take(ViewChange)
        self.receive(vc_proof(4, 4))
        self.hand_over(next_view=3)
        self.assertDiscarded("4 E6")
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.hand_over(next_view=11, view=9, sender=4)
        self.assertDiscarded("4 E6")
        self.assertNothingSent()

    def test_only_the_leader_hands_its_view_over(self) -> None:
        """Departure 15: a HAND_OVER of a server that does not lead the view is discarded."""
        self.hand_over(sender=3, next_view=3)
        self.assertDiscarded("leader")
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_next_view_must_be_near_and_of_another_server(self) -> None:
        """A HAND_OVER must name one of the five views above the present one, and none that its sender leads."""
        for next_view in (0 + 1, 6, 7, 2**31):
            self.hand_over(next_view=next_view)
            self.assertDiscarded("implausible")
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.hand_over(next_view=5)
        self.assertNotDiscarded()
        self.take(ViewChange)

    def test_follower_that_misses_it_comes_along_by_the_vote(self) -> None:
        """Departures 11 and 50: a follower that misses the HAND_OVER comes along by the leader's vote, which hurries
        the Progress_Timer and names the view."""
        self.receive(view_change(1, 4))
        self.advance(0.03)
        self.assertSent(ViewChange(2, 4))

    def test_server_in_an_election_takes_no_notice(self) -> None:
        """A server in an election discards a HAND_OVER, and joins by the former leader's vote, as it joins any higher
        view."""
        self.expire_progress_timer()
        self.take(ViewChange)
        self.hand_over(next_view=4)
        self.assertDiscarded("4 E4")
        self.receive(view_change(1, 4))
        self.assertIn(ViewChange(2, 4), self.take(ViewChange))


class StoppingTests(LeaderCase):
    def stop(self) -> None:
        self.replica.perform(self.replica.hand_over.hand_over_to_stop)
        self._after_event()

    def is_stopping(self) -> bool:
        return self.replica.hand_over.is_stopping

    def test_leader_hands_over_to_the_server_that_is_least_behind(self) -> None:
        """A leader that stops hands over to the server that is least behind; among equals, to the one with the lowest
        id."""
        for other, lag in ((1, 3), (3, 1), (4, 0), (5, 0)):
            self.replica.peers.by_id[other].lag = lag
        self.assertEqual(self.replica.hand_over.best_target(), 4)

    def test_server_may_stop_when_the_next_one_leads(self) -> None:
        self.stop()
        (asked,) = self.take(Confirm)
        self.assertTrue(self.is_stopping())
        self.answer(asked.number, target=1)
        self.assertSent(HandOver(2, 2, 6, STOPS))
        self.take(ViewChange)
        self.assertTrue(self.is_stopping())
        self.be_led(view=6, leader=1)
        self.assertFalse(self.is_stopping())

    def test_server_that_does_not_answer_is_passed_over(self) -> None:
        """If the first target does not answer, a leader that stops asks the next one."""
        self.stop()
        self.assertSent_to(1)
        self.advance(ASK_SECONDS + 2 * LOOK)
        self.assertSent_to(3)
        self.take(Confirm)

    def test_stop_waits_for_a_second_at_most(self) -> None:
        """A stop waits for a hand-over for a second at most; then the server stops without one."""
        self.stop()
        self.advance(STOP_SECONDS + 2 * LOOK)
        self.assertFalse(self.is_stopping())
        self.take(Confirm)

    def test_server_that_does_not_lead_stops_at_once(self) -> None:
        self.expire_progress_timer()
        self.take(ViewChange)
        self.stop()
        self.assertFalse(self.is_stopping())

    def test_leader_that_hears_no_other_server_stops_at_once(self) -> None:
        """A leader that hears no other server stops at once: there is no server to hand over to."""
        self.replica.progress_timer.longest = self.data.timers.progress_seconds = 100.0
        self.replica.progress_timer.start()
        self.advance(1.5)
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.stop()
        self.assertFalse(self.is_stopping())

    def test_leader_waits_until_a_server_tells_that_it_follows(self) -> None:
        """A leader that stops soon after it has begun to lead waits for an ALIVE of its view before it asks a
        target."""
        for other in self.followers:
            self.receive(alive(other, 2, State.LEADER_ELECTION))
        self.stop()
        self.assertTrue(self.is_stopping())
        self.assertNotSent(Confirm)
        self.hear()
        self.advance(LOOK)
        self.assertEqual(len(self.take(Confirm)), 1)

    def test_hand_over_that_is_under_way_is_waited_for(self) -> None:
        self.leave()
        self.stop()
        self.assertTrue(self.is_stopping())
        self.be_led()
        self.assertFalse(self.is_stopping())

    def test_server_that_is_about_to_lead_leads_and_hands_over(self) -> None:
        """A server that gets a HAND_OVER while it is asked to stop comes to lead, and hands over in turn."""
        self.leave()
        self.be_led()
        self.receive(HandOver(3, 3, 7, STOPS))
        self.stop()
        self.take(ViewChange)
        self.assertTrue(self.is_stopping())
        for other in (3, 4):
            self.receive(view_change(other, 7))
        for other in (3, 4):
            self.receive(prepare_ok(other, 7))
        for other in (1, 3, 4):
            self.receive(alive(other, 7))
        self.take(ViewChange)
        self.take(Prepare)
        self.advance(LOOK)
        self.assertEqual(len(self.take(Confirm)), 1)
        self.assertTrue(self.is_stopping())


class PreferenceTests(LeaderCase):
    settings = evolve(SMALL, priority=(3, 2))

    def hear_until_asked(self, alives: int) -> list[Confirm]:
        """Let time pass, for so many ALIVEs and two more at most, until the preferred server is asked."""
        for _ in range(2 * alives + 4):
            self.hear(0.1)
            if asked := self.take(Confirm):
                return asked
        return []

    def test_preferred_server_is_handed_the_view(self) -> None:
        """A preferred server is handed the view when it has been fit to lead for twice the Progress_Timer."""
        self.hear(1.9)
        self.assertNotSent(Confirm)
        (asked,) = self.hear_until_asked(2)
        self.assertSent_to(3)
        self.answer(asked.number)
        self.assertSent(HandOver(2, 2, 3, PREFERRED))
        self.take(ViewChange)

    def test_preferred_server_that_is_not_fit_is_waited_for(self) -> None:
        """If a preferred server is unfit to lead for a moment, the time for which it must be fit begins anew."""
        self.hear(1.5)
        self.receive(alive(3, 2, State.LEADER_ELECTION))
        self.advance(0.2)
        self.hear(1.5)
        self.assertNotSent(Confirm)

    def test_servers_behind_the_leader_get_nothing(self) -> None:
        """A server that the priority names behind the leader, or does not name, is handed no view."""
        self.followers = (1, 4, 5)
        self.hear(5.0)
        self.assertNotSent(Confirm)
        self.assertEqual([self.replica.hand_over.rank(i) for i in (3, 2, 1, 5)], [0, 1, 2, 2])

    def test_time_doubles_when_a_hand_over_fails(self) -> None:
        """When a hand-over to a preferred server fails, the next one waits twice as long: a server that comes and goes
        is handed few views."""
        self.hear(1.5)
        self.assertTrue(self.hear_until_asked(4))
        self.advance(ASK_SECONDS + LOOK)
        self.take(Confirm)
        self.assertEqual(self.replica.hand_over.failed, 1)
        self.assertEqual(self.replica.hand_over.wait_for(3), 4.0)
        self.hear(3.5)
        self.assertNotSent(Confirm)
        self.assertTrue(self.hear_until_asked(5))

    def test_time_doubles_when_a_view_of_the_preferred_server_ends(self) -> None:
        """When a view that a preferred server leads ends, every server doubles the time of the next hand-over to it,
        since any of them may be the next leader."""
        self.leave()
        self.be_led()
        self.advance(0.3)
        self.receive(HandOver(3, 3, 4, STOPS))
        self.receive(prepare(4, 4))
        self.advance(0.3)
        self.assertEqual(self.replica.hand_over.wait_for(3), 4.0)
        self.take(ViewChange)
        self.take(PrepareOK)

    def test_time_is_short_again_after_a_long_while(self) -> None:
        self.replica.hand_over.longest_wait = 10.0
        self.hear(2.4)
        self.advance(ASK_SECONDS + LOOK)
        self.take(Confirm)
        self.followers = (1, 4, 5)
        self.hear(11.0)
        self.followers = (1, 3, 4, 5)
        self.hear(2.4)
        self.assertTrue(self.take(Confirm))

    def test_preference_rests_in_a_view_that_lead_has_brought(self) -> None:
        """In a view that LEAD has brought, no view is handed to a preferred server: an operator wants the present
        leader."""
        self.leave()
        self.be_led()
        self.receive(HandOver(3, 3, 7, ASKED))
        for other in (3, 4):
            self.receive(view_change(other, 7))
        for other in (3, 4):
            self.receive(prepare_ok(other, 7))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        for kind in (ViewChange, Prepare):
            self.take(kind)
        for _ in range(60):
            for other in self.followers:
                self.receive(alive(other, 7))
            self.advance(0.1)
        self.assertNotSent(Confirm)


class StopsWithPriorityTests(LeaderCase):
    settings = evolve(SMALL, priority=(5, 4))

    def test_stopping_leader_hands_over_to_the_preferred_server(self) -> None:
        """A leader that stops hands over to the preferred server if that is fit to lead, even if it is a little
        behind."""
        self.replica.peers.by_id[5].lag = 2
        self.assertEqual(self.replica.hand_over.best_target(), 5)
        self.receive(alive(5, 2, State.LEADER_ELECTION))
        self.assertEqual(self.replica.hand_over.best_target(), 4)
