"""Buckets of latencies, and percentiles that are computed from them."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.bench.histogram import Histogram, bucket, middle


class BucketTests(SynchronousTestCase):
    def test_buckets_are_at_most_one_part_in_64_wide(self) -> None:
        """The middle of a bucket differs from each of its latencies by less than one part in 100."""
        dice = Random(1)
        for _ in range(2_000):
            nanoseconds = int(10 ** dice.uniform(0, 11))
            self.assertLessEqual(abs(middle(bucket(nanoseconds)) - nanoseconds), nanoseconds / 100, nanoseconds)

    def test_buckets_ascend_without_a_gap(self) -> None:
        """Each bucket begins where the one before ends."""
        numbers = [bucket(nanoseconds) for nanoseconds in range(5_000)]
        self.assertEqual({after - before for before, after in pairwise(numbers)}, {0, 1})


class PercentileTests(SynchronousTestCase):
    def test_percentiles_of_one_to_a_thousand_microseconds(self) -> None:
        """The percentile p of the values 1 to 1,000 is the value 10 p."""
        histogram = Histogram()
        for microseconds in range(1, 1001):
            histogram.add(microseconds * 1000)
        for percent, expected in ((50, 500), (99, 990), (99.9, 999), (100, 1000)):
            self.assertApproximates(histogram.percentile(percent), expected, expected / 64)

    def test_one_slow_answer_in_a_hundred_changes_the_99_9th_percentile_only(self) -> None:
        """One slow answer in a hundred changes the 99.9th percentile only; counts that are given twice for one bucket
        are added."""
        histogram = Histogram([(bucket(1_000_000), 60), (bucket(1_000_000), 39), (bucket(50_000_000), 1)])
        self.assertEqual(histogram.total, 100)
        self.assertApproximates(histogram.percentile(99), 1_000, 10)
        self.assertApproximates(histogram.percentile(99.9), 50_000, 500)

    def test_empty_histogram_has_no_percentiles(self) -> None:
        """A histogram without values has the percentile None: 0 would look like a good latency."""
        self.assertIsNone(Histogram().percentile(50))
