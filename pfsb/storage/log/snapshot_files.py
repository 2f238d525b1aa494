"""The files of snapshots in a data directory: their names, how they are checked, and how they are read."""

from __future__ import annotations

import errno
import os
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.snapshot import SnapshotDecoder, SnapshotName, WrongSnapshot
from pfsb.storage.directory import sync_directory

PORTION_BYTES: Final = 1_048_576
"""Number of bytes of a snapshot that are read at once."""
OPEN_MAX: Final = 4
"""Maximum number of files of snapshots that are read at a time. Backups and slow servers may read one that was replaced
meanwhile, while others read the next one."""
UNFINISHED: Final = "snapshot.new"
"""Name of the file of a snapshot that this server is making."""
_COMPLETE: Final = re.compile(r"(\d{12,})\.snapshot", re.ASCII)
_FETCHED: Final = re.compile(r"(\d{12,})-(\d+)-([0-9a-f]{32})\.part", re.ASCII)


@frozen
class SnapshotFiles:
    """The directory with the snapshots of one storage."""

    directory: Path

    @classmethod
    def beside(cls, log: Path) -> SnapshotFiles:
        """The snapshots that belong to the log in this directory."""
        return cls(log.with_name("snapshots"))

    def path(self, seq: int) -> Path:
        """The path of the complete snapshot of slot `seq`."""
        return self.directory / f"{seq:012d}.snapshot"

    def fetched_path(self, name: SnapshotName) -> Path:
        """The path of a snapshot of which parts have come from another server."""
        return self.directory / f"{name.seq:012d}-{name.size}-{name.digest.hex()}.part"

    @property
    def unfinished(self) -> Path:
        return self.directory / UNFINISHED

    def make_directory(self) -> None:
        """Make the directory, unless it is there; its name is on disk when this method returns."""
        if not self.directory.is_dir():
            self.directory.mkdir()
            sync_directory(self.directory.parent)

    def write(self, snapshot: SnapshotName, portions: Iterable[bytes]) -> None:
        """Write a snapshot under its final name; it is on disk when this method returns. Raises OSError."""
        self.make_directory()
        with self.unfinished.open("wb") as file:
            for portion in portions:
                file.write(portion)
            file.flush()
            os.fsync(file.fileno())
        self.unfinished.rename(self.path(snapshot.seq))
        sync_directory(self.directory)

    def fetched(self) -> dict[SnapshotName, int]:
        """All snapshots of which parts have come from another server -> the size, in bytes, of those parts."""
        found: dict[SnapshotName, int] = {}
        for path in self._all():
            match = _FETCHED.fullmatch(path.name)
            if match is not None:
                name = SnapshotName(int(match[1]), int(match[2]), bytes.fromhex(match[3]))
                if path == self.fetched_path(name):
                    found[name] = path.stat().st_size
        return found

    def complete_bytes(self) -> int:
        """The size, in bytes, of all complete snapshots together."""
        return sum(path.stat().st_size for path, _ in self.complete())

    def complete(self) -> Iterator[tuple[Path, int]]:
        """All complete snapshots, ascending by slot, as (path, slot)."""
        for path in self._all():
            if match := _COMPLETE.fullmatch(path.name):
                yield path, int(match[1])

    def older(self, snapshot: SnapshotName | None) -> list[Path]:
        """The files of complete snapshots of lower slots than that of `snapshot`, the one that the last record
        names."""
        return [path for path, seq in self.complete() if snapshot is not None and seq < snapshot.seq]

    def delete_leftovers(
        self, snapshot: SnapshotName | None, keep: Collection[Path] = (), *, is_lost: bool = False
    ) -> None:
        """Delete everything that a crash has left, but for the files `keep`: unfinished files, complete snapshots other
        than `snapshot`, which no record names, and parts of older ones. None: no record names a snapshot. `is_lost`
        says that this snapshot is missing or damaged: then parts of the same one are needed, too."""
        kept = None if snapshot is None else self.path(snapshot.seq)
        first = 0 if snapshot is None else snapshot.seq + (not is_lost)
        needed = {self.fetched_path(name) for name, size in self.fetched().items() if name.seq >= first and size}
        for path in self._all():
            name = path.name
            is_ours = name == UNFINISHED or _COMPLETE.fullmatch(name) or _FETCHED.fullmatch(name)
            if is_ours and path != kept and path not in needed and path not in keep:
                path.unlink()
        if self.directory.is_dir():
            sync_directory(self.directory)

    def fate_by_size(self, snapshot: SnapshotName) -> str | None:
        """The fate of this snapshot, in words, if its file is missing or has another size; else None."""
        try:
            size = self.path(snapshot.seq).stat().st_size
        except FileNotFoundError:
            return "missing"
        if size < snapshot.size:
            return f"cut off at {size} bytes of {snapshot.size}"
        if size > snapshot.size:
            return f"damaged (it has {size} bytes instead of {snapshot.size})"
        return None

    def fate(self, snapshot: SnapshotName) -> str | None:
        """Read the whole file of this snapshot. Returns its fate in words, if it is missing or damaged; else None."""
        fate = self.fate_by_size(snapshot)
        if fate is not None:
            return fate
        try:
            fault = fault_of(self.path(snapshot.seq), snapshot)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            fault = str(error)  # such as a sector of the disk that cannot be read
        return None if fault is None else f"damaged ({fault})"

    def refuse_wrong(self, snapshot: SnapshotName) -> None:
        """Read the whole file of this snapshot. Raises `StorageRefused` unless it is right."""
        fate = self.fate(snapshot)
        if fate is not None:
            raise _lost(self.path(snapshot.seq), fate)

    def portions(self, snapshot: SnapshotName) -> Iterator[bytes]:
        """Yield the bytes of this snapshot, which was checked before. Raises `StorageRefused` if they have changed."""
        decoder = SnapshotDecoder()
        path = self.path(snapshot.seq)
        try:
            for portion in portions_of(path):
                for _ in decoder.feed(portion):
                    pass
                yield portion
        except (OSError, WrongSnapshot) as error:
            raise _lost(path, f"damaged ({error})") from None
        if decoder.name != snapshot:
            raise _lost(path, "damaged (it is not what it was a moment ago)")

    def _all(self) -> list[Path]:
        return sorted(self.directory.iterdir()) if self.directory.is_dir() else []


def portions_of(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, in portions. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        while portion := file.read(PORTION_BYTES):
            yield portion


def fault_of(path: Path, snapshot: SnapshotName) -> str | None:
    """The fault of the file of a snapshot, in words; None: it is right. Raises OSError."""
    decoder = SnapshotDecoder()
    try:
        for portion in portions_of(path):
            for _ in decoder.feed(portion):
                pass
    except WrongSnapshot as error:
        return str(error)
    if not decoder.is_complete:
        return "its end is missing"
    return None if decoder.name == snapshot else "it is another snapshot"


def _lost(path: Path, fate: str) -> StorageRefused:
    return StorageRefused(
        f"{path}: {fate}; the state of this server is in this snapshot. Bring the file back, or copy the one of the "
        "same name from another server of the cluster, where it has the same bytes; or start the server, which fetches "
        "one from the others"
    )


@define(eq=False)
class SnapshotReader:
    """Reads bytes of complete snapshots. One thread at a time uses it.

    The files that were read last stay open, `OPEN_MAX` at most, so the rest of each can be read although it was deleted
    meanwhile.
    """

    _open: OrderedDict[SnapshotName, int] = field(factory=OrderedDict, init=False)
    """Snapshot -> descriptor of its open file; the one that was read last stands last."""

    def read(self, name: SnapshotName, path: Path | None, offset: int, bytes_max: int) -> bytes:
        """At most `bytes_max` bytes from `offset` on; none behind the end. `path` is where that snapshot lies; None: it
        was deleted, and can be read only if it was read lately."""
        descriptor = self._open.get(name)
        if descriptor is None and (descriptor := self._opened(name, path)) is None:
            return b""
        self._open.move_to_end(name)
        return os.pread(descriptor, bytes_max, offset)

    def close(self) -> None:
        """Close all files. A later call of `read` opens one again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _opened(self, name: SnapshotName, path: Path | None) -> int | None:
        if path is None:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        self._open[name] = descriptor
        if len(self._open) > OPEN_MAX:
            os.close(self._open.popitem(last=False)[1])
        return descriptor
