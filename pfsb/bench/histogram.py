"""A histogram of latencies with buckets that are at most 1.6 % wide: exact enough for p99.9, and small.

All load clients, in every language, use the same buckets: one for each nanosecond below 128 ns, and above that 64 for
each doubling of the latency.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SUB_BUCKETS: Final = 64
"""Number of buckets for each doubling of the latency; `load.c` and the other load clients have the same number."""


def bucket(nanoseconds: int) -> int:
    """The number of the bucket that a latency falls into."""
    shift = max(0, nanoseconds.bit_length() - SUB_BUCKETS.bit_length())
    return shift * SUB_BUCKETS + (nanoseconds >> shift)


def middle(number: int) -> float:
    """The latency in the middle of a bucket, in nanoseconds."""
    if number < 2 * SUB_BUCKETS:
        return float(number)
    shift = number // SUB_BUCKETS - 1
    low = (number - shift * SUB_BUCKETS) << shift
    return low + ((1 << shift) - 1) / 2


class Histogram:
    """Counts latencies, by bucket."""

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        """`counts`: pairs (number of a bucket, how many latencies fell into it), as the load clients print them."""
        self._counts: dict[int, int] = {}
        for number, count in counts:
            self._counts[number] = self._counts.get(number, 0) + count

    def add(self, nanoseconds: int) -> None:
        """Add one latency to the count of its bucket."""
        number = bucket(nanoseconds)
        self._counts[number] = self._counts.get(number, 0) + 1

    @property
    def total(self) -> int:
        """How many latencies were counted, in all buckets together."""
        return sum(self._counts.values())

    def counts(self) -> list[tuple[int, int]]:
        """Pairs (number of a bucket, how many latencies fell into it), ascending, without empty buckets."""
        return sorted(self._counts.items())

    def percentile(self, percent: float) -> float | None:
        """The latency in microseconds that `percent` of all latencies do not exceed; None if none was counted."""
        wanted = self.total * percent / 100
        seen = 0
        for number, count in self.counts():
            seen += count
            if seen >= wanted:
                return middle(number) / 1000
        return None
