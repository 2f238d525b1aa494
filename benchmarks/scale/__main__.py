"""The command line of `benchmarks.scale`: measures sections, and prints, saves and draws the points."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from attrs import asdict, evolve

from benchmarks.compare.system import Trouble
from benchmarks.scale.drawing import charts
from benchmarks.scale.point import Point
from benchmarks.scale.sections import QUICK, SECTIONS, Extent
from benchmarks.scale.tables import rst, text
from benchmarks.setting import machine
from pfsb.bench.client import LoadFailed
from pfsb.bench.plot import svg
from pfsb.bench.probe import NoCluster


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description="Throughput, latency, memory and disk over servers, sizes, loads, keys, sessions and updates.",
    )
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few points, one second each: a few minutes in all")
    parser.add_argument("--seconds", type=float, help="measured time of each point (default: 5; 1 with --quick)")
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for storage")
    parser.add_argument("--svg", type=Path, help="draw each section into this directory, as scale-SECTION.svg")
    parser.add_argument("--json", type=Path, help="write every point to this file")
    parser.add_argument("--rst", type=Path, help="write the tables to this file, for the documentation")
    parser.add_argument("--from-json", type=Path, help="measure nothing: show what an earlier run has written")
    asked = parser.parse_args(given)
    asked.sections = asked.sections.split(",")
    unknown = set(asked.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section is named {', '.join(sorted(unknown))}; known are {', '.join(SECTIONS)}")
    return asked


def extent(asked: argparse.Namespace) -> Extent:
    """The numbers of servers, connections and so on that the command line asks to measure."""
    chosen = QUICK if asked.quick else Extent()
    return evolve(chosen, seconds=asked.seconds) if asked.seconds else chosen


def main() -> int:
    """Measures and shows. Returns the exit status: 0 if all was measured, 1 if a part was not, 130 if interrupted.

    In each case, the points that were measured are shown.
    """
    asked = arguments()
    if asked.from_json is not None:
        kept = json.loads(asked.from_json.read_text())
        return _show(asked, [Point.read(words) for words in kept["points"]], kept["about"], 0)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started this program with SIGINT ignored
        signal.signal(number, _interrupt)
    points: list[Point] = []
    status = 0
    scratch = Path(tempfile.mkdtemp(prefix="pfsb-scale-", dir=asked.directory)).resolve()
    about = machine(scratch)
    try:
        for section in asked.sections:
            status |= _measure(section, extent(asked), scratch, points)
    except KeyboardInterrupt:
        status = 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _show(asked, points, about, status)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _measure(section: str, extent: Extent, scratch: Path, points: list[Point]) -> int:
    began = time.monotonic()
    try:
        for point in SECTIONS[section](extent, scratch):
            points.append(point)
            _say(f"{time.monotonic() - began:5.0f} s  {section}: {_said(point)}")
    except (Trouble, LoadFailed, NoCluster, OSError) as error:
        _say(f"! {section}: {error}")
        return 1
    return 0


def _said(point: Point) -> str:
    found = f"{point.memory_mib:,.0f} MiB" if point.per_second is None else f"{point.per_second:,.0f}/s"
    return f"{point.x:g}, {point.series}: {found}"


def _show(asked: argparse.Namespace, points: Sequence[Point], about: dict[str, Any], status: int) -> int:
    if not points:
        _say("nothing was measured")
        return status or 1
    print(text(points, about), end="")
    if asked.json is not None:
        kept = {"about": about, "points": [asdict(point) for point in points]}
        asked.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if asked.rst is not None:
        asked.rst.write_text(rst(points, about), encoding="utf-8")
    if asked.svg is not None:
        _draw(asked.svg, points)
    return status


def _draw(directory: Path, points: Sequence[Point]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for section in SECTIONS:
        drawn = charts(points, section)
        if drawn:
            file = directory / f"scale-{section}.svg"
            file.write_text(svg(drawn), encoding="utf-8")
            print(f"drawn: {file}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
