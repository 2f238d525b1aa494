"""The decorator `value`: classes whose instances never change."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.support.values import value


@value
class Pair:
    left: int
    right: str = ""


class ValueTests(SynchronousTestCase):
    def test_values_are_compared_by_their_fields(self) -> None:
        """Equal values are one member of a set, as with `attrs.frozen`."""
        self.assertEqual(Pair(1), Pair(1, ""))
        self.assertNotEqual(Pair(1), Pair(2))
        self.assertEqual({Pair(1), Pair(1), Pair(2)}, {Pair(2), Pair(1)})
        self.assertEqual(repr(Pair(1)), "Pair(left=1, right='')")

    def test_values_take_no_other_attributes(self) -> None:
        """A value takes no attribute besides its fields, so that a misspelt one is an error."""
        self.assertRaises(AttributeError, setattr, Pair(1), "middle", 3)
