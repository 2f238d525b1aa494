"""`make bench`: has pfsb become slower than it was when figures were recorded?

    python -m benchmarks.regressions              compare with benchmarks/recorded.json
    python -m benchmarks.regressions --record     record

Seconds say little on a machine that others use, so two other things are compared. The instructions of Python's byte
code that a cluster in memory takes for each command are the same at each run, and tell of a change of one part in a
hundred. What C code takes beside them shows only in CPU time, which is measured in turns with work that never changes,
and compared as a ratio.
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
"""A figure may be so many times the recorded one."""
COUNTED: Final = 1_024
"""Commands whose instructions are counted, after as many that are not."""
TIMED: Final = 4_096
"""Commands in one measurement of CPU time."""
TIMES: Final = 5

Figures = dict[str, dict[str, float]]
"""By case: `instructions` for each command, `cpu` of one command in millionths of the calibration."""


def measure(case: Case) -> dict[str, float]:
    run = Run(case)
    run.commands(COUNTED)
    counted = instructions(lambda: run.commands(COUNTED))
    pairs = [(cpu_seconds(lambda: run.commands(TIMED)), cpu_seconds(calibration)) for _ in range(TIMES)]
    # The least disturbed of each: a neighbour on the machine makes both slower, but not always both in the same turn.
    cpu, unit = (min(times) for times in zip(*pairs, strict=True))
    return {"instructions": round(counted / COUNTED, 1), "cpu": round(cpu / unit / TIMED * 1e6, 2)}


@frozen
class Change:
    """One figure, then and now."""

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
    """What can be compared: byte code only within one version of Python, and cases that were there then."""
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
    """0: nothing is much slower; 1: something is."""
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
        if case.name in doubtful:  # a neighbour on the machine is slow once, a regression always
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
