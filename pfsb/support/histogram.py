"""Counts values in buckets with fixed bounds, to show how they are distributed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from operator import mul
from typing import Final

from attrs import define, field

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
COUNTS: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0)
BYTES: Final = (64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 32_768.0, 65_536.0)


@define
class Histogram:
    """How many of the observed values are in each of several buckets.

    Observing a value is cheap, a search among a dozen bounds; totals are computed when they are read.
    """

    bounds: tuple[float, ...]
    """The largest value of each bucket, ascending; values above the last bound are in one more bucket."""
    _buckets: list[int] = field(init=False)
    sum: float = field(init=False, default=0.0)

    @_buckets.default
    def _make_buckets(self) -> list[int]:
        return [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        return sum(self._buckets)

    def observe(self, value: float) -> None:
        self._buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Sequence[float], times: Sequence[int]) -> None:
        """Observe each of `values` as many times as the number at the same place in `times` says. This takes hardly
        more byte code than to observe one value."""
        repeated = chain.from_iterable(map(repeat, values, times))
        for bucket, count in Counter(map(bisect_left, repeat(self.bounds), repeated)).items():
            self._buckets[bucket] += count
        self.sum += sum(map(mul, values, times))

    def cumulated(self) -> Iterator[tuple[float, int]]:
        """Yield pairs (bound, number of all observed values up to and including this bound), in ascending order."""
        total = 0
        for bound, count in zip(self.bounds, self._buckets, strict=False):
            total += count
            yield bound, total
