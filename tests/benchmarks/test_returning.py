"""How long a server takes to come back: `benchmarks.returning`."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.returning import PARTS, main
from tests.long import long


class ReturningTests(SynchronousTestCase):
    def test_unknown_part_is_refused(self) -> None:
        """An unknown part of the measurement is refused before servers are started."""
        self.assertRaises(SystemExit, main, ["--parts", "begin"])

    @long
    def test_start_and_rolling_restart_are_measured(self) -> None:
        """The time of a start and of a rolling restart is measured with real servers and few keys."""
        file = Path(self.mktemp())
        given = "--parts start,rolling --keys 100 --slots 20 --rounds 1 --clients 4 --directory ."
        with redirect_stdout(StringIO()):
            self.assertEqual(main([*given.split(), "--json", str(file)]), 0)
        found = json.loads(file.read_text())
        self.assertEqual(set(PARTS) - set(found), {"join"})
        self.assertGreater(found["start"]["seconds"][0], 0)
        self.assertEqual(len(found["rolling"]["seconds until a follower is back"]), 2)
        self.assertGreater(found["rolling"]["longest wait of a client"][0], 0)
