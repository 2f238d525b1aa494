"""A case for tests of transports over real sockets, over each kind of network."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from unittest import SkipTest

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pfsb.support.hosts import SocketAddress, literal
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import FrameIdentity, cluster_digest
from pfsb.transports.peer_transport import PeerTransport
from pfsb.transports.stream_security import ServerSecurity
from pfsb.transports.tcp import StreamTransport
from pfsb.transports.udp import UDPTransport
from tests.transports.messages import accept
from tests.transports.receiver import NotingReceiver

try:
    from pfsb.service.certificates import CertificateDirectory
    from pfsb.transports.tls import Credentials, MutualTLS
except ImportError:
    HAS_TLS = False
else:
    HAS_TLS = True

NOW = datetime.fromtimestamp(global_reactor.seconds(), UTC)  # type: ignore[attr-defined]
NO_TLS = "pfsb[tls] is not installed"

reactor: Any = global_reactor
PATIENCE_SECONDS = 20.0
"""The time that a test may take on a slow machine; on a fast one no test waits that long."""
HOST = "127.0.0.1"


async def until(condition: Callable[[], object], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait, a bounded time, until `condition` is true."""
    deadline = reactor.seconds() + PATIENCE_SECONDS
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError("it did not happen")
        meanwhile()
        await deferLater(reactor, 0.01)


def free_ports(count: int) -> list[int]:
    """Ports that were free just now, below those that the kernel gives to sockets without a chosen port."""
    found: list[int] = []
    for port in Random().sample(range(15_000, 32_000), 500):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def is_free(port: int) -> bool:
    """Whether nothing uses a port of this machine, for datagrams or for connections."""
    return all(_can_be_bound(port, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))


def _can_be_bound(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def address(host: str, port: int) -> SocketAddress:
    found = literal(host, port)
    assert found is not None, host
    return found


@cache
def certificates(cluster: str) -> Any:
    """A directory with certificates of three servers of a cluster, made once."""
    made = CertificateDirectory(Path(tempfile.mkdtemp(prefix="pfsb-certificates-")), cluster)
    made.make_authority(NOW)
    for server_id in (0, 1, 2):
        made.make_server(server_id, [], NOW, 1)
    return made


def security(server_id: int, cluster: str = "three", made: Any = None) -> ServerSecurity:
    """The TLS configuration of a server, with certificates of the given directory, or None for the one that all tests
    share."""
    made = certificates(cluster) if made is None else made
    return MutualTLS(cluster, Credentials(made.authority_file, made.server_file(server_id)))


class TransportTestCase(TestCase):
    """Servers 0, 1 and 2 on this machine, as far as a test starts them."""

    timeout = 60
    ids = frozenset({0, 1, 2})
    kinds: ClassVar[tuple[str, ...]] = ("udp",)

    def setUp(self) -> None:
        if "tls" in self.kinds and not HAS_TLS:
            raise SkipTest(NO_TLS)
        self.addresses = {i: (HOST, port) for i, port in zip(sorted(self.ids), free_ports(len(self.ids)), strict=True)}
        self.starts = 0
        self.secret: bytes | None = None
        self.listen: tuple[str, int] | None = None
        self.names: Any = None

    def make(self, server_id: int, cluster: str = "three", kinds: tuple[str, ...] | None = None) -> PeerTransport:
        membership = FrameIdentity(server_id, self.ids - {server_id}, cluster_digest(cluster, self.ids))
        faults = LinkFaults(reactor, Random(1))
        kinds = kinds or self.kinds
        if kinds == ("udp",):
            return UDPTransport(reactor, membership, self.addresses, faults, self.secret, self.listen, self.names)
        return StreamTransport(
            reactor,
            membership,
            self.addresses,
            faults,
            self.secret,
            self.listen,
            self.names,
            kinds=kinds,
            security=self.security(server_id, cluster) if "tls" in kinds else None,
        )

    def security(self, server_id: int, cluster: str) -> ServerSecurity:
        return security(server_id)

    def start(
        self, server_id: int, cluster: str = "three", kinds: tuple[str, ...] | None = None
    ) -> tuple[PeerTransport, NotingReceiver]:
        transport, receiver = self.make(server_id, cluster, kinds), NotingReceiver()
        self.starts += 1
        transport.start(receiver, b"disk-%03d" % server_id, self.starts, lambda: 0)
        self.addCleanup(transport.stop)
        return transport, receiver

    async def meet(self, *pairs: tuple[PeerTransport, NotingReceiver]) -> None:
        """Wait until there is a connection from each of these servers to each other one, if they use connections."""
        ids = {transport.membership.server_id for transport, _ in pairs}
        await until(
            lambda: all(
                transport.counters.streams.via.get(peer, "udp") != "none"
                for transport, _ in pairs
                for peer in ids - {transport.membership.server_id}
            )
        )

    async def exchange(self, *pairs: tuple[PeerTransport, NotingReceiver]) -> None:
        """Let each of these servers send to all, until each has a further frame of each other one."""
        ids = {transport.membership.server_id for transport, _ in pairs}
        for _, receiver in pairs:
            receiver.frames.clear()

        def all_have_heard() -> bool:
            heard = [{sender for sender, _, _ in receiver.frames} for _, receiver in pairs]
            return all(
                ids - {transport.membership.server_id} <= each
                for (transport, _), each in zip(pairs, heard, strict=True)
            )

        def send() -> None:
            for transport, _ in pairs:
                transport.send([accept(sender=transport.membership.server_id)], None)

        await until(all_have_heard, send)


class FakeNames:
    """A resolver that the test can change, with answers that come in the next iteration of the reactor."""

    def __init__(self, **hosts: str) -> None:
        self.hosts = hosts
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Deferred[tuple[SocketAddress, ...]]:
        self.asked.append(host)
        return deferLater(reactor, 0, self._answer, host, port)

    def _answer(self, host: str, port: int) -> tuple[SocketAddress, ...]:
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return tuple(address(each, port) for each in self.hosts[host].split())
