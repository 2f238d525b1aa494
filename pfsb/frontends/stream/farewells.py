"""Farewells: connections that end while their clients may still send.

If a socket is closed with bytes in it that were not read, or if more arrive, the kernel resets the connection, and the
client may lose the last reply, which says why the connection ends. So this server closes its side behind the last
reply, and reads and discards until the client closes its own side, for a bounded time and a bounded number of bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Connection

DISCARD_SECONDS: Final = 2.0
"""How long, in seconds, bytes of a client are discarded after its last reply has left."""
DISCARD_BYTES: Final = 8 * 1024 * 1024
"""Maximum number of bytes of a client that are discarded, which costs some milliseconds."""
FAREWELLS_MAX: Final = 256
"""Maximum number of connections of a server that end in this way at the same time; further ones are closed at once."""


class Farewells:
    """The farewells of all doors of one server."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.under_way = 0

    def begin(self, transport: Any, abort: Callable[[], None]) -> Farewell | None:
        """Close this side of a connection when all that was written has left, and go on reading.

        `abort` is called when the client sends too much, or for too long. Returns None, without any effect, if the
        caller must close the connection at once: there are too many farewells already, or the transport is none that
        can be closed on one side. TLS needs no farewell: it closes a connection only after both sides have said so.
        """
        if not isinstance(transport, Connection) or transport.TLS or self.under_way >= FAREWELLS_MAX:
            return None
        self.under_way += 1
        transport.loseWriteConnection()
        transport.resumeProducing()
        return Farewell(self, self._clock, transport, abort)


@define(eq=False)
class Farewell:
    """One connection that ends. The protocol of the connection passes its events on."""

    _all: Farewells
    _clock: IReactorTime
    _transport: Any
    _abort: Callable[[], None]
    _discarded: int = field(init=False, default=0)
    _call: IDelayedCall | None = field(init=False, default=None)

    def discard(self, data: bytes) -> None:
        """Called with bytes of the client."""
        self._discarded += len(data)
        if self._discarded > DISCARD_BYTES:
            self._abort()

    def written(self) -> None:
        """Called when the last reply has left, and this side is closed."""
        if self._call is None:
            self._call = self._clock.callLater(DISCARD_SECONDS, self._abort)

    def client_has_closed(self) -> None:
        """Called when the client has closed its side: nothing is left to be read."""
        self._transport.loseConnection()

    def over(self) -> None:
        """Called when the connection is gone."""
        self._all.under_way -= 1
        if self._call is not None and self._call.active():
            self._call.cancel()
