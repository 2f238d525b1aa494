"""The tables of the comparison, for a terminal and for docs/performance.rst."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.compare.results import OURS, Results, Spread
from benchmarks.compare.rows import Row, Times
from benchmarks.setting import described, list_table
from pfsb.bench.report import ABSENT, CLIENT_CORES_MAX, OTHER_CORES_MAX, aligned, milliseconds, short


def main_table(results: Results, rows: Sequence[Row]) -> list[list[str]]:
    """The table of goals: each system's median, pfsb's ratio to the system in the goal, and whether the goal is met."""
    head = ["", *results.systems, "goal", "ratio: min", "median", "max", "met"]
    return [head, *(_main_row(results, row) for row in rows)]


def _main_row(results: Results, row: Row) -> list[str]:
    values = [_value(row, results.spread(system, row)) for system in results.systems]
    ratio = results.ratio(row) if isinstance(row.goal, Times) else results.spread(OURS, row)
    spread = [ABSENT] * 3 if ratio is None else [f"{value:.2f}" for value in (ratio.low, ratio.median, ratio.high)]
    met = {True: "yes", False: "NO", None: ABSENT}[results.is_met(row)]
    return [row.title, *values, _goal(row), *spread, met]


def _value(row: Row, spread: Spread | None) -> str:
    if spread is None:
        return ABSENT
    if isinstance(row.goal, Times):
        return f"{spread.median:,.0f}/s"
    return f"{short(spread.median)} {row.goal.unit}"


def _goal(row: Row) -> str:
    more = [f"CPU < {row.cpu_us_max:g} us"] if row.cpu_us_max is not None else []
    more += [f"p50 < {row.p50_ms_max:g} ms"] if row.p50_ms_max is not None else []
    return ", ".join([str(row.goal), *more])


def cost_table(results: Results, rows: Sequence[Row]) -> list[list[str]]:
    """The table of costs: medians of the CPU time for each operation, and of the latencies that the client saw."""
    head = ["", *(f"{name}: CPU us, p50, p99 ms" for name in results.systems)]
    return [head, *(_cost_row(results, row) for row in rows if row.is_rate)]


def _cost_row(results: Results, row: Row) -> list[str]:
    def shown(system: str) -> str:
        figures: list[tuple[str, Callable[[float | None], str]]] = [
            ("cpu_us", short),
            ("p50_us", milliseconds),
            ("p99_us", milliseconds),
        ]
        return " ".join(show(results.median(system, row, name)) for name, show in figures)

    return [row.title, *map(shown, results.systems)]


def remarks(results: Results, rows: Sequence[Row], missing: Mapping[str, str]) -> list[str]:
    """Sentences on figures that are absent or doubtful: missing systems, errors, load clients at their limit."""
    found = [f"{system} is missing: {why}" for system, why in missing.items()]
    for number, round_ in enumerate(results.rounds, 1):
        for system, cells in round_.items():
            found += [f"round {number}, {system}, {key}: {why}" for key, cell in cells.items() for why in _odd(cell)]
    return [*found, *_disturbed(results)]


def _disturbed(results: Results) -> list[str]:
    """One sentence about all figures that other programs have disturbed; the file of results tells which these are."""
    all_others = [
        cell.get("other_cores") for found in results.rounds for cells in found.values() for cell in cells.values()
    ]
    cores = [others for others in all_others if others is not None]
    disturbed = [others for others in cores if others > OTHER_CORES_MAX]
    if not disturbed:
        return []
    return [
        f"{len(disturbed)} of {len(cores)} loads disturbed: other programs kept up to {max(disturbed):.1f} cores busy"
    ]


def _odd(cell: Mapping[str, Any]) -> list[str]:
    odd = [str(cell["trouble"])] if "trouble" in cell else []
    if cell.get("errors"):
        odd.append(f"{cell['errors']} errors, the last or first: {cell['first_error']}")
    if cell.get("client") == "c" and (cell.get("client_cores") or 0) > CLIENT_CORES_MAX:
        odd.append("the load client itself is the limit")
    return odd


def text(results: Results, rows: Sequence[Row], missing: Mapping[str, str]) -> str:
    """Tables and remarks, as text for a terminal."""
    said = [f"! {line}\n" for line in remarks(results, rows, missing)]
    return "\n".join(
        [aligned(main_table(results, rows)), aligned(cost_table(results, rows)), "".join(said)],
    )


def rst(results: Results, rows: Sequence[Row], missing: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """Tables and remarks, as the file that docs/performance.rst includes."""
    measured = described(about)
    parts = [f"Measured with {measured}; {len(results.rounds)} rounds, medians.", ""]
    parts += [*list_table("Throughput and goals", main_table(results, rows)), ""]
    parts += [*list_table("CPU time and latency", cost_table(results, rows)), ""]
    parts += [f"* {line}" for line in remarks(results, rows, missing)]
    return "\n".join(parts).rstrip() + "\n"
