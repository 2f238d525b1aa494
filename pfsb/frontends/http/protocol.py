"""The HTTP port of a server: makes connections, and limits their number and the size of requests. See docs/http.rst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

from pfsb.applications.interfaces import BadRequest, Refused
from pfsb.frontends.http.answers import CHALLENGES, JSON_TYPE, NotAllowed, encoded, error_content, status_of
from pfsb.frontends.http.arguments import path_segments
from pfsb.frontends.http.request import PfsbRequest
from pfsb.frontends.http.routes import COMMANDS, WITH_ARGUMENTS, find_handler, refuse_conditions
from pfsb.frontends.http.sessions import HTTPSessions
from pfsb.frontends.http.web_pages import OwnNames
from pfsb.frontends.line.help import ALWAYS
from pfsb.frontends.rights import ClientRights
from pfsb.frontends.stream.addresses import LOCAL, address_of
from pfsb.frontends.stream.farewells import Farewell
from pfsb.frontends.stream.hang_ups import PAUSED_LOOK_SECONDS, HangUp, hang_up_of, notice_vanished_machine
from pfsb.frontends.stream.protocol import too_many_connections, too_many_of_one_address
from pfsb.frontends.stream.reply_queue import refusal
from pfsb.frontends.stream.shared_limits import SharedLimits
from pfsb.frontends.stream.unread import bound_unsent_bytes, bytes_under_way, forget_unsent_bytes, unsent_bytes
from pfsb.support.rights import Right

if TYPE_CHECKING:
    from pfsb.server import Server

HOW_TO_SHOW: Final = "send one in the header Authorization: Bearer TOKEN"
"""How a client shows a token over HTTP, as the end of a sentence."""
IDLE_SECONDS: Final = 60
"""How long, in seconds, a connection may be without a request before it is closed."""
LEAVE_SECONDS: Final = 2.0
"""How long, in seconds, a client may take to read its last answer before a connection that ends is aborted."""

_log = Logger()


@implementer(IHalfCloseableProtocol)
class Channel(http.HTTPChannel):
    """One HTTP connection of a client, whose requests are `PfsbRequest`.

    A client that has closed its sending side may still read, so it gets the answers to its requests. But the server
    cannot tell such a client from one that is gone. So the connection is ended when an answer takes longer than any
    answer may, except that to a request which waits for a lock.
    """

    factory: HTTPSite
    _counted = False
    _client_is_done = False
    """True once the client has closed its side, and all that it has sent was read."""
    _end_of_answers: IDelayedCall | None = None
    """The delayed call that ends the connection of a client that has closed its side; None for all others."""
    address = LOCAL
    """Where the client is (`address_of`)."""
    rights: ClientRights
    """The rights of the client: after a request that has shown a token, those of the token."""
    _end_of_refusal: IDelayedCall | None = None
    """The delayed call that ends the connection of a client that does not read its refusal (`cut_off`)."""
    is_cut_off = False
    """True once a refusal was written that ends the connection (`cut_off`): nothing is answered any more."""
    _farewell: Farewell | None = None
    """The end of the connection, if the client may still send; None before the end, and if it is closed at once."""
    _output_is_full = False
    _waiting: Callable[[], None] | None = None
    """The function that handles the next request when the client reads again (`when_client_reads`); None if no request
    waits for that."""
    _next_look: IDelayedCall | None = None
    """The next delayed call that looks whether the client is still there; None while Twisted reads everything that
    arrives."""

    def connectionMade(self) -> None:
        try:
            self._begin()
        except Exception as error:  # Twisted itself would leave the connection open
            self.fail(error)

    def _begin(self) -> None:
        """Lets the client connect, or refuses it if there are too many connections."""
        super().connectionMade()
        self.address = address_of(self.transport)
        self.rights = self.factory.shared.rights.of_client(self.transport, self.address, HOW_TO_SHOW, self._lose_rights)
        self.opened: set[str] = set()
        """Client ids for which requests of this connection have opened sessions; see `HTTPSessions.enter`."""
        if len(self.factory.channels) >= self.factory.connections_max:
            self.cut_off(too_many_connections(self.factory.server), 503)
            return
        if not self.factory.shared.addresses.connects(self.address):
            self.cut_off(too_many_of_one_address(self.factory.server), 503)
            return
        self._counted = True
        self.factory.channels[self] = None
        if ITCPTransport.providedBy(self.transport):
            notice_vanished_machine(self.transport)
            bound_unsent_bytes(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Called by Twisted with bytes of the client.

        While a request is unanswered and more bytes arrive, Twisted may stop reading, and then does not notice when the
        client hangs up. A request that waits for a lock would keep the session of a client that is gone, as long as it
        waits. So from then on the connection is looked at every `PAUSED_LOOK_SECONDS`.
        """
        if self._farewell is not None:
            self._farewell.discard(data)
            return
        if self.requests and self._next_look is None:
            self._next_look = self.callLater(PAUSED_LOOK_SECONDS, self._look)
        super().dataReceived(data)

    def _look(self) -> None:
        """Ends the connection if its client has hung up. Called again and again while requests are unanswered."""
        self._next_look = None
        hang_up = hang_up_of(self.transport)
        if hang_up is HangUp.GONE:
            _abort(self.transport)
        elif hang_up is HangUp.CLOSED_ITS_SIDE:
            self._await_last_answers()
        elif self.requests:
            self._next_look = self.callLater(PAUSED_LOOK_SECONDS, self._look)

    def readConnectionLost(self) -> None:
        """Called by Twisted when the client has closed its side, and again when Twisted tries to read on."""
        self._client_is_done = True
        if self._farewell is not None:
            self._farewell.client_has_closed()
        elif self._handlingRequest:
            self._await_last_answers()
        else:
            self._end_when_read()

    def writeConnectionLost(self) -> None:
        """Called by Twisted when this side of the connection is closed behind the last answer."""
        if self._farewell is not None:
            self._farewell.written()

    def loseConnection(self) -> None:
        """Called by Twisted and by this class to end the connection behind what was written. Bytes that the client
        still sends are read for a while (`Farewells`), so that it does not lose its last answer."""
        if self._farewell is not None:
            return
        transport: Any = self.transport
        producer: Any = self._networkProducer
        producer.unregisterProducer()
        if not self._client_is_done:
            self._farewell = self.factory.shared.farewells.begin(transport, partial(_abort, transport))
        if self._farewell is None:
            transport.loseConnection()
        else:
            # Twisted goes on parsing what has arrived until it is told to pause, or the transport is being closed.
            self.paused = True
            self.clearLineBuffer()
            self.setTimeout(None)

    def _await_last_answers(self) -> None:
        """Called when the client has closed its sending side. Ends the connection when the time for the answers to its
        requests is over (`_answer_seconds`). Ends it at once if the client follows a stream of events, since a stream
        has no last event."""
        if any(request.is_stream for request in self.requests):
            _abort(self.transport)
        elif self._end_of_answers is None:
            for request in self.requests:
                request.client_closed_its_side()
            self._end_of_answers = self.callLater(self._answer_seconds, self._answers_are_late)

    def _answers_are_late(self) -> None:
        """Ends the connection of a client that has closed its side. If the next request waits for the client to read,
        does nothing: `UnreadOutput` ends the connection then."""
        if self._output_is_full:
            self._end_of_answers = self.callLater(self._answer_seconds, self._answers_are_late)
        else:
            _abort(self.transport)

    def _begin_time_of_answer(self) -> None:
        if self._end_of_answers is not None and self._end_of_answers.active():
            self._end_of_answers.reset(self._answer_seconds)

    def _end_when_read(self) -> None:
        """Ends the connection when the client has read its last answer, however long that takes, or reads no more."""
        self._leave_end_to_reading()
        self.loseConnection()

    def _leave_end_to_reading(self) -> None:
        """Called when the last answer is written to a client that has closed its side: ends the connection when the
        client has read all answers, or reads no more."""
        if self._end_of_answers is not None and self._end_of_answers.active():
            self._end_of_answers.cancel()
        if unsent_bytes(self.transport):
            self.factory.shared.unread.stops_reading(self)

    @property
    def _answer_seconds(self) -> float:
        """Maximum time, in seconds, for an answer to be made and read by the client. An answer that waits for a lock
        may take longer."""
        return self.factory.server.config.limits.request_seconds + LEAVE_SECONDS

    def requestDone(self, request: http.Request) -> None:
        """Called by Twisted when a request is answered: begins with the next one, if it has arrived."""
        super().requestDone(request)
        self._begin_time_of_answer()
        if not self.persistent:  # Twisted ends the connection
            if self._end_of_answers is not None:
                self._leave_end_to_reading()
        elif self._client_is_done and not self._handlingRequest:
            self._end_when_read()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        for call in (self._next_look, self._end_of_answers, self._end_of_refusal):
            if call is not None and call.active():
                call.cancel()
        self._next_look = None
        self._waiting = None
        if self._farewell is not None:
            self._farewell.over()
            self._farewell = None
        self.factory.shared.unread.forget(self)
        forget_unsent_bytes(self.transport)
        if self._counted:
            del self.factory.channels[self]
            self.factory.shared.addresses.disconnects(self.address)
            self.rights.end()
        super().connectionLost(reason)

    # ------------------------------------------------------------------ clients that do not read

    def pauseProducing(self) -> None:
        """Called by the transport when the client does not read: no further request is handled until it does."""
        self._output_is_full = True
        super().pauseProducing()
        self.factory.shared.unread.stops_reading(self)
        self.factory.shared.unread.hold(self, unsent_bytes(self.transport))

    def resumeProducing(self) -> None:
        self._output_is_full = False
        self.factory.shared.unread.reads(self)
        self.factory.shared.unread.hold(self, 0)
        self._begin_time_of_answer()
        super().resumeProducing()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()

    def when_client_reads(self, handle: Callable[[], None]) -> None:
        """Calls `handle`, a function without arguments that handles a request: at once if the client reads, else when
        it reads again.

        Twisted would handle pipelined requests whether or not their answers can be sent, and keep all answers in
        memory.
        """
        if self._output_is_full:
            self._waiting = handle
        else:
            handle()

    def bytes_to_read(self) -> int:
        return bytes_under_way(self.transport)

    def drop(self, reason: str, *, at_once: bool) -> None:
        """Ends the connection at once, whatever `at_once` says, since its client does not read. The client is not told
        the reason, which is in the server's log: there is no place for it amid an answer."""
        _abort(self.transport)

    def fail(self, error: Exception) -> None:
        """Aborts the connection after a mistake of this server with it, which is logged: its client would wait for an
        answer for ever."""
        _log.failure("a connection is aborted after a mistake of this server", Failure(error))
        _abort(self.transport)

    def _lose_rights(self, why: str) -> None:
        """Aborts the connection, since the token that its last request has shown is worth less than it was: a stream
        ends, and so does a request that waits for a lock."""
        _abort(self.transport)

    # ------------------------------------------------------------------ requests

    def requestFactory(self, *_: object) -> PfsbRequest:  # type: ignore[override]
        request = PfsbRequest(self)
        request.site = self.factory
        return request

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # raised for a Content-Length of thousands of digits
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """Called by Twisted between the head and the body of a request.

        A client may wait for `100 Continue` before it sends the body. Twisted sends it to each such client; here a
        client whose request is refused anyway gets the refusal instead, and the connection ends, since the server
        cannot tell whether the body comes all the same (RFC 9110, section 10.1.1).
        """
        request = self.requests[-1]
        expected = request.requestHeaders.getRawHeaders(b"Expect") or []
        if self.length != 0 and self._version == b"HTTP/1.1" and expected and expected[0].lower() == b"100-continue":
            try:
                if self.length is not None and self.length > self.factory.body_bytes_max:
                    raise BadRequest(self.factory.too_large().text, "TOOLARGE")
                request.check_head(self._command, self._path, self._version)
            except Exception as error:
                refused = refusal(error)
                more = (f"Allow: {error.allowed}",) if isinstance(error, NotAllowed) else ()
                if refused.code in CHALLENGES:
                    more = (f"WWW-Authenticate: {CHALLENGES[refused.code]}",)
                self.cut_off(refused, more=more)
                return
        super().allHeadersReceived()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.cut_off(Refused("TOOLARGE", f"request line and headers may have {self.totalHeadersSize} bytes together"))

    def cut_off(self, refused: Refused, status: int | None = None, more: Iterable[str] = ()) -> None:
        """Write a refusal at once, with `more` headers, and end the connection without reading any more from it.

        The refusal does not wait for the answers to earlier requests of the connection. Does nothing if it was called
        before: Twisted still parses what had arrived by then.
        """
        if self.is_cut_off:
            return
        self.is_cut_off = True
        status = status_of(refused) if status is None else status
        content = encoded(error_content(refused))
        headers = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Content-Type: {JSON_TYPE}",
            f"Content-Length: {len(content)}",
            f"Pfsb-Revision: {self.factory.server.revisions.told}",
            "Connection: close",
            *more,
        )
        transport: Any = self.transport
        transport.write("".join(f"{line}\r\n" for line in (*headers, "")).encode() + content)
        self.factory.count("-", status)
        self.setTimeout(None)
        self.loseConnection()
        if self._farewell is None:
            self.dataReceived = lambda data: None  # type: ignore[method-assign]
        self._end_of_refusal = self.callLater(LEAVE_SECONDS, partial(_abort, transport))

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Called by Twisted: refuse bytes that are no HTTP request."""
        self.cut_off(Refused("BADREQUEST", "that is no HTTP request that this server understands"))


def _abort(transport: Any) -> None:
    """Close a connection without waiting for the client to read. Does nothing if the connection is closed."""
    transport.abortConnection()


class HTTPSite(http.HTTPFactory):
    """Makes the `Channel`, the protocol object, of each HTTP connection to one server, and holds what all requests of
    these connections share (`request.Site`)."""

    protocol = Channel  # type: ignore[assignment]
    noisy = False

    def __init__(
        self, server: Server, clock: IReactorTime, metrics: Callable[[], bytes], shared: SharedLimits | None = None
    ) -> None:
        """`metrics` renders the resource /metrics. `shared` are the limits that the HTTP port shares with the other
        doors of the server; None: it is the only door, and makes limits of its own."""
        super().__init__(timeout=IDLE_SECONDS, reactor=clock)
        self.server = server
        self.clock = clock
        self.metrics = metrics
        self.shared = shared or SharedLimits.of(server, clock)
        self.iteration_end = self.shared.iteration_end
        self.sessions = HTTPSessions(server, clock, self.shared.addresses)
        self.channels: dict[Channel, None] = {}
        self.streams: dict[Callable[[], None], None] = {}
        """The functions that end the open streams of events, one for each stream; see `Site.streams`."""
        self.answered: Counter[tuple[str, int]] = Counter()
        """(method, status) -> number of answers given, for the resource /metrics."""
        self.connections_max = server.config.limits.connections
        self.body_bytes_max = server.config.limits.command_bytes
        self.own_names = OwnNames(server.config.http_names, (each.peer[0] for each in server.config.servers.values()))

    def startFactory(self) -> None:
        """Called by Twisted, whose own method opens an access log. No log is written: /metrics counts the answers."""

    def log(self, request: http.Request) -> None:
        self.count(request.method.decode("latin-1"), request.code)

    def count(self, method: str, status: int) -> None:
        """Count an answer. Unknown methods share one counter: otherwise clients could fill the memory with counters."""
        self.answered[method if method in _METHODS else "-", status] += 1

    def find_handler(self, request: PfsbRequest) -> Callable[[], None]:
        """The handler for the request's path and method, with its arguments. Raises `BadRequest`."""
        handler, words = find_handler(request.method, path_segments(request.uri))
        request.needs = self.right_of(COMMANDS[handler])
        refuse_conditions(handler, request.requestHeaders)
        return partial(handler, request, *words)

    def right_of(self, verb: str) -> Right:
        """The right that a command of the line protocol needs. For one that this server does not run, and for `ANY`, it
        is the right to read: a client without it is not told what runs here."""
        name = verb.removesuffix(WITH_ARGUMENTS)
        listed = _ALWAYS.get(name)
        if listed is None:
            entry = self.server.catalogue.verbs.get(name)
            listed = None if entry is None else entry.description
        return Right.READ if listed is None else listed.right_for(has_arguments=name != verb)

    def leave(self) -> None:
        """Called when the server stops: end all streams, and close each connection once its last answers are
        written."""
        self.iteration_end.hurry()
        for end in tuple(self.streams):
            end()
        for channel in tuple(self.channels):
            transport: Any = channel.transport
            transport.loseConnection()
            channel.callLater(LEAVE_SECONDS, partial(_abort, transport))

    def too_large(self) -> Refused:
        """The refusal of a body with more than `body_bytes_max` bytes."""
        return Refused("TOOLARGE", f"a body has at most {self.body_bytes_max} bytes")


_ALWAYS: Final = {description.verb: description for description in ALWAYS}
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})
