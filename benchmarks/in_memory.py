"""A whole cluster in this process, on a simulated clock, to measure only its computation for each command.

The protocol, the sessions, the wire codec and the line protocol are those of production. There are no sockets, no disks
and no other processes, so the same commands take the same steps on every machine, however busy the machine is.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.testing import StringTransport

from pfsb.applications.catalogue import catalogue_of_plugins
from pfsb.config.config import Config, ServerConfig
from pfsb.frontends.line.protocol import LineFactory, LineProtocol
from pfsb.paxos.messages import State
from pfsb.server import Server
from pfsb.service.assembly import GivenSurroundings, frame_identity, make_server
from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from pfsb.transports.faults import LinkFaults
from pfsb.transports.links import Links

LINK_SECONDS: Final = 0.00005
SYNC_SECONDS: Final = 0.00015
STEP_SECONDS: Final = 0.0001
_LEADER_SECONDS: Final = 30.0
_SETTLED_SECONDS: Final = 0.5


def _fail(failure: Any) -> None:
    failure.raiseException()


class MemoryCluster:
    """The servers of a cluster, which send each other frames by function calls."""

    def __init__(self, servers: int) -> None:
        self.clock = SimulatedClock()
        self._dice = random.Random(1)
        configs = {i: ServerConfig(i, ("127.0.0.1", 1 + i), "tcp:1") for i in range(servers)}
        self._config = Config("in memory", "bench", configs, (servers - 1) // 2)
        self._links: dict[int, Links] = {}
        self.servers = [self._make(server_id) for server_id in configs]
        for server in self.servers:
            server.start()
        deadline = self.clock.seconds() + _LEADER_SECONDS
        while all(server.replica.data.server.state is not State.REG_LEADER for server in self.servers):
            assert self.clock.seconds() < deadline, "no server leads"
            self.clock.run_until(self.clock.seconds() + 0.1)
        # Each server announces itself by an update at its start. That is no part of any load.
        self.clock.run_until(self.clock.seconds() + _SETTLED_SECONDS)
        self.leader = next(s for s in self.servers if s.replica.data.server.state is State.REG_LEADER)
        self.factory = LineFactory(self.leader, self.clock)

    def _make(self, server_id: int) -> Server:
        config, clock = self._config, self.clock
        faults = LinkFaults(clock, self._dice)
        links = self._links[server_id] = Links(frame_identity(config, server_id), clock, faults, self._carry)
        storage = MemoryStorage(MemoryDisk(), clock, lambda: SYNC_SECONDS, self._dice.randbytes, _fail)
        given = GivenSurroundings(server_id, clock, self._dice, storage, links, _fail)
        return make_server(config, catalogue_of_plugins(config.apps), given, faults=faults)

    def _carry(self, peer: int, frame: bytes) -> None:
        self.clock.callLater(LINK_SECONDS, self._links[peer].frame_arrived, frame)

    def connect(self) -> Client:
        protocol = self.factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        transport.clear()
        return Client(protocol, transport)


@define(eq=False)
class Client:
    """A client of the leader: hands lines to the leader's `LineProtocol`, and takes replies from it."""

    _protocol: LineProtocol
    _transport: Any
    waiting: int = field(init=False, default=0)

    def send(self, lines: Sequence[bytes]) -> None:
        self.waiting += len(lines)
        self._protocol.dataReceived(b"".join(lines))

    def take_replies(self) -> int:
        """The number of replies since the last call. Raises AssertionError if one is an error."""
        data = self._transport.value()
        if not data:
            return 0
        self._transport.clear()
        assert b"ERR" not in data, data
        count: int = data.count(b"\n")
        self.waiting -= count
        return count


@frozen
class Case:
    """A load whose cost is measured."""

    name: str
    connections: int
    depth: int
    line: bytes
    """The line of each command, with %08d in place of the number of its key."""


CASES: Final = (
    Case("put 1 x 1", 1, 1, b"PUT key-%08d " + b"v" * 100),
    Case("put 64 x 1", 64, 1, b"PUT key-%08d " + b"v" * 100),
    Case("put 8 x 32", 8, 32, b"PUT key-%08d " + b"v" * 100),
    Case("get 8 x 8", 8, 8, b"GET key-%08d"),
    Case("local get 8 x 8", 8, 8, b"GET key-%08d read=stale"),
    Case("say 8 x 8", 8, 8, b"SAY message %08d"),
)


class Run:
    """A closed loop of clients, each of which sends a command for each reply, on a cluster in memory."""

    def __init__(self, case: Case, servers: int = 3) -> None:
        self._case = case
        self._number = 0
        self.cluster = MemoryCluster(servers)
        self._clients = [self.cluster.connect() for _ in range(case.connections)]
        self._clients[0].send([b"PUT key-%08d v\n" % number for number in range(_KEYS)])
        self._until(lambda: bool(self._clients[0].take_replies()) or not self._clients[0].waiting)

    def commands(self, count: int) -> None:
        """Run `count` commands, until all are answered, and executed by all servers.

        Servers may execute commands later than the leader (Departure 25).
        """
        end = self._number + count
        for client in self._clients:
            self._send(client, self._case.depth)
        self._until(partial(self._is_done, end))
        self._until(self._is_executed_everywhere)

    def _is_done(self, end: int) -> bool:
        waiting = 0
        for client in self._clients:
            replies = client.take_replies()
            if replies and self._number < end:
                self._send(client, replies)
            waiting += client.waiting
        return not waiting

    def _is_executed_everywhere(self) -> bool:
        return len({server.replica.data.ordering.local_aru for server in self.cluster.servers}) == 1

    def _send(self, client: Client, count: int) -> None:
        first, self._number = self._number, self._number + count
        client.send([self._case.line % (number % _KEYS) + b"\n" for number in range(first, first + count)])

    def _until(self, is_done: Callable[[], bool]) -> None:
        clock = self.cluster.clock
        while not is_done():
            clock.run_until(clock.seconds() + STEP_SECONDS)


_KEYS: Final = 100


def instructions(work: Callable[[], None]) -> int:
    """The number of instructions of Python's byte code that `work` executes in this thread."""
    count = 0

    def local(frame: Any, event: str, _argument: object) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        return local

    def enter(frame: Any, _event: str, _argument: object) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return local

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def cpu_seconds(work: Callable[[], None]) -> float:
    """CPU time of `work`, which does not depend on other programs that use the processor."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def calibration() -> None:
    """A fixed piece of work that is like a server's. CPU times of pfsb are given as multiples of its CPU time."""
    table: dict[str, tuple[int, bytes]] = {}
    for number in range(30_000):
        words = b"PUT key-%08d vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\n" % (number % 997)
        verb, key, value = words.split(b" ", 2)
        table[key.decode()] = (number, value)
        sorted((len(verb), number % 7, len(table)))
