"""A lock, which keeps a data directory for one process, and a watch, which looks whether its files stay the ones that
this process opened.

Without the lock two server processes could use one storage, and vote twice under one id. Without the watch a server
would go on writing to files that have been deleted or replaced, and its next start would not find what it has promised.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

from attrs import define, field
from twisted.python.failure import Failure

from pfsb.paxos.interfaces import StorageRefused

WATCH_SECONDS: Final = 1.0
"""Time, in seconds, between two looks at the files of a running server."""


@define(eq=False)
class DirectoryLock:
    """An advisory lock on a data directory and on the file `pfsb.lock` in it, held until `release` or the end of the
    process.

    The kernel releases the lock when the process dies, however it dies: no stale lock is ever left to clean up. The
    lock on the directory itself holds when the file is deleted. Where directories cannot be locked, as on NFS, the lock
    on the file must be enough.
    """

    _directory: Path
    _descriptors: list[int] = field(factory=list, init=False)

    def acquire(self) -> None:
        """Make the directory if need be and lock it. Raises `StorageRefused` if another process holds the lock."""
        path = self._directory / "pfsb.lock"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            self._descriptors.append(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            self.release()
            raise StorageRefused(
                f"{error.filename}: {error.strerror}; the data directory must be one that this server may write to"
            ) from error
        try:
            self._lock(*self._descriptors)
        except OSError as error:
            holder = os.read(self._descriptors[0], 20).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise StorageRefused(
                f"{self._directory}: in use by another server (process {holder}); "
                "each server needs a directory of its own"
            ) from error
        os.ftruncate(self._descriptors[0], 0)
        os.write(self._descriptors[0], b"%d\n" % os.getpid())

    def _lock(self, file: int, directory: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise

    def release(self) -> None:
        """Give the lock up. Further calls do nothing."""
        while self._descriptors:
            os.close(self._descriptors.pop())


@define(eq=False)
class DirectoryWatch:
    """A thread that looks every `WATCH_SECONDS` whether the files of a running server are still the ones it opened.

    `on_failure` is called once, from the thread, with a `StorageRefused` as a Failure: when a file has been deleted,
    replaced by another file or cut short, or cannot be looked at. The caller of `start` must have opened the files.
    """

    _files: Sequence[Path]
    _on_failure: Callable[[Failure], None]
    _found: dict[Path, os.stat_result] = field(factory=dict, init=False)
    """Path of each file -> the status of the file (`os.stat`) at the last look."""
    _changes: Lock = field(factory=Lock, init=False)
    """Held while `_found` changes."""
    _stopped: Event = field(factory=Event, init=False)

    def start(self) -> None:
        self._found = {path: path.stat() for path in self._files}
        Thread(target=self._run, name="pfsb storage watch", daemon=True).start()

    def add(self, path: Path) -> None:
        """Look at this file, too, from now on. It must be there. Callable from any thread."""
        with self._changes:
            self._found[path] = path.stat()

    def forget(self, path: Path) -> None:
        """Stop looking at this file, which may be deleted when the method has returned. Callable from any thread."""
        with self._changes:
            self._found.pop(path, None)

    def stop(self) -> None:
        """End the watch. If a look is under way, `on_failure` may still be called."""
        self._stopped.set()

    def look(self) -> None:
        """Look once at all files. Raises `StorageRefused` for the first one that is gone, replaced, shorter or not
        readable."""
        with self._changes:
            paths = list(self._found)
        for path in paths:
            fate = self._fate(path)
            if fate is not None and path in self._found:
                raise _under_a_running_server(path, fate)

    def _fate(self, path: Path) -> str | None:
        """The fate of a file that is not the one that was found before, in words; None: it is the same."""
        try:
            now = path.stat()
        except OSError as error:
            return "deleted" if isinstance(error, FileNotFoundError) else f"not readable ({error.strerror})"
        with self._changes:
            before = self._found.get(path, now)
            if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
                return "replaced by another file"
            if now.st_size < before.st_size:
                return "cut short"
            if path in self._found:
                self._found[path] = now
        return None

    def _run(self) -> None:
        try:
            while not self._stopped.wait(WATCH_SECONDS):
                self.look()
        except StorageRefused:
            if not self._stopped.is_set():
                self._on_failure(Failure())


def _under_a_running_server(path: Path, fate: str) -> StorageRefused:
    return StorageRefused(
        f"{path}: {fate} while the server was running; what it has written since may be lost. Bring back all files of "
        "this directory as they are now in use, if that is still possible, before this server is started again"
    )


def free_bytes(directory: Path) -> tuple[int, int]:
    """(free bytes, all bytes) of the file system of `directory`: the free ones are those that this process may use."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def bytes_in(directory: Path) -> int:
    """The size, in bytes, of all files in a directory together. Files may be made and deleted meanwhile."""
    size = 0
    for entry in os.scandir(directory):
        with suppress(FileNotFoundError):
            size += entry.stat().st_size
    return size


def sync_directory(directory: Path) -> None:
    """Force the entries of `directory` to disk: files made or renamed there keep their names after power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
