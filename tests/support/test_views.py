"""Views: pairs of an epoch and a number, packed into one number."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.support.limits import VIEW_MAX
from pfsb.support.views import epoch_of, number_of, packed, shown, view_of


class ViewTests(SynchronousTestCase):
    def test_views_are_compared_as_pairs(self) -> None:
        """Each view of an epoch is above all views of earlier epochs."""
        pairs = [(0, 0), (0, 1), (0, VIEW_MAX), (1, 0), (1, 1), (2, 1), (2, VIEW_MAX), (3, 1)]
        views = [view_of(*pair) for pair in pairs]
        self.assertEqual(views, sorted(views))
        self.assertEqual([(epoch_of(view), number_of(view)) for view in views], pairs)

    def test_views_of_the_founding_servers_are_plain_numbers(self) -> None:
        """In epoch 0 a view is its number, as it was before there were epochs."""
        for view in (0, 1, 17, VIEW_MAX):
            self.assertEqual((view_of(0, view), shown(view), packed(view)), (view, view, view))

    def test_view_of_a_later_epoch_is_shown_as_two_numbers(self) -> None:
        """A view of a later epoch is shown as two numbers, such as 2.5, in the log and in STATUS."""
        self.assertEqual(shown(view_of(2, 5)), "2.5")
        self.assertEqual(packed("2.5"), view_of(2, 5))
        self.assertRaises(ValueError, packed, "two")
