"""Clients that write on for ever after they were refused cost a bounded sum, and no other client waits (real
processes)."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from pfsb.frontends.stream.farewells import DISCARD_BYTES, DISCARD_SECONDS
from tests.integration.case import reactor
from tests.integration.hostile.case import GROWTH_BYTES_MAX, HEAR_SECONDS, HostileCase, RawClient
from tests.integration.http_case import port
from tests.long import longest

CHUNK = b"x" * 65_536
MANY = 60
KERNEL_BYTES = 16 * 1024 * 1024
"""Number of bytes that may be in the buffers of the kernel between two programs."""


@implementer(IPushProducer)
class Pouring:
    """Writes to a client's connection as long as its kernel takes anything."""

    def __init__(self, client: RawClient) -> None:
        self._transport: Any = client.transport
        self._is_paused = False
        self.sent = 0

    def begin(self) -> None:
        self._transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._is_paused = False
        while not self._is_paused and self._transport.connected and not self._transport.disconnecting:
            self._transport.write(CHUNK)
            self.sent += len(CHUNK)

    def pauseProducing(self) -> None:
        self._is_paused = True

    def stopProducing(self) -> None:
        self._is_paused = True


@longest
class EndlessTests(HostileCase):
    async def test_clients_that_write_for_ever(self) -> None:
        """A client that writes for ever is read for a while behind its last reply, and then its connection is gone;
        another client is answered in time meanwhile, the memory does not grow, and connections are free again."""
        cluster = await self.start_cluster(1)
        quiet = await self.quiet_p99(cluster)
        before = self.memory(cluster, 0)
        http = f"tcp:127.0.0.1:{port(cluster, 0)}"
        for endpoint, begin in ((None, b"PUT a "), (http, b"GET /"), (None, b"*1\r\n$x\r\n")):
            clients = await self.connect_many(cluster, MANY, endpoint)
            pourings = [Pouring(client) for client in clients]
            for client, pouring in zip(clients, pourings, strict=True):
                client.send(begin)
                pouring.begin()
            await self.require_in_time(cluster, quiet)
            for client, pouring in zip(clients, pourings, strict=True):
                await client.gone.addTimeout(HEAR_SECONDS + DISCARD_SECONDS, reactor)
                self.assertLess(pouring.sent, DISCARD_BYTES + KERNEL_BYTES)
            self.assertLess(self.memory(cluster, 0) - before, GROWTH_BYTES_MAX)
