"""Sections 2 and 5.1: majorities, and whose turn it is to lead."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.membership import Membership


class MembershipTests(SynchronousTestCase):
    def test_any_two_majorities_share_a_server(self) -> None:
        """Section 2: floor(N/2) + 1; for even N (G27), too, where it tolerates no more than N - 1 does."""
        for n, quorum in {1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4}.items():
            self.assertEqual(Membership(1, tuple(range(1, n + 1))).quorum, quorum)
            self.assertGreater(2 * quorum, n)

    def test_any_two_groups_that_admit_a_new_storage_share_a_server(self) -> None:
        """Departure 42: a majority of the other servers, N - majority + 1; none for a server alone."""
        for n, others in {1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 5}.items():
            membership = Membership(1, tuple(range(1, n + 1)))
            self.assertEqual(membership.acquaintances, others)
            self.assertTrue(n == 1 or 2 * others > n - 1)

    def test_first_view_is_led_by_the_lowest_id(self) -> None:
        """Departure 26: position (v - 1) mod N of the ids in ascending order."""
        membership = Membership(7, (9, 3, 7))
        self.assertEqual([membership.leader_of(view) for view in range(1, 8)], [3, 7, 9, 3, 7, 9, 3])

    def test_all_servers_agree_on_the_succession_whatever_order_they_read(self) -> None:
        """Peers must agree on the leader of a view, not on how the file was written."""
        views = range(1, 20)
        one, other = Membership(1, (1, 2, 3, 4)), Membership(4, (4, 2, 1, 3))
        self.assertEqual([one.leader_of(v) for v in views], [other.leader_of(v) for v in views])

    def test_view_0_has_no_leader(self) -> None:
        """View 0 is a placeholder: asking who leads it is a mistake."""
        membership = Membership(1, (1, 2, 3))
        self.assertRaises(AssertionError, membership.leader_of, 0)
        self.assertFalse(membership.i_lead(0))

    def test_server_0_is_a_server_like_any_other(self) -> None:
        """Ids are small integers, 0 among them."""
        membership = Membership(0, (0, 1, 2, 3))
        self.assertTrue(membership.i_lead(1))
        self.assertTrue(membership.i_lead(5))
        self.assertEqual(membership.others, (1, 2, 3))
