"""Faults around hand-overs do what their names say, and no profile of before has them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.faults.plan import Fault
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.run import Plan, Run
from tests.long import long

KINDS = (
    *("hand_over", "retire", "retire_leader", "retire_both", "crash_in_hand_over", "pause_in_hand_over"),
    *("lose_hand_over", "late_hand_over", "repeat_hand_over", "untrue_hand_over"),
)


class ProfileTests(SynchronousTestCase):
    def test_no_other_profile_has_hand_overs(self) -> None:
        """In profiles without hand-overs a seed draws none, and no priority, so that their seeds stay as they were."""
        for name, profile in PROFILES.items():
            run = Run(Plan(1, name))
            kinds = {fault.kind for fault in run.faults} & {*KINDS}
            self.assertTrue(profile.has_hand_overs or not kinds, name)
            self.assertTrue(profile.has_hand_overs or not run.parameters.settings.priority, name)


@long
class FaultTests(SynchronousTestCase):
    def test_each_fault_happens(self) -> None:
        """A cluster of three comes through one of each kind, and HAND_OVERs are sent."""
        run = Run(Plan(3, "rolling", servers=3, seconds=20.0))
        run.injector.schedule([Fault(1_000 + at, 2.0 + at, "hand_overs", kind) for at, kind in enumerate(KINDS)])
        outcome = run.run()
        self.assertEqual(outcome.failure, "")
        for kind in KINDS:
            self.assertGreater(outcome.marks[f"fault: {kind}"], 0, kind)
        self.assertGreater(outcome.marks["HAND_OVER sent"], 3)
        self.assertGreater(outcome.marks["hand-over done"], 0)
