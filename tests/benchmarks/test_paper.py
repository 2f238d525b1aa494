"""The paper's charts: pfsb's lines beside the published ones, and the ratios that can be compared."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.paper.drawing import Point, charts, claims
from benchmarks.paper.published import SCALING, SCALING_CLIENTS, SERVERS
from benchmarks.paper.variants import QUICK_CLIENTS, QUICK_SERVERS, VARIANTS
from pfsb.config.config import Config, Limits
from pfsb.paxos.settings import Settings


class PublishedTests(SynchronousTestCase):
    def test_every_variant_is_published_for_four_to_twenty_servers(self) -> None:
        """For every variant, the throughput and the latency that the paper published for 4 to 20 servers are there."""
        for variant in VARIANTS:
            self.assertEqual(tuple(variant.published.throughput), SERVERS)
            self.assertEqual(tuple(variant.published.latency), SERVERS)

    def test_rate_and_latency_of_the_closed_loop_agree(self) -> None:
        """For each published point, clients divided by rate is about the mean latency, as in a closed loop, so that a
        wrong digit is noticed."""
        for _build, rows in SCALING.items():
            for servers, rate, milliseconds in rows:
                self.assertApproximates(1000 * SCALING_CLIENTS / rate, milliseconds, 0.25 * milliseconds, servers)

    def test_quick_measures_what_the_scaling_charts_need(self) -> None:
        """With --quick the measurement still has what the scaling charts need: 25 clients, and more than one number of
        servers."""
        self.assertIn(SCALING_CLIENTS, QUICK_CLIENTS)
        self.assertIn(SCALING_CLIENTS, VARIANTS[0].clients)
        self.assertGreater(len(QUICK_SERVERS), 1)


class SettingsTests(SynchronousTestCase):
    def test_batch_bytes_reach_the_protocol(self) -> None:
        """The size of batches in a configuration reaches the protocol; without limits there, the protocol's default
        holds."""
        self.assertEqual(Config("f", "c", {}, 0).settings(), Settings())
        without = Config("f", "c", {}, 0, limits=Limits(batch_bytes=1))
        self.assertEqual(without.settings().batch_bytes_max, 1)


class DrawingTests(SynchronousTestCase):
    points = (
        Point("plain-disk", 4, 1, 100.0, 10.0),
        Point("plain-disk", 4, 25, 200.0, 125.0),
        Point("aggregated-disk", 4, 25, 9_000.0, 2.8),
        Point("aggregated-disk", 8, 25, 4_500.0, 5.6),
        Point("plain-memory", 4, 25, 3_000.0, 8.3),
    )

    def test_pfsb_and_paper_are_drawn_in_the_same_colour(self) -> None:
        """For each number of servers that was measured, pfsb's line is solid and the paper's is dashed."""
        drawn = {chart.title: chart for chart in charts(self.points)}
        chart = drawn["Forced writes, aggregation: throughput"]
        self.assertEqual(
            [s.name for s in chart.series], [f"{n} servers{w}" for n in (4, 8) for w in ("", ", the paper")]
        )
        self.assertEqual([s.dashed for s in chart.series], [False, True, False, True])
        self.assertEqual([s.colour for s in chart.series], [0, 0, 1, 1])
        self.assertEqual(chart.series[1].points[0], (25, 407))
        self.assertNotIn("Memory, aggregation: throughput", drawn)

    def test_scaling_is_drawn_over_the_number_of_servers(self) -> None:
        """The chart of scaling shows, for 25 clients, rates over the number of servers, with both builds of the
        paper."""
        [chart] = [
            chart for chart in charts(self.points) if chart.title.startswith("25 clients") and "through" in chart.title
        ]
        self.assertEqual([s.name for s in chart.series], ["pfsb", "the paper, clean", "the paper, complete"])
        self.assertEqual(chart.series[0].points, [(4, 3_000.0)])

    def test_claims_are_ratios_of_peaks(self) -> None:
        """Aggregation with forced writes gains 9,000 / 200 here, and 1,736 / 31.7 in the paper."""
        said = [line.split() for line in claims(self.points).splitlines()]
        [gains] = [words for words in said if words[:4] == ["aggregation", "gains,", "disk", "4"]]
        self.assertEqual(gains[4:], ["45", "x", "54.8", "x"])
        [absent] = [words for words in said if words[:4] == ["aggregation", "gains,", "memory", "8"]]
        self.assertEqual(absent[4:6], ["-", "2.58"])
