"""`Point`: one measured point of a section, in the form in which it is saved as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from pfsb.bench.measure import Measurement


@frozen
class Point:
    """One measured point. `x` is the quantity that the section varies, such as the number of servers.

    A figure that was not measured in the section is None.
    """

    section: str
    series: str
    x: float
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    server_cpu_us: float | None = None
    """CPU time, in microseconds, of all servers together for each operation."""
    commands_per_proposal: float | None = None
    memory_mib: float | None = None
    """Resident memory of the largest server at the end of the measurement."""
    disk_mib: float | None = None
    """Size on disk of the files of the largest server's storage, at the end of the measurement."""
    due: float | None = None
    """Open loop: number of operations due each second."""
    missed: int = 0
    errors: int = 0
    first_error: str = ""
    client_cores: float | None = None
    other_cores: float | None = None

    @classmethod
    def of(cls, section: str, series: str, x: float, found: Measurement, memory_bytes: int) -> Point:
        """A point with the figures of a measurement."""
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
            due=found.rate or None,
            missed=found.missed,
            errors=found.errors,
            first_error=found.first_error,
            client_cores=found.client_cores,
            other_cores=found.other_cores,
        )

    @classmethod
    def read(cls, words: Mapping[str, Any]) -> Point:
        """A point again, from the dictionary that `attrs.asdict` made of it."""
        return cls(**words)


MIB = 1 << 20


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def of_section(points: Sequence[Point], section: str) -> list[Point]:
    return [point for point in points if point.section == section]


def series_names(points: Sequence[Point]) -> list[str]:
    """The names of the series of these points, in the order in which the series were measured."""
    return list(dict.fromkeys(point.series for point in points))
