"""The measurement of memory: it runs, with few keys."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import memory


class ApplicationTests(SynchronousTestCase):
    def test_application_is_measured(self) -> None:
        """All keys are written, none is refused, and the restored snapshot is the same."""
        out = io.StringIO()
        with redirect_stdout(out):
            memory.application(500, 100)
        self.assertEqual(len(out.getvalue().splitlines()), 5, out.getvalue())
