"""DiskTrouble: the two states of a disk in which a server takes nothing new."""

from __future__ import annotations

from enum import Enum


class DiskTrouble(Enum):
    """Why a server can write nothing at present, though its disk has not failed.

    A disk that fails is another matter: its server stops.
    """

    HANGS = "hangs"
    """A write has been under way for `disk_seconds` (Departure 44)."""
    FULL = "full"
    """The disk has no more free space than what is reserved (Departure 45)."""
