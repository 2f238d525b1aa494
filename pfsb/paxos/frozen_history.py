"""The history behind a snapshot: all that the ordered update queue keeps of the slots that it has executed, as rows.

Its section is the first one of each snapshot. The state machine makes the other sections.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import define, field
from zope.interface import implementer

from pfsb.paxos.interfaces import IRestorer
from pfsb.paxos.members import Members, decode_members, encode_members
from pfsb.paxos.messages import DIGEST_BYTES
from pfsb.paxos.snapshot import Piece, WrongSnapshot
from pfsb.paxos.snapshot_rows import Row, RowReader, packed, pieces_of
from pfsb.support.values import value

HISTORY: Final = "history"
"""The section of the history. Its first row is (slot, digest of the history, time in milliseconds, lowest `made_at` of
an update that is still valid, number of clients); in an epoch above 0 the form of its members follows in that row
(`encode_members`). A row (client id, timestamp, slot) follows for each client in Last_Executed, in its order."""


@value
class History:
    """The history up to a slot, as far as later slots depend on it."""

    seq: int
    digest: bytes
    """The digest of the history up to the slot (Departure 40)."""
    time_ms: int
    oldest_valid: int
    timestamps: OrderedDict[str, tuple[int, int]]
    """Client id -> (timestamp of its latest executed update, slot of that update), least recently touched first, as in
    `LastExecuted`."""
    members: Members | None = None
    """The servers of the epoch after the slot (Departure 60); None: it is epoch 0."""

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the section `history`. Slots that are executed while the pieces are taken do not change
        them."""
        timestamps = [*self.timestamps.items()]
        head: tuple[Any, ...] = self.seq, self.digest, self.time_ms, self.oldest_valid, len(timestamps)
        if self.members is not None:
            head = (*head, encode_members(self.members))
        return pieces_of(HISTORY, _rows(head, timestamps))


def _rows(head: tuple[Any, ...], timestamps: list[tuple[str, tuple[int, int]]]) -> Iterator[Row]:
    yield packed(head), 1
    for client_id, (timestamp, seq) in timestamps:
        yield packed((client_id, timestamp, seq)), 1


@implementer(IRestorer)
@define(eq=False)
class HistoryRestorer:
    """Builds, from the pieces of a snapshot, the history, and by the state machine's own restorer the state."""

    machine: IRestorer
    _adopt: Callable[[History, IRestorer], None]
    """Puts the history, and then the state of the state machine, in the place of the present ones."""
    _reader: RowReader = field(factory=RowReader, init=False)
    _head: tuple[Any, ...] = field(default=(), init=False)
    _timestamps: OrderedDict[str, tuple[int, int]] = field(factory=OrderedDict, init=False)
    _ended: bool = field(default=False, init=False)

    @property
    def seq(self) -> int:
        """The slot of the snapshot; 0: its first piece was not taken yet."""
        return self._head[0] if self._head else 0

    def take(self, piece: Piece) -> None:
        """Take the next piece (`IRestorer.take`)."""
        if piece.section != HISTORY:
            self._require_history()
            self.machine.take(piece)
            return
        for row in self._reader.rows(piece.data):
            try:
                if self._head:
                    client_id, timestamp, seq = row
                    self._timestamps[client_id] = (timestamp, seq)
                else:
                    self._head = _checked(*row)
            except (TypeError, ValueError) as error:
                raise WrongSnapshot("its history has a row of another form") from error

    def end(self) -> bool:
        self._require_history()
        self._ended = self.machine.end()
        return self._ended

    def adopt(self) -> None:
        """Put all of the snapshot in the place of the present history and state (`IRestorer.adopt`)."""
        while not self._ended:
            self.end()
        seq, digest, time_ms, oldest_valid, _, members = self._head
        self._adopt(History(seq, digest, time_ms, oldest_valid, self._timestamps, members), self.machine)

    def _require_history(self) -> None:
        if not self._head or len(self._timestamps) != self._head[4]:
            raise WrongSnapshot("its history is not complete")
        self._reader.end()


def _checked(
    seq: int, digest: bytes, time_ms: int, oldest_valid: int, clients: int, form: bytes | None = None
) -> tuple[Any, ...]:
    if {*map(type, (seq, time_ms, oldest_valid, clients))} != {int} or type(digest) is not bytes:
        raise TypeError("a number or the digest is of another type")
    if seq < 1 or len(digest) != DIGEST_BYTES:
        raise TypeError("no slot, or a digest of another length")
    members = None if form is None else decode_members(form)
    if members is not None and not 0 < members.since <= seq:
        raise ValueError("its epoch begins behind it")
    return seq, digest, time_ms, oldest_valid, clients, members
