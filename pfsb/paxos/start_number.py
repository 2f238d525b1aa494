"""Departure 53: frames name a start of a server by a number that no start of another copy of its storage has.

A start number has the incarnation in its upper bits, so that a later start has a higher one, and 32 random bits, the
mark of the start, below. An incarnation is counted on disk before anything is sent, so one storage has each incarnation
once. A copy of it that is put back counts on from where it was made, and has an incarnation again that the storage had
already. The marks differ then, but for one chance in 2^32.
"""

from __future__ import annotations

from pfsb.support.limits import START_MARK_BYTES

MARK_BITS = 8 * START_MARK_BYTES
HIGHEST_MARK = (1 << MARK_BITS) - 1


def start_number(incarnation: int, mark: int) -> int:
    """The number of the start with this incarnation and this mark."""
    return incarnation << MARK_BITS | mark


def incarnation_of(start: int) -> int:
    """The incarnation of the start with this number."""
    return start >> MARK_BITS


def mark_of(start: int) -> int:
    """The mark of the start with this number."""
    return start & HIGHEST_MARK


def start_on_disk(number: int) -> int:
    """The start number that a record on disk about another server's storage tells with `number`; 0: none.

    Records of versions before start numbers hold the incarnation alone, which is less than any start number. The mark
    of such a start is not known, and the highest possible one is taken for it. So frames with that incarnation count as
    those of another copy, and only a start with a higher incarnation counts as later.
    """
    return start_number(number, HIGHEST_MARK) if 0 < number <= HIGHEST_MARK else number


def are_of_two_copies(one: int, other: int) -> bool:
    """Whether two start numbers have one incarnation and two marks: two copies of one storage were started."""
    return one != other and one >> MARK_BITS == other >> MARK_BITS
