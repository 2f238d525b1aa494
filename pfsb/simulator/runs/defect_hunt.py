"""Runs a server that is broken on purpose until somebody notices: random runs, or else a directed schedule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pfsb.simulator.defects.defect import Defect, Plant
from pfsb.simulator.defects.expected_catches import Catch
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.run import Plan, Run
from pfsb.simulator.schedules.all_schedules import SCHEDULES, WITH_SESSIONS

FEW_SEEDS = 60
MANY_SEEDS = 2_000
"""What no profile finds with so many is a blind spot."""
ROUND = 10
"""Each profile gets so many in turn."""
DIRECTED_SEEDS = 3

SLIPS = ("AttributeError", "TypeError", "NameError")
"""What a variant runs into that was not changed with the server."""


def attempt(schedule: str, seed: int, patch: Plant | None) -> str:
    """Run it once; the text of what is wrong, or ""."""
    if schedule in PROFILES:
        failure = Run(Plan(seed, schedule), patch).run().failure
        return failure.partition(" s: ")[2]
    try:
        SCHEDULES[schedule](seed, patch)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def check_of(failure: str) -> str:
    """The same text for the same check, whatever it looked at just then."""
    without_tickets = re.sub(r"\('[^']*', \d+\)", "X", failure)
    line = re.split(r"[({\[\n]|b'", without_tickets)[0]
    return re.sub(r"\b\d+(\.\d+)?\b", "N", line)[:80].strip()


def hunt(variant: Defect, known: Catch | None = None) -> Catch | None:
    """Some seeds of each profile of random runs, the mixed one first; then many of where it was found before, or mixed.

    If chance comes to nothing, what a directed schedule says is better than nothing. Raises RuntimeError if it fails
    by a slip of its own.
    """
    return _first(variant, _random(variant, known)) or hunt_directed(variant)


def hunt_directed(variant: Defect) -> Catch | None:
    """The first schedule that shows it."""
    schedules = WITH_SESSIONS if variant.needs_sessions else SCHEDULES
    return _first(variant, ((schedule, seed) for schedule in schedules for seed in range(DIRECTED_SEEDS)))


def _first(variant: Defect, attempts: Iterable[tuple[str, int]]) -> Catch | None:
    for schedule, seed in attempts:
        failure = attempt(schedule, seed, variant.apply)
        if failure.startswith(SLIPS):
            raise RuntimeError(f"{variant.name} does not fit the server any more: {failure}")
        if failure:
            return Catch(schedule, seed, check_of(failure))
    return None


def _random(variant: Defect, known: Catch | None) -> Iterator[tuple[str, int]]:
    profiles = [name for name, profile in PROFILES.items() if profile.has_sessions or not variant.needs_sessions]
    deep = known.schedule if known is not None and known.schedule in PROFILES else "mixed"
    yield from (("mixed", seed) for seed in range(FEW_SEEDS))
    if deep != "mixed":
        yield from ((deep, seed) for seed in range(MANY_SEEDS))
    for first in range(0, MANY_SEEDS, ROUND):
        yield from ((profile, seed) for profile in profiles for seed in range(first, first + ROUND))
