"""Runs servers with a planted defect until a check notices it: in random runs first, then in directed schedules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pfsb.simulator.defects.defect import Defect, Plant
from pfsb.simulator.defects.expected_catches import Catch
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.run import Plan, Run
from pfsb.simulator.schedules.all_schedules import OF_SNAPSHOTS, SCHEDULES, WITH_SESSIONS

FEW_SEEDS = 60
"""Number of seeds of the first profile with which a hunt begins."""
MANY_SEEDS = 2_000
"""Maximum number of seeds of each profile, before the directed schedules are tried. A defect that no random run and no
directed schedule shows is a blind spot of the simulator."""
ROUND = 10
"""Number of seeds of one profile that are run before it is the turn of the next profile."""
SLOW_ROUND = 1
"""Number of seeds, instead of `ROUND`, for a profile with an idle hour or measurements: each of its seeds takes
as long as ten others."""
DIRECTED_SEEDS = 3
"""Number of seeds with which each directed schedule is run."""

SLIPS = ("AttributeError", "TypeError", "NameError")
"""Names of exceptions by which a hunt recognises a planted defect whose code no longer fits that of the server."""


def attempt(schedule: str, seed: int, patch: Plant | None) -> str:
    """Make a random run of the profile `schedule`, or run the directed schedule of that name, with one seed, and with
    the planted defect `patch` (None: without a defect).

    Returns the text of the failure, or "" if nothing fails.
    """
    if schedule in PROFILES:
        failure = Run(Plan(seed, schedule), patch).run().failure
        return failure.partition(" s: ")[2]
    try:
        SCHEDULES[schedule](seed, patch)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def check_of(failure: str) -> str:
    """The beginning of a failure's text, without the values of that run: equal for all failures of the same check."""
    without_tickets = re.sub(r"\('[^']*', \d+\)", "X", failure)
    line = re.split(r"[({\[\n]|b'", without_tickets)[0]
    return re.sub(r"\b\d+(\.\d+)?\b", "N", line)[:80].strip()


def hunt(defect: Defect, known: Catch | None = None) -> Catch | None:
    """The first random run that shows a defect, or else the first directed schedule that does; None if none does.

    The mixed profile is tried first, or `snapshot-crashes` for a defect of snapshots, `rolling` for one of hand-overs,
    or `membership` for one of changes of the membership; then the profile of `known`, the catch of an earlier hunt;
    then all profiles in turn in which the defect can show. Raises RuntimeError if the defect does not fit the server
    any more.
    """
    return _first(defect, _random(defect, known)) or hunt_directed(defect)


def hunt_directed(defect: Defect) -> Catch | None:
    """The first directed schedule, and its seed, that shows a defect; None if none does."""
    schedules = sorted(OF_SNAPSHOTS) if defect.needs_snapshots else SCHEDULES
    schedules = [name for name in schedules if name in WITH_SESSIONS or not defect.needs_sessions]
    return _first(defect, ((schedule, seed) for schedule in schedules for seed in range(DIRECTED_SEEDS)))


def first_profile(defect: Defect) -> str:
    """The profile with which a hunt for a defect begins."""
    if defect.needs_changing_members:
        return "membership"
    if defect.needs_hand_overs:
        return "rolling"
    return "snapshot-crashes" if defect.needs_snapshots else "mixed"


def _first(defect: Defect, attempts: Iterable[tuple[str, int]]) -> Catch | None:
    """The first of `attempts`, pairs (schedule, seed), that fails with the defect and passes without it; None if none
    does.
    """
    for schedule, seed in attempts:
        failure = attempt(schedule, seed, defect.apply)
        if failure.startswith(SLIPS):
            raise RuntimeError(f"{defect.name} does not fit the server any more: {failure}")
        if failure and not attempt(schedule, seed, None):
            return Catch(schedule, seed, check_of(failure))
    return None


def _random(defect: Defect, known: Catch | None) -> Iterator[tuple[str, int]]:
    profiles = [
        name
        for name, profile in PROFILES.items()
        if (profile.has_sessions or not defect.needs_sessions)
        and (profile.has_snapshots or not defect.needs_snapshots)
        and (profile.has_hand_overs or not defect.needs_hand_overs)
        and (profile.has_changing_members or not defect.needs_changing_members)
    ]
    first = first_profile(defect)
    deep = known.schedule if known is not None and known.schedule in PROFILES else first
    yield from ((first, seed) for seed in range(FEW_SEEDS))
    if deep != first:
        yield from ((deep, seed) for seed in range(MANY_SEEDS))
    for turn in range(MANY_SEEDS // ROUND):
        for profile in profiles:
            is_slow = PROFILES[profile].has_idle_hour or PROFILES[profile].has_pace_drills
            seeds = SLOW_ROUND if is_slow else ROUND
            yield from ((profile, seed) for seed in range(turn * seeds, (turn + 1) * seeds))
