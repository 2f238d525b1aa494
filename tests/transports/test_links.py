from __future__ import annotations

from collections.abc import Callable
from random import Random
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import ITransport
from pfsb.paxos.members import Members
from pfsb.paxos.messages import DIGEST_BYTES, ClientUpdate, Message, Ordered, ViewChange
from pfsb.transports import links as links_module
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import HEADER, TYPE_LATER_MESSAGES, TYPE_MESSAGES, FrameIdentity, cluster_digest
from pfsb.transports.links import HINT_SECONDS, LOG_SECONDS, Links
from tests.transports.messages import accept, proposal
from tests.transports.receiver import NotingReceiver

IDS = frozenset({0, 1, 2})


class LinksTestCase(SynchronousTestCase):
    """Three servers on a network in memory that delivers at once."""

    secret: bytes | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.carried: list[tuple[int, int, bytes]] = []
        self.receivers = {i: NotingReceiver() for i in IDS}
        self.links = {i: self.make_links(i) for i in IDS}
        for i, links in self.links.items():
            links.start(self.receivers[i], b"disk-%03d" % i, 1, lambda: 0)
        self.log_events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.log_events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log_events.append)

    def make_links(self, server_id: int) -> Links:
        membership = FrameIdentity(server_id, IDS - {server_id}, cluster_digest("three", IDS))
        faults = LinkFaults(self.clock, Random(server_id))
        return Links(membership, self.clock, faults, self.frame_sender(server_id), self.secret)

    def frame_sender(self, sender: int) -> Callable[[int, bytes], None]:
        def send_frame(peer: int, frame: bytes) -> None:
            self.carried.append((sender, peer, frame))
            self.links[peer].frame_arrived(frame, f"server {sender}")

        return send_frame

    def logged(self, word: str) -> list[str]:
        texts = (str(event["log_format"]).format(**event) for event in self.log_events if event.get("log_format"))
        return [text for text in texts if word in text]


class SendTests(LinksTestCase):
    def test_links_are_a_transport(self) -> None:
        """Links provide the interface of a transport, so that the simulator can give them to the replica."""
        verifyObject(ITransport, self.links[0])

    def test_message_reaches_the_one_it_is_for(self) -> None:
        """A message reaches the server it is for, with its sender and the identity of the sender's storage."""
        self.links[0].send([accept(sender=0)], 1)
        self.assertEqual(self.receivers[1].frames, [(0, b"disk-000", [accept(sender=0)])])
        self.assertEqual(self.receivers[2].frames, [])

    def test_message_to_all_is_encoded_once(self) -> None:
        """A message to all is encoded once: each peer gets the same frame, and the sender itself gets none."""
        with patch.object(links_module, "encode", wraps=links_module.encode) as encode:
            self.links[0].send([proposal(sender=0)], None)
        self.assertEqual(encode.call_count, 1)
        self.assertEqual([(sender, peer) for sender, peer, _ in self.carried], [(0, 1), (0, 2)])
        self.assertIs(self.carried[0][2], self.carried[1][2])

    def test_large_sends_travel_in_several_frames(self) -> None:
        """Messages that do not fit into one frame travel in several, and none is lost."""
        sent = [proposal(b"x" * 40_000, sender=0) for _ in range(3)]
        self.links[0].send(sent, 2)
        self.assertEqual(len(self.carried), 3)
        self.assertEqual(self.receivers[2].messages, sent)

    def types(self) -> list[int]:
        return [frame[5] for _, _, frame in self.carried]

    def test_ordered_shares_a_frame_with_proposals(self) -> None:
        """An ORDERED shares a frame with proposals that follow: that frame has the type for kinds that were added
        later; a frame without an ORDERED does not."""
        told = Ordered(0, 7, (811,), bytes(DIGEST_BYTES))
        for sent in ([told, proposal(sender=0)], [told], [proposal(sender=0)]):
            self.links[0].send(sent, 2)
        self.assertEqual(self.types(), [TYPE_LATER_MESSAGES, TYPE_LATER_MESSAGES, TYPE_MESSAGES])
        self.assertEqual(self.receivers[2].messages, [told, proposal(sender=0), told, proposal(sender=0)])

    def test_ordered_travels_alone_if_what_follows_is_large(self) -> None:
        """An ORDERED travels alone if a large PROPOSAL follows, whose frame has the usual type."""
        told = Ordered(0, 7, (811,), bytes(DIGEST_BYTES))
        sent = [told, *(proposal(b"x" * 40_000, sender=0) for _ in range(2))]
        self.links[0].send(sent, 2)
        self.assertEqual(self.types(), [TYPE_LATER_MESSAGES, TYPE_MESSAGES, TYPE_MESSAGES])
        self.assertEqual(self.receivers[2].messages, sent)

    def test_what_follows_an_ordered_is_sealed_once(self) -> None:
        """Messages that follow an ORDERED are sealed once; the kept ORDERED may stand before the new message."""
        told = [Ordered(0, 7, (seq,), bytes(DIGEST_BYTES)) for seq in (811, 812)]
        sent = [*told, *(proposal(b"x" * 40_000, sender=0) for _ in range(2))]
        with patch.object(links_module, "encode_any", wraps=links_module.encode_any) as encode:
            self.links[0].send(sent, 2)
        self.assertEqual(encode.call_count, len(sent))
        self.assertEqual(self.types(), [TYPE_LATER_MESSAGES, TYPE_MESSAGES, TYPE_MESSAGES])
        self.assertEqual(self.receivers[2].messages, sent)
        numbers = [HEADER.unpack_from(frame)[-2] for _, _, frame in self.carried]
        self.assertEqual(numbers, [*range(numbers[0], numbers[0] + 3)])

    def assertDroppedAlone(self, bad: Message, text: str) -> None:
        self.links[0].send([accept(1, sender=0), bad, accept(2, sender=0)], 1)
        self.assertEqual(self.receivers[1].messages, [accept(1, sender=0), accept(2, sender=0)])
        self.assertEqual(self.links[0].counters.unsendable, 1)
        self.assertEqual(len(self.logged(text)), 1)

    def test_message_too_large_is_dropped_alone(self) -> None:
        """A message that is too large is dropped alone: `send` raises nothing, and the log has the message and the
        limit."""
        self.assertDroppedAlone(proposal(b"x" * 70_000, sender=0), "not sent: Proposal: a message of 70")

    def test_message_that_cannot_be_encoded_is_dropped_alone(self) -> None:
        """A message that cannot be encoded is dropped alone: half a surrogate pair has no UTF-8, an integer of 65 bits
        no msgpack."""
        self.assertDroppedAlone(ClientUpdate("\ud800", 0, 1, 1, b""), "not sent: ClientUpdate")

    def test_number_beyond_64_bits_is_dropped_alone(self) -> None:
        """A message with a number beyond 64 bits is dropped alone, and `send` raises nothing."""
        self.assertDroppedAlone(ViewChange(0, 2**64), "not sent: ViewChange")

    def test_message_to_a_server_that_is_no_peer_is_dropped(self) -> None:
        """A message to an unknown id, or to the server itself, is dropped, and `send` raises nothing."""
        for to in (0, 77):
            self.links[0].send([accept(sender=0)], to)
        self.assertEqual(self.links[0].counters.unsendable, 2)
        self.assertEqual(self.carried, [])
        self.assertEqual(len(self.logged("is no peer of ours")), 1)

    def test_stopped_links_send_and_take_nothing(self) -> None:
        """Stopped links send nothing, and drop frames that are still under way."""
        self.links[0].send([accept(sender=0)], 1)
        frame = self.carried[-1][2]
        self.links[1].stop()
        self.links[1].send([accept(sender=1)], None)
        self.links[1].frame_arrived(frame)
        self.links[1].connection_refused(0)
        self.clock.advance(1)
        self.assertEqual((len(self.carried), len(self.receivers[1].frames), self.receivers[1].refusals), (1, 1, []))


class EpochTests(LinksTestCase):
    """Departure 60: the servers of another epoch of the membership."""

    def test_message_to_all_goes_to_the_servers_of_the_epoch(self) -> None:
        """A message to all goes to the servers of the present epoch; a removed server is sent only messages that are
        for it alone."""
        self.links[0].enter_epoch(Members((0, 1), epoch=4, retired=(2,)), (1,))
        self.links[0].send([accept(sender=0)], None)
        self.assertEqual([peer for _, peer, _ in self.carried], [1])
        self.links[0].send([accept(sender=0)], 2)
        self.assertEqual([peer for _, peer, _ in self.carried], [1, 2])
        self.assertEqual((self.receivers[1].epochs, self.receivers[2].epochs), ([4], [4]))
        self.links[2].send([accept(sender=2)], 0)
        self.assertEqual(self.receivers[0].epochs, [0])

    def test_server_that_is_left_alone_sends_to_nobody(self) -> None:
        """All others were removed, and paths were measured before."""
        for peer in (1, 2):
            self.links[0].measure(peer)
        self.carried.clear()
        self.links[0].enter_epoch(Members((0,), epoch=2, retired=(1, 2)), ())
        self.links[0].send([accept(sender=0)], None)
        self.assertEqual(self.carried, [])

    def test_new_server_is_reached(self) -> None:
        """A server that was no peer when the links were started is reached once an epoch has brought it."""
        self.links[3] = self.make_links(3)
        self.receivers[3] = NotingReceiver()
        self.links[3].start(self.receivers[3], b"disk-003", 1, lambda: 0)
        self.links[0].enter_epoch(Members((0, 1, 2, 3), epoch=1), (1, 2, 3))
        self.links[0].send([accept(sender=0)], 3)
        self.assertEqual(self.receivers[3].messages, [accept(sender=0)])
        self.links[3].send([accept(sender=3)], 0)
        self.assertEqual(self.receivers[0].messages, [accept(sender=3)])


class SealedLinksTests(LinksTestCase):
    secret = b"secret"

    def test_frame_to_all_passes_the_replay_check_of_each(self) -> None:
        """Frames to several peers share one counter: each peer sees a part of the numbers, none twice."""
        for n in range(1, 4):
            self.links[0].send([accept(n, sender=0)], None)
            self.links[0].send([accept(10 + n, sender=0)], 1)
        self.assertEqual([m.seqs[0] for m in self.receivers[1].messages], [1, 11, 2, 12, 3, 13])  # type: ignore[union-attr]
        self.assertEqual([m.seqs[0] for m in self.receivers[2].messages], [1, 2, 3])  # type: ignore[union-attr]

    def test_frame_played_twice_is_counted_and_dropped(self) -> None:
        """A repeated frame is refused by the protection against replays."""
        self.links[0].send([accept(sender=0)], 1)
        self.links[1].frame_arrived(self.carried[0][2])
        self.assertEqual(self.links[1].counters.refused, {"replay": 1})
        self.assertEqual(len(self.receivers[1].frames), 1)


class ReceiveTests(LinksTestCase):
    def test_garbage_is_counted_by_reason_and_logged_once_a_second(self) -> None:
        """A bad frame is counted and dropped, and logged at a limited rate."""
        for _ in range(5):
            self.links[0].frame_arrived(b"x" * 100, "10.0.0.9:53")
        self.links[0].frame_arrived(b"", "10.0.0.9:53")
        self.assertEqual(self.links[0].counters.refused, {"magic": 5, "size": 1})
        self.assertEqual(len(self.logged("refused (magic)")), 1)
        self.assertEqual(len(self.logged("refused (size)")), 1)
        self.clock.advance(LOG_SECONDS)
        self.links[0].frame_arrived(b"x" * 100, "10.0.0.9:53")
        last = self.logged("refused (magic)")[-1]
        self.assertIn("4 more", last)
        self.assertIn("10.0.0.9:53", last)
        self.assertEqual(self.receivers[0].frames, [])

    def test_failure_of_the_receiver_is_not_swallowed(self) -> None:
        """An exception of the receiver is not hidden by the transport."""

        def fail(*frame: object) -> None:
            raise RuntimeError("in a turn")

        self.patch(NotingReceiver, "receive", lambda self, *args: fail(*args))
        self.assertRaises(RuntimeError, self.links[0].send, [accept(sender=0)], 1)

    def test_receiver_is_told_what_the_sender_has_on_disk(self) -> None:
        """The receiver is told the incarnation and the log position that the sender's storage had at the moment of
        sending."""
        written = [5]
        self.links[0].stop()
        self.links[0].start(self.receivers[0], b"disk-000", 3, lambda: written[0])
        self.links[0].send([accept(sender=0)], 1)
        written[0] = 6
        self.links[0].send([accept(sender=0)], 1)
        self.assertEqual(self.receivers[1].storages, [(3, 5), (3, 6)])

    def test_counters_tell_frames_bytes_and_messages(self) -> None:
        """The counters for /metrics count frames, bytes and messages; a message to two peers counts twice on the way
        out."""
        self.links[0].send([accept(sender=0), proposal(sender=0)], None)
        size = len(self.carried[0][2])
        out, into = self.links[0].counters, self.links[1].counters
        self.assertEqual((out.frames_out, out.bytes_out), (2, 2 * size))
        self.assertEqual((into.frames_in, into.bytes_in), (1, size))
        self.assertEqual(out.messages_out, {"Accept": 2, "Proposal": 2})
        self.assertEqual(into.messages_in, {"Accept": 1, "Proposal": 1})


class FaultTests(LinksTestCase):
    def test_cut_holds_in_both_directions(self) -> None:
        """FAULT CUT at one server cuts frames from and to the named servers, though these know nothing of it."""
        self.links[0].faults.cut([1])
        self.links[0].send([accept(sender=0)], None)
        self.links[1].send([accept(sender=1)], None)
        self.assertEqual([len(self.receivers[i].frames) for i in (0, 1, 2)], [0, 0, 2])
        self.assertEqual(self.links[0].counters.lost_by_fault, 2)

    def test_loss_of_one_server_holds_in_both_directions(self) -> None:
        """FAULT LOSS on one server loses frames in both directions."""
        self.links[0].faults.lose(0.5)
        for _ in range(400):
            self.links[0].send([accept(sender=0)], 1)
            self.links[1].send([accept(sender=1)], 0)
        self.assertApproximates(len(self.receivers[0].frames), 200, 60)
        self.assertApproximates(len(self.receivers[1].frames), 200, 60)

    def test_delay_holds_frames_back(self) -> None:
        """FAULT DELAY on a server delays the frames that it sends."""
        self.links[0].faults.delay(100)
        self.links[0].send([accept(sender=0)], 1)
        self.clock.advance(0.09)
        self.assertEqual((self.receivers[1].frames, self.links[0].counters.frames_out), ([], 0))
        self.clock.advance(0.02)
        self.assertEqual((len(self.receivers[1].frames), self.links[0].counters.frames_out), (1, 1))

    def test_stop_calls_off_delayed_frames(self) -> None:
        """A server that stops cancels its delayed frames."""
        self.links[0].faults.delay(100)
        self.links[0].send([accept(sender=0)], 1)
        self.links[0].stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RefusalHintTests(LinksTestCase):
    def test_hint_comes_after_the_send_that_caused_it(self) -> None:
        """A refusal noticed inside `send` is told after that call has returned, since turns never nest."""
        self.links[0].connection_refused(1)
        self.assertEqual(self.receivers[0].refusals, [])
        self.clock.advance(0)
        self.assertEqual(self.receivers[0].refusals, [1])

    def test_hints_about_one_peer_are_rate_limited(self) -> None:
        """There is one hint of a refusal for each peer and 50 ms."""
        for _ in range(10):
            self.links[0].connection_refused(1)
        self.links[0].connection_refused(2)
        self.clock.advance(HINT_SECONDS)
        self.links[0].connection_refused(1)
        self.clock.advance(0)
        self.assertEqual(self.receivers[0].refusals, [1, 2, 1])
        self.assertEqual(self.links[0].counters.refusals, 12)

    def test_send_errors_are_counted_and_logged_seldom(self) -> None:
        """Errors of sending are all counted, and logged at a limited rate."""
        for _ in range(3):
            self.links[0].send_failed(1, OSError("Network is unreachable"))
        self.assertEqual(self.links[0].counters.send_errors, 3)
        self.assertEqual(len(self.logged("frame to server 1 not sent: Network is unreachable")), 1)
