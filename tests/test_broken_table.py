"""The page of deliberate defects is complete, and up to date."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.caught import CAUGHT

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "make_broken_table.py"


def load() -> Any:
    """The script is no part of the package: it is loaded from where it is."""
    spec = importlib.util.spec_from_file_location("make_broken_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


broken_table = load()


class BrokenTableTests(SynchronousTestCase):
    def test_page_is_what_the_script_writes(self) -> None:
        """Run `python docs/make_broken_table.py` after a change of variants or seeds."""
        self.maxDiff = None
        self.assertEqual(broken_table.TABLE.read_text(), broken_table.render(CAUGHT))

    def test_pinned_seeds_are_what_the_script_writes(self) -> None:
        """So that a hunt changes only the lines of what was hunted."""
        self.maxDiff = None
        self.assertEqual(broken_table.PINNED.read_text(), broken_table.pinned(CAUGHT))
