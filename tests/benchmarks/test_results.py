"""The comparison's ratios within rounds, goals and tables."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.compare.results import Results, rate_cell
from benchmarks.compare.rows import ROWS, Row, for_peer, rows
from benchmarks.compare.tables import cost_table, main_table, remarks, rst, text
from pfsb.bench.client import LoadResult
from pfsb.bench.histogram import Histogram, bucket
from pfsb.bench.probe import Moment


def row(key: str) -> Row:
    return next(row for row in ROWS if row.key == key)


def cell(*values: float, **more: Any) -> dict[str, Any]:
    return {"values": list(values), "cpu_us": 15.0, "p50_us": 5_000.0, "p99_us": 9_000.0, "errors": 0, **more}


class RowTests(SynchronousTestCase):
    def test_rows_are_named_by_key_and_keep_the_order_of_the_table(self) -> None:
        """Rows are chosen by their keys and keep the order of the table; the error for an unknown key names the known
        ones."""
        self.assertEqual([row.key for row in rows("memory,1x1")], ["1x1", "memory"])
        self.assertEqual(rows("all"), list(ROWS))
        self.assertIn("known are 1x1, 16x1", str(self.assertRaises(ValueError, rows, "1x1,2x2")))

    def test_peers_have_as_many_operations_under_way(self) -> None:
        """Loads with equal numbers of operations under way, such as 8 x 8 and 64 x 1, are one load for peers, which are
        measured once."""
        first, second = row("8x8").load, row("64x1").load
        assert first is not None and second is not None
        self.assertEqual(for_peer(first).under_way, for_peer(second).under_way)


class RatioTests(SynchronousTestCase):
    def test_ratio_is_against_the_better_durable_peer_of_the_same_round(self) -> None:
        """A round in which the machine was slow for all systems does not make pfsb look slow."""
        rounds = [
            {"pfsb": {"1x1": cell(300.0)}, "etcd": {"1x1": cell(100.0)}, "ZooKeeper": {"1x1": cell(150.0)}},
            {"pfsb": {"1x1": cell(30.0)}, "etcd": {"1x1": cell(20.0)}, "ZooKeeper": {"1x1": cell(10.0)}},
            {"pfsb": {"1x1": cell(500.0)}, "etcd": {"1x1": cell(500.0)}, "PySyncObj": {"1x1": cell(9_000.0)}},
        ]
        found = Results(rounds).ratio(row("1x1"))
        assert found is not None
        self.assertEqual((found.low, found.median, found.high), (1.0, 1.5, 2.0))

    def test_summary_has_medians_and_the_ratio_of_the_same_rounds(self) -> None:
        """The summary has medians, and ratios against the best durable peer of each round, which may be another one
        each time. A system in memory counts as none."""
        rounds = [
            {"pfsb": {"8x32": cell(60.0)}, "NATS": {"8x32": cell(20.0)}, "PostgreSQL": {"8x32": cell(30.0)}},
            {"pfsb": {"8x32": cell(80.0)}, "NATS": {"8x32": cell(20.0)}, "PySyncObj": {"8x32": cell(90.0)}},
            {"pfsb": {"8x32": cell(90.0, cpu_us=9.0)}, "PostgreSQL": {"8x32": cell(30.0)}},
        ]
        found = Results(rounds).summary([row("8x32"), row("memory")])
        self.assertEqual(found["8x32"]["pfsb"]["median"], 80.0)
        self.assertEqual(found["8x32"]["pfsb"]["cpu_us"], 15.0)
        self.assertEqual(found["8x32"]["ratio"], {"of": "the best durable peer", "median": 3.0, "min": 2.0, "max": 4.0})
        self.assertEqual(found["memory"], {})

    def test_deep_is_measured_against_pysyncobj(self) -> None:
        """The row `deep`, with 16,384 operations under way, is compared with PySyncObj; durable peers are not asked for
        it."""
        results = Results(
            [{"pfsb": {"deep": cell(90.0)}, "etcd": {"deep": cell(1.0)}, "PySyncObj": {"deep": cell(30.0)}}]
        )
        found = results.ratio(row("deep"))
        assert found is not None
        self.assertEqual(found.median, 3.0)

    def test_goal_without_measurement_is_neither_met_nor_missed(self) -> None:
        """A goal without a measurement is neither met nor missed: without the other system there is no ratio, without
        pfsb no figure."""
        self.assertIsNone(Results([{"pfsb": {"1x1": cell(300.0)}}]).is_met(row("1x1")))
        self.assertIsNone(Results([{"etcd": {"1x1": cell(300.0)}}]).is_met(row("1x1")))
        self.assertIsNone(Results([]).is_met(row("memory")))


class GoalTests(SynchronousTestCase):
    def results(self, ours: float, **more: Any) -> Results:
        return Results([{"pfsb": {"8x32": cell(ours, **more)}, "etcd": {"8x32": cell(10.0)}}])

    def test_second_goal_counts_as_much_as_the_first(self) -> None:
        """For the row 8 x 32 there are two goals: five times the best peer, and less than 20 us of CPU time. Both
        count."""
        self.assertIs(self.results(50.0).is_met(row("8x32")), True)
        self.assertIs(self.results(49.0).is_met(row("8x32")), False)
        self.assertIs(self.results(50.0, cpu_us=21.0).is_met(row("8x32")), False)
        self.assertIs(self.results(50.0, cpu_us=None).is_met(row("8x32")), False)

    def test_upper_limits_apply_to_the_median(self) -> None:
        """An upper limit, as for the time without an answer after a kill, is compared with the median over all
        rounds."""
        rounds = [{"pfsb": {"failover": cell(0.1, 0.2, 9.0)}}, {"pfsb": {"failover": cell(0.1, 0.3)}}]
        self.assertIs(Results(rounds).is_met(row("failover")), True)
        self.assertIs(
            Results([rounds[1], rounds[1], {"pfsb": {"failover": cell(1, 1, 1)}}]).is_met(row("failover")), False
        )


class CellTests(SynchronousTestCase):
    def test_cpu_time_is_that_of_the_servers_between_begin_and_end(self) -> None:
        """The CPU time of a row is that of the servers between begin and end, in microseconds for each operation; None
        without operations."""
        latencies = Histogram([(bucket(1_000_000), 200)])
        result = LoadResult("c", 200, 0, 0, "", 2.0, 0.1, latencies, Moment({}, 1.0, 5.0), Moment({}, 1.5, 7.6))
        found = rate_cell(result)
        self.assertEqual((found["values"], found["cpu_us"], found["client_cores"]), ([100.0], 2500.0, 0.05))
        self.assertApproximates(found["other_cores"], 1.0, 1e-9)
        self.assertIsNone(rate_cell(evolve(result, operations=0))["cpu_us"])


class TableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.results = Results(
            [
                {
                    "pfsb": {"8x32": cell(1_234.0), "failover": cell(0.5)},
                    "etcd": {
                        "8x32": cell(1_000.0, errors=2, first_error="timed out", other_cores=0.9),
                        "trouble": {"trouble": "fell over"},
                    },
                }
            ]
        )
        self.rows = [row("8x32"), row("failover")]

    def test_every_row_has_a_cell_for_every_column(self) -> None:
        """A cell without measurement is a dash; a system that was not measured has no column."""
        for table in (main_table(self.results, list(ROWS)), cost_table(self.results, list(ROWS))):
            self.assertEqual(len({len(cells) for cells in table}), 1)
        shown = main_table(self.results, self.rows)
        self.assertEqual(shown[0][1:4], ["pfsb", "etcd", "goal"])
        self.assertEqual(shown[1][1:3], ["1,234/s", "1,000/s"])
        self.assertEqual(shown[2][1:3], ["0.5 s", "-"])
        self.assertEqual(shown[1][-4:], ["1.23", "1.23", "1.23", "NO"])
        self.assertEqual(shown[2][-4:], ["0.50", "0.50", "0.50", "NO"])

    def test_missing_peers_errors_and_failures_are_reported(self) -> None:
        """The remarks name missing systems, errors and failures; without them a table would look complete."""
        said = "\n".join(remarks(self.results, self.rows, {"ZooKeeper": "no java"}))
        for words in (
            "ZooKeeper is missing: no java",
            "etcd, 8x32: 2 errors",
            "timed out",
            "fell over",
            "1 of 1 loads disturbed: other programs kept up to 0.9 cores busy",
        ):
            self.assertIn(words, said)
            self.assertIn(words, text(self.results, self.rows, {"ZooKeeper": "no java"}))

    def test_document_has_both_tables_and_how_they_were_measured(self) -> None:
        """The page of documentation has both tables, and says how they were measured. Sphinx requires that each row of
        a list-table has as many cells as its head."""
        document = rst(self.results, self.rows, {}, {"cores": 2, "etcd": "3.5"})
        self.assertIn("cores 2, etcd 3.5; 1 rounds, medians", document)
        lines = document.splitlines()
        firsts = [line for line in lines if line.startswith("   * -")]
        others = [line for line in lines if line.startswith("     -")]
        self.assertEqual((len(firsts), len(others)), (3 + 2, 3 * 7 + 2 * 2))
