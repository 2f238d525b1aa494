"""A small cluster of whole servers in memory, with clients that keep it busy. Nothing in it goes wrong by itself."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from attrs import define, evolve, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.applications.catalogue import catalogue_of_plugins
from pfsb.config.config import Config, ServerConfig
from pfsb.frontends.line.protocol import LineFactory
from pfsb.paxos.messages import State
from pfsb.paxos.settings import Settings
from pfsb.server import Server
from pfsb.service.assembly import GivenSurroundings, frame_identity, make_server
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.simulator.cluster.server_process import contents_of
from pfsb.storage.effect import KEPT_SLOTS
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from pfsb.support.limits import START_MARK_BYTES
from pfsb.transports.faults import LinkFaults
from pfsb.transports.links import Links

NEAR: Final = IPv4Address("TCP", "127.0.0.1", 54_321)
"""The address of clients, which have all rights, since there is no token file."""
BEGIN_SECONDS: Final = 1_700_000_000.0
"""Time of the clock when a cluster starts."""
LINK_SECONDS: Final = (0.0002, 0.001)
SYNC_SECONDS: Final = (0.0003, 0.001)
PATIENCE_SECONDS: Final = 60.0
"""How long, in simulated seconds, the cluster may take to answer a client or to elect a leader."""
ELECTION_SECONDS: Final = (0.9, 1.3)
"""How long, in simulated seconds, servers need to suspect a silent leader, and to elect another leader."""
FRAMES_KEPT: Final = 200
SLOTS_BEHIND: Final = 30
"""Number of commands that are sent while a server is left behind."""
COMMANDS: Final = (
    "PUT colour blue",
    "PUT colour red if=1",
    'PUT "two words" "grüße 世界"',
    "GET colour",
    "GET colour read=stale",
    "INCR visits",
    "APPEND text more",
    "DEL colour",
    "CAS colour blue red",
    "PUTHASH h x",
    "SAY hello",
    "LOG 1 5",
    "TRYLOCK door",
    "UNLOCK door",
    "LOCK gate wait=1",
    "LOCKS",
    "SCAN",
    "PING",
)


@frozen
class _SnapshotConfig(Config):
    """A configuration with which servers take snapshots after few slots, and keep little besides."""

    def settings(self) -> Settings:
        return evolve(super().settings(), snapshot_slots=8, history_slots_kept=2)


@frozen
class CapturedFrame:
    """A frame that one server of a `SmallCluster` has sent to another."""

    sender: int
    receiver: int
    frame: bytes


@implementer(ILogObserver)
@define(eq=False)
class ErrorsInLog:
    """Keeps the failures that servers log: an exception that is caught and logged is a finding, too."""

    failures: list[Failure] = field(factory=list)

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            self.failures.append(failure)


class SmallCluster:
    """Servers that are joined by function calls with delays; frames and codecs are the real ones."""

    def __init__(
        self,
        name: str,
        servers: int,
        secret: bytes | None = None,
        tolerated: Callable[[Failure], bool] = lambda failure: False,
        *,
        snapshots: bool = False,
    ) -> None:
        """`name` is the seed of the random numbers of the cluster. `tolerated(failure)` returns whether a server may
        stop itself with this failure, or log it. With `snapshots` a server that was left behind for a while must fetch
        a snapshot."""
        self.clock = SimulatedClock(BEGIN_SECONDS)
        self.dice = random.Random(name)
        configs = {i: ServerConfig(i, ("127.0.0.1", 1 + i), "tcp:1") for i in range(servers)}
        self._kept_slots = 0 if snapshots else KEPT_SLOTS
        kind = _SnapshotConfig if snapshots else Config
        self.config = kind("small", "small", configs, (servers - 1) // 2)
        self._secret = secret
        self._tolerated = tolerated
        self.links: dict[int, Links] = {}
        self.disks: dict[int, MemoryDisk] = {}
        self.failures: dict[int, Failure] = {}
        """The failures with which servers have stopped themselves, by id."""
        self.silent: set[int] = set()
        """Servers that are cut off: all frames to them and from them are lost."""
        self.frames: deque[CapturedFrame] = deque(maxlen=FRAMES_KEPT)
        """The last frames that servers have sent."""
        self._errors = ErrorsInLog()
        globalLogPublisher.addObserver(self._errors)
        self.servers = {i: self._make(i) for i in configs}
        for server in self.servers.values():
            server.start()
        self.factories = {i: LineFactory(server, self.clock) for i, server in self.servers.items()}
        self.clients = {i: LineClient(factory) for i, factory in self.factories.items()}

    def _make(self, server_id: int) -> Server:
        clock, config = self.clock, self.config
        faults = LinkFaults(clock, self.dice)
        carry = partial(self._carry, server_id)
        links = self.links[server_id] = Links(frame_identity(config, server_id), clock, faults, carry, self._secret)
        disk = self.disks[server_id] = MemoryDisk()
        fail = partial(self._fail, server_id)
        storage = MemoryStorage(
            disk,
            clock,
            lambda: self.dice.uniform(*SYNC_SECONDS),
            self._random_bytes,
            fail,
            kept_slots=self._kept_slots,
        )
        given = GivenSurroundings(server_id, clock, random.Random(self.dice.random()), storage, links, fail)
        return make_server(config, catalogue_of_plugins(config.apps), given, faults=faults)

    def _random_bytes(self, count: int) -> bytes:
        """Random bytes for a storage; the mark of a start is 0, since no copy of a disk is put back here."""
        return bytes(count) if count == START_MARK_BYTES else self.dice.randbytes(count)

    def _carry(self, sender: int, peer: int, frame: bytes) -> None:
        self.frames.append(CapturedFrame(sender, peer, frame))
        if not self.silent.isdisjoint((sender, peer)):
            return
        self.clock.callLater(self.dice.uniform(*LINK_SECONDS), self.deliver, peer, frame)

    def deliver(self, receiver: int, frame: bytes) -> None:
        """Hand a frame to a server, now, if it still runs."""
        if receiver not in self.failures:
            self.links[receiver].frame_arrived(frame)

    def _fail(self, server_id: int, failure: Failure) -> None:
        self.failures[server_id] = failure

    # ------------------------------------------------------------------ time

    def run(self, seconds: float) -> None:
        """Let time pass. Raises the exception of a server that has stopped itself, or has logged an exception."""
        self.clock.run_until(self.clock.seconds() + seconds)
        self.raise_failures()

    def raise_failures(self) -> None:
        for failure in (*self.failures.values(), *self._errors.failures):
            if not self._tolerated(failure):
                failure.raiseException()

    def run_until_led(self) -> None:
        """Let time pass until a server leads and no server is in an election."""
        until = self.clock.seconds() + PATIENCE_SECONDS
        while not self._is_led():
            require(self.clock.seconds() < until, f"no server leads after {PATIENCE_SECONDS:g} s")
            self.run(0.1)

    def _is_led(self) -> bool:
        states = [server.replica.data.server.state for server in self.servers.values()]
        return State.REG_LEADER in states and State.LEADER_ELECTION not in states

    def work(self, commands: int) -> None:
        """Let this many commands be sent, each by the client of a server that is drawn at random."""
        for _ in range(commands):
            client = self.clients[self.dice.choice(sorted(self.clients))]
            client.send(self.dice.choice(COMMANDS))
            self.run(self.dice.choice((0.0, 0.001, 0.01)))
            client.take()

    def silence_leader(self) -> None:
        """Let no frames pass to and from servers that lead, and let time pass in which the others begin an election.

        The silenced servers remain in `silent` until the caller empties it.
        """
        states = {i: server.replica.data.server.state for i, server in self.servers.items()}
        self.silent = {i for i, state in states.items() if state is State.REG_LEADER}
        self.work(5)
        self.run(self.dice.uniform(*ELECTION_SECONDS))

    def leave_behind(self, server_id: int) -> None:
        """Let no frames pass to and from a server until the others have executed many slots, and taken snapshots."""
        self.silent = {server_id}
        self.work(SLOTS_BEHIND)
        self.run(PATIENCE_SECONDS / 100)
        self.silent = set()

    # ------------------------------------------------------------------ looking

    def require_service(self) -> None:
        """Raises `Violation` unless every server answers a command, and all servers then have the same state."""
        for server_id in self.servers:
            self._require_answer(server_id)
        until = self.clock.seconds() + PATIENCE_SECONDS
        while len({server.replica.data.ordering.local_aru for server in self.servers.values()}) > 1:
            require(self.clock.seconds() < until, f"servers have not executed the same slots: {self.picture()}")
            self.run(0.1)
        states = {server_id: self._state(server) for server_id, server in self.servers.items()}
        for server_id, state in states.items():
            require(state == states[0], f"server {server_id} differs from server 0:\n{state}\n{states[0]}")

    def _require_answer(self, server_id: int) -> None:
        client = LineClient(self.factories[server_id])
        until = self.clock.seconds() + PATIENCE_SECONDS
        answer = ""
        while not answer.startswith("OK"):
            require(
                self.clock.seconds() < until,
                f"server {server_id} does not serve: {answer!r} after {PATIENCE_SECONDS:g} s; {self.picture()}",
            )
            client.send(f"PUT key-{server_id} value")
            answer = self._answer_to(client)
        client.close()

    def _answer_to(self, client: LineClient) -> str:
        until = self.clock.seconds() + PATIENCE_SECONDS
        while self.clock.seconds() < until:
            self.run(0.05)
            replies = client.take()
            if replies:
                return replies[-1]
        return ""

    def _state(self, server: Server) -> dict[str, object]:
        machine = server.machine
        return {
            "digest": server.replica.ordered_queue.digests.head.hex(),
            "revision": machine.revision,
            "time": machine.time_ms,
            "sessions": repr([(client_id, contents_of(session)) for client_id, session in machine.sessions.items()]),
            "applications": [repr(app.snapshot()) for app in server.catalogue.applications],
        }

    def picture(self) -> str:
        """The state of all servers in one line."""
        return "; ".join(
            f"server {i}: {server.replica.data.server.state.value} view {server.replica.data.views.last_installed} "
            f"aru {server.replica.data.ordering.local_aru}"
            for i, server in self.servers.items()
        )

    def close(self) -> None:
        """Stop the turns of all servers. Failures that are written to Twisted's text log from now on are no longer
        collected."""
        globalLogPublisher.removeObserver(self._errors)
        for server in self.servers.values():
            server.replica.turn.stop()


class LineClient:
    """A connection to one server that speaks the line protocol."""

    def __init__(self, factory: LineFactory) -> None:
        self._protocol = factory.buildProtocol(None)
        self._transport: Any = StringTransport(peerAddress=NEAR)
        self._protocol.makeConnection(self._transport)

    def send(self, line: str) -> None:
        self._protocol.dataReceived(f"{line}\n".encode())

    def take(self) -> list[str]:
        """The last line, OK or ERR, of each reply that has come since the last call.

        The rows of a reply, which begin with `+`, are left out, and so are events, which begin with `*`.
        """
        lines = self._transport.value().decode().split("\n")
        self._transport.clear()
        return [line for line in lines if line and not line.startswith(("*", "+"))]

    def close(self) -> None:
        self._protocol.connectionLost()
