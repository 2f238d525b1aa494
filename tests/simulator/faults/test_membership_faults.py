"""Runs in which the membership changes draw their servers and faults apart from all others."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.faults.membership_faults import address
from pfsb.simulator.faults.parameters import JOINERS, draw_parameters, families_left_out, with_members
from pfsb.simulator.faults.plan import CHANGES_BEGIN_SECONDS, draw_changes
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.run import Plan, Run
from pfsb.support.hosts import literal, parsed
from pfsb.support.limits import SERVER_ID_MAX

PROFILE = PROFILES["membership"]


class DrawingTests(SynchronousTestCase):
    """The draws of single runs."""

    def test_servers_that_may_be_added_have_ids_of_their_own(self) -> None:
        """They stand before, between and behind those of the founders, and all can be stored."""
        for seed in range(50):
            drawn = draw_parameters(random.Random(seed), PROFILE, None, None, random.Random(seed))
            changed = with_members(random.Random(seed), drawn)
            self.assertEqual(len({*changed.ids, *changed.joiners}), len(changed.ids) + JOINERS)
            self.assertTrue(all(0 <= each <= SERVER_ID_MAX for each in changed.joiners))
            self.assertEqual(changed.machines, tuple(sorted((*changed.ids, *changed.joiners))))

    def test_changes_are_numbered_behind_all_other_faults(self) -> None:
        """So the other faults of a seed stay as they are without them. The first servers have executed something."""
        drawn = draw_parameters(random.Random(1), PROFILE, 3, 60.0, random.Random(1))
        changes = draw_changes(random.Random(1), drawn, 7)
        self.assertEqual([each.number for each in changes], list(range(7, 7 + len(changes))))
        self.assertGreater(min(each.at for each in changes), CHANGES_BEGIN_SECONDS)
        self.assertEqual({each.family for each in changes}, {"members"})

    def test_families_are_left_out_but_for_the_changes(self) -> None:
        """Over some seeds, each family is there in some and away in others."""
        left_out = [families_left_out(random.Random(seed), PROFILE) for seed in range(60)]
        self.assertEqual(set().union(*left_out), set(PROFILE.families) - {"members"})
        self.assertNotIn("members", set().union(*left_out))

    def test_addresses_are_all_different_and_valid(self) -> None:
        """A change is refused if its address is none, or that of another server."""
        places = [parsed(address(number)) for number in range(0, 6_000, 7)]
        self.assertEqual(len(set(places)), len(places))
        self.assertTrue(all(place is not None and literal(*place) is not None for place in places))

    def test_cluster_begins_with_its_founders_alone(self) -> None:
        """The other servers have links, and are not started."""
        run = Run(Plan(3, "membership"))
        cluster, parameters = run.cluster, run.parameters
        self.assertEqual((cluster.ids, cluster.machines), (parameters.ids, parameters.machines))
        run.begin()
        self.assertEqual(tuple(cluster.running_ids), parameters.ids)
        joiner = parameters.joiners[0]
        self.assertEqual(cluster.file_of(parameters.ids[0]), parameters.ids)
        self.assertEqual(cluster.file_of(joiner), tuple(sorted((*parameters.ids, joiner))))
