"""The segments of a log: files that are filled with zeros ahead, each with a head that says whose it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from struct import Struct, error
from typing import Final

from attrs import evolve, frozen
from xxhash import xxh3_128_digest

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage.directory import sync_directory
from pfsb.storage.durable import lacks_room, sync_data
from pfsb.storage.owner import StorageOwner
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN, other_format

FORMAT_VERSION: Final = 5
"""Number of the format of data directories that this version writes. Formats 1 and 2 belong to versions of pfsb that
were not released; `pfsb.storage.log.migration` takes over those of format 3, a SQLite database."""
FORMAT_WITHOUT_SNAPSHOTS: Final = 4
"""Number of the format of segments that hold no snapshots, and else are like those of `FORMAT_VERSION`. They are read,
and groups are appended to them; a start of a server goes on in a new segment."""
MAGIC: Final = b"pfsb log"
BLOCK_BYTES: Final = 4_096
"""Number of bytes of which the size of a head is a multiple, so that no later write touches a sector of the head."""
CHECK_BYTES: Final = 16
ROOM_BYTES_MAX: Final = 16 * 1_048_576
ROOM_BYTES_MIN: Final = 1_048_576
_FIXED: Final = Struct(">8sIIQQ8s16sHBHH")
"""The first part of a head: magic, format, size of the head, number, room, identity, salt and server id; then the sizes
of the parts that follow it: those of the cluster digest and of the cluster's name, in bytes, and the number of members.
"""
UNFINISHED: Final = "next.new"
"""Name of the file of a segment that is still being made."""
DROPPED: Final = "dropped.new"
"""Name, while it is being made, of the file with only a head that takes the place of a dropped first segment."""


@frozen
class SegmentHead:
    """The head of a segment: everything about it that does not change."""

    number: int
    """1 for the first segment of a log, and one more for each later one."""
    room: int
    """Size, in bytes, that the file of the segment was made with. The file may have grown since.

    0: the file stands in the place of the first segment, which was dropped (`drop_segments`), and is this head alone.
    """
    identity: bytes
    """Identity of the storage (Departure 12)."""
    salt: bytes
    """Random bytes that no other segment has."""
    owner: StorageOwner
    version: int = FORMAT_VERSION

    @property
    def size(self) -> int:
        """Size, in bytes, of the encoded head; the first group begins there."""
        needed = len(self._content(0)) + CHECK_BYTES
        return -(-needed // BLOCK_BYTES) * BLOCK_BYTES

    def encode(self) -> bytes:
        size = self.size
        content = self._content(size).ljust(size - CHECK_BYTES, b"\0")
        return content + _check(content)

    def _content(self, size: int) -> bytes:
        owner = self.owner
        name = owner.cluster_name.encode()
        fixed = _FIXED.pack(
            MAGIC,
            self.version,
            size,
            self.number,
            self.room,
            self.identity,
            self.salt,
            owner.server_id,
            len(owner.cluster_digest),
            len(name),
            len(owner.members),
        )
        members = Struct(f">{len(owner.members)}H").pack(*owner.members)
        return fixed + owner.cluster_digest + name + members

    @classmethod
    def decode(cls, path: Path, data: bytes) -> SegmentHead:
        """The head at the beginning of `data`, which was read from `path`. Raises `StorageRefused` if it is none, is
        damaged, or is of another format."""
        if len(data) < _FIXED.size or not data.startswith(MAGIC):
            raise damaged(path, "its head is missing or damaged")
        _, version, size, number, room, identity, salt, server_id, digest_bytes, name_bytes, count = _FIXED.unpack_from(
            data
        )
        if version not in (FORMAT_VERSION, FORMAT_WITHOUT_SNAPSHOTS):
            raise other_format(path, version, FORMAT_VERSION)
        content = data[: max(size, CHECK_BYTES) - CHECK_BYTES]
        if size > len(data) or _check(content) != data[len(content) : size]:
            raise damaged(path, "its head is damaged")
        name_at = _FIXED.size + digest_bytes
        members_at = name_at + name_bytes
        try:
            name = data[name_at:members_at].decode()
            members = Struct(f">{count}H").unpack_from(content, members_at)
        except (UnicodeDecodeError, error):
            raise damaged(path, "its head is damaged") from None
        owner = StorageOwner(name, data[_FIXED.size : name_at], members, server_id)
        head = cls(number, room, identity, salt, owner, version)
        if head.encode() != data[:size]:
            raise damaged(path, "its head is damaged")
        return head


def _check(content: bytes) -> bytes:
    check: bytes = xxh3_128_digest(content)
    return check


def damaged(path: Path, how: str) -> StorageRefused:
    """The refusal of a segment that is not as it was written."""
    return StorageRefused(f"{path}: damaged ({how}); {MUST_NOT_VOTE_AGAIN}")


_NAME: Final = re.compile(r"(\d{10})\.log", re.ASCII)


def room_of(number: int) -> int:
    """Size, in bytes, with which the segment of this number is made: the first ones are small, as most storages of
    tests are."""
    return int(min(ROOM_BYTES_MIN << 2 * min(number - 1, 10), ROOM_BYTES_MAX))


def segment_path(directory: Path, number: int) -> Path:
    """The path of a segment in the directory of the log."""
    return directory / f"{number:010d}.log"


def numbers_in(directory: Path) -> Iterator[int]:
    """The numbers of the segments in a directory, ascending."""
    names = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    yield from sorted(int(name[1]) for name in names if name is not None)


def make_segment(directory: Path, head: SegmentHead, pause: Callable[[], None] = lambda: None) -> None:
    """Make the file of a segment: full of zeros behind its head, and on disk before it gets its name.

    Zeros are written, and not only reserved: a group is then written over bytes of the file, which takes half as long
    as one that makes the file grow, since the journal of the file system has no part in it. `pause` is called before
    each megabyte. Raises OSError; the unfinished file then has the name `UNFINISHED`, and no meaning.
    """
    unfinished = directory / UNFINISHED
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        for at in range(0, head.room, _PIECE_BYTES):
            pause()
            piece = head.encode() if at == 0 else b""
            _write_all(descriptor, piece.ljust(min(_PIECE_BYTES, head.room - at), b"\0"), at)
            sync_data(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(unfinished, segment_path(directory, head.number))
    sync_directory(directory)


def drop_segments(directory: Path, numbers: Collection[int], head: SegmentHead, pause: Callable[[], None]) -> None:
    """Delete segments, in ascending order; those that are gone already are left out.

    In the place of the first segment of a log a head remains, which is like `head`, that of another segment: versions
    of pfsb that know nothing of snapshots find its format there, and refuse the directory for that reason. It is on
    disk before other segments are deleted. If the disk has no room for it, it is made after that; if there is none even
    then, the first segment stays. `pause` is called before each file.
    """
    is_first_there = 1 in numbers and not _replace_first(directory, head)
    for number in sorted(set(numbers) - {1}):
        pause()
        segment_path(directory, number).unlink(missing_ok=True)
    sync_directory(directory)
    if is_first_there:
        _replace_first(directory, head)


def _replace_first(directory: Path, example: SegmentHead) -> bool:
    """Put a head in the place of the first segment; returns False if the disk has no room for it."""
    head = evolve(example, number=1, room=0, version=FORMAT_VERSION)
    unfinished = directory / DROPPED
    try:
        with unfinished.open("wb") as file:
            file.write(head.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if not lacks_room(error):
            raise
        return False
    os.rename(unfinished, segment_path(directory, 1))
    sync_directory(directory)
    return True


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


_PIECE_BYTES: Final = 1_048_576
