"""The simulated network (docs/testing.rst)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import IFrameReceiver, ITransport
from pfsb.paxos.messages import Accept, Message, VCProof, ViewChange
from pfsb.simulator.cluster.clock import ServerClock, SimulatedClock
from pfsb.simulator.cluster.network import LinkQuality, MessageFault, SelectiveLink, SimulatedNetwork, SocketBuffer
from pfsb.simulator.cluster.transport import SimulatedTransport


@implementer(IFrameReceiver)
@define
class Inbox:
    """Keeps the messages that arrive."""

    clock: SimulatedClock
    got: list[tuple[int, Message]] = field(factory=list)
    times: list[float] = field(factory=list)
    refused: list[int] = field(factory=list)

    def receive(
        self,
        sender: int,
        identity: bytes,
        messages: Sequence[Message],
        start: int = 0,
        position: int = 0,
        epoch: int = 0,
    ) -> None:
        self.got += [(sender, message) for message in messages]
        self.times.append(self.clock.seconds())

    def peer_refused(self, server_id: int) -> None:
        self.refused.append(server_id)


class NetworkTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SimulatedClock()
        self.network = SimulatedNetwork(self.clock, random.Random(1), (0, 1, 2))
        self.inboxes = [Inbox(self.clock) for _ in range(3)]
        self.server_clocks: list[ServerClock] = [self.clock.server_clock(str(i)) for i in range(3)]
        self.ends = [SimulatedTransport(self.network, i, self.server_clocks[i], random.Random(i)) for i in range(3)]
        for server_id, end in enumerate(self.ends):
            end.start(self.inboxes[server_id], b"12345678", 1, lambda: 0)

    def votes(self, count: int) -> None:
        """Let server 0 send that many messages to server 1, a millisecond apart."""
        for attempted in range(1, count + 1):
            self.ends[0].send([ViewChange(0, attempted)], 1)
            self.clock.run_until(self.clock.seconds() + 0.001)
        self.clock.run_until(self.clock.seconds() + 1)

    def attempts(self) -> list[int]:
        """The numbers of the votes that server 1 has got."""
        return [message.attempted for _, message in self.inboxes[1].got if isinstance(message, ViewChange)]


class CarryingTests(NetworkTestCase):
    def test_end_of_the_network_is_a_transport(self) -> None:
        """The end of the network at a server provides the interface of a transport."""
        verifyObject(ITransport, self.ends[0])

    def test_message_to_all_reaches_all_others(self) -> None:
        """The sender itself gets no copy, and a message arrives later, never inside `send`."""
        self.ends[0].send([VCProof(0, 3)], None)
        self.assertEqual([inbox.got for inbox in self.inboxes], [[], [], []])
        self.clock.run_until(1)
        self.assertEqual([inbox.got for inbox in self.inboxes], [[], [(0, VCProof(0, 3))], [(0, VCProof(0, 3))]])

    def test_delay_is_within_its_range(self) -> None:
        """The delay of each frame is drawn by itself, within the range of the link."""
        self.network.set_quality(LinkQuality(delay_seconds=(0.1, 0.2)))
        self.ends[0].send([VCProof(0, 3)], None)
        self.clock.run_until(1)
        times = self.inboxes[1].times + self.inboxes[2].times
        self.assertEqual(len(set(times)), 2)
        self.assertTrue(all(0.1 <= time <= 0.2 for time in times), times)

    def test_frames_keep_their_order_unless_reordering_is_on(self) -> None:
        """Frames keep their order with any delays; with reordering, some are overtaken."""
        self.network.set_quality(LinkQuality(delay_seconds=(0.0, 0.1)))
        self.votes(50)
        self.assertEqual(self.attempts(), list(range(1, 51)))
        self.inboxes[1].got.clear()
        self.network.set_quality(LinkQuality(reordering=0.3))
        self.votes(50)
        self.assertNotEqual(self.attempts(), list(range(1, 51)))
        self.assertEqual(sorted(self.attempts()), list(range(1, 51)))

    def test_frames_are_lost_and_duplicated(self) -> None:
        """Frames are lost and duplicated about as often as the quality says."""
        self.network.set_quality(LinkQuality(loss=0.5))
        self.votes(200)
        self.assertTrue(70 < len(self.attempts()) < 130, len(self.attempts()))
        self.inboxes[1].got.clear()
        self.network.set_quality(LinkQuality(duplication=0.5))
        self.votes(200)
        self.assertEqual(set(self.attempts()), set(range(1, 201)))
        self.assertTrue(270 < len(self.attempts()) < 330, len(self.attempts()))

    def test_cut_concerns_one_direction(self) -> None:
        """A cut from 0 to 1 does not keep 1 from reaching 0, nor 0 from reaching 2."""
        self.network.cut(0, 1)
        for sender in (0, 1):
            self.ends[sender].send([VCProof(sender, 3)], None)
        self.clock.run_until(1)
        self.assertEqual([len(inbox.got) for inbox in self.inboxes], [1, 0, 2])
        self.network.mend_all()
        self.ends[0].send([VCProof(0, 3)], 1)
        self.clock.run_until(2)
        self.assertEqual(len(self.inboxes[1].got), 1)

    def test_cut_loses_frames_under_way(self) -> None:
        """A cut loses frames under way, as a pulled cable does."""
        self.ends[0].send([VCProof(0, 3)], 1)
        self.network.cut(0, 1)
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[1].got, [])


class SocketBufferTests(NetworkTestCase):
    def at_once(self, count: int) -> None:
        """Let server 0 send that many frames to server 1 at one moment."""
        for attempted in range(1, count + 1):
            self.ends[0].send([ViewChange(0, attempted)], 1)
        self.clock.run_until(self.clock.seconds() + 1)

    def test_frames_beyond_the_buffer_are_lost(self) -> None:
        """Frames beyond the buffer of a socket are lost, when they arrive within a millisecond and the server reads one
        in a tenth of a second."""
        self.network.buffer = SocketBuffer(4, reading_seconds=0.1)
        self.at_once(10)
        self.assertEqual(self.attempts(), [1, 2, 3, 4])
        self.assertEqual(self.network.overflows, 6)

    def test_buffer_is_bounded_in_bytes(self) -> None:
        """The buffer of a socket is bounded in bytes, but takes one frame of any size when it is empty."""
        self.network.buffer = SocketBuffer(bytes_max=1, reading_seconds=0.1)
        self.at_once(3)
        self.assertEqual(self.attempts(), [1])

    def test_all_senders_share_the_buffer(self) -> None:
        self.network.buffer = SocketBuffer(1, reading_seconds=0.1)
        self.ends[0].send([ViewChange(0, 1)], 1)
        self.ends[2].send([ViewChange(2, 1)], 1)
        self.clock.run_until(1)
        self.assertEqual(len(self.attempts()), 1)

    def test_server_that_reads_fast_loses_nothing(self) -> None:
        self.network.buffer = SocketBuffer(1, reading_seconds=0.0001)
        self.votes(10)
        self.assertEqual(self.attempts(), list(range(1, 11)))

    def test_paused_server_reads_what_its_buffer_has_kept(self) -> None:
        self.network.buffer = SocketBuffer(2, reading_seconds=0.0001)
        self.server_clocks[1].pause()
        self.at_once(5)
        self.assertEqual(self.attempts(), [])
        self.server_clocks[1].resume()
        self.clock.run_until(self.clock.seconds() + 1)
        self.assertEqual(self.attempts(), [1, 2])


class ReceiverTests(NetworkTestCase):
    def test_stopped_server_hears_nothing(self) -> None:
        """A stopped server gets no frames; those that it has sent before still arrive."""
        self.ends[1].send([VCProof(1, 3)], None)
        self.ends[1].stop()
        self.ends[0].send([VCProof(0, 3)], None)
        self.clock.run_until(1)
        self.assertEqual([len(inbox.got) for inbox in self.inboxes], [1, 0, 2])

    def test_sender_learns_that_the_receiver_is_not_running(self) -> None:
        """A sender is told that the receiver is not running if `refusals` is on."""
        self.ends[1].stop()
        self.ends[0].send([VCProof(0, 3)], 1)
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[0].refused, [])
        self.network.refusals = True
        self.ends[0].send([VCProof(0, 3)], 1)
        self.clock.run_until(2)
        self.assertEqual(self.inboxes[0].refused, [1])

    def test_paused_server_gets_its_frames_when_it_is_resumed(self) -> None:
        """Frames to a paused server wait in its socket, and are read when it is resumed."""
        self.server_clocks[1].pause()
        self.votes(3)
        self.assertEqual(self.attempts(), [])
        self.server_clocks[1].resume()
        self.clock.run_until(10)
        self.assertEqual(self.attempts(), [1, 2, 3])


class FilterTests(NetworkTestCase):
    def test_one_message_of_a_frame_is_dropped(self) -> None:
        """A filter can drop one message of a frame: its other messages arrive, and other receivers get the message."""
        self.network.drop(lambda passage: isinstance(passage.message, Accept) and passage.receiver == 1)
        self.ends[0].send([VCProof(0, 1), Accept(0, 1, (1,), bytes(16))], None)
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[1].got, [(0, VCProof(0, 1))])
        self.assertEqual(self.inboxes[2].got, [(0, VCProof(0, 1)), (0, Accept(0, 1, (1,), bytes(16)))])

    def test_held_messages_go_on_when_released(self) -> None:
        """Released messages arrive in their order, behind those that were not held."""
        held = self.network.hold(lambda passage: isinstance(passage.message, ViewChange))
        self.ends[0].send([ViewChange(0, 1), VCProof(0, 1)], 1)
        self.ends[0].send([ViewChange(0, 2)], 1)
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[1].got, [(0, VCProof(0, 1))])
        held.release()
        self.ends[0].send([ViewChange(0, 3)], 1)
        self.clock.run_until(2)
        self.assertEqual(self.attempts(), [1, 2, 3])

    def test_observer_sees_all_messages_that_leave(self) -> None:
        """An observer sees messages that leave a server, whether they arrive or not."""
        seen = []
        self.network.observers.append(lambda sender, to, messages: seen.append((sender, to, list(messages))))
        self.network.cut(0, 1)
        self.ends[0].send([VCProof(0, 1)], 1)
        self.ends[2].send([VCProof(2, 1)], None)
        self.assertEqual(seen, [(0, 1, [VCProof(0, 1)]), (2, None, [VCProof(2, 1)])])

    def test_digest_tells_two_runs_apart(self) -> None:
        """The digests of two runs differ if times, senders, receivers or contents of frames differ."""
        before = self.network.digest
        self.ends[0].send([VCProof(0, 1)], 1)
        after_one = self.network.digest
        self.ends[0].send([VCProof(0, 1)], 1)
        self.assertEqual(len({before, after_one, self.network.digest}), 3)


class MessageFaultTests(NetworkTestCase):
    def test_kind_that_is_late_is_overtaken(self) -> None:
        """A late message is overtaken even by those that left in the same turn."""
        self.network.lasting_faults[ViewChange] = MessageFault((0.5, 0.5))
        self.ends[0].send([ViewChange(0, 1), VCProof(0, 1)], None)
        self.clock.run_until(0.4)
        self.assertEqual(self.inboxes[1].got, [(0, VCProof(0, 1))])
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[1].got[1:], [(0, ViewChange(0, 1))])
        self.assertEqual(self.inboxes[2].got, self.inboxes[1].got)

    def test_kind_that_is_lost_takes_no_other_with_it(self) -> None:
        """If all messages of a kind are lost, messages that leave with them arrive: each message of a kind with a fault
        has a frame of its own."""
        self.network.passing_faults[ViewChange] = MessageFault(loss=1.0)
        self.ends[0].send([ViewChange(0, 1), VCProof(0, 1)], 1)
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[1].got, [(0, VCProof(0, 1))])

    def test_fault_for_a_while_replaces_the_lasting_one(self) -> None:
        """A fault for a while replaces the lasting fault, which holds again afterwards."""
        self.network.lasting_faults[ViewChange] = MessageFault(loss=1.0)
        self.network.passing_faults[ViewChange] = MessageFault((0.1, 0.1))
        self.votes(2)
        self.network.passing_faults.clear()
        self.votes(2)
        self.assertEqual(self.attempts(), [1, 2])

    def test_selective_link_lets_some_kinds_through(self) -> None:
        """A selective link lets some kinds of messages through and loses all others, whatever other faults there are,
        until it is mended."""
        self.network.passing_faults[VCProof] = MessageFault((0.1, 0.1))
        self.network.selective_links[0, 1] = SelectiveLink(frozenset({VCProof}), MessageFault(loss=1.0))
        self.ends[0].send([ViewChange(0, 1), VCProof(0, 1)], None)
        self.ends[1].send([ViewChange(1, 1)], 0)
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[1].got, [(0, VCProof(0, 1))])
        self.assertEqual(self.inboxes[2].got, [(0, ViewChange(0, 1)), (0, VCProof(0, 1))])
        self.assertEqual(self.inboxes[0].got, [(1, ViewChange(1, 1))])
        self.network.mend(0, 1)
        self.votes(1)
        self.assertEqual(self.attempts(), [1])

    def test_selective_link_may_delay_instead_of_losing(self) -> None:
        """A selective link may delay other kinds, so that the kinds that it lets through overtake them."""
        self.network.selective_links[0, 1] = SelectiveLink(frozenset({VCProof}), MessageFault((0.5, 0.5)))
        self.ends[0].send([ViewChange(0, 1)], 1)
        self.ends[0].send([VCProof(0, 1)], 1)
        self.clock.run_until(1)
        self.assertEqual(self.inboxes[1].got, [(0, VCProof(0, 1)), (0, ViewChange(0, 1))])

    def test_mended_links_carry_all_kinds(self) -> None:
        """Mending all links also ends their selection."""
        self.network.selective_links[0, 1] = SelectiveLink(frozenset(), MessageFault(loss=1.0))
        self.network.mend_all()
        self.votes(1)
        self.assertEqual(self.attempts(), [1])

    def test_echo_arrives_long_after_its_frame(self) -> None:
        """With echoes each frame arrives once more, long after it was sent."""
        self.network.set_quality(LinkQuality(echoes=1.0))
        self.votes(20)
        self.assertLess(len(self.attempts()), 40)
        self.clock.run_until(20)
        self.assertEqual(sorted(self.attempts()), sorted([*range(1, 21), *range(1, 21)]))
