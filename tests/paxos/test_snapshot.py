"""Tests of `pfsb.paxos.snapshot`: the bytes of a snapshot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.snapshot import (
    HEAD_BYTES,
    PIECE_BYTES_MAX,
    Piece,
    SnapshotDecoder,
    SnapshotEncoder,
    SnapshotName,
    WrongSnapshot,
)

CLUSTER = b"cluster1"
PIECES = (Piece("history", b"h" * 10), Piece("kv", b""), Piece("kv", bytes(range(40))))
pieces_strategy = st.lists(
    st.builds(Piece, st.sampled_from(["history", "", "grüße"]), st.binary(max_size=300)), max_size=6
)


def encoded(pieces: list[Piece] | tuple[Piece, ...], seq: int = 7) -> tuple[SnapshotName, bytes]:
    encoder = SnapshotEncoder(seq, CLUSTER)
    data = b"".join([encoder.head(), *map(encoder.piece, pieces), encoder.end()])
    return encoder.name, data


def decoded(data: bytes, portion: int = 1_000_000) -> tuple[SnapshotDecoder, list[Piece]]:
    decoder = SnapshotDecoder()
    found: list[Piece] = []
    for at in range(0, len(data), portion):
        found += decoder.feed(data[at : at + portion])
    return decoder, found


class SnapshotBytesTests(SynchronousTestCase):
    @given(pieces_strategy, st.integers(1, 2**53), st.integers(1, 400))
    def test_what_is_encoded_is_decoded_whatever_the_portions(
        self, pieces: list[Piece], seq: int, portion: int
    ) -> None:
        name, data = encoded(pieces, seq)
        decoder, found = decoded(data, portion)
        self.assertEqual(found, pieces)
        self.assertTrue(decoder.is_complete)
        self.assertEqual((decoder.name, decoder.cluster_identity), (name, CLUSTER))
        self.assertEqual(name.size, len(data))

    def test_every_flipped_bit_is_found(self) -> None:
        name, data = encoded(PIECES)
        for at in range(len(data)):
            for bit in range(8):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                self.assertTrue(self._is_refused(bytes(changed), name), f"byte {at}, bit {bit}")

    def test_a_snapshot_that_is_cut_is_never_complete(self) -> None:
        _, data = encoded(PIECES)
        for size in range(len(data)):
            decoder, _ = decoded(data[:size])
            self.assertFalse(decoder.is_complete)

    def test_bytes_behind_the_end_are_refused(self) -> None:
        _, data = encoded(PIECES)
        self.assertRaises(WrongSnapshot, decoded, data + b"x")

    def test_pieces_of_two_snapshots_do_not_make_one(self) -> None:
        """Pieces of two snapshots put together are refused: the digest of each piece is right, and that of the whole is
        not."""
        _, one = encoded((Piece("kv", b"1111"), Piece("kv", b"2222")))
        _, other = encoded((Piece("kv", b"3333"), Piece("kv", b"4444")))
        middle = HEAD_BYTES + (len(one) - HEAD_BYTES - 25) // 2
        self.assertRaises(WrongSnapshot, decoded, one[:middle] + other[middle:])

    def test_a_piece_that_claims_to_be_huge_is_refused_at_its_head(self) -> None:
        """A piece that claims to be huge is refused at its head, before memory is allocated for it."""
        _, data = encoded((Piece("kv", b"1111"),))
        size_at = HEAD_BYTES + 2
        changed = data[:size_at] + (PIECE_BYTES_MAX + 1).to_bytes(4, "big") + data[size_at + 4 :]
        self.assertRaises(WrongSnapshot, decoded, changed)

    def test_another_format_is_named(self) -> None:
        _, data = encoded(PIECES)
        error = self.assertRaises(WrongSnapshot, decoded, data[:8] + (2).to_bytes(4, "big") + data[12:])
        self.assertIn("format 2", str(error))

    def test_names_of_snapshots_of_one_slot_differ_by_their_content(self) -> None:
        one, _ = encoded(PIECES)
        other, _ = encoded(PIECES[:2])
        self.assertNotEqual(one.digest, other.digest)
        self.assertEqual(encoded(PIECES)[0], one)

    def _is_refused(self, data: bytes, name: SnapshotName) -> bool:
        try:
            decoder, _ = decoded(data)
        except WrongSnapshot:
            return True
        return not decoder.is_complete or decoder.name != name
