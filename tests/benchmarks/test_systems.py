"""The comparison: programs that peers need, and pfsb measured as one of the systems."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.compare.ours import Pfsb
from benchmarks.compare.results import rate_cell
from benchmarks.compare.rows import rows
from benchmarks.compare.run import Comparison
from benchmarks.compare.system import Choices, Load, Missing
from benchmarks.compare.tools import built, program
from benchmarks.compare.trouble import seconds_without_leader, settle
from tests.long import long


class ToolTests(SynchronousTestCase):
    def test_error_of_a_missing_program_names_its_package(self) -> None:
        """A user can install the package then."""
        self.assertIn(
            "apt-get install nothing-such", str(self.assertRaises(Missing, program, "no-such", "nothing-such"))
        )

    def test_failed_build_leaves_nothing_that_looks_built(self) -> None:
        """The next run builds again; a complete build is not repeated."""
        source = Path(self.mktemp())
        source.write_text("text")
        with patch.dict(os.environ, {"XDG_CACHE_HOME": str(Path(self.mktemp()).resolve())}):
            for _ in range(2):
                error = self.assertRaises(Missing, built, source, "x", ["sh", "-c", "echo broken >&2; exit 3"])
                self.assertIn("broken", str(error))
            first = built(source, "x", ["cp", str(source), "{out}/made"])
            self.assertEqual((first / "made").read_text(), "text")
            self.assertEqual(built(source, "x", ["cp", str(source), "{out}/made"]), first)


class PfsbTests(SynchronousTestCase):
    """Tests with real servers, which are ended whether the test succeeds or not."""

    timeout = 120

    @long
    def test_servers_are_loaded_killed_and_stopped(self) -> None:
        """The comparison treats pfsb as every other system."""
        Pfsb.prepare(Choices())
        system = Pfsb(Path(self.mktemp()).resolve(), 3)
        self.addCleanup(system.stop)
        system.start()
        found = system.load(Load("put", 4, 2, seconds=0.3, warmup=0.1))
        assert found is not None
        self.assertGreater(rate_cell(found)["cpu_us"], 1)
        self.assertGreater(system.memory(), 1_000_000)
        self.assertTrue(0 < seconds_without_leader(system) < 15)
        settle(system)
        system.stop()
        self.assertEqual(system.running(), [])

    def test_failure_of_one_system_is_noted_and_ends_no_run(self) -> None:
        """The system's servers and files are removed, and the results are saved."""

        class Broken(Pfsb):
            name = "broken"

            def load(self, load: Load) -> None:
                raise OSError("no load today")

        saved: list[int] = []
        said: list[str] = []
        scratch = Path(self.mktemp()).resolve()
        scratch.mkdir()
        comparison = Comparison([Broken], rows("1x1"), 1, 0.1, 1, 1.0, scratch, lambda: saved.append(1), said.append)
        comparison.run(1)
        self.assertEqual(comparison.results.rounds, [{"broken": {"trouble": {"trouble": "no load today"}}}])
        self.assertEqual((list(scratch.iterdir()), saved), ([], [1]))
        self.assertIn("no load today", said[-1])
