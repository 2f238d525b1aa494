"""RFC 6298: how long to wait for an answer."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.support.round_trip import JITTER, LONGEST_SECONDS, SHORTEST_SECONDS, RoundTrip


class RoundTripTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wait = RoundTrip(0.5, random.Random(3))

    def test_first_wait_is_the_given_one(self) -> None:
        """Nothing is measured yet."""
        self.assertEqual(self.wait.seconds, 0.5)

    def test_first_answer_counts_three_times(self) -> None:
        """RFC 6298, section 2.2: the mean is R, the deviation R / 2, and the wait is R + 4 R / 2."""
        self.wait.observe(0.2)
        self.assertAlmostEqual(self.wait.seconds, 0.6)

    def test_next_answers_move_mean_and_deviation(self) -> None:
        """RFC 6298, section 2.3: by an eighth and by a quarter."""
        self.wait.observe(0.2)
        self.wait.observe(0.4)
        self.assertAlmostEqual(self.wait.mean, 0.225)
        self.assertAlmostEqual(self.wait.seconds, 0.225 + 4 * 0.125)

    def test_wait_is_no_shorter_than_the_floor(self) -> None:
        """Finer timers would run for every message."""
        self.wait.observe(0.0001)
        self.assertEqual(self.wait.seconds, SHORTEST_SECONDS)

    def test_wait_is_no_longer_than_the_cap(self) -> None:
        """RFC 6298, section 2.5."""
        self.wait.observe(100.0)
        self.assertEqual(self.wait.seconds, LONGEST_SECONDS)

    def test_waits_in_vain_double_and_differ(self) -> None:
        """RFC 6298, section 5.5; the jitter keeps servers out of step."""
        other = RoundTrip(0.5, random.Random(4))
        for _ in range(3):
            self.wait.back_off()
            other.back_off()
        for wait in (self.wait, other):
            self.assertTrue(4.0 <= wait.seconds <= 4.0 * (1 + JITTER) ** 3)
        self.assertNotEqual(self.wait.seconds, other.seconds)

    def test_without_dice_a_wait_in_vain_is_doubled(self) -> None:
        """Jitter is for many servers that wait for the same thing."""
        wait = RoundTrip(0.5, None)
        wait.back_off()
        self.assertEqual(wait.seconds, 1.0)

    def test_floor_can_be_another(self) -> None:
        """A transport answers between two turns, which may be long."""
        wait = RoundTrip(0.5, None, shortest_seconds=0.03)
        wait.observe(0.0001)
        self.assertEqual(wait.seconds, 0.03)

    def test_waits_double_up_to_a_maximum_and_come_back_at_once(self) -> None:
        """Ten waits in vain are forgotten with the first answer."""
        wait = RoundTrip(0.5, random.Random(3), longest_seconds=2.0)
        for _ in range(10):
            wait.back_off()
        self.assertEqual(wait.seconds, 2.0)
        wait.observe(0.1)
        self.assertAlmostEqual(wait.seconds, 0.3)

    def test_measured_time_counts_up_to_that_maximum(self) -> None:
        """Receivers must not forget a message before it is repeated; the measure itself is kept for other uses."""
        wait = RoundTrip(0.5, random.Random(3), longest_seconds=2.0)
        wait.observe(5.0)
        self.assertEqual((wait.seconds, wait.measured), (2.0, 15.0))

    def test_quick_answer_to_a_copy_shows_that_the_first_was_lost(self) -> None:
        """Waits are as before; the time itself is not measured (Karn's rule)."""
        self.wait.observe(0.01)
        self.wait.back_off()
        self.wait.observe_copy(0.02)
        self.assertAlmostEqual(self.wait.seconds, 0.03)
        self.assertEqual(self.wait.mean, 0.01)

    def test_slow_answer_to_a_copy_keeps_the_doubled_wait(self) -> None:
        """The answer may belong to the first one: without longer waits no slow answer could be measured exactly."""
        self.wait.observe(0.01)
        self.wait.back_off()
        self.wait.observe_copy(0.04)
        self.assertGreaterEqual(self.wait.seconds, 0.06)
        self.assertGreater(self.wait.mean, 0.01)

    def test_doubled_wait_fades(self) -> None:
        """Requests that were in vain say little about one that is made much later."""
        for _ in range(3):
            self.wait.back_off()
        for _ in range(100):
            self.wait.relax()
        self.assertEqual(self.wait.seconds, 0.5)

    def test_measure_fades_down_to_the_first_wait(self) -> None:
        """A slow disk may be quick by now; a short measure is kept."""
        self.wait.observe(5.0)
        for _ in range(500):
            self.wait.relax()
        self.assertTrue(0.45 <= self.wait.seconds <= 0.5)
        self.wait.start_anew()
        quick = RoundTrip(0.5, random.Random(3))
        quick.observe(0.05)
        quick.relax()
        self.assertEqual(quick.mean, 0.05)
