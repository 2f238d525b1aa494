"""Runs a server that is broken on purpose until somebody notices: random runs, or else a directed schedule."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from pfsb.simulator.breaking import Break, Variant
from pfsb.simulator.directed import SCHEDULES, WITH_SESSIONS
from pfsb.simulator.knobs import PROFILES
from pfsb.simulator.run import Plan, Run

MIXED_SEEDS = 60
"""Of the mixed profile, before any other one."""
ROUND = 10
"""Then each profile gets so many in turn."""
RANDOM_SEEDS = 2_000
"""What random runs of some profile do not notice within so many seeds, they are blind to."""
DIRECTED_SEEDS = 3

SLIPS = ("AttributeError", "TypeError", "NameError")
"""What a variant runs into that was not changed with the server."""


@frozen
class Catch:
    """How a defect was noticed."""

    schedule: str
    """A profile of random runs, or a directed schedule."""
    seed: int
    """The first one that does."""
    check: str
    """What said so: the beginning of its text, without numbers."""


def attempt(schedule: str, seed: int, patch: Break | None) -> str:
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


def hunt(variant: Variant) -> Catch | None:
    """By random runs, the mixed profile first; what they are blind to, by directed schedules.

    Raises RuntimeError if it fails by a slip of its own.
    """
    for schedule, seed in _attempts(variant):
        failure = attempt(schedule, seed, variant.apply)
        if failure.startswith(SLIPS):
            raise RuntimeError(f"{variant.name} does not fit the server any more: {failure}")
        if failure:
            return Catch(schedule, seed, check_of(failure))
    return None


def _attempts(variant: Variant) -> Iterator[tuple[str, int]]:
    """A variant that floods is for directed schedules alone: a random run of it takes for ever."""
    profiles = [name for name, profile in PROFILES.items() if profile.has_sessions or not variant.needs_sessions]
    if not variant.floods:
        yield from (("mixed", seed) for seed in range(MIXED_SEEDS))
        for first in range(0, RANDOM_SEEDS, ROUND):
            yield from ((profile, seed) for profile in profiles for seed in range(first, first + ROUND))
    directed = WITH_SESSIONS if variant.needs_sessions else SCHEDULES
    yield from ((schedule, seed) for schedule in directed for seed in range(DIRECTED_SEEDS))
