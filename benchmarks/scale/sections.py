"""The sections of `benchmarks.scale`. Each starts its own servers, and yields points as they are measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen

from benchmarks.compare.ours import Pfsb
from benchmarks.compare.system import Trouble, wait_for
from benchmarks.scale.memory import memory_over_keys, memory_over_sessions
from benchmarks.scale.point import MIB, Point
from pfsb.bench.client import LoadClient, client_command
from pfsb.bench.measure import measure
from pfsb.bench.probe import Status
from pfsb.bench.workload import Workload, fill, operations

VALUE_BYTES: Final = 100
KEYS: Final = 10_000
LARGE_KEYS: Final = 500
"""Number of different keys that are written with large values.

It is small, since each server keeps all values in memory, and a value has up to 32 KiB.
"""
COMMAND_BYTES: Final = 49_152
"""The servers' setting `command_bytes`, the highest that is allowed: it leaves room for a verb, a key and 32 KiB."""
CONNECTIONS_MAX: Final = 12_000
WARMUP_SECONDS_MAX: Final = 30.0
LOADS: Final = ((1, 1), (64, 1), (8, 32))
SERVERS: Final = (3, 4, 5, 7, 9, 13, 20)
SIZES: Final = (10, 100, 1_000, 4_096, 16_384, 32_768)
CONNECTIONS: Final = (1, 4, 16, 64, 256, 1_000, 2_500, 5_000)
OVERLOAD: Final = ((1, 32), (8, 32), (64, 32), (256, 32), (1_000, 32), (5_000, 32))
OFFERED: Final = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Rates at which the open loop begins operations, as multiples of the highest rate that the closed loop has reached."""
UPDATED_KEYS: Final = 1_000
"""Number of different keys to which the section `updates` writes again and again."""
UPDATE_LOAD: Final = (8, 32)
UPDATES_SECONDS_MAX: Final = 1_800.0
"""How long, in seconds, the updates between two points may take."""
OPEN_CONNECTIONS: Final = 256
OPEN_DEPTH: Final = 128


@frozen
class Extent:
    """Which points the sections measure: the values of the quantity that each section varies."""

    seconds: float = 5.0
    """Measured time of each point, in seconds."""
    servers: Sequence[int] = SERVERS
    sizes: Sequence[int] = SIZES
    connections: Sequence[int] = CONNECTIONS
    overload: Sequence[tuple[int, int]] = OVERLOAD
    offered: Sequence[float] = OFFERED
    keys: Sequence[int] = (1_000, 10_000, 100_000, 300_000, 1_000_000)
    sessions: Sequence[int] = (100, 1_000, 3_000, 10_000)
    updates: Sequence[int] = tuple(range(250_000, 5_000_001, 250_000))


QUICK: Final = Extent(
    seconds=1.0,
    servers=(3, 7, 20),
    sizes=(10, 1_000, 32_768),
    connections=(1, 64, 1_000, 5_000),
    overload=((8, 32), (256, 32), (5_000, 32)),
    offered=(0.5, 1.0, 2.0),
    keys=(1_000, 20_000),
    sessions=(100, 1_000),
    updates=(50_000, 100_000, 150_000, 200_000),
)


@contextmanager
def cluster(directory: Path, servers: int, kind: type[Pfsb] = Pfsb, /, **settings: Any) -> Iterator[Pfsb]:
    """Run a cluster, which has a leader when the block begins, until the end of the block. Raises `Trouble`."""
    started = kind(directory, servers, settings)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(directory, ignore_errors=True)


class _Loaded:
    """One cluster, on whose leader one load after the other is put."""

    def __init__(self, cluster: Pfsb, section: str, extent: Extent) -> None:
        self._cluster = cluster
        self._section = section
        self._client = LoadClient(client_command())
        put = operations("put", VALUE_BYTES)
        self.workload = Workload((), put, seconds=extent.seconds, warmup=extent.seconds / 3, keys=KEYS)

    def fill(self) -> None:
        """Write each key once, so that reads find a value."""
        self._client.run(fill(self._targets(), KEYS, VALUE_BYTES).render())

    def point(self, series: str, x: float, **changes: Any) -> Point:
        """Measure one point, once the servers have finished the requests that the load before has left under way.

        `changes` are the differences from `workload`. Raises `Trouble` if the servers do not finish in time.
        """
        wait_for("the end of what was under way before", self._is_settled)
        workload = evolve(self.workload, targets=self._targets(), **changes)
        found = measure(self._cluster.probe(), self._client, workload)
        return Point.of(self._section, series, x, found, self._cluster.memory())

    def _is_settled(self) -> bool:
        return all(said["pending"] == said["queued"] == said["connections"] - 1 == 0 for said in self._statuses())

    def _statuses(self) -> Iterable[Status]:
        statuses = self._cluster.statuses()
        if len(statuses) < self._cluster.servers:
            raise Trouble("a server does not answer")
        return statuses.values()

    def _targets(self) -> list[tuple[str, int]]:
        return self._cluster.probe().towards("leader")


def over_servers(extent: Extent, scratch: Path) -> Iterator[Point]:
    """Measure the same loads on clusters with different numbers of servers."""
    for servers in extent.servers:
        with cluster(scratch / f"servers-{servers}", servers) as started:
            loaded = _Loaded(started, "servers", extent)
            for connections, depth in LOADS:
                yield loaded.point(f"{connections} x {depth}", servers, connections=connections, depth=depth)


def over_sizes(extent: Extent, scratch: Path) -> Iterator[Point]:
    """Measure loads that write values of different sizes."""
    with cluster(scratch / "sizes", 3, limits={"command_bytes": COMMAND_BYTES}) as started:
        loaded = _Loaded(started, "sizes", extent)
        for size in extent.sizes:
            put = operations("put", size)
            for connections, depth in LOADS:
                name = f"{connections} x {depth}"
                yield loaded.point(name, size, operations=put, connections=connections, depth=depth, keys=LARGE_KEYS)


def over_connections(extent: Extent, scratch: Path) -> Iterator[Point]:
    """Measure writes and reads on different numbers of connections, with one operation under way on each connection."""
    with cluster(scratch / "connections", 3) as started:
        loaded = _Loaded(started, "connections", extent)
        loaded.fill()
        for name, mix in (("writes", "put"), ("linearizable reads", "get")):
            doing = operations(mix, VALUE_BYTES)
            for connections in extent.connections:
                yield loaded.point(name, connections, operations=doing, connections=connections, depth=1)


def under_overload(extent: Extent, scratch: Path) -> Iterator[Point]:
    """Measure a closed loop with more and more operations under way; then an open loop with higher and higher rates.

    The rates of the open loop go from a part to a multiple of the closed loop's highest rate.
    """
    with cluster(scratch / "overload", 3) as started:
        loaded = _Loaded(started, "overload", extent)
        peak = 0.0
        for connections, depth in extent.overload:
            under_way = connections * depth
            # The warm-up lasts until the first operations are answered, which have come to idle servers.
            warmup = max(loaded.workload.warmup, 2 * under_way / peak) if peak else loaded.workload.warmup
            point = loaded.point(
                CLOSED, under_way, connections=connections, depth=depth, warmup=min(warmup, WARMUP_SECONDS_MAX)
            )
            yield point
            peak = max(peak, point.per_second or 0.0)
        warmup = min(max(loaded.workload.warmup, 2 * OPEN_CONNECTIONS * OPEN_DEPTH / peak), WARMUP_SECONDS_MAX)
        for share in extent.offered:
            yield loaded.point(
                OPEN,
                share,
                connections=OPEN_CONNECTIONS,
                depth=OPEN_DEPTH,
                rate=share * peak,
                warmup=warmup,
            )


CLOSED: Final = "closed loop"
"""Name of the series of points whose x is the number of operations under way."""
OPEN: Final = "open loop"
"""Name of the series of points whose x is the rate of operations due, as a share of the closed loop's highest rate."""


def in_memory_of_keys(extent: Extent, _scratch: Path) -> Iterator[Point]:
    """Measure the resident memory of a server with different numbers of keys."""
    for keys, mib in memory_over_keys(extent.keys, VALUE_BYTES):
        yield Point("keys", f"{VALUE_BYTES} bytes each", keys, memory_mib=mib)


def in_memory_of_sessions(extent: Extent, scratch: Path) -> Iterator[Point]:
    """Measure the resident memory of a server with different numbers of sessions."""
    with cluster(scratch / "sessions", 3, limits={"connections": CONNECTIONS_MAX}) as started:
        for sessions, mib in memory_over_sessions(started, extent.sessions):
            yield Point("sessions", "one connection each", sessions, memory_mib=mib)


def over_updates(extent: Extent, scratch: Path) -> Iterator[Point]:
    """Measure memory and disk of a cluster of three while more and more updates are written to the same keys.

    Snapshots are taken as by default, and the history that they hold is dropped.
    """
    with cluster(scratch / "updates", 3) as started:
        loaded = _Loaded(started, "updates", extent)
        connections, depth = UPDATE_LOAD
        done = 0
        for count in sorted(extent.updates):
            point = loaded.point(
                f"{UPDATED_KEYS:,} keys",
                count,
                connections=connections,
                depth=depth,
                keys=UPDATED_KEYS,
                count=count - done,
                limit=UPDATES_SECONDS_MAX,
            )
            done = count
            yield evolve(point, disk_mib=max(map(_disk_bytes, started.storages())) / MIB)


def _disk_bytes(directory: Path) -> int:
    """Size on disk, in bytes, of the files below a directory. Files may come and go meanwhile."""
    taken = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            taken += path.stat().st_blocks * 512
    return taken


Section = Callable[[Extent, Path], Iterator[Point]]

SECTIONS: Final[dict[str, Section]] = {
    "servers": over_servers,
    "sizes": over_sizes,
    "connections": over_connections,
    "overload": under_overload,
    "keys": in_memory_of_keys,
    "sessions": in_memory_of_sessions,
    "updates": over_updates,
}
