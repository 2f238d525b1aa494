"""The client port: two protocols behind one door, told apart by the first byte that a client sends.

A command of Redis begins with `*`, no line of ours does. Clients of Redis speak first, and would take a greeting for a
broken reply; people at a terminal wait for one. So it comes after a moment of silence, or at once to whoever speaks.
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
"""A person does not notice it; a client of Redis has long sent its first command."""
REDIS_BYTE: Final = b"*"


@implementer(IHalfCloseableProtocol)
class ClientPortProtocol(Protocol):
    """A connection, until it is known what it speaks; then it only hands on."""

    def __init__(self, factory: ClientPortFactory) -> None:
        self._factory = factory
        self._inner: StreamProtocol | None = None

    def connectionMade(self) -> None:
        self._factory.undecided.add(self)
        self._silence = self._factory.clock.callLater(SILENCE_SECONDS, self._listen_once_more)

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
            self._decided()
        else:
            self._inner.connectionLost(reason)

    def leave(self) -> None:
        """The server stops before a word was said."""
        transport: Any = self.transport
        transport.loseConnection()

    def _listen_once_more(self) -> None:
        """If this server was held up, what the client has said lies unread: the reactor reads before its next turn."""
        self._silence = self._factory.clock.callLater(0, self._speak_lines)

    def _speak_lines(self) -> None:
        self._begin(self._factory.line)

    def _begin(self, factory: LineFactory | RespFactory) -> StreamProtocol:
        self._decided()
        inner = self._inner = factory.buildProtocol(None)
        assert self.transport is not None
        inner.makeConnection(self.transport)
        return inner

    def _decided(self) -> None:
        self._factory.undecided.discard(self)
        if self._silence.active():
            self._silence.cancel()


class ClientPortFactory(Factory):
    """Makes the connections of one server's client port. Both protocols together have `limits.connections`."""

    noisy = False

    def __init__(self, server: Server, clock: IReactorTime) -> None:
        self.clock = clock
        self.line = LineFactory(server, clock)
        self._server = server
        self.undecided: set[ClientPortProtocol] = set()

    @cached_property
    def redis(self) -> RespFactory:
        """Loaded when the first client speaks it: a server that starts has missed something, and is in a hurry."""
        from pfsb.frontends.resp.protocol import RespFactory

        return RespFactory(self._server, self.clock, self.line)

    def buildProtocol(self, addr: IAddress | None) -> ClientPortProtocol:
        return ClientPortProtocol(self)

    def leave(self) -> None:
        """The server stops: every connection is closed, once what was to be said to it is written."""
        for connection in list(self.undecided):
            connection.leave()
        self.line.leave()
