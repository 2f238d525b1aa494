"""Clients that ask as much as they may, and more, do not keep others from being served (real processes)."""

from __future__ import annotations

from pfsb.demo.processes import ProcessCluster
from tests.integration.hostile.case import BUSY_FACTOR, GROWTH_BYTES_MAX, HostileCase, RawClient

CONNECTIONS = 170
"""Number of connections that use up all requests which a server takes at once, with a full window each."""
WINDOW = 128
REQUEST_SECONDS = 5.0
SLOWEST_SECONDS = 1.5
"""Maximum time until each request of a well-behaved client is answered, on a machine that does nothing else; it is less
than the time that requests of the attackers wait."""
NEVER = b"DIGEST seq=999999999999999999\n"


class ManyRequestsTests(HostileCase):
    async def attack(self, cluster: ProcessCluster, lines: bytes) -> list[RawClient]:
        """Send these lines on each of many connections."""
        clients = [await self.intrude(cluster, 0) for _ in range(CONNECTIONS)]
        for client in clients:
            client.send(lines)
        return clients

    async def require_served(self, cluster: ProcessCluster, quiet: float) -> None:
        """Require that other clients are answered in time: a new one, and one that asks on and on. `quiet` is the
        result of `quiet_p99` before the attack."""
        visitor = await self.visit(cluster, 0)
        for request in ("PING", "INCR n"):
            slowest = (await self.latencies(visitor, request, 20))[-1]
            self.assertLess(slowest, max(SLOWEST_SECONDS, BUSY_FACTOR * quiet), request)
        await self.require_in_time(cluster, quiet)

    async def answered(self, clients: list[RawClient], requests: int) -> bool:
        return all(client.received.count(b"\n") == requests + 1 for client in clients)

    async def require_all_end(self, clients: list[RawClient], requests: int) -> None:
        """Require that every request of these clients is answered soon after its time, also behind others that waited
        for theirs."""
        seconds = 4 * REQUEST_SECONDS
        await self.wait_until("all answers", lambda: self.answered(clients, requests), seconds)

    async def test_requests_behind_a_digest_that_never_comes(self) -> None:
        cluster = await self.start_cluster(1, limits={"request_seconds": REQUEST_SECONDS})
        quiet = await self.quiet_p99(cluster)
        before = self.memory(cluster, 0)
        clients = await self.attack(cluster, NEVER + b"PING\n" * (WINDOW - 1))
        await self.pause(1.0)
        await self.require_served(cluster, quiet)
        await self.require_all_end(clients, WINDOW)
        self.assertLess(self.memory(cluster, 0) - before, GROWTH_BYTES_MAX)

    async def test_digests_that_never_come_behind_each_other(self) -> None:
        """If many DIGESTs of slots that never come are sent behind each other on one connection, the last one is
        refused as soon as the first one."""
        cluster = await self.start_cluster(1, limits={"request_seconds": REQUEST_SECONDS})
        quiet = await self.quiet_p99(cluster)
        before = self.memory(cluster, 0)
        clients = await self.attack(cluster, NEVER * WINDOW)
        await self.pause(1.0)
        await self.require_served(cluster, quiet)
        await self.require_all_end(clients, WINDOW)
        self.assertLess(self.memory(cluster, 0) - before, GROWTH_BYTES_MAX)

    async def test_clients_that_leave_take_their_requests_with_them(self) -> None:
        cluster = await self.start_cluster(1)
        for client in await self.attack(cluster, NEVER + b"PING\n" * 5_000):
            await client.hang_up()
        await self.pause(1.0)
        visitor = await self.visit(cluster, 0)
        visitor.send(b"PING\r\n" * 100)
        for _ in range(100):
            self.assertEqual(await visitor.reply(1.0), "OK")
