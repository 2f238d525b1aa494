"""The lock of a data directory: without it, two server processes could use one storage and vote twice under one id."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from attrs import define, field

from pfsb.paxos.interfaces import StorageRefused


@define(eq=False)
class DirectoryLock:
    """An advisory lock on `<directory>/pfsb.lock`, held until `release` or the end of the process.

    The kernel releases the lock when the process dies, however it dies: no stale lock is ever left to clean up.
    """

    _directory: Path
    _descriptor: int | None = field(default=None, init=False)

    def acquire(self) -> None:
        """Make the directory if need be and lock it. Raises `StorageRefused` if another process holds the lock."""
        path = self._directory / "pfsb.lock"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageRefused(
                f"{error.filename}: {error.strerror}; the data directory must be one that this server may write to"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StorageRefused(
                f"{self._directory}: in use by another server (process {holder}); "
                "each server needs a directory of its own"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def free_bytes(directory: Path) -> tuple[int, int]:
    """(free bytes, all bytes) of the file system of `directory`: the free ones are those that this process may use."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def sync_directory(directory: Path) -> None:
    """Force the entries of `directory` to disk: files made or renamed there keep their names after power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
