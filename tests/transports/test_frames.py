from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Message
from pfsb.transports.frames import (
    FRAME_BYTES_MAX,
    HEADER,
    NOT_KNOWN,
    OVERHEAD_BYTES,
    FrameCodec,
    FrameIdentity,
    FrameRefused,
    FrameTooLarge,
    cluster_digest,
)
from pfsb.transports.wire import LATER, encode, encode_any
from tests.examples import examples
from tests.transports.messages import SENDER, accept, any_message, proposal

IDS = frozenset({0, 1, 2, SENDER})
RECEIVER = 1
SECRET = b"a secret of the whole cluster"


def codec(
    server_id: int,
    *,
    name: str = "four",
    epoch: int = 0,
    start: int = 1,
    secret: bytes | Sequence[bytes] | None = None,
    identity: bytes | None = None,
) -> FrameCodec:
    membership = FrameIdentity(server_id, IDS - {server_id}, cluster_digest(name, IDS), epoch)
    return FrameCodec(membership, identity or b"disk-%03d" % server_id, start, secret)


def one_frame(sender: FrameCodec, *messages: Message) -> bytes:
    bodies = [encode_any(message) for message in messages or (accept(),)]
    [frame] = sender.seal(bodies, later=any(isinstance(message, LATER) for message in messages))
    return frame


class FrameTestCase(SynchronousTestCase):
    def assertRefused(self, receiver: FrameCodec, frame: bytes, reason: str) -> None:
        refusal = self.assertRaises(FrameRefused, receiver.open, frame)
        self.assertEqual(refusal.reason, reason, str(refusal))


class EpochTests(FrameTestCase):
    """The epoch of the membership in the header only informs (Departure 60)."""

    def test_frame_tells_the_epoch_of_its_sender(self) -> None:
        """Frames of earlier and later epochs are opened, whether or not they are keyed."""
        for secret in (None, SECRET):
            for ours, theirs in ((0, 0), (0, 7), (7, 0), (7, 7)):
                frame = one_frame(codec(SENDER, epoch=theirs, secret=secret))
                self.assertEqual(codec(RECEIVER, epoch=ours, secret=secret).open(frame).epoch, theirs)

    def test_sender_goes_on_in_another_epoch(self) -> None:
        """When a sender has gone on to another epoch, its next frame tells that epoch."""
        sender = codec(SENDER)
        sender.membership.epoch = 3
        self.assertEqual(codec(RECEIVER).open(one_frame(sender)).epoch, 3)

    def test_frames_of_servers_that_are_gone_are_opened(self) -> None:
        """A frame of a removed server is opened: that server may ask for the slots from which it learns of its
        removal."""
        receiver = codec(RECEIVER)
        receiver.membership.peers, receiver.membership.former = frozenset({0, 2}), frozenset({SENDER})
        self.assertEqual(receiver.open(one_frame(codec(SENDER))).sender, SENDER)
        receiver.membership.former = frozenset()
        self.assertRefused(receiver, one_frame(codec(SENDER)), "sender")


class SealTests(FrameTestCase):
    def test_frame_tells_sender_identity_and_messages(self) -> None:
        """A frame names its sender and the sender's storage."""
        for secret in (None, SECRET):
            opened = codec(RECEIVER, secret=secret).open(one_frame(codec(SENDER, secret=secret), accept(1), proposal()))
            self.assertEqual((opened.sender, opened.identity), (SENDER, b"disk-003"))
            self.assertEqual(opened.messages, [accept(1), proposal()])

    def test_small_messages_share_a_frame(self) -> None:
        """Small messages that are sent together share a frame, since system calls are expensive."""
        self.assertEqual(len(codec(SENDER).seal([encode(accept())] * 1000)), 1)

    def test_frames_are_filled_in_order_up_to_the_limit(self) -> None:
        """Messages fill frames in the order given, up to 60,000 bytes each, and into as few frames as possible."""
        for secret in (None, SECRET):
            messages = [proposal(b"x" * size) for size in (25_000, 25_000, 25_000, 59_000, 10)]
            frames = codec(SENDER, secret=secret).seal([encode_any(m) for m in messages])
            self.assertEqual(len(frames), 3)
            self.assertLessEqual(max(map(len, frames)), FRAME_BYTES_MAX)
            receiver = codec(RECEIVER, secret=secret)
            self.assertEqual([m for frame in frames for m in receiver.open(frame).messages], messages)

    def test_largest_message_fills_a_frame_to_the_limit(self) -> None:
        """The largest message that a codec allows fills a frame to the limit, to the byte."""
        for secret in (None, SECRET):
            sender = codec(SENDER, secret=secret)
            spare = sender.message_bytes_max - len(encode(proposal(b"x" * 50_000)))
            message = proposal(b"x" * (50_000 + spare))
            frame = one_frame(sender, message)
            # The array header of one message needs one byte of the three that are set aside for it.
            self.assertEqual(len(frame), FRAME_BYTES_MAX - 2)
            self.assertEqual(codec(RECEIVER, secret=secret).open(frame).messages, [message])

    def test_message_larger_than_a_frame_is_refused_with_its_size(self) -> None:
        """A message larger than a frame is refused with its size and the limit."""
        sender = codec(SENDER)
        large = encode(proposal(b"x" * FRAME_BYTES_MAX))
        error = self.assertRaises(FrameTooLarge, sender.seal, [encode(accept()), large])
        self.assertIn(str(len(large)), str(error))
        self.assertIn(str(sender.message_bytes_max), str(error))

    def test_nothing_to_say_makes_no_frame(self) -> None:
        """No messages make no frame."""
        self.assertEqual(codec(SENDER).seal([]), [])

    def test_empty_secret_is_refused(self) -> None:
        """An empty secret file is refused, since it would authenticate nothing."""
        self.assertRaises(ValueError, codec, SENDER, secret=b"")

    def test_identity_of_another_length_is_refused(self) -> None:
        """An identity that does not have eight bytes is refused."""
        self.assertRaises(ValueError, codec, SENDER, identity=b"short")

    def test_secret_is_not_printed(self) -> None:
        """A codec in a traceback or a log does not give the secret away."""
        self.assertNotIn(SECRET.decode(), repr(codec(SENDER, secret=SECRET)))


class DigestTests(SynchronousTestCase):
    def test_digest_depends_on_name_and_members_only(self) -> None:
        """The digest of a cluster depends on its name and members only, so that two clusters on one network never take
        each other's frames."""
        digest = cluster_digest("four", [0, 1, 2, 3])
        self.assertEqual(digest, cluster_digest("four", [3, 2, 1, 0]))
        self.assertNotEqual(digest, cluster_digest("five", [0, 1, 2, 3]))
        self.assertNotEqual(digest, cluster_digest("four", [0, 1, 2, 4]))
        self.assertEqual(len(digest), 8)


class RefusalTests(FrameTestCase):
    def test_foreign_frames_are_told_apart(self) -> None:
        """Each reason for which a frame is refused has a word, which is counted and logged."""
        frame = one_frame(codec(SENDER))
        cases = [
            (b"", "size"),
            (frame[: OVERHEAD_BYTES - 1], "size"),
            (frame[:-1], "size"),
            (frame + b"\x00", "size"),
            (frame + b"\x00" * FRAME_BYTES_MAX, "size"),
            (b"HTTP" + frame[4:], "magic"),
            (frame[:4] + b"\x02" + frame[5:], "version"),
            (frame[:5] + b"\x06" + frame[6:], "type"),
            (frame[:5] + b"\x02" + frame[6:], "checksum"),
            (frame[:6] + b"\x02" + frame[7:], "version"),
            (one_frame(codec(SENDER, name="five")), "cluster"),
            (frame[:OVERHEAD_BYTES] + b"\xc1" * (len(frame) - OVERHEAD_BYTES), "checksum"),
            (one_frame(codec(RECEIVER)), "sender"),
            (one_frame(codec(77)), "sender"),
            (codec(SENDER).seal([b"\xc1"])[0], "body"),
        ]
        for bad, reason in cases:
            with self.subTest(reason=reason, size=len(bad)):
                self.assertRefused(codec(RECEIVER), bad, reason)
        self.assertEqual(codec(RECEIVER).open(frame).messages, [accept()])

    def test_frame_of_another_cluster_is_told_before_its_tag(self) -> None:
        """A frame of another cluster is refused as such before its tag is checked, since that cluster has another
        secret."""
        for secret in (None, b"theirs"):
            frame = one_frame(codec(SENDER, name="five", secret=secret))
            self.assertRefused(codec(RECEIVER, secret=SECRET), frame, "cluster")

    def test_one_bad_message_refuses_the_whole_frame(self) -> None:
        """One bad message refuses the whole frame: a sender that makes one broken message is not to be believed in the
        next."""
        [frame] = codec(SENDER).seal([encode(accept()), b"\x91\x63"])
        self.assertRefused(codec(RECEIVER), frame, "body")

    @examples(200)
    @given(st.binary(max_size=120), st.booleans(), st.booleans())
    def test_random_bytes_are_refused(self, noise: bytes, sealed: bool, with_header: bool) -> None:
        """Random bytes are refused, also behind a header that is right."""
        head = one_frame(codec(SENDER))[:OVERHEAD_BYTES] if with_header else b""
        self.assertRaises(FrameRefused, codec(RECEIVER, secret=SECRET if sealed else None).open, head + noise + b"\xc1")

    @examples(80)
    @given(any_message, st.booleans(), st.data())
    def test_truncated_frame_is_refused(self, message: Message, sealed: bool, data: st.DataObject) -> None:
        """A frame without its last bytes is refused."""
        secret = SECRET if sealed else None
        frame = one_frame(codec(SENDER, secret=secret), message)
        cut = frame[: data.draw(st.integers(0, len(frame) - 1))]
        self.assertRefused(codec(RECEIVER, secret=secret), cut, "size")

    @examples(120)
    @given(any_message, st.booleans(), st.data())
    def test_flipped_bits_are_refused(self, message: Message, keyed: bool, data: st.DataObject) -> None:
        """One to five wrong bits anywhere in a frame are noticed, with a secret and without."""
        secret = SECRET if keyed else None
        frame = one_frame(codec(SENDER, secret=secret), message)
        bits = data.draw(st.sets(st.integers(0, len(frame) * 8 - 1), min_size=1, max_size=5))
        self.assertRaises(FrameRefused, codec(RECEIVER, secret=secret).open, flipped(frame, bits))

    def test_every_bit_of_a_frame_counts(self) -> None:
        """A change of any bit of a frame is refused; bytes before the tag that have a reason of their own are refused
        with that reason."""
        for secret, reason in ((None, "checksum"), (SECRET, "tag")):
            frame = one_frame(codec(SENDER, secret=secret))
            for bit in range(len(frame) * 8):
                known = [name for name, end in EARLIER_REASONS if bit // 8 < end]
                expected = {known[0]} if known else {reason}
                if known[:1] == ["flags"]:
                    expected = {"tag", "version"}
                if known[:1] == ["type"]:
                    # Some wrong bits make another type that there is.
                    expected = {"type", reason}
                refusal = self.assertRaises(FrameRefused, codec(RECEIVER, secret=secret).open, flipped(frame, {bit}))
                self.assertIn(refusal.reason, expected, f"bit {bit}")


EARLIER_REASONS = (("magic", 4), ("version", 5), ("type", 6), ("flags", 7), ("size", 11), ("cluster", 19))
"""The reason for which a frame with a wrong bit is refused, and the end of the bytes that this concerns."""


def flipped(frame: bytes, bits: set[int]) -> bytes:
    changed = bytearray(frame)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class IdentityTests(FrameTestCase):
    """A frame tells more than its messages: the cluster's own identity, passed slots, and the sender's storage."""

    def test_frame_tells_start_and_log_position(self) -> None:
        """A frame tells the start and the log position of its sender's storage; the position is asked for at each
        frame, since more may be on disk."""
        for secret in (None, SECRET):
            sender, written = codec(SENDER, secret=secret, start=7), iter((41, 42))
            sender.position = lambda written=written: next(written)  # type: ignore[misc]
            receiver = codec(RECEIVER, secret=secret)
            opened = [receiver.open(one_frame(sender)) for _ in range(2)]
            self.assertEqual([(o.start, o.position) for o in opened], [(7, 41), (7, 42)])

    def test_clusters_of_one_name_are_told_apart_once_both_know_who_they_are(self) -> None:
        """Two clusters with equal names and servers are told apart by their identities, once both know theirs."""
        for ours, theirs, is_refused in (
            (NOT_KNOWN, NOT_KNOWN, False),
            (NOT_KNOWN, b"this one", False),
            (b"this one", NOT_KNOWN, False),
            (b"this one", b"this one", False),
            (b"this one", b"that one", True),
        ):
            sender, receiver = codec(SENDER), codec(RECEIVER)
            receiver.membership.cluster_identity, sender.membership.cluster_identity = ours, theirs
            with self.subTest(ours=ours, theirs=theirs):
                if is_refused:
                    refusal = self.assertRaises(FrameRefused, receiver.open, one_frame(sender))
                    self.assertEqual(refusal.reason, "cluster")
                    self.assertIn(f"that one is {theirs.hex()}, ours is {ours.hex()}", str(refusal))
                else:
                    self.assertEqual(receiver.open(one_frame(sender)).messages, [accept()])

    def test_servers_that_pass_other_slots_refuse_each_other(self) -> None:
        """Servers that pass over different slots refuse each other's frames: otherwise their states would differ."""
        for ours, theirs in ((NOT_KNOWN, b"passes 7"), (b"passes 7", NOT_KNOWN), (b"passes 7", b"passes 8")):
            sender, receiver = codec(SENDER), codec(RECEIVER)
            receiver.membership.passes, sender.membership.passes = ours, theirs
            with self.subTest(ours=ours, theirs=theirs):
                self.assertRefused(receiver, one_frame(sender), "passes")
                receiver.membership.passes = theirs
                self.assertEqual(receiver.open(one_frame(sender)).messages, [accept()])

    def test_frames_follow_each_change_of_the_identity(self) -> None:
        """Frames follow each change of the cluster's identity and of the passed slots, also in a codec that has made
        frames before."""
        sender, receiver = codec(SENDER), codec(RECEIVER)
        for identity in (b"this one", b"that one"):
            for passes in (b"passes 7", NOT_KNOWN):
                for each in (sender, receiver):
                    each.membership.cluster_identity, each.membership.passes = identity, passes
                frame = one_frame(sender)
                self.assertEqual((frame[19:27], frame[27:35]), (identity, passes))
                self.assertEqual(receiver.open(frame).messages, [accept()])

    def test_identities_of_another_length_are_refused(self) -> None:
        """Identities that do not have eight bytes are refused, also when they are set later."""
        membership = codec(SENDER).membership
        self.assertRaises(ValueError, setattr, membership, "cluster_identity", b"short")
        self.assertRaises(ValueError, setattr, membership, "passes", b"")


class SecretTests(FrameTestCase):
    def test_only_frames_with_the_right_tag_are_taken(self) -> None:
        """With a secret, frames without a right tag are refused; without one, sealed frames are."""
        for sent, expected in ((SECRET, None), (None, SECRET), (b"another secret", SECRET), (SECRET, b"s")):
            with self.subTest(sent=sent, expected=expected):
                self.assertRefused(codec(RECEIVER, secret=expected), one_frame(codec(SENDER, secret=sent)), "tag")

    def test_secrets_that_share_their_first_64_bytes_differ(self) -> None:
        """Two secrets that share their first 64 bytes differ: BLAKE2b takes keys of 64 bytes, and a longer secret
        counts whole."""
        frame = one_frame(codec(SENDER, secret=b"x" * 64 + b"a"))
        self.assertRefused(codec(RECEIVER, secret=b"x" * 64 + b"b"), frame, "tag")
        self.assertEqual(len(codec(RECEIVER, secret=b"x" * 64 + b"a").open(frame).messages), 1)

    def test_key_cannot_be_left_out(self) -> None:
        """A frame that says that it has no key, with a right checksum, is refused where a secret is configured."""
        frame = one_frame(codec(SENDER))
        self.assertEqual(codec(RECEIVER).open(frame).messages, [accept()])
        self.assertRefused(codec(RECEIVER, secret=SECRET), frame, "tag")
        self.assertRefused(codec(RECEIVER, secret=SECRET), frame[:6] + b"\x01" + frame[7:], "tag")

    def test_two_secrets_are_taken_and_the_first_is_sent_by(self) -> None:
        """With two secrets, frames with either are taken, and the first is used for sending: while a secret is changed,
        servers differ by one step."""
        steps: list[tuple[bytes, ...]] = [(b"old",), (b"old", b"new"), (b"new", b"old"), (b"new",)]
        for one, other in pairwise(steps):
            for sent, expected in ((one, other), (other, one), (one, one)):
                self.assertEqual(
                    len(codec(RECEIVER, secret=expected).open(one_frame(codec(SENDER, secret=sent)))[4]), 1
                )
        self.assertRefused(codec(RECEIVER, secret=steps[3]), one_frame(codec(SENDER, secret=steps[1])), "tag")

    def test_secrets_are_changed_while_frames_come_and_go(self) -> None:
        """When secrets are changed, the counters go on, so that no frame counts as repeated; a cluster cannot begin or
        cease to have a secret this way."""
        sender, receiver = codec(SENDER, secret=b"old"), codec(RECEIVER, secret=b"old")
        early = one_frame(sender)
        receiver.open(early)
        for end in (sender, receiver):
            end.take_secrets([b"new", b"old"])
        self.assertEqual(len(receiver.open(one_frame(sender)).messages), 1)
        self.assertRefused(receiver, early, "replay")
        self.assertRefused(codec(RECEIVER, secret=b"old"), one_frame(sender), "tag")
        self.assertRaises(ValueError, sender.take_secrets, [])
        self.assertRaises(ValueError, codec(SENDER).take_secrets, [b"new"])

    def test_same_frame_is_taken_once(self) -> None:
        """With a secret, a recorded frame that is sent again is refused."""
        receiver, frame = codec(RECEIVER, secret=SECRET), one_frame(codec(SENDER, secret=SECRET))
        receiver.open(frame)
        self.assertRefused(receiver, frame, "replay")

    def test_overtaken_frames_are_taken(self) -> None:
        """With a secret, frames that UDP has reordered are taken."""
        sender, receiver = codec(SENDER, secret=SECRET), codec(RECEIVER, secret=SECRET)
        frames = [one_frame(sender, accept(seq)) for seq in range(1, 6)]
        taken = [receiver.open(frame).messages[0] for frame in reversed(frames)]
        self.assertEqual(taken, [accept(seq) for seq in range(5, 0, -1)])

    def test_frame_of_an_earlier_start_is_a_replay_only_if_it_was_here(self) -> None:
        """With a secret, a frame with a lower start number than others is taken once: after a copy, the right storage
        may be back with a lower number."""
        receiver, earlier = codec(RECEIVER, secret=SECRET), one_frame(codec(SENDER, secret=SECRET, start=1))
        receiver.open(one_frame(codec(SENDER, secret=SECRET, start=2)))
        self.assertEqual(receiver.open(earlier).start, 1)
        self.assertRefused(receiver, earlier, "replay")

    def test_forged_frame_does_not_move_the_window(self) -> None:
        """A forged frame with a high counter does not move the window; otherwise a server could be silenced with it."""
        receiver, sender = codec(RECEIVER, secret=SECRET), codec(SENDER, secret=SECRET)
        forged = bytearray(one_frame(sender))
        forged[HEADER.size - 24 : HEADER.size - 8] = bytes([15]) * 16
        self.assertRefused(receiver, bytes(forged), "tag")
        self.assertEqual(receiver.open(one_frame(sender)).messages, [accept()])

    def test_without_a_secret_a_frame_may_come_twice(self) -> None:
        """Without a secret a frame may come twice: networks duplicate frames, and only with a secret can a repeated one
        be told."""
        receiver, frame = codec(RECEIVER), one_frame(codec(SENDER))
        self.assertEqual(receiver.open(frame), receiver.open(frame))
