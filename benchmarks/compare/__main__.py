"""The command line of the comparison; docs/performance.rst describes it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from benchmarks.compare.etcd import Etcd
from benchmarks.compare.in_python import PySyncObj
from benchmarks.compare.nats import Nats
from benchmarks.compare.ours import Pfsb
from benchmarks.compare.postgresql import PostgreSQL
from benchmarks.compare.results import Results
from benchmarks.compare.rows import rows
from benchmarks.compare.run import Comparison
from benchmarks.compare.system import Choices, Missing, System
from benchmarks.compare.tables import rst, text
from benchmarks.compare.tools import install
from benchmarks.compare.zookeeper import ZooKeeper
from benchmarks.setting import described, machine
from pfsb.bench.client import LoadFailed

SYSTEMS: dict[str, type[System]] = {
    "pfsb": Pfsb,
    "etcd": Etcd,
    "zookeeper": ZooKeeper,
    "nats": Nats,
    "postgresql": PostgreSQL,
    "pysyncobj": PySyncObj,
}
"""The systems by their names on the command line."""
INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENTERED: Final = 0o711
"""Permissions of the directory with the storage of all servers: a server that runs as another user may go through it to
its own directory."""


def named(names: str) -> list[type[System]]:
    """The systems with these names, in the order of the tables; `all` stands for all. Raises `ArgumentTypeError`."""
    wanted = list(SYSTEMS) if names == "all" else names.split(",")
    unknown = set(wanted) - set(SYSTEMS)
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no system is named {', '.join(sorted(unknown))}; known are {', '.join(SYSTEMS)}"
        )
    return [system for name, system in SYSTEMS.items() if name in wanted]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Measures pfsb and other replicated systems in turn on this machine and prints how they compare.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each system is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each rate (default: 3)")
    parser.add_argument("--servers", type=int, default=3, help="how many servers each cluster has (default: 3)")
    parser.add_argument("--kills", type=int, default=7, help="kills of the leader in each round (default: 7)")
    parser.add_argument(
        "--writes-share", type=float, default=1.0, help="less than 1: a quick try of memory and catch-up"
    )
    parser.add_argument(
        "--systems", type=named, default="all", help=f"which systems, by name: {','.join(SYSTEMS)} (default: all)"
    )
    parser.add_argument(
        "--install", action="store_true", help="install the Debian packages that the systems need; only root can"
    )
    parser.add_argument("--rows", type=rows, default="all", help="which rows, by key: 1x1,8x8,get,failover,...")
    parser.add_argument("--etcd", help="the etcd binary to use")
    parser.add_argument(
        "--transport",
        choices=("udp", "tcp", "tls"),
        default="udp",
        help="what pfsb's servers speak to each other over (default: udp)",
    )
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for all storage")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--rst", type=Path, help="write the tables to this file, for docs/performance.rst")
    parser.add_argument("--from-json", type=Path, help="measure nothing: show what an earlier run has written")
    return parser.parse_args(given)


def main() -> int:
    """Compares. Returns the exit status: 0 if all measured goals are met, 1 if one is not, 130 if interrupted."""
    asked = arguments()
    for number in INTERRUPTS:  # a shell may have started this program with SIGINT ignored
        signal.signal(number, _interrupt)
    try:
        return _compare(asked)
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _compare(asked: argparse.Namespace) -> int:
    if asked.from_json is not None:
        earlier = json.loads(asked.from_json.read_text())
        return _show(asked, Results(earlier["rounds"]), earlier["missing"], earlier["about"])
    found, versions, missing = _prepare(asked)
    if not found:
        return _show(asked, Results(), missing, {})
    with tempfile.TemporaryDirectory(prefix="pfsb-compare-", dir=asked.directory, ignore_cleanup_errors=True) as name:
        scratch = Path(name).resolve()
        scratch.chmod(ENTERED)
        about = {**machine(scratch), "servers": asked.servers, "seconds": asked.seconds, **versions}
        if asked.writes_share != 1:
            about["share of the writes of memory and catch-up"] = asked.writes_share

        def save() -> None:
            if asked.json is not None:
                asked.json.write_text(json.dumps(_content(asked, comparison.results, found, missing, about), indent=1))

        comparison = Comparison(
            found, asked.rows, asked.servers, asked.seconds, asked.kills, asked.writes_share, scratch, save, say
        )
        try:
            comparison.run(asked.rounds)
        except KeyboardInterrupt:
            say("interrupted; every server is stopped")
            _show(asked, comparison.results, missing, about)
            return 130
        return _show(asked, comparison.results, missing, about)


def _content(
    asked: argparse.Namespace,
    results: Results,
    systems: Sequence[type[System]],
    missing: dict[str, str],
    about: dict[str, Any],
) -> dict[str, Any]:
    """The content of the JSON file."""
    return {
        "about": about,
        "durability": {system.name: system.durability for system in systems},
        "missing": missing,
        "summary": results.summary(asked.rows),
        "rounds": results.rounds,
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupt(*_: object) -> NoReturn:
    for number in INTERRUPTS:  # a second interrupt must not disturb the end of the servers
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _prepare(asked: argparse.Namespace) -> tuple[list[type[System]], dict[str, str], dict[str, str]]:
    """Prepare the systems that were asked for. Returns those that can be measured; name -> version of each of these;
    and name -> reason for each system that is missing."""
    found: list[type[System]] = []
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for system in asked.systems:
        say(f"preparing {system.name}")
        try:
            if asked.install:
                install(system.packages)
            versions[system.name] = system.prepare(Choices(asked.etcd, asked.transport, asked.servers))
            found.append(system)
        except (Missing, LoadFailed) as error:
            missing[system.name] = str(error)
            say(f"  ! missing: {error}")
    return found, versions, missing


def _show(asked: argparse.Namespace, results: Results, missing: dict[str, str], about: dict[str, Any]) -> int:
    print(described(about), end="\n\n")
    print(text(results, asked.rows, missing))
    if asked.rst is not None:
        asked.rst.write_text(rst(results, asked.rows, missing, about))
    return int(any(results.is_met(row) is False for row in asked.rows))


if __name__ == "__main__":
    sys.exit(main())
