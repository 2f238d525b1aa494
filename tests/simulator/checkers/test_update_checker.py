"""How updates travel and are bound: each sentence fails when it should, and only then."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Batch, ClientUpdate, Proposal
from pfsb.simulator.checkers.update_checker import BindingChecker, RelayChecker

UPDATE = ClientUpdate("a", 0, 1, 0, b"x")
BATCH = Batch.of(0, [UPDATE])
LATER_BATCH = Batch.of(7, [UPDATE])


class BindingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = BindingChecker(horizon_slots=10)

    def test_update_at_two_numbers_of_one_view_is_found(self) -> None:
        """G15 (ii): the second one is the leader's own choice."""
        self.assertEqual(self.check.proposed(Proposal(0, 1, 5, BATCH)), "")
        self.assertIn("at 5 and at 6", self.check.proposed(Proposal(0, 1, 6, LATER_BATCH)))

    def test_update_put_below_the_number_that_holds_it_is_found(self) -> None:
        """G11: a hole is filled with what stands above it."""
        self.check.proposed(Proposal(0, 1, 6, BATCH))
        self.check.proposed(Proposal(1, 2, 5, LATER_BATCH))
        self.assertIn("at 5 and at 6", self.check.proposed(Proposal(1, 2, 6, BATCH)))

    def test_two_numbers_that_earlier_views_have_left_must_be_proposed_again(self) -> None:
        """Either may be chosen."""
        self.check.proposed(Proposal(0, 1, 5, BATCH))
        self.check.proposed(Proposal(1, 2, 6, LATER_BATCH))
        for seq, batch in ((5, BATCH), (6, LATER_BATCH)):
            self.assertEqual(self.check.proposed(Proposal(2, 3, seq, batch)), "")

    def test_proposal_that_is_sent_again_passes(self) -> None:
        """Section 5.9."""
        for _ in range(2):
            self.assertEqual(self.check.proposed(Proposal(0, 1, 5, BATCH)), "")

    def test_late_copy_beyond_the_horizon_passes(self) -> None:
        """Departure 7: nobody need remember it, and it does not run."""
        self.check.proposed(Proposal(0, 1, 5, BATCH))
        self.assertEqual(self.check.proposed(Proposal(0, 1, 16, LATER_BATCH)), "")


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = RelayChecker(range(3))

    def test_copies_from_its_own_server_are_relayed_once_each(self) -> None:
        """And the network may double each, and give each an echo."""
        self.check.sent(0, None, UPDATE)
        for _ in range(4):
            self.assertEqual(self.check.sent(1, 2, UPDATE), "")
        self.assertIn("server 1 has relayed 5 copies of 4", self.check.sent(1, 2, UPDATE))

    def test_relaying_what_was_relayed_is_found(self) -> None:
        """Departure 17: so it goes round in circles."""
        self.check.sent(0, 1, UPDATE)
        self.check.sent(1, 2, UPDATE)
        self.assertIn("server 2 has relayed 1 copies of 0", self.check.sent(2, 1, UPDATE))

    def test_relaying_to_everybody_is_found(self) -> None:
        """One server leads."""
        check = RelayChecker(range(7))
        check.sent(0, 1, UPDATE)
        self.assertIn("relayed 6 copies", check.sent(1, None, UPDATE))

    def test_its_own_server_repeats_as_often_as_it_likes(self) -> None:
        """Figure 12 B."""
        for _ in range(9):
            self.assertEqual(self.check.sent(0, None, UPDATE), "")
