"""PfsbRequest: one HTTP request and its one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from attrs import evolve
from twisted.internet.interfaces import IPushProducer, IReactorTime, ITCPTransport
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers

from pfsb.applications.arguments import Data, Quoted
from pfsb.applications.interfaces import Answer, BadRequest, Command, Done, Refused, Result
from pfsb.frontends.http.answers import (
    CHALLENGES,
    JSON_TYPE,
    RAW_TYPE,
    Content,
    NotAllowed,
    NotModified,
    RawValue,
    done_content,
    encoded,
    error_content,
    status_of,
)
from pfsb.frontends.http.arguments import (
    Body,
    ClientHeaders,
    Query,
    authority_of,
    bearer_token,
    is_forwarded,
)
from pfsb.frontends.http.sessions import HTTPSessions, NamedSession, SessionOpener
from pfsb.frontends.http.web_pages import PROBES, OwnNames, refuse_wrong_host
from pfsb.frontends.stream.large_requests import LargeRequest, is_large_request, work_in_rows
from pfsb.frontends.stream.reply_queue import EndOfIteration, is_large, refusal
from pfsb.support.rights import Right

if TYPE_CHECKING:
    from pfsb.frontends.rights import ClientRights
    from pfsb.frontends.stream.shared_limits import SharedLimits
    from pfsb.server import Server

Shape = Callable[[Done], Content]
"""Function that makes the content of an answer from the result of a command."""

DISCARDED_BYTES_MAX: Final = 1_048_576
"""Number of bytes up to which a body that is too large is read, and thrown away.

Many clients read a refusal only when they have sent their body. The connection of a client whose body is larger than
this is closed after the refusal.
"""
_JSON: Final = "application/json"


class Site(Protocol):
    """The part of the HTTP port that its requests use. `pfsb.frontends.http.protocol.HTTPSite` implements it."""

    server: Server
    clock: IReactorTime
    sessions: HTTPSessions
    iteration_end: EndOfIteration
    """Calls functions at the end of the reactor's present iteration; requests send their answers then."""
    streams: dict[Callable[[], None], None]
    """The functions that end the open streams of events, one for each stream. They are the keys of a dict, which keeps
    their order. A server that stops calls all of them."""
    metrics: Callable[[], bytes]
    """Function that renders the content of the resource /metrics."""
    body_bytes_max: int
    shared: SharedLimits
    """The limits that hold for the clients of all doors of this server together."""
    own_names: OwnNames

    def find_handler(self, request: PfsbRequest) -> Callable[[], None]:
        """The handler for the request's path and method, with its arguments; sets `PfsbRequest.needs`. Raises
        `BadRequest`."""

    def right_of(self, verb: str) -> Right:
        """The right that a command of the line protocol needs."""

    def too_large(self) -> Refused:
        """The refusal of a body with more than `body_bytes_max` bytes."""


class PfsbRequest(http.Request):
    """One HTTP request: it is parsed, handled, and answered once, at the end of the reactor's iteration.

    The answer is not sent earlier for two reasons. At the end of the iteration, `RevisionWaiters.told`, which becomes
    the header Pfsb-Revision, includes every command whose effect the answer shows. And when an answer is sent, Twisted
    handles the next pipelined request, which must not happen inside the handler of this one.
    """

    site: Site
    client_headers: ClientHeaders
    query: Query
    needs = Right.NONE
    """The right that the request needs at least."""
    waits_for_lock = False
    """True if the answer may take as long as the client wants to wait for a lock. The handler sets it."""
    _handle: Callable[[], None] | None = None
    """The handler of the request, with its arguments; None until the request line and the headers were found to be
    right."""
    _data: bytes = b""
    _body_bytes = 0
    _answered = False
    _gone = False
    _session: NamedSession | None = None
    _leave_stream: Callable[[], None] | None = None
    _large: LargeRequest | None = None
    """The large request that this request is, from when it is submitted until it is answered; None: it is no large
    request."""

    # ------------------------------------------------------------------ called by the channel

    def gotLength(self, length: int | None) -> None:
        """Called by Twisted with the body's length, before the body. The body is kept in memory, where Twisted would
        write a long one to a file: no more than `body_bytes_max` is kept."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Called by Twisted with each part of the body; also with those that had arrived when the channel was cut
        off."""
        channel: Any = self.channel
        if channel.is_cut_off:
            return
        self._body_bytes += len(data)
        if self._body_bytes <= self.site.body_bytes_max:
            super().handleContentChunk(data)
        elif self._body_bytes > DISCARDED_BYTES_MAX:
            channel.cut_off(self.site.too_large())

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Called by Twisted when the whole request was read: handle it. Unlike Twisted's own method, this one parses no
        forms. Does nothing for a request that ends behind the point where the channel was cut off."""
        channel: Any = self.channel
        if channel.is_cut_off:
            return
        self.method, self.uri, self.clientproto = command, path, version
        assert self.content is not None
        self.content.seek(0)
        self._data = self.content.read()
        channel.when_client_reads(self.process)

    def process(self) -> None:
        try:
            if self._body_bytes > self.site.body_bytes_max:
                self.refuse(self.site.too_large())
            else:
                if self._handle is None:
                    self.check_head(self.method, self.uri, self.clientproto)
                token = bearer_token(self.requestHeaders) if self.rights.are_by_token else None
                if token is None:
                    self.rights.forget()
                    self._handle_with_rights()
                else:
                    self.rights.show(token, self._shown)
        except NotAllowed as error:
            self.setHeader("Allow", error.allowed)
            self.refuse(refusal(error))
        except Exception as error:
            self.refuse(refusal(error))

    def _shown(self, refused: Refused | None) -> None:
        """Called when the token of this request was checked."""
        try:
            if refused is not None:
                self.refuse(refused)
            elif self.is_unanswered:
                self._handle_with_rights()
        except Exception as error:
            self.refuse(refusal(error))

    def _handle_with_rights(self) -> None:
        self.require(self.needs, "this request")
        assert self._handle is not None
        self._handle()

    @property
    def rights(self) -> ClientRights:
        """The rights of this request's client: its channel handles one request at a time."""
        channel: Any = self.channel
        found: ClientRights = channel.rights
        return found

    def require(self, needed: Right, what: str) -> None:
        """Raises `BadRequest` unless the client has the right `needed`, which `what` needs. Without a token file, a
        request that a proxy sends for another client may administer nothing, from wherever the proxy sends it."""
        rights = self.rights
        rights.require(needed, what)
        if needed is Right.ADMIN and not rights.are_by_token and is_forwarded(self.requestHeaders):
            raise rights.refusal(needed, what)

    def check_head(self, method: bytes, uri: bytes, version: bytes) -> None:
        """Raises `BadRequest` if the request line or the headers are wrong.

        The body is not looked at, and may not have come yet: a client that waits for `100 Continue` before it sends the
        body thus learns about the mistake first.
        """
        self.method, self.uri = method, uri
        headers = self.requestHeaders
        self._refuse_hosts(version)
        if any(coding != b"identity" for coding in _codings(headers)):
            self.setHeader("Accept-Encoding", "identity")
            raise BadRequest("a body comes as it is here, without a Content-Encoding", "MEDIATYPE")
        self.client_headers = ClientHeaders.parse(headers)
        self.query = Query.parse(uri)
        self._handle = self.site.find_handler(self)
        if self.needs and self.rights.are_by_token and bearer_token(headers) is None:
            self.rights.forget()
            self.require(self.needs, "this request")

    def _refuse_hosts(self, version: bytes) -> None:
        """Raises `BadRequest` if the request names no host or a wrong one (`Host`), or may come from a web page of a
        third party (`Origin`)."""
        headers = self.requestHeaders
        hosts = [*authority_of(self.uri), *(headers.getRawHeaders(b"Host") or [])]
        refuse_wrong_host(headers.getRawHeaders(b"Host") or [], is_needed=version == b"HTTP/1.1")
        if self.uri.partition(b"?")[0] not in PROBES:
            self.site.own_names.check(hosts, headers.getRawHeaders(b"Origin") or [])

    def connectionLost(self, reason: Failure) -> None:
        self._gone = True
        self._end()
        super().connectionLost(reason)

    # ------------------------------------------------------------------ for handlers

    @property
    def is_unanswered(self) -> bool:
        return not self._answered and not self._gone

    def client_closed_its_side(self) -> None:
        """Called when the client sends nothing more: it may be gone.

        A request that waits for a lock lets go of its session, which ends after its ttl, as if the client had hung up.
        The client is answered all the same if it gets the lock before.
        """
        if self.waits_for_lock:
            self._leave_session()

    @property
    def is_stream(self) -> bool:
        """Whether the answer has begun and has no end."""
        return self._leave_stream is not None

    def body(self) -> Body:
        """Parse the body. Raises `BadRequest`.

        Its Content-Type must be JSON: a browser lets forms of foreign web pages send some other types to this server
        without asking the server first.
        """
        if self._data and self._media_type() != _JSON:
            raise BadRequest(f"the body must be JSON, and say so: Content-Type: {_JSON}", "MEDIATYPE")
        return Body.parse(self._data)

    def raw_body(self) -> Quoted | None:
        """The body, if its Content-Type (application/octet-stream) says that it is just bytes; else None.

        As with JSON, a browser lets no form of a foreign web page send a body of this type.
        """
        return Data(self._data) if self._media_type() == RAW_TYPE else None

    def _media_type(self) -> str:
        given = self.requestHeaders.getRawHeaders(b"Content-Type") or [b"none"]
        return given[0].partition(b";")[0].strip().lower().decode("latin-1")

    def refuse_body(self) -> None:
        """Raises `BadRequest` if a request that takes no body has one."""
        self.body().refuse_more()

    def check(self, *parts: str) -> Command:
        """Check a command of an application, given as verb and arguments, and normalise it. Raises `BadRequest`, also
        if the client has not the right that the command needs."""
        command = self.site.server.catalogue.check(parts)
        self.require(self.site.right_of(command[0]), command[0])
        return command

    def change(self, command: Command, shape: Shape = done_content) -> None:
        """Order a command that changes state, and answer with its result.

        The command runs in the client's session; without a client id, in an anonymous session.
        """
        self._in_turn(command, lambda: self._change_now(command, shape))

    def _change_now(self, command: Command, shape: Shape) -> None:
        if self.client_headers.client_id is None:
            self.site.sessions.anonymous.submit(command, self.answer_with(shape))
        else:
            self.change_in_session(command, shape)

    def change_in_session(self, command: Command, shape: Shape = done_content) -> None:
        """Order a command that needs the session of a client with a name, as the commands of locks do."""
        self.in_session(lambda session: self._submit(session, command, shape))

    def ask(self, command: Command, level: str, shape: Shape = done_content) -> None:
        """Ask a question at one of the read levels, and answer with its result."""
        self._in_turn(command, lambda: self._ask_now(command, level, shape))

    def ask_past(self, question: Command, revision: int, shape: Shape = done_content) -> None:
        """Answer a GET with the value that its key had at an earlier revision."""
        server, channel = self.site.server, cast(Any, self.channel)
        server.past_reads.get(channel.address, question[1], revision, server.deadline(), self.answer_with(shape))

    def _in_turn(self, command: Command, handle: Callable[[], None]) -> None:
        """Call `handle`, a function without arguments that submits `command`: at once, or, if the command makes this a
        large request, when `LargeRequests` lets it start."""
        work = work_in_rows(self.site.server.catalogue.entry(command[0]).application).get(command[0])
        if work is None or not is_large_request(rows := work(command)):
            handle()
            return

        def start() -> None:
            try:
                handle()
            except Exception as error:
                self.refuse(refusal(error))

        is_new = self.client_headers.number is None or self.method in (b"GET", b"HEAD")
        fate = "none" if is_new else "unknown"
        self._large = LargeRequest(self.site.shared.large_requests, rows, start, self.refuse, fate)
        self._large.ask()

    def _ask_now(self, command: Command, level: str, shape: Shape) -> None:
        answer = self.answer_with(shape)
        if level == "stale":
            self.site.sessions.anonymous.ask(command, answer)
        elif level == "sequential":
            self._when_seen(lambda: self._ask(command, answer))
        elif self.client_headers.client_id is None:
            self.site.sessions.anonymous.submit(command, answer)
        else:
            # A question may run more than once without harm: it needs no command number.
            self.in_session(lambda session: session.question(command, answer))

    def in_session(self, use: Callable[[NamedSession], None]) -> None:
        """Call `use` with the client's session, once, when the session is open at this server.

        If opening fails, the request is refused, and `use` is not called; nor is it if the request is answered or its
        client gone by then. Raises `BadRequest` if the request names no client.
        """
        headers = self.client_headers
        if headers.client_id is None:
            raise BadRequest("locks and sessions belong to a client that has a name: send Pfsb-Client: alice")
        if self._gone:
            return
        self.require(self.site.right_of("HELLO"), "a session, which a request with Pfsb-Client opens,")

        def ready(session: NamedSession) -> None:
            if not self.is_unanswered:
                session.leave()
                return
            self._session = session
            self.setHeader("Pfsb-Session", session.how_opened())
            try:
                use(session)
            except Exception as error:
                self.refuse(refusal(error))

        def refused(result: Result) -> None:
            assert isinstance(result, Refused)
            fate = "none" if headers.number is None or self.method in (b"GET", b"HEAD") else "unknown"
            self.refuse(evolve(result, text=f"the session could not be opened: {result.text}", fate=fate))

        channel: Any = self.channel
        opens = SessionOpener(channel.opened, channel.address)
        self.site.sessions.enter(headers.client_id, headers.ttl_seconds, opens, ready, refused)

    def answer_with(self, shape: Shape = done_content) -> Answer:
        """Make the call-back that takes the result of a command, once, and answers this request with it.

        `shape` makes the content of the answer if the command was not refused.
        """

        def answer(result: Result) -> None:
            if isinstance(result, Refused):
                self.refuse(result)
            elif is_large(result):
                self.site.iteration_end.call_in_turn(lambda: self._shape_and_reply(shape, result))
            else:
                self._shape_and_reply(shape, result)

        return answer

    def _reply_with(self, content: Content | Refused) -> None:
        if isinstance(content, Refused):
            self.refuse(content)
        elif isinstance(content, RawValue):
            self.send(content.data, RAW_TYPE)
        elif isinstance(content, NotModified):
            self._answer(304, b"")
        else:
            self.reply(content)

    def _shape_and_reply(self, shape: Shape, done: Done) -> None:
        try:
            if self.is_unanswered:
                self._reply_with(shape(done))
        except Exception as error:
            self.refuse(refusal(error))

    def reply(self, content: Mapping[str, Any], status: int = 200) -> None:
        self.send(encoded(content), JSON_TYPE, status)

    def refuse(self, refused: Refused) -> None:
        if refused.code == "BUSY":
            self.setHeader("Retry-After", "1")
        if refused.code in CHALLENGES:
            self.setHeader("WWW-Authenticate", CHALLENGES[refused.code])
        self.send(encoded(error_content(refused)), JSON_TYPE, status_of(refused))

    def send(self, data: bytes, content_type: str, status: int = 200) -> None:
        """Answer with these data, unless the request has an answer already, or its client is gone."""
        if self.is_unanswered:
            self.setHeader("Content-Type", content_type)
            self.setHeader("Content-Length", str(len(data)))
            self._answer(status, data)

    # ------------------------------------------------------------------ an answer without an end

    def begin_stream(self, content_type: str, producer: IPushProducer, leave: Callable[[], None]) -> None:
        """Begin an answer without an end: send its headers. Afterwards the handler calls `write` for each piece.

        `leave` is called, once, when the client or the server ends the stream.
        """
        self._answered = True
        self._end()
        self._leave_stream = leave
        self.setHeader("Content-Type", content_type)
        self._set_common_headers()
        self.registerProducer(producer, True)
        self.write(b"")

    def end_stream(self) -> None:
        if not self._gone:
            self.unregisterProducer()
            self._end()
            self.finish()

    def break_off(self) -> None:
        """Close the connection amid a stream that cannot be completed."""
        if not self._gone:
            cast(ITCPTransport, self.transport).abortConnection()

    # ------------------------------------------------------------------ inside

    def _answer(self, status: int, data: bytes) -> None:
        """Answer with this status and these data at the end of the iteration, unless the request has an answer already,
        or its client is gone."""
        if self.is_unanswered:
            self._answered = True
            self.setResponseCode(status, HTTPStatus(status).phrase.encode())
            self.site.iteration_end.call(lambda: self._send(data))

    def _submit(self, session: NamedSession, command: Command, shape: Shape) -> None:
        number = session.submit(self.client_headers.number, command, self.answer_with(shape))
        self.setHeader("Pfsb-Number", str(number))

    def _ask(self, command: Command, answer: Answer) -> None:
        if self.client_headers.client_id is None:
            self.site.sessions.anonymous.ask(command, answer)
        else:
            self.in_session(lambda session: session.ask(command, answer))

    def _when_seen(self, use: Callable[[], None]) -> None:
        """Call `use`, once, when this server has executed the revision that the client says it has seen at this or
        another server.

        The request is refused if that takes longer than `request_seconds`.
        """
        seconds = self.site.server.config.limits.request_seconds
        revision = self.client_headers.revision

        def reached(in_time: bool) -> None:
            try:
                if in_time:
                    use()
                else:
                    text = f"this server has not come to revision {revision} within {seconds:g} s; another one may have"
                    self.refuse(Refused("UNAVAILABLE", text))
            except Exception as error:
                self.refuse(refusal(error))

        self.site.server.revisions.wait(revision, seconds, reached)

    def _set_common_headers(self) -> None:
        self.setHeader("Date", http.datetimeToString(self.site.clock.seconds()))
        self.setHeader("Pfsb-Revision", str(self.site.server.revisions.told))
        self.setHeader("Cache-Control", "no-store")
        self.setHeader("X-Content-Type-Options", "nosniff")

    def _send(self, data: bytes) -> None:
        if self._gone:
            return
        try:
            self._set_common_headers()
            self._end()
            self.write(data)
            self.finish()
        except Exception as error:
            channel: Any = self.channel
            channel.fail(error)  # a part of the answer may have been written

    def _leave_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.leave()

    def _end(self) -> None:
        """Called when the request is answered or its client is gone: leave the client's session and the stream of
        events, and tell `LargeRequests` that a large request is over."""
        large, self._large = self._large, None
        if large is not None:
            large.over()
        self._leave_session()
        leave, self._leave_stream = self._leave_stream, None
        if leave is not None:
            leave()


def _codings(headers: Headers) -> list[bytes]:
    """The codings in the headers Content-Encoding of a request."""
    words = b",".join(headers.getRawHeaders(b"Content-Encoding") or []).split(b",")
    return [word.strip().lower() for word in words if word.strip()]
