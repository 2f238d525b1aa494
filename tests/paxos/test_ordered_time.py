"""OrderedTime: the state machine's time, and the time of a leader's next proposal (Departure 35)."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.ordered_time import OrderedTime
from pfsb.support.limits import TIME_MS_MAX, TIME_STEP_MS_MAX

DAY_SECONDS = 86_400


class OrderedTimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.time = OrderedTime(self.clock)

    def test_first_slot_begins_with_the_wall_clock(self) -> None:
        self.assertEqual(self.time.now_ms(), 100_000)
        self.assertEqual(self.time.execute(100_000, True), 100_000)

    def test_first_slot_may_begin_anywhere(self) -> None:
        """The first slot may move the time from 0 to the present, which is longer than any later step may be."""
        self.assertEqual(self.time.execute(1_700_000_000_000, False), 1_700_000_000_000)
        self.assertEqual(self.time.now_ms(), 1_700_000_000_000)

    def test_clock_that_is_a_day_ahead_makes_no_difference(self) -> None:
        self.time.execute(5_000, False)
        ahead, behind = Clock(), Clock()
        ahead.advance(3 * DAY_SECONDS)
        for clock in (ahead, behind):
            time = OrderedTime(clock)
            time.execute(5_000, False)
            clock.advance(2)
            self.assertEqual(time.now_ms(), 7_000)

    def test_idle_time_counts_from_the_last_executed_slot(self) -> None:
        self.time.execute(5_000, False)
        self.clock.advance(1_800)
        self.assertEqual(self.time.now_ms(), 1_805_000)

    def test_leaders_time_does_not_go_back_to_its_own_proposals(self) -> None:
        """The leader's time does not go back to that of its own proposal, although a slot takes a while to be
        ordered."""
        self.time.execute(5_000, False)
        proposed = self.time.now_ms()
        self.clock.advance(3)
        self.assertEqual(self.time.execute(proposed, True), proposed)
        self.assertEqual(self.time.now_ms(), 8_000)

    def test_follower_takes_the_leaders_time_over_its_own(self) -> None:
        """A follower takes the leader's time over: its own clock, which runs twice as fast here, has no influence."""
        self.time.execute(5_000, False)
        self.clock.advance(2)
        self.time.execute(6_000, False)
        self.assertEqual(self.time.now_ms(), 6_000)

    def test_time_never_goes_back(self) -> None:
        self.time.execute(5_000, False)
        self.assertEqual(self.time.execute(4_000, False), 5_000)

    def test_step_is_bounded(self) -> None:
        self.time.execute(5_000, False)
        self.assertEqual(self.time.execute(2**62, False), 5_000 + TIME_STEP_MS_MAX)
        self.assertEqual(self.time.now_ms(), 5_000 + TIME_STEP_MS_MAX)

    def test_leader_never_proposes_a_longer_step(self) -> None:
        """A leader never proposes a longer step than a slot may move the time: otherwise slots after an idle day would
        move it by hours, and end waits that have just begun."""
        self.time.execute(5_000, True)
        self.clock.advance(DAY_SECONDS)
        self.assertEqual(self.time.now_ms(), 5_000 + TIME_STEP_MS_MAX)
        self.time.execute(5_000 + TIME_STEP_MS_MAX, True)
        self.clock.advance(1)
        self.assertEqual(self.time.now_ms(), 6_000 + TIME_STEP_MS_MAX)

    def test_time_ends_with_the_year_9999(self) -> None:
        self.assertEqual(self.time.execute(2**62, False), TIME_MS_MAX)
        self.assertEqual(self.time.execute(2**63 - 1, False), TIME_MS_MAX)
        self.clock.advance(10)
        self.assertEqual(self.time.now_ms(), TIME_MS_MAX)
