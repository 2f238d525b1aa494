"""Departure 50: a leader raises its view above that of servers which have installed a later one."""

from __future__ import annotations

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import Prepare, State, ViewChange
from pfsb.paxos.view_raise import RAISE_VIEWS_MAX
from pfsb.support.limits import VIEW_MAX
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import alive, prepare_ok, vc_proof, view_change


class ViewRaiseTests(ReplicaTestCase):
    """Server 2 leads view 2 of a cluster of five, and is followed by servers 1 and 3."""

    def after_start(self) -> None:
        self.lead(view=2)

    def hear(self, seconds: float, view: int = 2, *claims: tuple[int, int]) -> None:
        """Let time pass in which servers 1 and 3 follow this one in `view`, and in which other servers tell the views
        in `claims`."""
        for _ in range(round(seconds / 0.1)):
            for other in (1, 3):
                self.receive(alive(other, view))
            for other, claimed in claims:
                self.receive(alive(other, claimed))
            self.advance(0.1)

    def lead_again(self, view: int) -> None:
        """Let servers 1 and 3 vote for `view`, and promise to follow this server in it."""
        for other in (1, 3):
            self.receive(view_change(other, view))
        for other in (1, 3):
            self.receive(prepare_ok(other, view))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.take(ViewChange)
        self.take(Prepare)

    def test_view_is_raised_above_that_of_a_server_in_a_later_one(self) -> None:
        """The leader attempts the first view of its own above the view that another server has installed and tells."""
        self.hear(1.9, 2, (5, 8))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.hear(0.5, 2, (5, 8))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 12)})

    def test_highest_of_the_later_views_counts(self) -> None:
        """The highest of several later views counts, so that one raise is enough."""
        self.hear(2.4, 2, (4, 20), (5, 8))
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 22)})

    def test_only_views_that_are_told_for_long_enough_count(self) -> None:
        """Only a later view that is told for long enough counts: a server that tells one once may be wrong for once."""
        self.hear(1.9, 2, (4, 2), (5, 8))
        self.hear(0.5, 2, (4, 20), (5, 8))
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 12)})

    def test_server_that_was_removed_meanwhile_counts_no_more(self) -> None:
        """The views that a server has told do not count any more when a change of the membership (Departure 60) has
        removed it."""
        self.hear(1.5, 2, (5, 8))
        del self.replica.peers.by_id[5]
        self.hear(1.0, 2)
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_one_alive_of_a_later_view_raises_nothing(self) -> None:
        """One ALIVE with a later view raises nothing, if the next one of that server tells another."""
        for _ in range(5):
            self.hear(1.0, 2, (5, 8))
            self.hear(0.3, 2, (5, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_server_that_is_not_heard_any_more_raises_nothing(self) -> None:
        """A server in a later view that is not heard any more raises nothing: until it comes back a raise would have no
        use."""
        self.hear(0.5, 2, (5, 8))
        self.hear(10.0)
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_leader_that_is_not_followed_raises_nothing(self) -> None:
        """A leader that no majority follows raises nothing: its Progress_Timer ends the view, if the followers do not
        come back."""
        self.replica.progress_timer.longest = 100.0
        self.data.timers.progress_seconds = 100.0
        self.replica.progress_timer.start()
        for _ in range(40):
            self.receive(alive(5, 8))
            self.advance(0.1)
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_leader_whose_disk_is_in_trouble_raises_nothing(self) -> None:
        """Departures 44 and 45: a leader whose disk is in trouble raises nothing, since it could not install the
        view."""
        self.storage.is_full = True
        self.hear(4.0, 2, (5, 8))
        self.assertIs(self.replica.turn.trouble, DiskTrouble.FULL)
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_followers_raise_nothing(self) -> None:
        """A follower never raises its view because of a server in a later view: it waits for its leader."""
        self.expire_progress_timer()
        self.follow(view=6)
        self.take(ViewChange)
        for _ in range(30):
            self.receive(alive(1, 6, State.REG_LEADER))
            self.receive(alive(5, 8))
            self.advance(0.1)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_each_raise_doubles_the_wait_for_the_next_one(self) -> None:
        """Each raise doubles the wait for the next one, so that a server in error that tells later and later views
        causes few elections."""
        view = 2
        for wait in (2.0, 4.0, 8.0, 16.0, 16.0):
            self.hear(wait - 0.1, view, (5, view + 1))
            self.assertIs(self.data.server.state, State.REG_LEADER, wait)
            self.hear(0.5, view, (5, view + 1))
            self.assertIs(self.data.server.state, State.LEADER_ELECTION, wait)
            self.take(ViewChange)
            view += 5
            self.lead_again(view)

    def test_wait_is_short_again_after_a_long_calm(self) -> None:
        """After a long time without a server in a later view the wait is short again."""
        raiser = self.replica.view_raise
        self.hear(2.4, 2, (5, 8))
        self.take(ViewChange)
        self.assertEqual(raiser.wait, 2 * raiser.shortest_wait)
        self.lead_again(12)
        self.hear(raiser.longest_wait - 1, 12)
        self.assertEqual(raiser.wait, 2 * raiser.shortest_wait)
        self.hear(2, 12)
        self.assertEqual(raiser.wait, raiser.shortest_wait)

    def test_one_raise_goes_up_by_a_bounded_number_of_views(self) -> None:
        """One raise goes up by a bounded number of views, so that a server in error does not use up all views."""
        self.hear(2.4, 2, (5, VIEW_MAX - 1))
        (vote,) = set(self.take(ViewChange))
        self.assertTrue(2 + RAISE_VIEWS_MAX < vote.attempted <= 2 + RAISE_VIEWS_MAX + 5, vote)


class FollowersOfARaiseTests(ReplicaTestCase):
    """Server 2 follows server 1 in view 1 of a cluster of five, and server 1 raises its view to 11."""

    def after_start(self) -> None:
        self.follow(view=1)
        self.receive(view_change(1, 11))
        self.advance(0.03)

    def test_follower_attempts_the_view_that_its_leader_has_left_for(self) -> None:
        """A follower attempts the view that its leader has left for: otherwise the followers might elect another
        leader, of a view that is not late enough."""
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 11)})

    def test_vote_of_the_leader_of_an_older_view_counts_no_more(self) -> None:
        """The vote by which the leader left an older view does not count any more when this server follows another one:
        that server 1 left view 1 for view 11 says nothing about view 3."""
        self.take(ViewChange)
        self.receive(alive(3, 3, State.REG_LEADER))
        self.follow(view=3)
        self.expire_progress_timer()
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 4)})

    def test_view_of_the_servers_that_wait_is_not_installed(self) -> None:
        """The view of the servers that wait is not installed on their VC_PROOF: no server leads it, and the leader has
        left its own view to bring them back."""
        self.take(ViewChange)
        self.receive(vc_proof(5, 8))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertEqual((self.data.views.last_installed, self.data.views.last_attempted), (1, 11))

    def test_view_that_is_led_is_installed(self) -> None:
        """If a leader of a later view is heard, a VC_PROOF of it is followed, since a majority has promised to follow
        that leader."""
        self.take(ViewChange)
        self.receive(alive(3, 8, State.REG_LEADER))
        self.receive(vc_proof(5, 8))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.data.views.last_installed, 8)

    def test_raised_view_and_later_ones_are_installed(self) -> None:
        """A VC_PROOF of the view to which the leader has raised its own makes a follower that waits for the leader
        install that view."""
        self.take(ViewChange)
        self.receive(vc_proof(1, 11))
        self.assertEqual(self.data.views.last_installed, 11)

    def test_attempt_beyond_the_raised_view_ends_the_rule(self) -> None:
        """After an attempt beyond the raised view, which has come to nothing, any installed view may be joined."""
        self.preinstall(view=11)
        self.expire_progress_timer()
        self.take(ViewChange)
        self.receive(vc_proof(5, 8))
        self.assertEqual(self.data.views.last_installed, 8)
