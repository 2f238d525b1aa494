"""Deliberate defects, one of each kind, each switched on by its name: what the simulator must find.

They are made in the simulator only, by changing a server that is built; what runs in production knows nothing of them.
Where each is found, and by which check, stands in `pfsb.simulator.defects.expected_catches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.defects import disk, execution, progress, promises, proposals, reads, sessions, votes
from pfsb.simulator.defects.defect import Break, Variant

VARIANTS: Final[Mapping[str, Variant]] = {
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
    for variant in module.VARIANTS.by_name.values()
}


def breaker(name: str) -> Break:
    """The function that breaks a server so: `World(patch=...)`. Raises KeyError with a sentence for a person."""
    variant = VARIANTS.get(name)
    if variant is None:
        raise KeyError(f"no variant is named {name!r}; there are: {', '.join(VARIANTS)}")
    return variant.apply


def describe() -> list[tuple[str, str]]:
    """(name, what is broken, and where that stands) of each, as a person reads it."""
    return [(variant.name, f"{variant.broken} ({variant.source})") for variant in VARIANTS.values()]


__all__ = ["VARIANTS", "Break", "Variant", "breaker", "describe"]
