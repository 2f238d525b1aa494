"""`benchmarks.floors` measures every part on real processes and reports it."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.bare import Disk
from benchmarks.floors import main
from tests.long import long

PARTS = (
    "a line there",
    "a datagram there",
    "a proposal on disk",
    "all three",
    "16 of 150",
    "a bare cluster",
    "2 x 3",
    "put 8 x 32",
)


class FloorsTests(SynchronousTestCase):
    @long
    def test_each_part_is_measured_and_reported(self) -> None:
        """The report has the times of a line, a datagram and a commit, their sum, bare clusters, and the loads that
        were asked for."""
        directory = Path(self.mktemp())
        directory.mkdir()
        rst, out = directory / "floors.inc", StringIO()
        options = f"--loads 2x3 --seconds 0.2 --count 20 --directory {directory} --rst {rst}"
        with redirect_stdout(out):
            self.assertEqual(main(options.split()), 0)
        for told in (out.getvalue(), rst.read_text()):
            for part in (*PARTS, *(disk.value for disk in Disk)):
                self.assertIn(part, told)
        self.assertEqual([path.name for path in directory.iterdir()], ["floors.inc"])
