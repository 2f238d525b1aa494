"""Section 5.10 and design part 4, "Idle": the window, ALIVE, and when silence means nothing."""

from __future__ import annotations

from pfsb.paxos.messages import Alive, ClientUpdate, ReconciliationRequest, State, ViewChange
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import (
    accept,
    alive,
    client_update,
    ordered,
    prepare,
    proposal,
    reply,
    view_change,
)

FOREIGN = client_update("alice", 1, server_id=1)
OWN = client_update("carol", 1, server_id=2)


class WindowTests(ReplicaTestCase):
    def test_window_moves_with_local_aru(self) -> None:
        """Section 5.10: a majority is always within two windows of the newest proposal."""
        flow = self.replica.flow_control
        self.assertTrue(flow.may_propose(4))
        self.assertFalse(flow.may_propose(5))
        self.assertTrue(flow.may_accept(8))
        self.assertFalse(flow.may_accept(9))
        self.receive(reply(3, ordered(3, 1)))
        self.assertTrue(flow.may_propose(5))
        self.assertTrue(flow.may_accept(9))


class IdleFollowerTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def hear_for(self, seconds: float, *, local_aru: int = 0) -> None:
        """The leader's ALIVE comes all the time."""
        for _ in range(round(seconds / 0.2)):
            self.hear_leader(local_aru=local_aru)
            self.advance(0.2)

    def assertSuspects(self) -> None:
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertIn(view_change(2, 2), self.take(ViewChange))

    def test_idle_cluster_elects_nobody(self) -> None:
        """Scenario 11, G8 b: an ALIVE of the leader stands in for progress; nothing is written to disk."""
        before = self.storage.syncs
        self.hear_for(100)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.storage.syncs, before)

    def test_dead_leader_of_an_idle_cluster_is_suspected_within_a_timeout(self) -> None:
        """Scenario 11, G8: nobody has to wait for a client to notice."""
        self.hear_for(5)
        self.advance(1.0)
        self.assertSuspects()

    def test_alive_of_another_server_is_no_sign_of_the_leader(self) -> None:
        """Design part 4: the leader of this view only, and only while it leads."""
        for _ in range(6):
            self.receive(alive(3, 1), sender=3)
            self.receive(alive(1, 1, State.LEADER_ELECTION), sender=1)
            self.receive(alive(1, 6, State.REG_LEADER), sender=1)
            self.advance(0.2)
        self.assertSuspects()

    def test_own_update_that_waits_ends_the_idleness(self) -> None:
        """Design part 4: a leader that says it is alive and orders nothing is of no use."""
        self.introduce(OWN)
        self.hear_for(1.4)
        self.take(ClientUpdate)
        self.assertSuspects()

    def test_witnessed_update_that_waits_ends_the_idleness(self) -> None:
        """G8 c, G8.3: it takes a majority of suspects to replace a leader that does not serve one client."""
        for _ in range(7):
            self.receive(FOREIGN, sender=1)
            self.hear_leader()
            self.advance(0.2)
        self.assertSuspects()

    def test_witnessed_update_is_forgotten_when_its_origin_falls_silent(self) -> None:
        """Its client gave up; the others need not suspect anybody for its sake for ever."""
        self.receive(FOREIGN, sender=1)
        self.assertTrue(self.replica.flow_control.knows_of_unexecuted_update())
        for _ in range(2):
            self.receive(reply(3, ordered(3, self.data.ordering.local_aru + 1)))
            self.advance(0.9)
        self.hear_leader()
        self.advance(0.3)
        self.assertFalse(self.replica.flow_control.knows_of_unexecuted_update())
        self.take(ViewChange)

    def test_witnessed_update_is_settled_by_its_execution(self) -> None:
        """Design part 4: unexecuted is what counts."""
        self.receive(FOREIGN, sender=1)
        self.receive(reply(3, ordered(3, 1, FOREIGN)))
        self.assertFalse(self.replica.flow_control.knows_of_unexecuted_update())

    def test_update_that_has_run_is_not_witnessed(self) -> None:
        """G16: a late copy is no news."""
        self.receive(reply(3, ordered(3, 1, FOREIGN)))
        self.receive(FOREIGN, sender=1)
        self.assertFalse(self.replica.flow_control.knows_of_unexecuted_update())

    def test_accepted_update_that_waits_ends_the_idleness(self) -> None:
        """Design part 4: a leader whose proposals are not ordered makes no progress."""
        self.receive(proposal(1, 1, 1, FOREIGN))
        self.assertSent(accept(2, 1, 1))
        self.hear_for(1.2)
        self.assertSuspects()

    def test_leftover_of_an_older_view_does_not_count(self) -> None:
        """If it was chosen, the leader of this view proposes it again, and it counts then."""
        self.receive(proposal(1, 1, 1, FOREIGN))
        self.assertSent(accept(2, 1, 1))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.follow(view=3)
        self.assertFalse(self.replica.flow_control.knows_of_unexecuted_update())

    def test_higher_aru_elsewhere_ends_the_idleness(self) -> None:
        """Design part 4: others have executed what this server has not."""
        self.hear_for(1.2, local_aru=5)
        self.take(ReconciliationRequest)
        self.assertSuspects()

    def test_witnessed_updates_do_not_pile_up_on_a_busy_server(self) -> None:
        """Every table has a bound: what has expired is dropped even while other updates wait all the time."""
        self.introduce(OWN)
        self.assertSent(OWN, to=1)
        for n in range(20):
            self.receive(client_update(f"visitor{n}", 1, server_id=1), sender=1)
        for _ in range(6):
            self.receive(reply(3, ordered(3, self.data.ordering.local_aru + 1)))
            self.advance(0.5)
            self.take(ClientUpdate)
        self.assertEqual(len(self.replica.flow_control._foreign_updates), 0)


class LeaderTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.lead(view=2)

    def hear(self, seconds: float, *peers: Alive) -> None:
        for _ in range(round(seconds / 0.2)):
            for message in peers:
                self.receive(message)
            self.advance(0.2)

    def test_leader_that_hears_a_majority_stays(self) -> None:
        """Design part 4: an idle leader lives on the ALIVE of a majority, itself included."""
        self.hear(20, alive(1, 2), alive(3, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_leader_that_hears_too_few_suspects_itself(self) -> None:
        """Design part 4: cut off with a minority it would keep its clients waiting."""
        self.hear(4, alive(1, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertIn(view_change(2, 3), self.take(ViewChange))

    def test_servers_in_other_views_or_in_an_election_do_not_count(self) -> None:
        """They follow somebody else, or nobody."""
        self.hear(4, alive(1, 2), alive(3, 2, State.LEADER_ELECTION), alive(4, 1), alive(5, 3))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.take(ViewChange)

    def test_any_message_shows_that_its_sender_is_there(self) -> None:
        """ALIVE tells the view; votes tell that it still stands."""
        self.hear(0.2, alive(1, 2), alive(3, 2))
        for _ in range(15):
            self.receive(accept(1, 2, 1))
            self.receive(accept(3, 2, 1))
            self.advance(0.2)
        self.assertIs(self.data.server.state, State.REG_LEADER)


class AliveTests(ReplicaTestCase):
    ignore_periodic = False

    def after_start(self) -> None:
        self.take(Alive)

    def test_alive_while_a_view_is_being_installed_promises_nothing(self) -> None:
        """paper.md 6.3: until the view is on disk this server is in no view."""
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

    def test_arus_heard_only_grow(self) -> None:
        """ALIVE messages overtake each other."""
        self.receive(alive(3, 1, local_aru=5))
        self.receive(alive(3, 1, local_aru=4))
        self.assertEqual(self.replica.flow_control.peers[3].local_aru, 5)


class RefusalTests(ReplicaTestCase):
    """Departure 11: a dead peer is often known at once."""

    def refused(self, server_id: int) -> None:
        self.replica.peer_refused(server_id)
        self._after_event()

    def test_refusal_of_the_leader_hurries_the_suspicion(self) -> None:
        """Design part 4: what is left of the timer is cut to a small random delay."""
        self.follow(view=1)
        self.refused(1)
        self.advance(0.03)
        self.assertIn(view_change(2, 2), self.take(ViewChange))

    def test_refusal_of_another_server_means_nothing(self) -> None:
        """Only the leader is waited for."""
        self.follow(view=1)
        self.refused(3)
        self.advance(0.9)
        self.assertNothingSent()

    def test_refusal_during_an_election_installs_nothing(self) -> None:
        """Only a hint, never a reason to install anything, nor to attempt anything without a timer."""
        self.refused(1)
        self.advance(0.05)
        self.assertEqual(self.data.views.last_attempted, 1)
        self.assertEqual(self.storage.records, [])

    def test_leader_of_a_preinstalled_view_that_is_dead_is_passed_over(self) -> None:
        """Design part 4: the same for the leader of a view just preinstalled."""
        self.refused(3)
        self.receive(view_change(1, 3))
        self.receive(view_change(4, 3))
        self.advance(0.03)
        self.assertEqual(self.take(ViewChange), [view_change(2, 3), view_change(2, 4)])

    def test_peer_that_has_spoken_since_is_not_gone(self) -> None:
        """It was restarted."""
        self.refused(3)
        self.receive(view_change(3, 1))
        self.preinstall(view=3)
        self.advance(0.5)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 3)})

    def test_old_refusal_is_forgotten(self) -> None:
        """It says how things were then."""
        self.refused(3)
        self.advance(0.5)
        self.receive(view_change(1, 3))
        self.receive(view_change(4, 3))
        self.advance(0.5)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 1), view_change(2, 3)})

    def test_leader_does_not_hurry_for_others(self) -> None:
        """A refused follower is no reason to leave one's own view."""
        self.lead(view=2)
        for server_id in (1, 3, 4, 5):
            self.refused(server_id)
        self.advance(0.1)
        self.assertIs(self.data.server.state, State.REG_LEADER)
