"""Buckets of latencies, and what is read from them."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.bench.histogram import Histogram, bucket, middle


class BucketTests(SynchronousTestCase):
    def test_buckets_are_at_most_one_part_in_64_wide(self) -> None:
        """So that a percentile is wrong by less than one part in 100."""
        dice = Random(1)
        for _ in range(2_000):
            nanoseconds = int(10 ** dice.uniform(0, 11))
            self.assertLessEqual(abs(middle(bucket(nanoseconds)) - nanoseconds), nanoseconds / 100, nanoseconds)

    def test_buckets_ascend_without_a_gap(self) -> None:
        """The next bucket begins where one ends."""
        numbers = [bucket(nanoseconds) for nanoseconds in range(5_000)]
        self.assertEqual({after - before for before, after in pairwise(numbers)}, {0, 1})


class PercentileTests(SynchronousTestCase):
    def test_percentiles_of_one_to_a_thousand_microseconds(self) -> None:
        """They are the values themselves."""
        histogram = Histogram()
        for microseconds in range(1, 1001):
            histogram.add(microseconds * 1000)
        for percent, expected in ((50, 500), (99, 990), (99.9, 999), (100, 1000)):
            self.assertApproximates(histogram.percentile(percent), expected, expected / 64)

    def test_one_slow_answer_in_a_hundred_is_seen_at_the_99_9th_only(self) -> None:
        """The counts of the load clients add up."""
        histogram = Histogram([(bucket(1_000_000), 60), (bucket(1_000_000), 39), (bucket(50_000_000), 1)])
        self.assertEqual(histogram.total, 100)
        self.assertApproximates(histogram.percentile(99), 1_000, 10)
        self.assertApproximates(histogram.percentile(99.9), 50_000, 500)

    def test_nothing_has_no_percentiles(self) -> None:
        """Not 0, which would look good."""
        self.assertIsNone(Histogram().percentile(50))
