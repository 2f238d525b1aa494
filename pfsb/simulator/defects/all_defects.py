"""Planted defects: deliberate defects of a server, each switched on by its name, which the simulator must find.

A defect is planted in the simulator only, by changing a server after it is built; production code has no trace of it.
The schedule or random run that shows each defect, and the check that reports it, are in
`pfsb.simulator.defects.expected_catches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.defects import (
    confusion,
    digests,
    disk,
    disk_troubles,
    execution,
    frames,
    hand_overs,
    membership,
    names,
    paths,
    progress,
    promises,
    proposals,
    reads,
    runs,
    sessions,
    snapshots,
    telling,
    votes,
)
from pfsb.simulator.defects.defect import Defect, Plant

DEFECTS: Final[Mapping[str, Defect]] = {
    defect.name: defect
    for module in (
        disk,
        disk_troubles,
        votes,
        telling,
        promises,
        proposals,
        execution,
        progress,
        sessions,
        reads,
        confusion,
        digests,
        frames,
        paths,
        names,
        runs,
        hand_overs,
        membership,
    )
    for defect in module.DEFECTS.by_name.values()
} | {defect.name: defect for module in (snapshots.DEFECTS, snapshots.OF_STATE) for defect in module.by_name.values()}


def planted(name: str) -> Plant:
    """Return the function that plants the defect with this name in a server, for `SimulatedCluster(patch=...)`.

    Raises KeyError, with a text for the user, if there is no such defect.
    """
    defect = DEFECTS.get(name)
    if defect is None:
        raise KeyError(f"no defect is named {name!r}; there are: {', '.join(DEFECTS)}")
    return defect.apply


def describe() -> list[tuple[str, str]]:
    """(name, sentence that says what is wrong and which source it breaks) of each defect, for the command line."""
    return [(defect.name, f"{defect.broken} ({defect.source})") for defect in DEFECTS.values()]


__all__ = ["DEFECTS", "Plant", "Defect", "planted", "describe"]
