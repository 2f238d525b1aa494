"""Tests of `pfsb.storage.log.items`: each content has one form, and each form one content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.members import Members
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import PeerRecord, ViewRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.storage.effect import Effect, StoredSlot
from pfsb.storage.log.items import Content, NotCanonical, StoredSnapshot, decode, encode, slots_of
from pfsb.support.limits import NUMBER_MAX, SERVER_ID_MAX
from tests.examples import examples
from tests.paxos.test_members import MEMBERS

NUMBERS = st.integers(0, NUMBER_MAX)
EIGHT = st.binary(min_size=8, max_size=8)
PEERS = st.builds(PeerRecord, st.integers(0, SERVER_ID_MAX), EIGHT, NUMBERS, NUMBERS)
SLOTS = st.builds(StoredSlot, NUMBERS, st.binary(max_size=40).map(Batch))
EFFECTS = st.builds(
    Effect,
    st.none() | st.builds(ViewRecord, NUMBERS, NUMBERS),
    st.none() | NUMBERS,
    st.dictionaries(NUMBERS, SLOTS, max_size=4),
    st.lists(PEERS, max_size=4).map(lambda peers: {peer.server_id: peer for peer in peers}),
    members=st.none() | MEMBERS,
)
NAMES = st.builds(SnapshotName, NUMBERS, NUMBERS, st.binary(min_size=16, max_size=16))
SNAPSHOTS = st.none() | st.builds(StoredSnapshot, NAMES, NUMBERS, NUMBERS)
SIX = StoredSnapshot(SnapshotName(6, 1_000, bytes(16)), 2, 5)
SMALL = Members((0, 1), epoch=1, since=4)
CONTENTS = st.builds(Content, st.none() | NUMBERS, EFFECTS, st.dictionaries(NUMBERS, EIGHT, max_size=3), SNAPSHOTS)


class FormTests(SynchronousTestCase):
    """Groups as bytes."""

    @examples(100)
    @given(CONTENTS)
    def test_content_comes_back(self, content: Content) -> None:
        """Decoding gives the content of a group, in whatever order it was put together."""
        self.assertEqual(decode(b"".join(encode(content))), content)

    @examples(100)
    @given(CONTENTS, st.data())
    def test_no_other_form_is_accepted(self, content: Content, data: st.DataObject) -> None:
        """Bytes that can be decoded are the only form of their content: encoding gives them again."""
        form = bytearray(b"".join(encode(content)))
        if form:
            at = data.draw(st.integers(0, len(form) - 1))
            form[at] = data.draw(st.integers(0, 255))
            form = form[: data.draw(st.integers(0, len(form)))]
        try:
            found = decode(bytes(form))
        except NotCanonical:
            return
        self.assertEqual(b"".join(encode(found)), form)

    def test_items_out_of_order_and_twice_are_refused(self) -> None:
        """Items of a group that are out of order, or two of one kind, are refused: the second would replace the
        first."""
        views, aru = encode(Content(effect=Effect(ViewRecord(1, 1), 5)))
        one, two = (b"".join(encode(Content(effect=Effect(slots={seq: StoredSlot(1, Batch(b"x"))})))) for seq in (1, 2))
        [snapshot] = encode(Content(snapshot=StoredSnapshot(SnapshotName(1, 2, bytes(16)), 3, 0)))
        [epoch] = encode(Content(effect=Effect(members=Members((1, 2), epoch=1))))
        decode(aru + snapshot + epoch + one)
        for body in (
            *(aru + views, views + views, aru + aru, two + one, one + one, one + aru),
            *(snapshot + aru, one + snapshot, snapshot + snapshot),
            *(epoch + aru, epoch + snapshot, one + epoch, epoch + epoch),
        ):
            self.assertRaises(NotCanonical, decode, body)
        self.assertEqual(len(slots_of(one + two, 0, len(one + two))), 2)

    def test_state_before_and_an_opening_give_the_state_after(self) -> None:
        """The first group of a segment holds the state, and is enough without the groups of earlier segments."""
        before = Content(
            3, Effect(ViewRecord(5, 4), 7, {}, {1: PeerRecord(1, b"disk-001")}, members=SMALL), {2: b"digest-2"}, SIX
        )
        group = Content(None, Effect(None, 8, {9: StoredSlot(4, Batch(b"nine"))}, {0: PeerRecord(0, b"disk-000")}))
        opening = before.opening(group)
        self.assertEqual(before.effect.local_aru, 7, "the state itself is not changed")
        alone = Content()
        alone.apply(opening)
        before.apply(group)
        self.assertEqual(alone, before)
        self.assertEqual(before.snapshot_seq, 6)
        self.assertEqual(opening.effect.slots, group.effect.slots)
