"""The HTTP door of a server (docs/http.rst): connections, as many as there may be, and what they may send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web import http

from pfsb.applications.interfaces import Refused
from pfsb.frontends.http.answers import JSON_TYPE, encoded, error_content, status_of
from pfsb.frontends.http.arguments import path_segments
from pfsb.frontends.http.request import PfsbRequest
from pfsb.frontends.http.routes import find_handler
from pfsb.frontends.http.sessions import Sessions
from pfsb.frontends.stream.reply_queue import EndOfIteration

if TYPE_CHECKING:
    from pfsb.server import Server

IDLE_SECONDS: Final = 60
"""A connection on which no request comes is closed after so long."""
LEAVE_SECONDS: Final = 2.0
"""How long a client may take to read its last answer when the server stops."""


class Channel(http.HTTPChannel):
    """One connection."""

    factory: HTTPSite
    _counted = False

    def connectionMade(self) -> None:
        super().connectionMade()
        if len(self.factory.channels) >= self.factory.connections_max:
            self.cut_off(self.factory.full(), 503)
            return
        self._counted = True
        self.factory.channels[self] = None

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._counted:
            del self.factory.channels[self]
        super().connectionLost(reason)

    def requestFactory(self, *_: object) -> PfsbRequest:  # type: ignore[override]
        exchange = PfsbRequest(self)
        exchange.door = self.factory
        return exchange

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of thousands of digits
            self._respondToBadRequestAndDisconnect()
            return False

    def lineLengthExceeded(self, line: bytes) -> None:
        self.cut_off(Refused("TOOLARGE", f"request line and headers may have {self.totalHeadersSize} bytes together"))

    def cut_off(self, refused: Refused, status: int | None = None) -> None:
        """Answer out of turn, and end the connection: what the client sends on is not read."""
        status = status_of(refused) if status is None else status
        content = encoded(error_content(refused))
        headers = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Content-Type: {JSON_TYPE}",
            f"Content-Length: {len(content)}",
            f"Pfsb-Revision: {self.factory.server.revisions.told}",
            "Connection: close",
        )
        transport: Any = self.transport
        transport.write("".join(f"{line}\r\n" for line in (*headers, "")).encode() + content)
        self.factory.count("-", status)
        self.dataReceived = lambda data: None  # type: ignore[method-assign]
        self.setTimeout(None)
        self.loseConnection()
        self.callLater(LEAVE_SECONDS, partial(_abort, transport))

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted calls this for what is no HTTP."""
        self.cut_off(Refused("BADREQUEST", "that is no HTTP request that this server understands"))


def _abort(transport: Any) -> None:
    """If it still is there; a transport that is gone ignores it."""
    transport.abortConnection()


class HTTPSite(http.HTTPFactory):
    """Makes the connections of one server, and has what their requests share."""

    protocol = Channel  # type: ignore[assignment]
    noisy = False

    def __init__(self, server: Server, clock: IReactorTime, metrics: Callable[[], bytes]) -> None:
        """`metrics` renders the resource /metrics."""
        super().__init__(timeout=IDLE_SECONDS, reactor=clock)
        self.server = server
        self.clock = clock
        self.metrics = metrics
        self.turn = EndOfIteration(clock)
        self.sessions = Sessions(server, clock)
        self.channels: dict[Channel, None] = {}
        self.streams: dict[Callable[[], None], None] = {}
        """How to end the answers that have no end of their own."""
        self.answered: Counter[tuple[str, int]] = Counter()
        """By method and status."""
        self.connections_max = server.config.limits.connections
        self.body_bytes_max = server.config.limits.command_bytes

    def startFactory(self) -> None:
        """No access log: /metrics counts."""

    def log(self, request: http.Request) -> None:
        self.count(request.method.decode("latin-1"), request.code)

    def count(self, method: str, status: int) -> None:
        """Note an answer; a method that nobody knows must not make a counter of its own."""
        self.answered[method if method in _METHODS else "-", status] += 1

    def handle(self, exchange: PfsbRequest) -> None:
        """Find out what is asked for, and see to it. Raises `BadRequest`."""
        handler, words = find_handler(exchange.method, path_segments(exchange.uri))
        handler(exchange, *words)

    def leave(self) -> None:
        """The server stops: streams end, and connections, once what was to be said on them is written."""
        self.turn.hurry()
        for end in tuple(self.streams):
            end()
        for channel in tuple(self.channels):
            channel.loseConnection()
            channel.callLater(LEAVE_SECONDS, partial(_abort, channel.transport))

    def full(self) -> Refused:
        """What one connection too many is told."""
        text = f"this server has {self.connections_max} connections and takes no more; try another one"
        return Refused("BUSY", text)

    def too_large(self) -> Refused:
        return Refused("TOOLARGE", f"a body has at most {self.body_bytes_max} bytes")


_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})
