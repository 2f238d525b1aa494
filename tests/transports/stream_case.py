"""A case for tests of connections between servers, and a stranger that connects."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol

from pfsb.transports.frames import FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.tcp import StreamTransport
from pfsb.transports.wire import encode
from tests.transports.messages import accept
from tests.transports.receiver import NotingReceiver
from tests.transports.transport_case import TransportTestCase, reactor, until


class Stranger(Protocol):
    """A connection of a program that is no server."""

    def __init__(self) -> None:
        self.heard = b""
        self.is_gone = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: object = None) -> None:  # type: ignore[override]
        self.is_gone = True


class StreamCase(TransportTestCase):
    kinds = ("tcp",)

    def start_streams(self, server_id: int) -> tuple[StreamTransport, NotingReceiver]:
        transport, receiver = self.start(server_id)
        assert isinstance(transport, StreamTransport)
        return transport, receiver

    async def knock(self, to: int) -> Stranger:
        """Connect to a server as a program that says nothing."""
        made: list[Stranger] = []

        def make() -> Stranger:
            made.append(Stranger())
            return made[0]

        connector = reactor.connectTCP(*self.addresses[to], _factory(make))
        self.addCleanup(connector.disconnect)
        await until(lambda: made and made[0].connected)
        return made[0]

    def frame(self, sender: int = 0, cluster: str = "three") -> bytes:
        """Return a right frame of a server that sends nothing else."""
        membership = FrameIdentity(sender, self.ids - {sender}, cluster_digest(cluster, self.ids))
        return FrameCodec(membership, b"disk-%03d" % sender, 90, self.secret).seal([encode(accept(sender=sender))])[0]


def _factory(make: Any) -> Any:
    factory = Factory.forProtocol(make)
    factory.noisy = False
    factory.startedConnecting = factory.clientConnectionFailed = lambda *_: None  # type: ignore[attr-defined]
    factory.clientConnectionLost = lambda *_: None  # type: ignore[attr-defined]
    return factory
