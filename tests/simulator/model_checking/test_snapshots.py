"""Tests of `pfsb.simulator.model_checking.snapshots`: the list of attributes that make no difference."""

from __future__ import annotations

import inspect
import re

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.turn import Turn
from pfsb.simulator.model_checking.snapshots import ABSTRACTED


def attributes_of(kind: type) -> set[str]:
    """The names of the attributes that instances of a class have, its base classes' included."""
    if attrs.has(kind):
        return {attribute.name for attribute in attrs.fields(kind)}
    sources = (inspect.getsource(each) for each in kind.__mro__ if each is not object)
    return {name for source in sources for name in re.findall(r"\bself\.(\w+)", source)}


class AbstractedTests(SynchronousTestCase):
    def test_every_abstracted_attribute_exists(self) -> None:
        """An entry for an attribute that was renamed would have no effect, and the explorer would not end."""
        missing = [f"{kind.__name__}.{name}" for kind, name in ABSTRACTED if name not in attributes_of(kind)]
        self.assertEqual(missing, [])

    def test_attribute_that_does_not_exist_is_noticed(self) -> None:
        """A check that finds nothing must be able to find something."""
        self.assertIn("count", attributes_of(Turn))
        self.assertNotIn("number_of_turns", attributes_of(Turn))
