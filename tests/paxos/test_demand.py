"""Departure 10: while nothing waits to be executed, an ALIVE of the leader counts as progress."""

from __future__ import annotations

from pfsb.paxos.messages import ClientUpdate, ReconciliationRequest, State, ViewChange
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import (
    accept,
    alive,
    client_update,
    ordered,
    proposal,
    reply,
    view_change,
)

FOREIGN = client_update("alice", 1, server_id=1)
OWN = client_update("carol", 1, server_id=2)


class IdleFollowerTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def hear_for(self, seconds: float, *, local_aru: int = 0) -> None:
        """Let time pass in which the leader's ALIVE comes in every period."""
        for _ in range(round(seconds / 0.2)):
            self.hear_leader(local_aru=local_aru)
            self.advance(0.2)

    def assertSuspects(self) -> None:
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertIn(view_change(2, 2), self.take(ViewChange))

    def test_idle_cluster_elects_nobody(self) -> None:
        """Scenario 11, G8 b: in an idle cluster an ALIVE of the leader counts as progress, so no election begins and
        nothing is written to disk."""
        before = self.storage.syncs
        self.hear_for(100)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.storage.syncs, before)

    def test_dead_leader_of_an_idle_cluster_is_suspected_within_a_timeout(self) -> None:
        """Scenario 11, G8: the death of an idle cluster's leader is noticed within one timeout, without any client's
        request."""
        self.hear_for(5)
        self.advance(1.0)
        self.assertSuspects()

    def test_alive_of_another_server_is_no_sign_of_the_leader(self) -> None:
        """Departure 10: only an ALIVE of this view's leader counts as progress, and only while it leads."""
        for _ in range(6):
            self.receive(alive(3, 1), sender=3)
            self.receive(alive(1, 1, State.LEADER_ELECTION), sender=1)
            self.receive(alive(1, 6, State.REG_LEADER), sender=1)
            self.advance(0.2)
        self.assertSuspects()

    def test_own_update_that_waits_ends_the_idleness(self) -> None:
        """Departure 10: a leader that sends ALIVE and does not order a pending update of this server is suspected."""
        self.introduce(OWN)
        self.hear_for(1.4)
        self.take(ClientUpdate)
        self.assertSuspects()

    def test_witnessed_update_that_waits_ends_the_idleness(self) -> None:
        """G8 c, G8.3: a leader that does not order an update which other servers know to wait is suspected: only a
        majority that suspects it can replace it."""
        for _ in range(7):
            self.receive(FOREIGN, sender=1)
            self.hear_leader()
            self.advance(0.2)
        self.assertSuspects()

    def test_witnessed_update_is_forgotten_when_its_origin_falls_silent(self) -> None:
        """A foreign update whose server has stopped repeating it is forgotten, so that the others do not suspect their
        leader because of it for ever."""
        self.receive(FOREIGN, sender=1)
        self.assertTrue(self.replica.demand.knows_of_unexecuted_update())
        for _ in range(2):
            self.receive(reply(3, ordered(3, self.data.ordering.local_aru + 1)))
            self.advance(0.9)
        self.hear_leader()
        self.advance(0.3)
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())
        self.take(ViewChange)

    def test_witnessed_update_is_remembered_as_long_as_the_timer_lasts(self) -> None:
        """A foreign update is remembered as long as the Progress_Timer lasts, so that ALIVEs do not restart a long
        timer as soon as a few copies of the update are lost."""
        self.data.timers.progress_seconds = 8.0
        self.hear_leader()
        self.receive(FOREIGN, sender=1)
        self.hear_for(8.2)
        self.assertSuspects()

    def test_witnessed_update_is_settled_by_its_execution(self) -> None:
        """Departure 10: a foreign update that was executed no longer counts as waiting."""
        self.receive(FOREIGN, sender=1)
        self.receive(reply(3, ordered(3, 1, FOREIGN)))
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())

    def test_update_that_has_run_is_not_witnessed(self) -> None:
        """G16: a late copy of an executed update does not count as waiting."""
        self.receive(reply(3, ordered(3, 1, FOREIGN)))
        self.receive(FOREIGN, sender=1)
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())

    def test_accepted_update_that_waits_ends_the_idleness(self) -> None:
        """Departure 10: a leader whose accepted proposals are not ordered makes no progress."""
        self.receive(proposal(1, 1, 1, FOREIGN))
        self.assertSent(accept(2, 1, 1))
        self.hear_for(1.2)
        self.assertSuspects()

    def test_leftover_of_an_older_view_does_not_count(self) -> None:
        """A proposal of an older view counts as waiting only when the leader of this view proposes it again."""
        self.receive(proposal(1, 1, 1, FOREIGN))
        self.assertSent(accept(2, 1, 1))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.follow(view=3)
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())

    def test_higher_aru_elsewhere_ends_the_idleness(self) -> None:
        """Departure 10: if another server has executed slots that this one lacks, an ALIVE of the leader is no
        progress."""
        self.hear_for(1.2, local_aru=5)
        self.take(ReconciliationRequest)
        self.assertSuspects()

    def test_witnessed_updates_do_not_pile_up_on_a_busy_server(self) -> None:
        """Foreign updates that have expired are dropped even while other updates wait all the time, so that their
        number is bounded."""
        self.introduce(OWN)
        self.assertSent(OWN, to=1)
        for n in range(20):
            self.receive(client_update(f"visitor{n}", 1, server_id=1), sender=1)
        for _ in range(6):
            self.receive(reply(3, ordered(3, self.data.ordering.local_aru + 1)))
            self.advance(0.5)
            self.take(ClientUpdate)
        self.assertEqual(len(self.replica.demand.foreign_updates), 0)
