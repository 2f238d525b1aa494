"""Tally, the application of the simulator that has two versions."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import BadRequest, Done
from pfsb.applications.testing import TrialContext
from pfsb.simulator.cluster.server_process import SimulatedApplications
from pfsb.simulator.cluster.tally import Tally


def count(tally: Tally, name: str) -> dict[str, Any]:
    result = tally.execute(tally.check(("TALLY", name)), TrialContext())
    assert isinstance(result, Done)
    return {name: value for name, value in result.fields if name != "revision"}


class TallyTests(SynchronousTestCase):
    def test_versions_tell_other_results(self) -> None:
        """The two versions of Tally give different results: a server that runs another version than the others is
        found."""
        one, two = Tally(1), Tally(2)
        for tally in (one, two):
            count(tally, "a")
        self.assertEqual((count(one, "b"), count(two, "b")), ({"count": 1}, {"count": 1, "total": 2}))

    def test_each_version_takes_over_the_state_of_the_other(self) -> None:
        """Each version of Tally takes over the state of the other, since an operator may switch back."""
        for before, after in ((1, 2), (2, 1)):
            old, new = Tally(before), Tally(after)
            count(old, "a")
            new.restore(old.snapshot())
            self.assertEqual(count(new, "a")["count"], 2)

    def test_servers_make_what_is_installed(self) -> None:
        """A server begins with the versions of Tally that are installed, each made anew, since it may execute the
        history again."""
        installed = SimulatedApplications(("tally", "kv"), tallies=(1, 2))
        self.assertEqual([application.name for application in installed.of_file()], ["tally", "kv"])
        self.assertIs(installed.make("kv", 1), installed.of_file()[1])
        self.assertIsNot(installed.make("tally", 1), installed.of_file()[0])
        self.assertEqual(dict(installed.versions), {"kv": (1,), "tally": (1, 2)})
        for name, version in (("tally", 3), ("kv", 2), ("none", 1)):
            self.assertRaises(BadRequest, installed.make, name, version)

    def test_server_without_tallies_can_run_none(self) -> None:
        """A server without installed tallies cannot run any: only profiles with changing settings install them."""
        installed = SimulatedApplications(("kv",))
        self.assertEqual(dict(installed.versions), {"kv": (1,)})
        self.assertRaises(BadRequest, installed.make, "tally", 1)
