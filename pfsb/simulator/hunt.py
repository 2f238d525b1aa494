"""Runs a server that is broken on purpose until somebody notices: by random runs, and by directed schedules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from pfsb.simulator.breaking import Break, Variant
from pfsb.simulator.directed import SCHEDULES, WITH_SESSIONS
from pfsb.simulator.knobs import PROFILES
from pfsb.simulator.run import Plan, Run

RANDOM_SEEDS = 60
DIRECTED_SEEDS = 3
OTHER_PROFILES = ("crashes", "clients")

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
    """The mixed profile first, then the directed schedules, then other profiles.

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
    yield from (("mixed", seed) for seed in range(RANDOM_SEEDS))
    directed = WITH_SESSIONS if variant.needs_sessions else SCHEDULES
    yield from ((schedule, seed) for schedule in directed for seed in range(DIRECTED_SEEDS))
    yield from ((profile, seed) for profile in OTHER_PROFILES for seed in range(RANDOM_SEEDS))
