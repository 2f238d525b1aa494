"""A group: records that were written and synced together, with number and checksum (docs/internals/log.rst).

The checksum covers the salt of the segment, which is random, the first bytes of the checksum of the group before, the
number and the content. So a group is valid in one place of one segment only, and behind one predecessor.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from xxhash import xxh3_128_digest

SALT_BYTES: Final = 16
MARKER_BYTES: Final = 8
"""Size, in bytes, of the marker with which each group of a segment begins: the first bytes of the segment's salt.
Clients and peers do not know the salt, so the marker stands nowhere else in the segment."""
_HEAD: Final = Struct(">8s16s8sQI")
_CHECKED_HEAD: Final = Struct(">8sQI")
"""The part of the head that the checksum covers: beginning of the checksum of the group before, number, length."""
HEAD_BYTES: Final = _HEAD.size
_CHECKED_HEAD_BYTES: Final = _CHECKED_HEAD.size
CHAIN_BYTES: Final = 8
NO_GROUP: Final = bytes(CHAIN_BYTES)
"""Stands for the checksum of the group before, in the first group of a log."""


Group = tuple[int, bytes, bytes, int, int]
"""A group as it was found in the bytes of a segment: its number, which is the position of the storage after it
(`IStableStorage.position`); the first bytes of the checksum of the group before it; the first bytes of its own; and the
offsets of its content and of its end in the bytes.

A start makes one for each group, so it is a plain tuple: a class of its own would add a tenth to the time of `scan`.
"""


class Sealed(NamedTuple):
    """A group that is ready to be written."""

    pieces: list[bytes | memoryview]
    size: int
    chain: bytes


def seal(salt: bytes, before: bytes, number: int, parts: list[bytes]) -> Sealed:
    """Make a group of the content in `parts`, for the segment with this salt. Its number is `number`, and `before` has
    the first bytes of the checksum of the group before it (`NO_GROUP`: there is none)."""
    length = sum(map(len, parts))
    checked = b"".join((salt, _CHECKED_HEAD.pack(before, number, length), *parts))
    check: bytes = xxh3_128_digest(checked)
    return Sealed(
        [salt[:MARKER_BYTES] + check, memoryview(checked)[SALT_BYTES:]], HEAD_BYTES + length, check[:CHAIN_BYTES]
    )


def size_at(data: bytes, at: int, salt: bytes) -> int | None:
    """The size, in bytes, of the group whose head stands at offset `at`, as that head tells it; None if no head stands
    there. Whether the group is valid is not checked."""
    if len(data) - at < HEAD_BYTES or not data.startswith(salt[:MARKER_BYTES], at):
        return None
    length: int = _HEAD.unpack_from(data, at)[4]
    return HEAD_BYTES + length


def group_at(data: bytes, at: int, salt: bytes) -> Group | None:
    """The group that begins at offset `at` in `data`, the bytes of a segment; None if no valid group begins there. A
    group is valid only with the `salt` of its segment, which its marker and its checksum depend on."""
    start = at + HEAD_BYTES
    if start > len(data):
        return None
    marker, check, before, number, length = _HEAD.unpack_from(data, at)
    end = start + length
    if marker != salt[:MARKER_BYTES] or end > len(data):
        return None
    if xxh3_128_digest(salt + data[start - _CHECKED_HEAD_BYTES : end]) != check:
        return None
    return number, before, check[:CHAIN_BYTES], start, end


def another_marker(data: bytes, after: int, salt: bytes) -> bool:
    """Whether the marker of a group stands anywhere behind the offset `after`, be that group valid or not.

    A group is written only when the one before it is on disk. So a marker behind a damaged group says that the damaged
    one had been on disk as a whole, and may have been acknowledged.
    """
    return data.find(salt[:MARKER_BYTES], after + 1) >= 0
