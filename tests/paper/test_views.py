"""Figures 4 to 9, sections 5.2 and 5.3: elections, and what a new leader learns."""

from __future__ import annotations

from functools import partial

from pfsb.paxos.messages import (
    Accept,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    ReconciliationRequest,
    State,
    VCProof,
    ViewChange,
)
from pfsb.paxos.settings import Settings
from tests.long import long
from tests.paper.scenario import ONE_UPDATE_A_SLOT, ScenarioTestCase, passing

RECONCILIATION = (ReconciliationRequest, ReconciliationReply)


class Elections(ScenarioTestCase):
    @long
    def test_leaders_follow_each_other_in_the_order_of_their_ids(self) -> None:
        """Section 5.1: view v is led by the server at position (v - 1) mod N."""
        cluster = self.begin(5)
        views: list[int] = []
        for _ in range(8):
            leader = cluster.leader()
            assert leader is not None
            views.append(self.view(leader))
            self.assertEqual(leader, (views[-1] - 1) % 5)
            cluster.crash(leader)
            cluster.run_until(cluster.has_leader, 30)
            cluster.restart(leader)
            cluster.run(0.5)
        self.assertEqual(views, sorted(set(views)))
        self.assertEqual(views[0], 1)

    def test_unstable_server_cannot_interrupt_a_working_view(self) -> None:
        """Figure 4 A4: a server that is in a view ignores votes for others, however often they come and however high
        they are."""
        cluster = self.begin()
        for attempt in range(2, 200):
            vote = ViewChange(2, attempt)
            cluster.clock.callLater(attempt / 100, partial(self._deliver, 2, vote))
        for timestamp in range(1, 21):
            cluster.clock.callLater(timestamp / 10, partial(cluster.submit, 1, "a", timestamp))
        cluster.run(3)
        self.assertEqual([self.view(i) for i in cluster.ids], [1, 1, 1])
        self.assertEqual(len(self.clients_executed(0)), 20)
        self.assertGreater(cluster.replica(0).discarded["4 A4"], 100)

    def _deliver(self, sender: int, message: ViewChange) -> None:
        for receiver in (0, 1):
            self.hand_over(sender, receiver, [message])

    def test_higher_attempt_ignored_while_progress_timer_runs(self) -> None:
        """Figure 4 A6: while the Progress_Timer runs in an election, in which a view is preinstalled, votes for a
        higher view are ignored."""
        cluster = self.begin(start=False)
        cluster.network.drop(passing(Prepare, VCProof))
        for server_id in cluster.ids:
            cluster.restart(server_id)
        cluster.run_until(lambda: all(cluster.replica(i).progress_timer.running for i in cluster.ids))
        before = [cluster.replica(i).discarded.get("4 A6", 0) for i in (0, 1)]
        self._deliver(2, ViewChange(2, 9))
        self.assertEqual([cluster.replica(i).data.views.last_attempted for i in (0, 1)], [1, 1])
        after = [cluster.replica(i).discarded["4 A6"] for i in (0, 1)]
        self.assertEqual(after, [count + 1 for count in before])

    def test_server_joins_a_higher_attempt_when_it_suspects(self) -> None:
        """Figure 6 B: a server in an election, without a preinstalled view, joins the attempt for the highest view."""
        cluster = self.begin(5, start=False)
        cluster.network.drop(passing(ViewChange))
        for server_id in cluster.ids:
            cluster.restart(server_id)
        cluster.run(0.1)
        self._deliver(2, ViewChange(2, 9))
        self.assertEqual([cluster.replica(i).data.views.last_attempted for i in (0, 1)], [9, 9])

    def test_timeout_doubles_up_to_its_cap_and_comes_back(self) -> None:
        """Section 5.3 and G8: each preinstall doubles the Progress_Timer up to its cap, and updates that are ordered in
        the view halve it (Departure 48)."""
        cluster = self.begin()
        cluster.network.drop(passing(Prepare, VCProof))
        cluster.crash(0)
        timers = cluster.replica(1).data.timers
        seen = []
        for _ in range(60):
            seen.append(timers.progress_seconds)
            cluster.run(1)
        self.assertEqual(sorted(set(seen)), [2.0, 4.0, 8.0])
        self.no_more_filters()
        cluster.submit(1, "a", 1)
        self.until_executed(["a"], 1, 2, seconds=60)
        self.assertLessEqual(timers.progress_seconds, 4.0)
        for timestamp in (2, 3, 4):
            cluster.submit(1, "a", timestamp)
            cluster.run(1)
        self.assertEqual(timers.progress_seconds, 1.0)

    def test_restarted_leader_never_leads_its_view_again(self) -> None:
        """G10: a restarted leader never leads its view again, since it does not know what it has sent in that view."""
        cluster = self.begin()
        cluster.crash(0)
        cluster.restart(0)
        cluster.submit(1, "a", 1)
        cluster.run_until(self.answered("a"), 20)
        self.assertGreater(min(self.view(i) for i in cluster.ids), 1)

    def test_leader_cut_off_from_the_majority_steps_down(self) -> None:
        """Departure 10: a leader that does not hear a majority suspects itself."""
        cluster = self.begin()
        cluster.isolate(0)
        cluster.run_until(lambda: self.state(0) is State.LEADER_ELECTION, 3)

    def test_refused_frames_hurry_the_election(self) -> None:
        """Departure 11: a refused frame of a dead leader cuts the Progress_Timer short, and the next leader leads."""
        cluster = self.begin()
        cluster.network.refusals = True
        cluster.crash(0)
        self.until_led_by(1, 0.4)


class PreparePhase(ScenarioTestCase):
    def test_accepted_proposal_survives_its_leader(self) -> None:
        """Figure 8 A: a proposal that one server of a majority has accepted is proposed again by the next leader, in
        the same slot."""
        cluster = self.begin()
        cluster.network.drop(passing(Proposal, receiver=1))
        cluster.network.drop(passing(Accept))
        cluster.submit(0, "a", 1)
        self.until_on_disk(2, 1, "a")
        cluster.crash(0)
        self.no_more_filters()
        self.until_executed(["a"], 1, 2)
        self.assertEqual(self.proposed(2), {1: ["a"]})

    def test_promise_in_many_parts_counts_when_all_are_there(self) -> None:
        """G28: a long data list travels in parts; while a part is missing, the view is not prepared."""
        cluster = self.begin(settings=Settings(batch_bytes_max=1, frame_data_bytes_max=100))
        cluster.network.drop(passing(Proposal, receiver=1))
        cluster.network.drop(passing(Accept))
        for i in range(8):
            cluster.submit(0, f"c{i}", 1, b"x" * 80)
        cluster.run_until(lambda: len(cluster.disk(2).contents.slots) == 8)
        cluster.crash(0)
        self.no_more_filters()
        lost = cluster.network.drop(passing(PrepareOK, part=5))
        self.sent.clear()
        cluster.run_until(lambda: len(self.sent_by(2, PrepareOK)) >= 8)
        cluster.run(0.5)
        self.assertIs(self.state(1), State.LEADER_ELECTION)
        cluster.network.filters.remove(lost)
        self.until_executed([f"c{i}" for i in range(8)], 1, 2)
        self.assertEqual({m.parts for m in self.sent_by(2, PrepareOK)}, {8})

    def test_promise_waits_until_the_leader_can_be_told_everything(self) -> None:
        """G19: a follower that has dropped slots from memory does not answer a leader that lacks them.

        Its data list would be truncated, and let the leader bind other updates to those numbers.
        """
        cluster = self.begin(settings=Settings(batch_bytes_max=1, history_slots_kept=0))
        cluster.isolate(1)
        for timestamp in range(1, 6):
            cluster.submit(2, "a", timestamp)
            cluster.run(0.05)
        self.assertEqual((cluster.aru(2), cluster.replica(2).data.ordering.global_history.floor), (5, 5))
        cluster.network.drop(passing(*RECONCILIATION))
        cluster.crash(0)
        cluster.heal()
        cluster.run_until(
            lambda: self.view(1) > 1 and self.view(1) == self.view(2) and bool(self.sent_by(1, Prepare)), 20
        )
        cluster.run(0.5)
        self.assertEqual(self.sent_by(2, PrepareOK)[1:], [])
        self.no_more_filters()
        cluster.submit(1, "b", 1)
        self.until_executed(["a"] * 5 + ["b"], 1, 2, seconds=20)

    def test_leader_far_behind_catches_up_before_it_is_answered(self) -> None:
        """Section 5.6: a leader that lacks more slots than a data list carries is answered only after reconciliation;
        its PREPARE is tabled."""
        cluster = self.begin(settings=Settings(window_slots=2, batch_bytes_max=1))
        cluster.isolate(1)
        for timestamp in range(1, 31):
            cluster.submit(2, "a", timestamp)
            cluster.run(0.03)
        self.assertEqual((cluster.aru(1), cluster.aru(2)), (0, 30))
        cluster.crash(0)
        cluster.heal()
        self.until_executed(["a"] * 30, 1, 2, seconds=20)
        reported = [len(m.data_list) for m in self.sent_by(2, PrepareOK)]
        self.assertLessEqual(max(reported), 4 * 2)

    def test_nothing_of_an_older_view_is_accepted_after_the_promise(self) -> None:
        """Figure 7 B: a follower accepts nothing of an older view after its promise, not after a crash either, since
        the view was on disk first."""
        cluster = self.begin(5, settings=ONE_UPDATE_A_SLOT)
        late = cluster.network.hold(passing(Proposal, view=1))
        cluster.submit(0, "late", 1)
        cluster.run(0.1)
        cluster.isolate(0)
        cluster.run_until(lambda: any(promise.view == 2 for promise in self.sent_by(3, PrepareOK)), 10)
        cluster.crash(3)
        cluster.restart(3)
        cluster.heal()
        late.release()
        cluster.run(0.3)
        self.assertEqual([m for m in self.sent_by(3, Accept) if m.view == 1], [])

    def test_parts_of_two_promises_are_not_mixed(self) -> None:
        """G28 and G9 (i): parts of two promises are not mixed: a follower that restarts amid a promise in parts makes
        another one, cut differently.

        The first half of the one and the second half of the other may leave out a vote between them.
        """
        cluster = self.begin(settings=Settings(batch_bytes_max=1, frame_data_bytes_max=250))
        cluster.network.drop(passing(Proposal, Accept, receiver=1))
        cluster.network.drop(passing(*RECONCILIATION))
        for timestamp in range(1, 5):
            if timestamp == 2:
                cluster.network.drop(passing(Accept, receiver=2))
            cluster.submit(0, "a", timestamp, b"x" * 80)
            cluster.run_until(lambda timestamp=timestamp: ("a", timestamp) in cluster.answers)
        cluster.run(0.5)
        self.assertEqual([cluster.aru(i) for i in cluster.ids], [4, 0, 1])
        cluster.crash(0)
        self.no_more_filters()
        cluster.network.drop(passing(*RECONCILIATION))
        second_half = cluster.network.drop(passing(PrepareOK, part=1))
        cluster.run_until(lambda: cluster.aru(1) == 1)
        cluster.crash(2)
        cluster.network.filters.remove(second_half)
        cluster.restart(2)
        self.until_executed(["a"] * 4, 1, 2, seconds=20)
