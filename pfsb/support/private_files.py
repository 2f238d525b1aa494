"""Files that only their owner may read: secrets and keys; and files that a server reads again while it runs."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

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


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, also for a pipe or a device, and never waits for a program at
    the other end of one: a server that reads a file while it runs would answer no client meanwhile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))
