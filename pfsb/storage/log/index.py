"""The index of a log, in memory: in which group each slot stands."""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

from attrs import define, field

_CHUNK_BITS: Final = 12
_CHUNK: Final = 1 << _CHUNK_BITS
OFFSET_BITS: Final = 32
SEGMENT_BYTES_MAX: Final = 1 << OFFSET_BITS
"""Offset in a segment, in bytes, below which every group of the segment begins."""


class Place(NamedTuple):
    """A place in a log: the number of a segment, and the offset of a group in it."""

    segment: int
    offset: int

    @property
    def entry(self) -> int:
        """The place as one integer, other than 0."""
        return self.segment << OFFSET_BITS | self.offset

    @classmethod
    def of(cls, entry: int) -> Place | None:
        """The place that an entry stands for; None for 0."""
        return cls(entry >> OFFSET_BITS, entry & SEGMENT_BYTES_MAX - 1) if entry else None


@define(eq=False)
class SlotIndex:
    """Slot -> place of the group that holds its latest content, in eight bytes a slot.

    One thread writes; others may read meanwhile. An entry is made when the group is on disk.
    """

    _chunks: dict[int, array[int]] = field(factory=dict)
    """Number of a chunk (`_CHUNK` slots that follow each other) -> an entry for each of its slots: segment number and
    offset in one integer; 0: none."""

    def put(self, seq: int, entry: int) -> None:
        """Note the place of a slot, as `Place.entry`."""
        chunk = self._chunks.get(seq >> _CHUNK_BITS)
        if chunk is None:
            chunk = self._chunks[seq >> _CHUNK_BITS] = array("Q", bytes(8 * _CHUNK))
        chunk[seq & _CHUNK - 1] = entry

    def entry(self, seq: int) -> int:
        """The place of a slot, as `Place.entry`; 0 if the log does not hold it."""
        chunk = self._chunks.get(seq >> _CHUNK_BITS)
        return 0 if chunk is None else chunk[seq & _CHUNK - 1]

    def get(self, seq: int) -> Place | None:
        """The place of a slot; None if the log does not hold it."""
        return Place.of(self.entry(seq))

    def first_gap(self, last: int, after: int = 0) -> int | None:
        """The first slot above `after`, up to `last`, that the log does not hold; None if it holds all of them."""
        for number in range(after + 1 >> _CHUNK_BITS, (last >> _CHUNK_BITS) + 1):
            chunk_first = number << _CHUNK_BITS
            first = max(chunk_first, after + 1)
            chunk = self._chunks.get(number)
            if chunk is None:
                if first <= last:
                    return first
                continue
            entries = chunk[first - chunk_first : last - chunk_first + 1]
            if 0 in entries:
                return first + entries.index(0)
        return None

    def drop(self, up_to: int) -> None:
        """Free the memory of the slots up to `up_to`, as far as whole chunks end there. The places of the other slots
        stay."""
        for number in [number for number in self._chunks if number < up_to + 1 >> _CHUNK_BITS]:
            del self._chunks[number]

    def highest(self) -> dict[int, int]:
        """Number of a segment -> the highest slot whose place is in it; for all segments that have one."""
        found: dict[int, int] = {}
        for number in sorted(self._chunks):
            for slot, entry in enumerate(self._chunks[number], start=number << _CHUNK_BITS):
                if entry:
                    found[entry >> OFFSET_BITS] = slot
        return found

    def above(self, seq: int) -> list[int]:
        """All slots above `seq` that the log holds, ascending."""
        numbers = sorted(number for number in self._chunks if number >= seq >> _CHUNK_BITS)
        return [
            slot
            for number in numbers
            for slot, entry in enumerate(self._chunks[number], start=number << _CHUNK_BITS)
            if entry and slot > seq
        ]
