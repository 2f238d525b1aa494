"""The rows of the comparison's table: measurements, and the goal of each."""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from benchmarks.compare.system import Load

MEASURED_WRITES: Final = 200_000
"""Number of writes after which the memory of a server is measured."""
MISSED_WRITES: Final = 100_000
"""Number of writes that a follower has missed and must catch up with."""

DURABLE: Final = "the best durable peer"
IN_MEMORY: Final = "PySyncObj in memory"


@frozen
class Times:
    """The goal to reach at least `factor` times the rate of another system in the same round."""

    factor: float
    of: str = DURABLE

    def __str__(self) -> str:
        return f"{self.factor:g} x" if self.of == DURABLE else f"{self.factor:g} x {self.of}"


@frozen
class AtMost:
    """The goal to stay below a value, whatever other systems reach."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"under {self.value:g} {self.unit}"


@frozen
class Row:
    """One row of the table."""

    key: str
    """The name of the row on the command line."""
    title: str
    goal: Times | AtMost
    load: Load | None = None
    """The load whose rate is measured; None for a row about failures or memory, which is measured in another way."""
    seconds_min: float = 0.0
    """Minimum measured time, in seconds, for a load under which single operations take about a second."""
    cpu_us_max: float | None = None
    """A second condition of the goal: maximum CPU time of all servers for each operation, in microseconds."""
    p50_ms_max: float | None = None
    """A second condition of the goal: maximum median latency, in milliseconds."""

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
    """The rows with these names, in the order of the table; `all` stands for all. Raises ValueError."""
    if names == "all":
        return list(ROWS)
    wanted = names.split(",")
    unknown = set(wanted) - {row.key for row in ROWS}
    if unknown:
        raise ValueError(f"no row is named {', '.join(sorted(unknown))}; known are {', '.join(r.key for r in ROWS)}")
    return [row for row in ROWS if row.key in wanted]


def for_peer(load: Load) -> Load:
    """The load for another system than pfsb: as many operations are under way, on connections that it chooses."""
    return evolve(load, connections=load.under_way, depth=1)
