from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.internet.udp import Port
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import ITransport
from pfsb.support.hosts import SocketAddress, literal
from pfsb.transports import names, udp
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import FRAME_BYTES_MAX, FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.path_size import BASE_BYTES
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


def address(host: str, port: int) -> SocketAddress:
    found = literal(host, port)
    assert found is not None, host
    return found


def ports_at(number: int) -> list[Port]:
    """The ports with this number at which the reactor receives datagrams."""
    ports = [each for each in reactor.getReaders() if isinstance(each, Port)]
    return [port for port in ports if port.getHost().port == number]


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


class NameTests(UDPTestCase):
    """Servers whose hosts are names, which can have other addresses at any time."""

    def setUp(self) -> None:
        super().setUp()
        self.names = FakeNames(db0="127.0.0.1", db1="127.0.0.2", db2="127.0.0.3")
        self.addresses = {i: (f"db{i}", port) for i, (_, port) in self.addresses.items()}
        self.patch(names, "TICK_SECONDS", 0.02)
        self.patch(names, "SEARCH_SECONDS", 0.05)
        self.patch(names, "DOUBT_SECONDS", 0.05)
        self.patch(udp, "REOPEN_SECONDS", 0.05)
        self.listen: tuple[str, int] | None = None

    def make(self, server_id: int, cluster: str = "three") -> UDPTransport:
        membership = FrameIdentity(server_id, self.ids - {server_id}, cluster_digest(cluster, self.ids))
        return UDPTransport(
            reactor, membership, self.addresses, LinkFaults(reactor, Random(1)), self.secret, self.listen, self.names
        )

    async def exchange(self, *pairs: tuple[UDPTransport, NotingReceiver]) -> None:
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

    async def test_missing_name_of_one_peer_keeps_no_server_down(self) -> None:
        """Two of three servers start and talk; the third is found when its name is there."""
        del self.names.hosts["db2"]
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        self.assertEqual(a[0].counters.addresses[2], None)
        self.assertGreater(a[0].counters.send_errors, 0)
        self.names.hosts["db2"] = "127.0.0.3"
        await self.exchange(a, b, self.start(2))
        self.assertEqual(a[0].counters.addresses[2], f"127.0.0.3:{self.addresses[2][1]}")

    async def test_server_back_at_a_new_address_is_found(self) -> None:
        """No other server is started again, and the frames from the new address count, without a secret."""
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        await b[0].stop()
        self.names.hosts["db1"] = "127.0.0.7"
        await self.exchange(a, self.start(1))
        self.assertEqual(a[0].counters.addresses[1], f"127.0.0.7:{self.addresses[1][1]}")

    async def test_peer_that_moves_to_another_machine_is_sent_measured_datagrams(self) -> None:
        """On this machine every frame is one datagram; on a network, only if the path is known to carry it."""
        a, _ = self.start(0), self.start(1)
        path = a[0].links.path(1)
        await until(lambda: a[0].counters.addresses.get(1) is not None)
        self.assertFalse(path.is_measured)
        self.names.hosts["db1"] = "192.0.2.1"
        await until(lambda: path.is_measured)
        self.assertEqual(a[0].counters.paths.datagram_bytes, {1: BASE_BYTES})

    async def test_path_to_a_new_address_is_measured_anew(self) -> None:
        """The new path may carry less than the former one did."""
        self.patch(SocketAddress, "is_loopback", False)
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        path = a[0].links.path(1)
        path.larger_wanted()
        await until(lambda: path.size > BASE_BYTES)
        await b[0].stop()
        self.names.hosts["db1"] = "127.0.0.7"
        await self.exchange(a, self.start(1))
        self.assertEqual(a[0].counters.addresses[1], f"127.0.0.7:{self.addresses[1][1]}")
        self.assertEqual(path.size, BASE_BYTES)

    async def test_without_a_secret_the_new_address_counts_only_when_the_name_has_it(self) -> None:
        """The name servers of the others give the old address for a while: frames are refused, and nothing is sent."""
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        await b[0].stop()
        others = self.names
        self.names = FakeNames(**{**others.hosts, "db1": "127.0.0.7"})
        moved = self.start(1)
        await until(lambda: a[0].counters.refused, lambda: moved[0].send([accept(sender=1)], 0))
        self.assertEqual(set(a[0].counters.refused), {"address"})
        self.assertEqual(moved[1].frames, [])
        others.hosts["db1"] = "127.0.0.7"
        await self.exchange(a, moved)

    async def test_with_a_secret_the_new_address_is_learned_from_frames(self) -> None:
        """The name servers of the others give the old address for hours."""
        self.secret = b"a secret"
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        await b[0].stop()
        self.names = FakeNames(**{**self.names.hosts, "db1": "127.0.0.7"})
        await self.exchange(a, self.start(1))
        self.assertEqual(a[0].counters.addresses[1], f"127.0.0.7:{self.addresses[1][1]}")

    async def test_former_address_that_refuses_says_nothing_about_a_peer_at_a_learned_one(self) -> None:
        """Else each refusal would be a hint that a living leader is down, and drop frames that are on their way."""
        self.secret = b"a secret"
        a, b, c = self.start(0), self.start(1), self.start(2)
        await self.exchange(a, b, c)
        await b[0].stop()
        self.names = FakeNames(**{**self.names.hosts, "db1": "127.0.0.7"})
        moved = self.start(1)
        await self.exchange(a, moved, c)
        await until(lambda: a[0].book.copies_to(1) is not None)
        before = a[0].counters.refusals
        for _ in range(5):
            await self.exchange(a, moved, c)
            await deferLater(reactor, 0.01)
        self.assertIsNotNone(a[0].book.copies_to(1))
        self.assertEqual(a[0].counters.refusals, before)

    async def test_port_that_is_forwarded_from_another_address_works_with_a_secret(self) -> None:
        """A translator passes on what comes to the outer address; the server sends from its inner address."""
        self.secret = b"a secret"
        outer, port, inner = "127.0.0.2", self.addresses[1][1], ("127.0.0.9", free_ports(1)[0])

        class Translator(DatagramProtocol):
            noisy = False

            def datagramReceived(self, datagram: bytes, addr: object) -> None:
                assert self.transport is not None
                self.transport.write(datagram, inner)

        translator = reactor.listenUDP(port, Translator(), interface=outer, maxPacketSize=65_535)
        self.addCleanup(translator.stopListening)
        a = self.start(0)
        self.listen = inner
        await self.exchange(a, self.start(1))

    async def test_server_follows_its_own_name(self) -> None:
        """The machine gets another address while its server runs, which then receives there, and sends from there."""
        self.patch(names, "SCHEDULE_SECONDS", 0.1)
        a, b = self.start(0), self.start(1)
        await self.exchange(a, b)
        self.names.hosts["db1"] = "127.0.0.7"
        await until(lambda: b[0].counters.addresses[1] == f"127.0.0.7:{self.addresses[1][1]}")
        await self.exchange(a, b)

    async def test_own_name_that_comes_late_opens_the_port_late(self) -> None:
        """A machine that boots while its name server does not answer yet."""
        del self.names.hosts["db1"]
        a, b = self.start(0), self.start(1)
        await until(lambda: self.names.asked.count("db1") > 5)
        self.names.hosts["db1"] = "127.0.0.2"
        await self.exchange(a, b)

    async def test_own_address_that_is_not_of_this_machine_is_tried_again(self) -> None:
        """The name may have the new address before the machine does."""
        self.names.hosts["db1"] = "192.0.2.77"
        b = self.start(1)
        with capturedLogs() as events:
            await until(lambda: any("trying again" in str(event.get("log_format")) for event in events))
        self.assertEqual(ports_at(self.addresses[1][1]), [])
        self.names.hosts["db1"] = "127.0.0.2"
        await self.exchange(self.start(0), b)

    async def test_port_can_be_another_than_the_one_that_others_reach(self) -> None:
        """`listen`: the own name is not looked up, and need not have an address of this machine."""
        a = self.start(0)
        self.names.hosts["db1"] = "127.0.0.1"
        self.listen = ("0.0.0.0", self.addresses[1][1])
        await self.exchange(a, self.start(1))

    async def test_servers_find_each_other_over_ipv6(self) -> None:
        """Names with AAAA records, and one address literal."""
        self.names.hosts.update(db0="::1", db1="::1")
        self.addresses[2] = ("::1", self.addresses[2][1])
        pairs = [self.start(i) for i in sorted(self.ids)]
        await self.exchange(*pairs)
        self.assertEqual(pairs[0][0].counters.addresses[2], f"[::1]:{self.addresses[2][1]}")
        self.assertEqual([transport.counters.refused for transport, _ in pairs], [{}] * 3)

    async def test_wildcard_of_ipv6_hears_peers_of_both_kinds(self) -> None:
        """`listen: "[::]:7400"` beside a name with an A and an AAAA record."""
        self.names.hosts.update(db0="::1", db1="::1 127.0.0.1", db2="127.0.0.3")
        self.listen = ("::", self.addresses[1][1])
        middle = self.start(1)
        self.listen = None
        a, c = self.start(0), self.start(2)
        await self.exchange(a, middle)
        await self.exchange(c, middle)

    async def test_address_at_which_the_peer_does_not_listen_is_given_up(self) -> None:
        """The peer's own resolver gives it one of the two addresses, and ours prefers the other."""
        self.names.hosts.update(db0="127.0.0.1", db1="127.0.0.2")
        b = self.start(1)
        self.names = FakeNames(db0="127.0.0.1", db1="127.0.0.9 127.0.0.2", db2="127.0.0.3")
        a = self.start(0)
        await until(lambda: b[1].frames, lambda: a[0].send([accept(sender=0)], 1))


class BrokenSocketTests(UDPTestCase):
    async def test_broken_sending_socket_is_opened_anew(self) -> None:
        """No OSError escapes from `send`, and the next frame gets through."""
        a, _ = self.start(0)
        _, receiver = self.start(1)
        a.send([accept(1, sender=0)], 1)
        [sender] = [each for each in reactor.getReaders() if isinstance(each, SendingSocket)]
        with socket.socket(fileno=os.dup(sender.fileno())) as broken:
            broken.shutdown(socket.SHUT_WR)
        a.send([accept(2, sender=0)], 1)
        self.assertEqual(a.counters.send_errors, 1)
        a.send([accept(3, sender=0)], 1)
        await until(lambda: len(receiver.frames) == 2)
        self.assertEqual(receiver.messages, [accept(1, sender=0), accept(3, sender=0)])

    async def test_lost_receiving_port_is_opened_again(self) -> None:
        """A server that hears nothing must not go on sending ALIVE."""
        a, _ = self.start(0)
        _, receiver = self.start(1)
        [port] = ports_at(self.addresses[1][1])
        port.stopReading()
        port.connectionLost()
        await until(lambda: receiver.frames, lambda: a.send([accept(sender=0)], 1))
        self.assertNotIn(port, ports_at(self.addresses[1][1]))

    def test_socket_that_cannot_be_made_is_an_os_error(self) -> None:
        """Out of file descriptors: the frame is lost, and the socket is tried again at the next."""
        sender = SendingSocket(reactor, address(*self.addresses[1]), (HOST, 0), lambda: None, lambda: None)

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
        sender = SendingSocket(reactor, address(*self.addresses[1]), (HOST, 0), lambda: None, lambda: None)
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
