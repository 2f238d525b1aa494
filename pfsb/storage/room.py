"""How much room the file system of a storage has, and what that means for the server (Departure 45)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from pfsb.storage.directory import free_bytes

SHARE_MAX = 10
"""Number by which the size of the file system is divided to get the maximum of the reserve, so that a small file system
can be used at all."""
AGAIN_SHARE = 4
"""Number by which the reserve is divided to get a margin: a full disk counts as full until its free space exceeds the
reserve by the margin. Without the margin the server could change to and fro."""


@define(eq=False)
class Room:
    """Compares the free space of a directory's file system with the reserve, the space that must stay free. Used in the
    writer's thread."""

    _directory: Path
    _reserve_bytes: int
    _look: Callable[[Path], tuple[int, int]] = free_bytes
    is_full: bool = field(default=False, init=False)

    def look(self) -> bool:
        """Look at the file system, and return whether the disk counts as full: its free space is at or below the
        reserve.

        A disk that was full before counts as full until its free space exceeds the reserve by a margin (`AGAIN_SHARE`).
        If the file system cannot be asked, the last result is returned: the next write shows what is wrong.
        """
        try:
            free, total = self._look(self._directory)
        except OSError:
            return self.is_full
        reserve = self._reserve(total)
        self.is_full = free <= reserve + (reserve // AGAIN_SHARE if self.is_full else 0)
        return self.is_full

    def has(self, size: int) -> bool:
        """Whether the reserve, and a margin above it (`AGAIN_SHARE`), would still be free if `size` bytes were taken.

        True if the file system cannot be asked. Callable from any thread.
        """
        try:
            free, total = self._look(self._directory)
        except OSError:
            return True
        reserve = self._reserve(total)
        return free - size > reserve + reserve // AGAIN_SHARE

    def _reserve(self, total: int) -> int:
        return min(self._reserve_bytes, total // SHARE_MAX)

    def write_refused(self) -> None:
        """Take note that a write was refused for want of room: the disk counts as full."""
        self.is_full = True
