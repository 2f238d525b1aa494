"""Planted defects: deliberate defects of a server, each switched on by its name, which the simulator must find.

A defect is planted in the simulator only, by changing a server that is built; production code has no trace of it. The
schedule or run that catches each defect, and the violation, are in `pfsb.simulator.defects.expected_catches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.defects import disk, execution, progress, promises, proposals, reads, sessions, votes
from pfsb.simulator.defects.defect import Defect, Plant

DEFECTS: Final[Mapping[str, Defect]] = {
    defect.name: defect
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
    for defect in module.DEFECTS.by_name.values()
}


def planted(name: str) -> Plant:
    """The function that plants this defect, for `SimulatedCluster(patch=...)`. Raises KeyError with a sentence."""
    defect = DEFECTS.get(name)
    if defect is None:
        raise KeyError(f"no defect is named {name!r}; there are: {', '.join(DEFECTS)}")
    return defect.apply


def describe() -> list[tuple[str, str]]:
    """(name, one sentence with the source in parentheses) of each defect, for the list of the command line."""
    return [(defect.name, f"{defect.broken} ({defect.source})") for defect in DEFECTS.values()]


__all__ = ["DEFECTS", "Plant", "Defect", "planted", "describe"]
