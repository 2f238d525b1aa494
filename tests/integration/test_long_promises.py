"""A new leader fetches long promises over real UDP sockets whose buffers hold a few frames (Departure 47)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pfsb.paxos.messages import Batch, State
from pfsb.paxos.records import Accepted, PeerRecord, Recovered
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.transports import udp
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import FrameIdentity, cluster_digest
from pfsb.transports.udp import UDPTransport
from tests.paxos.case import FakeStorage, RecordingStateMachine, identity_of
from tests.paxos.messages import client_update
from tests.transports.test_udp import HOST, free_ports

reactor: Any = installed_reactor

PARTS = 64
UPDATE_BYTES = 40_000
"""Size, in bytes, of an update of which a frame holds only one."""
FOUR_FRAMES_BYTES = 120_000
"""Size of a socket's buffer, in bytes, as it is asked for: Linux gives twice as much, and counts its own overhead."""
PATIENCE_SECONDS = 30.0


class QuickStorage(FakeStorage):
    """A disk that finishes each sync soon after it was asked for, without a call of the test."""

    def sync(self, durable: Callable[[], None]) -> None:
        reactor.callLater(0.001, durable)


class LongPromiseTests(TestCase):
    timeout = 60

    async def test_three_servers(self) -> None:
        await self.a_server_leads(3)

    async def test_nine_servers(self) -> None:
        await self.a_server_leads(9)

    async def a_server_leads(self, count: int) -> None:
        """Wait until a server leads. All servers start with 64 accepted updates of an earlier view, of which no frame
        holds two."""
        self.patch(udp, "SOCKET_BUFFER_BYTES", FOUR_FRAMES_BYTES)
        ids = tuple(range(1, count + 1))
        addresses = dict(zip(ids, ((HOST, port) for port in free_ports(count)), strict=True))
        failures: list[Failure] = []
        replicas = [self.replica(server_id, addresses, failures.append) for server_id in ids]
        for replica in replicas:
            replica.start()
        self.addCleanup(lambda: ensureDeferred(self.stop_all(replicas)))
        until = reactor.seconds() + PATIENCE_SECONDS
        while not any(replica.data.server.state is State.REG_LEADER for replica in replicas):
            self.assertEqual(failures, [])
            self.assertLess(reactor.seconds(), until, "no server leads")
            await deferLater(reactor, 0.02)

    @staticmethod
    async def stop_all(replicas: list[Replica]) -> None:
        """Stop all servers, and let the syncs end that are under way."""
        stopped = [replica.stop() for replica in replicas]
        await gatherResults([result for result in stopped if result is not None])
        await deferLater(reactor, 0.05)

    @staticmethod
    def replica(
        server_id: int, addresses: dict[int, tuple[str, int]], on_failure: Callable[[Failure], None]
    ) -> Replica:
        others = frozenset(addresses) - {server_id}
        found = Recovered(identity_of(server_id), 1, last_attempted=1, last_installed=1)
        found.peers = {i: PeerRecord(i, identity_of(i)) for i in others}
        updates = [client_update(f"client-{seq}", payload=bytes(UPDATE_BYTES)) for seq in range(1, PARTS + 1)]
        found.accepted = [Accepted(seq, 1, Batch.of(0, [update])) for seq, update in enumerate(updates, 1)]
        membership = FrameIdentity(server_id, others, cluster_digest("long", addresses))
        return Replica(
            server_id=server_id,
            servers=sorted(addresses),
            settings=Settings(window_slots=PARTS),
            clock=reactor,
            rng=Random(server_id),
            storage=QuickStorage(found),
            transport=UDPTransport(reactor, membership, addresses, LinkFaults(reactor, Random(1))),
            state_machine=RecordingStateMachine(),
            on_failure=on_failure,
        )
