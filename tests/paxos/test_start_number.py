"""Tests of `pfsb.paxos.start_number`: the numbers of the starts of a server (Departure 53)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.start_number import are_of_two_copies, incarnation_of, mark_of, start_number, start_on_disk


class StartNumberTests(SynchronousTestCase):
    def test_number_has_incarnation_and_mark(self) -> None:
        """A start number has incarnation and mark; a later start has a higher number, whatever the marks are."""
        number = start_number(5, 0x1A2B3C4D)
        self.assertEqual((incarnation_of(number), mark_of(number)), (5, 0x1A2B3C4D))
        self.assertLess(number, start_number(6, 0))

    def test_number_that_is_only_an_incarnation_has_the_highest_mark(self) -> None:
        """A number on disk that is only an incarnation gets the highest mark: another copy with that incarnation is
        told apart from it, and the next start is later."""
        for number, start in ((0, 0), (1, (1 << 32) + 0xFFFFFFFF), (2**32 - 1, 2**64 - 1), (5 << 32, 5 << 32)):
            self.assertEqual(start_on_disk(number), start)
        self.assertTrue(are_of_two_copies(start_number(5, 7), start_on_disk(5)))
        self.assertLess(start_on_disk(5), start_number(6, 0))
