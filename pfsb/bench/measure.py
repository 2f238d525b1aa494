"""One measurement: the result of a load client, together with what the load has cost the servers."""

from __future__ import annotations

from typing import Any

from attrs import asdict, frozen

from pfsb.bench.client import LoadClient, LoadResult
from pfsb.bench.probe import Moment, Probe, Status
from pfsb.bench.workload import Workload


@frozen
class Measurement:
    """One row of the report. Rates are per second of the measured time; a figure that cannot be measured is None."""

    connections: int
    depth: int
    rate: float
    """Open loop: number of operations that were due each second. 0: a closed loop."""
    operations: int
    errors: int
    missed: int
    """Open loop only: number of operations that were not begun, because every connection had `depth` operations under
    way when they were due."""
    first_error: str
    seconds: float
    per_second: float
    p50_us: float | None
    p99_us: float | None
    p999_us: float | None
    server_cpu_us: float | None
    """User and system time of all servers together, in microseconds for each operation; None if not all servers are on
    this machine, or no operation ended."""
    server_cores: float | None
    """How many processor cores all servers together kept busy, as a mean; None if not all servers are on this
    machine."""
    client: str
    client_cores: float
    """How many cores the load client kept busy. If more than 0.9, the client, and not the servers, limits the rate."""
    other_cores: float | None
    """How many cores everything but servers and load client kept busy on this machine, including the kernel's own
    threads; None if not all servers are on this machine."""
    disk_writes_per_second: float | None
    """How many groups of records a server has forced to disk each second, averaged over the servers; None: not known.
    """
    records_per_disk_write: float | None
    commands_per_proposal: float | None
    updates_per_proposal: float | None
    commands_per_update: float | None
    bytes_per_proposal: float | None
    """Mean encoded size, in bytes, of the batch in a proposal that was made during the measured time; None: there was
    none, or it is not known."""

    def as_json(self) -> dict[str, Any]:
        """The measurement as a dictionary that JSON can represent."""
        return asdict(self)


def measure(probe: Probe, client: LoadClient, workload: Workload) -> Measurement:
    """Run the load, and ask the servers for their counters when the measured time begins and ends.

    Raises `LoadFailed` if the load client fails.
    """
    result = client.run(workload.render(), probe.look)
    return evaluate(workload, result)


def evaluate(workload: Workload, result: LoadResult) -> Measurement:
    """Compute the measurement from the result of the load client, and from the servers' counters in that result."""
    begun: Moment = result.begun
    ended: Moment = result.ended
    cpu = _difference(begun.cpu_seconds, ended.cpu_seconds)
    grown = _Growth(begun, ended)
    proposals, commands, updates = grown.at_the_foremost("aru", "revision", "updates")
    writes = grown.mean("storage", "groups")
    return Measurement(
        connections=workload.connections,
        depth=workload.depth,
        rate=workload.rate,
        operations=result.operations,
        errors=result.errors,
        missed=result.missed,
        first_error=result.first_error,
        seconds=result.seconds,
        per_second=result.per_second,
        p50_us=result.histogram.percentile(50),
        p99_us=result.histogram.percentile(99),
        p999_us=result.histogram.percentile(99.9),
        server_cpu_us=_ratio(cpu, result.operations, 1e6),
        server_cores=_ratio(cpu, result.seconds),
        client=result.client,
        client_cores=result.cpu_seconds / result.seconds if result.seconds else 0.0,
        other_cores=other_cores(begun, ended, result),
        disk_writes_per_second=_ratio(writes, grown.mean("uptime")),
        records_per_disk_write=_ratio(grown.mean("storage", "records"), writes),
        commands_per_proposal=_ratio(commands, proposals),
        updates_per_proposal=_ratio(updates, proposals),
        commands_per_update=_ratio(commands, updates),
        bytes_per_proposal=_ratio(grown.mean("proposed", "bytes"), grown.mean("proposed", "count")),
    )


def other_cores(begun: Moment, ended: Moment, result: LoadResult) -> float | None:
    """How many cores were busy, on average from `begun` to `ended`, with neither the servers nor the load client; None
    if not all servers are on this machine."""
    busy = _difference(begun.busy_seconds, ended.busy_seconds)
    cpu = _difference(begun.cpu_seconds, ended.cpu_seconds)
    if busy is None or cpu is None:
        return None
    return _ratio(max(0.0, busy - cpu - result.cpu_seconds), result.seconds)


@frozen
class _Growth:
    """How much the counters in STATUS have grown between two moments, at the servers that answered both times."""

    begun: Moment
    ended: Moment

    def at_the_foremost(self, *names: str) -> list[float | None]:
        """The growth of several counters, given by name, all at one server: where the counter named first grew most.

        Counters of different servers cannot be put in proportion to each other, because some servers are behind, and
        each answers at another moment.
        """
        first = self._all(names[:1])
        if not first:
            return [None for _ in names]
        foremost = max(first, key=first.__getitem__)
        return [self._all((name,)).get(foremost) for name in names]

    def mean(self, *path: str) -> float | None:
        """The growth of one counter, averaged over the servers; `path` has the names that lead to it in the JSON object
        of STATUS. None: no server's STATUS has the counter.
        """
        grown = self._all(path).values()
        return sum(grown) / len(grown) if grown else None

    def _all(self, path: tuple[str, ...]) -> dict[int, float]:
        """Server id -> how much one counter has grown there. Servers whose STATUS lacks the counter are left out.

        `path` has the names that lead to the counter in the JSON object of STATUS.
        """
        pairs = {
            i: (_value(self.begun.statuses[i], path), _value(ended, path))
            for i, ended in self.ended.statuses.items()
            if i in self.begun.statuses
        }
        return {i: after - before for i, (before, after) in pairs.items() if before is not None and after is not None}


def _value(status: Status, path: tuple[str, ...]) -> float | None:
    found: Any = status
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _ratio(value: float | None, by: float | None, factor: float = 1.0) -> float | None:
    return None if value is None or not by else value / by * factor
