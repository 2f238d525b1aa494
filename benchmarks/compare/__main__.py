"""The command line of the comparison; docs/performance.rst describes it."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.compare.etcd import Etcd
from benchmarks.compare.in_python import PySyncObj
from benchmarks.compare.ours import Pfsb
from benchmarks.compare.results import Results
from benchmarks.compare.rows import Row, rows
from benchmarks.compare.run import Comparison
from benchmarks.compare.system import Choices, Missing, System
from benchmarks.compare.tables import rst, text
from benchmarks.compare.zookeeper import ZooKeeper
from benchmarks.setting import described, machine
from pfsb.bench.client import LoadFailed

PEERS: dict[str, type[System]] = {"etcd": Etcd, "zookeeper": ZooKeeper, "pysyncobj": PySyncObj}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Measures pfsb, etcd, ZooKeeper and PySyncObj in turn on this machine and prints how they compare.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each system is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each rate (default: 3)")
    parser.add_argument("--servers", type=int, default=3, help="how many servers each cluster has (default: 3)")
    parser.add_argument("--kills", type=int, default=7, help="kills of the leader in each round (default: 7)")
    parser.add_argument(
        "--writes-share", type=float, default=1.0, help="less than 1: a quick try of memory and catch-up"
    )
    parser.add_argument("--peers", default="etcd,zookeeper,pysyncobj", help="whom to measure; none: only pfsb")
    parser.add_argument("--rows", type=rows, default="all", help="which rows, by key: 1x1,8x8,get,failover,...")
    parser.add_argument("--etcd", help="the etcd binary to use")
    parser.add_argument(
        "--transport", default="udp", help="what pfsb's servers speak to each other over (default: udp)"
    )
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for all storage")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--rst", type=Path, help="write the tables to this file, for docs/performance.rst")
    parser.add_argument("--from-json", type=Path, help="measure nothing: show what an earlier run has written")
    return parser.parse_args(given)


def main() -> int:
    """Compares. Returns the exit status: 0 if all measured goals are met, 1 if one is not, 130 if interrupted."""
    asked = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started this program with SIGINT ignored
        signal.signal(number, _interrupt)
    if asked.from_json is not None:
        earlier = json.loads(asked.from_json.read_text())
        return _show(asked, Results(earlier["rounds"]), earlier["missing"], earlier["about"])
    systems, versions, missing = _prepare(asked)
    scratch = Path(tempfile.mkdtemp(prefix="pfsb-compare-", dir=asked.directory)).resolve()
    about = {**machine(scratch), "servers": asked.servers, "seconds": asked.seconds, **versions}
    if asked.writes_share != 1:
        about["share of the writes of memory and catch-up"] = asked.writes_share

    def save() -> None:
        if asked.json is not None:
            content = {"about": about, "missing": missing, "rounds": comparison.results.rounds}
            asked.json.write_text(json.dumps(content, indent=1) + "\n")

    comparison = Comparison(
        systems, asked.rows, asked.servers, asked.seconds, asked.kills, asked.writes_share, scratch, save, say
    )
    try:
        comparison.run(asked.rounds)
    except KeyboardInterrupt:
        print("interrupted; every server is stopped", file=sys.stderr)
        _show(asked, comparison.results, missing, about)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _show(asked, comparison.results, missing, about)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _prepare(asked: argparse.Namespace) -> tuple[list[type[System]], dict[str, str], dict[str, str]]:
    """The systems that can be measured, name -> version of each, and name -> reason for each that is missing."""
    names = [name for name in asked.peers.split(",") if name not in ("", "none")]
    unknown = set(names) - set(PEERS)
    if unknown:
        sys.exit(f"no peer is named {', '.join(sorted(unknown))}; known are {', '.join(PEERS)}")
    systems: list[type[System]] = []
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    wanted: list[type[System]] = [Pfsb, *(PEERS[name] for name in names)]
    for system in wanted:
        print(f"preparing {system.name}", file=sys.stderr, flush=True)
        try:
            versions[system.name] = system.prepare(Choices(asked.etcd, asked.transport))
            systems.append(system)
        except (Missing, LoadFailed) as error:
            missing[system.name] = str(error)
            print(f"  ! missing: {error}", file=sys.stderr)
    return systems, versions, missing


def _show(asked: argparse.Namespace, results: Results, missing: dict[str, str], about: dict[str, Any]) -> int:
    print(described(about), end="\n\n")
    print(text(results, asked.rows, missing))
    if asked.rst is not None:
        asked.rst.write_text(rst(results, asked.rows, missing, about))
    return int(any(results.is_met(row) is False for row in _rows(asked)))


def _rows(asked: argparse.Namespace) -> list[Row]:
    return list(asked.rows)


if __name__ == "__main__":
    sys.exit(main())
