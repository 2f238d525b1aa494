"""Runs in which the membership changes draw their servers and faults apart from all others."""

from __future__ import annotations

import random

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.faults.membership_faults import address
from pfsb.simulator.faults.parameters import JOINERS, draw_parameters, families_left_out, with_members
from pfsb.simulator.faults.plan import CHANGES_BEGIN_SECONDS, draw_changes
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.run import Plan, Run
from pfsb.support.hosts import literal, parsed
from pfsb.support.limits import SERVER_ID_MAX

PROFILE = PROFILES["membership"]


class ModifierTests(SynchronousTestCase):
    """Changes of the membership can be added to most profiles."""

    def test_all_else_is_drawn_as_without_them(self) -> None:
        """With changes, the users, sizes and faults of a seed are those that it has without them; further ones come
        while the run goes on for longer."""
        for profile, snapshots in (("mixed", False), ("mixed", True), ("disks", False), ("settings", True)):
            plan = Plan(5, profile, snapshots=snapshots)
            without, with_them = Run(plan), Run(evolve(plan, members=True))
            before, after = without.parameters, with_them.parameters
            self.assertEqual(with_them.faults[: len(without.faults)], without.faults)
            self.assertEqual([each.number for each in with_them.faults], list(range(len(with_them.faults))))
            further = with_them.faults[len(without.faults) :]
            changes = {"members", "hand_overs"}
            self.assertTrue(all(each.at > before.seconds or each.family in changes for each in further))
            self.assertLess({"members"}, {each.family for each in further})
            changed = evolve(
                after,
                seconds=before.seconds,
                families=after.families - changes,
                joiners=(),
                changing_settings=before.changing_settings,
                home_servers=before.home_servers,
            )
            self.assertEqual(changed, before)

    def test_leaders_hand_over_in_most_seeds(self) -> None:
        """Hand-overs are added with the changes, but not in all seeds."""
        found = [any(each.family == "hand_overs" for each in Run(Plan(n, members=True)).faults) for n in range(12)]
        self.assertIn(True, found)
        self.assertIn(False, found)

    def test_members_stay_where_they_cannot_change(self) -> None:
        """A profile without sessions, or one in which no server is told again what was ordered, runs as without
        changes."""
        staying = {name for name, profile in PROFILES.items() if profile.why_members_stay}
        self.assertEqual(staying, {"pace", "told-once", "overtaking", "snapshot-paper", "paper"})
        for name in sorted(staying):
            plan = Plan(2, name)
            plain, run = Run(plan), Run(evolve(plan, members=True))
            self.assertEqual((run.faults, run.parameters), (plain.faults, plain.parameters), name)

    def test_family_that_is_left_out_changes_no_other_draw(self) -> None:
        """`--without` leaves out faults, and the others keep their numbers, times and kinds."""
        plan = Plan(5, snapshots=True, members=True)
        some = Run(evolve(plan, without=frozenset({"hand_overs", "crashes"}))).faults
        kept = [each for each in Run(plan).faults if each.family not in ("hand_overs", "crashes")]
        self.assertEqual(list(some), kept)


class DrawingTests(SynchronousTestCase):
    """The draws of single runs."""

    def test_servers_that_may_be_added_have_ids_of_their_own(self) -> None:
        """The new ids stand before, between and behind those of the founders, and all can be stored."""
        for seed in range(50):
            drawn = draw_parameters(random.Random(seed), PROFILE, None, None, random.Random(seed))
            changed = with_members(random.Random(seed), drawn)
            self.assertEqual(len({*changed.ids, *changed.joiners}), len(changed.ids) + JOINERS)
            self.assertTrue(all(0 <= each <= SERVER_ID_MAX for each in changed.joiners))
            self.assertEqual(changed.machines, tuple(sorted((*changed.ids, *changed.joiners))))

    def test_changes_are_numbered_behind_all_other_faults(self) -> None:
        """Changes come when the servers have executed something, and leave the other faults of a seed as they are."""
        drawn = draw_parameters(random.Random(1), PROFILE, 3, 60.0, random.Random(1))
        changes = draw_changes(random.Random(1), drawn, 7)
        self.assertEqual([each.number for each in changes], list(range(7, 7 + len(changes))))
        self.assertGreater(min(each.at for each in changes), CHANGES_BEGIN_SECONDS)
        self.assertEqual({each.family for each in changes}, {"members"})

    def test_families_are_left_out_but_for_the_changes(self) -> None:
        """Each family of faults but the changes of the membership is left out in some seeds."""
        left_out = [families_left_out(random.Random(seed), PROFILE) for seed in range(60)]
        self.assertEqual(set().union(*left_out), set(PROFILE.families) - {"members"})
        self.assertNotIn("members", set().union(*left_out))

    def test_addresses_are_all_different_and_valid(self) -> None:
        """A change is refused if its address is none, or that of another server."""
        places = [parsed(address(number)) for number in range(0, 6_000, 7)]
        self.assertEqual(len(set(places)), len(places))
        self.assertTrue(all(place is not None and literal(*place) is not None for place in places))

    def test_cluster_begins_with_its_founders_alone(self) -> None:
        """All servers that are no founders have links, and are not started."""
        run = Run(Plan(3, "membership"))
        cluster, parameters = run.cluster, run.parameters
        self.assertEqual((cluster.ids, cluster.machines), (parameters.ids, parameters.machines))
        run.begin()
        self.assertEqual(tuple(cluster.running_ids), parameters.ids)
        joiner = parameters.joiners[0]
        self.assertEqual(cluster.file_of(parameters.ids[0]), parameters.ids)
        self.assertEqual(cluster.file_of(joiner), tuple(sorted((*parameters.ids, joiner))))
