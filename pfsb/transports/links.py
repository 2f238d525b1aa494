"""Everything that a transport does except moving frames: pack and count messages, apply faults, check what comes in.

A network moves the frames. It gives `Links` a `FrameSender`, a function that sends a frame to a peer, and calls
`frame_arrived` for each frame that comes in and `connection_refused` when it learns that no process listens at a peer's
address. UDP is one such network; a network in memory would be connected like this:

    links = Links(membership, clock, faults, lambda peer, frame: network.carry(own_id, peer, frame))
    links.start(receiver, identity, start, position)
    network.attach(own_id, links.frame_arrived)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pfsb.paxos.interfaces import IFrameReceiver, ITransport
from pfsb.paxos.messages import Ordered
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import (
    FRAME_BYTES_MAX,
    NOT_KNOWN,
    FrameCodec,
    FrameIdentity,
    FrameRefused,
    OpenedFrame,
    as_secrets,
)
from pfsb.transports.notices import Notice, Probe
from pfsb.transports.path import Path, PathCounters
from pfsb.transports.pending_calls import PendingCalls
from pfsb.transports.wire import LATER, Malformed, encode, encode_any, encode_later

if TYPE_CHECKING:
    from pfsb.paxos.members import Members
    from pfsb.paxos.messages import Message

FrameSender = Callable[[int, bytes], None]
"""Function that sends a frame to the peer with this id. It never raises and never blocks, and may lose the frame."""

LOG_SECONDS: Final = 1.0
"""Minimum time, in seconds, between two lines of the text log about the same kind of trouble."""
HINT_SECONDS: Final = 0.05
"""Minimum time, in seconds, between two calls of `peer_refused` about the same peer.

The call is a hint that the peer is down; more frequent hints would cost work and tell nothing new.
"""

UNSENDABLE: Final = (ValueError, OverflowError)
"""Exceptions that mean that a message cannot be sent: `FrameTooLarge`, which is a ValueError, and the exceptions that
msgpack raises for half a surrogate pair in a text or an integer of more than 64 bits. `OtherFrame`, a ValueError, too,
means that the message needs a frame of another type."""


@define
class StreamCounters:
    """Counts of the connections of one server with its peers (TCP and TLS) since its start."""

    opened: int = 0
    """Number of connections to peers that the peer has answered."""
    lost: int = 0
    """Number of such connections that have ended since, for whatever reason."""
    dead: int = 0
    """Number of connections that this server has ended because the peer did not answer on them any more."""
    failed: int = 0
    """Number of attempts to connect to a peer that came to nothing."""
    dropped: int = 0
    """Number of frames that were lost because too many bytes waited for the peer already, or since there was no
    connection to it."""
    turned_away: Counter[str] = field(factory=Counter)
    """Reason -> number of connections from elsewhere that this server has ended, since they did not show in time, or
    not rightly, that a server of the cluster is at the other end."""
    via: dict[int, str] = field(factory=dict)
    """Server id of a peer -> the transport that carries the frames for it at present: udp, tcp or tls; none, while
    there is no connection."""


@define
class TransportCounters:
    """Counts of the traffic over the links of one server since its start, and the addresses of the servers.

    `frames_out` and `bytes_out` count the frames that were given to the network, `frames_in` and `bytes_in` those that
    came from it.
    """

    frames_out: int = 0
    frames_in: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    messages_out: Counter[str] = field(factory=Counter)
    """Message type -> number of messages that were to be sent to peers. A message to n peers counts n times, and counts
    even if its frame is then lost by the line command FAULT or by the network."""
    messages_in: Counter[str] = field(factory=Counter)
    """Message type -> number of messages handed up to the receiver; those in lost or refused frames do not count."""
    refused: Counter[str] = field(factory=Counter)
    """Reason (`FrameRefused.reason`) -> number of frames that came in and were refused."""
    lost_by_fault: int = 0
    """Number of frames, sent or received, that the line command FAULT has lost: by LOSS or CUT, or when too many frames
    were held back by DELAY."""
    unsendable: int = 0
    """Number of messages that were given to `Links.send` and never became frames: they were too large or not encodable,
    or were to go to a server that is no peer."""
    send_errors: int = 0
    """Number of frames that could not be sent because the network raised an error."""
    refusals: int = 0
    """Number of times, over all peers, that the network reported that no process listens at the peer's address."""
    paths: PathCounters = field(factory=PathCounters)
    streams: StreamCounters = field(factory=StreamCounters)
    addresses: Mapping[int, str | None] = field(factory=dict)
    """Server id -> the address, as a person writes it, to which frames for that server go; for this server, where it
    listens. None: not known. Empty if the network has no addresses."""


@define(eq=False)
class Seldom:
    """A rate limit: admits at most one event of each kind in a certain number of seconds, and counts those that it does
    not admit.
    """

    _clock: IReactorTime
    _seconds: float
    _next: dict[Hashable, float] = field(init=False, factory=dict)
    _suppressed: Counter[Hashable] = field(init=False, factory=Counter)

    def admits(self, kind: Hashable) -> bool:
        """Whether an event of this kind, which happens now, is admitted. If not, the event is counted (see
        `suppressed`).
        """
        now = self._clock.seconds()
        if now < self._next.get(kind, now):
            self._suppressed[kind] += 1
            return False
        self._next[kind] = now + self._seconds
        return True

    def suppressed(self, kind: Hashable) -> int:
        """Return how many events of this kind were not admitted since the last call of this method for this kind."""
        return self._suppressed.pop(kind, 0)


def _from_anywhere(_peer: int, _source: object) -> bool:
    return True


@implementer(ITransport)
@define(eq=False)
class Links:
    """The links of one server to all others, over any network. Before `start` and after `stop` they carry nothing."""

    log = Logger()

    membership: FrameIdentity
    _clock: IReactorTime
    faults: LinkFaults
    _sender: FrameSender
    _secrets: Sequence[bytes] = field(default=(), converter=as_secrets, repr=False)
    """Secrets of the cluster: frames are sent with the first one, and taken with any. Empty: frames are not keyed."""
    _is_from: Callable[[int, object], bool] = _from_anywhere
    """is_from(peer, source): whether a frame of server `peer` may have come from `source`, as given to `frame_arrived`.
    Called for each frame that has passed all other checks. It may also raise `FrameRefused`, with the reason.
    """
    counters: TransportCounters = field(init=False, factory=TransportCounters)
    _codec: FrameCodec | None = field(init=False, default=None)
    _paths: dict[int, Path] = field(init=False, factory=dict)
    _is_measured: bool = field(init=False, default=False)
    """Whether `measure` was called for a peer: the path to it may carry less than a whole frame in one datagram."""
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

    def start(
        self,
        receiver: IFrameReceiver,
        identity: bytes,
        start: int,
        position: Callable[[], int],
        passes: bytes = NOT_KNOWN,
    ) -> None:
        """Begin to send and to take frames; the arguments are those of `ITransport.start`. Raises ValueError if the
        secret or the identity cannot be used."""
        self.membership.passes = passes
        self._codec = FrameCodec(self.membership, identity, start, self._secrets, position)
        self._receiver = receiver
        self._paths = {peer: self._path(self._codec, peer) for peer in sorted(self.membership.receivers)}

    def take_secrets(self, secrets: Sequence[bytes]) -> None:
        """Use these secrets from now on. Raises ValueError if there were none before, or are none now."""
        if self._codec is not None:
            self._codec.take_secrets(secrets)
        self._secrets = secrets

    def send_by(self, sender: FrameSender) -> None:
        """Send frames by this function from now on."""
        self._sender = sender

    def _path(self, codec: FrameCodec, peer: int) -> Path:
        return Path(peer, self._clock, codec, lambda frame: self._send_frame(peer, frame), self.counters.paths)

    def measure(self, peer: int, most: int = FRAME_BYTES_MAX) -> None:
        """Find out by probes how large a datagram to this peer may be, and send larger frames in parts, from now on.

        The network calls this after `start` for each peer that is on another machine, and again when its address has
        changed. To a peer on this machine, every frame is one datagram. `most` is the size, in bytes, that no datagram
        exceeds.
        """
        self._paths[peer].measure(most)
        self._is_measured = True

    def carry_whole(self, peer: int) -> None:
        """Send each frame for this peer in one piece from now on: a stream carries it, and not datagrams."""
        self._paths[peer].carry_whole()

    def hello(self) -> bytes:
        """A frame that shows who sends it, and which every version of pfsb answers: a probe. Called between `start` and
        `stop` only."""
        assert self._codec is not None
        return self._codec.seal_notice(Probe(0))

    @property
    def is_running(self) -> bool:
        """Whether these links take and send frames: they were started and not stopped."""
        return self._codec is not None

    def path(self, peer: int) -> Path:
        """The path to this peer. Raises KeyError before `start`."""
        return self._paths[peer]

    def know_cluster(self, identity: bytes) -> None:
        """Give the links the identity of the cluster: their frames carry it from now on.

        Frames that carry another identity are refused from now on, even with the same name and servers of the cluster;
        see `ITransport`.
        """
        self.membership.cluster_identity = identity

    def enter_epoch(self, members: Members, others: Collection[int]) -> None:
        """Send to the servers of an epoch of the membership from now on, in frames that tell the epoch; see
        `ITransport`."""
        membership, codec = self.membership, self._codec
        membership.epoch, membership.peers = members.epoch, frozenset(others)
        membership.former = frozenset(members.retired)
        if codec is not None:
            for peer in sorted({*others, *members.retired} - {membership.server_id, *self._paths}):
                self._paths[peer] = self._path(codec, peer)

    def stop(self) -> None:
        """End the links: from now on nothing is sent or handed up, not even frames that are under way."""
        self._codec = self._receiver = None
        for path in self._paths.values():
            path.stop()
        self._hints.cancel()
        self.faults.stop()

    # -- out --------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message], to: int | None) -> None:
        """Send messages to one server, or to all other servers (None). Never raises, never blocks.

        Departure 27: there is no multicast; the messages are packed into frames once, and the frames are then sent to
        each peer separately.
        """
        if self._codec is None:
            return
        if to is not None and to not in self._paths:
            self._drop(messages, "server {to} is no peer of ours", to=to)
            return
        peers = sorted(self.membership.peers) if to is None else [to]
        if not peers:
            return  # this server is alone, perhaps since the others were removed
        _count(messages, self.counters.messages_out, len(peers))
        if self._is_measured:
            self._send_measured(self._codec, messages, peers)
            return
        frames = self._sealed(self._codec, messages, FRAME_BYTES_MAX)
        for peer in peers:
            for frame in frames:
                self._send_frame(peer, frame)

    def _send_measured(self, codec: FrameCodec, messages: Sequence[Message], peers: Sequence[int]) -> None:
        """Send messages to these peers, of which some are on other machines.

        Departure 46: several messages share a frame only if the narrowest of the paths carries it in one datagram. So a
        small message never waits for the parts of a large one.
        """
        paths = [self._paths[peer] for peer in peers]
        frames = self._sealed(codec, messages, min(path.size for path in paths))
        for path in paths:
            if not path.is_measured:
                for frame in frames:
                    self._send_frame(path.peer, frame)
                continue
            if len(frames) > 1:
                path.larger_wanted()
            for frame in frames:
                path.send(frame)

    def _sealed(self, codec: FrameCodec, messages: Sequence[Message], packed_bytes: int) -> list[bytes]:
        try:
            return codec.seal([encode(message) for message in messages], packed_bytes)
        except UNSENDABLE:
            if messages and isinstance(messages[0], Ordered):
                return self._sealed_behind_ordered(codec, messages, packed_bytes)
            return self._sealed_one_by_one(codec, messages)

    def _sealed_behind_ordered(self, codec: FrameCodec, messages: Sequence[Message], packed_bytes: int) -> list[bytes]:
        """Pack ORDEREDs and the PROPOSALs that follow them into one frame or, if they do not fit, into several."""
        behind = next((at for at, message in enumerate(messages) if not isinstance(message, LATER)), len(messages))
        try:
            encoded = [encode_any(message) for message in messages]
            if codec.fits(encoded, packed_bytes):
                return codec.seal(encoded, packed_bytes, later=True)
            if not any(isinstance(message, LATER) for message in messages[behind:]):
                first = codec.seal(encoded[:behind], packed_bytes, later=True)
                return [*first, *codec.seal(encoded[behind:], packed_bytes)]
        except UNSENDABLE:
            pass
        return self._sealed_one_by_one(codec, messages)

    def _sealed_one_by_one(self, codec: FrameCodec, messages: Sequence[Message]) -> list[bytes]:
        """Pack each message into a frame of its own; messages that cannot be sent are dropped, the others are kept."""
        frames: list[bytes] = []
        for message in messages:
            try:
                if isinstance(message, LATER):
                    frames += codec.seal([encode_later(message)], later=True)
                else:
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

    @property
    def codec(self) -> FrameCodec | None:
        """The codec that packs and checks the frames of these links; None before `start` and after `stop`."""
        return self._codec

    # -- in ---------------------------------------------------------------------------------------

    def frame_arrived(self, frame: bytes, source: object = "the network") -> int | None:
        """Called by the network with a frame that it has received; `source` says where it came from. Returns the id of
        the server that has sent the frame; None: the frame was refused.

        Bytes that are no proper frame raise nothing. An exception of the receiver is passed on to the network: a server
        handles the exceptions of its own turns (`Turn.run`), and a simulation must see any other exception.
        """
        if self._codec is None or self._receiver is None:
            return None
        self.counters.frames_in += 1
        self.counters.bytes_in += len(frame)
        try:
            sender, identity, start, position, messages, notice, epoch = self._codec.open(frame)
            if not self._is_from(sender, source):
                raise _from_elsewhere(sender)
        except FrameRefused as refusal:
            self._refuse(refusal, source)
            return None
        if not self.faults.admits(sender):
            self.counters.lost_by_fault += 1
            return sender
        if notice is not None:
            self._notice_arrived(self._codec, sender, notice, frame, source)
            return sender
        _count(messages, self.counters.messages_in)
        self._receiver.receive(sender, identity, messages, start, position, epoch)
        return sender

    def _notice_arrived(self, codec: FrameCodec, sender: int, notice: Notice, frame: bytes, source: object) -> None:
        """Give a notice, which came in `frame` from the address `source`, to the path of its sender. If the notice was
        the last missing part of a larger frame, hand up the messages of that larger frame.

        A notice that is malformed, and a larger frame that does not pass the checks, are refused.
        """
        try:
            whole = self._paths[sender].arrived(notice, frame)
            opened = None if whole is None else _opened_whole(codec, sender, whole)
        except Malformed as error:
            self._refuse(FrameRefused("body", str(error)), source)
            return
        except FrameRefused as refusal:
            self._refuse(refusal, source)
            return
        if opened is not None and self._receiver is not None:
            _count(opened.messages, self.counters.messages_in)
            identity, start, position = opened.identity, opened.start, opened.position
            self._receiver.receive(sender, identity, opened.messages, start, position, opened.epoch)

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
        """Called by the network when it has learned that no process listens at the address of server `peer`."""
        if self._receiver is None:
            return
        self.counters.refusals += 1
        self._paths[peer].peer_is_down()
        if self._hint_limit.admits(peer):
            # The receiver is called later: the network may have learned this inside `send`, which a turn calls, and
            # the call of the receiver is a turn itself. Turns never nest.
            self._hints.call(0, self._receiver.peer_refused, peer)

    def datagram_refused(self, peer: int, size: int, limit: int) -> None:
        """Called by the network when this machine does not send a datagram of this size, in bytes, to server `peer`.

        `limit` is the size of the largest datagram that it sends, in bytes. The datagram is lost.
        """
        if self._receiver is not None:
            self._paths[peer].refused(size, limit)

    def path_doubted(self, peer: int) -> None:
        """Called by the network when a router says that it has dropped a datagram to server `peer` as too large.

        The size of the datagrams to that server comes down only if probes confirm it, since any host can forge such a
        message.
        """
        if self._receiver is not None:
            self._paths[peer].doubt()

    def send_failed(self, peer: int, error: Exception) -> None:
        """Called by the network when it could not send a frame to server `peer`; the frame is lost."""
        self.counters.send_errors += 1
        if self._log_limit.admits(("send", peer)):
            more = self._log_limit.suppressed(("send", peer))
            self.log.warn(
                "frame to server {peer} not sent: {error} ({more} more like this)", peer=peer, error=error, more=more
            )


def _opened_whole(codec: FrameCodec, sender: int, frame: bytes) -> OpenedFrame:
    """Open a frame that came in parts from this sender. Raises `FrameRefused` as `FrameCodec.open` does."""
    opened = codec.open(frame, came_in_parts=True)
    if opened.notice is not None or opened.sender != sender:
        raise FrameRefused("body", f"parts from server {sender} make up a frame that is none of its messages")
    return opened


def _from_elsewhere(sender: int) -> FrameRefused:
    """Departure 41: the refusal, in a cluster without a secret, of a frame that does not come from its sender's
    address."""
    return FrameRefused(
        "address",
        f"in the name of server {sender}, whose address this is not; without secret_file a frame counts only if it "
        "comes from the configured address",
    )


def _count(messages: Sequence[Message], by_type: Counter[str], copies: int = 1) -> None:
    for message in messages:
        by_type[type(message).__name__] += copies
