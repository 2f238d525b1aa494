"""Tests of `pfsb.storage.log.index` against a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.storage.log.index import SEGMENT_BYTES_MAX, Place, SlotIndex
from tests.examples import examples

SEQS = st.integers(1, 12) | st.integers(4_090, 4_100) | st.integers(8_185, 8_200) | st.integers(1, 2**53)
PLACES = st.builds(Place, st.integers(1, 2**20), st.integers(0, SEGMENT_BYTES_MAX - 1))


class IndexTests(SynchronousTestCase):
    """The index of slots, near the borders of its chunks and far away."""

    @examples(100)
    @given(st.dictionaries(SEQS, PLACES), SEQS)
    def test_index_holds_what_a_dictionary_holds(self, places: dict[int, Place], seq: int) -> None:
        """The index holds the latest place of each slot, as a dictionary does."""
        index = SlotIndex()
        for each, place in places.items():
            index.put(each, Place(1, 1).entry)
            index.put(each, place.entry)
        self.assertEqual(index.get(seq), places.get(seq))
        self.assertEqual(index.above(0), sorted(places))
        self.assertEqual(index.above(seq), sorted(each for each in places if each > seq))
        highest: dict[int, int] = {}
        for each in sorted(places):
            highest[places[each].segment] = each
        self.assertEqual(index.highest(), highest)

    def test_first_gap(self) -> None:
        """The first gap is found at the beginning, at the end, on both sides of a border between chunks, and not if
        there is none."""
        for last in (1, 2, 4_095, 4_096, 4_097, 8_191, 8_192, 10_000):
            for gap in {1, 2, 4_095, 4_096, 4_097, 8_191, 8_192, last - 1, last}:
                index = SlotIndex()
                for seq in range(1, last + 2):
                    if seq != gap:
                        index.put(seq, Place(1, 4_096).entry)
                self.assertEqual(index.first_gap(last), gap if 1 <= gap <= last else None, (last, gap))
                if 1 <= gap <= last:
                    self.assertIsNone(index.first_gap(last, after=gap), (last, gap))
                    self.assertEqual(index.first_gap(last, after=gap - 1), gap, (last, gap))
                self.assertIsNone(index.first_gap(last, after=last))
        self.assertIsNone(SlotIndex().first_gap(0))
        self.assertEqual(SlotIndex().first_gap(5_000), 1)

    def test_slots_that_are_dropped(self) -> None:
        """When slots are dropped, memory is freed chunk by chunk, and the places of all slots above stay."""
        index = SlotIndex()
        for seq in range(1, 10_001):
            index.put(seq, Place(1, 4_096).entry)
        for up_to, first in ((0, 1), (4_094, 1), (4_095, 4_096), (4_096, 4_096), (8_191, 8_192), (9_000, 8_192)):
            index.drop(up_to)
            self.assertEqual(index.above(0), list(range(first, 10_001)), up_to)
            self.assertIsNone(index.first_gap(10_000, after=up_to))
