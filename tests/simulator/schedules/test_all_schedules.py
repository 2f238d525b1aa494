"""The table of directed schedules is in order, and correct servers pass each schedule."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.defect_hunt import attempt
from pfsb.simulator.schedules.all_schedules import SCHEDULES
from tests.long import long


class SchedulesTests(SynchronousTestCase):
    @long
    def test_every_directed_schedule_runs_with_a_correct_server(self) -> None:
        """A correct server passes every directed schedule."""
        self.addCleanup(self.flushLoggedErrors)
        for name in SCHEDULES:
            self.assertEqual(attempt(name, 7, None), "", name)

    def test_names_of_schedules_and_profiles_differ(self) -> None:
        """No profile has the name of a directed schedule."""
        self.assertEqual(set(SCHEDULES) & set(PROFILES), set())
