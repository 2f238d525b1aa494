"""Draws the points of each section as charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from benchmarks.scale.point import Point, of_section, series_names
from benchmarks.scale.sections import CLOSED, OPEN
from pfsb.bench.plot import Chart, Series


@frozen
class _Axes:
    """The axes of one chart of a section."""

    title: str
    x_name: str
    y_name: str
    figure: str
    """The name of the attribute of `Point` that the y axis shows."""
    log_x: bool = True
    log_y: bool = False


_RATE: Final = "operations per second"
_P99: Final = "milliseconds, 99 of 100 answers"

_AXES: Final[dict[str, tuple[_Axes, ...]]] = {
    "servers": (
        _Axes("Throughput over servers", "servers", _RATE, "per_second", log_x=False, log_y=True),
        _Axes("Latency over servers", "servers", _P99, "p99_ms", log_x=False, log_y=True),
    ),
    "sizes": (
        _Axes("Throughput over the size of values", "bytes", _RATE, "per_second", log_y=True),
        _Axes("Latency over the size of values", "bytes", _P99, "p99_ms", log_y=True),
    ),
    "connections": (
        _Axes("Throughput over connections", "connections, one operation each", _RATE, "per_second", log_y=True),
        _Axes("Latency over connections", "connections, one operation each", _P99, "p99_ms", log_y=True),
    ),
    "keys": (_Axes("Memory over keys", "keys", "MiB of a server", "memory_mib", log_x=False),),
    "sessions": (_Axes("Memory over sessions", "sessions", "MiB of the largest server", "memory_mib", log_x=False),),
    "updates": (
        _Axes("Memory over updates", "updates", "MiB of the largest server", "memory_mib", log_x=False),
        _Axes("Disk over updates", "updates", "MiB of the largest server", "disk_mib", log_x=False),
        _Axes("Throughput over updates", "updates", _RATE, "per_second", log_x=False),
        _Axes("Latency over updates", "updates", _P99, "p99_ms", log_x=False),
    ),
}


def charts(points: Sequence[Point], section: str) -> list[Chart]:
    """The charts of one section; none if it was not measured."""
    measured = of_section(points, section)
    if not measured:
        return []
    if section == "overload":
        return _overload(measured)
    return [_chart(axes, measured) for axes in _AXES[section]]


def _chart(axes: _Axes, points: Sequence[Point]) -> Chart:
    names = series_names(points)
    series = [
        _series(name if len(names) > 1 else "", axes.figure, [p for p in points if p.series == name]) for name in names
    ]
    return Chart(axes.title, axes.x_name, axes.y_name, series, axes.log_x, axes.log_y)


def _series(name: str, figure: str, points: Sequence[Point]) -> Series:
    found = [(point.x, getattr(point, figure)) for point in points]
    return Series(name, [(x, y) for x, y in found if y is not None])


def _overload(points: Sequence[Point]) -> list[Chart]:
    """Four charts: throughput and latency, over operations under way (closed loop) and over those due (open loop)."""
    closed, opened = ([p for p in points if p.series == kind] for kind in (CLOSED, OPEN))
    drawn = [
        Chart(
            "Closed loop: throughput", "operations under way", _RATE, [_series("", "per_second", closed)], log_x=True
        ),
        Chart(
            "Closed loop: latency",
            "operations under way",
            "milliseconds",
            [_series("p50", "p50_ms", closed), _series("p99", "p99_ms", closed)],
            log_x=True,
            log_y=True,
        ),
    ]
    by_rate = [evolve(point, x=point.due or 0.0) for point in opened]
    answered = evolve(_series("", "per_second", by_rate), name="answered")
    asked = Series("due", [(point.x, point.x) for point in by_rate], dashed=True)
    latency = [_series("p50", "p50_ms", by_rate), _series("p99", "p99_ms", by_rate)]
    due = "operations due each second"
    return [
        *drawn,
        Chart("Open loop: throughput", due, _RATE, [answered, asked]),
        Chart("Open loop: latency", due, "milliseconds", latency, log_y=True),
    ]
