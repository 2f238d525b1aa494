"""The pages of docs/ can be built: no table, reference or heading of them is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pfsb
from tests.long import long

DOCS = Path(pfsb.__file__).parents[1] / "docs"


@long
class BuildTests(SynchronousTestCase):
    def test_pages_are_built_without_a_warning(self) -> None:
        """As by `make docs`, which readers and packagers run."""
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), self.mktemp()]
        built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual((built.returncode, built.stderr), (0, ""))
