"""One run of the comparison: several rounds, in each of which all systems are measured in turn."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from benchmarks.compare.results import OURS, Results, rate_cell
from benchmarks.compare.rows import IN_MEMORY, MEASURED_WRITES, MISSED_WRITES, Row, Times, for_peer
from benchmarks.compare.system import Load, System, Trouble
from benchmarks.compare.trouble import seconds_to_catch_up, seconds_without_leader
from pfsb.bench.client import LoadFailed

MEBIBYTE = 2**20
WARMUP_SECONDS = 0.7


@define(eq=False)
class Comparison:
    """One run. `results` grow with each round, so that those of earlier rounds are kept when the run is interrupted."""

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

    def run(self, rounds: int) -> None:
        for number in range(rounds):
            found: dict[str, dict[str, Any]] = {}
            self.results = Results([*self.results.rounds, found])
            # Each round begins with another system, since being measured first may be an advantage.
            shift = number % len(self.systems)
            for system in [*self.systems[shift:], *self.systems[:shift]]:
                found[system.name] = {}
                self.say(f"round {number + 1} of {rounds}: {system.name}")
                self._measure(system, found[system.name])
                self.save()

    def _measure(self, system: type[System], cells: dict[str, Any]) -> None:
        rates = [row for row in self.rows if _is_for(system, row)]
        others = {row.key: row for row in self.rows if not row.is_rate}
        if rates or "failover" in others:
            self._in_cluster(system, lambda cluster: self._rates_and_kills(cluster, rates, others, cells), cells)
        if "memory" in others:
            self._in_cluster(system, lambda cluster: self._memory(cluster, others["memory"], cells), cells)
        if "catchup" in others:
            self._in_cluster(system, lambda cluster: self._catch_up(cluster, others["catchup"], cells), cells)

    def _in_cluster(self, system: type[System], measure: Callable[[System], None], cells: dict[str, Any]) -> None:
        directory = self.scratch / system.name
        cluster = system(directory, self.servers)
        try:
            cluster.start()
            measure(cluster)
        except (Trouble, LoadFailed, OSError) as error:
            cells["trouble"] = {"trouble": str(error)}
            self.say(f"  ! {error}")
        finally:
            cluster.stop()
            shutil.rmtree(directory, ignore_errors=True)

    def _rates_and_kills(
        self, cluster: System, rates: Sequence[Row], others: Mapping[str, Row], cells: dict[str, Any]
    ) -> None:
        measured: dict[tuple[str, int], Any] = {}
        for row in rates:
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
            result = cluster.load(load)
            if result is not None:
                cells[row.key] = measured[load.kind, load.under_way] = rate_cell(result)
                self.say(f"  {row.title}: {result.per_second:,.0f}/s")
        if "failover" in others:
            taken = [seconds_without_leader(cluster) for _ in range(self.kills)]
            cells["failover"] = {"values": taken}
            self.say(f"  {others['failover'].title}: {', '.join(f'{seconds:.3f}' for seconds in taken)} s")

    def _memory(self, cluster: System, row: Row, cells: dict[str, Any]) -> None:
        cluster.load(Load("put", 8, 32, count=int(MEASURED_WRITES * self.writes_share)))
        cells["memory"] = {"values": [cluster.memory() / MEBIBYTE]}
        self.say(f"  {row.title}: {cells['memory']['values'][0]:.1f} MiB")

    def _catch_up(self, cluster: System, row: Row, cells: dict[str, Any]) -> None:
        """Measure catch-up in a cluster of its own, since a server that starts executes its whole history again."""
        taken = seconds_to_catch_up(cluster, int(MISSED_WRITES * self.writes_share))
        cells["catchup"] = {"values": [taken]}
        self.say(f"  {row.title}: {taken:.2f} s")


def _is_for(system: type[System], row: Row) -> bool:
    """True if a row's rate is measured for a system. For goals against PySyncObj, only it and pfsb are measured."""
    if not row.is_rate:
        return False
    against_memory = isinstance(row.goal, Times) and row.goal.of == IN_MEMORY
    return not against_memory or system.name == OURS or not system.durable
