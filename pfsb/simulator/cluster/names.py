"""Addresses of simulated servers, which change, and the name servers that tell them: rightly, late, wrongly or not."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pfsb.simulator.cluster.clock import ServerClock, SimulatedClock
from pfsb.support.hosts import LookUp, SocketAddress

PORT: Final = 7400
PROMPTLY: Final = (0.0005, 0.005)
"""Shortest and longest time, in seconds, in which name servers answer when nothing is wrong with them."""
ELSEWHERE: Final = ("198.51.100.66", PORT)
"""The address, as a socket gives it, of a machine that is none of the cluster's."""


@frozen
class Route:
    """The addresses of one frame. It is lost unless its receiver has the address `destination` when the frame
    arrives."""

    source: str
    destination: str
    peer: int
    """The server that the frame is meant for."""


@define(eq=False)
class NameServers:
    """The behaviour of the name servers, the same for all servers of the cluster."""

    answer_seconds: tuple[float, float] = PROMPTLY
    """Shortest and longest time, in seconds, until an answer comes. The answer has the address that name servers
    had when they were asked."""
    failure: float = 0.0
    """Chance, from 0 to 1, that the answer is that there is no such name."""
    silence: float = 0.0
    """Chance, from 0 to 1, that an answer never comes."""


@define(eq=False)
class SimulatedNames:
    """The address of each server in a simulated network, and the address that name servers give for its name.

    The name of server 3 is `server-3`. Every random decision comes from one `rng`. With a `secret` the servers
    authenticate their frames.
    """

    clock: SimulatedClock
    rng: random.Random
    servers: Sequence[int]
    secret: bytes | None = None
    name_servers: NameServers = field(factory=NameServers)
    _numbers: Iterator[int] = field(factory=lambda: count(1), init=False)
    addresses: dict[int, str] = field(init=False)
    """Server -> the IP address of its machine. No two servers have the same."""
    told: dict[int, str] = field(init=False)
    """Server -> the IP address that name servers have for it, right or not; no entry: they know no such name."""
    vacated: list[str] = field(factory=list, init=False)
    """The addresses that servers have had, some of which a server may have again."""
    lookups: int = field(default=0, init=False)
    moves: int = field(default=0, init=False)

    @addresses.default
    def _make_addresses(self) -> dict[int, str]:
        return {server_id: self._fresh() for server_id in self.servers}

    @told.default
    def _make_told(self) -> dict[int, str]:
        return dict(self.addresses)

    @property
    def hosts(self) -> dict[int, tuple[str, int]]:
        """The (host, port) of each server as a configuration has it."""
        return {server_id: (f"server-{server_id}", PORT) for server_id in self.servers}

    def look_up_by(self, clock: ServerClock) -> LookUp:
        """Make the function by which one incarnation of a server, with this clock, looks names up."""

        def look_up(host: str, _port: int) -> Deferred[tuple[SocketAddress, ...]]:
            answer: Deferred[tuple[SocketAddress, ...]] = Deferred()
            self.lookups += 1
            silent = self.rng.random() < self.name_servers.silence
            fails = self.rng.random() < self.name_servers.failure
            found = None if fails else self.told.get(int(host.removeprefix("server-")))
            if not silent:
                clock.callLater(self.rng.uniform(*self.name_servers.answer_seconds), _answer, answer, found)
            return answer

        return look_up

    # ------------------------------------------------------------------ changes

    def move(self, server_id: int, address: str | None = None) -> str:
        """Give a server another address, by default one that no server had before; returns the former one.

        Name servers do not know of it before `tell` is called. If another server has the address, the machine of that
        server must get a different address at the same moment.
        """
        former, self.addresses[server_id] = self.addresses[server_id], address or self._fresh()
        self.vacated.append(former)
        self.moves += 1
        return former

    def exchange(self, one: int, other: int) -> None:
        """Let two servers exchange their addresses."""
        self.move(other, self.move(one, self.addresses[other]))

    def tell(self, server_id: int) -> None:
        """Let name servers give the present address of this server from now on."""
        self.told[server_id] = self.addresses[server_id]

    def forget(self, server_id: int) -> None:
        """Let name servers answer, until `tell` or `heal` is called, that the name of this server does not exist."""
        self.told.pop(server_id, None)

    def heal(self) -> None:
        """Let name servers tell the truth from now on, and answer promptly."""
        self.name_servers = NameServers()
        self.told = dict(self.addresses)

    # ------------------------------------------------------------------ routes

    def server_at(self, host: str) -> int | None:
        """The server whose machine has this IP address; None if no machine has it."""
        return next((server_id for server_id, address in self.addresses.items() if address == host), None)

    def route(self, sender: int, peer: int, destination: SocketAddress) -> Route:
        return Route(self.addresses[sender], destination.host, peer)

    def reaches(self, receiver: int, route: Route) -> bool:
        """Whether a frame that arrives now finds its receiver at the address to which it was sent."""
        return self.addresses[receiver] == route.destination

    def _fresh(self) -> str:
        number = next(self._numbers)
        return f"10.0.{number // 250}.{number % 250 + 1}"


def _answer(answer: Deferred[tuple[SocketAddress, ...]], host: str | None) -> None:
    if host is None:
        answer.errback(Failure(socket.gaierror(socket.EAI_NONAME, "Name or service not known")))
    else:
        answer.callback((SocketAddress(socket.AF_INET, (host, PORT)),))
