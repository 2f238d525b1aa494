"""The page of planted defects is complete and up to date."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.defects.expected_catches import CAUGHT, DIRECTED
from tests.docs.docs_script import load

broken_table = load("make_broken_table")


class BrokenTableTests(SynchronousTestCase):
    def test_page_is_what_the_script_writes(self) -> None:
        """The page is what docs/make_broken_table.py writes now. Run that script after a change of defects or seeds."""
        self.maxDiff = None
        self.assertEqual(broken_table.TABLE.read_text(), broken_table.render(CAUGHT, DIRECTED))

    def test_pinned_seeds_are_what_the_script_writes(self) -> None:
        """The file of pinned seeds has the form in which docs/make_broken_table.py writes it, so that a hunt changes
        only the lines of the defects that it has looked for."""
        self.maxDiff = None
        self.assertEqual(broken_table.PINNED.read_text(), broken_table.pinned(CAUGHT, DIRECTED))
