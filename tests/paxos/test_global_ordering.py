"""Figure 10 C4-D and Figure 11 B: from votes to execution, and what follows from it."""

from __future__ import annotations

from pfsb.paxos.messages import ReconciliationRequest, ViewChange
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import accept, alive, client_update, ordered, proposal, reply, view_change

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)
CAROL = client_update("carol", 1, server_id=2)


class OrderingTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def vote(self, seq: int, *updates: object) -> None:
        self.receive(proposal(1, 1, seq, *updates))  # type: ignore[arg-type]
        self.assertSent(accept(2, 1, seq))
        self.receive(accept(1, 1, seq))
        self.receive(accept(3, 1, seq))

    def test_slot_that_is_ordered_out_of_order_waits(self) -> None:
        """Figure 11 C: a slot that is ordered before an earlier one waits, since slots are executed in order."""
        self.vote(2, BOB)
        self.assertExecuted()
        self.vote(1, ALICE)
        self.assertExecuted([ALICE], [BOB])

    def test_all_ways_to_learn_of_a_slot_execute_it(self) -> None:
        """G13: a slot is executed in the same way whether it was learned by votes, by a data list or by
        reconciliation."""
        self.vote(2, BOB)
        self.receive(reply(4, ordered(4, 1, ALICE)))
        self.assertExecuted([ALICE], [BOB])

    def test_gap_is_filled_by_reconciliation(self) -> None:
        """Section 5.6, trigger 2: an update ordered out of order shows that something is missing (G24)."""
        self.receive(alive(4, 1, local_aru=2))
        self.vote(2, BOB)
        self.advance(0.05)
        self.assertSent(ReconciliationRequest(2, 1, 2), to=4)

    def test_execution_settles_what_this_server_answers_for(self) -> None:
        """Figure 10, Block D: when a pending update is executed, it is pending no more, and its timer sends nothing."""
        self.introduce(CAROL)
        self.assertSent(CAROL, to=1)
        self.vote(1, CAROL)
        self.assertEqual(self.data.clients.pending_updates, {})
        self.hear_leader(local_aru=1)
        self.advance(0.8)

    def test_execution_is_progress(self) -> None:
        """Figure 10, Block D: executing a slot restarts the Progress_Timer."""
        self.advance(0.6)
        self.vote(1, ALICE)
        self.advance(0.9)
        self.assertNothingSent()
        self.advance(0.2)
        self.assertIn(view_change(2, 2), self.take(ViewChange))

    def test_execution_in_an_election_starts_no_timer(self) -> None:
        """Figure 10, Block D: executing a slot in LEADER_ELECTION does not start the timer, which belongs to the
        preinstalled view."""
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.receive(reply(4, ordered(4, 1, ALICE)))
        self.assertExecuted([ALICE])
        self.assertFalse(self.replica.progress_timer.running)


class TimerValueTests(ReplicaTestCase):
    def test_value_is_back_at_the_default_after_an_update_ordered_in_this_view(self) -> None:
        """G8.2: after updates that were ordered in this view, the timer's length is back at the default, so that long
        past elections do not make the next one slower."""
        self.preinstall(view=1)
        self.follow(view=1)
        self.assertEqual(self.data.timers.progress_seconds, 2.0)
        self.order(1, ALICE)
        self.assertEqual(self.data.timers.progress_seconds, 1.0)

    def test_time_for_which_votes_may_have_been_kept_does_not_count(self) -> None:
        """Departures 25 and 48: while no client of this server waits, votes may be late, so `lazy_seconds` is left out
        of the measured time of a slot."""
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.receive(accept(3, 1, 1))
        self.advance(0.03)
        self.receive(accept(1, 1, 1))
        self.assertAlmostEqual(self.replica.slot_time.mean, 0.03 - self.settings.lazy_seconds)

    def test_time_of_a_slot_counts_whole_while_clients_wait(self) -> None:
        """While clients of this server wait, no server delays its vote, so the whole time of a slot is measured."""
        self.follow(view=1)
        self.introduce(CAROL)
        self.assertSent(CAROL, to=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.receive(accept(3, 1, 1))
        self.advance(0.03)
        self.receive(accept(1, 1, 1))
        self.assertAlmostEqual(self.replica.slot_time.mean, 0.03)

    def test_what_is_learned_of_the_past_does_not_reset_the_value(self) -> None:
        """G8.2: slots that were learned from the past do not shorten the timer: only slots that this view orders show
        that its leader can work."""
        self.preinstall(view=1)
        self.follow(view=1)
        self.receive(reply(4, ordered(4, 1, ALICE)))
        self.assertEqual(self.data.timers.progress_seconds, 2.0)


class LeftBehindTests(ReplicaTestCase):
    """A follower of a view that is over, kept alive by what it learns from the view that works."""

    def test_follower_fed_by_reconciliation_finds_the_view_that_works(self) -> None:
        """G8 d, G26: a follower of an old view that learns slots of a later one by reconciliation suspects its leader,
        and finds the view that works."""
        self.follow(view=1)
        for seq in range(1, 21):
            self.receive(alive(3, 3, self.data.server.state.REG_LEADER, local_aru=seq))
            self.receive(reply(3, ordered(3, seq, client_update("alice", seq))))
            self.advance(0.2)
        self.take(ReconciliationRequest)
        self.assertIn(view_change(2, 2), self.take(ViewChange))
