"""Tables and charts of figures over servers, sizes, connections and overload."""

from __future__ import annotations

from attrs import asdict, evolve
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.scale.__main__ import arguments, extent
from benchmarks.scale.drawing import charts
from benchmarks.scale.point import Point
from benchmarks.scale.sections import CLOSED, CONNECTIONS, OPEN, QUICK, SECTIONS, SERVERS, SIZES, Extent
from benchmarks.scale.tables import remarks, rst, table, text, verdict

POINTS = (
    Point("servers", "1 x 1", 3, 900.0, 1.0, 2.0, 1_300.0, 1.0, 50.0),
    Point("servers", "8 x 32", 3, 60_000.0, 4.0, 9.0, 25.0, 150.0, 60.0),
    Point("servers", "1 x 1", 20, 90.0, 10.0, 20.0, 9_000.0, 1.0, 50.0),
    Point("sizes", "1 x 1", 32_768, 500.0, 2.0, 3.0, 2_000.0, 1.0, 80.0),
    Point("overload", CLOSED, 256, 60_000.0, 4.0, 9.0, 25.0, 150.0, 60.0),
    Point("overload", CLOSED, 160_000, 57_000.0, 2_700.0, 3_000.0, 26.0, 300.0, 190.0),
    Point("overload", OPEN, 2.0, 58_000.0, 500.0, 600.0, 26.0, 300.0, 190.0, due=120_000.0, missed=310_000),
    Point("keys", "100 bytes each", 1_000_000, memory_mib=420.0),
)


class ExtentTests(SynchronousTestCase):
    def test_default_extent_reaches_the_documented_extremes(self) -> None:
        """The extremes are 3 to 20 servers, 32 KiB, 1 to 5,000 connections, a million keys and 10,000 sessions."""
        self.assertEqual((min(SERVERS), max(SERVERS), max(SIZES)), (3, 20, 32_768))
        self.assertEqual((min(CONNECTIONS), max(CONNECTIONS)), (1, 5_000))
        self.assertEqual((max(Extent().keys), max(Extent().sessions)), (1_000_000, 10_000))

    def test_quick_run_reaches_the_largest_loads_too(self) -> None:
        """A quick run is shorter, but has the most servers, the largest value and the most connections."""
        quick = extent(arguments(["--quick", "--seconds", "0.5"]))
        self.assertEqual(quick.seconds, 0.5)
        self.assertEqual((max(QUICK.servers), max(QUICK.sizes), max(QUICK.connections)), (20, 32_768, 5_000))

    def test_unknown_section_is_refused(self) -> None:
        """An unknown section is refused before servers are started."""
        self.assertRaises(SystemExit, arguments, ["--sections", "server"])


class ShowTests(SynchronousTestCase):
    def test_points_are_read_back_as_they_were_written(self) -> None:
        """Points that were written to a file are read back as they were, so that the points of a long run can be drawn
        again."""
        self.assertEqual([Point.read(asdict(point)) for point in POINTS], list(POINTS))

    def test_tables_leave_out_empty_columns(self) -> None:
        """A table leaves out columns that are empty for its points: memory over keys has no rates, and the table of
        sizes has megabytes per second."""
        self.assertEqual(table(POINTS, "keys"), [["keys", "", "MiB"], ["1,000,000", "100 bytes each", "420"]])
        head, row = table(POINTS, "sizes")
        self.assertEqual(row[head.index("MB/s")], "16.4")
        self.assertNotIn("errors", head)

    def test_overload_is_compared_with_the_peak(self) -> None:
        """The peak is that of both loops. Rows of the open loop show the operations due, and those that were missed."""
        head, *rows = table(POINTS, "overload")
        self.assertEqual([row[head.index("of the peak")] for row in rows], ["100 %", "95 %", "97 %"])
        self.assertEqual([row[0] for row in rows], ["256", "160,000", "120,000/s"])
        self.assertEqual([row[head.index("missed/s")] for row in rows], ["-", "-", "62,000"])
        [said] = verdict(POINTS)
        self.assertTrue(said.startswith("closed loop: 95 % of its best throughput with 160,000 under way"), said)

    def test_every_section_has_charts_and_a_title(self) -> None:
        """Every section has charts and a title: without charts it would be measured in vain."""
        for section in SECTIONS:
            points = [evolve(point, section=section) for point in POINTS if point.section in ("servers", section)]
            self.assertGreater(len(charts(points, section)), 0, section)
            self.assertIn(table(points, section)[0][0], rst(points, {}), section)
        self.assertEqual(charts(POINTS, "sessions"), [])

    def test_errors_and_disturbances_are_reported(self) -> None:
        """Errors and disturbances are reported beside figures that for this reason do not measure the servers."""
        self.assertEqual(remarks(POINTS), [])
        odd = evolve(POINTS[0], errors=3, first_error="ERR BUSY", other_cores=1.2, client_cores=0.95)
        self.assertEqual(len(remarks([odd])), 3)
        self.assertIn("! servers, 1 x 1, 3: 3 errors, the first: ERR BUSY", text([odd], {"cores": 2}))
