"""Makes tables of the points, for a terminal and for docs/performance.rst, with remarks on doubtful points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from benchmarks.scale.point import Point, of_section
from benchmarks.scale.sections import CLOSED, OPEN, SECTIONS
from benchmarks.setting import described, list_table
from pfsb.bench.report import ABSENT, aligned, count, remarks_on, short

TITLES: Final = {
    "servers": "Over the number of servers",
    "sizes": "Over the size of values",
    "connections": "Over connections, one operation each",
    "overload": "Under overload",
    "keys": "Memory over keys",
    "sessions": "Memory over sessions",
    "updates": "Memory and disk over updates of the same keys",
}
_X_NAMES: Final = {
    "servers": "servers",
    "sizes": "bytes",
    "connections": "connections",
    "overload": "under way, or due",
    "keys": "keys",
    "sessions": "sessions",
    "updates": "updates",
}

_COLUMNS: Final[tuple[tuple[str, Callable[[Point], str]], ...]] = (
    ("per second", lambda p: count(p.per_second)),
    ("p50 ms", lambda p: short(p.p50_ms)),
    ("p99 ms", lambda p: short(p.p99_ms)),
    ("server us/op", lambda p: short(p.server_cpu_us)),
    ("writes/proposal", lambda p: short(p.commands_per_proposal)),
    ("MiB", lambda p: short(p.memory_mib)),
    ("MiB on disk", lambda p: short(p.disk_mib)),
    ("missed/s", lambda p: count(p.due - (p.per_second or 0.0)) if p.due and p.missed else ABSENT),
    ("errors", lambda p: count(p.errors) if p.errors else ABSENT),
)


def table(points: Sequence[Point], section: str) -> list[list[str]]:
    """The table of one section, as rows of cells; columns without any value are left out."""
    measured = of_section(points, section)
    columns = [[_X_NAMES[section], *map(_shown_x, measured)], ["", *(p.series for p in measured)]]
    for name, show in _COLUMNS:
        columns.append([name, *map(show, measured)])
    if section == "overload":
        best = max((p.per_second or 0.0 for p in measured), default=0.0)
        columns.append(["of the peak", *(_share(p.per_second, best) for p in measured)])
    if section == "sizes":
        columns.append(["MB/s", *(short((p.per_second or 0.0) * p.x / 1e6) for p in measured)])
    known = [column for column in columns if any(cell != ABSENT for cell in column[1:])]
    return [list(row) for row in zip(*known, strict=True)]


def _shown_x(point: Point) -> str:
    return f"{point.due:,.0f}/s" if point.series == OPEN and point.due else f"{point.x:,.0f}"


def _share(value: float | None, best: float) -> str:
    return f"{100 * (value or 0.0) / best:.0f} %" if best else ABSENT


def verdict(points: Sequence[Point]) -> list[str]:
    """Sentences on the section `overload`: does throughput collapse under too much load?

    Each gives the throughput under the greatest load as a share of the best throughput.
    """
    said = []
    for kind in (CLOSED, OPEN):
        measured = [p for p in of_section(points, "overload") if p.series == kind]
        if len(measured) > 1:
            best = max(p.per_second or 0.0 for p in measured)
            last = max(measured, key=lambda p: p.x)
            beyond = f"{last.x:,.0f} under way" if kind == CLOSED else f"{last.x:g} times as much due"
            slow = f"p99 {short(last.p99_ms)} ms, {last.errors} errors, {short(last.memory_mib)} MiB"
            said.append(f"{kind}: {_share(last.per_second, best)} of its best throughput with {beyond}; {slow}")
    return said


def remarks(points: Sequence[Point]) -> list[str]:
    """Sentences on points that are not to be trusted, such as points with errors or a disturbed machine."""
    return [remark for p in points for remark in remarks_on(p, f"{p.section}, {p.series}, {_shown_x(p)}")]


def text(points: Sequence[Point], about: Mapping[str, Any]) -> str:
    """All tables, verdicts and remarks, as text for a terminal."""
    parts = [described(about) + "\n"]
    for section in _measured(points):
        parts.append(f"{TITLES[section]}\n\n{aligned(table(points, section))}")
    said = [*verdict(points), *(f"! {line}" for line in remarks(points))]
    return "\n".join([*parts, "".join(f"{line}\n" for line in said)])


def rst(points: Sequence[Point], about: Mapping[str, Any]) -> str:
    """All tables, verdicts and remarks, as the file that docs/performance.rst includes."""
    lines = [f"Measured with {described(about)}.", ""]
    for section in _measured(points):
        lines += [*list_table(TITLES[section], table(points, section)), ""]
    lines += [f"* {line}" for line in (*verdict(points), *remarks(points))]
    return "\n".join(lines).rstrip() + "\n"


def _measured(points: Sequence[Point]) -> list[str]:
    return [section for section in SECTIONS if of_section(points, section)]
