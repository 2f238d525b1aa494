"""The command line of the flame graphs: loads a cluster, samples its leader with py-spy, and draws the samples."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from benchmarks.compare.ours import Pfsb
from benchmarks.compare.system import Trouble
from benchmarks.flame.drawing import svg
from benchmarks.flame.stacks import Stack, busy, busy_cores, parse, shares, tree
from benchmarks.setting import described, list_table, loads, machine
from pfsb.bench.client import LoadClient, LoadFailed, client_command
from pfsb.bench.report import ABSENT, aligned
from pfsb.bench.workload import Workload, operations

SAMPLES_PER_SECOND: Final = 250
WARMUP_SECONDS: Final = 1.0
SPY_SECONDS: Final = 3.0
"""How long, in seconds, py-spy may take to begin and to end. The load goes on for as long beside the sampled time."""
VALUE_BYTES: Final = 100


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flame",
        description="Where a leader's time goes. Needs py-spy (pip install py-spy) and the right to trace processes.",
    )
    parser.add_argument("--loads", type=loads, default="1x1,64x1,8x32", help="CONNECTIONSxDEPTH,... (1x1,64x1,8x32)")
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--mix", default="put", help="what to do, as for pfsb bench (default: put)")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each load is sampled (default: 8)")
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for storage")
    parser.add_argument("--svg", type=Path, default=Path("."), help="draw into this directory, as flame-LOAD.svg")
    parser.add_argument("--rst", type=Path, help="write the table of shares to this file, for the documentation")
    return parser.parse_args(given)


class NoSpy(Exception):
    """Raised when py-spy is not installed, or may not trace processes; the text says which."""


def main() -> int:
    """Measures and draws. Returns the exit status: 0 if all was drawn, 1 if not, 130 if interrupted."""
    asked = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started this program with SIGINT ignored
        signal.signal(number, _interrupt)
    scratch = Path(tempfile.mkdtemp(prefix="pfsb-flame-", dir=asked.directory)).resolve()
    try:
        about = {
            **machine(scratch),
            "servers": asked.servers,
            "mix": asked.mix,
            "samples per second": SAMPLES_PER_SECOND,
        }
        found = _sampled(asked, scratch)
    except (NoSpy, Trouble, LoadFailed, OSError) as error:
        print(f"python -m benchmarks.flame: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = share_table(found)
    print(f"{described(about)}\n\n{aligned(rows)}", end="")
    _write(
        asked, found, [f"Measured with {described(about)}.", "", *list_table("Where the leader's time goes", rows), ""]
    )
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def py_spy() -> str:
    """The path of py-spy in this Python's environment, or in the system. Raises `NoSpy`."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise NoSpy("there is no py-spy here; install it with: pip install py-spy")
    return found


def _sampled(asked: argparse.Namespace, scratch: Path) -> dict[str, list[Stack]]:
    """Name of a load -> the stacks sampled in the leader under it. Raises `NoSpy`, `Trouble`, `LoadFailed`."""
    spy = py_spy()
    cluster = Pfsb(scratch / "servers", asked.servers)
    found = {}
    try:
        cluster.start()
        leader = cluster.wait_leader()
        pid = cluster.pids()[leader]
        for connections, depth in asked.loads:
            name = f"{connections} x {depth}"
            print(f"{name} ...", file=sys.stderr, flush=True)
            workload = Workload(
                cluster.probe().towards(str(leader)),
                operations(asked.mix, VALUE_BYTES),
                connections,
                depth,
                seconds=asked.seconds + SPY_SECONDS,
                warmup=WARMUP_SECONDS,
            )
            found[name] = _sample(spy, pid, workload, asked.seconds, scratch / "raw")
    finally:
        cluster.stop()
    return found


def _sample(spy: str, pid: int, workload: Workload, seconds: float, file: Path) -> list[Stack]:
    command = [spy, "record", "--pid", str(pid), "--format", "raw", "--output", str(file), "--threads", "--nolineno"]
    command += ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(max(1, round(seconds)))]
    spies: list[subprocess.Popen[str]] = []

    def begin_once() -> None:
        if not spies:
            spies.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )

    try:
        LoadClient(client_command()).run(workload.render(), begin_once)
        return _recorded(spies[0], seconds, file)
    finally:
        for running in spies:
            running.kill()
            running.wait()


def _recorded(spy: subprocess.Popen[str], seconds: float, file: Path) -> list[Stack]:
    try:
        said, _ = spy.communicate(timeout=seconds + 2 * SPY_SECONDS)
    except subprocess.TimeoutExpired:
        raise NoSpy("py-spy did not end in time") from None
    if spy.returncode or not file.exists():
        raise NoSpy(f"py-spy gave up: {' '.join(said.split())[-300:]}")
    return parse(file.read_text())


def share_table(found: Mapping[str, Sequence[Stack]]) -> list[list[str]]:
    """A table: a row for each part of the program, with the part's share of the samples under each load."""
    by_load = {name: shares(busy(stacks)) for name, stacks in found.items()}
    parts = sorted({part for found in by_load.values() for part in found}, key=_weight(by_load), reverse=True)
    rows = [[part, *(_percent(found.get(part)) for found in by_load.values())] for part in parts]
    cores = ["cores kept busy", *(f"{busy_cores(stacks):.2f}" for stacks in found.values())]
    return [["", *by_load], *rows, cores]


def _weight(by_load: Mapping[str, Mapping[str, float]]) -> Callable[[str], float]:
    return lambda part: sum(found.get(part, 0.0) for found in by_load.values())


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.0f} %"


def _write(asked: argparse.Namespace, found: Mapping[str, Sequence[Stack]], table: Sequence[str]) -> None:
    asked.svg.mkdir(parents=True, exist_ok=True)
    for name, stacks in found.items():
        file = asked.svg / f"flame-{name.replace(' ', '')}.svg"
        file.write_text(svg(tree(busy(stacks)), f"The leader's time: {asked.mix}, {name}"), encoding="utf-8")
        print(f"drawn: {file}")
    if asked.rst is not None:
        asked.rst.write_text("\n".join(table), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
