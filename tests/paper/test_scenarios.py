"""Scenarios in which the pseudocode of the paper fails as written, and must not fail here (docs/defects.rst)."""

from __future__ import annotations

from functools import partial

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Ordered,
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
from pfsb.simulator.cluster.cluster import SimulatedCluster
from tests.long import long
from tests.paper.scenario import ONE_UPDATE_A_SLOT, ScenarioTestCase, passing

RECONCILIATION = (ReconciliationRequest, ReconciliationReply)


class ElectionScenarios(ScenarioTestCase):
    def test_02_leader_dies_right_after_a_server_joined_by_vc_proof(self) -> None:
        """G5: the Progress_Timer runs also in a view that was joined by a VC_PROOF, so when the leader dies the
        survivors elect another one."""
        cluster = self.begin(start=False)
        cluster.network.drop(passing(Prepare, Alive, ViewChange, receiver=2))
        for server_id in cluster.ids:
            cluster.restart(server_id)
        cluster.run_until(lambda: self.view(2) == 1 and self.state(0) is State.REG_LEADER)
        self.assertEqual(self.sent_by(2, PrepareOK), [])
        cluster.crash(0)
        self.no_more_filters()
        self.until_led_by(1, seconds=10)
        cluster.submit(2, "a", 1)
        self.until_executed(["a"], 1, 2)

    def test_servers_that_start_together_keep_the_first_view(self) -> None:
        """Departure 11: a refused frame is evidence only against a server that was heard before, since servers may
        start late; so the first view is kept."""
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            cluster = self.begin(start=False)
            cluster.network.refusals = True
            for server_id in order:
                cluster.restart(server_id)
                cluster.run(0.07)
            self.until_led_by(0, seconds=3.0)
            cluster.run(0.3)  # servers that meet for the first time may have missed the first PREPARE
            self.assertEqual([self.view(i) for i in cluster.ids], [1, 1, 1])

    def test_03_every_prepare_overtaken_by_vc_proof(self) -> None:
        """G7: a server that has installed the view by a VC_PROOF answers the PREPARE that comes later."""
        cluster = self.begin(start=False)
        prepares = cluster.network.hold(passing(Prepare))
        for server_id in cluster.ids:
            cluster.restart(server_id)
        cluster.run_until(lambda: all(self.state(i) is State.REG_NONLEADER for i in (1, 2)))
        prepares.release()
        cluster.run_until(lambda: self.state(0) is State.REG_LEADER, 1.0)
        self.assertEqual([self.view(i) for i in cluster.ids], [1, 1, 1])

    def test_09_recovered_follower_votes_again_in_the_same_view(self) -> None:
        """G9 (i): a server that has just recovered goes back to its view on a VC_PROOF, since its vote for another view
        is no promise."""
        cluster = self.begin()
        cluster.crash(2)
        cluster.restart(2)
        cluster.run_until(lambda: self.state(2) is State.REG_NONLEADER, 1.0)
        cluster.crash(1)
        cluster.submit(0, "a", 1)
        self.until_executed(["a"], 0, 2, seconds=1.0)
        self.assertEqual([self.view(0), self.view(2)], [1, 1])

    def test_09_suspicion_ends_when_the_view_is_seen_to_order(self) -> None:
        """G9 (ii): a PROPOSAL of the leader, together with a Local_Aru that has grown since the suspicion, leads a
        server back to its view."""
        cluster = self.begin()
        self._let_server_2_suspect()
        for timestamp in range(1, 4):
            cluster.submit(1, "a", timestamp)
            cluster.run(0.5)
        self.assertIs(self.state(2), State.REG_NONLEADER)
        self.assertEqual([self.view(i) for i in cluster.ids], [1, 1, 1])

    def test_09_suspicion_does_not_end_by_vc_proof_alone(self) -> None:
        """G9: a VC_PROOF alone does not lead a suspecting server back: a server still in the view could otherwise
        prevent the election for ever."""
        cluster = self.begin()
        self._let_server_2_suspect()
        cluster.network.drop(passing(Alive, receiver=2))
        cluster.run(3)
        self.assertGreater(len(self.sent_by(0, VCProof)), 10)
        self.assertIs(self.state(2), State.LEADER_ELECTION)

    def test_09_suspicion_ends_when_an_idle_view_is_seen_to_work(self) -> None:
        """Departure 51: ALIVEs of a majority, the leader included, lead a server back to an idle view."""
        cluster = self.begin()
        self._let_server_2_suspect()
        cluster.run_until(lambda: self.state(2) is State.REG_NONLEADER, 1.0)
        cluster.crash(1)
        cluster.submit(0, "a", 1)
        self.until_executed(["a"], 0, 2, seconds=1.0)
        self.assertEqual([self.view(0), self.view(2)], [1, 1])

    def _let_server_2_suspect(self) -> None:
        self.cluster.isolate(2)
        self.cluster.run_until(lambda: self.state(2) is State.LEADER_ELECTION)
        self.cluster.heal()

    @long
    def test_11_idle_for_a_hundred_timeouts(self) -> None:
        """G8, Departure 10: an idle system holds no elections, and writes nothing to its disks."""
        cluster = self.begin()
        cluster.submit(1, "a", 1)
        self.until_executed(["a"])
        cluster.run(1)
        written = [cluster.storage(i).counters.groups for i in cluster.ids]
        cluster.run(100 * cluster.settings.progress_seconds)
        self.assertEqual([self.view(i) for i in cluster.ids], [1, 1, 1])
        self.assertEqual(written, [cluster.storage(i).counters.groups for i in cluster.ids])

    def test_11_leader_killed_while_idle(self) -> None:
        """G8: the Progress_Timer always runs, so when an idle leader is killed there is a new one within one timeout,
        with nothing to order."""
        cluster = self.begin()
        cluster.submit(1, "a", 1)
        self.until_executed(["a"])
        cluster.run(7.3)
        cluster.crash(0)
        self.until_led_by(1, cluster.settings.progress_seconds + 0.1)


class OrderingScenarios(ScenarioTestCase):
    def test_01_follower_executes_while_the_other_is_down(self) -> None:
        """G14: with N=3 a follower counts its own ACCEPT, so it orders without reconciliation while the other follower
        is down."""
        cluster = self.begin()
        cluster.crash(2)
        cluster.network.drop(passing(*RECONCILIATION))
        cluster.submit(0, "a", 1)
        cluster.submit(1, "b", 1)
        cluster.run_until(lambda: set(self.clients_executed(1)) == {"a", "b"}, 1.0)

    def test_04_hole_below_what_the_new_leader_knows(self) -> None:
        """G11: with a proposal in slot 2, nothing in slot 1 and an empty queue, slot 1 gets a no-op and slot 2 is
        executed."""
        self._leave_a_hole(origin_of_b=0)
        self.until_executed(["b"], 1, 2)
        self.assertEqual(self.proposed(view=2), {1: [], 2: ["b"]})

    def test_04_update_above_the_hole_is_sent_again(self) -> None:
        """G11: an update above the hole, which its server sends to the new leader once more, still has one slot, and
        runs once."""
        cluster = self._leave_a_hole(origin_of_b=2)
        self.until_executed(["b"], 1, 2)
        cluster.run(3)
        self.assertEqual(self.proposed(view=2), {1: [], 2: ["b"]})
        self.assertEqual(cluster.answers["b", 1], 2)

    def test_number_that_every_server_skips_becomes_a_hole_that_is_filled(self) -> None:
        """Each server is told by FAULT SKIP to leave slot 1 out: the next leader finds the hole below slot 2, and fills
        it."""
        cluster = self.begin()
        for server_id in cluster.ids:
            cluster.replica(server_id).proposals.skipped.add(1)
        cluster.submit(1, "a", 1)
        self.until_executed(["a"])
        self.assertGreater(self.view(0), 1)
        cluster.submit(2, "b", 1)
        self.until_executed(["a", "b"])

    def _leave_a_hole(self, origin_of_b: int) -> SimulatedCluster:
        """Make a cluster in which server 1 holds update b in slot 2 and nothing in slot 1; server 0, which has led, is
        gone, and nothing is ordered."""
        cluster = self.begin(settings=ONE_UPDATE_A_SLOT)
        for lost in (
            passing(Proposal, seq=1),
            passing(Proposal, seq=2, receiver=2),
            passing(Accept),
        ):
            cluster.network.drop(lost)
        cluster.submit(0, "a", 1)
        self.until_on_disk(0, 1, "a")
        cluster.submit(origin_of_b, "b", 1)
        self.until_on_disk(1, 2, "b")
        cluster.crash(0)
        self.no_more_filters()
        self.until_led_by(1)
        return cluster

    def test_05_one_update_at_two_numbers(self) -> None:
        """G15, N=3: two leaders bind update U to slots 1 and 2, and both bindings stand; U takes effect once."""
        cluster = self.begin(settings=ONE_UPDATE_A_SLOT)
        cluster.network.drop(passing(Proposal))
        cluster.submit(0, "U", 1)
        self.until_on_disk(0, 1, "U")
        cluster.crash(0)
        self.no_more_filters()
        self.until_led_by(1)

        cluster.network.drop(passing(Proposal, seq=1))
        cluster.network.drop(passing(Accept))
        cluster.submit(1, "W", 1)
        self.until_on_disk(1, 1, "W")
        cluster.submit(2, "U", 1)
        self.until_on_disk(2, 2, "U")
        cluster.crash(1)
        self.no_more_filters()

        cluster.restart(0)
        self.until_led_by(2)
        cluster.run_until(lambda: cluster.aru(0) >= 2 and cluster.aru(2) >= 2)
        self.assertEqual(self.proposed(view=self.view(2)), {1: ["U"], 2: ["U"]})
        self.assertEqual(cluster.answers, {("U", 1): 1})
        cluster.restart(1)
        self.until_executed(["U"], *cluster.ids)
        self.assertEqual(cluster.executed(1), [(1, "U", 1, b"")])

    def test_06_leader_learns_that_the_first_slot_is_ordered(self) -> None:
        """G1, N=5: a new leader that learns that slot 1 is ordered skips it, and binds its own two updates to the slots
        above."""
        cluster = self.begin(5, settings=ONE_UPDATE_A_SLOT)
        for lost in (
            passing(Proposal, receiver=1),
            passing(Proposal, receiver=4),
            *(passing(Ordered, receiver=i) for i in (1, 3, 4)),
            passing(*RECONCILIATION),
        ):
            cluster.network.drop(lost)
        cluster.submit(0, "v", 1)
        self.until_executed(["v"], 2)
        self.assertEqual([cluster.aru(i) for i in cluster.ids], [1, 0, 1, 0, 0])
        cluster.crash(0)
        cluster.crash(3)
        cluster.submit(1, "p", 1)
        cluster.submit(1, "q", 1)
        self.until_led_by(1)
        self.no_more_filters()
        self.until_executed(["v", "p", "q"], 1, 2, 4)
        self.assertEqual(self.proposed(self.view(1)), {2: ["p"], 3: ["q"]})

    def test_06_leader_learns_that_a_slot_above_a_gap_is_ordered(self) -> None:
        """G1, N=5: a new leader that learns that a slot above a gap is ordered proposes the slots below again, skips
        the ordered one, and goes on above."""
        cluster = self.begin(5, settings=ONE_UPDATE_A_SLOT)
        cluster.network.drop(passing(Proposal, receiver=1))
        cluster.network.drop(passing(Proposal, receiver=4))
        cluster.network.drop(passing(*RECONCILIATION))
        second_vote = passing(Accept, seqs=((2,),))
        cluster.network.drop(lambda p: isinstance(p.message, Accept) and not second_vote(p))
        cluster.network.drop(lambda p: isinstance(p.message, Ordered) and p.receiver != 2)
        for seq, client in ((1, "v"), (2, "w")):
            cluster.submit(0, client, 1)
            for server_id in (2, 3):
                self.until_on_disk(server_id, seq, client)
        cluster.run_until(lambda: cluster.replica(2).data.ordering.global_history.slots[2].ordered is not None)
        cluster.crash(0)
        cluster.crash(3)
        cluster.submit(1, "p", 1)
        cluster.submit(1, "q", 1)
        self.until_led_by(1)
        self.no_more_filters()
        self.until_executed(["v", "w", "p", "q"], 1, 2, 4)
        self.assertEqual(self.proposed(self.view(1)), {1: ["v"], 3: ["p"], 4: ["q"]})

    def test_07_all_that_is_missing_comes_as_ordered(self) -> None:
        """G13: slots that a data list reports as ordered are executed and answered at once, with nothing to propose."""
        cluster = self.begin()
        cluster.network.drop(passing(Proposal, Accept, receiver=1))
        cluster.network.drop(passing(*RECONCILIATION))
        cluster.submit(1, "a", 1)
        self.until_executed(["a"], 2)
        cluster.run(0.3)
        self.assertEqual((cluster.aru(1), cluster.answers), (0, {}))
        cluster.crash(0)
        cluster.network.drop(passing(Proposal, Accept))
        self.until_led_by(1)
        cluster.run_until(self.answered("a"), 0.05)
        self.assertEqual(self.clients_executed(1), ["a"])
        self.assertEqual(self.proposed(self.view(1)), {})

    def test_08_foreign_update_kept_in_the_queue_over_a_view_change(self) -> None:
        """G15: a server that leads again still has a foreign update in its queue, so its repetition is not bound once
        more."""
        cluster = self.begin(settings=Settings(window_slots=2, batch_bytes_max=1))
        unanswered = cluster.network.drop(passing(Accept))
        cluster.network.drop(passing(Prepare, view=(2, 3)))
        cluster.network.drop(passing(VCProof, installed=(2, 3)))
        for seq, client in ((1, "first"), (2, "second")):
            cluster.submit(0, client, 1)
            self.until_on_disk(2, seq, client)
        cluster.submit(2, "F", 1)
        queue = cluster.replica(0).data.clients.update_queue
        cluster.run_until(lambda: [update.client_id for update in queue] == ["F"])
        cluster.run_until(lambda: self.view(0) == 4 and self.state(0) is State.REG_LEADER, 60)
        cluster.run(2)
        cluster.network.filters.remove(unanswered)
        self.until_executed(["first", "second", "F"])
        cluster.run(2)
        self.assertEqual(self.proposed(4), {1: ["first"], 2: ["second"], 3: ["F"]})

    def test_12_path_to_the_leader_is_cut_one_way(self) -> None:
        """G8 (d): if the path from one server to the leader is cut one way, the others make progress and do not
        suspect; they relay the updates of that server."""
        cluster = self.begin()
        cluster.cut(2, 0, one_way=True)
        for timestamp in range(1, 41):
            cluster.clock.callLater(timestamp / 10, partial(cluster.submit, 1, "busy", timestamp))
        cluster.submit(2, "a", 1)
        cluster.run_until(self.answered("a"), 3.5)
        self.assertEqual([self.view(i) for i in cluster.ids], [1, 1, 1])


class DiskScenarios(ScenarioTestCase):
    def test_10_follower_crashes_between_vote_and_sync(self) -> None:
        """Section 5.8: a follower that crashes between vote and sync has sent no vote, so no server counts it; after
        the restart the follower votes anew."""
        cluster = self.begin()
        cluster.isolate(2)
        cluster.servers[1].sync_seconds = (0.2, 0.2)
        cluster.submit(0, "a", 1)
        cluster.run_until(lambda: bool(cluster.storage(1).pending_groups()))
        cluster.run(0.1)
        cluster.crash(1)
        self.assertEqual(self.sent_by(1, Accept), [])
        self.assertEqual((cluster.aru(0), cluster.answers), (0, {}))
        cluster.restart(1)
        cluster.run_until(self.answered("a"), 5)

    def test_10_follower_crashes_between_sync_and_send(self) -> None:
        """Section 5.8: the vote of a follower that crashes between sync and send is on its disk, so the next leader
        hears of it, although the ACCEPT never left."""
        cluster = self.begin()
        cluster.network.drop(passing(Proposal, receiver=2))
        cluster.servers[1].sync_seconds = (0.2, 0.2)
        cluster.submit(0, "a", 1)
        cluster.run_until(lambda: bool(cluster.storage(1).pending_groups()))
        cluster.crash(1, groups_kept=1)
        self.assertEqual(self.sent_by(1, Accept), [])
        self.assertEqual(self.held_on_disk(1, 1), ["a"])
        cluster.crash(0)
        self.no_more_filters()
        cluster.restart(1)
        self.until_executed(["a"], 1, 2, seconds=20)

    def test_10_leader_crashes_between_sync_and_send(self) -> None:
        """G10: a leader that crashes between sync and send has its proposal on its own disk alone; it never leads that
        view again, and reports the proposal."""
        cluster = self.begin()
        cluster.network.drop(passing(Proposal, Accept))
        cluster.servers[0].sync_seconds = (0.2, 0.2)
        cluster.submit(0, "a", 1)
        cluster.run_until(lambda: bool(cluster.storage(0).pending_groups()))
        cluster.crash(0, groups_kept=1)
        self.assertEqual(self.held_on_disk(0, 1), ["a"])
        self.no_more_filters()
        cluster.restart(0)
        cluster.crash(2)
        self.until_executed(["a"], 0, 1, seconds=20)
        self.assertGreater(self.view(0), 1)

    def test_10_torn_tail_of_the_log(self) -> None:
        """G20: a crash may leave any part of the write that was under way at the end of the log; all that was answered
        before is whole."""
        for torn in range(3):
            cluster = self.begin(settings=ONE_UPDATE_A_SLOT)
            cluster.submit(1, "before", 1)
            self.until_executed(["before"])
            cluster.servers[2].sync_seconds = (0.5, 0.5)
            for client in ("a", "b", "c", "d"):
                cluster.submit(0, client, 1)
            cluster.run_until(lambda: sum(self.cluster.storage(2).pending_groups()) >= 4)
            cluster.run(0.05)
            groups = cluster.storage(2).pending_groups()
            self.assertGreater(max(groups), torn)
            cluster.crash(2, groups.index(max(groups)), torn)
            cluster.crash(1)
            cluster.restart(2)
            cluster.submit(0, "after", 1)
            cluster.run_until(self.answered("before", "a", "b", "c", "d", "after"), 20)
            cluster.restart(1)
            cluster.run_until(cluster.all_equal)


class MajorityScenarios(ScenarioTestCase):
    def test_13_even_number_of_servers(self) -> None:
        """G27: with N=4 three servers are a majority, and two are not."""
        cluster = self.begin(4)
        cluster.crash(3)
        cluster.submit(1, "a", 1)
        cluster.run_until(self.answered("a"), 1)
        cluster.crash(2)
        cluster.submit(1, "b", 1)
        cluster.run(20)
        self.assertEqual(self.clients_executed(0), ["a"])
        cluster.restart(2)
        self.until_executed(["a", "b"], 0, 1, 2, seconds=30)

    def test_13_two_servers(self) -> None:
        """G27: with N=2 both servers are needed."""
        cluster = self.begin(2)
        cluster.crash(1)
        cluster.submit(0, "a", 1)
        cluster.run(20)
        self.assertEqual(cluster.answers, {})
        cluster.restart(1)
        self.until_executed(["a"], seconds=30)

    def test_13_one_server(self) -> None:
        """G6: a single server elects itself and orders, and does so again after a crash."""
        cluster = self.begin(1)
        cluster.submit(0, "a", 1)
        cluster.run_until(self.answered("a"), 1)
        cluster.crash(0)
        cluster.restart(0)
        cluster.submit(0, "b", 1)
        self.until_executed(["a", "b"], seconds=10)

    @long
    def test_13_minority_with_clients(self) -> None:
        """Section 4: a minority executes nothing; when the partition heals, all updates of its clients are executed."""
        for minority in ((3, 4), (0, 1)):
            cluster = self.begin(5)
            cluster.isolate(*minority)
            majority = [i for i in cluster.ids if i not in minority]
            for server_id in cluster.ids:
                cluster.submit(server_id, f"client of {server_id}", 1)
            cluster.run_until(self.answered(*(f"client of {i}" for i in majority)), 20)
            cluster.run(10)
            self.assertEqual([self.clients_executed(i) for i in minority], [[], []])
            cluster.heal()
            cluster.run_until(self.answered(*(f"client of {i}" for i in cluster.ids)), 20)
            cluster.run_until(cluster.all_equal)

    def test_13_what_a_minority_leader_proposed(self) -> None:
        """S1: the batches that an old leader bound with a minority give way to those that the majority has chosen
        without it."""
        cluster = self.begin(5)
        cluster.isolate(0, 1)
        cluster.submit(0, "alone", 1)
        self.until_on_disk(1, 1, "alone")
        cluster.submit(3, "chosen", 1)
        self.until_executed(["chosen"], 2, 3, 4, seconds=20)
        cluster.heal()
        self.until_executed(["chosen", "alone"], seconds=20)
        cluster.run(1)
        self.assertEqual(self.held_on_disk(0, 1), ["chosen"])
