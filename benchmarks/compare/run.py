"""One run of the comparison: several rounds, in which the loads of all systems alternate.

The clusters of all systems are up during the whole run, and all are paused but the one that is measured. So the
systems take turns every few seconds, and a time in which the machine is slow affects all of them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field

from benchmarks.compare.results import OURS, Results, rate_cell
from benchmarks.compare.rows import IN_MEMORY, MEASURED_WRITES, MISSED_WRITES, Row, Times, for_peer
from benchmarks.compare.system import Load, System, Trouble
from benchmarks.compare.trouble import seconds_to_catch_up, seconds_without_leader
from pfsb.bench.client import LoadFailed, LoadResult

MEBIBYTE: Final = 2**20
WARMUP_SECONDS: Final = 0.7
ATTEMPTS: Final = 3
"""How often a load is tried during which the leader changes, until that counts as trouble."""

Turn = Sequence[Row]
"""The rows for which a system has its cluster in one go: rows whose loads have the same kind, and as many operations
under way, so that other systems than pfsb measure them once; or one row without a load."""


def turns(rows: Sequence[Row]) -> list[Turn]:
    """The turns of one round, in the order of the first row of each."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        found.setdefault(row.key if row.load is None else (row.load.kind, row.load.under_way), []).append(row)
    return list(found.values())


@define(eq=False)
class Comparison:
    """One run. `results` grow with each turn, so that they are kept when the run is interrupted."""

    systems: Sequence[type[System]]
    rows: Sequence[Row]
    servers: int
    seconds: float
    kills: int
    """Number of times that the leader is killed in each round."""
    writes_share: float
    """Share of the writes in the rows memory and catch-up that is done; less than 1.0 is quicker, not comparable."""
    scratch: Path
    save: Callable[[], None]
    say: Callable[[str], None]
    """Function that shows a line about the progress."""
    results: Results = field(init=False, factory=Results)
    _clusters: dict[str, System] = field(init=False, factory=dict)
    """The clusters that are up between turns, by name of the system; all of them are paused then."""
    _round: str = field(init=False, default="")
    """The present round in words, such as "round 2 of 5", for lines about the progress."""

    def run(self, rounds: int) -> None:
        """Measure all rows, so many times. However it ends, no process of a cluster is left."""
        try:
            for number in range(rounds):
                found: dict[str, dict[str, Any]] = {system.name: {} for system in self.systems}
                self.results = Results([*self.results.rounds, found])
                self._round = f"round {number + 1} of {rounds}"
                for step, turn in enumerate(turns(self.rows)):
                    # Each turn begins with another system, since being measured first may be an advantage.
                    shift = (number + step) % len(self.systems)
                    for system in [*self.systems[shift:], *self.systems[:shift]]:
                        self._take_turn(system, [row for row in turn if _is_for(system, row)], found[system.name])
                    self.save()
        finally:
            self._stop_all()

    def _take_turn(self, system: type[System], turn: Turn, cells: dict[str, Any]) -> None:
        if not turn:
            return
        try:
            if turn[0].load is not None:
                with self._awake(system) as cluster:
                    self._rates(cluster, turn, cells)
            else:
                with self._fresh(system) as cluster:
                    self._without_load(cluster, turn[0], cells)
        except (Trouble, LoadFailed, OSError) as error:
            cells[f"trouble in {turn[0].key}"] = {"trouble": str(error)}
            self._tell(turn[0], system, f"! {error}")

    @contextmanager
    def _awake(self, system: type[System]) -> Iterator[System]:
        """Yield the system's cluster, which is started at the first call and resumed at later ones; pause it at the end
        of the block.

        A cluster that has trouble is stopped, and the next turn starts it anew.
        """
        cluster = self._clusters.get(system.name)
        try:
            if cluster is None:
                self.say(f"starting {self.servers} servers of {system.name}")
                cluster = self._clusters[system.name] = system(self.scratch / system.name, self.servers)
                cluster.start()
            else:
                cluster.resume()
            yield cluster
            cluster.pause()
        except Exception:
            self._stop(system.name)
            raise

    @contextmanager
    def _fresh(self, system: type[System]) -> Iterator[System]:
        """Start a cluster for one row without a load, yield it, and stop it at the end of the block. The row gets a
        cluster of its own, since a server that starts executes its whole history."""
        name = f"{system.name}-alone"
        cluster = self._clusters[name] = system(self.scratch / name, self.servers)
        try:
            cluster.start()
            yield cluster
        finally:
            self._stop(name)

    def _stop_all(self) -> None:
        for name in list(self._clusters):
            try:
                self._stop(name)
            except (OSError, subprocess.SubprocessError) as error:  # the other clusters must be stopped all the same
                self.say(f"! stopping {name}: {error}")

    def _stop(self, name: str) -> None:
        cluster = self._clusters[name]
        cluster.stop()
        del self._clusters[name]
        shutil.rmtree(cluster.directory, ignore_errors=True)

    def _rates(self, cluster: System, turn: Turn, cells: dict[str, Any]) -> None:
        measured: dict[tuple[str, int], Any] = {}
        for row in turn:
            assert row.load is not None
            load = evolve(
                row.load, seconds=max(self.seconds, row.seconds_min), warmup=max(WARMUP_SECONDS, row.seconds_min / 2)
            )
            if cluster.name != OURS:
                load = for_peer(load)
                same = measured.get((load.kind, load.under_way))
                if same is not None:
                    cells[row.key] = same
                    continue
            result = self._steady(cluster, load, row)
            if result is not None:
                cells[row.key] = measured[load.kind, load.under_way] = rate_cell(result)
                self._tell(row, type(cluster), f"{result.per_second:,.0f}/s")

    def _steady(self, cluster: System, load: Load, row: Row) -> LoadResult | None:
        """Put a load on a cluster, again and again until the leader does not change meanwhile, and return the result of
        the last time. Raises `Trouble` if the leader changes in each of `ATTEMPTS` loads."""
        for _ in range(ATTEMPTS):
            leader = cluster.wait_leader()
            result = cluster.load(load)
            if cluster.wait_leader() == leader:
                return result
            self._tell(row, type(cluster), "the leader changed, so once more")
        raise Trouble(f"{cluster.name}: the leader changed during each of {ATTEMPTS} loads")

    def _without_load(self, cluster: System, row: Row, cells: dict[str, Any]) -> None:
        measure = {"failover": self._failover, "memory": self._memory, "catchup": self._catch_up}[row.key]
        cells[row.key] = {"values": measure(cluster)}
        shown = ", ".join(f"{value:.3f}" for value in cells[row.key]["values"])
        self._tell(row, type(cluster), f"{shown} {getattr(row.goal, 'unit', '')}")

    def _failover(self, cluster: System) -> list[float]:
        cluster.load(Load("put", 8, 32, seconds=self.seconds))  # to warm up
        return [seconds_without_leader(cluster) for _ in range(self.kills)]

    def _memory(self, cluster: System) -> list[float]:
        cluster.load(Load("put", 8, 32, count=int(MEASURED_WRITES * self.writes_share)))
        return [cluster.memory() / MEBIBYTE]

    def _catch_up(self, cluster: System) -> list[float]:
        return [seconds_to_catch_up(cluster, int(MISSED_WRITES * self.writes_share))]

    def _tell(self, row: Row, system: type[System], what: str) -> None:
        self.say(f"{self._round}, {row.title}, {system.name}: {what}")


def _is_for(system: type[System], row: Row) -> bool:
    """True if a row is measured for a system. For goals against PySyncObj, only it and pfsb are measured."""
    if row.key in system.lacks or (row.load is not None and row.load.kind in system.lacks):
        return False
    against_memory = isinstance(row.goal, Times) and row.goal.of == IN_MEMORY
    return not against_memory or system.name == OURS or not system.durable
