"""UnreadOutput: bounds the bytes that all clients of a server together leave unread, and the time for which one client
may read nothing.

A client that does not read costs memory: the replies that are made for it, and the results that wait behind them. Each
connection is bounded by itself; here the sum over all connections is bounded, since there may be thousands. If it
exceeds `limits.unread_bytes`, clients are dropped: first those of the address whose clients hold the most, and among
these first the one that has waited the longest time. And a client that has read nothing for `limits.unread_seconds` is
dropped in any case.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections import Counter
from contextlib import suppress
from typing import Any, Final, Protocol

from attrs import define, field
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

LOOK_SECONDS: Final = 1.0
"""Time, in seconds, between two looks whether the clients that do not read have read something."""
LOG_SECONDS: Final = 10.0
"""Time, in seconds, between two lines of the log about dropped clients: there may be thousands of these."""
UNSENT_BYTES_MAX: Final = 131_072
"""Number of bytes, at most, that the kernel keeps of a connection's output before it has sent them. Without the limit
it keeps megabytes for each client that does not read."""

_NOT_SENT: Final[int] = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
"""Number of the socket option that sets `UNSENT_BYTES_MAX`. Python knows the option by its name from version 3.12
on."""

SILENT: Final = "silent"
CROWDED: Final = "crowded"
_TEXTS: Final = {
    SILENT: "read nothing of their replies for {seconds:g} s (limits.unread_seconds)",
    CROWDED: "left replies unread, and all unread replies together took more than {bytes} bytes (limits.unread_bytes)",
}
"""Reason for which clients are dropped -> how the log, and the dropped clients, are told of it."""


class Reader(Protocol):
    """A connection of a client that may leave replies unread."""

    address: str
    """Where the client is (`pfsb.frontends.stream.addresses.address_of`)."""

    def bytes_to_read(self) -> int:
        """Number of bytes that are written and that the client has not taken yet (`bytes_under_way`)."""

    def drop(self, reason: str, *, at_once: bool) -> None:
        """Ends the connection, without waiting for the client if `at_once`. `reason` is a sentence for a person, which
        the client is told if there is a place for it in its protocol."""


@define
class _Unread:
    """A client that does not read."""

    bytes_left: int
    """The value of `Reader.bytes_to_read` at the last look."""
    since: float
    """The time, in seconds, of the last look at which `bytes_left` had become smaller; at first, when the client
    stopped reading."""


@define(eq=False)
class UnreadOutput:
    """The unread output of all clients of one server, at all of its doors."""

    _clock: IReactorTime
    bytes_max: int
    seconds_max: float
    held_bytes: int = field(init=False, default=0)
    """Number of bytes that are held for all clients together."""
    dropped: Counter[str] = field(init=False, factory=Counter)
    """Reason -> number of clients that were dropped for it."""
    _held: dict[str, dict[Reader, int]] = field(init=False, factory=dict)
    """Address -> the number of bytes that are held for each client there. The first of these clients is the one for
    which bytes have been held for the longest time."""
    _held_of: dict[str, int] = field(init=False, factory=dict)
    """Address -> the bytes that are held for all of its clients."""
    _unread: dict[Reader, _Unread] = field(init=False, factory=dict)
    _next_look: IDelayedCall | None = field(init=False, default=None)
    _logged: Counter[str] = field(init=False, factory=Counter)
    _logged_at: float = field(init=False, default=float("-inf"))
    _log = Logger()

    def hold(self, reader: Reader, held_bytes: int) -> None:
        """Notes that `held_bytes` bytes are held in memory for a client from now on; 0: none. If all clients together
        hold too many then, drops clients, `reader` perhaps among them."""
        self._set(reader, held_bytes)
        while self.held_bytes > self.bytes_max and (victim := self._victim()) is not None:
            self._drop(victim, CROWDED)

    def _set(self, reader: Reader, held_bytes: int) -> None:
        address = reader.address
        held = self._held.setdefault(address, {})
        change = held_bytes - held.get(reader, 0)
        if held_bytes:
            held[reader] = held_bytes
        else:
            held.pop(reader, None)
            if not held:
                del self._held[address]
        self.held_bytes += change
        self._held_of[address] = self._held_of.get(address, 0) + change
        if not self._held_of[address]:
            del self._held_of[address]

    def stops_reading(self, reader: Reader) -> None:
        """Called when a client does not read, so that output waits for it: from now on it is looked at every
        `LOOK_SECONDS`.

        Twisted calls again at each further write: the client was silent before, so its time does not begin anew.
        """
        if reader in self._unread:
            return
        self._unread[reader] = _Unread(reader.bytes_to_read(), self._clock.seconds())
        if self._next_look is None:
            self._next_look = self._clock.callLater(LOOK_SECONDS, self._look)

    def reads(self, reader: Reader) -> None:
        """Called when no output waits for a client any more: it is not looked at from now on."""
        self._unread.pop(reader, None)

    def forget(self, reader: Reader) -> None:
        """Called when the connection of a client has ended: nothing is counted for it any more."""
        self.reads(reader)
        self._set(reader, 0)

    def _victim(self) -> Reader | None:
        """The client to be dropped next: of the clients that do not read, at the address that holds the most bytes, the
        one that has waited for the longest time.

        If all clients read, it is one of the address that holds the most bytes, but only when more than twice
        `bytes_max` is held: what clients that read hold will be gone in a moment. None: no client is to be dropped.
        """
        for address in sorted(self._held_of, key=self._held_of.__getitem__, reverse=True):
            for reader in self._held[address]:
                if reader in self._unread:
                    return reader
        if self.held_bytes <= 2 * self.bytes_max:
            return None
        return next(iter(self._held[max(self._held_of, key=self._held_of.__getitem__)]))

    def _look(self) -> None:
        """Drops the clients that have read nothing for `seconds_max`. Called every `LOOK_SECONDS` while clients do not
        read."""
        now = self._clock.seconds()
        for reader, unread in list(self._unread.items()):
            left = reader.bytes_to_read()
            has_read = left < unread.bytes_left
            unread.bytes_left = left  # the number has grown if the server has written more
            if has_read:
                unread.since = now
            elif now - unread.since >= self.seconds_max:
                self._drop(reader, SILENT)
        self._next_look = self._clock.callLater(LOOK_SECONDS, self._look) if self._unread else None
        self._tell()

    def _drop(self, reader: Reader, why: str) -> None:
        self.reads(reader)
        self.dropped[why] += 1
        self._tell()
        is_crowded = why == CROWDED
        if is_crowded:
            self._set(reader, 0)
        reader.drop(f"clients are dropped here that {self._text(why)}", at_once=is_crowded)

    def _text(self, why: str) -> str:
        return _TEXTS[why].format(seconds=self.seconds_max, bytes=self.bytes_max)

    def _tell(self) -> None:
        """Writes a line to the log for each reason for which clients were dropped since the last such lines; at most
        every `LOG_SECONDS`."""
        if self.dropped != self._logged and self._clock.seconds() - self._logged_at >= LOG_SECONDS:
            self._logged_at = self._clock.seconds()
            for why, count in (self.dropped - self._logged).items():
                self._log.warn("dropped {count} clients that {text}", count=count, text=self._text(why))
            self._logged = Counter(self.dropped)


def bound_unsent_bytes(transport: Any) -> None:
    """Lets the kernel keep no more than `UNSENT_BYTES_MAX` bytes of output that it cannot send yet on a TCP connection.
    Does nothing for other connections."""
    with suppress(OSError):
        transport.getHandle().setsockopt(socket.IPPROTO_TCP, _NOT_SENT, UNSENT_BYTES_MAX)


def bytes_under_way(transport: Any) -> int:
    """Number of bytes that were given to a transport of Twisted and that the client's machine has not acknowledged yet.

    Bytes in the kernel are left out where they cannot be told: if the transport is no socket, or is closed.
    """
    left = unsent_bytes(transport)
    try:
        answer = fcntl.ioctl(transport.getHandle().fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (AttributeError, OSError, TypeError, ValueError):
        return left
    return left + int(struct.unpack("i", answer)[0])


def unsent_bytes(transport: Any) -> int:
    """Number of bytes that a transport of Twisted holds itself, since the kernel has not taken them yet."""
    buffer = getattr(transport, "dataBuffer", b"")
    return len(buffer) - getattr(transport, "offset", 0) + getattr(transport, "_tempDataLen", 0)


def forget_unsent_bytes(transport: Any) -> None:
    """Frees the bytes that a transport of Twisted holds whose connection has ended.

    Transport and protocol refer to each other, and a server collects such garbage seldom: until then, thousands of
    dropped clients would cost more than `UnreadOutput` lets them hold.
    """
    if isinstance(transport, FileDescriptor) and transport.disconnected:
        transport.dataBuffer, transport.offset = b"", 0
        transport._tempDataBuffer, transport._tempDataLen = [], 0
