"""Connections between servers: strangers, dead and slow peers, bounds; over TCP, without and with TLS."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from pfsb.transports import incoming_streams, outgoing_stream, tcp
from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES
from pfsb.transports.pieces_of_stream import PULSE, FrameSplitter, WrongLength, in_stream
from pfsb.transports.tcp import StreamTransport
from tests.transports.messages import accept, proposal
from tests.transports.receiver import NotingReceiver
from tests.transports.stream_case import StreamCase
from tests.transports.transport_case import HOST, reactor, until


class SplitterTests(SynchronousTestCase):
    def test_frames_come_out_however_the_stream_is_cut(self) -> None:
        """Frames come out of a stream however it is cut, also byte by byte."""
        frames = [bytes([i]) * size for i, size in enumerate((OVERHEAD_BYTES, 300, 1_000))]
        stream = b"".join(map(in_stream, frames))
        for at in range(len(stream)):
            splitter = FrameSplitter()
            self.assertEqual([*splitter.feed(stream[:at]), *splitter.feed(stream[at:])], frames, at)
        splitter = FrameSplitter()
        self.assertEqual([frame for i in range(len(stream)) for frame in splitter.feed(stream[i : i + 1])], frames)

    def test_wrong_length_is_noticed_before_the_frame_is_there(self) -> None:
        """A wrong length is noticed before the frame is there: no server waits for, or keeps, four gigabytes."""
        for length in (0, OVERHEAD_BYTES - 1, FRAME_BYTES_MAX + 1, 2**32 - 1):
            self.assertRaises(WrongLength, list, FrameSplitter().feed(length.to_bytes(4, "big")))


class StrangerTests(StreamCase):
    """A connection from a program that is no server is closed because of what it sends, and no server loses
    anything."""

    async def sent(self, data: bytes) -> tuple[dict[str, int], list[Any]]:
        """Send bytes as a stranger, which must end the connection; returns why it was ended, and the frames."""
        transport, receiver = self.start_streams(1)
        stranger = await self.knock(1)
        assert stranger.transport is not None
        stranger.transport.write(data)
        await until(lambda: stranger.is_gone)
        self.assertEqual(stranger.heard, b"")
        await self.exchange((transport, receiver), self.start(0))
        return dict(transport.counters.streams.turned_away), receiver.frames

    async def test_rubbish(self) -> None:
        self.assertEqual((await self.sent(b"GET / HTTP/1.1\r\n\r\n"))[0], {"noise": 1})

    async def test_giant_length(self) -> None:
        """A frame whose length says four gigabytes ends the connection at once."""
        self.assertEqual((await self.sent(b"\0\xff\xff\xff"))[0], {"length": 1})

    async def test_well_cut_rubbish(self) -> None:
        """A first frame that is refused ends the connection, although its length is right."""
        self.assertEqual((await self.sent(in_stream(b"x" * 500) * 3))[0], {"frame": 1})

    async def test_frame_of_another_cluster(self) -> None:
        """A frame of another cluster, which has a wrong address in its configuration, ends the connection."""
        self.assertEqual((await self.sent(in_stream(self.frame(cluster="another"))))[0], {"frame": 1})

    async def test_tls_where_none_is_spoken(self) -> None:
        """TLS at a server that speaks none is reported as such: it may be a peer that was changed to TLS too early."""
        self.assertEqual((await self.sent(b"\x16\x03\x01\x02\x00\x01"))[0], {"tls": 1})

    async def test_silence_and_a_byte_a_while_are_bounded_in_time(self) -> None:
        """Connections that send nothing, or a byte now and then, end after the time that a first frame may take."""
        self.patch(incoming_streams, "FIRST_FRAME_SECONDS", 0.5)
        transport, _ = self.start_streams(1)
        silent, slow = await self.knock(1), await self.knock(1)
        for byte in in_stream(self.frame()):
            if slow.is_gone:
                break
            assert slow.transport is not None
            slow.transport.write(bytes([byte]))
            await deferLater(reactor, 0.05)
        await until(lambda: silent.is_gone and slow.is_gone)
        self.assertEqual(transport.counters.streams.turned_away, {"silent": 2})

    async def test_crowd_of_strangers_is_bounded_and_keeps_no_peer_out(self) -> None:
        """Connections of strangers are bounded in number: the oldest one from the address with the most is closed, and
        a peer that connects then is served."""
        self.patch(incoming_streams, "STRANGERS_MAX", 4)
        transport, receiver = self.start_streams(1)
        strangers = [await self.knock(1) for _ in range(10)]
        await until(lambda: sum(each.is_gone for each in strangers) == 6)
        self.assertEqual([each.is_gone for each in strangers], [True] * 6 + [False] * 4)
        await self.exchange((transport, receiver), self.start(0))
        self.assertEqual(len([each for each in transport.streams.door.streams if each.server_id is None]), 3)

    async def test_peer_that_sends_pieces_of_a_frame_for_ever_is_closed(self) -> None:
        """A peer that sends pieces of a frame for ever is disconnected: only whole frames keep a connection open."""
        self.patch(incoming_streams, "IDLE_SECONDS", 0.5)
        _, receiver = self.start_streams(1)
        peer = await self.knock(1)
        assert peer.transport is not None
        peer.transport.write(in_stream(self.frame()))
        await until(lambda: receiver.frames)
        piece = in_stream(self.frame())
        for at in range(len(piece) - 1):
            if peer.is_gone:
                break
            peer.transport.write(piece[at : at + 1])
            await deferLater(reactor, 0.05)
        await until(lambda: peer.is_gone)
        self.assertEqual(len(receiver.frames), 1)

    async def test_connections_of_one_peer_are_bounded(self) -> None:
        """Connections of one peer are bounded in number: a peer that has lost some without notice opens others, and the
        oldest are closed."""
        _, receiver = self.start_streams(1)
        peers = []
        for number in range(1, 8):
            peers.append(await self.knock(1))
            assert peers[-1].transport is not None
            peers[-1].transport.write(in_stream(self.frame()))
            await until(lambda number=number: len(receiver.frames) == number)  # type: ignore[misc]
        await until(lambda: sum(each.is_gone for each in peers) == 7 - incoming_streams.PEER_STREAMS_MAX)
        self.assertEqual([each.is_gone for each in peers], [True] * 3 + [False] * 4)

    async def test_right_frame_is_answered_by_a_pulse(self) -> None:
        """A right frame is answered by a pulse, and further ones by one pulse together, a little later."""
        _, receiver = self.start_streams(1)
        peer = await self.knock(1)
        assert peer.transport is not None
        peer.transport.write(in_stream(self.frame()))
        await until(lambda: peer.heard)
        self.assertEqual(peer.heard, PULSE)
        for _ in range(3):
            peer.transport.write(in_stream(self.frame()))
            await deferLater(reactor, 0.01)
        await until(lambda: len(receiver.frames) == 4)
        await deferLater(reactor, 3 * incoming_streams.PULSE_SECONDS)
        self.assertLessEqual(len(peer.heard), 3 * len(PULSE))


class Dummy(Protocol):
    """A server whose process hangs: it takes connections, and reads nothing or answers nothing."""

    def __init__(self, made: list[Dummy], answers: bytes, reads: bool) -> None:
        self._made = made
        self._answers = answers
        self._reads = reads
        self.heard = 0

    def connectionMade(self) -> None:
        self._made.append(self)
        transport: Any = self.transport
        if self._answers:
            transport.write(self._answers)
        if not self._reads:
            transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.heard += len(data)


class PeerTests(StreamCase):
    def listen_as(self, server_id: int, answers: bytes, reads: bool = True) -> list[Dummy]:
        """Listen at the address of a server; returns the list of the connections that come."""
        made: list[Dummy] = []
        factory = Factory.forProtocol(lambda: Dummy(made, answers, reads))
        factory.noisy = False
        host, port = self.addresses[server_id]
        listening = reactor.listenTCP(port, factory, interface=host)
        self.addCleanup(listening.stopListening)

        def hang_up() -> None:
            for each in made:
                transport: Any = each.transport
                transport.abortConnection()

        self.addCleanup(hang_up)
        return made

    async def test_connection_that_is_open_and_dead_is_replaced(self) -> None:
        """A connection whose peer has answered once and then no more is replaced, although the kernel notices
        nothing."""
        self.patch(outgoing_stream, "DEAD_SECONDS", 0.3)
        made = self.listen_as(1, PULSE)
        a, _ = self.start_streams(0)
        await until(lambda: a.streams.reaches(1))
        began = reactor.seconds()
        await until(lambda: a.counters.streams.dead, lambda: a.send([accept(sender=0)], 1))
        self.assertLess(reactor.seconds() - began, 2.0)
        await until(lambda: len(made) >= 2)

    async def test_idle_connection_that_is_dead_is_replaced_too(self) -> None:
        """A dead connection on which the protocol sends nothing is replaced, too: a hello asks for a pulse."""
        self.patch(outgoing_stream, "DEAD_SECONDS", 0.3)
        self.patch(outgoing_stream, "HELLO_SECONDS", 0.3)
        made = self.listen_as(1, PULSE)
        a, _ = self.start_streams(0)
        await until(lambda: a.counters.streams.dead and len(made) >= 2)

    async def test_idle_connection_that_lives_is_kept(self) -> None:
        """An idle connection between two living servers is kept for many times the limits."""
        for name in ("DEAD_SECONDS", "HELLO_SECONDS"):
            self.patch(outgoing_stream, name, 0.3)
        self.patch(incoming_streams, "IDLE_SECONDS", 1.0)
        a, b = self.start_streams(0), self.start_streams(1)
        await self.meet(a, b)
        await deferLater(reactor, 3.0)
        self.assertEqual([each.counters.streams.lost for each, _ in (a, b)], [0, 0])

    async def test_peer_that_reads_nothing_costs_bounded_memory_and_holds_up_no_other(self) -> None:
        """For a peer that reads nothing, frames beyond a bound are lost and counted; other peers get theirs."""
        self.patch(outgoing_stream, "WAITING_BYTES_MAX", 200_000)
        self.patch(outgoing_stream, "DEAD_SECONDS", 60.0)
        self.listen_as(1, PULSE, reads=False)
        a, c = self.start_streams(0), self.start_streams(2)
        await self.meet(a, c)
        await until(lambda: a[0].streams.reaches(1))
        large = proposal(b"x" * 59_000, sender=0)
        sent = 0

        def send() -> None:
            nonlocal sent
            a[0].send([large], None)
            sent += 1

        await until(lambda: a[0].counters.streams.dropped > 20, send)
        await until(lambda: len(c[1].frames) == sent)
        stream = a[0].streams.outgoing[1].stream
        assert stream is not None
        self.assertTrue(IPushProducer.providedBy(stream))
        self.assertLessEqual(stream.waiting_bytes, 200_000)

    async def test_peer_that_hangs_while_buffers_are_full_is_replaced(self) -> None:
        """A connection is replaced if its peer hangs while the buffers are full: frames that wait for room count as
        questions for a pulse."""
        self.patch(outgoing_stream, "DEAD_SECONDS", 0.5)
        made = self.listen_as(1, PULSE, reads=False)
        a, _ = self.start_streams(0)
        await until(lambda: a.streams.reaches(1))
        stream = a.streams.outgoing[1].stream
        assert stream is not None
        large = proposal(b"x" * 59_000, sender=0)
        for _ in range(400):
            a.send([large], 1)
        self.assertGreater(stream.waiting_bytes, 1_000_000)
        await deferLater(reactor, 0.1)
        transport: Any = made[0].transport
        transport.write(PULSE)
        await deferLater(reactor, 0.1)
        await until(lambda: a.counters.streams.dead, lambda: a.send([accept(sender=0)], 1))
        await until(lambda: len(made) >= 2)

    async def test_peer_that_answers_otherwise_is_left(self) -> None:
        """A connection at which another program answers, such as an HTTP server, is closed."""
        made = self.listen_as(1, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        a, _ = self.start_streams(0)
        await until(lambda: len(made) >= 3)
        self.assertEqual((a.counters.streams.opened, a.counters.streams.via[1]), (0, "none"))

    async def test_attempts_at_a_peer_that_fails_become_rarer(self) -> None:
        """Attempts to connect to a peer that fails become rarer: each doubles the wait up to some seconds, so that ten
        attempts take half a minute."""
        made = self.listen_as(1, b"no")
        self.start_streams(0)
        await until(lambda: len(made) >= 4)
        count = len(made)
        await deferLater(reactor, 1.0)
        self.assertLessEqual(len(made) - count, 2)

    async def test_frame_of_a_peer_makes_the_next_attempt_follow_at_once(self) -> None:
        """A frame of a peer makes the next attempt to connect follow at once, though the wait after failures may be
        seconds."""
        made = self.listen_as(1, b"no")
        a, receiver = self.start_streams(0)
        await until(lambda: len(made) >= 5)
        self.patch(outgoing_stream, "FIRST_WAIT_SECONDS", 0.01)
        peer = await self.knock(0)
        await until(lambda: a.streams.outgoing[1].waits)
        count, began = len(made), reactor.seconds()
        assert peer.transport is not None
        peer.transport.write(in_stream(self.frame(1)))
        await until(lambda: receiver.frames and len(made) > count)
        self.assertLess(reactor.seconds() - began, 0.5)  # the wait alone was at least 0.8 s

    async def test_frames_wait_while_a_connection_is_being_opened(self) -> None:
        """Frames wait while a connection is being opened: a server that has just started loses nothing of what it sends
        first."""
        a, b = self.make(0), self.start_streams(1)
        receiver = NotingReceiver()
        self.addCleanup(a.stop)
        a.start(receiver, b"disk-000", 77, lambda: 0)
        a.send([accept(1, sender=0)], 1)
        a.send([accept(2, sender=0)], 1)
        await until(lambda: len(b[1].frames) == 2)
        self.assertEqual(b[1].messages, [accept(1, sender=0), accept(2, sender=0)])

    async def test_peer_that_restarts_is_reached_at_once(self) -> None:
        """A peer that restarts is reached at once: the end of its process ends the connection, and attempts are refused
        until it listens again."""
        a, b = self.start_streams(0), self.start_streams(1)
        await self.meet(a, b)
        await deferLater(reactor, 0.1)
        await b[0].stop()
        await until(lambda: 1 in a[1].refusals)
        again = self.start_streams(1)
        began = reactor.seconds()
        await self.meet(a, again)
        self.assertLess(reactor.seconds() - began, 1.0)
        await self.exchange(a, again)

    async def test_many_large_frames_arrive_in_order_through_small_buffers(self) -> None:
        """Many large frames arrive in order through small buffers of the system: they wait, and leave when the peer has
        read."""
        a, b = self.start_streams(0), self.start_streams(1)
        await self.meet(a, b)
        for number in range(60):
            a[0].send([proposal(b"%04d" % number * 14_000, sender=0)], 1)
        await until(lambda: len(b[1].frames) == 60)
        payloads = [message.batch.updates()[0].payload[:4] for message in b[1].messages]  # type: ignore[union-attr]
        self.assertEqual(payloads, [b"%04d" % number for number in range(60)])
        self.assertEqual(a[0].counters.streams.dropped, 0)

    async def test_faults_lose_and_cut_as_on_datagrams(self) -> None:
        """FAULT works with connections as with datagrams: a cut does not end connections, and after it frames pass at
        once."""
        a, b = self.start_streams(0), self.start_streams(1)
        await self.meet(a, b)
        a[0].faults.cut([1])
        for _ in range(5):
            a[0].send([accept(sender=0)], 1)
            b[0].send([accept(sender=1)], 0)
        await until(lambda: a[0].counters.lost_by_fault >= 10)
        self.assertEqual((a[1].frames, b[1].frames), ([], []))
        a[0].faults.heal()
        a[0].faults.lose(0.5)
        for _ in range(200):
            a[0].send([accept(sender=0)], 1)
        await deferLater(reactor, 0.2)
        self.assertTrue(50 < len(b[1].frames) < 150, len(b[1].frames))
        self.assertEqual(a[0].counters.streams.lost, 0)


class ChangeTests(StreamCase):
    """A cluster changes from one transport to another, one server after the other."""

    async def test_every_pair_of_steps_understands_each_other(self) -> None:
        """Servers before, amid and after each change of transport understand each other: at no step are two of them out
        of reach."""
        changes = [("udp", "tcp"), ("tcp", "udp")]
        for before, after in changes:
            for one, other in (((before,), (after, before)), ((after, before),) * 2, ((after, before), (after,))):
                self.addresses = {i: (HOST, port) for i, (_, port) in self.addresses.items()}
                a, b = self.start(0, kinds=one), self.start(1, kinds=other)
                await self.exchange(a, b)
                await self.exchange(a, b)
                self.assertEqual([each.counters.refused for each, _ in (a, b)], [{}, {}], (one, other))
                for each, _ in (a, b):
                    await each.stop()

    async def test_streams_are_preferred_once_they_are_there(self) -> None:
        """Connections are used as soon as they are open; STATUS tells by which transport each peer is reached, before
        the former one is given up."""
        a, b = self.start(0, kinds=("tcp", "udp")), self.start(1, kinds=("udp",))
        await self.exchange(a, b)
        self.assertEqual(a[0].counters.streams.via[1], "udp")
        await b[0].stop()
        b = self.start(1, kinds=("tcp", "udp"))
        await until(lambda: a[0].counters.streams.via[1] == b[0].counters.streams.via[0] == "tcp")
        await self.exchange(a, b)

    async def test_peer_that_is_gone_is_told_by_datagrams(self) -> None:
        """A refused connection is no sign that a peer which takes datagrams is gone; a refused datagram is."""
        a, receiver = self.start(0, kinds=("tcp", "udp"))
        assert isinstance(a, StreamTransport)
        b, _ = self.start(1, kinds=("udp",))
        await until(lambda: a.counters.streams.failed >= 4)
        self.assertEqual([each for each in receiver.refusals if each == 1], [])
        await b.stop()
        await until(lambda: 1 in receiver.refusals, lambda: a.send([accept(sender=0)], 1))

    async def test_datagrams_are_not_measured_while_streams_carry_the_frames(self) -> None:
        """While connections carry the frames, sizes of datagrams are not measured: a large frame leaves in one
        piece."""
        self.patch(tcp.SocketAddress, "is_loopback", False)
        a, b = self.start(0, kinds=("tcp", "udp")), self.start(1, kinds=("udp",))
        path = a[0].links.path(1)
        await self.exchange(a, b)
        self.assertTrue(path.is_measured)
        await b[0].stop()
        b = self.start(1, kinds=("tcp", "udp"))
        await until(lambda: a[0].counters.streams.via[1] == "tcp")
        self.assertFalse(path.is_measured)
        await b[0].stop()
        await until(lambda: path.is_measured)
