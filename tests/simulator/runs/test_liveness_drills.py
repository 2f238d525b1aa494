"""Liveness drills: a correct cluster passes each, and each finds the defect that it is there for."""

from __future__ import annotations

import random
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import State, VCProof
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.defects.all_defects import planted
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.faults import parameters
from pfsb.simulator.runs.liveness_drills import DrillRequest, LivenessDrills, TimerBounds
from pfsb.simulator.runs.run import Plan, Run
from tests.long import long

DRILLS = ("idleness", "blackout", "lateness", "detour", "absence", "restart", "failover")


def quiet_run(servers: int = 3, patch: Plant | None = None) -> Run:
    """Make a run whose cluster has settled, without requests, and with the default timers."""
    usual = Settings()
    with mock.patch.object(parameters, "draw_settings", lambda rng, drawn: usual):
        run = Run(Plan(1, "calm", servers=servers, seconds=1.0), patch)
    run.cluster.network.refusals = False
    run.begin()
    run.population.finish()
    run.cluster.run(3)
    return run


@long
class LivenessDrillTests(SynchronousTestCase):
    def liveness(self, patch: Plant | None = None, servers: int = 3) -> LivenessDrills:
        run = quiet_run(servers, patch)
        return LivenessDrills(run.cluster, random.Random(self._testMethodName), run.marks)

    def violation(self, liveness: LivenessDrills, drill: str, times: int = 1) -> str:
        """Run the drill up to so many times. Returns its violation, or "" if it has always passed."""

        def repeat() -> None:
            for _ in range(times):
                getattr(liveness, drill)()
                heal_all(liveness.cluster)
                liveness.settle()

        return str(self.assertRaises(Violation, repeat))

    def test_correct_cluster_comes_through_each_drill(self) -> None:
        """A correct cluster of three to five servers passes each drill."""
        for servers in (3, 4, 5):
            liveness = self.liveness(servers=servers)
            liveness.run_drills(len(liveness.possible_drills()))
            for drill in DRILLS:
                self.assertGreater(liveness.marks.counts[f"drill: {drill}"], 0, drill)

    def test_small_clusters_have_fewer_drills(self) -> None:
        """Clusters of one or two servers have fewer drills, since they can spare no server."""
        for servers, drills in ((1, {"idleness"}), (2, {"idleness", "blackout", "lateness"})):
            liveness = self.liveness(servers=servers)
            self.assertEqual({drill.__name__ for drill in liveness.possible_drills()}, drills)
            liveness.run_drills(3)

    def test_votes_that_interrupt_are_found(self) -> None:
        """Figure 4 A4: votes that interrupt a leader are found. The drill is repeated, since a VC_PROOF may bring the
        server back before it votes."""
        self.assertIn("worked, and now", self.violation(self.liveness(planted("votes-interrupt")), "absence", 5))

    def test_vote_that_never_comes_is_found(self) -> None:
        """Departure 25: a server that does not get a vote is found, although reconciliation would bring it the slot
        later."""
        self.assertIn(
            "all should have executed", self.violation(self.liveness(planted("lazy-vote-lost")), "lateness", 5)
        )

    def test_server_that_stays_out_of_its_view_is_found(self) -> None:
        """G9: a server that has left its view for a moment and does not return is found."""
        self.assertIn("is here again", self.violation(self.liveness(planted("no-way-back")), "restart"))

    def test_update_that_is_not_relayed_is_found(self) -> None:
        """G8.3: a server that does not relay an update to the leader is found."""
        self.assertIn("did not reach", self.violation(self.liveness(planted("relay-left-out")), "detour"))

    def test_what_is_not_repeated_is_found(self) -> None:
        """Servers that do not repeat lost messages are found (section 5.9 of the paper and Figure 12 B); each blackout
        loses another kind."""
        for name in ("proposals-not-repeated", "accept-not-repeated", "updates-not-repeated"):
            said = self.violation(self.liveness(planted(name)), "blackout", 300)
            self.assertTrue("nothing arrived" in said or "an update waits" in said, said)

    def test_elections_without_a_cause_are_found(self) -> None:
        """Elections in an idle cluster are found (Departure 10)."""
        liveness = self.liveness()
        for server_id in liveness.cluster.ids:
            liveness.cluster.replica(server_id).demand.knows_of_unexecuted_update = lambda: True
        self.assertIn("nothing has happened", str(self.assertRaises(Violation, liveness.idleness)))

    def test_leader_that_is_missed_late_is_found(self) -> None:
        """G8: followers that suspect a dead leader as late as if many elections had failed are found."""
        liveness = self.liveness()
        for server_id in liveness.cluster.ids:
            replica = liveness.cluster.replica(server_id)
            replica.data.timers.progress_seconds *= 8
            replica.progress_timer.start()
        self.assertIn("the leader is dead", str(self.assertRaises(Violation, liveness.failover)))

    def test_timer_that_does_not_come_back_is_found(self) -> None:
        """G8: a timer that stays long after an election is found."""
        liveness = self.liveness()
        timer = liveness.cluster.replica(1).progress_timer
        timer.double()
        timer.come_down = lambda: None
        self.assertIn("Progress_Timer of server 1 stays", str(self.assertRaises(Violation, liveness.settle)))

    def test_who_has_promised_to_follow_a_later_view_is_waited_for(self) -> None:
        """Departure 50: a leader that waits for a server in a later view raises its view above that server's, and the
        server joins."""
        liveness = self.liveness()
        cluster = liveness.cluster
        leader = cluster.leader()
        away = next(server_id for server_id in cluster.ids if server_id != leader)
        cluster.isolate(away)
        cluster.run_until(lambda: cluster.replica(away).data.server.state is State.LEADER_ELECTION)
        other = (away + 1) % 3
        later = next(view for view in range(50, 60) if cluster.replica(0).membership.leader_of(view) == other)
        cluster.hand_over(other, away, [VCProof(other, later)])
        cluster.run(0.01)
        cluster.run_until(lambda: cluster.replica(away).data.server.state is State.LEADER_ELECTION)
        leader = cluster.leader()
        cluster.heal()
        liveness.settle()
        self.assertEqual(cluster.leader(), leader)
        self.assertGreater(cluster.replica(away).data.views.last_installed, later)


class TimerBoundsTests(SynchronousTestCase):
    def test_bounds_are_those_of_the_slowest_and_of_the_fastest_clock(self) -> None:
        """A timer lasts longest by the slowest clock, and shortest by the fastest one: the bounds are made of these."""
        cluster = quiet_run().cluster
        settings, times = cluster.settings, TimerBounds(cluster)
        self.assertEqual(times.earliest_suspicion, settings.progress_seconds)
        self.assertTrue(times.is_steady)
        for server_id, rate in ((0, 0.5), (1, 2.0)):
            running = cluster.servers[server_id].running
            assert running is not None
            running.server_clock.rate = rate
        self.assertEqual(times.earliest_suspicion, settings.progress_seconds / 2)
        self.assertEqual(times.update, settings.update_seconds * 2)

    def test_clocks_that_are_too_different_have_no_drills(self) -> None:
        """A cluster whose clocks are too different has no drills: a follower with a fast clock would hear a slow leader
        too seldom."""
        run = quiet_run()
        for server_id, rate in ((0, 0.1), (1, 10.0)):
            running = run.cluster.servers[server_id].running
            assert running is not None
            running.server_clock.rate = rate
        self.assertEqual(LivenessDrills(run.cluster, random.Random(1), run.marks).possible_drills(), [])


class DrillRequestTests(SynchronousTestCase):
    def test_answered_when_it_has_run(self) -> None:
        """A request of a drill is answered when it has run, and not before."""
        cluster = quiet_run().cluster
        request = DrillRequest(0, cluster.process(0).server.local_clients)
        request.ask()
        self.assertFalse(request.is_answered)
        cluster.run(0.1)
        self.assertTrue(request.is_answered)

    def test_answered_when_it_has_run_though_its_fate_was_unknown_for_a_while(self) -> None:
        """A request that is told UNAVAILABLE counts as answered when it has run, although no other answer follows."""
        run = quiet_run()
        cluster = run.cluster
        request = DrillRequest(0, cluster.process(0).server.local_clients)
        cluster.isolate(0)
        request.ask()
        cluster.run(run.parameters.limits.request_seconds + 0.5)
        self.assertFalse(request.is_answered)
        cluster.heal()
        cluster.run(10)
        self.assertTrue(request.is_answered)
