"""One HTTP request and its one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web import http

from pfsb.applications.interfaces import Answer, BadRequest, Command, Done, Refused, Result
from pfsb.frontends.http.answers import (
    JSON_TYPE,
    NotAllowed,
    done_content,
    encoded,
    error_content,
    status_of,
)
from pfsb.frontends.http.arguments import Body, Query, Who
from pfsb.frontends.http.sessions import NamedSession
from pfsb.frontends.stream.reply_queue import refusal

if TYPE_CHECKING:
    from pfsb.frontends.http.protocol import HTTPSite

Shape = Callable[[Done], Mapping[str, Any]]
"""Makes the content of an answer."""

DISCARDED_BYTES_MAX: Final = 1_048_576
"""Of a body that is too large: read to its end, so that the client gets its answer, and thrown away. What is larger
yet is cut off."""
_JSON: Final = "application/json"


class PfsbRequest(http.Request):
    """Takes the request apart, and gives the answer: once, and after the present turn of the reactor.

    Then `RevisionWaiters.told` is not older than what the answer shows, and pipelined requests do not nest.
    """

    door: HTTPSite
    who: Who
    query: Query
    _data: bytes = b""
    _body_bytes = 0
    _answered = False
    _gone = False
    _session: NamedSession | None = None
    _leave_stream: Callable[[], None] | None = None

    # ------------------------------------------------------------------ told by the channel

    def gotLength(self, length: int | None) -> None:
        """In memory, whatever length is announced: no more than `body_bytes_max` is kept."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes <= self.door.body_bytes_max:
            super().handleContentChunk(data)
        elif self._body_bytes > DISCARDED_BYTES_MAX:
            channel: Any = self.channel
            channel.cut_off(self.door.too_large())

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Like Twisted's, without its parsing of forms, which this door does not take."""
        self.method, self.uri, self.clientproto = command, path, version
        assert self.content is not None
        self.content.seek(0)
        self._data = self.content.read()
        self.process()

    def process(self) -> None:
        try:
            if self._body_bytes > self.door.body_bytes_max:
                self.refuse(self.door.too_large())
            else:
                self.who = Who.of(self.requestHeaders)
                self.query = Query.parse(self.uri)
                self.door.handle(self)
        except NotAllowed as error:
            self.setHeader("Allow", error.allowed)
            self.refuse(refusal(error))
        except Exception as error:
            self.refuse(refusal(error))

    def connectionLost(self, reason: Failure) -> None:
        self._gone = True
        self._end()
        super().connectionLost(reason)

    # ------------------------------------------------------------------ for handlers

    @property
    def is_unanswered(self) -> bool:
        return not self._answered and not self._gone

    def body(self) -> Body:
        """Raises `BadRequest`. Only JSON that says so: a form on somebody's page must not be able to send it."""
        if self._data:
            given = self.requestHeaders.getRawHeaders(b"Content-Type") or [b"none"]
            kind = given[0].partition(b";")[0].strip().lower().decode("latin-1")
            if kind != _JSON:
                raise BadRequest(f"the body must be JSON, and say so: Content-Type: {_JSON}", "MEDIATYPE")
        return Body.parse(self._data)

    def refuse_body(self) -> None:
        """Of a request that takes none."""
        self.body().refuse_more()

    def check(self, *parts: str) -> Command:
        """As the application wants it, to be ordered or asked. Raises `BadRequest`."""
        return self.door.server.catalogue.check(parts)

    def change(self, command: Command, shape: Shape = done_content) -> None:
        """A command that changes something, in the client's session or an anonymous one."""
        if self.who.client_id is None:
            self.door.sessions.anonymous.submit(command, self.answers(shape))
        else:
            self.change_in_session(command, shape)

    def change_in_session(self, command: Command, shape: Shape = done_content) -> None:
        """Like `change`, for what an anonymous client cannot do."""
        self.in_session(lambda session: self._submit(session, command, shape))

    def ask(self, command: Command, level: str, shape: Shape = done_content) -> None:
        """A question, at one of the read levels."""
        answer = self.answers(shape)
        if level == "stale":
            self.door.sessions.anonymous.ask(command, answer)
        elif level == "sequential":
            self._when_seen(lambda: self._ask(command, answer))
        elif self.who.client_id is None:
            self.door.sessions.anonymous.submit(command, answer)
        else:
            # A question runs as often as it is asked: it needs no number, and uses none up.
            self.in_session(lambda session: session.question(command, answer))

    def in_session(self, use: Callable[[NamedSession], None]) -> None:
        """Call `use` with the client's session, once that is open at this server."""
        who = self.who
        if who.client_id is None:
            raise BadRequest("locks and sessions belong to a client that has a name: send Pfsb-Client: alice")

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
            fate = "none" if who.number is None else "unknown"
            self.refuse(evolve(result, text=f"the session could not be opened: {result.text}", fate=fate))

        self.door.sessions.enter(who.client_id, who.ttl_seconds, ready, refused)

    def answers(self, shape: Shape = done_content) -> Answer:
        """For whoever has the answer: once."""

        def answer(result: Result) -> None:
            if isinstance(result, Refused):
                self.refuse(result)
            else:
                self.reply(shape(result))

        return answer

    def reply(self, content: Mapping[str, Any], status: int = 200) -> None:
        self.send(encoded(content), JSON_TYPE, status)

    def refuse(self, refused: Refused) -> None:
        if refused.code == "BUSY":
            self.setHeader("Retry-After", "1")
        self.send(encoded(error_content(refused)), JSON_TYPE, status_of(refused))

    def send(self, data: bytes, content_type: str, status: int = 200) -> None:
        """The whole answer, unless there was one, or nobody waits for it any more."""
        if self.is_unanswered:
            self._answered = True
            self.setResponseCode(status, HTTPStatus(status).phrase.encode())
            self.setHeader("Content-Type", content_type)
            self.setHeader("Content-Length", str(len(data)))
            self.door.turn.call(lambda: self._send(data))

    # ------------------------------------------------------------------ an answer without an end

    def begin_stream(self, content_type: str, producer: IPushProducer, leave: Callable[[], None]) -> None:
        """From here on the handler calls `write`; `leave` is called when the stream ends, whoever ends it."""
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

    # ------------------------------------------------------------------ inside

    def _submit(self, session: NamedSession, command: Command, shape: Shape) -> None:
        number = session.submit(self.who.number, command, self.answers(shape))
        self.setHeader("Pfsb-Number", str(number))

    def _ask(self, command: Command, answer: Answer) -> None:
        if self.who.client_id is None:
            self.door.sessions.anonymous.ask(command, answer)
        else:
            self.in_session(lambda session: session.ask(command, answer))

    def _when_seen(self, use: Callable[[], None]) -> None:
        """Wait for the revision that the client has seen, at another server perhaps."""
        seconds = self.door.server.config.limits.request_seconds
        revision = self.who.revision

        def reached(in_time: bool) -> None:
            try:
                if in_time:
                    use()
                else:
                    text = f"this server has not come to revision {revision} within {seconds:g} s; another one may have"
                    self.refuse(Refused("UNAVAILABLE", text))
            except Exception as error:
                self.refuse(refusal(error))

        self.door.server.revisions.wait(revision, seconds, reached)

    def _set_common_headers(self) -> None:
        self.setHeader("Date", http.datetimeToString(self.door.clock.seconds()))
        self.setHeader("Pfsb-Revision", str(self.door.server.revisions.told))
        self.setHeader("Cache-Control", "no-store")
        self.setHeader("X-Content-Type-Options", "nosniff")

    def _send(self, data: bytes) -> None:
        if not self._gone:
            self._set_common_headers()
            self._end()
            self.write(data)
            self.finish()

    def _end(self) -> None:
        """Nobody waits here any more: the session is not kept for this request."""
        session, self._session = self._session, None
        if session is not None:
            session.leave()
        leave, self._leave_stream = self._leave_stream, None
        if leave is not None:
            leave()
