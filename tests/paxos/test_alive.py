"""Section 5.10 of the paper: ALIVE, and hints that a server is gone."""

from __future__ import annotations

from pfsb.paxos.messages import Accept, Acquainted, Alive, ClientUpdate, KnownPosition, Proposal, State, ViewChange
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import (
    accept,
    alive,
    client_update,
    prepare,
    view_change,
)

FOREIGN = client_update("alice", 1, server_id=1)
OWN = client_update("carol", 1, server_id=2)


class LeaderTestCase(ReplicaTestCase):
    def after_start(self) -> None:
        self.lead(view=2)

    def hear(self, seconds: float, *peers: Alive) -> None:
        for _ in range(round(seconds / 0.2)):
            for message in peers:
                self.receive(message)
            self.advance(0.2)


class LeaderTests(LeaderTestCase):
    def test_leader_that_hears_a_majority_stays(self) -> None:
        """Departure 10: an idle leader stays while it hears ALIVE from a majority, itself included."""
        self.hear(20, alive(1, 2), alive(3, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_leader_that_hears_too_few_suspects_itself(self) -> None:
        """Departure 10: a leader that is cut off with a minority would keep its clients waiting."""
        self.hear(4, alive(1, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertIn(view_change(2, 3), self.take(ViewChange))

    def test_servers_in_other_views_or_in_an_election_do_not_count(self) -> None:
        """Servers in other views, which follow another leader, and servers in an election do not count as followers."""
        self.hear(4, alive(1, 2), alive(3, 2, State.LEADER_ELECTION), alive(4, 1), alive(5, 3))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.take(ViewChange)

    def test_any_message_shows_that_its_sender_is_there(self) -> None:
        """Any message of a follower, such as a vote, shows that it still runs; the view in which it follows is known
        from its last ALIVE."""
        self.hear(0.2, alive(1, 2), alive(3, 2))
        for _ in range(15):
            self.receive(accept(1, 2, 1))
            self.receive(accept(3, 2, 1))
            self.advance(0.2)
        self.assertIs(self.data.server.state, State.REG_LEADER)


class OvertakenLeaderTests(LeaderTestCase):
    """Departure 10: a leader that has proposed an update in slot 1, which gets no votes.

    Its followers say by ALIVE how far they have come.
    """

    servers = (1, 2, 3)

    def after_start(self) -> None:
        super().after_start()
        self.replica.perform(self.replica.introduce, OWN)
        self.take(Proposal)
        self.take(Accept)

    def state_after(self, seconds: float, *peers: Alive) -> State:
        self.hear(seconds, *peers)
        self.take(Proposal), self.take(Accept), self.take(ClientUpdate)
        state = self.data.server.state
        if state is State.LEADER_ELECTION:
            self.assertIn(view_change(2, 3), self.take(ViewChange))
        return state

    def test_leader_whose_followers_have_executed_its_open_slot_suspects_itself(self) -> None:
        """A leader whose followers have executed its open slot suspects itself: they go on without it, and vote for its
        proposal no more."""
        self.assertIs(self.state_after(4, alive(1, 2), alive(3, 2, local_aru=1)), State.LEADER_ELECTION)

    def test_it_has_a_progress_timer_to_get_its_votes_by_repetition(self) -> None:
        """A leader suspects itself only after a Progress_Timer, within which lost ACCEPTs may come, as the PROPOSAL is
        sent again."""
        self.assertIs(self.state_after(1.6, alive(1, 2), alive(3, 2, local_aru=1)), State.REG_LEADER)
        self.receive(accept(3, 2, 1))
        self.assertIs(self.state_after(4, alive(1, 2), alive(3, 2, local_aru=1)), State.REG_LEADER)

    def test_leader_whose_slot_no_follower_has_executed_stays(self) -> None:
        """A leader whose open slot no follower has executed stays, since slow disks keep all of them waiting."""
        self.assertIs(self.state_after(6, alive(1, 2), alive(3, 2)), State.REG_LEADER)

    def test_what_servers_of_other_views_have_executed_does_not_matter(self) -> None:
        """A Local_Aru that servers of other views tell does not matter to this leader: a later view may have ordered
        other slots (Departure 23)."""
        ahead = (alive(3, 1, local_aru=1), alive(3, 2, State.LEADER_ELECTION, local_aru=1))
        for other in ahead:
            self.assertFalse(self.replica.alive.is_overtaken())
            self.receive(other)
        self.advance(2.0)
        self.take(Proposal), self.take(Accept), self.take(ClientUpdate), self.take(ViewChange)
        self.assertFalse(self.replica.alive.is_overtaken())

    def test_idle_leader_is_not_overtaken_by_an_untrue_word(self) -> None:
        """An idle leader does not suspect itself when a server in error claims slots that do not exist: without an open
        slot it waits for nothing."""
        self.receive(accept(3, 2, 1))
        self.assertIs(self.state_after(6, alive(1, 2), alive(3, 2, local_aru=9)), State.REG_LEADER)


class AliveTests(ReplicaTestCase):
    ignore_periodic = False

    def after_start(self) -> None:
        self.take(Alive)

    def test_alive_while_a_view_is_being_installed_promises_nothing(self) -> None:
        """While a view is being installed, ALIVE tells the state LEADER_ELECTION, since it tells only values that are
        on disk."""
        self.hold_syncs = True
        self.receive(view_change(1, 6), sender=1)
        self.storage.finish_all()
        self.take(ViewChange)
        self.receive(prepare(1, 6))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.advance(0.2)
        self.assertEqual(self.take(Alive), [alive(2, 0, State.LEADER_ELECTION, has_clients=False)])
        self.take(ViewChange)
        self.storage.finish_all()
        self.transport.sent.clear()

    def test_last_aru_that_is_heard_counts(self) -> None:
        """Departure 37: a Local_Aru that is wrong, too high, counts only until the next ALIVE of its sender."""
        self.receive(alive(3, 1, local_aru=5))
        self.receive(alive(3, 1, local_aru=4))
        self.assertEqual(self.replica.peers.by_id[3].local_aru, 4)


class RefusalTests(ReplicaTestCase):
    """Departure 11: a dead peer is often known at once."""

    def refused(self, server_id: int) -> None:
        self.replica.peer_refused(server_id)
        self._after_event()

    def test_refusal_of_the_leader_hurries_the_suspicion(self) -> None:
        """Departure 11: the time that is left on the Progress_Timer is cut to a small random delay."""
        self.follow(view=1)
        self.refused(1)
        self.advance(0.03)
        self.assertIn(view_change(2, 2), self.take(ViewChange))

    def test_refusal_of_another_server_means_nothing(self) -> None:
        """The refused frame of a server that does not lead the attempted view does not hurry this server."""
        self.follow(view=1)
        self.refused(3)
        self.advance(0.9)
        self.assertNothingSent()

    def test_refusal_during_an_election_installs_nothing(self) -> None:
        """A refusal during an election is only a hint: it installs nothing, and attempts nothing unless a timer
        runs."""
        self.refused(1)
        self.advance(0.05)
        self.assertEqual(self.data.views.last_attempted, 1)
        self.assertEqual(self.storage.records, [])

    def test_leader_of_a_preinstalled_view_that_is_dead_is_passed_over(self) -> None:
        """Departure 11: the refused frame of a leader whose view was just preinstalled hurries the Progress_Timer,
        too."""
        self.receive(alive(3, 0, State.LEADER_ELECTION))
        self.refused(3)
        self.receive(view_change(1, 3))
        self.receive(view_change(4, 3))
        self.advance(0.03)
        self.assertEqual(self.take(ViewChange), [view_change(2, 3), view_change(2, 4)])
        self.take(Acquainted)
        self.take(KnownPosition)

    def test_refusal_of_a_peer_that_was_never_heard_means_nothing(self) -> None:
        """A refused frame of a peer that was never heard means nothing: when all servers are started together, the
        first ones wait for the others."""
        self.refused(3)
        self.receive(view_change(1, 3))
        self.receive(view_change(4, 3))
        self.advance(0.03)
        self.assertEqual(self.take(ViewChange), [view_change(2, 3)])

    def test_peer_that_has_spoken_since_is_not_gone(self) -> None:
        """A peer that has sent a message since its refusal was restarted, and is not taken for dead."""
        self.refused(3)
        self.receive(view_change(3, 1))
        self.preinstall(view=3)
        self.advance(0.5)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 3)})

    def test_old_refusal_is_forgotten(self) -> None:
        """A refusal that is long ago is forgotten: it says nothing about the peer's present state."""
        self.refused(3)
        self.advance(0.5)
        self.receive(view_change(1, 3))
        self.receive(view_change(4, 3))
        self.advance(0.5)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 1), view_change(2, 3)})

    def test_leader_does_not_hurry_for_others(self) -> None:
        """A leader does not suspect its view because the host of a follower has refused a frame."""
        self.lead(view=2)
        for server_id in (1, 3, 4, 5):
            self.refused(server_id)
        self.advance(0.1)
        self.assertIs(self.data.server.state, State.REG_LEADER)
