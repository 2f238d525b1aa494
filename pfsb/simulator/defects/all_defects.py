"""Deliberate defects, one of each kind, each switched on by its name: what the simulator must find.

They are made in the simulator only, by changing a server that is built; what runs in production knows nothing of them.
Where each is found, and by which check, stands in `pfsb.simulator.defects.expected_catches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.defects import disk, execution, progress, promises, proposals, reads, sessions, votes
from pfsb.simulator.defects.defect import Defect, Plant

DEFECTS: Final[Mapping[str, Defect]] = {
    variant.name: variant
    for module in (
        disk,
        votes,
        promises,
        proposals,
        execution,
        progress,
        sessions,
        reads,
    )
    for variant in module.DEFECTS.by_name.values()
}


def planted(name: str) -> Plant:
    """The function that plants this defect, for `SimulatedCluster(patch=...)`. Raises KeyError with a sentence."""
    variant = DEFECTS.get(name)
    if variant is None:
        raise KeyError(f"no variant is named {name!r}; there are: {', '.join(DEFECTS)}")
    return variant.apply


def describe() -> list[tuple[str, str]]:
    """(name, what is broken, and where that stands) of each, as a person reads it."""
    return [(variant.name, f"{variant.broken} ({variant.source})") for variant in DEFECTS.values()]


__all__ = ["DEFECTS", "Plant", "Defect", "planted", "describe"]
