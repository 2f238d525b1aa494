"""The position note: a file beside the storage that says how many groups of records the storage must hold.

A storage engine opens a log that is missing, emptied, cut off or older than its database without complaint, and the
records that were in the log are gone: promises and votes on which a majority may rest. The note stands outside of the
files of the engine. After each group the note is told the storage's position (`IStableStorage.position`), and a storage
that is found with a lower position is refused.

The note is never ahead of the storage, because it is written when a group is on disk. It may be behind. After the death
of the process it lags by the group that was written last, at most: the kernel keeps the bytes that were written before.
After power loss it may lag by the groups of about a second (`FORCE_SECONDS`): forcing it to disk with each group would
double the work of the disk. If records of that last second are cut off, the other servers find out (Departure 43).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

from attrs import define, field

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage.directory import sync_directory
from pfsb.storage.durable import lacks_room, sync_data
from pfsb.storage.refusals import MUST_NOT_VOTE_AGAIN

LINES: Final = 2
"""Number of lines in the file. They are written alternately, so if one is torn, the other is whole."""
LINE_BYTES: Final = 64
FORCE_SECONDS: Final = 1.0
"""Minimum pause, in seconds, after the note was forced to disk, until it is forced again."""
FORCE_SHARE: Final = 0.01
"""Maximum share of the writer's time that forcing the note may take: on a slow disk it is forced more rarely."""
_HASH_BYTES: Final = 8
_PERSON: Final = b"pfsb position"
"""Personalisation of BLAKE2b: the hash of a line differs from hashes of the same bytes that serve another purpose."""


def note_of(storage: Path) -> Path:
    """The path of the position note that belongs to this storage. The note stands beside the storage."""
    return storage.with_name("pfsb.position")


@define(eq=False)
class PositionNote:
    """The position note of one storage: it is checked at the start, and told each position from then on.

    After `open` one thread at a time may call `tell` and `close`. Both raise OSError if the disk fails.
    """

    path: Path
    identity: bytes
    """Identity of the storage: the note of another storage is refused."""
    _seconds: Callable[[], float]
    """Returns the time of a clock that does not go back; callable from any thread."""
    _descriptor: int = field(default=-1, init=False)
    _line: int = field(default=0, init=False)
    _force_at: float = field(default=float("-inf"), init=False)

    def read(self) -> int:
        """The position that was told last. Raises `StorageRefused` if the note is missing or damaged, or is that of
        another storage."""
        try:
            lines = self.path.read_bytes()
        except FileNotFoundError:
            raise StorageRefused(
                f"{self.path}: missing; it says what the storage beside it must hold. Bring it back as it was when the "
                f"server stopped; if that is not possible, {MUST_NOT_VOTE_AGAIN}"
            ) from None
        found = list(positions_in(lines))
        if not found:
            raise StorageRefused(f"{self.path}: damaged; {MUST_NOT_VOTE_AGAIN}")
        ours = [position for identity, position in found if identity == self.identity.hex()]
        if not ours:
            raise StorageRefused(
                f"{self.path}: belongs to the storage {found[0][0]}, and the log beside it is the storage "
                f"{self.identity.hex()}; bring back the files of one directory together"
            )
        return max(ours)

    def refuse_less(self, storage: Path, position: int) -> None:
        """Raise `StorageRefused` if the note says that the storage had written more groups than `position`.

        `position` is the number that the storage has now; `storage` is the path that the text of the refusal names.
        Raises `StorageRefused`, too, if `read` does.
        """
        told = self.read()
        if position < told:
            raise StorageRefused(
                f"{storage}: holds {position} groups of records, and this server had written {told}, says "
                f"{self.path.name}: its log is missing, emptied, cut off or older than it was. Bring back all files of "
                f"this directory as they were when the server stopped; if that is not possible, {MUST_NOT_VOTE_AGAIN}"
            )

    def create(self, position: int) -> None:
        """Make the file with this first position, replacing one that is there. It is on disk when this method
        returns."""
        unfinished = self.path.with_name(self.path.name + ".new")
        with unfinished.open("wb") as file:
            file.write(self._text(position) * LINES)
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, self.path)
        sync_directory(self.path.parent)

    def open(self, position: int) -> None:
        """Open the file for `tell`, and tell it this first position, which is on disk when the method returns."""
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self.tell(position)

    def tell(self, position: int) -> None:
        """Note that the storage has this position on disk. On a disk without room the note stays behind."""
        try:
            self._write(position)
        except OSError as error:
            if not lacks_room(error):
                raise

    def _write(self, position: int) -> None:
        # A store into a mapping of the file would save 1.1 us of 2.4 for each group, and 7 instructions of byte code of
        # 103. But it may wait for the disk, and keeps all other threads from running meanwhile.
        line = (self._line + 1) % LINES
        if os.pwrite(self._descriptor, self._text(position), line * LINE_BYTES) == LINE_BYTES:
            self._line = line
        begun = self._seconds()
        if begun >= self._force_at:
            sync_data(self._descriptor)
            ended = self._seconds()
            self._force_at = ended + max(FORCE_SECONDS, (ended - begun) / FORCE_SHARE)

    def close(self) -> None:
        """Force the note to disk, and close the file. Further calls do nothing."""
        if self._descriptor >= 0:
            sync_data(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _text(self, position: int) -> bytes:
        words = f"position {position:020d} {self.identity.hex()}"
        return f"{words} {_hash(words)}\n".encode().ljust(LINE_BYTES)


def positions_in(lines: bytes) -> Iterator[tuple[str, int]]:
    """(identity in hexadecimal, position) of each line that is whole."""
    for start in range(0, len(lines), LINE_BYTES):
        words = lines[start : start + LINE_BYTES].decode("ascii", "replace").split()
        match words:
            case ["position", position, identity, stored] if stored == _hash(" ".join(words[:3])):
                yield identity, int(position)


def _hash(words: str) -> str:
    return blake2b(words.encode(), digest_size=_HASH_BYTES, person=_PERSON).hexdigest()
