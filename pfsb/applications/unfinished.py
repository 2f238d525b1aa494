"""Values that arrive in parts, before they are whole; `pfsb.applications.instances` keeps them here.

A value that is too large for one command comes in several commands. Until its last part has come it is kept here, where
no question sees it. All limits count bytes that clients have announced, and all times are the state machine's: so every
server keeps and drops the same values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

from attrs import define, evolve, field, frozen

from pfsb.applications.interfaces import Refused

Key = tuple[str, int]
"""(client id of the session that sends the value, number of the instance that the value is proposed for)."""


@frozen
class Unfinished:
    """One unfinished value: the parts of it that had come at one moment. The next part makes another object."""

    size: int
    """Number of bytes that the whole value will have, as its client has announced."""
    touched_ms: int
    """The state machine's time, in milliseconds, when the latest part came."""
    began: int
    """The number of the value, in the order in which all values of this history began."""
    parts: list[bytes] = field(factory=list)
    """The parts of the value, and those that came later: parts are added to one list."""
    received: int = 0
    """Number of bytes in all parts so far."""

    def bytes_so_far(self) -> bytes:
        return b"".join(self.parts)[: self.received]


@define
class UnfinishedValues:
    """The unfinished values of all sessions. A session may have one for each instance, and `of_session_max` in all.

    A value occupies its whole size from its first part on. If each part asked for its own room, many values could fill
    the room together, and none of them would ever be finished.
    """

    bytes_max: int
    """Maximum number of bytes that all unfinished values occupy together."""
    of_session_max: int
    """Maximum number of unfinished values of one session."""
    idle_ms: int
    """How long, in milliseconds of the state machine's time, an unfinished value is kept after its latest part, even if
    another value needs the room."""
    bytes_used: int = 0
    begun: int = 0
    """Number of values that have begun so far."""
    _values: OrderedDict[Key, Unfinished] = field(factory=OrderedDict)
    """All unfinished values; first the one whose latest part came the longest time ago."""
    _instances: dict[str, dict[int, None]] = field(factory=dict)
    """Client id -> the instances for which the session has an unfinished value, in the order in which they began."""
    _sessions: dict[int, dict[str, None]] = field(factory=dict)
    """Instance -> the sessions that have an unfinished value for it."""

    def __len__(self) -> int:
        return len(self._values)

    def begin(self, key: Key, size: int, now_ms: int) -> Refused | None:
        """Begin an unfinished value of `size` bytes, in place of one that the session has for the same instance.

        Returns None, or the refusal if there is no room for it.
        """
        self.drop(key)
        of_session = self._instances.get(key[0], {})
        if len(of_session) >= self.of_session_max:
            instances = ", ".join(map(str, of_session))
            return Refused("BUSY", f"parts of {len(of_session)} values are here already: of instances {instances}")
        self._make_room(size, now_ms)
        if self.bytes_used + _charge(size) > self.bytes_max:
            used = f"{self.bytes_used} of {self.bytes_max} bytes"
            return Refused("BUSY", f"unfinished values occupy {used}, so one of {size} bytes has no room; try later")
        self.begun += 1
        self._add(key, Unfinished(size, now_ms, self.begun))
        return None

    def next_offset(self, key: Key, size: int) -> int:
        """The offset, in bytes, at which the next part of a value of `size` bytes must begin: the number of bytes that
        have come; 0 if no value of this key and size is unfinished here."""
        value = self._values.get(key)
        return 0 if value is None or value.size != size else value.received

    def add_part(self, key: Key, part: bytes, now_ms: int) -> bytes | None:
        """Add the next part to an unfinished value. Returns None if parts are still missing; otherwise returns the
        whole value, which is dropped from here."""
        value = self._values[key]
        value.parts.append(part)
        received = value.received + len(part)
        if received < value.size:
            self._values[key] = evolve(value, touched_ms=now_ms, received=received)
            self._values.move_to_end(key)
            return None
        self.drop(key)
        return b"".join(value.parts)

    def received(self, key: Key) -> int:
        return self._values[key].received

    def drop(self, key: Key) -> None:
        """Drop the unfinished value of this session for this instance, if there is one."""
        value = self._values.pop(key, None)
        if value is None:
            return
        self.bytes_used -= _charge(value.size)
        session, seq = key
        _remove(self._instances, session, seq)
        _remove(self._sessions, seq, session)

    def drop_session(self, session: str) -> None:
        """Drop all unfinished values of a session that has ended: nothing more comes of them."""
        for seq in tuple(self._instances.get(session, ())):
            self.drop((session, seq))

    def drop_instance(self, seq: int) -> None:
        """Drop all unfinished values for an instance, because it is decided or forgotten."""
        for session in tuple(self._sessions.get(seq, ())):
            self.drop((session, seq))

    @property
    def instances(self) -> Iterable[int]:
        """The instances for which there are unfinished values."""
        return self._sessions.keys()

    def items(self) -> list[tuple[Key, Unfinished]]:
        """All unfinished values; first the one whose latest part came the longest time ago. They do not change."""
        return [*self._values.items()]

    def clear(self, begun: int) -> None:
        """Drop all unfinished values, and go on as if `begun` values had begun."""
        for key in tuple(self._values):
            self.drop(key)
        self.begun = begun

    def put_back(self, key: Key, value: Unfinished) -> None:
        """Add the next one of the values that `items` has returned on another server."""
        self._add(key, value)
        instances = self._instances[key[0]]
        for seq in sorted(instances, key=lambda seq: self._values[key[0], seq].began):
            instances[seq] = instances.pop(seq)

    def _make_room(self, size: int, now_ms: int) -> None:
        """Make room for a value of `size` bytes: while there is none, drop the value whose latest part is oldest, if
        that part came at least `idle_ms` ago. There may be no room even then."""
        while self._values and self.bytes_used + _charge(size) > self.bytes_max:
            key, oldest = next(iter(self._values.items()))
            if oldest.touched_ms > now_ms - self.idle_ms:
                return
            self.drop(key)

    def _add(self, key: Key, value: Unfinished) -> None:
        session, seq = key
        self._values[key] = value
        self._instances.setdefault(session, {})[seq] = None
        self._sessions.setdefault(seq, {})[session] = None
        self.bytes_used += _charge(value.size)


A = TypeVar("A")
B = TypeVar("B")

VALUE_OVERHEAD_BYTES = 1_024
"""Number of bytes that each unfinished value is taken to occupy besides its own size, so that the number of values is
limited as well."""


def _charge(size: int) -> int:
    return size + VALUE_OVERHEAD_BYTES


def _remove(index: dict[A, dict[B, None]], key: A, member: B) -> None:
    members = index[key]
    del members[member]
    if not members:
        del index[key]
