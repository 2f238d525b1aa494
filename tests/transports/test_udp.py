from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import ITransport
from pfsb.transports import udp
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import FRAME_BYTES_MAX, FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.hosts import ServerAddress, UnknownHost
from pfsb.transports.udp import PortTaken, SendingSocket, UDPTransport
from pfsb.transports.wire import encode
from tests.transports.messages import accept, proposal
from tests.transports.receiver import NotingReceiver

reactor: Any = global_reactor
PATIENCE_SECONDS = 20.0
"""How long a slow machine may take; a fast one never waits so long."""
HOST = "127.0.0.1"


async def until(condition: Callable[[], object], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait, a bounded time, for a condition that the network will bring about."""
    deadline = reactor.seconds() + PATIENCE_SECONDS
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError("it did not happen")
        meanwhile()
        await deferLater(reactor, 0.01)


def free_ports(count: int) -> list[int]:
    """Ports that were free just now, below those that the kernel gives to sockets which do not care."""
    found: list[int] = []
    for port in Random().sample(range(15_000, 32_000), 500):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


class UDPTestCase(TestCase):
    timeout = 60
    ids = frozenset({0, 1, 2})

    def setUp(self) -> None:
        self.addresses = {i: (HOST, port) for i, port in zip(sorted(self.ids), free_ports(len(self.ids)), strict=True)}

    secret: bytes | None = None

    def make(self, server_id: int, cluster: str = "three") -> UDPTransport:
        membership = FrameIdentity(server_id, self.ids - {server_id}, cluster_digest(cluster, self.ids))
        return UDPTransport(reactor, membership, self.addresses, LinkFaults(reactor, Random(1)), self.secret)

    def start(self, server_id: int, cluster: str = "three") -> tuple[UDPTransport, NotingReceiver]:
        transport, receiver = self.make(server_id, cluster), NotingReceiver()
        transport.start(receiver, b"disk-%03d" % server_id, 1, lambda: 0)
        self.addCleanup(transport.stop)
        return transport, receiver


class DeliveryTests(UDPTestCase):
    def test_it_is_a_transport(self) -> None:
        """Handlers do not know which one is in use."""
        verifyObject(ITransport, self.make(0))

    async def test_message_arrives_with_sender_and_identity(self) -> None:
        """One datagram, one frame."""
        a, _ = self.start(0)
        _, receiver = self.start(1)
        a.send([accept(sender=0), proposal(sender=0)], 1)
        await until(lambda: receiver.frames)
        self.assertEqual(receiver.frames, [(0, b"disk-000", [accept(sender=0), proposal(sender=0)])])

    async def test_message_to_all_reaches_all_others(self) -> None:
        """to=None: every peer, not the sender itself."""
        a, own = self.start(0)
        others = [self.start(1)[1], self.start(2)[1]]
        a.send([accept(sender=0)], None)
        await until(lambda: all(receiver.frames for receiver in others))
        self.assertEqual([receiver.messages for receiver in others], [[accept(sender=0)]] * 2)
        self.assertEqual(own.frames, [])

    async def test_largest_frame_arrives_whole(self) -> None:
        """60,000 bytes: above the 8,192 to which Twisted cuts datagrams unless told otherwise."""
        a, _ = self.start(0)
        b, receiver = self.start(1)
        large = proposal(b"x" * 59_800, sender=0)
        await until(lambda: receiver.frames, lambda: a.send([large], 1))
        self.assertEqual(receiver.messages[0], large)
        self.assertGreater(b.counters.bytes_in, FRAME_BYTES_MAX - 200)

    async def test_host_names_are_looked_up(self) -> None:
        """Addresses are mostly IPs, but need not be."""
        self.addresses = {i: ("localhost", port) for i, (_, port) in self.addresses.items()}
        a, _ = self.start(0)
        _, receiver = self.start(1)
        await until(lambda: receiver.frames, lambda: a.send([accept(sender=0)], 1))
        self.assertEqual(receiver.messages[0], accept(sender=0))

    async def test_garbage_is_counted_and_the_port_lives_on(self) -> None:
        """A datagram that is no frame of this cluster never reaches a turn."""
        a, _ = self.start(0)
        b, receiver = self.start(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for noise in (b"", b"hello?", b"x" * 60_001):
                stranger.sendto(noise, self.addresses[1])
        await until(lambda: b.counters.frames_in == 3)
        a.send([accept(sender=0)], 1)
        await until(lambda: receiver.frames)
        self.assertEqual(b.counters.refused, {"size": 3})

    async def test_frames_of_another_cluster_are_counted(self) -> None:
        """Two clusters on one network, one of them with a wrong address in its configuration."""
        a, _ = self.start(0, cluster="another")
        b, receiver = self.start(1)
        await until(lambda: b.counters.refused, lambda: a.send([accept(sender=0)], 1))
        self.assertEqual((set(b.counters.refused), receiver.frames), ({"cluster"}, []))


class RefusalTests(UDPTestCase):
    async def test_dead_peer_is_known_without_another_send(self) -> None:
        """Departure 11: a refused datagram tells at once that the leader is dead."""
        a, receiver = self.start(0)
        a.send([accept(sender=0)], 1)
        await until(lambda: receiver.refusals)
        self.assertEqual(set(receiver.refusals), {1})

    async def test_peer_that_comes_back_is_reached(self) -> None:
        """Refusals do not break the sending socket: not the first, not the tenth."""
        a, receiver = self.start(0)
        await until(lambda: a.counters.refusals >= 10, lambda: a.send([accept(sender=0)], 1))
        _, peer = self.start(1)
        a.send([accept(sender=0)], 1)
        await until(lambda: peer.frames)
        self.assertEqual(peer.messages, [accept(sender=0)])
        self.assertEqual(set(receiver.refusals), {1})

    async def test_refusal_waiting_in_the_socket_does_not_cost_the_next_frame(self) -> None:
        """The kernel answers a send with the refusal of an earlier one, and sends nothing; so it is sent again."""
        a, _ = self.start(0)
        a.send([accept(sender=0)], 1)
        # No iteration of the reactor in between: the refusal is still in the socket when the peer is back.
        _, peer = self.start(1)
        a.send([accept(2, sender=0)], 1)
        await until(lambda: peer.frames)
        self.assertEqual(peer.messages, [accept(2, sender=0)])

    async def test_other_peers_are_not_bothered(self) -> None:
        """One dead peer of two: the other gets every message."""
        a, receiver = self.start(0)
        _, alive = self.start(2)
        for _ in range(5):
            a.send([accept(sender=0)], None)
        await until(lambda: len(alive.frames) == 5 and receiver.refusals)
        self.assertEqual(set(receiver.refusals), {1})


class SourceTests(UDPTestCase):
    """Without a secret, the address that a frame comes from is all that speaks for its sender."""

    def setUp(self) -> None:
        super().setUp()
        self.addresses = {i: (f"127.0.0.{i + 1}", port) for i, (_, port) in self.addresses.items()}

    def forge(self, host: str, to: int) -> None:
        """Send a well-formed frame in the name of server 0, from another socket."""
        membership = FrameIdentity(0, self.ids - {0}, cluster_digest("three", self.ids))
        [frame] = FrameCodec(membership, b"disk-000", 1, self.secret).seal([encode(accept(sender=0))])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((host, 0))
            other.sendto(frame, self.addresses[to])

    async def test_servers_send_from_their_own_address(self) -> None:
        """A host with several addresses: the kernel would choose 127.0.0.1 for all of these."""
        started = {i: self.start(i) for i in sorted(self.ids)}
        for sender, (transport, _) in started.items():
            transport.send([accept(sender=sender)], None)
        await until(lambda: all(len(receiver.frames) == 2 for _, receiver in started.values()))
        self.assertEqual([transport.counters.refused for transport, _ in started.values()], [{}] * 3)

    async def test_frame_from_another_address_is_dropped_and_counted(self) -> None:
        """Neither the address of another server nor that of a stranger will do; any port will."""
        transport, receiver = self.start(1)
        self.forge("127.0.0.3", to=1)
        self.forge("127.0.0.9", to=1)
        self.forge("127.0.0.1", to=1)
        await until(lambda: receiver.frames)
        self.assertEqual(transport.counters.refused, {"address": 2})
        self.assertEqual(len(receiver.frames), 1)

    async def test_with_a_secret_the_address_does_not_matter(self) -> None:
        """The tag proves more, and servers behind a translator of addresses can only be told by it."""
        self.secret = b"a secret"
        transport, receiver = self.start(1)
        self.forge("127.0.0.9", to=1)
        await until(lambda: receiver.frames)
        self.assertEqual(transport.counters.refused, {})

    async def test_wildcard_is_not_sent_from(self) -> None:
        """A server that listens on all addresses sends from whichever the kernel chooses."""
        self.addresses[0] = ("0.0.0.0", self.addresses[0][1])
        self.addresses[1] = ("127.0.0.1", self.addresses[1][1])
        transport, own = self.start(0)
        peer, receiver = self.start(1)
        transport.send([accept(sender=0)], 1)
        peer.send([accept(sender=1)], 0)
        await until(lambda: receiver.frames and own.frames)
        self.assertEqual((transport.counters.refused, peer.counters.refused), ({}, {}))


class BrokenSocketTests(UDPTestCase):
    async def test_broken_sending_socket_is_opened_anew(self) -> None:
        """No OSError escapes from `send`, and the next frame gets through."""
        a, _ = self.start(0)
        _, receiver = self.start(1)
        a.send([accept(1, sender=0)], 1)
        broken = a._senders[1]._socket
        assert broken is not None
        reactor.removeReader(a._senders[1])
        broken.close()
        a.send([accept(2, sender=0)], 1)
        self.assertEqual(a.counters.send_errors, 1)
        a.send([accept(3, sender=0)], 1)
        await until(lambda: len(receiver.frames) == 2)
        self.assertEqual(receiver.messages, [accept(1, sender=0), accept(3, sender=0)])

    async def test_lost_receiving_port_is_opened_again(self) -> None:
        """A server that hears nothing must not go on sending ALIVE."""
        a, _ = self.start(0)
        b, receiver = self.start(1)
        port: Any = b._port
        port.stopReading()
        port.connectionLost()
        await until(lambda: receiver.frames, lambda: a.send([accept(sender=0)], 1))
        self.assertIsNot(b._port, port)

    def test_socket_that_cannot_be_made_is_an_os_error(self) -> None:
        """Out of file descriptors: the frame is lost, and the socket is tried again at the next."""
        sender = SendingSocket(
            reactor, ServerAddress.find(1, *self.addresses[1]), (HOST, 0), lambda: None, lambda: None
        )

        def none_left(*args: object) -> socket.socket:
            raise OSError(errno.EMFILE, "Too many open files")

        with self.subTest("none left"):
            patcher = self.patch(udp.socket, "socket", none_left)
            self.assertRaises(OSError, sender.write, b"frame")
            patcher.restore()
        sender.write(b"frame")
        sender.close()
        self.assertEqual(sender.fileno(), -1)

    def test_error_of_one_frame_keeps_the_socket(self) -> None:
        """A datagram too long, like a full queue or a firewall's rule, says nothing about the socket."""
        sender = SendingSocket(
            reactor, ServerAddress.find(1, *self.addresses[1]), (HOST, 0), lambda: None, lambda: None
        )
        self.addCleanup(sender.close)
        sender.write(b"frame")
        before = sender.fileno()
        error = self.assertRaises(OSError, sender.write, b"x" * 70_000)
        self.assertEqual((error.errno, sender.fileno()), (errno.EMSGSIZE, before))


class StartAndStopTests(UDPTestCase):
    def test_port_in_use_is_one_clear_line(self) -> None:
        """A port in use is refused with one line that has the address."""
        self.start(0)
        error = self.assertRaises(PortTaken, self.make(0).start, NotingReceiver(), b"disk-000", 1, lambda: 0)
        self.assertIsInstance(error, CannotListenError)
        self.assertIn(f"{HOST}:{self.addresses[0][1]}: Address already in use", str(error))
        self.assertNotIn("\n", str(error))

    def test_unknown_host_names_server_and_host(self) -> None:
        """One line that says which of the addresses is wrong."""
        look_up = socket.getaddrinfo

        def without_network(host: str, *args: Any, **kwargs: Any) -> Any:
            if host == "no-such-host.invalid":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return look_up(host, *args, **kwargs)

        self.patch(udp.socket, "getaddrinfo", without_network)
        self.addresses[2] = ("no-such-host.invalid", 7402)
        error = self.assertRaises(UnknownHost, self.make(0).start, NotingReceiver(), b"disk-000", 1, lambda: 0)
        self.assertIn('server 2: the host "no-such-host.invalid" has no address', str(error))

    async def test_port_is_free_after_stop(self) -> None:
        """A server can be started again at once; and a stopped transport sends nothing, in silence."""
        first, _ = self.start(0)
        stopped = first.stop()
        assert isinstance(stopped, Deferred)
        await stopped
        first.send([accept(sender=0)], None)
        self.assertIsNone(first.stop())
        second, _ = self.start(0)
        _, receiver = self.start(1)
        await until(lambda: receiver.frames, lambda: second.send([accept(sender=0)], 1))
        self.assertEqual(first.counters.frames_out, 0)
