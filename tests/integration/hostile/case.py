"""Common parts of the tests with hostile clients: raw connections, and a measured client beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from pfsb.bench.machine import memory_bytes
from pfsb.demo.processes import ProcessCluster
from pfsb.frontends.stream.hang_ups import PAUSED_LOOK_SECONDS
from tests.integration.case import HEAR_SECONDS, ClusterCase, Visitor, reactor
from tests.integration.http_case import port

T = TypeVar("T")

LOOK_SECONDS = 0.05
P99_SECONDS = 0.25
"""Time in which 99 of 100 requests of a well-behaved client are answered, whatever others do, on a machine that does
nothing else."""
BUSY_FACTOR = 20.0
"""How many times as long as without an attack the requests of a well-behaved client may take, on a machine that is busy
with other work."""

TTL_SECONDS = 2
"""Time, in seconds, after which the session of a client that is gone ends."""
FREE_SECONDS = TTL_SECONDS + PAUSED_LOOK_SECONDS + 6.0
"""Time in which the locks of a dead client must be free.

The sum of the ttl, the time to the next look of the server, and some seconds for a busy machine.
"""
REQUEST = "{method} {path} HTTP/1.1\r\nHost: localhost\r\nPfsb-Client: {client}\r\nPfsb-Ttl: {ttl}\r\n{more}\r\n{body}"

GROWTH_BYTES_MAX = 64 * 1024 * 1024
"""Number of bytes by which the memory of a server may grow under one kind of attack."""


class RawClient(Protocol):
    """A connection that sends any bytes, and keeps all that comes."""

    def __init__(self) -> None:
        self._received = bytearray()  # appending to bytes would copy all that came before, each time
        self.gone: Deferred[None] = Deferred()
        self.is_gone = False

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    @property
    def received(self) -> bytes:
        return bytes(self._received)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.is_gone = True
        self.gone.callback(None)

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def stop_reading(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()

    def go_on_reading(self) -> None:
        transport: Any = self.transport
        transport.resumeProducing()

    def hang_up(self) -> Deferred[None]:
        """Break the connection without a farewell."""
        transport: Any = self.transport
        transport.abortConnection()
        return self.gone


def percentile(times: list[float], part: float) -> float:
    """The time that a share `part` of these times, which ascend, does not exceed."""
    return times[max(0, int(part * len(times)) - 1)]


def time_limit(quiet: float) -> float:
    """Time, in seconds, in which a well-behaved client has 99 of 100 answers during an attack: `P99_SECONDS`.

    The bound is larger on a machine that is so busy that `quiet`, what `quiet_p99` has found before the attack, is
    large: what other programs take from the machine is not the attacker's doing.
    """
    return max(P99_SECONDS, BUSY_FACTOR * quiet)


class HostileCase(ClusterCase):
    """A test with a cluster of processes and clients that are not what the server expects."""

    async def connect(self, endpoint: str) -> RawClient:
        """Connect to a place that is given as an endpoint string of Twisted."""
        client = RawClient()
        await clientFromString(reactor, endpoint).connect(Factory.forProtocol(lambda: client))
        self.addCleanup(client.hang_up)
        return client

    async def intrude(self, cluster: ProcessCluster, server_id: int) -> RawClient:
        """Connect to the client port of a server, without waiting for its greeting."""
        return await self.connect(cluster.address(server_id).endpoint)

    async def pause(self, seconds: float) -> None:
        await deferLater(reactor, seconds)

    async def wait_until(self, what: str, look: Callable[[], Awaitable[T]], seconds: float = HEAR_SECONDS) -> T:
        """Await `look()` again and again until its result is true. Fails after so many seconds."""
        end = reactor.seconds() + seconds
        while not (found := await look()):
            self.assertLess(reactor.seconds(), end, f"{what}: not within {seconds:g} s")
            await self.pause(LOOK_SECONDS)
        return found

    async def heard(self, client: RawClient, wanted: bytes) -> bool:
        return wanted in client.received

    async def wait_by_http(self, cluster: ProcessCluster, client_id: str) -> RawClient:
        """Connect a client to the HTTP port of server 0, which gets the lock `printer`, and then waits for an hour for
        the lock `busy`. The request for that is sent, and perhaps not handled yet, when this method returns."""
        client = await self.connect(f"tcp:127.0.0.1:{port(cluster, 0)}")
        given = {"client": client_id, "ttl": TTL_SECONDS}
        client.send(REQUEST.format(method="POST", path="/v1/locks/printer", more="", body="", **given).encode())
        await self.wait_until("the lock", lambda: self.heard(client, b'"token"'))
        head = "Content-Type: application/json\r\nContent-Length: 14\r\n"
        wait = REQUEST.format(method="POST", path="/v1/locks/busy", more=head, body='{"wait": 3600}', **given)
        client.send(wait.encode())
        return client

    async def require_closed(self, client: RawClient) -> str:
        """Wait until the server has closed the connection. Returns the last line that it wrote before."""
        await client.gone.addTimeout(HEAR_SECONDS, reactor)
        return client.received.decode("latin-1").rstrip("\r\n").rpartition("\n")[2]

    async def latencies(self, visitor: Visitor, request: str, count: int) -> list[float]:
        """Send a request `count` times, one after the other; each must be answered with OK. Returns the seconds until
        each answer, ascending."""
        found = []
        for _ in range(count):
            start = reactor.seconds()
            reply = await visitor.ask(request)
            found.append(reactor.seconds() - start)
            self.assertTrue(reply.startswith("OK"), reply)
        return sorted(found)

    async def quiet_p99(self, cluster: ProcessCluster, requests: tuple[str, ...] = ("PING", "INCR n")) -> float:
        """The time in which 99 of 100 requests are answered while there is no attack."""
        visitor = await self.visit(cluster, 0)
        times = [percentile(await self.latencies(visitor, request, 100), 0.99) for request in requests]
        await visitor.hang_up()
        return max(times)

    async def require_in_time(
        self, cluster: ProcessCluster, quiet: float, requests: tuple[str, ...] = ("PING", "INCR n"), asks: int = 100
    ) -> None:
        """A new client, which asks on and on, has 99 of 100 answers in time (`time_limit`)."""
        limit = time_limit(quiet)
        visitor = await self.visit(cluster, 0)
        for request in requests:
            times = await self.latencies(visitor, request, asks)
            self.assertLess(percentile(times, 0.99), limit, f"{request}: {times[-5:]}, {quiet:.3f} without the attack")
        await visitor.hang_up()

    async def connect_many(self, cluster: ProcessCluster, count: int, endpoint: str | None = None) -> list[RawClient]:
        """Connect `count` clients, some at a time."""
        place = endpoint or cluster.address(0).endpoint
        clients: list[RawClient] = []
        while len(clients) < count:
            some = [ensureDeferred(self.connect(place)) for _ in range(min(100, count - len(clients)))]
            clients += await gatherResults(some)
        return clients

    def memory(self, cluster: ProcessCluster, server_id: int) -> int:
        """The memory of a server's process, in bytes."""
        return memory_bytes(cluster.pids[server_id])
