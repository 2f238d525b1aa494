"""Relaying and binding of updates: each rule of the check finds its violation, and passes what is allowed."""

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
        """G15 (ii): an update that a leader binds to two numbers in one view is found."""
        self.assertEqual(self.check.proposed(Proposal(0, 1, 5, BATCH)), "")
        self.assertIn("at 5 and at 6", self.check.proposed(Proposal(0, 1, 6, LATER_BATCH)))

    def test_update_bound_again_below_its_slot_is_found(self) -> None:
        """G11: an update that is bound again below its slot is found; a leader must fill the hole with a no-op."""
        self.check.proposed(Proposal(0, 1, 6, BATCH))
        self.check.proposed(Proposal(1, 2, 5, LATER_BATCH))
        self.assertIn("at 5 and at 6", self.check.proposed(Proposal(1, 2, 6, BATCH)))

    def test_two_slots_of_earlier_views_pass(self) -> None:
        """An update in two slots of earlier views passes: either of the slots may be chosen."""
        self.check.proposed(Proposal(0, 1, 5, BATCH))
        self.check.proposed(Proposal(1, 2, 6, LATER_BATCH))
        for seq, batch in ((5, BATCH), (6, LATER_BATCH)):
            self.assertEqual(self.check.proposed(Proposal(2, 3, seq, batch)), "")

    def test_proposal_that_is_sent_again_passes(self) -> None:
        """A proposal that its leader sends again passes, since leaders repeat proposals (section 5.9 of the paper)."""
        for _ in range(2):
            self.assertEqual(self.check.proposed(Proposal(0, 1, 5, BATCH)), "")

    def test_late_copy_beyond_the_horizon_passes(self) -> None:
        """Departure 7: a late copy of an update beyond its horizon passes; its number may be forgotten, and it does not
        run."""
        self.check.proposed(Proposal(0, 1, 5, BATCH))
        self.assertEqual(self.check.proposed(Proposal(0, 1, 16, LATER_BATCH)), "")


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = RelayChecker(range(3))

    def test_copies_from_its_own_server_are_relayed_once_each(self) -> None:
        """Copies of an update from its own server may be relayed once each: the network may duplicate a copy, and add
        an echo to each."""
        self.check.sent(0, None, UPDATE)
        for _ in range(4):
            self.assertEqual(self.check.sent(1, 2, UPDATE), "")
        self.assertIn("server 1 has relayed 5 copies of 4", self.check.sent(1, 2, UPDATE))

    def test_relaying_a_relayed_copy_is_found(self) -> None:
        """Departure 17: a server that relays a copy which was relayed to it is found: updates would go round in
        circles."""
        self.check.sent(0, 1, UPDATE)
        self.check.sent(1, 2, UPDATE)
        self.assertIn("server 2 has relayed 1 copies of 0", self.check.sent(2, 1, UPDATE))

    def test_relaying_to_all_servers_is_found(self) -> None:
        """A server that relays an update to all servers is found: only one server leads, so that one copy is enough."""
        check = RelayChecker(range(7))
        check.sent(0, 1, UPDATE)
        self.assertIn("relayed 6 copies", check.sent(1, None, UPDATE))

    def test_server_that_has_got_parts_by_mistake_may_relay(self) -> None:
        """Parts of frames for another server may make up an update at a server that has that server's former address.

        This excuses no other server, and no updates of other servers.
        """
        self.check.parts_misdirected(0, 1)
        self.assertEqual(self.check.sent(1, 2, UPDATE), "")
        self.assertIn("server 2 has relayed 1 copies of 0", self.check.sent(2, 1, UPDATE))
        self.check.parts_misdirected(2, 1)
        self.assertIn("server 2 has relayed", self.check.sent(2, 1, UPDATE))

    def test_repetitions_of_its_own_server_pass(self) -> None:
        """A server may repeat the updates of its own clients without a limit (Figure 12 B)."""
        for _ in range(9):
            self.assertEqual(self.check.sent(0, None, UPDATE), "")
