"""A holder of a lock that is cut off from all servers is told before another client gets the lock (real processes)."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from pfsb.client import LockLost, TwistedClerk
from pfsb.client.core.addresses import ServerAddress, tcp_address
from pfsb.demo.processes import ProcessCluster
from tests.integration.case import ClusterCase, reactor

TTL_SECONDS = 4


class Pipe(Protocol):
    """One end of a connection that goes through a `Gate`."""

    other: Pipe | None = None

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.waiting = b""

    def dataReceived(self, data: bytes) -> None:
        if self.gate.is_shut:
            return
        if self.other is None or self.other.transport is None:
            self.waiting += data
        else:
            self.other.transport.write(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.other is not None and self.other.transport is not None and not self.gate.is_shut:
            self.other.transport.loseConnection()


class ClientEnd(Pipe):
    def connectionMade(self) -> None:
        self.gate.clients.append(self)
        if not self.gate.is_shut:
            end = Pipe(self.gate)
            end.other = self
            endpoint = clientFromString(reactor, self.gate.server.endpoint)
            endpoint.connect(Factory.forProtocol(lambda: end)).addCallbacks(self.joined, lambda _failure: None)

    def joined(self, end: Pipe) -> None:
        self.other = end
        self.gate.servers.append(end)
        assert end.transport is not None
        end.transport.write(self.waiting)


@define(eq=False)
class Gate:
    """A port between a client and a server. When it is shut, it ends the connections at the side of the server, so that
    the server knows at once that its client is gone, and leaves those at the side of the client open, without a
    word."""

    server: ServerAddress
    is_shut: bool = False
    port: Any = None
    clients: list[Pipe] = field(factory=list)
    servers: list[Pipe] = field(factory=list)

    def start(self) -> None:
        self.port = reactor.listenTCP(0, Factory.forProtocol(lambda: ClientEnd(self)), interface="127.0.0.1")

    @property
    def address(self) -> ServerAddress:
        return tcp_address(self.server.id, "127.0.0.1", str(self.port.getHost().port))

    def shut(self) -> None:
        self.is_shut = True
        for end in self.servers:
            end.transport.abortConnection()  # type: ignore[union-attr]

    def end(self) -> Any:
        for end in (*self.clients, *self.servers):
            end.transport.abortConnection()  # type: ignore[union-attr]
        return self.port.stopListening()


class LostLockTests(ClusterCase):
    timeout = 100

    def gates(self, cluster: ProcessCluster) -> list[Gate]:
        gates = [Gate(address) for address in cluster.addresses]
        for gate in gates:
            gate.start()
            self.addCleanup(gate.end)
        return gates

    async def test_holder_that_is_cut_off_is_told_before_another_has_the_lock(
        self,
    ) -> None:
        cluster = await self.start_cluster(3)
        gates = self.gates(cluster)
        clerk = TwistedClerk(
            reactor,
            [gate.address for gate in gates],
            ttl_seconds=TTL_SECONDS,
            timeout_seconds=10,
            learn_servers=False,  # the addresses of the servers themselves would lead around the gates
        )
        other = TwistedClerk(reactor, cluster.addresses)
        self.addCleanup(other.close)
        self.addCleanup(clerk.close)
        told: list[float] = []
        lost: list[float] = []
        with self.assertRaises(LockLost):
            async with clerk.lock("door") as held:
                held.on_doubt(lambda _held: told.append(reactor.seconds()))
                held.on_lost(lambda _held: lost.append(reactor.seconds()))
                await cluster.pause(1.5 * TTL_SECONDS)
                self.assertEqual(told, [])
                for gate in gates:
                    gate.shut()
                async with other.lock("door"):
                    granted = reactor.seconds()
                    self.assertTrue(held.may_be_lost)
                    self.assertEqual((len(told), lost, held.is_lost), (1, [], False))
                    self.assertLess(told[0], granted)
                    for gate in gates:
                        gate.is_shut = False

                    async def is_lost() -> bool:
                        return held.is_lost

                    await cluster.wait_for("the holder to be told of its loss", is_lost, 60)
                self.assertEqual((len(lost), held.may_be_lost), (1, False))
