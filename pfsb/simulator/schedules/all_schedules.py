"""The names of all directed schedules.

A schedule is a run made for one situation that random runs rarely reach, or do not check closely. A correct server
passes each schedule with every seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.schedules import (
    disks,
    hand_overs,
    long_messages,
    membership,
    paths,
    reads,
    sessions,
    slow_disks,
    snapshots,
    telling,
    updates,
    views,
)
from pfsb.simulator.schedules.scenario import Schedule

SCHEDULES: Final[Mapping[str, Schedule]] = {
    schedule.__name__.replace("_", "-"): schedule
    for module in (
        views,
        updates,
        telling,
        disks,
        long_messages,
        paths,
        sessions,
        reads,
        slow_disks,
        hand_overs,
        membership,
    )
    for schedule in module.SCHEDULES
} | {schedule.__name__.replace("_", "-"): schedule for schedule in (*snapshots.SCHEDULES, *snapshots.WITH_SESSIONS)}

OF_SNAPSHOTS: Final = frozenset(
    name for name, schedule in SCHEDULES.items() if schedule in (*snapshots.SCHEDULES, *snapshots.WITH_SESSIONS)
)
"""Names of the schedules in which servers take snapshots."""

WITH_SESSIONS: Final = frozenset(
    name
    for name, schedule in SCHEDULES.items()
    if schedule in (*sessions.SCHEDULES, *reads.SCHEDULES, *membership.SCHEDULES, *snapshots.WITH_SESSIONS)
)
"""Names of the schedules that run whole servers; the servers of the others run only the protocol."""
