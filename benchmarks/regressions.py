"""`make bench`: has pfsb become slower than it was when figures were recorded?

    python -m benchmarks.regressions              compare with benchmarks/recorded.json
    python -m benchmarks.regressions --record     write the figures of this version to that file

Elapsed seconds vary on a machine that other programs use, so two other figures are compared. The number of
instructions of Python's byte code that a cluster in memory executes for each command is the same at each run, so a
change of one per cent is visible. The work of C code shows only in CPU time, which is given as a ratio to the CPU time
of work that never changes (`calibration`); the two are measured alternately.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from benchmarks.in_memory import CASES, Case, Run, calibration, cpu_seconds, instructions
from pfsb.bench.report import aligned

RECORDED: Final = Path(__file__).with_name("recorded.json")
SLOWER_MAX: Final = 1.25
"""Maximum ratio of a figure to the recorded one. A figure beyond that is a regression."""
COUNTED: Final = 1_024
"""Number of commands whose instructions are counted; before these, as many commands run uncounted, to warm up."""
TIMED: Final = 4_096
"""Number of commands in one measurement of CPU time."""
TIMES: Final = 5
"""Number of measurements of CPU time, the smallest of which is taken."""

Figures = dict[str, dict[str, float]]
"""Name of a case -> figure -> value.

`instructions` is their number per command; `cpu` is CPU time per command in millionths of that of `calibration`.
"""


def measure(case: Case) -> dict[str, float]:
    run = Run(case)
    run.commands(COUNTED)
    counted = instructions(lambda: run.commands(COUNTED))
    pairs = [(cpu_seconds(lambda: run.commands(TIMED)), cpu_seconds(calibration)) for _ in range(TIMES)]
    # Take the smallest of each: other programs slow down both measurements, but not always both in the same round.
    cpu, unit = (min(times) for times in zip(*pairs, strict=True))
    return {"instructions": round(counted / COUNTED, 1), "cpu": round(cpu / unit / TIMED * 1e6, 2)}


@frozen
class Change:
    """One figure of one case, as it was recorded (`then`) and as measured now."""

    case: str
    figure: str
    then: float
    now: float

    @property
    def ratio(self) -> float:
        return self.now / self.then

    @property
    def is_regression(self) -> bool:
        return self.ratio > SLOWER_MAX


def changes(recorded: Mapping[str, Any], found: Figures, python: str) -> list[Change]:
    """The figures that can be compared: those of recorded cases; `instructions` only if Python has the same version."""
    same_python = recorded["python"] == python
    return [
        Change(case, figure, recorded["figures"][case][figure], now)
        for case, figures in found.items()
        for figure, now in figures.items()
        if case in recorded["figures"] and (figure != "instructions" or same_python)
    ]


def table(compared: Sequence[Change]) -> str:
    rows = [["", "figure", "recorded", "now", "ratio", ""]]
    for change in compared:
        verdict = "SLOWER" if change.is_regression else ""
        rows.append([change.case, change.figure, f"{change.then:g}", f"{change.now:g}", f"{change.ratio:.3f}", verdict])
    return aligned(rows)


def main(given: Sequence[str] | None = None) -> int:
    """Measures and compares. Returns the exit status: 1 if a figure is a regression (`SLOWER_MAX`), else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regressions", description="Compare with recorded figures."
    )
    parser.add_argument("--record", action="store_true", help=f"write what is found to {RECORDED.name}")
    asked = parser.parse_args(given)
    found: Figures = {}
    for case in CASES:
        found[case.name] = measure(case)
        print(case.name, found[case.name], file=sys.stderr, flush=True)
    python = ".".join(platform.python_version_tuple()[:2])
    if asked.record:
        RECORDED.write_text(json.dumps({"python": python, "figures": found}, indent=1) + "\n")
        return 0
    recorded = json.loads(RECORDED.read_text())
    doubtful = {change.case for change in changes(recorded, found, python) if change.is_regression}
    for case in CASES:
        if case.name in doubtful:
            # Measure once more: if another program has disturbed the first measurement, the second one is lower.
            again = measure(case)
            found[case.name] = {figure: min(now, again[figure]) for figure, now in found[case.name].items()}
    compared = changes(recorded, found, python)
    print(table(compared), end="")
    slower = [change for change in compared if change.is_regression]
    if slower:
        print(f"{len(slower)} figures are more than {SLOWER_MAX:g} times what was recorded; if that is meant: --record")
    return int(bool(slower))


if __name__ == "__main__":
    sys.exit(main())
