"""Counters of disk writes, for STATUS and metrics."""

from __future__ import annotations

from attrs import define, field

from pfsb.support.histogram import SECONDS, Histogram


@define
class ArchiveCounters:
    """Figures about the archive of one storage, for STATUS and metrics."""

    directory: str
    """Path of the directory in the archive that belongs to this storage."""
    bytes: int = 0
    """Size, in bytes, of all segments and snapshots in it."""
    slot: int = 0
    """The slot up to which the history that the log no longer needs is in the archive, as far as this storage had that
    history when the archive was first used; 0: nothing was moved yet."""
    waiting: int = 0
    """Number of files that are to be moved, and still are in the data directory."""
    error: str | None = None
    """Why the archive has not taken the last file, in words; None: it has taken all files so far."""


@define
class StorageCounters:
    """Counts and durations of the groups that one server has written to disk since its start, and their sizes."""

    groups: int = 0
    records: int = 0
    batch_bytes: int = 0
    slow_groups: int = 0
    """Number of groups whose write took longer than `SLOW_WRITE_SECONDS`."""
    write_seconds: Histogram = field(factory=lambda: Histogram(SECONDS))
    last_write_seconds: float = 0.0
    max_write_seconds: float = 0.0
    log_bytes: int = 0
    """Size, in bytes, of all segments of the log together."""
    snapshot_bytes: int = 0
    """Size, in bytes, of all complete snapshots together."""
    archive: ArchiveCounters | None = None
    """Figures about the archive of this storage; None: there is no archive."""

    def count(self, records: int, batch_bytes: int, seconds: float) -> bool:
        """Count one written group: its records, the bytes of their batches, and how many seconds the write took.

        Returns True if the write took longer than `SLOW_WRITE_SECONDS`.
        """
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
"""How long, in seconds, writing a group may take before the text log gets a warning.

The messages of the turns whose records are in the group wait for the write.
"""
