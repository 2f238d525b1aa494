"""The application of the simulator that has two versions."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import BadRequest, Done
from pfsb.applications.testing import TrialContext
from pfsb.simulator.cluster.tally import SimulatedApplications, Tally


def count(tally: Tally, name: str) -> dict[str, Any]:
    result = tally.execute(tally.check(("TALLY", name)), TrialContext())
    assert isinstance(result, Done)
    return {name: value for name, value in result.fields if name != "revision"}


class TallyTests(SynchronousTestCase):
    def test_versions_tell_other_results(self) -> None:
        """A server that runs another version than the others is found by its results."""
        one, two = Tally(1), Tally(2)
        for tally in (one, two):
            count(tally, "a")
        self.assertEqual((count(one, "b"), count(two, "b")), ({"count": 1}, {"count": 1, "total": 2}))

    def test_each_version_takes_over_the_state_of_the_other(self) -> None:
        """An operator may go forth and back."""
        for before, after in ((1, 2), (2, 1)):
            old, new = Tally(before), Tally(after)
            count(old, "a")
            new.restore(old.snapshot())
            self.assertEqual(count(new, "a")["count"], 2)

    def test_servers_make_what_is_installed(self) -> None:
        """Given applications are the same objects, which a cluster uses once, and others are made anew."""
        given = Tally(1)
        installed = SimulatedApplications({"kv": given}, tallies=(1,))
        self.assertIs(installed.make("kv", 1), given)
        self.assertIsNot(installed.make("tally", 1), installed.make("tally", 1))
        self.assertEqual(dict(installed.versions), {"kv": (1,), "tally": (1,)})
        for name, version in (("tally", 2), ("kv", 2), ("chat", 1)):
            self.assertRaises(BadRequest, installed.make, name, version)
