from __future__ import annotations

from typing import get_args

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Batch, ClientUpdate, GloballyOrderedUpdate, Message, PrepareOK, Proposal
from pfsb.transports.wire import (
    Malformed,
    MessageKind,
    content_of,
    decode,
    decode_all,
    encode,
    encode_any,
    join_encoded,
)
from tests.examples import examples
from tests.transports.messages import BY_TYPE, SENDER, accept, any_message, batches, proposal

FEW = examples(60)

msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


class RoundTripTests(SynchronousTestCase):
    def test_strategies_know_every_message_type(self) -> None:
        """The test strategies know every message type: one that is added to Figure 3 must be added to them."""
        self.assertEqual(set(BY_TYPE), set(get_args(Message)))

    def test_each_type_comes_back_as_it_was(self) -> None:
        """Every message of every type survives the wire unchanged."""
        for kind, strategy in BY_TYPE.items():
            with self.subTest(kind.__name__):

                @FEW
                @given(strategy)
                def comes_back(message: Message) -> None:
                    self.assertEqual(decode_all(SENDER, join_encoded([encode_any(message)])), [message])

                comes_back()

    @FEW
    @given(st.lists(any_message, max_size=5))
    def test_messages_of_a_body_keep_their_order(self, messages: list[Message]) -> None:
        """Several messages travel in one body, in order."""
        self.assertEqual(decode_all(SENDER, join_encoded([encode_any(m) for m in messages])), messages)

    def test_sender_is_taken_from_the_frame(self) -> None:
        """A message cannot name another server than its frame's sender as its own."""
        [message] = decode_all(9, join_encoded([encode(accept(sender=SENDER))]))
        self.assertEqual(message, accept(sender=9))

    def test_client_update_keeps_its_clients_server(self) -> None:
        """Figure 12: a forwarded CLIENT_UPDATE names the client's server, not the server that forwards it."""
        update = ClientUpdate("alice", 1, 41, 800, b"payload")
        self.assertEqual(decode_all(2, join_encoded([encode(update)])), [update])

    def test_data_list_keeps_the_leader_of_each_proposal(self) -> None:
        """Figure 8: the entries of a data list are proposals of older views, of other leaders."""
        batch = Batch.of(5, [])
        told = PrepareOK(SENDER, 9, (Proposal(0, 4, 11, batch), GloballyOrderedUpdate(SENDER, 10, batch)))
        self.assertEqual(decode_all(SENDER, join_encoded([encode(told)])), [told])

    def test_batch_bytes_are_not_touched(self) -> None:
        """A batch is encoded once, at the leader; its bytes go to the disk as they came."""
        # The integer has a longer form than msgpack would choose: if it were encoded anew, the bytes would be
        # shorter.
        unusual = b"\x92\xce\x00\x00\x00\x05\x90"
        [message] = decode_all(SENDER, join_encoded([encode(Proposal(SENDER, 1, 1, Batch(unusual)))]))
        assert isinstance(message, Proposal)
        self.assertEqual(message.batch.data, unusual)


class HostileBytesTests(SynchronousTestCase):
    """Decoding never raises anything but Malformed."""

    def decode_or_refuse(self, body: bytes) -> list[Message] | None:
        try:
            return decode_all(SENDER, body)
        except Malformed:
            return None

    @examples(300)
    @given(st.binary(max_size=80))
    def test_random_bytes_are_malformed_at_worst(self, body: bytes) -> None:
        """Random bytes raise nothing but Malformed."""
        self.decode_or_refuse(body)

    @examples(300)
    @given(st.integers(0, 14), st.lists(msgpack_values, max_size=6))
    def test_wrong_fields_are_malformed_at_worst(self, kind: int, fields: list[object]) -> None:
        """Well-formed msgpack of any shape behind any message type raises nothing but Malformed."""
        self.decode_or_refuse(msgpack.packb([[kind, *fields]]))

    @FEW
    @given(any_message, st.data())
    def test_truncated_body_is_malformed(self, message: Message, data: st.DataObject) -> None:
        """A body without its last bytes is malformed: no message is read from a part of its bytes."""
        body = join_encoded([encode_any(message)])
        cut = body[: data.draw(st.integers(0, len(body) - 1))]
        self.assertRaises(Malformed, decode_all, SENDER, cut)

    @FEW
    @given(any_message, st.data())
    def test_flipped_bit_never_gives_a_batch_that_cannot_be_opened(self, message: Message, data: st.DataObject) -> None:
        """A batch with a flipped bit is malformed or can be opened: a stored batch must never fail to open."""
        body = bytearray(join_encoded([encode_any(message)]))
        bit = data.draw(st.integers(0, len(body) * 8 - 1))
        body[bit // 8] ^= 1 << bit % 8
        for decoded in self.decode_or_refuse(bytes(body)) or ():
            if isinstance(decoded, Proposal | GloballyOrderedUpdate):
                decoded.batch.open()

    def test_deeply_nested_body_is_malformed(self) -> None:
        """A deeply nested body is malformed: no recursion of the decoder reaches the server."""
        self.assertRaises(Malformed, decode_all, SENDER, b"\x91" * 60_000)

    def test_trailing_bytes_are_malformed(self) -> None:
        """A body with bytes behind its last message is malformed."""
        self.assertRaises(Malformed, decode_all, SENDER, join_encoded([encode(accept())]) + b"\x00")

    def test_unhashable_map_key_and_bad_timestamp_are_malformed(self) -> None:
        """An unhashable map key and a bad timestamp are malformed: msgpack raises TypeError and others for them, not
        ValueError."""
        for body in (b"\x91\x81\x81\x01\x02\x03", b"\x91\xd6\xff\x00", b"\x91\xc7\x0c\xff" + b"\xff" * 12):
            with self.subTest(body):
                self.assertRaises(Malformed, decode_all, SENDER, body)


class RangeTests(SynchronousTestCase):
    """Fields with values outside their ranges are malformed, so that no handler meets one."""

    EMPTY = Batch.of(0, []).data

    def assertMalformed(self, row: object, about: str) -> None:
        error = self.assertRaises(Malformed, decode, SENDER, row)
        self.assertIn(about, str(error))

    def test_out_of_range_fields_are_named(self) -> None:
        """A field out of its range is named in the error."""
        rows: list[tuple[tuple[object, ...], str]] = [
            ((MessageKind.PROPOSAL, 1, 0, self.EMPTY), "seq"),
            ((MessageKind.PROPOSAL, 0, 1, self.EMPTY), "view"),
            ((MessageKind.PROPOSAL, True, 1, self.EMPTY), "view"),
            ((MessageKind.PROPOSAL, 2**63, 1, self.EMPTY), "view"),
            ((MessageKind.PROPOSAL, 1, 1, "text"), "batch"),
            ((MessageKind.PROPOSAL, 1, 1, b"\x01"), "batch"),
            ((MessageKind.ACCEPT, 1, (1, 0), bytes(16)), "seq"),
            ((MessageKind.ACCEPT, 1, (1,) * 10_001, b""), "seqs"),
            ((MessageKind.ALIVE, 1, 3, 1, False, bytes(64)), "state"),
            ((MessageKind.ALIVE, 1, 0, 1.5, False, bytes(64)), "local_aru"),
            ((MessageKind.ALIVE, 1, 0, 1, 1, bytes(64)), "has_clients"),
            ((MessageKind.ALIVE, 1, 0, 1, False), "number of fields"),
            ((MessageKind.ALIVE, 1, 0, 1, False, bytes(63)), "digests must be 64 bytes"),
            ((MessageKind.VC_PROOF, None), "installed"),
            ((MessageKind.VIEW_CHANGE, "7"), "attempted"),
            ((MessageKind.PREPARE, 1, -1), "local_aru"),
            ((MessageKind.PREPARE_OK, 1, (), 1, 1, 7), "part"),
            ((MessageKind.PREPARE_OK, 1, (), 0, 10_001, 7), "parts"),
            ((MessageKind.PREPARE_OK, 1, {}, 0, 1, 7), "data_list"),
            ((MessageKind.PREPARE_OK, 1, ((1, 2, self.EMPTY),), 0, 1, 7), "entry"),
            ((MessageKind.PREPARE_OK, 1, ((65_536, 1, 1, self.EMPTY),), 0, 1, 7), "server_id"),
            ((MessageKind.RECONCILIATION_REQUEST, 5, 4), "last"),
            ((MessageKind.RECONCILIATION_REPLY, 8, 9, ((6, self.EMPTY), (8, self.EMPTY))), "follow"),
            ((MessageKind.RECONCILIATION_REPLY, 5, 9, ((6, self.EMPTY),)), "burst_end"),
            ((MessageKind.RECONCILIATION_REPLY, 5, 9, ((5, self.EMPTY, 0),)), "fields"),
            ((MessageKind.STRANGER, b"1234567"), "identity"),
            ((MessageKind.CLIENT_UPDATE, "x" * 301, 1, 1, 1, b""), "client_id"),
            ((MessageKind.CLIENT_UPDATE, b"x", 1, 1, 1, b""), "client_id"),
            ((MessageKind.CLIENT_UPDATE, "x", 1, 1, 1, "text"), "payload"),
            ((MessageKind.CLIENT_UPDATE, "x", 1, -1, 1, b""), "timestamp"),
            ((MessageKind.ACCEPT, 1, (1,)), "number of fields"),
            ((MessageKind.ACCEPT, 1, (1, 2), bytes(31)), "16 bytes for each"),
            ((MessageKind.ACCEPT, 1, (1,), "1" * 16), "digests"),
            ((99, 1), "type"),
            ((True, "x", 1, 1, 1, b""), "starts with its type"),
            ((), "starts with its type"),
            (None, "starts with its type"),
        ]
        for row, about in rows:
            with self.subTest(row=row):
                self.assertMalformed(row, about)

    def test_long_values_are_cut_in_the_text(self) -> None:
        """Long values are cut in the text of an error, which is one line of a log."""
        error = self.assertRaises(Malformed, decode, SENDER, (MessageKind.STRANGER, b"x" * 50_000))
        self.assertLess(len(str(error)), 200)


def well_formed(batch: Batch) -> bool:
    """Whether a server takes these bytes for a batch."""
    return content_of(batch.data) is not None


class WellFormedTests(SynchronousTestCase):
    @FEW
    @given(batches)
    def test_what_a_leader_makes_is_well_formed(self, batch: Batch) -> None:
        """Batches made by `Batch.of` are well-formed, so that followers take them."""
        self.assertTrue(well_formed(batch))

    @examples(300)
    @given(st.lists(msgpack_values, min_size=2, max_size=2) | msgpack_values)
    def test_what_is_well_formed_can_be_opened(self, content: object) -> None:
        """A batch that is well-formed can be opened, so that a follower that has stored it can execute it."""
        batch = Batch(msgpack.packb(content))
        if well_formed(batch):
            batch.open()

    def test_each_wrong_field_of_an_update_is_found(self) -> None:
        """A wrong field of any update of a batch is found, not only of the first."""
        right = ["alice", 1, 41, 800, b"payload"]
        self.assertTrue(well_formed(Batch(msgpack.packb([5, [right, right]]))))
        wrong: list[object] = [
            [b"alice", 1, 41, 800, b""],
            ["x" * 301, 1, 41, 800, b""],
            ["alice", 65_536, 41, 800, b""],
            ["alice", True, 41, 800, b""],
            ["alice", 1, -1, 800, b""],
            ["alice", 1, 2**63, 800, b""],
            ["alice", 1, 41, None, b""],
            ["alice", 1, 41, 800, "text"],
            ["alice", 1, 41, 800],
            ["alice", 1, 41, 800, b"", 0],
            "alice",
            {},
        ]
        for row in wrong:
            with self.subTest(row=row):
                self.assertFalse(well_formed(Batch(msgpack.packb([5, [right, row]]))))

    def test_wrong_outer_shapes_are_found(self) -> None:
        """A batch that is not a time and a list is refused."""
        for content in ([5], [5, [], 0], [-1, []], [True, []], [5, {}], [5, None], {"a": 1, "b": 2}, "ab", 7):
            with self.subTest(content=content):
                self.assertFalse(well_formed(Batch(msgpack.packb(content))))

    def test_proposal_with_a_broken_batch_is_refused(self) -> None:
        """A proposal with a broken batch is refused: a follower never votes for a batch that it could not execute."""
        broken = Batch(proposal().batch.data[:-1])
        self.assertRaises(Malformed, decode_all, SENDER, join_encoded([encode(Proposal(SENDER, 1, 1, broken))]))
