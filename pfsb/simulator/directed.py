"""Schedules made for one situation each, which random ones rarely come to, or in which they do not look closely.

A correct server passes each of them, with every seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.simulator import directed_disks, directed_reads, directed_sessions, directed_updates, directed_views
from pfsb.simulator.scene import Schedule

SCHEDULES: Final[Mapping[str, Schedule]] = {
    schedule.__name__.replace("_", "-"): schedule
    for module in (directed_views, directed_updates, directed_disks, directed_sessions, directed_reads)
    for schedule in module.SCHEDULES
}

WITH_SESSIONS: Final = frozenset(
    name
    for name, schedule in SCHEDULES.items()
    if schedule in (*directed_sessions.SCHEDULES, *directed_reads.SCHEDULES)
)
"""Those that run whole servers; the others run the protocol alone."""
