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
        """Each attribute that is left out as making no difference exists: an entry for a renamed one would have no
        effect."""
        missing = [f"{kind.__name__}.{name}" for kind, name in ABSTRACTED if name not in attributes_of(kind)]
        self.assertEqual(missing, [])

    def test_attribute_that_does_not_exist_is_noticed(self) -> None:
        """The check of the test above finds an attribute that does not exist."""
        self.assertIn("count", attributes_of(Turn))
        self.assertNotIn("number_of_turns", attributes_of(Turn))
