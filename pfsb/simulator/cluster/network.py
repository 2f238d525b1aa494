"""The network of a simulated cluster: it loses, delays, duplicates and reorders frames, and never corrupts them.

What travels are frames as the real codec makes them. A test that needs one message held back or lost puts a filter
where messages go into frames (`pfsb.simulator.cluster.transport`); a check that wants to see all that leaves a server
listens there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from struct import pack
from typing import Any

from attrs import define, field, frozen

from pfsb.paxos.messages import Message
from pfsb.simulator.cluster.clock import ServerClock, SimulatedClock
from pfsb.transports.links import Links

BUFFERED_FRAMES_MAX = 2_000
"""What the socket of a paused server holds; more is lost, as in a kernel."""


@frozen
class LinkQuality:
    """How one direction of a link behaves. Chances are from 0 to 1, times in seconds."""

    delay_seconds: tuple[float, float] = (0.0002, 0.001)
    """A frame takes from .. to, but does not overtake the one before it."""
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """The chance that a frame takes another way: up to `detour_seconds` longer, and overtaken by those behind it."""
    detour_seconds: float = 0.05
    stragglers: float = 0.0
    """The chance that a frame takes far longer, up to `straggling_seconds`, and is overtaken, too."""
    straggling_seconds: float = 10.0
    echoes: float = 0.0
    """The chance that a copy of a frame arrives once more, long after: up to `straggling_seconds`."""
    frames_max: int = 100_000
    """How many frames are under way at most; more are lost, as in a router whose queue is full."""


@frozen
class MessageFault:
    """How the messages of one kind fare, each in a frame of its own, beside what befalls every frame of the link."""

    seconds: tuple[float, float] = (0.0, 0.0)
    """They take so much longer, from .. to, and are overtaken by others."""
    loss: float = 0.0


@frozen
class SelectiveLink:
    """One direction of a link lets few kinds of messages through; what it does to all others is a mood."""

    kinds: frozenset[type[Message]]
    others: MessageFault


@define
class Link:
    """One direction, from one server to another."""

    quality: LinkQuality
    cut: bool = False
    last_arrival: float = 0.0
    frames: int = 0
    """Under way."""


@frozen
class Passage:
    """One message on its way to one server."""

    sender: int
    receiver: int
    message: Message


PassageFilter = Callable[[Passage], bool]
"""True: the message goes no further."""
SendObserver = Callable[[int, int | None, Sequence[Message]], None]
"""Told (sender, receiver or None for all, messages) as they leave a server."""


@define(eq=False)
class HeldMessages:
    """Messages that a filter holds back, until they are let go."""

    network: SimulatedNetwork
    matches: Callable[[Passage], bool]
    passages: list[Passage] = field(factory=list)

    def __call__(self, passage: Passage) -> bool:
        if not self.matches(passage):
            return False
        self.passages.append(passage)
        return True

    def release(self) -> None:
        """No more is held back; what was goes on its way now, in order."""
        if self in self.network.filters:
            self.network.filters.remove(self)
        passages, self.passages = self.passages, []
        for passage in passages:
            self.network.inject(passage)


@define(eq=False)
class Endpoint:
    """Where a running server takes its frames."""

    clock: ServerClock
    links: Links


@define(eq=False)
class SimulatedNetwork:
    """All links between the servers; every chance is thrown with one `rng`."""

    clock: SimulatedClock
    rng: random.Random
    servers: Sequence[int]
    quality: LinkQuality = field(factory=LinkQuality)
    refusals: bool = False
    """Whether a sender learns that nobody is at an address, as from a host without the process."""
    filters: list[PassageFilter] = field(factory=list)
    observers: list[SendObserver] = field(factory=list)
    lasting_faults: dict[type[Message], MessageFault] = field(factory=dict)
    """Moods that nothing heals: how this network is."""
    passing_faults: dict[type[Message], MessageFault] = field(factory=dict)
    """Moods of the moment, which come before the lasting ones of the same kind."""
    selective_links: dict[tuple[int, int], SelectiveLink] = field(factory=dict)
    """(sender, receiver): a direction that is narrow until it is mended; it comes before all moods."""
    frames: int = field(default=0, init=False)
    _links: dict[tuple[int, int], Link] = field(init=False)
    _endpoints: dict[int, Endpoint] = field(factory=dict, init=False)
    _frames_lost_before: float = field(default=-1.0, init=False)
    """What was sent before then does not arrive any more."""
    _hash: Any = field(factory=lambda: blake2b(digest_size=16), init=False)

    @_links.default
    def _make_links(self) -> dict[tuple[int, int], Link]:
        return {(a, b): Link(self.quality) for a in self.servers for b in self.servers if a != b}

    # ------------------------------------------------------------------ knobs

    def link(self, sender: int, receiver: int) -> Link:
        return self._links[sender, receiver]

    def set_quality(self, quality: LinkQuality, links: Iterable[tuple[int, int]] | None = None) -> None:
        """Of these (sender, receiver) directions, or of all."""
        for pair in self._links if links is None else links:
            self._links[pair].quality = quality

    def cut(self, sender: int, receiver: int) -> None:
        """This direction carries nothing from now on; what is under way is lost, too."""
        self._links[sender, receiver].cut = True

    def mend(self, sender: int, receiver: int) -> None:
        self._links[sender, receiver].cut = False
        self.selective_links.pop((sender, receiver), None)

    def mend_all(self) -> None:
        for link in self._links.values():
            link.cut = False
        self.selective_links.clear()

    def fault_of(self, message: Message, sender: int, receiver: int | None) -> MessageFault | None:
        """None: it travels with the others. `receiver` None: of all links, where none is narrow."""
        selective_link = None if receiver is None else self.selective_links.get((sender, receiver))
        if selective_link is not None and type(message) not in selective_link.kinds:
            return selective_link.others
        return self.passing_faults.get(type(message)) or self.lasting_faults.get(type(message))

    def lose_frames_under_way(self) -> None:
        """Stragglers of former weather would be disturbances that nobody can foresee."""
        self._frames_lost_before = self.clock.seconds()

    def drop(self, matches: PassageFilter) -> PassageFilter:
        """Lose the messages that match, until the filter is taken out of `filters`."""
        self.filters.append(matches)
        return matches

    def hold(self, matches: Callable[[Passage], bool]) -> HeldMessages:
        """Hold back the messages that match, until `release`."""
        held = HeldMessages(self, matches)
        self.filters.append(held)
        return held

    def inject(self, passage: Passage) -> None:
        """Let a message that was held back go on, if its sender still runs."""
        endpoint = self._endpoints.get(passage.sender)
        if endpoint is not None:
            endpoint.links.send([passage.message], passage.receiver)

    def hand_over(self, receiver: int, frame: bytes) -> None:
        """A frame from nowhere arrives at this server, now, if it runs."""
        endpoint = self._endpoints.get(receiver)
        if endpoint is not None and not endpoint.clock.paused:
            endpoint.links.frame_arrived(frame)

    def note(self, seen: bytes) -> None:
        """Something beside the frames that `digest` shall cover."""
        self._hash.update(seen)

    @property
    def digest(self) -> str:
        """A hash over every frame so far: when, from whom, to whom, and its bytes."""
        return str(self._hash.hexdigest())

    # ------------------------------------------------------------------ carrying

    def attach(self, server_id: int, endpoint: Endpoint) -> None:
        self._endpoints[server_id] = endpoint

    def detach(self, server_id: int) -> None:
        """Nobody is there any more."""
        self._endpoints.pop(server_id, None)

    def is_attached(self, server_id: int) -> bool:
        """Whether somebody listens there."""
        return server_id in self._endpoints

    def carry(self, sender: int, receiver: int, frame: bytes, fault: MessageFault | None = None) -> None:
        """Take a frame; it arrives later, once, several times or never."""
        self.frames += 1
        self._hash.update(pack(">dHHI", self.clock.seconds(), sender, receiver, len(frame)) + frame)
        link = self._links[sender, receiver]
        quality = link.quality
        if link.cut or link.frames >= quality.frames_max or self._draws(quality.loss):
            return
        if fault is not None and self._draws(fault.loss):
            return
        self._send_off(link, sender, receiver, frame, fault)
        if self._draws(quality.duplication):
            self._send_off(link, sender, receiver, frame, fault)
        if self._draws(quality.echoes):
            self._send_off(link, sender, receiver, frame, MessageFault((0.0, quality.straggling_seconds)))

    def _send_off(self, link: Link, sender: int, receiver: int, frame: bytes, fault: MessageFault | None) -> None:
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
        self.clock.callLater(arrival - now, self._arrive, link, sender, receiver, frame, now)

    def _draws(self, chance: float) -> bool:
        return chance > 0 and self.rng.random() < chance

    def _arrive(self, link: Link, sender: int, receiver: int, frame: bytes, sent_at: float) -> None:
        link.frames -= 1
        if link.cut or sent_at < self._frames_lost_before:
            return
        endpoint = self._endpoints.get(receiver)
        if endpoint is None:
            self._refuse(sender, receiver)
        elif not endpoint.clock.paused:
            endpoint.links.frame_arrived(frame)
        elif len(endpoint.clock.calls) < BUFFERED_FRAMES_MAX:
            endpoint.clock.callLater(0, endpoint.links.frame_arrived, frame)

    def _refuse(self, sender: int, receiver: int) -> None:
        back = self._links[receiver, sender]
        sender_end = self._endpoints.get(sender)
        if self.refusals and sender_end is not None and not back.cut:
            sender_end.clock.callLater(back.quality.delay_seconds[0], sender_end.links.refused, receiver)
