"""The resources of the application chat: /v1/chat, and the stream of events /v1/events."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from pfsb.applications.arguments import Quoted, integer_max, parse_integer, quoted
from pfsb.applications.interfaces import BadRequest, Event, IEventLog
from pfsb.frontends.http.answers import encoded, object_of
from pfsb.frontends.http.request import PfsbRequest
from pfsb.frontends.http.sessions import Listener
from pfsb.frontends.line.arguments import check_client_id

if TYPE_CHECKING:
    from pfsb.sessions.subscription import Subscription

EVENTS_TYPE: Final = "text/event-stream; charset=utf-8"
BEAT_SECONDS: Final = 15.0
"""So often something is said, so that proxies keep the stream open, and a client that is gone is noticed."""
HELD_BACK_MAX: Final = 128
"""Events of its session that wait for a client that does not read; then its stream ends."""
CHAT: Final = "LISTEN"


def get_lines(exchange: PfsbRequest) -> None:
    level = exchange.query.take_read_level()
    options = exchange.query.options("from", "limit")
    exchange.query.refuse_more()
    exchange.ask(exchange.check("LOG", *options), level)


def say(exchange: PfsbRequest) -> None:
    exchange.query.refuse_more()
    body = exchange.body()
    text = body.text("text")
    body.refuse_more()
    exchange.change(exchange.check("SAY", Quoted(text)))


def follow(exchange: PfsbRequest) -> None:
    """Server-sent events (WHATWG HTML, 9.2): chat lines, and what happens to the session of the client that asks."""
    first = _first_line(exchange)
    client_id = exchange.query.take("client")
    exchange.query.refuse_more()
    if client_id is not None:
        check_client_id(client_id, "?client=alice")
        exchange.who.client_id = client_id
    logs = [app for app in exchange.door.server.catalogue.applications if IEventLog.providedBy(app)]
    if all(log.listen_verb != CHAT for log in logs):
        raise BadRequest("this server does not run the application chat, whose lines are the events", "UNKNOWN")
    if exchange.who.client_id is None:
        EventStream(exchange, None).start(first)
    else:
        exchange.in_session(lambda session: EventStream(exchange, session.client_id).start(first))


def _first_line(exchange: PfsbRequest) -> int:
    """After the one that the client has seen last; 0: only what is to come. A browser that reconnects sends both."""
    first = _number("from=", exchange.query.take("from"), 1)
    headers = exchange.requestHeaders.getRawHeaders(b"Last-Event-ID") or [b""]
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
    """One client that listens. Chat lines that it does not read stay in the log, so nothing piles up for it here."""

    def __init__(self, exchange: PfsbRequest, client_id: str | None) -> None:
        self._exchange = exchange
        self._door = exchange.door
        self._client_id = client_id
        self._listener = Listener(self._granted, self._session_ended)
        self._following: Subscription | None = None
        self._paused = False
        self._held_back: deque[bytes] = deque()
        self._beat: IDelayedCall | None = None

    def start(self, first: int) -> None:
        self._exchange.begin_stream(EVENTS_TYPE, self, self._left)
        self._door.streams[self._exchange.end_stream] = None
        if self._client_id is not None:
            self._door.sessions.listen(self._client_id, self._listener)
        self._keep_alive()
        self._following = following = self._door.server.subscribe(CHAT, first or 0, self._tell)
        if self._paused:
            following.pause()
        if not first:
            # So that a client that is cut off before the first line comes back to the right place.
            self._exchange.write(b"id: %d\n\n" % (following.next - 1))

    def pauseProducing(self) -> None:
        self._paused = True
        if self._following is not None:
            self._following.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        while self._held_back and not self._paused:
            self._exchange.write(self._held_back.popleft())
        if self._following is not None and not self._paused:
            self._following.resume()

    def stopProducing(self) -> None:
        """The connection is gone; the exchange says so too."""

    def _tell(self, event: Event) -> None:
        fields = object_of(event.fields)
        self._exchange.write(b"id: %d\n%s" % (fields["index"], _block("chat", fields)))

    def _granted(self, name: str, token: int) -> None:
        self._say_of_session(_block("lock", {"name": name, "token": token}))

    def _session_ended(self, state: str) -> None:
        self._say_of_session(_block("session", {"state": state}))

    def _say_of_session(self, block: bytes) -> None:
        if not self._paused:
            self._exchange.write(block)
        elif len(self._held_back) < HELD_BACK_MAX:
            self._held_back.append(block)
        else:
            self._exchange.end_stream()

    def _keep_alive(self) -> None:
        self._beat = self._door.clock.callLater(BEAT_SECONDS, self._keep_alive)
        if not self._paused:
            self._exchange.write(b":\n\n")

    def _left(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._following is not None:
            self._following.stop()
        if self._client_id is not None:
            self._door.sessions.unlisten(self._client_id, self._listener)
        self._door.streams.pop(self._exchange.end_stream, None)


def _block(name: str, content: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n" % (name.encode(), encoded(content))
