"""Section 5.10 of the paper: the window bounds the slots under way."""

from __future__ import annotations

from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import (
    client_update,
    ordered,
    reply,
)

FOREIGN = client_update("alice", 1, server_id=1)
OWN = client_update("carol", 1, server_id=2)


class WindowTests(ReplicaTestCase):
    def test_closed_window_lets_nothing_be_proposed(self) -> None:
        """Departure 59: while a view is handed over, the window lets the leader propose nothing; what a follower
        accepts does not change."""
        window = self.replica.window
        window.close()
        self.assertFalse(window.may_propose(1))
        self.assertTrue(window.may_accept(8))
        window.adopt(6)
        self.assertFalse(window.may_propose(1))
        window.open()
        self.assertTrue(window.may_propose(6))
        self.assertFalse(window.may_propose(7))

    def test_window_moves_with_local_aru(self) -> None:
        """Section 5.10: the window moves with Local_Aru, so a majority is always within two windows of the newest
        proposal."""
        window = self.replica.window
        self.assertTrue(window.may_propose(4))
        self.assertFalse(window.may_propose(5))
        self.assertTrue(window.may_accept(8))
        self.assertFalse(window.may_accept(9))
        self.receive(reply(3, ordered(3, 1)))
        self.assertTrue(window.may_propose(5))
        self.assertTrue(window.may_accept(9))
