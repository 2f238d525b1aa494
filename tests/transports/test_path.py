"""Frames in parts between two servers, over a path in memory."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.transports import outgoing_parts, reassembly
from pfsb.transports.faults import LinkFaults
from pfsb.transports.frames import FRAME_BYTES_MAX, OVERHEAD_BYTES, FrameIdentity, cluster_digest, tag_of
from pfsb.transports.links import Links
from pfsb.transports.notices import FIRST_TIME, TYPE_PART, Part
from pfsb.transports.path import Path
from pfsb.transports.path_size import BASE_BYTES
from tests.long import long
from tests.transports.messages import accept, proposal
from tests.transports.receiver import NotingReceiver

IDS = frozenset({0, 1, 2})
LARGE = 40_000


class PathTestCase(SynchronousTestCase):
    """Three servers on three machines. A datagram arrives after a millisecond, unless `loses` is true of it."""

    secret: bytes | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[int, int, bytes]] = []
        self.loses: Callable[[int, int, bytes], bool] = lambda sender, peer, frame: False
        self.receivers = {i: NotingReceiver() for i in IDS}
        self.links = {i: self.make_links(i) for i in IDS}
        for i in IDS:
            self.start(i, 1)

    def start(self, server_id: int, start: int) -> None:
        self.links[server_id].start(self.receivers[server_id], b"disk-%03d" % server_id, start, lambda: 0)
        for peer in IDS - {server_id}:
            self.links[server_id].measure(peer)

    def make_links(self, server_id: int, sender: Callable[[int, bytes], None] | None = None) -> Links:
        """The links of a server over the network of this test, or over another one that `sender` sends to."""
        membership = FrameIdentity(server_id, IDS - {server_id}, cluster_digest("three", IDS))
        faults = LinkFaults(self.clock, Random(server_id))
        send = sender or (lambda peer, frame: self.carry(server_id, peer, frame))
        return Links(membership, self.clock, faults, send, self.secret)

    def carry(self, sender: int, peer: int, frame: bytes) -> None:
        if len(frame) > 1_472:
            self.links[sender].datagram_refused(peer, len(frame), 1_472)
            return
        self.sent.append((sender, peer, frame))
        if not self.loses(sender, peer, frame):
            self.clock.callLater(0.001, self.links[peer].frame_arrived, frame)

    def let_pass(self, seconds: float) -> None:
        """Let time go on, from one delayed call to the next."""
        until = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and (due := min(c.getTime() for c in calls)) <= until:
            self.clock.advance(max(0.0, due - self.clock.seconds()))
        self.clock.advance(until - self.clock.seconds())

    def path(self, server_id: int, peer: int) -> Path:
        return self.links[server_id].path(peer)

    def bytes_sent(self, sender: int, peer: int) -> int:
        return sum(len(frame) for a, b, frame in self.sent if (a, b) == (sender, peer))


class PartsTests(PathTestCase):
    def test_large_message_arrives_in_small_datagrams(self) -> None:
        """A large message arrives in small datagrams, the first of which have the size with which every path begins."""
        message = proposal(b"x" * LARGE, sender=0)
        self.links[0].send([message], 1)
        self.assertLessEqual(max(len(frame) for _, _, frame in self.sent), BASE_BYTES)
        self.let_pass(0.01)
        self.assertEqual(self.receivers[1].messages, [message])
        self.assertEqual(self.receivers[1].storages, [(1, 0)])

    def test_small_messages_do_not_travel_with_a_large_one(self) -> None:
        """Small messages do not wait for a large one whose parts are all lost: they arrive in one frame, in their
        order."""
        self.loses = lambda sender, peer, frame: frame[5] == TYPE_PART
        large = proposal(b"x" * LARGE, sender=0)
        self.links[0].send([accept(1, sender=0), large, accept(2, sender=0), accept(3, sender=0)], None)
        self.let_pass(0.01)
        for peer in (1, 2):
            self.assertEqual(self.receivers[peer].messages, [accept(n, sender=0) for n in (1, 2, 3)])

    def test_many_small_messages_make_many_small_frames(self) -> None:
        """Many small messages travel in frames that are no larger than a datagram of the path."""
        messages = [accept(n, sender=0) for n in range(1, 301)]
        self.links[0].send(messages, None)
        self.assertFalse(any(frame[5] == TYPE_PART for _, _, frame in self.sent))
        self.let_pass(0.01)
        self.assertEqual(self.receivers[2].messages, messages)

    def test_only_missing_parts_are_sent_again(self) -> None:
        """Only missing parts are sent again: with a tenth of the datagrams lost in both directions, repetitions are
        about as many."""
        dice = Random(5)
        self.loses = lambda sender, peer, frame: dice.random() < 0.1
        messages = [proposal(b"%d" % n * LARGE, sender=0) for n in range(5)]
        for number, message in enumerate(messages, 1):
            self.links[0].send([message], 1)
            self.let_pass(2)
            self.assertEqual(len(self.receivers[1].messages), number)
        self.assertLess(self.bytes_sent(0, 1), 1.5 * sum(len(m.batch.data) for m in messages))
        self.assertGreater(self.links[0].counters.paths.repeated, 0)
        self.assertEqual(self.links[0].counters.paths.given_up, 0)

    def test_parts_in_any_order_and_twice(self) -> None:
        """Parts that arrive in any order and twice make one frame, which is handed up once."""
        message = proposal(b"x" * LARGE, sender=0)
        self.loses = lambda sender, peer, frame: True
        self.links[0].send([message], 1)
        parts = [frame for _, _, frame in self.sent if frame[5] == TYPE_PART] * 2
        Random(1).shuffle(parts)
        for part in parts:
            self.links[1].frame_arrived(part)
        self.assertEqual(self.receivers[1].messages, [message])

    def test_repeated_message_is_not_sent_while_it_is_on_its_way(self) -> None:
        """Departure 46: a repeated message is not sent while the former one is on its way, but again when that has
        arrived and its answer has had time to come."""
        message = proposal(b"x" * LARGE, sender=0)
        for _ in range(5):
            self.links[0].send([message], 1)
        once = self.bytes_sent(0, 1)
        self.assertLess(once, 1.2 * LARGE)
        self.let_pass(0.005)
        self.links[0].send([message], 1)
        self.let_pass(0.5)
        self.assertEqual(len(self.receivers[1].messages), 1)
        self.links[0].send([message], 1)
        self.let_pass(0.5)
        self.assertEqual(len(self.receivers[1].messages), 2)

    def test_different_messages_wait_for_each_other(self) -> None:
        """Large messages to one peer wait for each other: one frame is on its way at first, and more after it has
        arrived."""
        for number in range(20):
            self.links[0].send([proposal(b"%02d" % number * 20_000, sender=0)], 1)
        self.assertLess(self.bytes_sent(0, 1), 1.2 * LARGE + BASE_BYTES)
        self.let_pass(1)
        self.assertEqual(len(self.receivers[1].messages), 20)

    def test_peer_that_answers_nothing_costs_little(self) -> None:
        """For a peer that answers nothing, everything that waits is given up after some repeated parts."""
        self.loses = lambda sender, peer, frame: peer == 1
        for number in range(10):
            self.links[0].send([proposal(b"%02d" % number * 20_000, sender=0)], 1)
        self.let_pass(20)
        self.assertLess(self.bytes_sent(0, 1), 3 * LARGE)
        self.assertEqual(self.links[0].counters.paths.given_up, 10)
        self.loses = lambda sender, peer, frame: False
        self.links[0].send([proposal(sender=0)], 1)
        self.let_pass(0.1)
        self.assertEqual(self.receivers[1].messages, [proposal(sender=0)])

    def test_peer_whose_process_is_gone_is_sent_nothing_more(self) -> None:
        """When the host of a peer refuses a part, since the process is gone, no more parts are sent."""
        self.loses = lambda sender, peer, frame: peer == 1
        self.links[0].send([proposal(b"x" * LARGE, sender=0)], 1)
        self.links[0].connection_refused(1)
        self.sent.clear()
        self.let_pass(5)
        self.assertEqual([frame for _, peer, frame in self.sent if peer == 1 and frame[5] == TYPE_PART], [])

    def test_peer_that_was_restarted_gets_all_parts_again(self) -> None:
        """A peer that is restarted in the middle of a frame gets all parts again."""
        self.loses = lambda sender, peer, frame: peer == 1 and len(self.sent) % 2 == 0
        message = proposal(b"x" * LARGE, sender=0)
        self.links[0].send([message], 1)
        self.let_pass(0.003)
        self.links[1].stop()
        self.links[1] = self.make_links(1)
        self.receivers[1] = NotingReceiver()
        self.start(1, 2)
        self.loses = lambda sender, peer, frame: False
        self.let_pass(3)
        self.assertEqual(self.receivers[1].messages, [message])

    def test_nothing_is_left_when_all_has_arrived(self) -> None:
        """When all parts have arrived, no timer and no memory for frames is left."""
        self.links[0].send([proposal(b"x" * LARGE, sender=0)], None)
        self.let_pass(30)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.path(1, 0).kept_bytes, 0)

    def test_stop_ends_everything(self) -> None:
        """After stop no part is sent."""
        self.loses = lambda sender, peer, frame: True
        self.links[0].send([proposal(b"x" * LARGE, sender=0)], None)
        self.links[0].stop()
        self.sent.clear()
        self.let_pass(5)
        self.assertEqual(self.sent, [])


class KeyedPartsTests(PartsTests):
    """The tests of `PartsTests`, with a secret: repeated parts have new counters, and a frame may be late."""

    secret = b"a secret"

    @long
    def test_frame_that_was_overtaken_by_thousands_is_taken(self) -> None:
        """A frame in parts that thousands of others have overtaken is taken: its own counter is too old, but those of
        its parts are not."""
        message = proposal(b"x" * LARGE, sender=0)
        held: list[bytes] = []

        def loses(sender: int, peer: int, frame: bytes) -> bool:
            return frame[5] == TYPE_PART and not held and (held.append(frame) or True)  # type: ignore[func-returns-value]

        self.loses = loses
        self.links[0].send([message], 1)
        for number in range(1, 2_001):
            self.links[0].send([accept(number, sender=0)], 1)
        self.let_pass(1)
        self.assertIn(message, self.receivers[1].messages)
        self.assertEqual(self.links[1].counters.refused, {})


class SizeTests(PathTestCase):
    def test_path_is_measured_by_the_first_large_frame(self) -> None:
        """The first large frame has the size of the path measured; the counters show both sizes."""
        self.links[0].send([proposal(b"x" * LARGE, sender=0)], None)
        self.let_pass(0.5)
        self.assertEqual(self.links[0].counters.paths.datagram_bytes, {1: 1_472, 2: 1_472})
        self.sent.clear()
        self.links[0].send([proposal(b"y" * LARGE, sender=0)], 1)
        self.assertEqual(max(len(frame) for _, _, frame in self.sent), 1_472)

    def test_black_hole_costs_one_wait(self) -> None:
        """When a path suddenly carries less, a large frame waits once: repeated parts are small, so that it arrives
        before the size has come down."""
        self.links[0].send([proposal(b"x" * LARGE, sender=0)], 1)
        self.let_pass(0.5)
        self.loses = lambda sender, peer, frame: len(frame) > 1_300
        self.links[0].send([proposal(b"y" * LARGE, sender=0)], 1)
        self.let_pass(0.1)
        self.assertEqual(len(self.receivers[1].messages), 2)
        self.let_pass(3)
        self.assertLessEqual(self.path(0, 1).size, 1_300)
        self.assertEqual(self.links[0].counters.paths.shrunk, 1)

    def test_frames_below_the_base_prove_the_base(self) -> None:
        """Frames below the size with which a path begins have that size tested, so that a path that does not carry it
        is found."""
        self.loses = lambda sender, peer, frame: len(frame) > 600
        message = proposal(b"x" * 700, sender=0)
        for _ in range(30):
            self.links[0].send([message], 1)
            self.let_pass(0.1)
        self.assertIn(message, self.receivers[1].messages)
        self.assertLessEqual(self.path(0, 1).size, 600)

    def test_word_of_a_router_is_proved(self) -> None:
        """When a router says that datagrams are too large, `path_doubted` sends probes; the size stays if they are
        answered."""
        self.links[0].send([proposal(b"x" * LARGE, sender=0)], 1)
        self.let_pass(0.5)
        self.sent.clear()
        self.links[0].path_doubted(1)
        self.assertIn(1_472, [len(frame) for _, _, frame in self.sent])
        self.let_pass(2)
        self.assertEqual(self.path(0, 1).size, 1_472)

    def test_peers_on_this_machine_get_whole_frames(self) -> None:
        """Peers on the same machine get whole frames, and a peer on another machine gets parts."""
        self.links[0].stop()
        whole: list[tuple[int, int]] = []
        self.links[0] = self.make_links(0, lambda peer, frame: whole.append((peer, len(frame))))
        self.links[0].start(self.receivers[0], b"disk-000", 2, lambda: 0)
        self.links[0].measure(2)
        self.links[0].send([proposal(b"x" * LARGE, sender=0)], None)
        self.assertGreater(max(size for peer, size in whole if peer == 1), LARGE)
        self.assertLessEqual(max(size for peer, size in whole if peer == 2 and size < FRAME_BYTES_MAX), BASE_BYTES)


class BoundsTests(PathTestCase):
    def part(self, number: int, size: int = FRAME_BYTES_MAX, offset: int = 0, piece: bytes = b"x" * 500) -> None:
        tag = number.to_bytes(16, "big")
        self.path(0, 1).send_notice(Part(tag, size, offset, FIRST_TIME, piece))
        self.let_pass(0.001)

    def test_incomplete_frames_are_bounded(self) -> None:
        """Incomplete frames are bounded: the oldest make room for new ones, and all are dropped after a while."""
        for number in range(200):
            self.part(number)
        self.assertTrue(0 < self.path(1, 0).kept_bytes <= reassembly.KEPT_BYTES_MAX)
        self.let_pass(2 * reassembly.KEPT_SECONDS)
        self.assertEqual(self.path(1, 0).kept_bytes, 0)

    def test_holes_are_bounded(self) -> None:
        """Holes in an incomplete frame are bounded in number: parts of one byte each would make a table larger than
        their frame."""
        for number in range(reassembly.HOLES_MAX - 1):
            self.part(1, offset=2 * number + 1, piece=b"x")
        self.assertEqual(self.path(1, 0).kept_bytes, FRAME_BYTES_MAX)
        self.part(1, offset=1_001, piece=b"x")
        self.assertEqual(self.path(1, 0).kept_bytes, 0)

    def test_parts_that_fit_no_frame_are_refused(self) -> None:
        """Parts that fit no frame are refused: frames too large or too small, and parts that disagree about the
        size."""
        self.part(1, size=FRAME_BYTES_MAX + 1)
        self.part(2, size=OVERHEAD_BYTES - 1, piece=b"x")
        self.part(3)
        self.part(3, size=FRAME_BYTES_MAX - 1)
        self.assertEqual(self.links[1].counters.refused, {"body": 3})

    def test_parts_that_make_no_frame_are_refused(self) -> None:
        """Parts that make up a wrong frame are refused by the tag of the whole; the peer is told that the frame is
        complete, and does not send it again."""
        self.part(1, size=500)
        self.assertEqual(self.links[1].counters.refused, {"magic": 1})
        self.assertEqual(self.receivers[1].frames, [])
        self.assertEqual(self.path(1, 0).kept_bytes, 0)

    def test_parts_of_a_frame_of_another_server_are_refused(self) -> None:
        """Parts of a frame in the name of another server than the sender are refused."""
        self.loses = lambda sender, peer, frame: True
        self.links[2].send([accept(1, sender=2)], 1)
        frame = self.sent[-1][2]
        self.loses = lambda sender, peer, frame: False
        self.path(0, 1).send_notice(Part(tag_of(frame), len(frame), 0, FIRST_TIME, frame))
        self.let_pass(0.01)
        self.assertEqual(self.links[1].counters.refused, {"body": 1})
        self.assertEqual(self.receivers[1].frames, [])

    def test_what_waits_for_a_peer_is_bounded(self) -> None:
        """Frames that wait for a peer are bounded; further ones are lost, and counted."""
        self.loses = lambda sender, peer, frame: True
        count = outgoing_parts.QUEUE_BYTES_MAX // LARGE + 10
        for number in range(count):
            self.links[0].send([proposal(b"%04d" % number * (LARGE // 4), sender=0)], 1)
        self.assertGreaterEqual(self.links[0].counters.paths.given_up, 10)
