"""Files that only their owner may read: secrets and keys."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

OTHERS = 0o077
"""The bits of a file's mode that give rights to others than its owner."""


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, in the place of a former one; after a crash the file is the former or
    the new one. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(opened, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            os.unlink(beside)
        raise


def wide_mode(path: str | Path) -> int | None:
    """The mode of a file that others than its owner may read, write or execute; None: they may not, or there is no such
    file."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return None
    return mode if mode & OTHERS else None
