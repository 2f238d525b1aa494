"""Drills: a correct cluster comes through each, and each finds the defect that it is there for."""

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
from pfsb.simulator.runs.liveness_drills import LivenessDrills, Question, Times
from pfsb.simulator.runs.run import Plan, Run

DRILLS = ("idleness", "blackout", "lateness", "detour", "absence", "restart", "failover")


def quiet_run(servers: int = 3, patch: Plant | None = None) -> Run:
    """Everybody leads or follows, nobody asks for anything, and the timers are the usual ones."""
    usual = Settings()
    with mock.patch.object(parameters, "_settings", lambda rng, drawn: usual):
        run = Run(Plan(1, "calm", servers=servers, seconds=1.0), patch)
    run.cluster.network.refusals = False
    run._begin()
    run.population.finish()
    run.cluster.run(3)
    return run


class FairWeatherTests(SynchronousTestCase):
    def weather(self, patch: Plant | None = None, servers: int = 3) -> LivenessDrills:
        run = quiet_run(servers, patch)
        return LivenessDrills(run.cluster, random.Random(self._testMethodName), run.marks)

    def violation(self, weather: LivenessDrills, drill: str, times: int = 1) -> str:
        """What a drill says, that chance may make pass some times."""

        def repeat() -> None:
            for _ in range(times):
                getattr(weather, drill)()
                heal_all(weather.cluster)
                weather.settle()

        return str(self.assertRaises(Violation, repeat))

    def test_correct_cluster_comes_through_each_drill(self) -> None:
        """With as many servers as there may be, or nearly."""
        for servers in (3, 4, 5):
            weather = self.weather(servers=servers)
            weather.look(len(weather._able()))
            for drill in DRILLS:
                self.assertGreater(weather.marks.counts[f"drill: {drill}"], 0, drill)

    def test_small_clusters_have_fewer_drills(self) -> None:
        """Nobody can be spared."""
        for servers, drills in ((1, {"idleness"}), (2, {"idleness", "blackout", "lateness"})):
            weather = self.weather(servers=servers)
            self.assertEqual({drill.__name__ for drill in weather._able()}, drills)
            weather.look(3)

    def test_votes_that_interrupt_are_found(self) -> None:
        """Figure 4 A4; a VC_PROOF that comes first may bring the server back before it votes."""
        self.assertIn("worked, and now", self.violation(self.weather(planted("votes-interrupt")), "absence", 5))

    def test_vote_that_never_comes_is_found(self) -> None:
        """Departure 25: reconciliation would bring the result, too, but later."""
        self.assertIn(
            "all should have executed", self.violation(self.weather(planted("lazy-vote-lost")), "lateness", 5)
        )

    def test_server_that_stays_out_of_its_view_is_found(self) -> None:
        """G9."""
        self.assertIn("is here again", self.violation(self.weather(planted("no-way-back")), "restart"))

    def test_update_that_is_not_relayed_is_found(self) -> None:
        """G8.3."""
        self.assertIn("did not reach", self.violation(self.weather(planted("relay-left-out")), "detour"))

    def test_what_is_not_repeated_is_found(self) -> None:
        """Section 5.9 and Figure 12 B: a blackout loses another message each time."""
        for name in ("proposals-not-repeated", "accept-not-repeated", "updates-not-repeated"):
            said = self.violation(self.weather(planted(name)), "blackout", 300)
            self.assertTrue("nothing arrived" in said or "an update waits" in said, said)

    def test_elections_without_a_cause_are_found(self) -> None:
        """Departure 10."""
        weather = self.weather()
        for server_id in weather.cluster.ids:
            weather.cluster.replica(server_id).flow_control.knows_of_unexecuted_update = lambda: True
        self.assertIn("nothing has happened", str(self.assertRaises(Violation, weather.idleness)))

    def test_leader_that_is_missed_late_is_found(self) -> None:
        """G8: its followers wait as if many elections had failed."""
        weather = self.weather()
        for server_id in weather.cluster.ids:
            replica = weather.cluster.replica(server_id)
            replica.data.timers.progress_seconds *= 8
            replica.progress_timer.start()
        self.assertIn("the leader is dead", str(self.assertRaises(Violation, weather.failover)))

    def test_timer_that_does_not_come_back_is_found(self) -> None:
        """G8."""
        weather = self.weather()
        timer = weather.cluster.replica(1).progress_timer
        timer.double()
        timer.back_to_default = lambda: None
        self.assertIn("Progress_Timer of server 1 stays", str(self.assertRaises(Violation, weather.settle)))

    def test_who_has_promised_to_follow_a_later_view_is_waited_for(self) -> None:
        """Figure 4 A4: it does not interrupt the others, and the next election takes it along."""
        weather = self.weather()
        cluster = weather.cluster
        away = weather._follower()
        cluster.isolate(away)
        cluster.run_until(lambda: cluster.replica(away).data.server.state is State.LEADER_ELECTION)
        other = (away + 1) % 3
        later = next(view for view in range(50, 60) if cluster.replica(0).membership.leader_of(view) == other)
        cluster.replica(away).receive(other, cluster.disk(other).identity, [VCProof(other, later)])
        cluster.run(0.01)
        cluster.run_until(lambda: cluster.replica(away).data.server.state is State.LEADER_ELECTION)
        cluster.heal()
        weather.settle()
        self.assertGreater(weather.marks.counts["some wait in a later view"], 0)
        self.assertGreater(weather._view(), later)


class TimesTests(SynchronousTestCase):
    def test_bounds_are_those_of_the_slowest_and_of_the_fastest_clock(self) -> None:
        """The same timer is long here and short there."""
        cluster = quiet_run().cluster
        settings, times = cluster.settings, Times(cluster)
        self.assertEqual(times.earliest_suspicion, settings.progress_seconds)
        self.assertTrue(times.is_steady)
        for server_id, rate in ((0, 0.5), (1, 2.0)):
            running = cluster.servers[server_id].running
            assert running is not None
            running.lane.rate = rate
        self.assertEqual(times.earliest_suspicion, settings.progress_seconds / 2)
        self.assertEqual(times.update, settings.update_seconds * 2)

    def test_clocks_that_are_too_different_have_no_drills(self) -> None:
        """A leader with a slow clock is heard too seldom for a fast one."""
        run = quiet_run()
        for server_id, rate in ((0, 0.1), (1, 10.0)):
            running = run.cluster.servers[server_id].running
            assert running is not None
            running.lane.rate = rate
        self.assertEqual(LivenessDrills(run.cluster, random.Random(1), run.marks)._able(), [])


class QuestionTests(SynchronousTestCase):
    def test_answered_when_it_has_run(self) -> None:
        """Not before."""
        cluster = quiet_run().cluster
        question = Question(0, cluster.process(0).server.local_clients)
        question.ask()
        self.assertFalse(question.is_answered)
        cluster.run(0.1)
        self.assertTrue(question.is_answered)

    def test_answered_when_it_has_run_though_its_fate_was_unknown_for_a_while(self) -> None:
        """UNAVAILABLE is no answer, and none follows it."""
        run = quiet_run()
        cluster = run.cluster
        question = Question(0, cluster.process(0).server.local_clients)
        cluster.isolate(0)
        question.ask()
        cluster.run(run.parameters.limits.request_seconds + 0.5)
        self.assertFalse(question.is_answered)
        cluster.heal()
        cluster.run(10)
        self.assertTrue(question.is_answered)
