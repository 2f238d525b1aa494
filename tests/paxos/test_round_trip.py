"""Departure 49, RFC 6298: how long to wait for an answer."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.round_trip import GUESSING_WAITS, JITTER, LONGEST_SECONDS, SHORTEST_SECONDS, RoundTrip


class RoundTripTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wait = RoundTrip(0.5, random.Random(3))

    def test_first_wait_is_the_given_one(self) -> None:
        """Nothing is measured yet."""
        self.assertEqual(self.wait.seconds, 0.5)

    def test_first_answer_counts_three_times(self) -> None:
        """RFC 6298, section 2.2: the mean is R, the deviation R / 2, and the wait is R + 4 R / 2."""
        self.wait.answered(0.0, 0.0, 0.2)
        self.assertAlmostEqual(self.wait.seconds, 0.6)

    def test_next_answers_move_mean_and_deviation(self) -> None:
        """RFC 6298, section 2.3: by an eighth and by a quarter."""
        self.wait.answered(0.0, 0.0, 0.2)
        self.wait.answered(0.0, 0.0, 0.4)
        self.assertAlmostEqual(self.wait.mean, 0.225)
        self.assertAlmostEqual(self.wait.seconds, 0.225 + 4 * 0.125)

    def test_wait_is_no_shorter_than_the_floor(self) -> None:
        """Finer timers would run for every message."""
        self.wait.answered(0.0, 0.0, 0.0001)
        self.assertEqual(self.wait.seconds, SHORTEST_SECONDS)

    def test_wait_is_no_longer_than_the_cap(self) -> None:
        """RFC 6298, section 2.5."""
        self.wait.answered(0.0, 0.0, 100.0)
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

    def test_waits_double_up_to_a_maximum_and_come_back_at_once(self) -> None:
        """Ten waits in vain are forgotten with the first answer."""
        wait = RoundTrip(0.5, random.Random(3), longest_seconds=2.0)
        for _ in range(10):
            wait.back_off()
        self.assertEqual(wait.seconds, 2.0)
        wait.answered(0.0, 0.0, 0.1)
        self.assertAlmostEqual(wait.seconds, 0.3)

    def test_measured_time_counts_up_to_that_maximum(self) -> None:
        """Receivers must not forget a message before it is repeated; the measure itself is kept for other uses."""
        wait = RoundTrip(0.5, random.Random(3), longest_seconds=2.0)
        wait.answered(0.0, 0.0, 5.0)
        self.assertEqual((wait.seconds, wait.measured), (2.0, 15.0))

    def test_quick_answer_to_a_copy_shows_that_the_first_was_lost(self) -> None:
        """Waits are as before; the time itself is not measured (Karn's rule)."""
        self.wait.answered(0.0, 0.0, 0.01)
        self.wait.back_off()
        self.wait.answered(0.0, 0.1, 0.12)
        self.assertAlmostEqual(self.wait.seconds, 0.03)
        self.assertEqual(self.wait.mean, 0.01)

    def test_slow_answer_to_a_copy_keeps_the_doubled_wait(self) -> None:
        """The answer may belong to the first one: without longer waits no slow answer could be measured exactly."""
        self.wait.answered(0.0, 0.0, 0.01)
        self.wait.back_off()
        self.wait.answered(0.0, 0.1, 0.14)
        self.assertGreaterEqual(self.wait.seconds, 0.06)
        self.assertGreater(self.wait.mean, 0.01)

    def test_slow_answers_are_not_taken_for_quick_ones_for_ever(self) -> None:
        """Each answer comes 0.33 s after the first copy, soon after the second one, and belongs to the first one."""
        self.wait.answered(0.0, 0.0, 0.07)
        self.assertAlmostEqual(self.wait.seconds, 0.21)
        for tenth in range(1, int(GUESSING_WAITS * 2.1)):
            now = tenth / 10
            self.wait.answered(now - 0.33, now - 0.12, now)
            self.assertAlmostEqual(self.wait.seconds, 0.21)
        now = GUESSING_WAITS * 0.21 + 0.5
        self.wait.answered(now - 0.33, now - 0.12, now)
        self.assertGreater(self.wait.seconds, 0.33)

    def test_guesses_count_anew_from_each_answer_that_is_certain(self) -> None:
        """Where a part of the messages is lost, most copies that are answered soon were needed."""
        self.wait.answered(0.0, 0.0, 0.01)
        for second in range(1, 3 * GUESSING_WAITS):
            for copies in range(10):
                self.wait.answered(second, second + 0.01 * copies, second + 0.01 * (copies + 1))
            self.wait.answered(second + 0.2, second + 0.2, second + 0.21)
        self.assertLess(self.wait.seconds, 0.03)

    def test_answer_over_an_interruption_is_not_measured(self) -> None:
        """A process that was paused for an hour has not seen a slow answer, and its waits in vain say nothing."""
        self.wait.answered(0.0, 0.0, 0.01)
        self.wait.back_off()
        self.wait.interrupted(3600.0)
        self.assertAlmostEqual(self.wait.seconds, 0.03)
        for last_at in (2.0, 3600.5):
            self.wait.answered(2.0, last_at, 3601.0)
            self.assertEqual((self.wait.mean, self.wait.last_answer_at), (0.01, 3601.0))
        self.wait.answered(3601.0, 3601.0, 3601.03)
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
        self.wait.answered(0.0, 0.0, 5.0)
        for _ in range(500):
            self.wait.relax()
        self.assertTrue(0.45 <= self.wait.seconds <= 0.5)
        self.wait.start_anew()
        quick = RoundTrip(0.5, random.Random(3))
        quick.answered(0.0, 0.0, 0.05)
        quick.relax()
        self.assertEqual(quick.mean, 0.05)

    def test_time_beyond_the_longest_wait_fades_as_fast_as_that_wait(self) -> None:
        """A request that was sent once, to a server whose disk then hung for minutes."""
        hung, slow = (RoundTrip(0.1, random.Random(3), 0.4) for _ in range(2))
        hung.answered(0.0, 0.0, 300.0)
        slow.answered(0.0, 0.0, 0.4 / 3)
        for _ in range(47):
            self.assertLessEqual(hung.seconds, 0.4)
            hung.relax()
            slow.relax()
        self.assertLessEqual(hung.seconds, 0.1)
        self.assertLessEqual(hung.seconds, 1.05 * slow.seconds)
