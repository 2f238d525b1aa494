"""A client that still writes when the server ends its connection gets its last reply, at every door (real sockets)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pfsb.config.config import Limits
from pfsb.frontends.client_port import ClientPortFactory
from pfsb.frontends.http.protocol import HTTPSite
from pfsb.frontends.stream import farewells
from pfsb.frontends.stream.shared_limits import SharedLimits
from tests.frontends.fake_server import FakeServer, fake_config

reactor: Any = _reactor
CHUNK = b"x" * 65_536
SECONDS = 20.0


def pour(port: int, begin: bytes, bytes_max: int) -> tuple[bytes, int]:
    """Connect, and send `begin` and then x without end, up to `bytes_max`; then read. Returns all that has come, and
    how many bytes were sent. Blocks."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
        client.settimeout(SECONDS)
        sent = 0
        try:
            client.sendall(begin)
            while sent < bytes_max:
                sent += client.send(CHUNK)
        except ConnectionError:
            pass
        received = b""
        try:
            while data := client.recv(65_536):
                received += data
        except ConnectionError:
            pass
    return received, sent


class FarewellTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.limits = Limits(command_bytes=10_000, connections=20)
        server: Any = FakeServer(fake_config(self.limits))
        self.shared = SharedLimits.of(server, reactor)
        self.clients = ClientPortFactory(server, reactor, self.shared)
        self.site = HTTPSite(server, reactor, lambda: b"", self.shared)
        self.ports = [reactor.listenTCP(0, each, interface="127.0.0.1") for each in (self.clients, self.site)]
        self.line, self.http = (each.getHost().port for each in self.ports)

    async def tearDown(self) -> None:
        for port in self.ports:
            await port.stopListening()
        await self.until(lambda: not self.shared.farewells.under_way and not self.clients.line.connections)

    async def until(self, reached: Callable[[], bool]) -> None:
        end = reactor.seconds() + SECONDS
        while not reached():
            self.assertLess(reactor.seconds(), end)
            await deferLater(reactor, 0.02)

    def pour(self, *given: Any) -> Deferred[tuple[bytes, int]]:
        return deferToThread(pour, *given)

    async def test_last_reply_is_read_at_every_door(self) -> None:
        """The last reply is read by a client that goes on writing: after a line without end, wrong requests, a body or
        a head that is too large, and bytes that are no HTTP."""
        post = b"POST /v1/kv HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        for port, begin, said in (
            (self.line, b"PUT a ", b"ERR TOOLARGE"),
            (self.line, b"POST / HTTP/1.1\r\n", b"ERR BADREQUEST"),
            (self.line, b"*2\r\n$3\r\nGET\r\n$nonsense\r\n", b"-ERR"),
            (self.http, post + b"Content-Length: 100000000\r\n\r\n", b'"error":"TOOLARGE"'),
            (self.http, b"GET /", b'"error":"TOOLARGE"'),
            (self.http, b"nonsense\r\n\r\n", b"400"),
        ):
            received, sent = await self.pour(port, begin, 4_000_000)
            self.assertIn(said, received, (begin, received[:200], sent))
            self.assertGreater(sent, 3_999_999, begin)

    async def test_client_that_is_not_let_in_reads_why(self) -> None:
        """A client that the server refuses while its first requests are on their way reads the reason."""
        most = self.limits.connections_of_one_address
        for _ in range(most):
            kept = socket.create_connection(("127.0.0.1", self.line))
            self.addCleanup(kept.close)
            kept.sendall(b"PING\n")
        await self.until(lambda: len(self.clients.line.connections) == most)
        received, _ = await self.pour(self.line, b"PING\n", 1_000_000)
        self.assertIn(b"ERR BUSY", received)

    async def test_client_that_writes_for_ever_is_cut_off(self) -> None:
        """A connection that ends is cut off when its client has sent too many bytes more, or has taken too long."""
        self.patch(farewells, "DISCARD_BYTES", 1_000_000)
        _, sent = await self.pour(self.line, b"PUT a ", 200_000_000)
        self.assertLess(sent, 20_000_000, "buffers of the kernel included")
        self.patch(farewells, "DISCARD_SECONDS", 0.1)
        begun = reactor.seconds()
        silent = socket.create_connection(("127.0.0.1", self.line))
        self.addCleanup(silent.close)
        silent.sendall(b"QUIT\n")
        await self.until(lambda: bool(self.shared.farewells.under_way))
        await self.until(lambda: not self.shared.farewells.under_way)
        self.assertLess(reactor.seconds() - begun, SECONDS / 4)

    async def test_only_so_many_connections_end_in_this_way(self) -> None:
        """When as many connections as allowed are ending and still read, further ones are closed at once."""
        self.patch(farewells, "FAREWELLS_MAX", 0)
        await self.pour(self.line, b"QUIT\n", 0)
        self.assertEqual(self.shared.farewells.under_way, 0)
