"""Charts with pfsb's lines beside the paper's, and a table of ratios, which can be compared between machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from benchmarks.paper.published import SCALING, SCALING_CLIENTS, Points
from benchmarks.paper.variants import VARIANTS, Variant
from pfsb.bench.plot import Chart, Series
from pfsb.bench.report import ABSENT, aligned, short


@frozen
class Point:
    """One measurement: a variant, a number of servers and a number of clients, with the rate and the latency found."""

    variant: str
    servers: int
    clients: int
    per_second: float
    milliseconds: float
    """Mean latency: clients divided by rate, since each client has one operation under way."""

    @classmethod
    def read(cls, words: Mapping[str, Any]) -> Point:
        return cls(**words)


def charts(points: Sequence[Point]) -> list[Chart]:
    """Throughput and latency over clients, for each variant that was measured; and both over the number of servers."""
    drawn = []
    for variant in VARIANTS:
        mine = [point for point in points if point.variant == variant.key]
        if mine:
            drawn += _variant_charts(variant, mine)
    scaling = [p for p in points if p.variant == VARIANTS[0].key and p.clients == SCALING_CLIENTS]
    return drawn + (_scaling_charts(scaling) if scaling else [])


def _variant_charts(variant: Variant, points: Sequence[Point]) -> list[Chart]:
    published = variant.published
    figures = (
        ("throughput", "updates per second", published.throughput, "per_second"),
        ("latency", "milliseconds", published.latency, "milliseconds"),
    )
    return [
        Chart(f"{variant.title}: {name}", "clients", unit, _series(points, attribute, theirs), log_x=True, log_y=True)
        for name, unit, theirs, attribute in figures
    ]


def _series(points: Sequence[Point], attribute: str, theirs: Points) -> list[Series]:
    drawn = []
    for colour, servers in enumerate(sorted({point.servers for point in points})):
        ours = [(p.clients, getattr(p, attribute)) for p in points if p.servers == servers]
        drawn.append(Series(f"{servers} servers", ours, colour=colour))
        if servers in theirs:
            drawn.append(Series(f"{servers} servers, the paper", theirs[servers], dashed=True, colour=colour))
    return drawn


def _scaling_charts(points: Sequence[Point]) -> list[Chart]:
    title = f"{SCALING_CLIENTS} clients, memory, one update a proposal"
    theirs = list(SCALING.items())
    rates = [Series(f"the paper, {build}", [(n, rate) for n, rate, _ in rows], True) for build, rows in theirs]
    times = [Series(f"the paper, {build}", [(n, time) for n, _, time in rows], True) for build, rows in theirs]
    ours = [Series("pfsb", [(p.servers, p.per_second) for p in points])]
    waits = [Series("pfsb", [(p.servers, p.milliseconds) for p in points])]
    return [
        Chart(f"{title}: throughput", "servers", "updates per second", [*ours, *rates]),
        Chart(f"{title}: latency", "servers", "milliseconds", [*waits, *times]),
    ]


def claims(points: Sequence[Point]) -> str:
    """A table of ratios: the gain by aggregation and the cost of more servers, in pfsb and in the paper."""
    rows = [["", "servers", "pfsb", "the paper"]]
    servers = sorted({point.servers for point in points})
    for storage in ("disk", "memory"):
        for count in servers:
            ours = _quotient(_peak(points, f"aggregated-{storage}", count), _peak(points, f"plain-{storage}", count))
            theirs = _quotient(_their_peak(f"aggregated-{storage}", count), _their_peak(f"plain-{storage}", count))
            rows.append([f"aggregation gains, {storage}", str(count), *(_times(value) for value in (ours, theirs))])
    for variant in VARIANTS if len(servers) > 1 else ():
        first, last = servers[0], servers[-1]
        ours = _quotient(_peak(points, variant.key, last), _peak(points, variant.key, first))
        theirs = _quotient(_their_peak(variant.key, last), _their_peak(variant.key, first))
        name = f"what is left of the peak, {variant.key}"
        rows.append([name, f"{first} -> {last}", *(_times(value) for value in (ours, theirs))])
    return aligned(rows)


def _peak(points: Sequence[Point], variant: str, servers: int) -> float | None:
    return max((p.per_second for p in points if p.variant == variant and p.servers == servers), default=None)


def _their_peak(variant: str, servers: int) -> float | None:
    [published] = [known.published for known in VARIANTS if known.key == variant]
    return max((rate for _, rate in published.throughput.get(servers, ())), default=None)


def _quotient(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _times(value: float | None) -> str:
    return ABSENT if value is None else f"{short(value)} x"
