"""The archive of a storage: segments and snapshots that a later snapshot has made superfluous are moved there.

Below the directory `archive` of the configuration each server has a directory, and each of its storages one in that, as
in `archive/2/6f1c8e0b5a7d3f42`: its name is the identity of the storage, so files of two storages never meet. It holds
`log` and `snapshots`, as a data directory does (docs/internals/archive.rst).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Final

from attrs import define, field

from pfsb.storage.counters import ArchiveCounters
from pfsb.storage.directory import bytes_in, sync_directory
from pfsb.storage.durable import sync_data
from pfsb.storage.log.segments import SegmentHead, drop_segments, numbers_in, segment_path
from pfsb.support.limits import IDENTITY_BYTES

AGAIN_SECONDS: Final = 30.0
"""How long, in seconds, files wait in the data directory after the archive has not taken one."""
STEP_BYTES: Final = 262_144
"""Number of bytes that are copied and forced to disk at once, where a file must be copied: groups of the log wait for
the same disk meanwhile, or for the same bus."""
UNFINISHED: Final = "next.new"
"""Name that a file has in the archive while it is being copied there."""
IDENTITY_NAME: Final = re.compile(rf"[0-9a-f]{{{2 * IDENTITY_BYTES}}}", re.ASCII)
"""Name of the directory of one storage in an archive."""
_COPIED: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""Errors of a hard link that say that the archive cannot have one: it is on another file system, or on one that has no
links. The file is copied then."""


class NotArchived(Exception):
    """Raised if the archive does not take a file, which stays in the data directory; the text is for a person."""


class _Ends(Exception):
    """Raised in the thread of snapshots when the thread has to end in the middle of a copy."""


def archive_of(directory: Path, identity: bytes) -> Path:
    """The directory of one storage in an archive; `directory` is that of its server."""
    return directory / identity.hex()


@define(eq=False)
class Archive:
    """Moves files of one storage into its archive. Used in the thread of snapshots, but for `is_due`.

    A file is in the archive, on disk and under its name, before it leaves the data directory. If the archive does not
    take it, it stays there, and is tried again: superfluous files do no harm to a start. `tell` is called, in the
    thread, with a line for the log of the server and whether it tells of trouble.
    """

    directory: Path
    """The directory in the archive for the files of this storage (`archive_of`). The archive itself, which the
    configuration names, is two levels above; it is never made here."""
    log: Path
    """The directory of the segments from which files are taken."""
    head: SegmentHead
    """The head of any segment of the log (`drop_segments`)."""
    counters: ArchiveCounters
    _seconds: Callable[[], float]
    _tell: Callable[[str, bool], None] = lambda line, is_trouble: None
    _pause: Callable[[], None] = lambda: None
    _ends: Event = field(factory=Event)
    """Set when the thread has to end soon: copies are given up then."""
    _segments: set[int] = field(factory=set, init=False)
    """Numbers of the segments that are to be moved."""
    _snapshots: set[Path] = field(factory=set, init=False)
    """Paths of the snapshots that are to be moved."""
    _compacted: int = field(default=0, init=False)
    _again_at: float | None = field(default=None, init=False)
    """Time at which the next attempt is due; None: nothing has failed."""

    def is_due(self) -> bool:
        """Whether it is time to call `go_on` again, since the archive has not taken a file before. Callable from any
        thread; if it returns True, the caller must have `go_on` called."""
        due = self._again_at is not None and self._seconds() >= self._again_at
        if due:
            self._again_at = None
        return due

    def count(self) -> None:
        """Count the files and bytes in the archive, after the first call of `take`."""
        try:
            log = self.directory / "log"
            self.counters.bytes = sum(bytes_in(each) for each in (log, self._snapshots_directory) if each.is_dir())
            if log.is_dir() and any(numbers_in(log)) and not self._segments:
                self.counters.slot = self._compacted
        except OSError as error:
            self._failed(NotArchived(_words(self.directory, error)))

    def take(self, segments: Collection[int], snapshots: Iterable[Path], compacted: int) -> None:
        """Move these segments and snapshots, and all that wait from before. The slots up to `compacted` are in segments
        of the archive then, as far as this storage had them."""
        self._segments.update(segments)
        self._snapshots.update(snapshots)
        self._compacted = max(self._compacted, compacted)
        self.go_on()

    def go_on(self) -> None:
        """Move all that waits: segments in ascending order, and then snapshots. Raises OSError if the data directory
        fails; if the archive does, the rest waits on."""
        self._again_at = None
        has_moved = bool(self._segments)
        try:
            for number in sorted(self._segments):
                self._pause()
                self._put(segment_path(self.log, number), self.directory / "log")
                drop_segments(self.log, [number], self.head, self._pause)
                self._segments.discard(number)
            for path in sorted(self._snapshots):
                self._pause()
                self._put(path, self._snapshots_directory)
                path.unlink(missing_ok=True)
                sync_directory(path.parent)
                self._snapshots.discard(path)
        except NotArchived as error:
            self._failed(error)
        except _Ends:
            return
        else:
            if has_moved:
                self.counters.slot = self._compacted
            if self.counters.error is not None:
                self._tell(f"the archive {self.directory} takes files again", False)
            self.counters.error = None
        finally:
            self.counters.waiting = len(self._segments) + len(self._snapshots)

    @property
    def _snapshots_directory(self) -> Path:
        return self.directory / "snapshots"

    def _failed(self, error: NotArchived) -> None:
        text = str(error)
        self._again_at = self._seconds() + AGAIN_SECONDS
        if text != self.counters.error:
            self._tell(
                f"the archive does not take superfluous files: {text}; they stay in the data directory, nothing is "
                f"lost, and it is tried again every {AGAIN_SECONDS:g} s",
                True,
            )
        self.counters.error = text

    def _put(self, path: Path, directory: Path) -> None:
        """Make sure that the file is in this directory of the archive, on disk with its name. Raises `NotArchived`."""
        target, root = directory / path.name, self.directory.parent.parent
        try:
            if not root.is_dir():
                # It may be on a file system that is not mounted now: then nothing must be written in its place.
                raise NotArchived(f"{root} is no directory that is there: make it, or mount its file system")
            if path.exists():
                _make_directories(directory)
                is_new = self._link_or_copy(path, target)
                sync_directory(directory)
                self.counters.bytes += target.stat().st_size if is_new else 0
        except OSError as error:
            raise NotArchived(_words(target, error)) from error

    def _link_or_copy(self, path: Path, target: Path) -> bool:
        """Put the file into the archive under the name `target`, by a link or as a copy; returns False if the archive
        has it already, from an attempt that a crash has ended."""
        try:
            if not target.exists():
                os.link(path, target)
                return True
        except OSError as error:
            if error.errno not in _COPIED:
                raise
            self._copy(path, target)
            return True
        if not self._are_equal(path, target):
            raise NotArchived(f"{target} is there already, with another content, and is not overwritten: move it away")
        return False

    def _are_equal(self, one: Path, other: Path) -> bool:
        if os.path.samefile(one, other):
            return True
        if one.stat().st_size != other.stat().st_size:
            return False
        with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
            while data := first.read(STEP_BYTES):
                self._stop_if_ending()
                if second.read(STEP_BYTES) != data:
                    return False
        return True

    def _copy(self, path: Path, target: Path) -> None:
        unfinished = target.with_name(UNFINISHED)
        try:
            with path.open("rb", buffering=0) as source, unfinished.open("wb", buffering=0) as copy:
                while data := source.read(STEP_BYTES):
                    self._stop_if_ending()
                    rest = memoryview(data)
                    while rest:
                        rest = rest[copy.write(rest) :]
                    sync_data(copy.fileno())
                    self._pause()
                os.fsync(copy.fileno())
            os.rename(unfinished, target)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise

    def _stop_if_ending(self) -> None:
        if self._ends.is_set():
            raise _Ends


def _make_directories(directory: Path) -> None:
    """Make a directory and those above it, as far as they are missing. Their names are on disk when this function
    returns."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_directory(each.parent)


def _words(path: Path, error: OSError) -> str:
    return f"{error.filename or path}: {error.strerror or error}"
