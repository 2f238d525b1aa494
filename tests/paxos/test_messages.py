"""Figure 3: batches, and ACCEPTs that name them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Batch
from tests.paxos.messages import accept, batch, client_update

A, B, C = (batch(time_ms=time_ms) for time_ms in (1, 2, 3))
DIGEST_OF_CONTENT = "649954e4553e37b6e21f9432726b2e6d"


class BatchTests(SynchronousTestCase):
    def test_digest_depends_on_the_bytes_alone(self) -> None:
        """Departure 39: the digest of a batch depends on its bytes alone, so that servers of two versions can compare
        digests."""
        self.assertEqual(Batch(b"content").digest.hex(), DIGEST_OF_CONTENT)

    def test_batch_gives_back_its_updates_in_order(self) -> None:
        """Section 7.3: a batch gives back its several updates in their order."""
        updates = [client_update("alice", 3, payload=b"\x00\xff"), client_update("bob", 1, server_id=4, made_at=17)]
        self.assertEqual(Batch.of(1234, updates).open(), (1234, updates))

    def test_empty_batch_is_a_no_op_with_a_time(self) -> None:
        """G11: an empty batch is a no-op, which changes nothing but the time."""
        self.assertEqual(Batch.of(99, ()).open(), (99, []))

    def test_equal_content_is_equal_bytes(self) -> None:
        """Batches with equal content have equal bytes, which digests and S1 compare."""
        self.assertEqual(Batch.of(1, [client_update()]).data, Batch.of(1, [client_update()]).data)
        self.assertNotEqual(Batch.of(1, [client_update()]).data, Batch.of(2, [client_update()]).data)


class AcceptTests(SynchronousTestCase):
    def test_votes_of_two_accepts_stay_with_their_digests(self) -> None:
        """Section 7.3, Departure 39: an ACCEPT that joins two has the votes of both, each with its digest, in their
        order."""
        first = accept(3, 7, 1, 4, of=[A, B])
        later = accept(3, 7, 2, of=[C])
        self.assertEqual(list(first.joined(later).votes()), [(1, A.digest), (4, B.digest), (2, C.digest)])

    def test_repeated_vote_is_in_the_message_once(self) -> None:
        """A vote that is in both of two joined ACCEPTs is in the message once."""
        first = accept(3, 7, 1, 4, of=[A, B])
        later = accept(3, 7, 4, 5, of=[B, C])
        self.assertEqual(first.joined(later), accept(3, 7, 1, 4, 5, of=[A, B, C]))
