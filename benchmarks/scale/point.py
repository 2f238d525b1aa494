"""One measured point of a section, as it is kept in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from pfsb.bench.measure import Measurement


@frozen
class Point:
    """`x` is what the section is over: servers, bytes, connections, keys. What does not apply is None."""

    section: str
    series: str
    x: float
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    server_cpu_us: float | None = None
    """Of all servers together, for each operation."""
    commands_per_proposal: float | None = None
    memory_mib: float | None = None
    """Resident, of the largest server, when the point was done."""
    due: float | None = None
    """Of an open loop: operations due each second."""
    missed: int = 0
    errors: int = 0
    first_error: str = ""
    client_cores: float | None = None
    other_cores: float | None = None

    @classmethod
    def of(cls, section: str, series: str, x: float, found: Measurement, memory_bytes: int) -> Point:
        return cls(
            section,
            series,
            x,
            found.per_second,
            _milliseconds(found.p50_us),
            _milliseconds(found.p99_us),
            found.server_cpu_us,
            found.commands_per_proposal,
            memory_bytes / MIB,
            found.rate or None,
            found.missed,
            found.errors,
            found.first_error,
            found.client_cores,
            found.other_cores,
        )

    @classmethod
    def read(cls, words: Mapping[str, Any]) -> Point:
        """What `attrs.asdict` has made of one."""
        return cls(**words)


MIB = 1 << 20


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def of_section(points: Sequence[Point], section: str) -> list[Point]:
    return [point for point in points if point.section == section]


def series_names(points: Sequence[Point]) -> list[str]:
    """In the order in which they were measured."""
    return list(dict.fromkeys(point.series for point in points))
