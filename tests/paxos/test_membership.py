"""Sections 2 and 5.1: majorities, and the succession of leaders."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.members import Members
from pfsb.paxos.membership import NO_LEADER, Membership
from pfsb.paxos.messages import VCProof
from pfsb.support.limits import VIEW_MAX
from pfsb.support.views import view_of
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import client_update


class MembershipTests(SynchronousTestCase):
    def test_any_two_majorities_share_a_server(self) -> None:
        """Section 2: a majority is floor(N/2) + 1, so that any two share a server; for even N, too (G27), where no more
        failures are tolerated than with N - 1."""
        for n, quorum in {1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4}.items():
            self.assertEqual(Membership(1, Members(range(1, n + 1))).quorum, quorum)
            self.assertGreater(2 * quorum, n)

    def test_any_two_groups_that_admit_a_new_storage_share_a_server(self) -> None:
        """Departure 42: a majority of the other servers, N - majority + 1; none for a server alone."""
        for n, others in {1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 5}.items():
            membership = Membership(1, Members(range(1, n + 1)))
            self.assertEqual(membership.acquaintances, others)
            self.assertTrue(n == 1 or 2 * others > n - 1)

    def test_first_view_is_led_by_the_lowest_id(self) -> None:
        """Departure 26: view v is led by the server at position (v - 1) mod N of the ids in ascending order, so view 1
        by the lowest id."""
        membership = Membership(7, Members((9, 3, 7)))
        self.assertEqual([membership.leader_of(view) for view in range(1, 8)], [3, 7, 9, 3, 7, 9, 3])

    def test_all_servers_agree_on_the_succession_whatever_order_they_read(self) -> None:
        """All servers agree on the line of succession, in whatever order the configuration file names them."""
        views = range(1, 20)
        one, other = Membership(1, Members((1, 2, 3, 4))), Membership(4, Members((4, 2, 1, 3)))
        self.assertEqual([one.leader_of(v) for v in views], [other.leader_of(v) for v in views])

    def test_next_view_that_a_server_leads(self) -> None:
        """Departure 50: a server leads every N-th view; the next one is above the given view."""
        membership = Membership(7, Members((9, 3, 7)))
        self.assertEqual([membership.next_led(view) for view in (0, 1, 2, 3, 4, 5)], [2, 2, 5, 5, 5, 8])

    def test_next_view_that_another_server_leads(self) -> None:
        """Departure 59: the next view that a server leads comes from the line of succession; for a server that does not
        vote, it is the view after the last one of the epoch."""
        membership = Membership(7, Members((9, 3, 7), (4,)))
        self.assertEqual([membership.next_led_by(9, view) for view in (0, 2, 3, 4)], [3, 3, 6, 6])
        self.assertEqual(membership.next_led_by(4, 1), membership.last_view + 1)

    def test_view_0_has_no_leader(self) -> None:
        """View 0, a placeholder, has no leader."""
        membership = Membership(1, Members((1, 2, 3)))
        self.assertEqual(membership.leader_of(0), NO_LEADER)
        self.assertFalse(membership.i_lead(0))

    def test_server_0_is_a_server_like_any_other(self) -> None:
        """A server may have the id 0, and leads its views as any other."""
        membership = Membership(0, Members((0, 1, 2, 3)))
        self.assertTrue(membership.i_lead(1))
        self.assertTrue(membership.i_lead(5))
        self.assertEqual(membership.others, (1, 2, 3))

    def test_learners_do_not_count(self) -> None:
        """A learner is no part of a majority, and leads no view; messages to all go to it, too."""
        membership = Membership(2, Members((1, 2, 3), learners=(4, 5)))
        self.assertEqual((membership.n, membership.quorum, membership.leader_tells), (3, 2, False))
        self.assertFalse(membership.is_majority((1, 4, 5, 6)))
        self.assertTrue(membership.is_majority((1, 3)))
        self.assertEqual(membership.lacking((1, 4)), 1)
        self.assertEqual((membership.ids, membership.others), ((1, 2, 3, 4, 5), (1, 3, 4, 5)))
        self.assertEqual({membership.leader_of(view) for view in range(1, 20)}, {1, 2, 3})

    def test_learner_must_be_known_to_a_majority_of_the_voters(self) -> None:
        """Departure 42: a new learner is admitted when a majority of the voters knows its storage, so that two storages
        of one id are never both known to so many."""
        for n, others in {1: 1, 2: 2, 3: 2, 4: 3, 5: 3}.items():
            self.assertEqual(Membership(9, Members(range(n), learners=(9,))).acquaintances, others)


class EpochTests(SynchronousTestCase):
    """The views of an epoch are led by its own voters."""

    def setUp(self) -> None:
        super().setUp()
        self.membership = Membership(2, Members((1, 2, 3)))
        self.membership.enter(Members((2, 3, 4, 6), epoch=5))

    def test_line_of_succession_begins_anew(self) -> None:
        """In a new epoch the line of succession begins anew: view 5.1 is led by the lowest id of epoch 5."""
        views = [view_of(5, number) for number in range(1, 6)]
        self.assertEqual([self.membership.leader_of(view) for view in views], [2, 3, 4, 6, 2])
        self.assertEqual(self.membership.next_led(view_of(5, 1)), view_of(5, 5))

    def test_nobody_leads_a_view_of_another_epoch(self) -> None:
        """No server leads a view of another epoch than the present one."""
        for view in (0, 1, VIEW_MAX, view_of(4, 1), view_of(5, 0), view_of(6, 0), view_of(6, 1)):
            self.assertEqual(self.membership.leader_of(view), NO_LEADER)
            self.assertFalse(self.membership.i_lead(view))

    def test_majority_is_that_of_the_epoch(self) -> None:
        """A majority is one of the present voters: here three of four, without server 1, which is gone."""
        self.assertFalse(self.membership.is_majority((1, 2, 3)))
        self.assertTrue(self.membership.is_majority((2, 3, 6)))


class ChangeTests(ReplicaTestCase):
    """Servers 2 to 7 take over from servers 1 to 5, and 7 only learns: what server 2 keeps for each server follows."""

    def after_start(self) -> None:
        self.take(VCProof)
        self.replica.membership.enter(Members((2, 3, 4, 5, 6), learners=(7,), epoch=1))

    def test_table_of_peers_has_the_new_servers(self) -> None:
        """The table of peers follows a change: servers that stay keep their entries, and ids that are gone have
        none."""
        self.assertEqual([*self.replica.peers.by_id], [3, 4, 5, 6, 7])

    def test_handlers_count_by_the_new_majority(self) -> None:
        """Handlers count by the new majority: three of five voters; server 1, which is gone, and the learner count for
        nothing."""
        replica = self.replica
        handlers = replica.ordering, replica.prepare, replica.election, replica.alive, replica.reads, replica.divergence
        for handler in handlers:
            self.assertFalse(handler.is_majority((1, 2, 3, 7)))
            self.assertTrue(handler.is_majority((2, 3, 6)))

    def test_new_servers_are_served(self) -> None:
        """New servers are served: none is refused because a table was made before the change."""
        self.assertTrue(self.replica.reconciliation.may_serve(6))
        self.assertTrue(self.replica.prepare.allowances[6].is_left(self.clock.seconds()))
        self.assertTrue(self.replica.validity.of_update(client_update(server_id=6)))


class TellingChangeTests(ReplicaTestCase):
    """Departure 55 begins and ends with the number of voters."""

    servers = (1, 2, 3, 4)
    leader_tells = True

    def test_leader_tells_from_five_voters_on(self) -> None:
        """The leader tells what is ordered from five voters on: four servers do not, five do, and four with a learner
        do not again."""
        ordering, membership = self.replica.ordering, self.replica.membership
        self.assertIs(ordering.on_majority, None)
        membership.enter(Members((1, 2, 3, 4, 5), epoch=1))
        self.assertEqual(ordering.on_majority, self.replica.telling.tell)
        membership.enter(Members((1, 2, 3, 4), learners=(5,), epoch=2))
        self.assertIs(ordering.on_majority, None)
