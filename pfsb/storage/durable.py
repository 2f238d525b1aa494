"""Writing to a file so that the bytes are on disk when the call returns, by the best means that the platform has."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Sequence
from typing import Final

from attrs import define

Piece = bytes | memoryview

_DSYNC: Final = getattr(os, "RWF_DSYNC", 0)
"""Flag of `pwritev` (Linux) with which one system call writes data and forces it to disk; 0: the platform has no such
flag."""
_NOT_SUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Errors of `pwritev` with the flag, where a file system or an older kernel does not know the flag. Nothing is written
then."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class NoRoom(Exception):
    """The disk has no room for a write. Parts of it may be on disk: it must be written again, as a whole."""


def lacks_room(error: OSError) -> bool:
    """Whether the error says that a disk has no room, or no more for this user."""
    return error.errno in _NO_ROOM


def sync_data(descriptor: int) -> None:
    """Force the content of a file to disk, out of the caches of the drive as well."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


@define(eq=False)
class DurableFile:
    """An open file that is written durably. One thread at a time uses it."""

    descriptor: int
    _at_once: bool = bool(_DSYNC)
    """Whether one system call both writes and forces to disk (`_DSYNC`)."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DurableFile:
        """Open a file that exists, for reading and writing. Raises OSError."""
        return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def write(self, pieces: Sequence[Piece], offset: int) -> None:
        """Write the pieces one after the other, from `offset` on; they are on disk when this method returns.

        Raises `NoRoom`, after which the caller may write all of it again; or OSError, after which the content of the
        disk is unknown.
        """
        try:
            if self._at_once:
                self._write_at_once(pieces, offset)
            else:
                self._write_and_sync(b"".join(pieces), offset)
        except OSError as error:
            if lacks_room(error):
                raise NoRoom(str(error)) from error
            raise

    def close(self) -> None:
        """Close the file. Further calls do nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _write_at_once(self, pieces: Sequence[Piece], offset: int) -> None:
        try:
            written = os.pwritev(self.descriptor, pieces, offset, _DSYNC)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._at_once = False
            self._write_and_sync(b"".join(pieces), offset)
            return
        if written < sum(map(len, pieces)):
            self._write_and_sync(b"".join(pieces)[written:], offset + written)

    def _write_and_sync(self, data: bytes, offset: int) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self.descriptor, rest, offset)
            rest = rest[written:]
            offset += written
        sync_data(self.descriptor)
