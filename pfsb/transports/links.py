"""All of a transport but the moving of bytes: encode, seal, count, lose on purpose; open, check, hand up.

A carrier moves frames. It is given to `Links` as a function that takes a frame to a peer, and calls `frame_arrived` for
each one that comes in and `refused` where it learns that nobody is there. UDP is one carrier; a network in memory is
another:

    links = Links(membership, clock, faults, carry=lambda peer, frame: network.carry(own_id, peer, frame))
    links.start(receiver, identity, incarnation)
    network.attach(own_id, links.frame_arrived)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pfsb.paxos.interfaces import IFrameReceiver, ITransport
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import FrameCodec, FrameIdentity, FrameRefused
from pfsb.transports.pending_calls import PendingCalls
from pfsb.transports.wire import encode

if TYPE_CHECKING:
    from pfsb.paxos.messages import Message

FrameSender = Callable[[int, bytes], None]
"""Takes a frame to the peer with this id. Never raises, never blocks, may lose it."""

LOG_SECONDS: Final = 1.0
"""At most one line in so many seconds about each kind of trouble."""
HINT_SECONDS: Final = 0.05
"""At most one `peer_refused` in so many seconds about each peer: a hint is not worth more."""

UNSENDABLE: Final = (ValueError, OverflowError)
"""`FrameTooLarge`, and what msgpack says to half a surrogate pair or an integer of more than 64 bits."""


@define
class TransportCounters:
    """What went over the links since the start. Frames and bytes are those given to, or taken from, the network."""

    frames_out: int = 0
    frames_in: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    messages_out: Counter[str] = field(factory=Counter)
    """By type; a message to all counts once for each peer, lost ones included."""
    messages_in: Counter[str] = field(factory=Counter)
    """By type; those handed up."""
    refused: Counter[str] = field(factory=Counter)
    """Frames that came in and were dropped, by `FrameRefused.reason`."""
    lost_by_fault: int = 0
    """Frames that a FAULT lost, on the way in or out."""
    unsendable: int = 0
    """Messages dropped before they became frames: too large, not encodable, to no peer of ours."""
    send_errors: int = 0
    """Frames that the network would not take."""
    refusals: int = 0
    """How often a peer's address told that nobody is there."""


@define(eq=False)
class Seldom:
    """Lets one event of a kind through in a while, and counts the others."""

    _clock: IReactorTime
    _seconds: float
    _next: dict[Hashable, float] = field(init=False, factory=dict)
    _suppressed: Counter[Hashable] = field(init=False, factory=Counter)

    def admits(self, kind: Hashable) -> bool:
        """Whether it is time for one of this kind again."""
        now = self._clock.seconds()
        if now < self._next.get(kind, now):
            self._suppressed[kind] += 1
            return False
        self._next[kind] = now + self._seconds
        return True

    def suppressed(self, kind: Hashable) -> int:
        """How many were not admitted since this was last asked."""
        return self._suppressed.pop(kind, 0)


@implementer(ITransport)
@define(eq=False)
class Links:
    """The links of one server to all others, over any carrier. Before `start` and after `stop` it is deaf and dumb."""

    log = Logger()

    membership: FrameIdentity
    _clock: IReactorTime
    faults: LinkFaults
    _sender: FrameSender
    _secret: bytes | None = field(default=None, repr=False)
    counters: TransportCounters = field(init=False, factory=TransportCounters)
    _codec: FrameCodec | None = field(init=False, default=None)
    _receiver: IFrameReceiver | None = field(init=False, default=None)
    _hints: PendingCalls = field(init=False)
    _hint_limit: Seldom = field(init=False)
    _log_limit: Seldom = field(init=False)

    @_hints.default
    def _make_hints(self) -> PendingCalls:
        return PendingCalls(self._clock)

    @_hint_limit.default
    def _make_hint_limit(self) -> Seldom:
        return Seldom(self._clock, HINT_SECONDS)

    @_log_limit.default
    def _make_log_limit(self) -> Seldom:
        return Seldom(self._clock, LOG_SECONDS)

    def start(self, receiver: IFrameReceiver, identity: bytes, incarnation: int) -> None:
        """Begin to take frames. Raises ValueError if the secret or the identity cannot be used."""
        self._codec = FrameCodec(self.membership, identity, incarnation, self._secret)
        self._receiver = receiver

    def stop(self) -> None:
        """Nothing is sent or handed up from here on, not even what is under way."""
        self._codec = self._receiver = None
        self._hints.cancel()
        self.faults.stop()

    # -- out --------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        """Send to one server, or to all others (None). Never raises, never blocks.

        Departure 27: there is no multicast; each peer gets a frame of its own, of messages that are encoded once.
        """
        if self._codec is None:
            return
        if to is not None and to not in self.membership.peers:
            self._drop(messages, "server {to} is no peer of ours", to=to)
            return
        peers: Iterable[int] = sorted(self.membership.peers) if to is None else (to,)
        frames = self._sealed(self._codec, messages)
        for peer in peers:
            _count(messages, self.counters.messages_out)
            for frame in frames:
                self._send_frame(peer, frame)

    def _sealed(self, codec: FrameCodec, messages: Sequence[Message]) -> list[bytes]:
        try:
            return codec.seal([encode(message) for message in messages])
        except UNSENDABLE:
            return self._sealed_one_by_one(codec, messages)

    def _sealed_one_by_one(self, codec: FrameCodec, messages: Sequence[Message]) -> list[bytes]:
        """One message that cannot be sent must not take the others with it."""
        frames: list[bytes] = []
        for message in messages:
            try:
                frames += codec.seal([encode(message)])
            except UNSENDABLE as error:
                self._drop([message], "{error}", error=error)
        return frames

    def _drop(self, messages: Sequence[Message], why: str, **fields: object) -> None:
        self.counters.unsendable += len(messages)
        if self._log_limit.admits("unsendable"):
            names = ", ".join(type(message).__name__ for message in messages)
            more = self._log_limit.suppressed("unsendable")
            self.log.error("not sent: {names}: " + why + " ({more} more like this)", names=names, more=more, **fields)

    def _send_frame(self, peer: int, frame: bytes) -> None:
        if not self.faults.admits(peer):
            self.counters.lost_by_fault += 1
        elif not self.faults.delay_ms:
            self._send_now(peer, frame)
        elif not self.faults.hold_back(self._send_now, peer, frame):
            self.counters.lost_by_fault += 1

    def _send_now(self, peer: int, frame: bytes) -> None:
        self.counters.frames_out += 1
        self.counters.bytes_out += len(frame)
        self._sender(peer, frame)

    # -- in ---------------------------------------------------------------------------------------

    def frame_arrived(self, frame: bytes, source: object = "the network") -> None:
        """The carrier has a frame; `source` is where it came from, for the log.

        Whatever the bytes are, they raise nothing. What the receiver raises goes on to the carrier: the receiver knows
        how to fail (docs/internals/turn.rst), and a simulation must see it.
        """
        if self._codec is None or self._receiver is None:
            return
        self.counters.frames_in += 1
        self.counters.bytes_in += len(frame)
        try:
            opened = self._codec.open(frame)
        except FrameRefused as refusal:
            self._refuse(refusal, source)
            return
        if not self.faults.admits(opened.sender):
            self.counters.lost_by_fault += 1
            return
        _count(opened.messages, self.counters.messages_in)
        self._receiver.receive(opened.sender, opened.identity, opened.messages)

    def _refuse(self, refusal: FrameRefused, source: object) -> None:
        self.counters.refused[refusal.reason] += 1
        if self._log_limit.admits(refusal.reason):
            self.log.warn(
                "frame from {source} refused ({reason}): {refusal} ({more} more like this)",
                source=source,
                reason=refusal.reason,
                refusal=refusal,
                more=self._log_limit.suppressed(refusal.reason),
            )

    def connection_refused(self, peer: int) -> None:
        """The carrier has learned that nobody is at that peer's address."""
        if self._receiver is None:
            return
        self.counters.refusals += 1
        if self._hint_limit.admits(peer):
            # Later, since a carrier learns of it inside `send`, too, and turns never nest (docs/internals/turn.rst).
            self._hints.call(0, self._receiver.peer_refused, peer)

    def send_failed(self, peer: int, error: Exception) -> None:
        """The carrier could not send a frame; it is lost."""
        self.counters.send_errors += 1
        if self._log_limit.admits(("send", peer)):
            more = self._log_limit.suppressed(("send", peer))
            self.log.warn(
                "frame to server {peer} not sent: {error} ({more} more like this)", peer=peer, error=error, more=more
            )


def _count(messages: Sequence[Message], by_type: Counter[str]) -> None:
    for message in messages:
        by_type[type(message).__name__] += 1
