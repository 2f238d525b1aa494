"""The rows of the table: what is measured, and what is to be reached."""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from benchmarks.compare.system import Load

MEASURED_WRITES: Final = 200_000
"""After so many the memory of a server is looked at."""
MISSED_WRITES: Final = 100_000
"""So many a follower has to catch up with."""

DURABLE: Final = "the best durable peer"
IN_MEMORY: Final = "PySyncObj in memory"


@frozen
class Times:
    """At least so many times what somebody else does in the same round."""

    factor: float
    of: str = DURABLE

    def __str__(self) -> str:
        return f"{self.factor:g} x" if self.of == DURABLE else f"{self.factor:g} x {self.of}"


@frozen
class AtMost:
    """No more than this, whatever others do."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"under {self.value:g} {self.unit}"


@frozen
class Row:
    key: str
    """As it is named on the command line."""
    title: str
    goal: Times | AtMost
    load: Load | None = None
    """None: trouble or memory, measured in a way of its own."""
    seconds_min: float = 0.0
    """Measured at least for so long: where answers take a second, a second shows nothing."""
    cpu_us_max: float | None = None
    """A second goal: CPU time of all servers for each operation."""
    p50_ms_max: float | None = None
    """A second goal: half of the answers come sooner."""

    @property
    def is_rate(self) -> bool:
        return self.load is not None


def _put(connections: int, depth: int) -> Load:
    return Load("put", connections, depth)


ROWS: Final = (
    Row("1x1", "writes, 1 x 1", Times(1.1), _put(1, 1)),
    Row("16x1", "writes, 16 x 1", Times(1.5), _put(16, 1)),
    Row("8x8", "writes, 8 x 8", Times(2.5), _put(8, 8)),
    Row("64x1", "writes, 64 x 1", Times(1.5), _put(64, 1)),
    Row("8x32", "writes, 8 x 32", Times(5), _put(8, 32), cpu_us_max=20),
    Row("256x1", "writes, 256 x 1", Times(1.8), _put(256, 1)),
    Row("deep", "writes, 16,384 in all", Times(2, IN_MEMORY), _put(128, 128), 4.0, p50_ms_max=150),
    Row("get", "linearizable reads, 64", Times(2), Load("get", 8, 8)),
    Row("local", "local reads, 64", Times(2), Load("local", 8, 8)),
    Row("lock", "lock + unlock, one client", Times(1.3), Load("lock", 1, 1)),
    Row("lockone", "lock + unlock, 16 clients, one lock", Times(3.5), Load("lockone", 16, 1)),
    Row("failover", "write answered after kill -9 of the leader", AtMost(0.25, "s")),
    Row("catchup", f"follower that missed {MISSED_WRITES:,} writes", AtMost(0.5, "s")),
    Row("memory", f"memory of a server after {MEASURED_WRITES:,} writes", AtMost(60, "MiB")),
)


def rows(names: str) -> list[Row]:
    """Those that are named, in the order of the table; `all` for all. Raises ValueError."""
    if names == "all":
        return list(ROWS)
    wanted = names.split(",")
    unknown = set(wanted) - {row.key for row in ROWS}
    if unknown:
        raise ValueError(f"no row is named {', '.join(sorted(unknown))}; known are {', '.join(r.key for r in ROWS)}")
    return [row for row in ROWS if row.key in wanted]


def for_peer(load: Load) -> Load:
    """Peers are asked through as many connections as serve them best: only how much is under way counts."""
    return evolve(load, connections=load.under_way, depth=1)
