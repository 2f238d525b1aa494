"""The connections that others open to this server: peers, which send frames on them, and strangers.

Each is one of a stranger until a first frame has passed all checks. A stranger has `FIRST_FRAME_SECONDS` for that
frame, costs less than one frame of memory, and makes room for a later one if there are too many. A wrong frame, a wrong
length or bytes of another protocol end the connection of a stranger at once.

The connection of a peer lives as long as frames come on it; a peer that has nothing to send says hello.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.support.eager_write import write_now
from pfsb.transports.links import LOG_SECONDS, Links, Seldom
from pfsb.transports.pending_calls import PendingCalls
from pfsb.transports.pieces_of_stream import PULSE, FrameSplitter, Source, WrongLength
from pfsb.transports.stream_security import ServerSecurity, WrongCertificate, shown_reason

FIRST_FRAME_SECONDS: Final = 5.0
"""How long, in seconds, a stranger may take to send its first frame, a handshake of TLS included."""
IDLE_SECONDS: Final = 10.0
"""How long, in seconds, a connection of a peer may bring no whole frame until it is closed."""
PULSE_SECONDS: Final = 0.1
"""How long, in seconds, the answer to bytes that have come may wait, so that it answers all that come meanwhile."""
STRANGERS_MAX: Final = 64
"""Maximum number of connections of strangers. One more ends the oldest one of the address that has most of them."""
PEER_STREAMS_MAX: Final = 4
"""Maximum number of connections of one peer; the oldest makes room. A peer uses one, and leaves dead ones behind."""

TLS_HANDSHAKE: Final = 0x16
"""First byte of a connection that begins with a handshake of TLS. A stream of frames begins with a byte 0."""


@implementer(IPushProducer, IHandshakeListener)
@define(eq=False, slots=False)
class IncomingStream(Protocol):
    """A connection that was opened from elsewhere; behind TLS, if the other end speaks that."""

    _door: Door
    source: Source
    raw: Any = None
    """The transport of the connection itself, below TLS."""
    server_id: int | None = field(init=False, default=None)
    """The peer at the other end; None: a stranger."""
    ticks: int = field(init=False, default=0)
    """Number of ticks since the connection was opened or, for a peer, since the last frame."""
    is_over: bool = field(init=False, default=False)
    """Whether the connection has ended, or was ended by this server."""
    _splitter: FrameSplitter = field(init=False, factory=FrameSplitter)
    _is_pulse_due: bool = field(init=False, default=False)

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)

    def handshakeCompleted(self) -> None:
        """Called by TLS when both ends have shown their certificates."""
        self._door.shown(self, self.transport)

    def dataReceived(self, data: bytes) -> None:
        try:
            for frame in self._splitter.feed(data):
                if not self.is_over:
                    self._door.frame_arrived(self, frame)
        except WrongLength as error:
            self._door.turn_away(self, "length", str(error))
            return
        if self.server_id is not None and not self._is_pulse_due:
            self._is_pulse_due = True
            self._door.pulse_later(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._door.ended(self, reason)

    def pulse(self) -> None:
        """Tell the other end that its bytes have come."""
        self._is_pulse_due = False
        if not self.is_over:
            write_now(self.transport, PULSE)

    def end(self) -> None:
        """End the connection at once."""
        self.is_over = True
        if self.raw is not None:
            self.raw.abortConnection()

    def pauseProducing(self) -> None:
        """Called by the transport when the other end does not read the pulses: it never will."""
        self._door.turn_away(self, "unread", "reads nothing of what it is sent")

    def resumeProducing(self) -> None:
        """Called by the transport when it can take more."""

    def stopProducing(self) -> None:
        """Called by the transport when the connection has ended."""


@define(eq=False, slots=False)
class Threshold(Protocol):
    """Protocol of the beginning of a connection, whose first byte tells whether the other end speaks TLS."""

    _door: Door
    _stream: IncomingStream

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._stream.raw = transport
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        inner = self._door.protocol_for(self._stream, data[0])
        if inner is not None:
            transport: Any = self.transport
            transport.protocol = inner
            inner.makeConnection(transport)
            inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._door.ended(self._stream, reason)


@define(eq=False, slots=False)
class Door(Factory):
    """Makes the protocols of the connections that others open to this server, and bounds them in number and time.

    `kinds` are the ways in which others may speak: "tcp", "tls" or both.
    """

    log = Logger()
    noisy = False

    _clock: IReactorTime
    _links: Links
    kinds: frozenset[str]
    """The ways to speak that this server takes: "tcp", "tls", or both."""
    _security: ServerSecurity | None
    """Certificates of this server and the check of others; None: no connection uses TLS."""
    _heard: Callable[[int], object]
    """Called with the id of a peer whenever a frame of it has come."""
    streams: dict[IncomingStream, None] = field(init=False, factory=dict)
    """The connections that are open, in the order in which they were opened."""
    _log_limit: Seldom = field(init=False)
    _pulses: PendingCalls = field(init=False)

    @_pulses.default
    def _make_pulses(self) -> PendingCalls:
        return PendingCalls(self._clock)

    @_log_limit.default
    def _make_log_limit(self) -> Seldom:
        return Seldom(self._clock, LOG_SECONDS)

    def buildProtocol(self, addr: IPv4Address | IPv6Address) -> Protocol:  # type: ignore[override]
        stream = IncomingStream(self, Source(addr.host, addr.port))
        self.streams[stream] = None
        strangers = [each for each in self.streams if each.server_id is None]
        if len(strangers) > STRANGERS_MAX:
            [(busiest, _)] = Counter(each.source.host for each in strangers).most_common(1)
            oldest = next(each for each in strangers if each.source.host == busiest)
            self.turn_away(oldest, "crowd", "was one of too many that have not said who they are")
        return Threshold(self, stream)

    def protocol_for(self, stream: IncomingStream, first_byte: int) -> Any:
        """The protocol that handles a connection whose first byte is this; None: the connection was ended."""
        speaks_tls = first_byte == TLS_HANDSHAKE
        if speaks_tls and "tls" in self.kinds and self._security is not None:
            return self._security.protocol(stream)
        if first_byte == 0 and "tcp" in self.kinds:
            return stream
        if speaks_tls:
            self.turn_away(stream, "tls", "speaks TLS; this server takes plain TCP from its peers")
        elif first_byte == 0:
            self.turn_away(stream, "plain", "does not speak TLS, which this server demands of its peers")
        else:
            self.turn_away(stream, "noise", "does not speak to servers as servers do")
        return None

    def shown(self, stream: IncomingStream, transport: Any) -> None:
        """Take in that the other end of a stream has shown a certificate that the authority has signed."""
        assert self._security is not None
        try:
            certified = self._security.server_id(transport.getPeerCertificate())
        except WrongCertificate as error:
            self.turn_away(stream, "certificate", str(error))
        else:
            stream.source = stream.source._replace(certified=certified)

    def frame_arrived(self, stream: IncomingStream, frame: bytes) -> None:
        """Hand a frame to the links. A first right frame makes a stranger a peer; a wrong one ends its connection."""
        sender = self._links.frame_arrived(frame, stream.source)
        if sender is None:
            if stream.server_id is None:
                self.turn_away(stream, "frame", "")
            return
        stream.ticks = 0
        if stream.server_id is None:
            self._admit(stream, sender)
        self._heard(sender)

    def _admit(self, stream: IncomingStream, sender: int) -> None:
        former = [each for each in self.streams if each.server_id == sender and not each.is_over]
        for each in former[: max(0, len(former) + 1 - PEER_STREAMS_MAX)]:
            each.end()
        stream.server_id = sender
        stream.pulse()

    def pulse_later(self, stream: IncomingStream) -> None:
        """Send a pulse on a stream within `PULSE_SECONDS`."""
        self._pulses.call(PULSE_SECONDS, stream.pulse)

    def turn_away(self, stream: IncomingStream, reason: str, text: str) -> None:
        """End a connection, count it under `reason`, and log it with `text`; "": the links have logged it already."""
        if stream.is_over:
            return
        self._count(stream, reason, text)
        stream.end()

    def _count(self, stream: IncomingStream, reason: str, text: str) -> None:
        self._links.counters.streams.turned_away[reason] += 1
        if text and self._log_limit.admits(reason):
            self.log.warn(
                "connection from {source} ended ({reason}): the other end {text} ({more} more like this)",
                source=stream.source,
                reason=reason,
                text=text,
                more=self._log_limit.suppressed(reason),
            )

    def ended(self, stream: IncomingStream, reason: Failure) -> None:
        """Take in that a connection has ended."""
        self.streams.pop(stream, None)
        if not stream.is_over and stream.server_id is None:
            why = shown_reason(reason)
            if why is not None:
                self._count(stream, "certificate", why)
        stream.is_over = True

    def tick(self, seconds: float) -> None:
        """End the connections that have brought nothing for too long. Called every `seconds` seconds."""
        for stream in list(self.streams):
            stream.ticks += 1
            if stream.server_id is None and stream.ticks * seconds > FIRST_FRAME_SECONDS:
                self.turn_away(stream, "silent", "has not said who it is in time")
            elif stream.ticks * seconds > IDLE_SECONDS:
                stream.end()

    def close(self) -> None:
        """End all connections."""
        self._pulses.cancel()
        for stream in list(self.streams):
            stream.end()
