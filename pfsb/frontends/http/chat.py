"""The resources of the application chat: its lines, /v1/chat, and the stream of events, /v1/events."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.applications.arguments import Quoted, integer_max, parse_integer, quoted
from pfsb.applications.interfaces import BadRequest, Event, IEventLog
from pfsb.frontends.http.answers import encoded, object_of
from pfsb.frontends.http.request import PfsbRequest
from pfsb.frontends.http.sessions import SessionListener
from pfsb.frontends.line.arguments import check_client_id

if TYPE_CHECKING:
    from pfsb.sessions.subscription import Subscription

EVENTS_TYPE: Final = "text/event-stream; charset=utf-8"
HEARTBEAT_SECONDS: Final = 15.0
"""Seconds between two comments that are written to a stream of events.

They keep proxies from closing a stream in which nothing happens, and show whether the client is still there.
"""
PAGE_BYTES: Final = 65_536
"""Number of bytes of chat lines that are written to a stream before other connections have their turn."""
HELD_BACK_MAX: Final = 128
"""Maximum number of session events (locks granted, session ended) that one stream keeps while its client does not read.
One more ends the stream."""
CHAT: Final = "LISTEN"
FAILED: Final = b": the server made a mistake and noted it in its log\n\n"
"""The comment that ends a stream of events when a line of the chat cannot be told."""


_log = Logger()


def get_lines(request: PfsbRequest) -> None:
    level = request.query.take_read_level()
    options = request.query.options("from", "limit")
    request.query.refuse_more()
    request.ask(request.check("LOG", *options), level)


def say(request: PfsbRequest) -> None:
    request.query.refuse_more()
    body = request.body()
    text = body.text("text")
    body.refuse_more()
    request.change(request.check("SAY", Quoted(text)))


def follow(request: PfsbRequest) -> None:
    """Begin a stream of events (WHATWG HTML, 9.2) to the client: the lines of the chat.

    A request that names a client id also gets told which locks the session of that client is granted, and when the
    session ends. If the id is in the header `Pfsb-Client`, the stream opens the session and keeps it open, as every
    request with this header does. If the id is in the query (`?client=`), the stream only tells: every web page can let
    a browser ask for a URL, but not with this header.
    """
    first = _first_line(request)
    watched = request.query.take("client")
    request.query.refuse_more()
    if watched is not None:
        check_client_id(watched, "?client=alice")
    logs = [app for app in request.site.server.catalogue.applications if IEventLog.providedBy(app)]
    if all(log.listen_verb != CHAT for log in logs):
        raise BadRequest("this server does not run the application chat, whose lines are the events", "UNKNOWN")
    if watched is not None or request.client_headers.client_id is None:
        EventStream(request, watched, keeps_session=False).start(first)
    else:
        request.in_session(lambda session: EventStream(request, session.client_id, keeps_session=True).start(first))


def _first_line(request: PfsbRequest) -> int:
    """The number of the chat line with which a stream begins; 0 stands for the next line to come.

    A browser that reconnects repeats the URL, with its `from=`, and adds the number of the last line that it has seen
    (Last-Event-ID): then the stream continues after that line.
    """
    first = _number("from=", request.query.take("from"), 1)
    headers = request.requestHeaders.getRawHeaders(b"Last-Event-ID") or [b""]
    seen = _number("Last-Event-ID", headers[0].decode("latin-1") or None, 0)
    return seen + 1 if seen is not None else first or 0


def _number(what: str, text: str | None, least: int) -> int | None:
    if text is None:
        return None
    number = parse_integer(text)
    if number is None or not least <= number < integer_max:
        raise BadRequest(f"{what} takes the number of a chat line, from {least} on, not {quoted(text)}")
    return number


@implementer(IPushProducer)
class EventStream:
    """The stream of events to one client.

    While the client does not read, chat lines stay in the application's log, and need no memory here.
    """

    def __init__(self, request: PfsbRequest, client_id: str | None, *, keeps_session: bool) -> None:
        """`client_id` is the client about whose session the stream tells; None: it tells about no session.
        `keeps_session` is True if that session is kept open as long as the stream is."""
        self._request = request
        self._site = request.site
        self._client_id = client_id
        self._listener = SessionListener(self._granted, self._session_ended, keeps_session)
        self._subscription: Subscription | None = None
        self._paused = False
        self._held_back: deque[bytes] = deque()
        self._heartbeat: IDelayedCall | None = None
        self._page_bytes = 0

    def start(self, first: int) -> None:
        self._request.begin_stream(EVENTS_TYPE, self, self._left)
        self._site.streams[self._request.end_stream] = None
        if self._client_id is not None:
            self._site.sessions.listen(self._client_id, self._listener)
        self._keep_alive()
        # The subscription is paused at first, since all lines from `first` on may be a large part of the memory.
        self._subscription = subscription = self._site.server.event_feed.subscribe(
            CHAT, first or 0, self._tell, self._failed, self._ended, is_paused=True
        )
        if not first:
            # Tell the client its place in the log, in case the stream breaks off before the first line.
            self._request.write(b"id: %d\n\n" % (subscription.next - 1))
        if first:
            self._site.iteration_end.call_in_turn(self._begin_page)
        else:
            self._go_on()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._subscription is not None:
            self._subscription.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        while self._held_back and not self._paused:
            self._request.write(self._held_back.popleft())
        self._go_on()

    def _go_on(self) -> None:
        """Lets the application's chat lines come again, if the client reads and the present page has room
        (`PAGE_BYTES`). After a full page other connections are served before the next page begins."""
        if self._subscription is not None and not self._paused and self._page_bytes <= PAGE_BYTES:
            self._subscription.resume()

    def _begin_page(self) -> None:
        self._page_bytes = 0
        self._go_on()

    def stopProducing(self) -> None:
        """Called by Twisted when the connection is gone. Does nothing, since the request calls `_left`."""

    def _tell(self, event: Event) -> None:
        fields = object_of(event.fields)
        data = b"id: %d\n%s" % (fields["index"], _block("chat", fields))
        was_full = self._page_bytes > PAGE_BYTES
        self._page_bytes += len(data)
        if self._page_bytes > PAGE_BYTES and not was_full and self._subscription is not None:
            self._subscription.pause()
            self._site.iteration_end.call_in_turn(self._begin_page)
        self._request.write(data)

    def _failed(self, error: Exception) -> None:
        """Called when a line cannot be told: ends the stream, since lines would be missing in it."""
        _log.failure("a stream of events is ended, since a line could not be told", Failure(error))
        self._request.write(FAILED)
        self._request.end_stream()

    def _ended(self, why: str) -> None:
        """Called when the cluster stops running the chat: tells the client why, and ends the stream."""
        assert self._subscription is not None
        self._request.write(_block("end", {"next": self._subscription.next, "text": why}))
        self._request.end_stream()

    def _granted(self, name: str, token: int) -> None:
        self._tell_session_event(_block("lock", {"name": name, "token": token}))

    def _session_ended(self, state: str) -> None:
        self._tell_session_event(_block("session", {"state": state}))

    def _tell_session_event(self, block: bytes) -> None:
        if not self._paused:
            self._request.write(block)
        elif len(self._held_back) < HELD_BACK_MAX:
            self._held_back.append(block)
        else:
            self._request.end_stream()

    def _keep_alive(self) -> None:
        self._heartbeat = self._site.clock.callLater(HEARTBEAT_SECONDS, self._keep_alive)
        if not self._paused:
            self._request.write(b":\n\n")

    def _left(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self._subscription is not None:
            self._subscription.stop()
            self._subscription = None
        if self._client_id is not None:
            self._site.sessions.stop_listening(self._client_id, self._listener)
        self._site.streams.pop(self._request.end_stream, None)


def _block(name: str, content: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n" % (name.encode(), encoded(content))
