"""Departure 49, RFC 6298: how long to wait for an answer."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.round_trip import GUESSING_WAITS, JITTER, LONGEST_SECONDS, SHORTEST_SECONDS, RoundTrip


class RoundTripTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wait = RoundTrip(0.5, random.Random(3))

    def test_first_wait_is_the_given_one(self) -> None:
        """Before anything is measured, the wait is the given first one."""
        self.assertEqual(self.wait.seconds, 0.5)

    def test_first_answer_counts_three_times(self) -> None:
        """After the first answer, with time R, the mean is R, the deviation R / 2, and the wait R + 4 R / 2 (RFC 6298,
        section 2.2)."""
        self.wait.answered(0.0, 0.0, 0.2)
        self.assertAlmostEqual(self.wait.seconds, 0.6)

    def test_next_answers_move_mean_and_deviation(self) -> None:
        """Further answers move the mean by an eighth and the deviation by a quarter of the difference (RFC 6298,
        section 2.3)."""
        self.wait.answered(0.0, 0.0, 0.2)
        self.wait.answered(0.0, 0.0, 0.4)
        self.assertAlmostEqual(self.wait.mean, 0.225)
        self.assertAlmostEqual(self.wait.seconds, 0.225 + 4 * 0.125)

    def test_wait_is_no_shorter_than_the_floor(self) -> None:
        """The wait is no shorter than a minimum: a finer timer would run for every message."""
        self.wait.answered(0.0, 0.0, 0.0001)
        self.assertEqual(self.wait.seconds, SHORTEST_SECONDS)

    def test_wait_is_no_longer_than_the_cap(self) -> None:
        """The wait is no longer than a maximum (RFC 6298, section 2.5)."""
        self.wait.answered(0.0, 0.0, 100.0)
        self.assertEqual(self.wait.seconds, LONGEST_SECONDS)

    def test_waits_in_vain_double_and_differ(self) -> None:
        """Each wait in vain doubles the next one, and jitter keeps servers out of step (RFC 6298, section 5.5)."""
        other = RoundTrip(0.5, random.Random(4))
        for _ in range(3):
            self.wait.back_off()
            other.back_off()
        for wait in (self.wait, other):
            self.assertTrue(4.0 <= wait.seconds <= 4.0 * (1 + JITTER) ** 3)
        self.assertNotEqual(self.wait.seconds, other.seconds)

    def test_waits_double_up_to_a_maximum_and_come_back_at_once(self) -> None:
        """Waits double up to a maximum, and are short again after the first certain answer."""
        wait = RoundTrip(0.5, random.Random(3), longest_seconds=2.0)
        for _ in range(10):
            wait.back_off()
        self.assertEqual(wait.seconds, 2.0)
        wait.answered(0.0, 0.0, 0.1)
        self.assertAlmostEqual(wait.seconds, 0.3)

    def test_measured_time_counts_up_to_that_maximum(self) -> None:
        """A measured time beyond the maximum makes the wait no longer than that, so that receivers do not forget a
        message before it is repeated; the measure itself is kept for other uses."""
        wait = RoundTrip(0.5, random.Random(3), longest_seconds=2.0)
        wait.answered(0.0, 0.0, 5.0)
        self.assertEqual((wait.seconds, wait.measured), (2.0, 15.0))

    def test_quick_answer_to_a_copy_shows_that_the_first_was_lost(self) -> None:
        """A quick answer to a copy shows that the first message was lost: waits are as before, and the time is not
        measured (Karn's rule)."""
        self.wait.answered(0.0, 0.0, 0.01)
        self.wait.back_off()
        self.wait.answered(0.0, 0.1, 0.12)
        self.assertAlmostEqual(self.wait.seconds, 0.03)
        self.assertEqual(self.wait.mean, 0.01)

    def test_slow_answer_to_a_copy_keeps_the_doubled_wait(self) -> None:
        """A slow answer to a copy, which may belong to the first message, keeps the doubled wait: otherwise no slow
        answer could be measured exactly."""
        self.wait.answered(0.0, 0.0, 0.01)
        self.wait.back_off()
        self.wait.answered(0.0, 0.1, 0.14)
        self.assertGreaterEqual(self.wait.seconds, 0.06)
        self.assertGreater(self.wait.mean, 0.01)

    def test_slow_answers_are_not_taken_for_quick_ones_for_ever(self) -> None:
        """Slow answers, here 0.33 s after the first message and soon after the second, are not taken for quick answers
        to the second for ever."""
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
        """The time of guessing begins anew with each answer to a message that was sent once: where some messages are
        lost, most copies were needed."""
        self.wait.answered(0.0, 0.0, 0.01)
        for second in range(1, 3 * GUESSING_WAITS):
            for copies in range(10):
                self.wait.answered(second, second + 0.01 * copies, second + 0.01 * (copies + 1))
            self.wait.answered(second + 0.2, second + 0.2, second + 0.21)
        self.assertLess(self.wait.seconds, 0.03)

    def test_answer_over_an_interruption_is_not_measured(self) -> None:
        """An answer over an interruption is not measured, and waits in vain before it are forgotten: a process that was
        paused for an hour has not seen a slow answer."""
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
        """A doubled wait becomes shorter again with time: requests that were in vain say little about one that is made
        much later."""
        for _ in range(3):
            self.wait.back_off()
        for _ in range(100):
            self.wait.relax()
        self.assertEqual(self.wait.seconds, 0.5)

    def test_measure_fades_down_to_the_first_wait(self) -> None:
        """A long measured time becomes shorter with time, down to the first wait, since a slow disk may be quick by
        now; a short one is kept."""
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
        """A measured time beyond the longest wait, as of a request to a server whose disk then hung for minutes, fades
        as fast as the longest wait."""
        hung, slow = (RoundTrip(0.1, random.Random(3), 0.4) for _ in range(2))
        hung.answered(0.0, 0.0, 300.0)
        slow.answered(0.0, 0.0, 0.4 / 3)
        for _ in range(47):
            self.assertLessEqual(hung.seconds, 0.4)
            hung.relax()
            slow.relax()
        self.assertLessEqual(hung.seconds, 0.1)
        self.assertLessEqual(hung.seconds, 1.05 * slow.seconds)
