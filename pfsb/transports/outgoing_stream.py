"""The connection over which this server sends its frames to one peer.

A server opens one connection to each peer, and sends on it; the peer's frames come on the connection that the peer has
opened. On the way back there are only pulses, with which the receiver answers that bytes have come: at once when it has
recognised the first frame, and 0.1 s at the latest after any others. So a connection that is open and dead is noticed
after `DEAD_SECONDS`, in each direction by itself, and replaced. While the protocol has nothing to send, a hello every
second asks for a pulse.

Nothing here waits for a peer. Frames for a peer that does not read, or is just being connected, wait up to a number of
bytes; further ones are lost, and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.support.eager_write import write_now
from pfsb.support.hosts import SocketAddress
from pfsb.transports.links import Links
from pfsb.transports.pieces_of_stream import in_stream
from pfsb.transports.stream_security import WrongCertificate, shown_reason

WAITING_BYTES_MAX: Final = 4 * 1024 * 1024
"""Maximum size, in bytes, of the frames that wait for one peer, beside what the system's buffers hold."""
JOINED_BYTES: Final = 256 * 1024
"""Size, in bytes, up to which waiting frames are written together."""
DEAD_SECONDS: Final = 1.0
"""How long, in seconds, a peer may leave bytes unanswered until the connection to it is replaced."""
HELLO_SECONDS: Final = 1.0
"""How long, in seconds, nothing is sent on a connection until a hello is."""
FIRST_PULSE_SECONDS: Final = 5.0
"""How long, in seconds, a peer may take to answer a first frame, with a handshake of TLS."""
LASTED_SECONDS: Final = 2.0
"""How long, in seconds, a connection must have been in use so that the next attempt follows its end at once."""
FIRST_WAIT_SECONDS: Final = 0.05
"""Time, in seconds, from the first attempt that failed to the next one, at most; it doubles with each further one."""
REFUSED_WAIT_SECONDS_MAX: Final = 0.25
"""Longest time, in seconds, to the next attempt at a peer whose address has refused the last one: no process listens
there, which costs little to find out, and the hint of Departure 11 should be as fresh as with datagrams."""
WAIT_SECONDS_MAX: Final = 5.0
"""Longest time, in seconds, from an attempt that failed to the next one, unless the peer's address has refused it."""
STALE_TICKS: Final = 4
"""Number of ticks, of 0.25 s each, that an attempt may take before the next frame of the peer begins another."""
OTHERWISE_SECONDS: Final = 60.0
"""How long, in seconds, a peer is spoken to in a way that is not the preferred one until that is tried again."""
SAID_SECONDS: Final = 60.0
"""Minimum time, in seconds, between two lines of the text log about one and the same failure to connect."""

Dial = Callable[[str, SocketAddress, "OutgoingStream"], "Deferred[Any]"]
"""dial(kind, address, stream): connect a stream to an address, over "tcp" or "tls". The Deferred fires when the
connection is open, for TLS perhaps before the handshake."""


@implementer(IPushProducer, IHandshakeListener)
@define(eq=False, slots=False)
class OutgoingStream(Protocol):
    """One connection to a peer, from the attempt to open it to its end."""

    _link: OutgoingLink
    kind: str
    address: SocketAddress
    is_proven: bool = field(init=False, default=False)
    """Whether the peer has answered the first frame."""
    proven_at: float = field(init=False, default=0.0)
    error: str | None = field(init=False, default=None)
    """Why this server has ended the connection; None: it has not."""
    _waiting: deque[bytes] = field(init=False, factory=deque)
    waiting_bytes: int = field(init=False, default=0)
    """Size, in bytes, of the frames that wait until the transport can take more."""
    _is_paused: bool = field(init=False, default=False)
    _is_unanswered: bool = field(init=False, default=False)
    """Whether bytes were written since the last pulse."""
    _unanswered_ticks: int = field(init=False, default=0)
    _idle_ticks: int = field(init=False, default=0)
    """Number of ticks since the last write."""
    ticks: int = field(init=False, default=0)
    """Number of ticks since the attempt began."""

    # -- out --------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> bool:
        """Send a frame, behind those that wait. Returns False if too many bytes wait: the frame is lost."""
        # The frame waits behind bytes that the transport holds, and the peer has answered none of them.
        self._is_unanswered = True
        if self._is_paused:
            if self.waiting_bytes + len(frame) > WAITING_BYTES_MAX:
                return False
            waiting = in_stream(frame)
            self._waiting.append(waiting)
            self.waiting_bytes += len(waiting)
        else:
            self._idle_ticks = 0
            write_now(self.transport, in_stream(frame))
        return True

    def _write_waiting(self) -> None:
        while self._waiting and not self._is_paused:
            joined, size = [], 0
            while self._waiting and size < JOINED_BYTES:
                joined.append(self._waiting.popleft())
                size += len(joined[-1])
            self.waiting_bytes -= size
            self._is_unanswered = True
            self._idle_ticks = 0
            write_now(self.transport, b"".join(joined))

    def pauseProducing(self) -> None:
        """Called by the transport when it has as much to write as it should have."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Called by the transport when it can take more."""
        self._is_paused = False
        self._write_waiting()

    def stopProducing(self) -> None:
        """Called by the transport when the connection has ended."""
        self._is_paused = True

    # -- the connection ---------------------------------------------------------------------------

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        if self.kind == "tcp":
            self._begin()

    def handshakeCompleted(self) -> None:
        """Called by TLS when the peer has shown a certificate that the authority has signed."""
        transport: Any = self.transport
        try:
            self._link.check_certificate(transport.getPeerCertificate())
        except WrongCertificate as error:
            self.end(f"it {error}")
        else:
            self._begin()

    def _begin(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        if self._link.links.is_running:
            self.send(self._link.links.hello())

    def dataReceived(self, data: bytes) -> None:
        """Take pulses; nothing else comes from the other end."""
        if data.strip(b"\0"):
            self.end("it does not answer as servers do")
            return
        self._is_unanswered = False
        self._unanswered_ticks = 0
        if not self.is_proven and self.error is None:
            self.is_proven = True
            self._link.proven(self)

    def tick(self, seconds: float) -> None:
        """Count one tick; say hello on an idle connection, and end one that the peer does not answer. Called every
        `seconds` seconds."""
        self.ticks += 1
        self._idle_ticks += 1
        if not self.is_proven:
            if self.ticks * seconds > FIRST_PULSE_SECONDS:
                self.end("it does not answer")
            return
        if self._is_unanswered:
            self._unanswered_ticks += 1
            if self._unanswered_ticks * seconds > DEAD_SECONDS:
                self._link.links.counters.streams.dead += 1
                self.end("the connection is open and dead")
        elif self._idle_ticks * seconds >= HELLO_SECONDS:
            self.send(self._link.links.hello())

    def end(self, why: str) -> None:
        """End the connection at once, for the reason `why`."""
        if self.error is None:
            self.error = why
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._link.stream_ended(self, reason)


@define(eq=False)
class OutgoingLink:
    """Keeps a connection to one peer, as far as there can be one.

    `kinds` are the ways to speak to it, "tcp" and "tls", the preferred one first. A way that fails is followed by the
    next one at once.
    """

    log = Logger()

    peer: int
    _clock: IReactorTime
    links: Links
    _kinds: Sequence[str]
    _dial: Dial
    _addresses: Callable[[int], Sequence[SocketAddress]]
    """The addresses at which a peer may be, at present."""
    check_certificate: Callable[[Any], object]
    """Function of a certificate that raises `WrongCertificate` if it is not that of the peer."""
    _refused: Callable[[int], object]
    """Called with the peer's id when no process listens at its address."""
    _changed: Callable[[int], object]
    """Called with the peer's id when frames for it have begun to travel over a connection, or no longer do."""
    _rng: Random = field(factory=Random)
    stream: OutgoingStream | None = field(init=False, default=None)
    """The connection that carries frames; None: there is none."""
    _trying: OutgoingStream | None = field(init=False, default=None)
    """A connection that is being opened, or that the peer has not answered yet."""
    _connecting: Deferred[Any] | None = field(init=False, default=None)
    _kept: deque[bytes] = field(init=False, factory=deque)
    """Frames that wait for the connection that is being opened."""
    _kept_bytes: int = field(init=False, default=0)
    _attempts: int = field(init=False, default=0)
    """Number of attempts that have failed since the last connection that was in use for a while."""
    _call: IDelayedCall | None = field(init=False, default=None)
    """The next attempt, while it waits for its time."""
    _tried_at: float = field(init=False, default=float("-inf"))
    """When the last attempt began, by the clock."""
    _is_open: bool = field(init=False, default=False)
    _said: str = field(init=False, default="")
    _said_at: float = field(init=False, default=float("-inf"))

    # -- for the network --------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect to the peer."""
        self._is_open = True
        self._try()

    def close(self) -> None:
        """End the connection to the peer, and open no other."""
        self._is_open = False
        self._cancel_call()
        self._forget_kept()
        self._give_up_trying("this server stops")
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.end("this server stops")

    def send(self, frame: bytes) -> None:
        """Send a frame to the peer, or lose the frame."""
        stream = self.stream
        if stream is not None:
            if not stream.send(frame):
                self.links.counters.streams.dropped += 1
        elif self._trying is None:
            self.links.counters.streams.dropped += 1
        else:
            self._kept.append(frame)
            self._kept_bytes += len(frame)
            while self._kept_bytes > WAITING_BYTES_MAX:
                # The oldest frame is lost, since the latest ones are worth more.
                self._kept_bytes -= len(self._kept.popleft())
                self.links.counters.streams.dropped += 1

    def heard(self) -> None:
        """Called when a frame of the peer has come: the peer runs, so an attempt to connect that waits for its time is
        made now."""
        if self._call is not None:
            if self._clock.seconds() - self._tried_at >= FIRST_WAIT_SECONDS:
                self._try()
        elif self._trying is not None and self._trying.ticks >= STALE_TICKS:
            self._give_up_trying("it takes too long")
            self._try()

    def moved(self) -> None:
        """Take in that the peer's address, or this server's own, may have changed: connect anew, if that is needed."""
        if not self._is_open:
            return
        addresses = self._addresses(self.peer)
        if self._trying is not None and self._trying.address not in addresses:
            self._give_up_trying("the peer has another address")
        if self.stream is not None and self.stream.address not in addresses:
            self.stream.end("the peer has another address")
        if self._trying is None and self.stream is None:
            self._attempts = 0
            self._try()

    def renew(self) -> None:
        """Connect anew, since this server has another address now."""
        self._give_up_trying("this server has another address")
        if self.stream is not None:
            self.stream.end("this server has another address")
        else:
            self._try()

    @property
    def waits(self) -> bool:
        """Whether the next attempt to connect waits for its time."""
        return self._call is not None

    def tick(self, seconds: float) -> None:
        """Count a tick on both connections, and end one that is not of the preferred kind after `OTHERWISE_SECONDS`, so
        that the preferred kind is tried again. Called every `seconds` seconds."""
        for each in (self.stream, self._trying):
            if each is not None:
                each.tick(seconds)
        stream = self.stream
        if stream is not None and stream.kind != self._kinds[0] and stream.ticks * seconds > OTHERWISE_SECONDS:
            stream.end("the preferred way is tried again")

    # -- attempts ---------------------------------------------------------------------------------

    def _try(self) -> None:
        self._cancel_call()
        if not self._is_open or self._trying is not None or self.stream is not None:
            return
        addresses = self._addresses(self.peer)
        if not addresses:
            return  # `moved` is called when the peer has an address
        self._tried_at = self._clock.seconds()
        kind = self._kinds[self._attempts % len(self._kinds)]
        address = addresses[self._attempts // len(self._kinds) % len(addresses)]
        trying = self._trying = OutgoingStream(self, kind, address)
        connecting = self._connecting = self._dial(kind, address, trying)
        connecting.addCallbacks(self._connected, self._not_connected, errbackArgs=(trying,))
        connecting.addErrback(lambda failure: self.log.failure("connecting to server {peer}", failure, peer=self.peer))

    def _give_up_trying(self, why: str) -> None:
        """End the attempt that is under way, if one is; it does not count as failed."""
        connecting, self._connecting = self._connecting, None
        trying, self._trying = self._trying, None
        if connecting is not None:
            connecting.cancel()
        if trying is not None:
            trying.end(why)

    def _connected(self, _protocol: object) -> None:
        self._connecting = None

    def _not_connected(self, reason: Failure, trying: OutgoingStream) -> None:
        if self._trying is trying:
            self._connecting = None
            self._failed(trying, reason)

    def proven(self, stream: OutgoingStream) -> None:
        """Called by a stream that the peer has answered for the first time: it carries the frames from now on."""
        self._trying = None
        self.stream = stream
        stream.proven_at = self._clock.seconds()
        self.links.counters.streams.opened += 1
        if self._said:
            self._said = ""
            self.log.info("server {peer} is reached over {kind} now", peer=self.peer, kind=stream.kind)
        kept, self._kept, self._kept_bytes = self._kept, deque(), 0
        for frame in kept:
            if not stream.send(frame):
                self.links.counters.streams.dropped += 1
        self._changed(self.peer)

    def stream_ended(self, stream: OutgoingStream, reason: Failure) -> None:
        """Called by a stream when its connection has ended."""
        if stream is self._trying:
            self._failed(stream, reason)
        elif stream is self.stream:
            self.stream = None
            self.links.counters.streams.lost += 1
            if self._clock.seconds() - stream.proven_at >= LASTED_SECONDS:
                self._attempts = 0
                self._try()
            else:
                self._try_later(reason, stream)
            self._changed(self.peer)

    def _failed(self, trying: OutgoingStream, reason: Failure) -> None:
        self._trying = None
        self.links.counters.streams.failed += 1
        if reason.check(ConnectionRefusedError):
            self._refused(self.peer)
        else:
            self._say(trying, reason)
        self._try_later(reason, trying)

    def _try_later(self, reason: Failure, stream: OutgoingStream) -> None:
        self._attempts += 1
        if not self._is_open:
            return
        if self._attempts % len(self._kinds) and not stream.is_proven:
            self._try()  # with the next kind, such as TCP after TLS
            return
        self._forget_kept()
        rounds = self._attempts // len(self._kinds)
        most = REFUSED_WAIT_SECONDS_MAX if reason.check(ConnectionRefusedError) else WAIT_SECONDS_MAX
        wait = min(most, FIRST_WAIT_SECONDS * 2 ** min(rounds, 10)) * self._rng.uniform(0.5, 1.0)
        self._cancel_call()
        self._call = self._clock.callLater(wait, self._try_now)

    def _try_now(self) -> None:
        self._call = None
        self._try()

    def _cancel_call(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _forget_kept(self) -> None:
        self.links.counters.streams.dropped += len(self._kept)
        self._kept.clear()
        self._kept_bytes = 0

    def _say(self, trying: OutgoingStream, reason: Failure) -> None:
        """Log why the peer cannot be reached, unless the log has said the same lately."""
        of_tls = shown_reason(reason)
        text = trying.error or (_plain_reason(reason) if of_tls is None else f"it {of_tls}")
        now = self._clock.seconds()
        if text != self._said or now - self._said_at >= SAID_SECONDS:
            self._said, self._said_at = text, now
            self.log.warn(
                "server {peer} at {where} is not reached over {kind}: {text}; trying again",
                peer=self.peer,
                where=trying.address.shown,
                kind=trying.kind,
                text=text,
            )


def _plain_reason(reason: Failure) -> str:
    if reason.check(ConnectionDone, ConnectionLost):
        return "it has closed the connection without an answer"
    if reason.check(ConnectError):
        error: Any = reason.value
        return str(error) or "it cannot be connected to"
    return reason.getErrorMessage()
