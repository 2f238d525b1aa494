"""The claims that `pfsb.support.histogram` makes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.support.histogram import Histogram


class HistogramTests(SynchronousTestCase):
    def test_a_bound_belongs_to_its_bucket(self) -> None:
        """Bounds are inclusive, as Prometheus defines `le`; a value above the last bound counts in the total only."""
        histogram = Histogram((1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 2.0, 7.0):
            histogram.observe(value)
        self.assertEqual(list(histogram.cumulated()), [(1.0, 2), (2.0, 4)])
        self.assertEqual((histogram.count, histogram.sum), (5, 12.0))

    def test_each_has_its_own_buckets(self) -> None:
        """Two histograms with the same bounds count separately."""
        one, other = Histogram((1.0,)), Histogram((1.0,))
        one.observe(0)
        self.assertEqual((one.count, other.count), (1, 0))
