"""The pid file of a server, with a lock that ends with its process.

A number alone does not tell whether the server runs: after a loss of power, or in a container, another program may have
that number, and the file may be empty.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from attrs import define, field


def remove_stale(path: Path) -> None:
    """Remove a pid file that no running server holds; twistd would refuse to start because of what stands in it.

    A file that cannot be removed or looked at is left to twistd, which says so. So is what is no regular file, such as
    /dev/null.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        finally:
            os.close(descriptor)


@define(eq=False)
class PidFile:
    """The pid file that twistd has written for this process. `None` as its path: there is none."""

    _path: Path | None
    _descriptor: int | None = field(init=False, default=None)

    def hold(self) -> None:
        """Lock the file until the process ends, so that no later start takes it for a stale one.

        Where files cannot be locked, this does nothing.
        """
        if self._path is None:
            return
        with suppress(OSError):
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove the file: the process ends before twistd would do so. A file that is no regular one stays."""
        if self._path is None:
            return
        with suppress(OSError):
            if S_ISREG(self._path.stat().st_mode):
                self._path.unlink()
