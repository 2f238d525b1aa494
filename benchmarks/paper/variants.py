"""Variants: how the servers are configured for each pair of charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from benchmarks.paper.published import AGGREGATED_DISK, AGGREGATED_MEMORY, PLAIN_DISK, PLAIN_MEMORY, Published

_PLAIN: Final = {"limits": {"batch_bytes": 1}}
"""Settings with one update in each proposal. Disk writes and ACCEPTs of several proposals are still gathered."""
_MEMORY: Final = {"storage": "memory"}


@frozen
class Variant:
    """One pair of charts: the servers' settings, the numbers of clients, and the published figures."""

    key: str
    title: str
    published: Published
    settings: Mapping[str, Any] = field(factory=dict)
    clients: Sequence[int] = (1, 2, 5, 10, 25, 50, 100, 200)


VARIANTS: Final = (
    Variant("plain-memory", "Memory, one update a proposal", PLAIN_MEMORY, {**_PLAIN, **_MEMORY}),
    Variant("plain-disk", "Forced writes, one update a proposal", PLAIN_DISK, _PLAIN),
    Variant(
        "aggregated-memory",
        "Memory, aggregation",
        AGGREGATED_MEMORY,
        _MEMORY,
        (1, 5, 25, 100, 200, 300, 400),
    ),
    Variant("aggregated-disk", "Forced writes, aggregation", AGGREGATED_DISK, {}, (1, 5, 25, 100, 200, 300, 450)),
)

QUICK_SERVERS: Final = (4, 8)
QUICK_CLIENTS: Final = (1, 25, 100)
