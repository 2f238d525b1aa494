"""Drills with servers in later views: a correct cluster passes each, and each finds the defect that it is there for."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.stranding import all_follow, strand
from pfsb.simulator.defects.all_defects import planted
from pfsb.simulator.runs.view_drills import ViewDrills
from tests.long import long
from tests.simulator.runs.test_liveness_drills import quiet_run


@long
class ViewDrillTests(SynchronousTestCase):
    def drills(self, defect: str | None = None, servers: int = 5) -> ViewDrills:
        run = quiet_run(servers, planted(defect) if defect is not None else None)
        return ViewDrills(run.cluster, random.Random(self._testMethodName), run.marks)

    def test_correct_cluster_comes_through_each_drill(self) -> None:
        """A correct cluster of three to six servers passes each drill with later views."""
        for servers in (3, 4, 5, 6):
            drills = self.drills(servers=servers)
            drills.run_drills(len(drills.possible_drills()))
            for drill in ("later_view", "untrue_views"):
                self.assertGreater(drills.marks.counts[f"drill: {drill}"], 0, drill)

    def test_small_clusters_have_no_drills(self) -> None:
        """In a cluster of two servers, the leader has no majority without the other server."""
        self.assertEqual(self.drills(servers=2).possible_drills(), [])

    def test_minority_that_is_left_alone_is_found(self) -> None:
        """Departure 50: a leader that raises no view leaves the minority in its later view, and is found."""
        said = str(self.assertRaises(Violation, self.drills("view-not-raised").later_view))
        self.assertIn("a minority is in a later view", said)

    def test_leader_that_raises_its_view_again_and_again_is_found(self) -> None:
        """Departure 50: a leader that raises its view again and again, without growing waits, is found."""
        said = str(self.assertRaises(Violation, self.drills("raised-without-pause").untrue_views))
        self.assertIn("told untrue views", said)

    def test_server_that_stays_out_of_an_idle_view_is_found(self) -> None:
        """Departure 51: a server that does not return to an idle view is found. The drill is repeated, since an update
        of a server itself may bring the others back."""
        drills = self.drills("no-idle-way-back")

        def several_times() -> None:
            for _ in range(5):
                drills.settle()
                drills.stillness()

        self.assertIn("nothing is asked", str(self.assertRaises(Violation, several_times)))


class StrandingTests(SynchronousTestCase):
    def test_stranded_server_is_in_a_view_that_no_server_leads(self) -> None:
        """A stranded server is in a view that no server leads; a majority goes on in its own view."""
        cluster = quiet_run(3).cluster
        self.assertTrue(all_follow(cluster))
        leader = cluster.leader()
        view = max(cluster.checks.messages.leaders)
        (away,) = (i for i in cluster.ids if i != leader and cluster.replica(i).membership.leader_of(view + 1) != i)
        strand(cluster, [away], view + 1)
        self.assertEqual(cluster.replica(away).data.views.last_installed, view + 1)
        self.assertEqual(cluster.leader(), leader)
        self.assertEqual(max(cluster.checks.messages.leaders), view)
        self.assertFalse(all_follow(cluster))
