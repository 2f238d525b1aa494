"""Departures 48 and 49: measures of slow disks, lossy links and failovers, with their bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.defects.all_defects import DEFECTS
from pfsb.simulator.runs import pace_drills
from pfsb.simulator.runs.pace_drills import SYNCS, PaceDrills
from tests.long import long, longest


def drills(seed: int, servers: int = 3, patch: Callable[[Any], None] | None = None) -> PaceDrills:
    cluster = SimulatedCluster(seed, servers, patch=patch)
    cluster.run_until(cluster.has_leader)
    return PaceDrills(cluster, random.Random(seed), Marks())


def defect(name: str) -> Callable[[Any], None]:
    return DEFECTS[name].apply


@long
class MeasureTests(SynchronousTestCase):
    def test_slow_disks_cost_no_view_and_few_copies(self) -> None:
        """With syncs of 0.6, 1.2 and 5 s there is one view, nearly the rate of the disks, and fewer than three copies
        of an update."""
        for sync in SYNCS:
            self.patch(pace_drills, "SYNCS", (sync,))
            drills(1, 3).slow_disks()
            found = drills(1, 5)
            found.settle_pace()
            found.slow_disks()

    @longest
    def test_lossy_links_cost_milliseconds(self) -> None:
        """With 30 % of all frames lost, an update takes milliseconds; with fixed times of repetition a cluster executed
        15 to 30 updates a second."""
        for seed in (1, 2):
            drills(seed).lossy_links()

    def test_dead_leader_is_replaced_in_time(self) -> None:
        """A dead leader is replaced within 0.25 s if its address refuses frames, and within four Progress_Timers
        otherwise."""
        for seed in range(5):
            for servers in (3, 5):
                drills(seed, servers).betrayed_death()
                drills(seed, servers).silent_death()

    def test_dead_leader_is_replaced_in_time_after_a_pause(self) -> None:
        """Departure 48: a dead leader is replaced in time also when the vote of a server that was paused for 40 s is
        needed."""
        for seed in range(3):
            for servers in (3, 5):
                found = drills(seed, servers)
                found.settle_pace()
                found.death_after_a_pause()

    @longest
    def test_links_that_are_slow_one_way_cost_few_copies(self) -> None:
        """Departure 49: links on which the leader's frames take 0.3 s, and those of the others a millisecond, cost few
        copies."""
        for servers in (3, 5):
            drills(1, servers).slow_links()

    def test_failover_after_slow_disks_is_as_fast_as_before(self) -> None:
        """Departure 48: a failover after slow disks is as fast as before them, since measured times come down again."""
        both = drills(3)
        both.slow_disks()
        pace_drills.heal_all(both.cluster)
        both.settle_pace()
        both.silent_death()


@long
class DefectTests(SynchronousTestCase):
    """Each drill fails with a defect that it is there for."""

    def setUp(self) -> None:
        self.addCleanup(self.flushLoggedErrors)
        self.patch(pace_drills, "SYNCS", (5.0,))

    def assertFails(self, drill: str, broken: str, text: str, seed: int = 1) -> None:
        found = self.assertRaises(Violation, getattr(drills(seed, patch=defect(broken)), drill))
        self.assertIn(text, str(found))

    def test_timer_that_slow_disks_do_not_make_longer_changes_views(self) -> None:
        """Departure 48: a server whose timer does not get longer by the measured time of slots, or by its own disk
        before that, changes views on slow disks."""
        self.assertFails("slow_disks", "timer-without-disk", "became view")
        self.patch(pace_drills, "SYNCS", (0.6,))
        self.assertFails("slow_disks", "timer-without-slots", "became view", seed=3)

    def test_pause_that_counts_as_the_time_of_a_slot_is_found(self) -> None:
        """Departure 48: a pause that counts as the time of a slot is found in a cluster of three, where the vote of the
        paused server is needed."""
        self.assertFails("death_after_a_pause", "standstill-measured", "the leader died, and after")

    def test_slow_answers_that_count_for_copies_are_found(self) -> None:
        """Departure 49: a server that counts each answer to a repeated message for the last copy measures waits that
        are too short, and is found: it sends each PROPOSAL twice."""
        self.assertFails("slow_links", "waits-guessed", "over slow links", seed=0)

    def test_waits_that_stay_long_are_found(self) -> None:
        """Departure 49: waits that stay long after a few losses are found."""
        self.assertFails("lossy_links", "waits-stay-long", "updates were answered")
