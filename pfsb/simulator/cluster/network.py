"""The network of a simulated cluster: it loses, delays, duplicates and reorders frames, and damages some if told to.

The frames are those of the real codec. A test that needs one message held back or lost adds a filter, and a checker
that needs to see every message that leaves a server adds an observer; both take effect where messages become frames
(`pfsb.simulator.cluster.transport`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from struct import pack

from attrs import define, field, frozen

from pfsb.paxos.messages import Accept, Message, Ordered
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.cluster.clock import ServerClock, SimulatedClock
from pfsb.simulator.cluster.names import ELSEWHERE, PORT, Route, SimulatedNames
from pfsb.transports.links import Links
from pfsb.transports.path_size import ETHERNET_BYTES

BUFFERED_FRAMES_MAX = 2_000
"""Maximum number of frames that wait for a paused server. Further frames are lost, as in a kernel's socket buffer."""


@frozen
class LinkQuality:
    """The behaviour of one direction of a link.

    `loss`, `duplication`, `reordering`, `stragglers` and `echoes` are probabilities, from 0 to 1; whether a frame
    suffers one of these faults is decided for each frame by itself. Times are in seconds.
    """

    delay_seconds: tuple[float, float] = (0.0002, 0.001)
    """Shortest and longest delay of a frame, in seconds. Frames that suffer no further delay do not overtake each
    other."""
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Chance that a frame takes up to `detour_seconds` longer, and may be overtaken by later frames."""
    detour_seconds: float = 0.05
    stragglers: float = 0.0
    """Chance that a frame takes up to `straggling_seconds` longer, and may be overtaken by later frames."""
    straggling_seconds: float = 10.0
    echoes: float = 0.0
    """Chance that a copy of a frame arrives once more, up to `straggling_seconds` later."""
    frames_max: int = 100_000
    """Maximum number of frames under way in this direction. Further frames are lost, as in a full router."""


@frozen
class PathLimits:
    """The limits of one direction of a link that leads over a network to another machine: how large a datagram may be
    that passes, and how many bytes may be under way.

    A datagram that is larger than `interface_bytes` is refused by the sender's own machine; one that is larger than
    `path_bytes` is lost on the way, and the sender is not told. If the sender allows fragments, a larger datagram
    travels in fragments of `path_bytes`, and is lost if one of them is.
    """

    interface_bytes: int = ETHERNET_BYTES
    path_bytes: int = ETHERNET_BYTES
    fragment_loss: float = 1.0
    """Chance that one fragment is lost; 1: a network that drops all fragments, as those of most clouds do."""
    buffer_bytes: int = 200_000
    """Maximum number of bytes under way in this direction. Further frames are lost, as in a full socket buffer."""


@frozen
class SocketBuffer:
    """The buffer of a server's receiving socket: the frames of all senders wait there until the server reads them.

    A frame that finds no room is lost. An empty buffer takes one frame of any size, as Linux does. A frame takes room
    until it has been read.
    """

    frames_max: int = BUFFERED_FRAMES_MAX
    bytes_max: int = 2**30
    reading_seconds: float = 0.0001
    """How long, in seconds, a server takes to read and handle one frame."""


@frozen
class MessageFault:
    """A delay and a loss that some messages suffer, most often those of one kind, in addition to the loss of the link.

    Each message with such a fault travels in a frame of its own.
    """

    seconds: tuple[float, float] = (0.0, 0.0)
    """Shortest and longest delay in addition to the link's `delay_seconds`. Other frames may overtake these
    messages."""
    loss: float = 0.0


@frozen
class SelectiveLink:
    """One direction of a link that lets messages of some kinds through; all other messages suffer a `MessageFault`."""

    kinds: frozenset[type[Message]]
    others: MessageFault


@define
class Link:
    """One direction of a link, from one server to another."""

    quality: LinkQuality
    cut: bool = False
    last_arrival: float = 0.0
    frames: int = 0
    """Number of frames under way in this direction."""
    limits: PathLimits | None = None
    """How large a datagram may be, and how many bytes may be under way, in this direction; None: frames of any size
    travel whole, as between two servers on one machine."""
    bytes: int = 0
    """Number of bytes under way in this direction."""


@frozen
class Passage:
    """One message that is about to travel from one server to another."""

    sender: int
    receiver: int
    message: Message


PassageFilter = Callable[[Passage], bool]
"""Function that takes a `Passage`, one message for one server, and returns True if that message must not be sent.

While it is in `SimulatedNetwork.filters`, the sender's `SimulatedTransport` calls it for each message and each
receiver, before the message becomes part of a frame, unless another filter has stopped the message already.
"""
FrameObserver = Callable[[int, bytes], None]
"""Call-back with (sender, frame), called once for each receiver of each frame that leaves a server."""
MisdirectionObserver = Callable[[int, int, bytes], None]
"""Call-back with (sender, receiver, frame), called for each frame that goes to another server than it is meant for.

The sender has used an address that belongs to that other server by now.
"""
SendObserver = Callable[[int, int | None, Sequence[Message]], None]
"""Call-back with (sender, receiver or None for all other servers, messages).

While it is in `SimulatedNetwork.observers`, the sender's `SimulatedTransport` calls it once each time that messages
leave the server, before any filter may stop them.
"""


@define(eq=False)
class HeldMessages:
    """A `PassageFilter` that stops the messages for which `matches` is true, and keeps them until `release` sends
    them."""

    network: SimulatedNetwork
    matches: Callable[[Passage], bool]
    passages: list[Passage] = field(factory=list)

    def __call__(self, passage: Passage) -> bool:
        if not self.matches(passage):
            return False
        self.passages.append(passage)
        return True

    def release(self) -> None:
        """Stop holding messages back, and send those that were held, in order."""
        if self in self.network.filters:
            self.network.filters.remove(self)
        passages, self.passages = self.passages, []
        for passage in passages:
            self.network.inject(passage)


class DamagedFrame(bytes):
    """A frame that was damaged on its way. The server that gets it must refuse it."""


@define(eq=False)
class Endpoint:
    """Where the frames for a running server go: its `Links` take them, and its clock tells whether it is paused."""

    clock: ServerClock
    links: Links
    refused: Callable[[int], None]
    """Called with the id of a peer when no process listens at the address to which a frame for that peer went."""
    waiting: deque[tuple[bytes, object]] = field(factory=deque)
    """Frames that wait in the socket's buffer, if the network has one (`SimulatedNetwork.buffer`)."""

    def has_room(self, buffer: SocketBuffer, size: int) -> bool:
        """Whether the buffer takes one more frame of `size` bytes."""
        if not self.waiting:
            return True
        in_use = sum(len(frame) for frame, _source in self.waiting)
        return len(self.waiting) < buffer.frames_max and in_use + size <= buffer.bytes_max


@define(eq=False)
class SimulatedNetwork:
    """All links between the servers. Every random decision of the network comes from one `rng`."""

    clock: SimulatedClock
    rng: random.Random
    servers: Sequence[int]
    """Ids of all servers that there may ever be: there are links between all of them."""
    quality: LinkQuality = field(factory=LinkQuality)
    refusals: bool = False
    """Whether a sender is told that the receiver is not running, as by a host that refuses the packet."""
    filters: list[PassageFilter] = field(factory=list)
    observers: list[SendObserver] = field(factory=list)
    frame_observers: list[FrameObserver] = field(factory=list)
    misdirection_observers: list[MisdirectionObserver] = field(factory=list)
    lasting_faults: dict[type[Message], MessageFault] = field(factory=dict)
    """Kind of message -> its fault in this network, from the beginning to the end of a run."""
    passing_faults: dict[type[Message], MessageFault] = field(factory=dict)
    """Kind of message -> its fault for a while. Such a fault replaces the lasting fault of the same kind."""
    selective_links: dict[tuple[int, int], SelectiveLink] = field(factory=dict)
    """(sender, receiver) -> the selective link in this direction, until it is mended.

    For messages that it does not let through, its fault replaces their lasting or passing fault.
    """
    names: SimulatedNames | None = None
    """The addresses of the servers, and their names; None: each server is always where the others expect it."""
    damage: float = 0.0
    """Chance that a frame is damaged on its way, from 0 to 1."""
    buffer: SocketBuffer | None = None
    """The size and pace of the buffer that each server's receiving socket has; None: a server reads each frame when it
    arrives."""
    founders: Sequence[int] = ()
    """Ids of the servers with which the cluster begins, as the frames name it; empty: all `servers`."""
    frames: int = field(default=0, init=False)
    damaged: int = field(default=0, init=False)
    """Number of damaged frames that have come to a running server."""
    too_large: int = field(default=0, init=False)
    """Number of datagrams that were lost because they were larger than a link carries."""
    overflows: int = field(default=0, init=False)
    """Number of frames that were lost because a socket's buffer was full."""
    _links: dict[tuple[int, int], Link] = field(init=False)
    _endpoints: dict[int, Endpoint] = field(factory=dict, init=False)
    _frames_lost_before: float = field(default=-1.0, init=False)
    """Simulated time, in seconds, of the latest `lose_frames_under_way`: frames that were sent before it do not
    arrive.
    """
    _hash: blake2b = field(factory=lambda: blake2b(digest_size=16), init=False)

    @_links.default
    def _make_links(self) -> dict[tuple[int, int], Link]:
        return {(a, b): Link(self.quality) for a in self.servers for b in self.servers if a != b}

    # ------------------------------------------------------------------ settings of links and messages

    def link(self, sender: int, receiver: int) -> Link:
        return self._links[sender, receiver]

    def set_quality(self, quality: LinkQuality, links: Iterable[tuple[int, int]] | None = None) -> None:
        """From now on, `quality` holds for each direction (sender, receiver) in `links`; None: for each direction of
        the network."""
        for pair in self._links if links is None else links:
            self._links[pair].quality = quality

    def set_limits(self, limits: PathLimits | None, links: Iterable[tuple[int, int]] | None = None) -> None:
        """From now on, `limits` hold for each direction (sender, receiver) in `links`; None: for each direction of the
        network.

        A server notices only at its start whether there are limits between it and a peer: None stands for two servers
        on one machine.
        """
        for pair in self._links if links is None else links:
            self._links[pair].limits = limits

    def cut(self, sender: int, receiver: int) -> None:
        """Let this direction of the link carry nothing until it is mended.

        A frame that is under way now is lost if it would arrive before the link is mended.
        """
        self._links[sender, receiver].cut = True

    def mend(self, sender: int, receiver: int) -> None:
        self._links[sender, receiver].cut = False
        self.selective_links.pop((sender, receiver), None)

    def mend_all(self) -> None:
        for link in self._links.values():
            link.cut = False
        self.selective_links.clear()

    def fault_of(self, message: Message, sender: int, receiver: int | None) -> MessageFault | None:
        """The fault that a message suffers; None if it suffers none, and travels in one frame with other messages.

        `receiver` is None for a message to all servers. While a link is selective, the transport sends such a message
        to each server by itself.
        """
        selective_link = None if receiver is None else self.selective_links.get((sender, receiver))
        if selective_link is not None and type(message) not in selective_link.kinds:
            return selective_link.others
        kind = type(message)
        fault = self.passing_faults.get(kind) or self.lasting_faults.get(kind)
        if fault is None and kind is Ordered:
            # An ORDERED stands for the votes of a majority, so it suffers from the faults of votes, unless it has some
            # of its own.
            return self.passing_faults.get(Accept) or self.lasting_faults.get(Accept)
        return fault

    def lose_frames_under_way(self) -> None:
        """Lose all frames under way. Late frames would disturb a part of the run that expects a healthy network."""
        self._frames_lost_before = self.clock.seconds()

    def drop(self, matches: PassageFilter) -> PassageFilter:
        """Lose each message for which `matches` is true, from now on.

        Returns `matches`. The loss ends when the caller takes this function out of `filters`.
        """
        self.filters.append(matches)
        return matches

    def hold(self, matches: Callable[[Passage], bool]) -> HeldMessages:
        """Hold back each message for which `matches` is true, until `release` of the returned object is called."""
        held = HeldMessages(self, matches)
        self.filters.append(held)
        return held

    def inject(self, passage: Passage) -> None:
        """Send a message that was held back, if its sender is still running."""
        endpoint = self._endpoints.get(passage.sender)
        if endpoint is not None:
            endpoint.links.send([passage.message], passage.receiver)

    def hand_over(self, receiver: int, frame: bytes) -> None:
        """Deliver a frame that no simulated server has sent, at once. A server that is down or paused gets nothing.

        If servers have addresses, the frame comes from one that no server has.
        """
        endpoint = self._endpoints.get(receiver)
        if endpoint is not None and not endpoint.clock.paused:
            endpoint.links.frame_arrived(frame, ELSEWHERE)

    def note(self, seen: bytes) -> None:
        """Include bytes in `digest` that are not part of a frame, such as an answer to a client."""
        self._hash.update(seen)

    @property
    def digest(self) -> str:
        """A hash over the time, sender, receiver and bytes of every frame so far, and over the bytes with which `note`
        was called. If two runs have equal digests, the same frames were sent at the same times."""
        return self._hash.hexdigest()

    # ------------------------------------------------------------------ carrying

    def attach(self, server_id: int, endpoint: Endpoint) -> None:
        self._endpoints[server_id] = endpoint

    def detach(self, server_id: int) -> None:
        """Take away the receiving end of a server that has ended."""
        self._endpoints.pop(server_id, None)

    def endpoint(self, server_id: int) -> Endpoint:
        """The receiving end of a server that is attached."""
        return self._endpoints[server_id]

    def is_attached(self, server_id: int) -> bool:
        """Whether this server is running and receives frames."""
        return server_id in self._endpoints

    def carry(
        self,
        sender: int,
        receiver: int,
        frame: bytes,
        fault: MessageFault | None = None,
        route: Route | None = None,
    ) -> None:
        """Take a frame that a server sends. The frame arrives later: once, several times or never.

        `fault` is that of the messages in the frame; None: they have none. `route` has the frame's addresses, and the
        server that it is meant for; None: servers have no addresses, and the frame is meant for `receiver`.
        """
        link = self._links[sender, receiver]
        peer = receiver if route is None else route.peer
        if link.limits is not None and self._is_refused(link.limits, sender, peer, len(frame)):
            return
        self.frames += 1
        self._hash.update(pack(">dHHI", self.clock.seconds(), sender, receiver, len(frame)) + frame)
        for observer in self.frame_observers:
            observer(sender, frame)
        quality = link.quality
        if link.limits is not None and not self._fits(link, link.limits, sender, peer, len(frame)):
            return
        if link.cut or link.frames >= quality.frames_max or self._draws(quality.loss):
            return
        if fault is not None and self._draws(fault.loss):
            return
        if self._draws(self.damage):
            frame = self._damaged(frame)
        self._send_off(link, sender, receiver, frame, fault, route)
        if self._draws(quality.duplication):
            self._send_off(link, sender, receiver, frame, fault, route)
        if self._draws(quality.echoes):
            self._send_off(link, sender, receiver, frame, MessageFault((0.0, quality.straggling_seconds)), route)

    def _is_refused(self, limits: PathLimits, sender: int, peer: int, size: int) -> bool:
        """Whether the sender's own machine refuses a datagram of this size, in bytes, which is meant for this peer; if
        so, the sender is told."""
        links = self._endpoints[sender].links
        if size <= limits.interface_bytes or not links.path(peer).is_measured:
            return False
        links.datagram_refused(peer, size, limits.interface_bytes)
        return True

    def _fits(self, link: Link, limits: PathLimits, sender: int, peer: int, size: int) -> bool:
        """Whether a datagram of this size, in bytes, which is meant for this peer, passes the limits of a link."""
        is_too_large = size > limits.path_bytes
        if is_too_large and not self._endpoints[sender].links.path(peer).is_measured:
            fragments = -(-size // limits.path_bytes)
            is_too_large = self._draws(1 - (1 - limits.fragment_loss) ** fragments)
        self.too_large += is_too_large
        return not is_too_large and link.bytes + size <= limits.buffer_bytes

    def _send_off(
        self, link: Link, sender: int, receiver: int, frame: bytes, fault: MessageFault | None, route: Route | None
    ) -> None:
        now = self.clock.seconds()
        arrival = now + self.rng.uniform(*link.quality.delay_seconds)
        if fault is not None:
            arrival += self.rng.uniform(*fault.seconds)
        elif self._draws(link.quality.stragglers):
            arrival += self.rng.uniform(0, link.quality.straggling_seconds)
        elif self._draws(link.quality.reordering):
            arrival += self.rng.uniform(0, link.quality.detour_seconds)
        else:
            arrival = link.last_arrival = max(arrival, link.last_arrival)
        link.frames += 1
        link.bytes += len(frame)
        self.clock.callLater(arrival - now, self._arrive, link, sender, receiver, frame, now, route)

    def _damaged(self, frame: bytes) -> bytes:
        """A damaged copy of the frame: some bits are flipped, or it is cut short, or a part of it is repeated at its
        end."""
        kind, place = self.rng.randrange(3), self.rng.randrange(len(frame))
        if kind == 0:
            return DamagedFrame(frame[:place])
        if kind == 1:
            return DamagedFrame(frame + frame[place:])
        damaged = bytearray(frame)
        for _ in range(self.rng.randint(1, 5)):
            damaged[self.rng.randrange(len(frame))] ^= 1 << self.rng.randrange(8)
        return DamagedFrame(damaged) if damaged != frame else frame

    def _draws(self, chance: float) -> bool:
        return chance > 0 and self.rng.random() < chance

    def _arrive(
        self, link: Link, sender: int, receiver: int, frame: bytes, sent_at: float, route: Route | None
    ) -> None:
        link.frames -= 1
        link.bytes -= len(frame)
        if link.cut or sent_at < self._frames_lost_before:
            return
        if route is not None and self.names is not None and not self.names.reaches(receiver, route):
            return
        endpoint = self._endpoints.get(receiver)
        if endpoint is None:
            self._refuse(sender, receiver, receiver if route is None else route.peer)
        elif self.buffer is not None:
            self._put(endpoint, self.buffer, frame, _source(route))
        elif not endpoint.clock.paused:
            self._hand_up(endpoint, frame, _source(route))
        elif len(endpoint.clock.calls) < BUFFERED_FRAMES_MAX:
            endpoint.clock.callLater(0, endpoint.links.frame_arrived, frame, _source(route))

    def _put(self, endpoint: Endpoint, buffer: SocketBuffer, frame: bytes, source: object) -> None:
        """Put a frame into the buffer of a server's socket. A frame for which there is no room is lost."""
        if not endpoint.has_room(buffer, len(frame)):
            self.overflows += 1
            return
        endpoint.waiting.append((frame, source))
        if len(endpoint.waiting) == 1:
            endpoint.clock.callLater(buffer.reading_seconds, self._read, endpoint, buffer)

    def _read(self, endpoint: Endpoint, buffer: SocketBuffer) -> None:
        """Let a server take the oldest frame from the buffer of its socket."""
        frame, source = endpoint.waiting.popleft()
        if endpoint.waiting:
            endpoint.clock.callLater(buffer.reading_seconds, self._read, endpoint, buffer)
        self._hand_up(endpoint, frame, source)

    def _hand_up(self, endpoint: Endpoint, frame: bytes, source: object) -> None:
        """Give a frame to the links of a server. Raises `Violation` if it is damaged and is not refused."""
        if not isinstance(frame, DamagedFrame):
            endpoint.links.frame_arrived(frame, source)
            return
        counters = endpoint.links.counters
        self.damaged += 1
        expected = counters.refused.total() + 1
        endpoint.links.frame_arrived(frame, source)
        require(counters.refused.total() == expected, "a frame that was damaged on its way was not refused")

    def _refuse(self, sender: int, receiver: int, peer: int) -> None:
        """Tell the sender of a frame for `peer` that no process listens where it went: at the machine of `receiver`."""
        back = self._links[receiver, sender]
        sender_end = self._endpoints.get(sender)
        if self.refusals and sender_end is not None and not back.cut:
            sender_end.clock.callLater(back.quality.delay_seconds[0], sender_end.refused, peer)


def _source(route: Route | None) -> object:
    """The address that a socket would give with a datagram on this route; a text if there are no addresses (None)."""
    return "the network" if route is None else (route.source, PORT)
