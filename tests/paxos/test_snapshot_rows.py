"""Rows of a snapshot, and where its pieces end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos import snapshot_rows
from pfsb.paxos.snapshot import Piece, WrongSnapshot
from pfsb.paxos.snapshot_rows import PIECE_WORK, RowReader, cut, packed, pieces_of
from pfsb.support.limits import PIECE_BYTES

values = st.recursive(
    st.integers(-(2**63), 2**63) | st.text(st.characters(codec=None), max_size=9) | st.binary(max_size=300_000),
    lambda each: st.lists(each, max_size=3).map(tuple),
    max_leaves=4,
)


class PiecesTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(values, max_size=9), st.integers(10, 10**6))
    def test_rows_come_back(self, rows: list[object], bytes_max: int) -> None:
        """Any rows are read back from their pieces, whatever the length of the pieces."""
        before, snapshot_rows.PIECE_BYTES_MAX = snapshot_rows.PIECE_BYTES_MAX, bytes_max
        try:
            pieces = [*pieces_of("some", ((packed(row), 1) for row in rows))]
        finally:
            snapshot_rows.PIECE_BYTES_MAX = before
        reader = RowReader()
        self.assertEqual([row for piece in pieces for row in reader.rows(piece.data)], rows)
        reader.end()
        self.assertLessEqual(max((len(piece.data) for piece in pieces), default=0), bytes_max)

    def test_piece_ends_by_its_size_or_by_its_work(self) -> None:
        """A piece ends by its size or by its work, which follow from the rows alone, so equal rows make equal
        pieces."""
        large, slow, light = packed(bytes(PIECE_BYTES // 2)), packed("slow"), packed("light")
        rows = [(large, 1), (large, 1), (slow, PIECE_WORK - 1), (light, 1), (light, 1)]
        expected = [large + large, slow + light, light]
        self.assertEqual([*pieces_of("some", rows)], [Piece("some", data) for data in expected])

    def test_no_rows_make_no_piece(self) -> None:
        self.assertEqual([*pieces_of("some", [])], [])

    def test_piece_is_made_when_it_is_taken(self) -> None:
        """A piece is made when it is taken, so that each step is short, however many rows there are."""
        made = []
        pieces = pieces_of("some", ((packed(made.append(n)), PIECE_WORK) for n in range(3)))  # type: ignore[func-returns-value]
        next(pieces)
        self.assertEqual(made, [0])

    def test_bytes_without_rows_are_cut(self) -> None:
        data = bytes(range(256)) * 600
        pieces = [*cut("app", data)]
        self.assertEqual(b"".join(piece.data for piece in pieces), data)
        self.assertEqual([len(piece.data) for piece in pieces], [65_536, 65_536, 22_528])

    def test_wrong_rows_are_refused(self) -> None:
        self.assertRaises(WrongSnapshot, RowReader().rows, b"\xc1")
        reader = RowReader()
        self.assertEqual(reader.rows(packed("row")[:2]), [])
        self.assertRaises(WrongSnapshot, reader.end)
