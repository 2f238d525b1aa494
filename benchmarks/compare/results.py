"""The results of all rounds, and their evaluation: ratios within each round, then the median of the ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from benchmarks.compare.rows import DURABLE, AtMost, Row, Times
from pfsb.bench.client import LoadResult
from pfsb.bench.measure import other_cores

OURS: Final = "pfsb"
DURABLE_PEERS: Final = ("etcd", "ZooKeeper", "NATS", "PostgreSQL")
MEMORY_PEER: Final = "PySyncObj"
SYSTEMS: Final = (OURS, *DURABLE_PEERS, MEMORY_PEER)

Cell = Mapping[str, Any]
"""The result of one system for one row in one round: a list `values`; and for a rate, also CPU time and latencies."""
Round = Mapping[str, Mapping[str, Cell]]
"""The results of one round: name of a system -> key of a row -> cell."""


def rate_cell(result: LoadResult) -> dict[str, Any]:
    """The cell for the result of a load."""
    cpu = result.ended.cpu_seconds - result.begun.cpu_seconds
    return {
        "values": [result.per_second],
        "cpu_us": cpu / result.operations * 1e6 if result.operations else None,
        "p50_us": result.histogram.percentile(50),
        "p99_us": result.histogram.percentile(99),
        "p999_us": result.histogram.percentile(99.9),
        "client": result.client,
        "client_cores": result.cpu_seconds / result.seconds if result.seconds else None,
        "other_cores": other_cores(result.begun, result.ended, result),
        "errors": result.errors,
        "first_error": result.first_error,
    }


@frozen
class Spread:
    """The smallest, the median and the greatest value of several rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(min(values), statistics.median(values), max(values)) if values else None


@frozen
class Results:
    """All rounds of one run."""

    rounds: Sequence[Round] = field(factory=list)

    @property
    def systems(self) -> list[str]:
        """The names of the systems that were measured, in the order of the tables."""
        return [system for system in SYSTEMS if any(system in round_ for round_ in self.rounds)]

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The medians of each row, by key of the row, and pfsb's ratio, for the JSON file."""
        return {row.key: self._summary(row) for row in rows}

    def _summary(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for system in self.systems:
            if (spread := self.spread(system, row)) is not None:
                others = {name: self.median(system, row, name) for name in ("cpu_us", "p50_us", "p99_us")}
                found[system] = {"median": spread.median, "min": spread.low, "max": spread.high, **others}
        if isinstance(row.goal, Times) and (ratio := self.ratio(row)) is not None:
            found["ratio"] = {"of": row.goal.of, "median": ratio.median, "min": ratio.low, "max": ratio.high}
        return found

    def values(self, system: str, row: Row) -> list[float]:
        return [value for cell in self._cells(system, row) for value in cell["values"]]

    def spread(self, system: str, row: Row) -> Spread | None:
        return Spread.of(self.values(system, row))

    def median(self, system: str, row: Row, name: str) -> float | None:
        """The median over the rounds of another figure than the rate: of CPU time or of a latency."""
        found = [cell[name] for cell in self._cells(system, row) if cell.get(name) is not None]
        return statistics.median(found) if found else None

    def ratio(self, row: Row) -> Spread | None:
        """For a rate: pfsb's rate divided by that of the goal's system, round by round; None if either is missing."""
        assert isinstance(row.goal, Times)
        peers = DURABLE_PEERS if row.goal.of == DURABLE else (MEMORY_PEER,)
        ratios = []
        for found in self.rounds:
            ours = _mean(found, OURS, row)
            best = max((rate for peer in peers if (rate := _mean(found, peer, row)) is not None), default=None)
            if ours is not None and best:
                ratios.append(ours / best)
        return Spread.of(ratios)

    def is_met(self, row: Row) -> bool | None:
        """True if the medians meet a row's goal and its second condition, if any; None if the row was not measured."""
        if isinstance(row.goal, AtMost):
            found = self.spread(OURS, row)
            met = None if found is None else found.median <= row.goal.value
        else:
            ratio = self.ratio(row)
            met = None if ratio is None else ratio.median >= row.goal.factor
        return met and self._second_goals(row)

    def _second_goals(self, row: Row) -> bool:
        limits = (("cpu_us", row.cpu_us_max), ("p50_us", None if row.p50_ms_max is None else row.p50_ms_max * 1000))
        for name, most in limits:
            found = self.median(OURS, row, name)
            if most is not None and (found is None or found > most):
                return False
        return True

    def _cells(self, system: str, row: Row) -> list[Cell]:
        found = [round_.get(system, {}).get(row.key) for round_ in self.rounds]
        return [cell for cell in found if cell is not None and "values" in cell]


def _mean(found: Round, system: str, row: Row) -> float | None:
    values = found.get(system, {}).get(row.key, {}).get("values")
    return statistics.fmean(values) if values else None
