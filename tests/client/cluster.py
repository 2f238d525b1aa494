"""Fake servers of one cluster behind real sockets of the loopback."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.timeouts import RESPONSE_SECONDS, ResponseTimeout
from pfsb.commands.line_client import LineClient
from pfsb.frontends.line.protocol import LineFactory
from tests.frontends.fake_server import FakeCluster, FakeServer, fake_config

reactor: Any = _reactor


@define(eq=False)
class Listening:
    """A fake server and its port."""

    server: FakeServer
    factory: LineFactory
    port: Any
    address: ServerAddress

    def crash(self) -> Deferred[None]:
        """Close the port and break every connection."""
        for connection in list(self.factory.connections):
            connection.transport.abortConnection()  # type: ignore[union-attr]
        done: Deferred[None] = self.port.stopListening()
        return done


@define(eq=False)
class LoopbackCluster:
    """Fake servers that share the state of one cluster."""

    shared: FakeCluster = field(factory=FakeCluster)
    members: list[Listening] = field(factory=list)

    def start(self, count: int) -> None:
        for server_id in range(count):
            server = FakeServer(fake_config(), self.shared, server_id)
            factory = LineFactory(server, reactor)  # type: ignore[arg-type]
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            number = port.getHost().port
            address = ServerAddress(server_id, f"tcp:127.0.0.1:{number}:timeout=1", f"127.0.0.1:{number}")
            self.members.append(Listening(server, factory, port, address))

    @property
    def addresses(self) -> list[ServerAddress]:
        return [member.address for member in self.members]


class LoopbackTestCase(TestCase):
    """A test with three fake servers."""

    timeout = 20
    servers = 3

    def setUp(self) -> None:
        self.cluster = LoopbackCluster()
        self.cluster.start(self.servers)
        for member in self.cluster.members:
            self.addCleanup(member.port.stopListening)
            self.addCleanup(self.until, lambda member=member: not member.factory.connections)

    def client(self, response_seconds: float = RESPONSE_SECONDS, **given: Any) -> LineClient:
        core = ClientCore(self.cluster.addresses, response_timeout=ResponseTimeout(response_seconds), **given)
        client = LineClient(reactor, core)
        client.start()
        self.addCleanup(client.stop)
        return client

    async def until(self, true: Any) -> None:
        """Wait until the condition `true` holds; otherwise the test ends by its timeout."""
        while not true():
            await deferLater(reactor, 0.005)
