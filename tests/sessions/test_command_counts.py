"""CommandCounts: commands by verb and result."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Done, Refused
from pfsb.sessions.command_counts import CommandCounts


class CommandCountsTests(SynchronousTestCase):
    def test_bundles_with_and_without_refusals(self) -> None:
        """Bundles whose results are all Done are counted as a whole, others result by result, and the counts add up."""
        counts = CommandCounts()
        counts.note(["PUT", "PUT", "GET"], [Done(), Done(), Done()])
        counts.note(["PUT", "GET", "LOCK"], [Done(), Refused("NOTFOUND", "there is none"), PENDING])
        self.assertEqual(
            counts.by_verb_and_result(),
            {("PUT", "OK"): 3, ("GET", "OK"): 1, ("GET", "NOTFOUND"): 1, ("LOCK", "PENDING"): 1},
        )
