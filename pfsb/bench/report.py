"""Measurements as a table for a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pfsb.bench.measure import Measurement

ABSENT: Final = "-"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table as text, each column right-aligned and as wide as its widest cell; the first row has the names."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def count(value: float | None) -> str:
    """A number as text, rounded to a whole one, with commas between groups of three digits; `ABSENT` for None."""
    return ABSENT if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A number as text: with three significant digits below 100, else as a whole number; `ABSENT` for None."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def milliseconds(microseconds: float | None) -> str:
    """A time in microseconds as text in milliseconds, with three significant digits; `ABSENT` for None."""
    return ABSENT if microseconds is None else f"{microseconds / 1000:.3g}"


_COLUMNS: Final[tuple[tuple[str, Callable[[Measurement], str]], ...]] = (
    ("connections", lambda m: str(m.connections)),
    ("x depth", lambda m: str(m.depth)),
    ("due/s", lambda m: count(m.rate) if m.rate else ABSENT),
    ("per second", lambda m: count(m.per_second)),
    ("p50 ms", lambda m: milliseconds(m.p50_us)),
    ("p99 ms", lambda m: milliseconds(m.p99_us)),
    ("p99.9 ms", lambda m: milliseconds(m.p999_us)),
    ("server us/op", lambda m: short(m.server_cpu_us)),
    ("server cores", lambda m: short(m.server_cores)),
    ("client cores", lambda m: short(m.client_cores)),
    ("disk writes/s", lambda m: count(m.disk_writes_per_second)),
    ("writes/proposal", lambda m: short(m.commands_per_proposal)),
    ("updates/proposal", lambda m: short(m.updates_per_proposal)),
    ("writes/update", lambda m: short(m.commands_per_update)),
    ("bytes/proposal", lambda m: count(m.bytes_per_proposal)),
    ("errors", lambda m: str(m.errors)),
    ("missed", lambda m: str(m.missed) if m.missed else ABSENT),
)


def table(measurements: Sequence[Measurement]) -> str:
    """The table of the report: one line for each measurement, and below them the remarks on the measurements.

    A column that is empty in every line is left out.
    """
    columns = [[name, *(show(m) for m in measurements)] for name, show in _COLUMNS]
    known = [column for column in columns if any(cell != ABSENT for cell in column[1:])]
    return aligned(list(zip(*known, strict=True))) + "".join(f"{line}\n" for line in remarks(measurements))


def remarks(measurements: Sequence[Measurement]) -> list[str]:
    """The reasons not to trust measurements, one line each; a line names the measurement by connections and depth."""
    return [remark for m in measurements for remark in remarks_on(m, f"{m.connections} x {m.depth}")]


class Measured(Protocol):
    """The attributes that `remarks_on` needs of its argument, which may be another class than `Measurement`."""

    @property
    def client_cores(self) -> float | None: ...

    @property
    def other_cores(self) -> float | None: ...

    @property
    def errors(self) -> int: ...

    @property
    def first_error(self) -> str: ...


def remarks_on(measured: Measured, where: str) -> list[str]:
    """The reasons not to trust one measurement, one line each; `where` is the measurement's name in these lines."""
    found = []
    if (measured.client_cores or 0) > CLIENT_CORES_MAX:
        found.append(f"{where}: the load client itself is the limit ({measured.client_cores:.2f} of one core)")
    if (measured.other_cores or 0) > OTHER_CORES_MAX:
        found.append(f"{where}: disturbed: other programs kept {measured.other_cores:.1f} cores busy")
    if measured.errors:
        found.append(f"{where}: {measured.errors} errors, the first: {measured.first_error}")
    return found


CLIENT_CORES_MAX: Final = 0.9
"""How many processor cores the load client may keep busy before the report warns that it limits the rate. The client
has one thread, so that it cannot use more than one core."""
OTHER_CORES_MAX: Final = 0.35
"""How many processor cores everything but servers and load client may keep busy before the report warns of a
disturbance. Without any disturbance, the kernel's threads for disk and network keep about this many busy."""
