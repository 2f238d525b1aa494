"""How long a server takes to come back, and what that costs the others: `python -m benchmarks.returning --help`.

* *start*: a server with a snapshot of many keys, and slots above it, is killed and started: the time until it has
  executed all that was ordered.
* *join*: a server whose history the others have dropped is started: the time until it has fetched their snapshot, and
  executed what was ordered before its start; and the rate of writes meanwhile, as a share of the rate before and after.
* *rolling*: the servers are stopped and started one after the other, the leader last, while clients write: the time
  until each is back, whether the leader handed over (1) or was replaced by an election (0), and the longest time that a
  client has waited for an answer.

The servers and the clients share the processors of this machine, so a server that comes back takes a part of them from
the others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import evolve

from benchmarks.compare.ours import Pfsb
from benchmarks.compare.system import VALUE_BYTES, Load, Trouble, wait_for
from benchmarks.compare.trouble import Writers, settle
from benchmarks.scale.sections import cluster as running
from benchmarks.setting import described, machine
from pfsb.bench.client import LoadClient, client_command
from pfsb.bench.probe import Status, ask, status
from pfsb.bench.workload import Target, Workload, fill, operations

SERVERS: Final = 3
SNAPSHOT_SECONDS: Final = 300
FILL_SECONDS: Final = 1_800.0
BACK_SECONDS: Final = 120.0
"""How long, in seconds, a server may take until it is back."""
WRITES_BETWEEN: Final = 700_000
"""Number of writes that push what was written before out of the history that is kept beside a snapshot: they take more
than 64 MiB."""
CALM_SECONDS: Final = 0.5
"""Pause, in seconds, after a server is back and before the next one is stopped."""

Figures = dict[str, list[float]]


class Stopped(Pfsb):
    """A cluster whose servers are asked to stop, as an operator does who restarts them."""

    ending: ClassVar[signal.Signals] = signal.SIGTERM


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.returning", description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys in the snapshot (default: 1000000)")
    parser.add_argument("--slots", type=int, default=10_000, help="start: slots above the snapshot (default: 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each part is repeated (default: 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="join: time of each load (default: 5)")
    parser.add_argument("--clients", type=int, default=40, help="rolling: clients that write (default: 40)")
    parser.add_argument("--directory", type=Path, default=Path("."), help="where to make the directory for storage")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args(given)
    parts = asked.parts.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is named {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    scratch = Path(tempfile.mkdtemp(prefix="pfsb-returning-", dir=asked.directory)).resolve()
    found: dict[str, Any] = {"about": machine(scratch)}
    print(described(found["about"]))
    try:
        for part in parts:
            found[part] = PARTS[part](asked, scratch / part)
            for name, values in found[part].items():
                print(f"{part}: {name}: {', '.join(f'{value:.3g}' for value in values)}", flush=True)
    except (Trouble, OSError) as error:
        print(f"! {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if asked.json is not None:
            asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


# ---------------------------------------------------------------------- start


def starts(asked: argparse.Namespace, directory: Path) -> Figures:
    """Kill and start a server whose state is in a snapshot, but for the slots above it."""
    with running(directory, SERVERS) as cluster:
        server = _follower(cluster)
        _fill(cluster, asked.keys)
        settle(cluster)
        _snapshot(cluster, server)
        cluster.load(Load("put", 1, 1, count=asked.slots))
        settle(cluster)
        _say(
            f"start: {asked.keys:,} keys, and {_status(cluster, server)['aru'] - _snapshot_of(cluster, server):,} slots"
        )
        return {"seconds": [_kill_and_start(cluster, server) for _ in range(asked.rounds)]}


def _kill_and_start(cluster: Pfsb, server: int) -> float:
    cluster.kill(server)
    took = _wait_back(server, _start(cluster, server))
    settle(cluster)
    return took


# ---------------------------------------------------------------------- join


def joins(asked: argparse.Namespace, directory: Path) -> Figures:
    """Start a server that must fetch a snapshot, with a load on the others and without."""
    figures: Figures = defaultdict(list)
    with running(directory, SERVERS) as cluster:
        _fill(cluster, asked.keys)
        for _ in range(asked.rounds):
            for is_loaded in (False, True):
                server = _forgotten(cluster)
                if is_loaded:
                    _join_under_load(cluster, server, asked.seconds, figures)
                else:
                    figures["seconds without load"].append(_join(cluster, server))
        return figures


def _forgotten(cluster: Pfsb) -> int:
    """Stop a follower, and write until the others have dropped what it lacks; returns the follower."""
    settle(cluster)
    server = _follower(cluster)
    aru = _status(cluster, server)["aru"]
    cluster.kill(server)
    cluster.load(Load("put", 8, 32, count=WRITES_BETWEEN))
    for other in cluster.running():
        _snapshot(cluster, other)

    def is_dropped() -> bool:
        return all(_status(cluster, other)["compacted"] > aru for other in cluster.running())

    wait_for("a history without its beginning", is_dropped)
    return server


def _join(cluster: Pfsb, server: int) -> float:
    return _wait_joined(cluster, server, _start(cluster, server))


def _join_under_load(cluster: Pfsb, server: int, seconds: float, figures: Figures) -> None:
    target = cluster.target(cluster.wait_leader())
    before = _rate(target, seconds)
    took: list[float] = []
    # The server is not started in the thread: it would be killed when that thread ends.
    look = _start(cluster, server)
    waiting = threading.Thread(target=lambda: took.append(_wait_joined(cluster, server, look)))
    waiting.start()
    rates = []
    while waiting.is_alive():
        rates.append(_rate(target, 1.0))
    waiting.join()
    if not took:
        raise Trouble(f"server {server} is not back")
    meanwhile = statistics.mean(rates[:-1] or rates)  # the server is back before the end of the last load
    settle(cluster)
    figures["seconds"].append(took[0])
    figures["rate, of that with two servers"].append(meanwhile / before)
    figures["rate, of that after"].append(meanwhile / _rate(target, seconds))


def _wait_joined(cluster: Pfsb, server: int, look: Callable[[], bool]) -> float:
    """Wait until a server that was just started is back; returns the seconds that it took."""
    took = _wait_back(server, look)
    if not _status(cluster, server)["snapshots"]["installed"]:
        raise Trouble(f"server {server} has fetched no snapshot")
    return took


def _rate(target: Target, seconds: float) -> float:
    """Writes per second that a server answers with 256 under way."""
    put = operations("put", VALUE_BYTES)
    workload = Workload([target], put, 8, 32, seconds=seconds, warmup=0.2)
    return LoadClient(client_command()).run(workload.render()).per_second


# ---------------------------------------------------------------------- rolling


def rolling(asked: argparse.Namespace, directory: Path) -> Figures:
    """Stop and start all servers, one after the other, while clients write."""
    figures: Figures = defaultdict(list)
    with running(directory, SERVERS, Stopped) as cluster:
        _fill(cluster, asked.keys)
        for server in cluster.running():
            _snapshot(cluster, server)
        for _ in range(asked.rounds):
            leader = cluster.wait_leader()
            writers = Writers(cluster, asked.clients)
            writers.start()
            try:
                time.sleep(1.0)
                for server in sorted(cluster.running(), key=lambda each: each == leader):
                    who = "the leader" if server == leader else "a follower"
                    before = _followed(cluster, server)
                    figures[f"seconds until {who} is back"].append(_restart(cluster, server))
                    if server == leader:
                        figures["leaders that handed over"].append(_followed(cluster, server) - before)
                    time.sleep(CALM_SECONDS)
            finally:
                writers.stop()
            figures["longest wait of a client"].append(writers.longest)
            settle(cluster)
        return figures


def _restart(cluster: Pfsb, server: int) -> float:
    """Ask a server to stop, and start it; returns the seconds from the request until it is back, and has executed what
    the others had executed by its start."""
    begun = time.monotonic()
    cluster.kill(server)
    _wait_back(server, _start(cluster, server))
    return time.monotonic() - begun


# ---------------------------------------------------------------------- looking


def _follower(cluster: Pfsb) -> int:
    leader = cluster.wait_leader()
    return next(server for server in cluster.running() if server != leader)


def _start(cluster: Pfsb, server: int) -> Callable[[], bool]:
    """Start a server; returns a function that tells whether it has executed what the others had executed before."""
    look = _has_executed(cluster, server)
    cluster.start_server(server)
    return look


def _wait_back(server: int, look: Callable[[], bool]) -> float:
    """Wait until a server is back that was just started; returns the seconds that it took."""
    begun = time.monotonic()
    wait_for(f"server {server} to be back", look, BACK_SECONDS)
    return time.monotonic() - begun


def _has_executed(cluster: Pfsb, server: int) -> Callable[[], bool]:
    """A function that tells whether a server has executed all that the others have executed now, and has a leader."""
    aru = max(said["aru"] for said in cluster.statuses().values())

    def look() -> bool:
        said = status(cluster.target(server))
        return said is not None and said["aru"] >= aru and said["state"] in ("REG_LEADER", "REG_NONLEADER")

    return look


def _followed(cluster: Pfsb, stopped: int) -> int:
    """How many hand-overs one of the servers beside `stopped` has followed since its start."""
    return max(int(_status(cluster, other)["hand_over"]["followed"]) for other in cluster.running() if other != stopped)


def _status(cluster: Pfsb, server: int) -> Status:
    said = status(cluster.target(server))
    if said is None:
        raise Trouble(f"server {server} does not answer")
    return said


def _snapshot(cluster: Pfsb, server: int) -> None:
    said = ask(cluster.target(server), f"SNAPSHOT wait={SNAPSHOT_SECONDS}", SNAPSHOT_SECONDS + 5.0)[-1]
    if not said.startswith("OK"):
        raise Trouble(f"server {server} has taken no snapshot: {said}")


def _snapshot_of(cluster: Pfsb, server: int) -> int:
    """The slot of a server's snapshot."""
    return int(_status(cluster, server)["snapshot"])


def _fill(cluster: Pfsb, keys: int) -> None:
    targets = [cluster.target(cluster.wait_leader())]
    LoadClient(client_command()).run(evolve(fill(targets, keys, VALUE_BYTES), limit=FILL_SECONDS).render())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


PARTS: Final[dict[str, Callable[[argparse.Namespace, Path], Figures]]] = {
    "start": starts,
    "join": joins,
    "rolling": rolling,
}

if __name__ == "__main__":
    sys.exit(main())
