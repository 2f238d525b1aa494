"""Snapshots: those of one slot are equal on all servers, and a server restored from one is as if it had executed
the slots.

The checker does not trust the pieces of a snapshot to say what the state is. When a server freezes its state, the
checker gets a copy of that state, read from the server's own objects; when a server has been restored from a snapshot
of that slot, its objects must be equal to that copy. The bytes of the snapshots are compared besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from zope.interface import implementer

from pfsb.paxos.interfaces import IRestorer
from pfsb.paxos.snapshot import Piece, SnapshotDecoder, SnapshotName, WrongSnapshot
from pfsb.simulator.checkers.violation import Violation, require

Facts = Mapping[str, Any]
"""All that must be equal at all servers that have executed the same slots: name of a part of the state -> a copy of
it."""
Models = Mapping[str, Any]
"""The state of a server as far as the checkers around it know it by themselves: name of a checker -> a copy of its own
model."""


@define
class SnapshotChecker:
    """Checks the snapshots of all servers of a cluster, over all their incarnations."""

    names: dict[int, SnapshotName] = field(factory=dict)
    """Slot -> the name of the first snapshot of this slot that was complete on some disk."""
    facts: dict[int, Facts] = field(factory=dict)
    """Slot -> the state after it, as the first server had it that froze its state there."""
    models: dict[int, Models] = field(factory=dict)
    _contents: dict[int, bytes] = field(factory=dict)
    """Slot -> the bytes of the first snapshot."""

    def frozen(self, server_id: int, seq: int, facts: Facts, models: Models) -> None:
        """Take a copy of the state that a server has frozen after slot `seq`. Called when the slot is settled there."""
        known = self.facts.setdefault(seq, facts)
        _require_equal(known, facts, f"server {server_id} freezes another state after slot {seq} than others: its")
        self.models.setdefault(seq, models)

    def named(self, server_id: int, name: SnapshotName, data: bytes | None) -> None:
        """Check a snapshot that a record on the disk of server `server_id` names; `data` is what the disk holds as this
        snapshot, None if it holds none."""
        if data is None:
            raise Violation(f"server {server_id} notes the snapshot of slot {name.seq}, which is not on its disk")
        _require_whole(server_id, name, data)
        known = self.names.setdefault(name.seq, name)
        before = self._contents.setdefault(name.seq, data)
        if known != name or before != data:
            section = _first_difference(before, data)
            raise Violation(
                f"two servers have different snapshots of one slot, {name.seq}: that of server {server_id} differs "
                f"in {section}"
            )

    def restored(self, server_id: int, seq: int, facts: Facts) -> Models:
        """Check the state of a server that was restored from a snapshot of slot `seq`. Returns the models of the
        checkers around a server at that slot."""
        known = self.facts.get(seq)
        if known is None:
            raise Violation(f"server {server_id} is restored from a snapshot of slot {seq}, where no state was frozen")
        _require_equal(known, facts, f"server {server_id} is restored after slot {seq}, and differs in its")
        return self.models[seq]

    def part(self, server_id: int, name: SnapshotName, offset: int, data: bytes) -> None:
        """Check a part of a snapshot that a server sends; one without data says that it has no such snapshot."""
        if not data:
            return
        known = self._contents.get(name.seq)
        if known is None or self.names[name.seq] != name:
            raise Violation(f"server {server_id} sends a part of a snapshot that no server has: of slot {name.seq}")
        is_right = known[offset : offset + len(data)] == data
        require(is_right, f"server {server_id} sends other bytes than the snapshot of slot {name.seq} has there")


def _require_equal(known: Facts, found: Facts, text: str) -> None:
    for name, value in known.items():
        if found[name] != value:
            raise Violation(f"{text} {name}\n{found[name]!r}\n{value!r}")


def _require_whole(server_id: int, name: SnapshotName, data: bytes) -> None:
    decoder = SnapshotDecoder()
    try:
        for _ in decoder.feed(data):
            pass
    except WrongSnapshot as error:
        raise Violation(f"server {server_id} notes a snapshot of slot {name.seq} that is damaged: {error}") from error
    if not decoder.is_complete or decoder.name != name:
        raise Violation(f"server {server_id} notes a snapshot of slot {name.seq} that is not whole, or another one")


def _first_difference(one: bytes, other: bytes) -> str:
    """The section, in words, of the first piece in which two snapshots differ."""
    pieces = [list(SnapshotDecoder().feed(data)) for data in (one, other)]
    for first, second in zip(*pieces, strict=False):
        if first != second:
            sections = dict.fromkeys((first.section, second.section))
            return f"the section {' or '.join(sections)}\n{second.data[:1000]!r}\n{first.data[:1000]!r}"
    return f"the number of pieces, {len(pieces[1])} and {len(pieces[0])}, or in the head"


@implementer(IRestorer)
@define(eq=False)
class WatchedRestorer:
    """Passes all calls on to a restorer, and calls `adopted` when its state is in place."""

    _inner: Any
    _adopted: Callable[[], None]

    @property
    def seq(self) -> int:
        """The slot of the snapshot, of the restorer of an ordered update queue; 0: it is not known yet."""
        seq: int = self._inner.seq
        return seq

    def take(self, piece: Piece) -> None:
        self._inner.take(piece)

    def end(self) -> bool:
        return bool(self._inner.end())

    def adopt(self) -> None:
        self._inner.adopt()
        self._adopted()
