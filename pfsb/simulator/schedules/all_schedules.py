"""Schedules made for one situation each, which random ones rarely come to, or in which they do not look closely.

A correct server passes each of them, with every seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator.schedules import disks, reads, sessions, updates, views
from pfsb.simulator.schedules.scenario import Schedule

SCHEDULES: Final[Mapping[str, Schedule]] = {
    schedule.__name__.replace("_", "-"): schedule
    for module in (views, updates, disks, sessions, reads)
    for schedule in module.SCHEDULES
}

WITH_SESSIONS: Final = frozenset(
    name for name, schedule in SCHEDULES.items() if schedule in (*sessions.SCHEDULES, *reads.SCHEDULES)
)
"""Those that run whole servers; the others run the protocol alone."""
