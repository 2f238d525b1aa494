"""Figure 3: what a batch is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Batch
from tests.paxos.messages import client_update


class BatchTests(SynchronousTestCase):
    def test_batch_gives_back_its_updates_in_order(self) -> None:
        """One sequence number binds several updates (section 7.3); their order is part of it."""
        updates = [client_update("alice", 3, payload=b"\x00\xff"), client_update("bob", 1, server_id=4, made_at=17)]
        self.assertEqual(Batch.of(1234, updates).open(), (1234, updates))

    def test_empty_batch_is_a_no_op_with_a_time(self) -> None:
        """G11: holes are filled with batches that change nothing but the clock."""
        self.assertEqual(Batch.of(99, ()).open(), (99, []))

    def test_equal_content_is_equal_bytes(self) -> None:
        """Digests and S1 compare bytes."""
        self.assertEqual(Batch.of(1, [client_update()]).data, Batch.of(1, [client_update()]).data)
        self.assertNotEqual(Batch.of(1, [client_update()]).data, Batch.of(2, [client_update()]).data)
