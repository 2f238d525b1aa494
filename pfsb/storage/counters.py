"""Counters of disk writes, for STATUS and metrics."""

from __future__ import annotations

from attrs import define, field

from pfsb.support.histogram import SECONDS, Histogram


@define
class StorageCounters:
    """How much was written since the start; for STATUS and metrics."""

    groups: int = 0
    records: int = 0
    batch_bytes: int = 0
    slow_groups: int = 0
    """Groups that took longer than `SLOW_WRITE_SECONDS`."""
    write_seconds: Histogram = field(factory=lambda: Histogram(SECONDS))
    last_write_seconds: float = 0.0
    max_write_seconds: float = 0.0

    def count(self, records: int, batch_bytes: int, seconds: float) -> bool:
        """Note one group; True if it was a slow one."""
        slow = seconds > SLOW_WRITE_SECONDS
        self.groups += 1
        self.records += records
        self.batch_bytes += batch_bytes
        self.slow_groups += slow
        self.write_seconds.observe(seconds)
        self.last_write_seconds = seconds
        self.max_write_seconds = max(self.max_write_seconds, seconds)
        return slow


SLOW_WRITE_SECONDS = 0.1
"""A group that takes longer is logged: the outbox of every turn waits behind it."""
