"""The explanation of a failed run: the rule that was broken, and the step of the protocol that broke it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.tracing import watched
from pfsb.simulator.defects.all_defects import DEFECTS, planted
from pfsb.simulator.defects.expected_catches import CAUGHT
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.decisive_step import rule_of_schedule, story, story_of_schedule
from pfsb.simulator.runs.rules import INVARIANTS, rule_of
from pfsb.simulator.runs.run import Plan
from pfsb.simulator.schedules.all_schedules import SCHEDULES
from tests.long import long


class RuleTests(SynchronousTestCase):
    def test_every_defect_that_a_random_run_shows_breaks_a_rule_with_a_sentence(self) -> None:
        """Each defect that a random run shows breaks a rule for which `pfsb simulate --broken NAME` has a sentence.
        Faults of the program itself break no rule."""
        for name, catch in CAUGHT.items():
            if catch.schedule in PROFILES and not catch.check.startswith(
                ("InvariantViolated", "KeyError", "ValueError")
            ):
                self.assertNotEqual(rule_of(catch.check), "", f"{name}: {catch.check}")

    def test_invariant_is_found_by_its_number(self) -> None:
        """The sentence for an invariant is the one in the docstring of the module of the invariants."""
        self.assertEqual(list(INVARIANTS), list(range(1, 15)))
        text = rule_of("trouble, at 2.000 s: InvariantViolated: server 0: 6: REG_LEADER without a Progress_Timer")
        self.assertTrue(text.startswith("invariant 6: The Progress_Timer runs in REG_LEADER"), text)
        self.assertTrue(INVARIANTS[10].endswith("bounded (Departure 37)."), INVARIANTS[10])

    def test_only_the_first_line_of_a_failure_counts(self) -> None:
        """Only the first line of a failure is compared with rules: lines below show the servers, and may have any
        words."""
        self.assertEqual(rule_of("what is this?\nS1: slot 4"), "")

    def test_every_schedule_says_its_rule(self) -> None:
        for schedule in SCHEDULES:
            self.assertGreater(len(rule_of_schedule(schedule).split()), 4, schedule)


@long
class StoryTests(SynchronousTestCase):
    def test_vote_that_leaves_too_early_is_the_last_step(self) -> None:
        """For a vote that leaves too early, the ACCEPT stands in the last row, and no write with its proposal stands
        above."""
        name = "accept-early"
        lines = story(Plan(CAUGHT[name].seed), planted(name), name)
        self.assertIn(f"what is broken: {DEFECTS[name].broken} ({DEFECTS[name].source})", lines)
        self.assertTrue(any(line.startswith("the rule: A vote leaves a server only when") for line in lines))
        self.assertIn("-> ACCEPT", lines[-2])
        self.assertIn("votes in view", lines[-1])

    def test_correct_run_has_no_story(self) -> None:
        self.assertEqual(story(Plan(1, "crashes", servers=3, seconds=0.5), None, None), [])

    def test_directed_schedule_is_drawn_though_it_makes_its_cluster_itself(self) -> None:
        """A directed schedule that makes its own cluster is drawn, too; its rule is the sentence of the schedule."""
        name = "editions-mixed"
        lines = story_of_schedule("promise-of-two-lives", 0, planted(name), name)
        self.assertIn(f"the rule: {rule_of_schedule('promise-of-two-lives')}", lines)
        self.assertGreater(len([line for line in lines if "->" in line]), 0)

    def test_clusters_are_watched_only_inside_of_the_block(self) -> None:
        events: list[object] = []
        with watched(events.append):
            SimulatedCluster(1).run(0.1)
        seen = len(events)
        self.assertGreater(seen, 0)
        SimulatedCluster(1).run(0.1)
        self.assertEqual(len(events), seen)
