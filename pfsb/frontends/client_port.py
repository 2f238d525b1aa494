"""ClientPortFactory: two protocols on one port, told apart by the first byte that a client sends.

A command of Redis begins with `*`, and no request of the line protocol does. A client of Redis sends first, and would
take a greeting for a broken reply; people at a terminal wait for a greeting. So the server decides for the Redis
protocol, and sends no greeting, if the client's first byte is `*`. It decides for the line protocol, and greets the
client, if the first byte is another one, or if the client has sent nothing for `SILENCE_SECONDS`. Ends of lines in
front of the first byte do not count, as in Redis.

A connection never changes its protocol. A client of Redis that sends its first command after the greeting would take
the greeting for the reply to that command, and each reply for that of the next one. So when a command of Redis comes to
a connection that was greeted, none of its bytes is run, and the connection is closed (`pfsb.frontends.line.foreign`).
Clients that connect long before their first command use a port of their own, at which no client is greeted
(`RedisPortFactory`).

Redis also takes some commands as plain lines, such as the `PING` of `redis-benchmark`. Here they are lines of the line
protocol. A client of Redis looks for a CRLF at the end of each reply, and would wait for ever for that of a greeting
that ends with LF. So a client whose first line ends with CRLF gets a greeting that ends so, too: a client of Redis then
reports a broken reply and ends, and to other clients the CR is white space at the end of a line.
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
    from pfsb.frontends.resp.protocol import RespFactory, RespProtocol
    from pfsb.frontends.stream.shared_limits import SharedLimits

SILENCE_SECONDS: Final = 0.1
"""How long, in seconds, a new client may send nothing before it is greeted as a client of the line protocol.

A person does not notice the delay, and a client of Redis has sent its first command by then.
"""
REDIS_BYTE: Final = b"*"
_LINE_ENDS: Final = b"\r\n\0"


@implementer(IHalfCloseableProtocol)
class ClientPortProtocol(Protocol):
    """One connection to the client port. Once its protocol is known, all events are passed on to a `StreamProtocol`."""

    def __init__(self, factory: ClientPortFactory) -> None:
        self._factory = factory
        self._inner: StreamProtocol | None = None

    def connectionMade(self) -> None:
        self._factory.undecided.add(self)
        self._silence = self._factory.clock.callLater(SILENCE_SECONDS, self._wait_for_unread_bytes)

    def dataReceived(self, data: bytes) -> None:
        inner = self._inner
        if inner is None:
            data = data.lstrip(_LINE_ENDS)
            if not data:
                return
            is_redis = data[:1] == REDIS_BYTE
            inner = self._begin(self._factory.redis.buildProtocol(None)) if is_redis else self._begin_lines(data)
        inner.dataReceived(data)

    def readConnectionLost(self) -> None:
        (self._inner or self._begin_lines()).readConnectionLost()

    def writeConnectionLost(self) -> None:
        if self._inner is not None:
            self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 (Twisted's signature)
        if self._inner is None:
            self._end_silence()
        else:
            self._inner.connectionLost(reason)

    def leave(self) -> None:
        """Called when the server stops while the protocol of this connection is still unknown: closes the
        connection."""
        transport: Any = self.transport
        transport.loseConnection()

    def _wait_for_unread_bytes(self) -> None:
        """Waits for one more iteration of the reactor before the client is taken for silent.

        If this server was delayed, the client's first bytes may have arrived without having been read.
        """
        self._silence = self._factory.clock.callLater(0, self._begin_lines)

    def _begin_lines(self, data: bytes = b"") -> StreamProtocol:
        """Begins the line protocol on this connection. `data` are the first bytes of the client, if any have come."""
        inner = self._factory.line.buildProtocol(None)
        inner.is_greeted_with_crlf = data.partition(b"\n")[0].endswith(b"\r")
        return self._begin(inner)

    def _begin(self, inner: StreamProtocol) -> StreamProtocol:
        self._end_silence()
        self._inner = inner
        assert self.transport is not None
        inner.makeConnection(self.transport)
        return inner

    def _end_silence(self) -> None:
        self._factory.undecided.discard(self)
        if self._silence.active():
            self._silence.cancel()


class ClientPortFactory(Factory):
    """Makes the connections of one server's client port. The maximum `limits.connections` of the configuration holds
    for the connections of both protocols together."""

    noisy = False

    def __init__(self, server: Server, clock: IReactorTime, shared: SharedLimits | None = None) -> None:
        """`shared` are the limits that this port shares with the other doors of the server; None: the port is the only
        door, and makes limits of its own."""
        self.clock = clock
        self.line = LineFactory(server, clock, shared)
        self._server = server
        self.undecided: set[ClientPortProtocol] = set()

    @cached_property
    def redis(self) -> RespFactory:
        """The factory for connections that speak the Redis protocol.

        Its code is imported when the first client needs it, so that servers start, and take part in fail-over, sooner.
        """
        from pfsb.frontends.resp.protocol import RespFactory

        return RespFactory(self._server, self.clock, self.line.verbs, self.line)

    def buildProtocol(self, addr: IAddress | None) -> ClientPortProtocol:
        return ClientPortProtocol(self)

    def leave(self) -> None:
        """Called when the server stops: closes the connections of both protocols, each once the output that is ready
        for it was written."""
        for connection in list(self.undecided):
            connection.leave()
        self.line.leave()


class RedisPortFactory(Factory):
    """Makes the connections of a port that speaks the Redis protocol alone, and greets no client.

    The limits of the client port (`ClientPortFactory`) hold for the connections of both ports together. When the server
    stops, `ClientPortFactory.leave` closes the connections of both ports.
    """

    noisy = False

    def __init__(self, client_port: ClientPortFactory) -> None:
        self._client_port = client_port

    def buildProtocol(self, addr: IAddress | None) -> RespProtocol:
        return self._client_port.redis.buildProtocol(addr)
