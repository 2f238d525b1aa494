"""The write-ahead log of a database of format 3: the check that no acknowledged commit was cut out of it.

The log is a sequence of frames, each of which is a page of the database with a header and a checksum. SQLite reads the
log up to the first damaged frame and silently drops the rest. Dropping is right for the torn end of the last
transaction: that transaction was not acknowledged, so no message of this server depends on it. But if the damage lies
earlier in the log, acknowledged commits are dropped with it: promises and votes on which a majority may rest.

The two cases are told apart by counting commits. With `synchronous=FULL` the writer begins a transaction only after
the one before it was forced to disk. So of two commits at or behind the first damaged frame the earlier one was forced
to disk, and may have been acknowledged: the storage is refused. A single commit there may be the torn end, and is
dropped.

The check can miss a loss. A frame whose own header is damaged hides its commit, and a log that lost its end together
with every trace of it looks like one that ended there. Such a disk breaks the assumption that what was forced to disk
stays there.

The format is that of https://www.sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

HEADER = struct.Struct(">8I")
FRAME = struct.Struct(">6I")
MAGIC = 0x377F0682
"""The first 32-bit word of a log, apart from its lowest bit.

If that bit is set, checksums are computed over the file as big-endian words, else as little-endian words.
"""


def log_of(database: Path) -> Path:
    """The path of the log that SQLite keeps for this database."""
    return database.with_name(database.name + "-wal")


def acknowledged_commits_lost(path: Path) -> bool:
    """Whether SQLite would drop more from the log at `path` than the torn end of the last transaction."""
    data = path.read_bytes()
    if len(data) < HEADER.size or not any(data[: HEADER.size]):
        return False
    log = _Log.parse(data)
    return log is None or log.commits_behind_damage() >= 2


@frozen
class _Frame:
    """One page in the log. It is valid if its checksum is right, which covers all frames before this one, too."""

    valid: bool
    commits: bool


@frozen
class _Log:
    """The write-ahead log of a SQLite database, as read from its file: header and frames."""

    data: bytes
    word_order: str
    page_bytes: int
    salts: tuple[int, int]
    """Two numbers that change each time the log is begun anew.

    Frames with other salts are remains of an older log, whose pages are in the database by now.
    """
    checksum: tuple[int, int]

    @classmethod
    def parse(cls, data: bytes) -> _Log | None:
        """The log in `data`; None if its header is damaged.

        SQLite forces the header to disk before any frame, so a damaged header is no torn end of the last transaction.
        """
        magic, _version, page_bytes, _number, salt_1, salt_2, *stored = HEADER.unpack_from(data)
        word_order = ">" if magic & 1 else "<"
        checksum = _checksum(word_order, data[: HEADER.size - 8], (0, 0))
        if magic & ~1 != MAGIC or checksum != tuple(stored):
            return None
        return cls(data, word_order, page_bytes, (salt_1, salt_2), checksum)

    def commits_behind_damage(self) -> int:
        """Number of commits in the first damaged frame of this log and in the frames after it; 0 if no frame is
        damaged.
        """
        damaged = False
        commits = 0
        for frame in self._frames():
            damaged = damaged or not frame.valid
            commits += damaged and frame.commits
        return commits

    def _frames(self) -> Iterator[_Frame]:
        checksum = self.checksum
        valid = True
        frame_bytes = FRAME.size + self.page_bytes
        for start in range(HEADER.size, len(self.data) - frame_bytes + 1, frame_bytes):
            _page, pages_after_commit, salt_1, salt_2, *stored = FRAME.unpack_from(self.data, start)
            ours = (salt_1, salt_2) == self.salts
            if valid:
                checksum = self._frame_checksum(start, checksum)
                valid = ours and checksum == tuple(stored)
            yield _Frame(valid, commits=ours and pages_after_commit > 0)

    def _frame_checksum(self, start: int, checksum: tuple[int, int]) -> tuple[int, int]:
        page = start + FRAME.size
        head = self.data[start : start + 8]
        return _checksum(self.word_order, head + self.data[page : page + self.page_bytes], checksum)


def _checksum(word_order: str, data: bytes, checksum: tuple[int, int]) -> tuple[int, int]:
    one, two = checksum
    words = iter(struct.unpack(f"{word_order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
