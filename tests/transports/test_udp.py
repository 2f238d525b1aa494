from __future__ import annotations

import errno
import os
import socket

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port

from pfsb.support.hosts import SocketAddress
from pfsb.transports import udp
from pfsb.transports.frames import FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.path_size import BASE_BYTES
from pfsb.transports.udp import SendingSocket
from pfsb.transports.wire import encode
from tests.transports import every_transport
from tests.transports.messages import accept
from tests.transports.transport_case import HOST, TransportTestCase, address, free_ports, reactor, until


def ports_at(number: int) -> list[Port]:
    """The ports with this number at which the reactor receives datagrams."""
    ports = [each for each in reactor.getReaders() if isinstance(each, Port)]
    return [port for port in ports if port.getHost().port == number]


class DeliveryTests(every_transport.DeliveryTests):
    async def test_garbage_is_counted_and_the_port_lives_on(self) -> None:
        """Datagrams that are no frames of this cluster are counted, and the port still receives."""
        a, _ = self.start(0)
        b, receiver = self.start(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for noise in (b"", b"hello?", b"x" * 60_001):
                stranger.sendto(noise, self.addresses[1])
        await until(lambda: b.counters.frames_in == 3)
        a.send([accept(sender=0)], 1)
        await until(lambda: receiver.frames)
        self.assertEqual(b.counters.refused, {"size": 3})


class RefusalTests(every_transport.RefusalTests):
    async def test_refusal_waiting_in_the_socket_does_not_cost_the_next_frame(self) -> None:
        """A refusal that waits in the socket does not cost the next frame: the kernel answers a send with the earlier
        refusal and sends nothing, so the frame is sent again."""
        a, _ = self.start(0)
        a.send([accept(sender=0)], 1)
        # There is no iteration of the reactor in between: the refusal is still in the socket when the peer is back.
        _, peer = self.start(1)
        a.send([accept(2, sender=0)], 1)
        await until(lambda: peer.frames)
        self.assertEqual(peer.messages, [accept(2, sender=0)])


class SourceTests(every_transport.SourceTests):
    def forge(self, host: str, to: int) -> None:
        """Send a well-formed frame in the name of server 0, from another socket."""
        membership = FrameIdentity(0, self.ids - {0}, cluster_digest("three", self.ids))
        [frame] = FrameCodec(membership, b"disk-000", 1, self.secret).seal([encode(accept(sender=0))])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((host, 0))
            other.sendto(frame, self.addresses[to])

    async def test_frame_from_another_address_is_dropped_and_counted(self) -> None:
        """A frame in the name of server 0 from another address, that of another server included, is dropped and
        counted; its port may be any."""
        transport, receiver = self.start(1)
        self.forge("127.0.0.3", to=1)
        self.forge("127.0.0.9", to=1)
        self.forge("127.0.0.1", to=1)
        await until(lambda: receiver.frames)
        self.assertEqual(transport.counters.refused, {"address": 2})
        self.assertEqual(len(receiver.frames), 1)

    async def test_with_a_secret_the_address_does_not_matter(self) -> None:
        """With a secret the address of a frame does not matter: the tag proves its sender, which may be behind a
        translator of addresses."""
        self.secret = b"a secret"
        transport, receiver = self.start(1)
        self.forge("127.0.0.9", to=1)
        await until(lambda: receiver.frames)
        self.assertEqual(transport.counters.refused, {})


class NameTests(every_transport.NameTests):
    async def test_peer_that_moves_to_another_machine_is_sent_measured_datagrams(self) -> None:
        """A peer on this machine gets each frame in one datagram; when it moves to another machine, it does only if the
        path is known to carry it."""
        a, _ = self.start(0), self.start(1)
        path = a[0].links.path(1)
        await until(lambda: a[0].counters.addresses.get(1) is not None)
        self.assertFalse(path.is_measured)
        self.names.hosts["db1"] = "192.0.2.1"
        await until(lambda: path.is_measured)
        self.assertEqual(a[0].counters.paths.datagram_bytes, {1: BASE_BYTES})

    async def test_path_to_a_new_address_is_measured_anew(self) -> None:
        """The path to a new address of a peer is measured anew, since it may carry less than the former one."""
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

    async def test_port_that_is_forwarded_from_another_address_works_with_a_secret(self) -> None:
        """With a secret, a port that is forwarded from another address works, although the server sends from its inner
        address."""
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


class BrokenSocketTests(TransportTestCase):
    async def test_broken_sending_socket_is_opened_anew(self) -> None:
        """When sending from a socket fails, the socket is opened anew: no OSError escapes from `send`, and the next
        frame gets through."""
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
        """A lost receiving port is opened again: a server that hears nothing must not go on sending ALIVE."""
        a, _ = self.start(0)
        _, receiver = self.start(1)
        [port] = ports_at(self.addresses[1][1])
        port.stopReading()
        port.connectionLost()
        await until(lambda: receiver.frames, lambda: a.send([accept(sender=0)], 1))
        self.assertNotIn(port, ports_at(self.addresses[1][1]))

    def test_socket_that_cannot_be_made_is_an_os_error(self) -> None:
        """When no socket can be made for want of file descriptors, the frame is lost, and the socket is made with the
        next frame."""
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
        """An error of one frame, such as a datagram too long, a full queue or a firewall's rule, keeps the socket."""
        sender = SendingSocket(reactor, address(*self.addresses[1]), (HOST, 0), lambda: None, lambda: None)
        self.addCleanup(sender.close)
        sender.write(b"frame")
        before = sender.fileno()
        error = self.assertRaises(OSError, sender.write, b"x" * 70_000)
        self.assertEqual((error.errno, sender.fileno()), (errno.EMSGSIZE, before))


class MembershipTests(every_transport.MembershipTests):
    """Over datagrams."""


class StartAndStopTests(every_transport.StartAndStopTests):
    pass
