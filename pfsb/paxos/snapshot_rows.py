"""Rows of a snapshot: a section of a snapshot is a sequence of rows in msgpack, which its pieces have one after the
other (`pfsb.paxos.snapshot`).

Where a piece ends depends on the rows alone. So sections of equal rows have equal pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Final

import msgpack

from pfsb.paxos.snapshot import Piece, WrongSnapshot
from pfsb.support.limits import PIECE_BYTES, PIECE_BYTES_MAX

Row = tuple[bytes, int]
"""(the row in msgpack, its work): the work is about the time that the row takes, in microseconds at most. It follows
from the contents of the row alone."""

PIECE_WORK: Final = 2_000
"""Work of all rows of a piece at which the piece is complete, though it has fewer bytes than `PIECE_BYTES`. A piece
takes about that number of microseconds."""

_NIL: Final = msgpack.packb(None)
_ERRORS: Final = "surrogatepass"
"""A text of an application may have surrogates, which strict UTF-8 has not."""
_packer: Final = msgpack.Packer(unicode_errors=_ERRORS)


def packed(value: object) -> bytes:
    """A row in msgpack."""
    data: bytes = _packer.pack(value)
    return data


def pieces_of(section: str, rows: Iterable[Row]) -> Iterator[Piece]:
    """The pieces of a section with these rows, each of which is taken when it is needed.

    A piece ends with the row that makes it as large, or as much work, as a piece shall be. A row that is larger than a
    piece may be goes into several pieces.
    """
    parts: list[bytes] = []
    size = work = 0
    for row, row_work in rows:
        parts.append(row)
        size += len(row)
        work += row_work
        if size >= PIECE_BYTES or work >= PIECE_WORK:
            yield from _cut(section, b"".join(parts))
            parts, size, work = [], 0, 0
    if parts:
        yield from _cut(section, b"".join(parts))


def cut(section: str, data: bytes) -> Iterator[Piece]:
    """The pieces of a section that is bytes, and has no rows."""
    for at in range(0, len(data), PIECE_BYTES):
        yield Piece(section, data[at : at + PIECE_BYTES])


def _cut(section: str, data: bytes) -> Iterator[Piece]:
    for at in range(0, len(data), PIECE_BYTES_MAX):
        yield Piece(section, data[at : at + PIECE_BYTES_MAX])


class FrozenPieces(Generator[Piece, None, None]):
    """The iterator over the pieces of a frozen state (`IStateMachine.freeze`)."""

    def __init__(self, pieces: Iterator[Piece], ended: Callable[[], None]) -> None:
        """`ended` is called when no more pieces are taken: behind the last one, after an exception, and when the
        iterator is closed. It may be called more than once."""
        self._pieces = pieces
        self._ended = ended

    def send(self, _: None) -> Piece:
        try:
            return next(self._pieces)
        except BaseException:
            self.close()
            raise

    def throw(self, *error: Any) -> Piece:
        """Make no more pieces. Raises the exception, as a generator does that does not catch it."""
        self.close()
        return super().throw(*error)

    def close(self) -> None:
        """Make no more pieces, and keep nothing of the frozen state."""
        self._pieces = iter(())
        self._ended()


class RowReader:
    """Reads the rows of a section from its pieces."""

    def __init__(self, other_type: Callable[[int, bytes], Any] = msgpack.ExtType) -> None:
        """`other_type` makes the value of a type that msgpack itself does not have, of its code and data."""
        self._unpacker = msgpack.Unpacker(
            use_list=False, unicode_errors=_ERRORS, strict_map_key=False, max_buffer_size=0, ext_hook=other_type
        )

    def rows(self, data: bytes) -> list[Any]:
        """The rows that are complete with the next piece. Raises `WrongSnapshot` for bytes that are no rows."""
        try:
            self._unpacker.feed(data)
            return [*self._unpacker]
        except (MemoryError, RecursionError):
            raise
        except Exception as error:  # msgpack documents no complete list of its exceptions
            raise WrongSnapshot(f"a piece of it has no rows ({type(error).__name__})") from error

    def end(self) -> None:
        """Called behind the last piece. Raises `WrongSnapshot` if it ends within a row."""
        if self.rows(_NIL) != [None]:  # as a row of its own, it is no part of a row that has begun
            raise WrongSnapshot("a section of it ends within a row")
