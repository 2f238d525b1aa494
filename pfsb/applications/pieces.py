"""Snapshots in pieces, of applications whose state is a sequence of rows.

A row is one object in msgpack. A snapshot begins with the head, a list whose first part is the number of the format;
rows follow, and their number as the end. Each piece of the snapshot has about 64 KiB of these objects, and the snapshot
as bytes in one go is all pieces, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import msgpack
from zope.interface import implementer

from pfsb.applications.application import Application, Verb
from pfsb.applications.arguments import refuse_other_format
from pfsb.applications.interfaces import IFrozenState, IReplicatedApplication
from pfsb.support.limits import PIECE_BYTES

ROWS_MAX: Final = 1_000
"""Maximum number of rows in a piece: so a piece of small rows takes a millisecond or two, too."""
_PORTION_BYTES: Final = 1_048_576
"""Number of bytes of a snapshot in one go that are decoded at a time."""
_NOT_YET: Final = -1
_NIL: Final = msgpack.packb(None)


class IFrozenRows(Protocol):
    """The state of an application at one moment, from which its rows are made while the application changes."""

    @property
    def head(self) -> tuple[Any, ...]:
        """The part of the state that is in the head of the snapshot."""

    def rows(self) -> Iterator[bytes]:
        """The rows, each encoded in msgpack. Each is made when it is asked for, from the state of the moment at which
        this object was made."""


Frozen = TypeVar("Frozen", bound=IFrozenRows)


class Pieces(Iterator[bytes]):
    """The iterator that `IFrozenState.freeze` returns."""

    def __init__(self, pieces: Iterator[bytes], ended: Callable[[], None]) -> None:
        """`ended` is called when no more pieces are taken: after the last one, and when the iterator is closed."""
        self._pieces = pieces
        self._ended = ended

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Make no more pieces, and keep nothing of the frozen state."""
        self._pieces = iter(())
        ended, self._ended = self._ended, _do_nothing  # the former callback refers to the frozen state, too
        ended()


def _do_nothing() -> None:
    pass


def pieces_of(head: Sequence[Any], rows: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a snapshot with this head and these rows. A piece ends with the row that makes it as large as
    `PIECE_BYTES`, or that is its row number `ROWS_MAX`: so the first pieces stay the same if rows are added at the end.
    """
    parts: list[bytes] = [msgpack.packb(head)]
    size = count = 0
    for row in rows:
        parts.append(row)
        size += len(row)
        if size >= PIECE_BYTES or len(parts) >= ROWS_MAX:
            count += len(parts)
            yield b"".join(parts)
            parts, size = [], 0
    count += len(parts) - 1  # the head is no row
    yield b"".join((*parts, msgpack.packb(count)))


def refuse_cut_row(unpacker: msgpack.Unpacker, name: str) -> None:
    """Raise `ValueError` if the bytes that were fed to `unpacker` end within a row of the application `name`.

    Nil becomes a part of such a row then, and not a row of its own. (`unpacker.tell()` counts a row that has begun.)
    """
    unpacker.feed(_NIL)
    if [*unpacker] != [None]:
        raise ValueError(f"a piece of the snapshot of {name} ends within a row")


@implementer(IReplicatedApplication, IFrozenState)
class PiecewiseApplication(Application, Generic[Frozen]):
    """An application that gives its snapshot in pieces, and executes commands meanwhile.

    A subclass has `snapshot_format`, `state_now`, `begin` and `take_rows`. While `_frozen` is not None it tells that
    object of each change of its state before it makes the change.
    """

    snapshot_format: int = 1
    """Number of the format of the snapshots, in one go and in pieces."""

    def __init__(self, verbs: dict[str, Verb]) -> None:
        self._frozen: Frozen | None = None
        """The state at the last call of `freeze`, while its pieces are taken; else None."""
        self._rows_taken = _NOT_YET
        self._rows_told = _NOT_YET
        super().__init__(verbs)

    def state_now(self) -> Frozen:
        """The present state. Making it takes no longer than a few milliseconds, however large the state is."""
        raise NotImplementedError

    def begin(self, head: Sequence[Any]) -> None:
        """Replace the state by that of a snapshot which has this head and no rows."""
        raise NotImplementedError

    def take_rows(self, rows: Sequence[Any]) -> None:
        """Add the next rows of a snapshot to the state. A list in a row is a tuple here."""
        raise NotImplementedError

    @property
    def is_frozen(self) -> bool:
        """Whether pieces are being taken, so that former states are kept aside."""
        return self._frozen is not None

    def freeze(self) -> Iterator[bytes]:
        frozen = self._frozen = self.state_now()
        return Pieces(self._pieces(frozen), partial(self._thaw, frozen))

    def take_piece(self, data: bytes) -> None:
        unpacker = msgpack.Unpacker(use_list=False)
        unpacker.feed(data)
        rows = [*unpacker]
        refuse_cut_row(unpacker, self.name)
        self._take(rows)

    def pieces_end(self) -> None:
        taken, told = self._rows_taken, self._rows_told
        self._rows_taken = self._rows_told = _NOT_YET
        if taken == _NOT_YET or taken != told:
            raise ValueError(f"the snapshot of {self.name} is not complete")

    def snapshot(self) -> bytes:
        """The pieces of the present state, one after the other."""
        return b"".join(self._pieces(self.state_now()))

    def restore(self, data: bytes) -> None:
        """Replace the state by that of a snapshot. Raises `ValueError`; if the snapshot has another format, the state
        stays as it was."""
        self._rows_taken = self._rows_told = _NOT_YET
        unpacker, view = msgpack.Unpacker(use_list=False), memoryview(data)
        for at in range(0, len(data), _PORTION_BYTES):
            unpacker.feed(view[at : at + _PORTION_BYTES])
            self._take([*unpacker])
        refuse_cut_row(unpacker, self.name)
        self.pieces_end()

    def _pieces(self, frozen: Frozen) -> Iterator[bytes]:
        return pieces_of((self.snapshot_format, *frozen.head), frozen.rows())

    def _thaw(self, frozen: Frozen) -> None:
        if self._frozen is frozen:
            self._frozen = None

    def _take(self, rows: list[Any]) -> None:
        if rows and self._rows_told != _NOT_YET:
            raise ValueError(f"something follows the end of the snapshot of {self.name}")
        try:
            if rows and self._rows_taken == _NOT_YET:
                found, *head = rows.pop(0)
                refuse_other_format(self.name, found, self.snapshot_format)
                self.begin(head)
                self._rows_taken = 0
            if rows and type(rows[-1]) is int:
                self._rows_told = rows.pop()
            self._rows_taken += len(rows)
            self.take_rows(rows)
        except (TypeError, LookupError) as error:
            raise ValueError(f"a piece of the snapshot of {self.name} is not understood: {error}") from error
