"""Snapshots: the state after the slots 1 to S, as a sequence of pieces, and the form of that sequence as bytes.

A snapshot stands for the history up to its slot: a server that has it need not execute, store or ask for these slots
again. `freeze` of the ordered update queue makes the pieces, the storage keeps them as a file, and other servers fetch
that file in parts. The pieces are a function of the executed slots alone, so snapshots of one slot have equal bytes on
all servers (docs/internals/snapshots.rst).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from attrs import define, field
from xxhash import xxh3_128, xxh3_128_digest

from pfsb.support.limits import PIECE_BYTES_MAX
from pfsb.support.values import value

SNAPSHOT_FORMAT: Final = 1
"""Number of the format of snapshots that this version writes."""
SNAPSHOT_DIGEST_BYTES: Final = 16
MAGIC: Final = b"pfsbsnap"
_HEAD: Final = Struct(">8sIQ8s")
"""The beginning of a snapshot: magic, format, slot, identity of the cluster. The digest of these bytes follows."""
_PIECE: Final = Struct(">BBI16s")
"""The head of a piece: kind, size of the section's name, size of the data, digest of name and data."""
_END: Final = Struct(">BQ16s")
"""The end of a snapshot: kind, number of pieces, digest of all heads before."""
_PIECE_KIND: Final = 1
_END_KIND: Final = 0
HEAD_BYTES: Final = _HEAD.size + SNAPSHOT_DIGEST_BYTES


class WrongSnapshot(Exception):
    """Bytes that are no snapshot, or a damaged one; the text is for a person."""


@value
class Piece:
    """One piece of a snapshot."""

    section: str
    """The part of the state that the data belong to, such as `kv`. Pieces of one section follow each other."""
    data: bytes


@value
class SnapshotName:
    """The name of a snapshot, which tells it from all others: two snapshots of one name have the same bytes."""

    seq: int
    """The slot S: the snapshot holds the state after it."""
    size: int
    """Size of the whole snapshot, in bytes."""
    digest: bytes
    """The digest of all pieces (`SnapshotEncoder.end`)."""


def any_snapshot_from(seq: int) -> SnapshotName:
    """The name by which a server that has lost its state asks others for an offer of any snapshot of slot `seq` or a
    later one (Departure 58). No snapshot has a size of 0."""
    return SnapshotName(seq, 0, bytes(SNAPSHOT_DIGEST_BYTES))


@define(eq=False)
class SnapshotEncoder:
    """Makes the bytes of a snapshot: `head`, each piece, `end`, one after the other."""

    seq: int
    cluster_identity: bytes
    _digest: xxh3_128 = field(factory=xxh3_128, init=False)
    _pieces: int = field(default=0, init=False)
    size: int = field(default=0, init=False)
    """Number of bytes that were made so far."""

    def head(self) -> bytes:
        head = _HEAD.pack(MAGIC, SNAPSHOT_FORMAT, self.seq, self.cluster_identity)
        self._digest.update(head)
        return self._made(head + xxh3_128_digest(head))

    def piece(self, piece: Piece) -> bytes:
        section, data = piece.section.encode(), piece.data
        assert len(data) <= PIECE_BYTES_MAX, "a piece is bounded"
        check: bytes = xxh3_128_digest(section + data)
        head = _PIECE.pack(_PIECE_KIND, len(section), len(data), check) + section
        self._digest.update(head)
        self._pieces += 1
        return self._made(head + data)

    def end(self) -> bytes:
        """The last bytes. The digest in them covers all heads, and so the whole snapshot, since the head of a piece has
        the digest of its data."""
        digest: bytes = self._digest.digest()
        return self._made(_END.pack(_END_KIND, self._pieces, digest))

    @property
    def name(self) -> SnapshotName:
        """The name of the snapshot; right once `end` was called."""
        return SnapshotName(self.seq, self.size, self._digest.digest())

    def _made(self, data: bytes) -> bytes:
        self.size += len(data)
        return data


@define(eq=False)
class SnapshotDecoder:
    """Reads the bytes of a snapshot, in portions of any size."""

    seq: int = field(default=0, init=False)
    """The slot of the snapshot; 0: its head was not read yet."""
    cluster_identity: bytes = field(default=b"", init=False)
    digest: bytes = field(default=b"", init=False)
    """The digest of the snapshot once its end was read; empty before."""
    size: int = field(default=0, init=False)
    """Number of bytes that were read completely: head, pieces and end."""
    _rest: bytes = field(default=b"", init=False)
    _digest: xxh3_128 = field(factory=xxh3_128, init=False)
    _pieces: int = field(default=0, init=False)

    @property
    def is_complete(self) -> bool:
        return bool(self.digest)

    @property
    def name(self) -> SnapshotName:
        """The name of the snapshot; right once `is_complete`."""
        return SnapshotName(self.seq, self.size, self.digest)

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take the next bytes, and yield the pieces that are complete by now.

        The iterator must be used up before the next call. Raises `WrongSnapshot`.
        """
        data = self._rest + data
        at = 0
        if not self.seq:
            if len(data) < HEAD_BYTES:
                self._rest = data
                return
            self._read_head(data)
            at = HEAD_BYTES
        while not self.is_complete and (end := self._end_of_next(data, at)) <= len(data):
            if data[at] == _END_KIND:
                self._read_end(data, at)
            else:
                yield self._read_piece(data, at, end)
            at = end
        self.size += at
        self._rest = data[at:]
        if self.is_complete and self._rest:
            raise WrongSnapshot("something follows its end")

    def _read_head(self, data: bytes) -> None:
        magic, version, seq, identity = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise WrongSnapshot("it does not begin as a snapshot does")
        if version != SNAPSHOT_FORMAT:
            raise WrongSnapshot(f"it has format {version}, and this version of pfsb reads format {SNAPSHOT_FORMAT}")
        if xxh3_128_digest(data[: _HEAD.size]) != data[_HEAD.size : HEAD_BYTES] or not seq:
            raise WrongSnapshot("its head is damaged")
        self._digest.update(data[: _HEAD.size])
        self.seq, self.cluster_identity = seq, identity

    @staticmethod
    def _end_of_next(data: bytes, at: int) -> int:
        """The offset behind the piece, or the end, that begins at `at`; an offset behind all of `data` if its head is
        not there as a whole."""
        if at >= len(data):
            return at + 1
        if data[at] == _END_KIND:
            return at + _END.size
        if data[at] != _PIECE_KIND:
            raise WrongSnapshot("a piece of it is damaged")
        if at + _PIECE.size > len(data):
            return len(data) + 1
        _, section_bytes, data_bytes, _ = _PIECE.unpack_from(data, at)
        if data_bytes > PIECE_BYTES_MAX:
            raise WrongSnapshot("a piece of it is damaged")
        return int(at + _PIECE.size + section_bytes + data_bytes)

    def _read_piece(self, data: bytes, at: int, end: int) -> Piece:
        _, section_bytes, _, check = _PIECE.unpack_from(data, at)
        section_at = at + _PIECE.size
        data_at = section_at + section_bytes
        if xxh3_128_digest(data[section_at:end]) != check:
            raise WrongSnapshot("a piece of it is damaged")
        self._digest.update(data[at:data_at])
        self._pieces += 1
        return Piece(data[section_at:data_at].decode(errors="replace"), data[data_at:end])

    def _read_end(self, data: bytes, at: int) -> None:
        _, pieces, digest = _END.unpack_from(data, at)
        if pieces != self._pieces or digest != self._digest.digest():
            raise WrongSnapshot("its end does not fit its pieces")
        self.digest = digest
