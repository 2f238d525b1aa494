"""ClientPortFactory: two protocols on one port, told apart by the first byte that a client sends.

A command of Redis begins with `*`, and no request of the line protocol does. Clients of Redis send first, and would
take a greeting for a broken reply; people at a terminal wait for a greeting. So a client of the line protocol is
greeted when it has sent its first byte, or when it has been silent for a moment.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.frontends.line.protocol import LineFactory
from pfsb.frontends.stream.protocol import StreamProtocol
from pfsb.server import Server

if TYPE_CHECKING:
    from pfsb.frontends.resp.protocol import RespFactory

SILENCE_SECONDS: Final = 0.1
"""How long a client may be silent before it is greeted: unnoticed by a person, and long for a client of Redis."""
REDIS_BYTE: Final = b"*"


@implementer(IHalfCloseableProtocol)
class ClientPortProtocol(Protocol):
    """One connection. Once its protocol is known, this class only passes on the events of the transport."""

    def __init__(self, factory: ClientPortFactory) -> None:
        self._factory = factory
        self._inner: StreamProtocol | None = None

    def connectionMade(self) -> None:
        self._factory.undecided.add(self)
        self._silence = self._factory.clock.callLater(SILENCE_SECONDS, self._wait_for_unread_bytes)

    def dataReceived(self, data: bytes) -> None:
        inner = self._inner or self._begin(self._factory.redis if data[:1] == REDIS_BYTE else self._factory.line)
        inner.dataReceived(data)

    def readConnectionLost(self) -> None:
        (self._inner or self._begin(self._factory.line)).readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self._inner is not None:
            self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 (Twisted's signature)
        if self._inner is None:
            self._end_silence()
        else:
            self._inner.connectionLost(reason)

    def leave(self) -> None:
        """The server stops before the client has sent anything."""
        transport: Any = self.transport
        transport.loseConnection()

    def _wait_for_unread_bytes(self) -> None:
        """Waits one more iteration: if this server was delayed, the client's first bytes may not have been read yet."""
        self._silence = self._factory.clock.callLater(0, self._begin_lines)

    def _begin_lines(self) -> None:
        self._begin(self._factory.line)

    def _begin(self, factory: LineFactory | RespFactory) -> StreamProtocol:
        self._end_silence()
        inner = self._inner = factory.buildProtocol(None)
        assert self.transport is not None
        inner.makeConnection(self.transport)
        return inner

    def _end_silence(self) -> None:
        self._factory.undecided.discard(self)
        if self._silence.active():
            self._silence.cancel()


class ClientPortFactory(Factory):
    """Makes the connections of one server's client port. `limits.connections` holds for both protocols together."""

    noisy = False

    def __init__(self, server: Server, clock: IReactorTime) -> None:
        self.clock = clock
        self.line = LineFactory(server, clock)
        self._server = server
        self.undecided: set[ClientPortProtocol] = set()

    @cached_property
    def redis(self) -> RespFactory:
        """Imported when the first client speaks Redis: the time in which a server starts counts towards fail-over."""
        from pfsb.frontends.resp.protocol import RespFactory

        return RespFactory(self._server, self.clock, self.line.verbs, self.line)

    def buildProtocol(self, addr: IAddress | None) -> ClientPortProtocol:
        return ClientPortProtocol(self)

    def leave(self) -> None:
        """The server stops: every connection writes the output that there is, and is closed."""
        for connection in list(self.undecided):
            connection.leave()
        self.line.leave()
