"""`twistd pfsb`: what of it needs no process of its own (the rest is tests/integration)."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from pfsb.service import steady_seconds


class SteadySecondsTests(SynchronousTestCase):
    def test_wall_clock_that_is_set_back_stops_no_timer(self) -> None:
        """Twisted's timers would all wait until the wall clock has caught up."""
        seconds = steady_seconds()
        before = seconds()
        self.assertLess(abs(before - time.time()), 5.0)
        self.patch(time, "time", lambda: 0.0)
        self.assertGreaterEqual(seconds(), before)
