"""The command line of the paper's charts: measures, draws, and prints ratios beside those of the paper."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from attrs import asdict

from benchmarks.compare.ours import Pfsb
from benchmarks.compare.system import Trouble
from benchmarks.paper.drawing import Point, charts, claims
from benchmarks.paper.published import SERVERS, UPDATE_BYTES
from benchmarks.paper.variants import QUICK_CLIENTS, QUICK_SERVERS, VARIANTS, Variant
from pfsb.bench.client import LoadClient, LoadFailed, client_command
from pfsb.bench.measure import measure
from pfsb.bench.plot import svg
from pfsb.bench.workload import Workload, operations


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    known = [variant.key for variant in VARIANTS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description="Figures 15 to 34 of the paper, again."
    )
    parser.add_argument("--quick", action="store_true", help="few clients, 4 and 8 servers, one second each")
    parser.add_argument("--servers", type=_numbers, help=f"how many, as in 4,8 (default: {SERVERS})")
    parser.add_argument("--clients", type=_numbers, help="how many, as in 1,25,100 (default: those of each chart)")
    parser.add_argument("--variants", default=",".join(known), help=f"which charts: {', '.join(known)}")
    parser.add_argument("--seconds", type=float, help="measured time of each point (default: 3; 1 with --quick)")
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for storage")
    parser.add_argument("--svg", type=Path, default=Path("paper.svg"), help="the charts (default: paper.svg)")
    parser.add_argument("--json", type=Path, help="write every point to this file")
    parser.add_argument("--from-json", type=Path, help="measure nothing: draw what an earlier run has written")
    asked = parser.parse_args(given)
    unknown = set(asked.variants.split(",")) - set(known)
    if unknown:
        parser.error(f"no variant is named {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return asked


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def main() -> int:
    """Measures and draws. Returns the exit status: 0 if all was measured, 1 if a part was not, 130 if interrupted.

    In each case, the points that were measured are drawn.
    """
    asked = arguments()
    if asked.from_json is not None:
        return _show(asked, [Point.read(words) for words in json.loads(asked.from_json.read_text())], 0)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started this program with SIGINT ignored
        signal.signal(number, _interrupt)
    points: list[Point] = []
    status = 0
    scratch = Path(tempfile.mkdtemp(prefix="pfsb-paper-", dir=asked.directory)).resolve()
    try:
        for variant in VARIANTS:
            if variant.key in asked.variants.split(","):
                status |= _measure_variant(asked, variant, scratch, points)
    except KeyboardInterrupt:
        status = 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _show(asked, points, status)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _measure_variant(asked: argparse.Namespace, variant: Variant, scratch: Path, points: list[Point]) -> int:
    status = 0
    for servers in asked.servers or (QUICK_SERVERS if asked.quick else SERVERS):
        try:
            for point in _measured(asked, variant, servers, scratch):
                points.append(point)
                _say(f"{variant.key}, {servers} servers, {point.clients} clients: {point.per_second:,.0f}/s")
        except (Trouble, LoadFailed, OSError) as error:
            _say(f"! {variant.key}, {servers} servers: {error}")
            status = 1
    return status


def _measured(asked: argparse.Namespace, variant: Variant, servers: int, scratch: Path) -> Iterator[Point]:
    """Measure one cluster under growing numbers of clients, which are spread over all of its servers."""
    directory = scratch / f"{variant.key}-{servers}"
    cluster = Pfsb(directory, servers, variant.settings)
    client = LoadClient(client_command())
    put = operations("put", UPDATE_BYTES)
    try:
        cluster.start()
        probe = cluster.probe()
        for clients in asked.clients or (QUICK_CLIENTS if asked.quick else variant.clients):
            seconds = asked.seconds or (1.0 if asked.quick else 3.0)
            workload = Workload(probe.towards("all"), put, clients, 1, seconds=seconds, warmup=seconds / 3)
            found = measure(probe, client, workload)
            wait = 1000 * clients / found.per_second if found.per_second else 0.0
            yield Point(variant.key, servers, clients, found.per_second, wait)
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _show(asked: argparse.Namespace, points: Sequence[Point], status: int) -> int:
    if not points:
        print("nothing was measured", file=sys.stderr)
        return status or 1
    asked.svg.write_text(svg(charts(points)), encoding="utf-8")
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
    print(claims(points), end="")
    print(f"drawn: {asked.svg}")
    return status


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
