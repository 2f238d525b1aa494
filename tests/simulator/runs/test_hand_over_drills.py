"""Drills with hand-overs: a correct cluster passes each, and each finds the defect that it is there for."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.defects.all_defects import planted
from pfsb.simulator.runs.hand_over_drills import HandOverDrills
from tests.long import long
from tests.simulator.runs.test_liveness_drills import quiet_run


@long
class HandOverDrillTests(SynchronousTestCase):
    def drills(self, defect: str | None = None, servers: int = 3) -> HandOverDrills:
        run = quiet_run(servers, planted(defect) if defect is not None else None)
        drills = HandOverDrills(run.cluster, random.Random(self._testMethodName), run.marks)
        drills.settle()
        return drills

    def test_correct_cluster_comes_through_each_drill(self) -> None:
        """All drills are run with two, three and five servers."""
        for servers in (2, 3, 5):
            drills = self.drills(servers=servers)
            drills.run_drills(len(drills.possible_drills()))
            self.assertGreater(drills.marks.counts["drill: hand_over"], 0)

    def test_followers_that_wait_for_their_timers_are_found(self) -> None:
        said = str(self.assertRaises(Violation, self.drills("hand-over-not-followed").hand_over))
        self.assertIn("Progress_Timers have expired", said)

    def test_leader_that_stops_without_handing_over_is_found(self) -> None:
        said = str(self.assertRaises(Violation, self.drills("stops-without-handing-over").retirement))
        self.assertIn("was asked to stop", said)

    def test_leader_that_asks_nobody_is_found(self) -> None:
        said = str(self.assertRaises(Violation, self.drills("target-not-asked").silent_target))
        self.assertIn("a target stands still", said)

    def test_followers_of_former_leaders_are_found(self) -> None:
        drills = self.drills("former-leader-hands-over", servers=5)
        self.assertIn("repeats its HAND_OVER", str(self.assertRaises(Violation, drills.late_copies)))
