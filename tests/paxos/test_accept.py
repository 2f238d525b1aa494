"""Figure 10 C: votes."""

from __future__ import annotations

from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from pfsb.paxos.records import OrderedRecord, ProposalRecord
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import accept, batch, client_update, ordered, proposal, reply, view_change

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


class AcceptTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.log: list[LogEvent] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)
        self.follow(view=1)

    def propose(self, seq: int, *updates: object) -> None:
        self.receive(proposal(1, 1, seq, *updates))  # type: ignore[arg-type]
        self.assertSent(accept(2, 1, seq))

    def test_majority_orders_and_executes(self) -> None:
        """Figure 10, Block C: three of five, this server among them (G14)."""
        self.propose(1, ALICE)
        self.receive(accept(3, 1, 1))
        self.assertExecuted()
        self.receive(accept(1, 1, 1))
        self.assertExecuted([ALICE])

    def test_one_message_votes_for_several_numbers(self) -> None:
        """Section 7.3: one ACCEPT lists the sequence numbers."""
        self.propose(1, ALICE)
        self.propose(2, BOB)
        self.receive(accept(1, 1, 1, 2))
        self.receive(accept(3, 1, 1, 2))
        self.assertExecuted([ALICE], [BOB])

    def test_repeated_vote_counts_once(self) -> None:
        """Figure 5 E: distinct servers."""
        self.propose(1, ALICE)
        self.receive(accept(3, 1, 1))
        self.receive(accept(3, 1, 1))
        self.assertExecuted()

    def test_votes_of_different_views_do_not_add_up(self) -> None:
        """G17: never count an ACCEPT of one view for the proposal of another."""
        self.propose(1, ALICE)
        self.receive(accept(3, 2, 1))
        self.receive(accept(4, 3, 1))
        self.assertExecuted()

    def test_votes_for_a_view_that_is_not_installed_yet_count_in_it(self) -> None:
        """G17: they are kept by view until this server gets there."""
        self.receive(accept(3, 3, 1, of=[batch(ALICE)]))
        self.receive(accept(4, 3, 1, of=[batch(ALICE)]))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.follow(view=3)
        self.receive(proposal(3, 3, 1, ALICE))
        self.assertSent(accept(2, 3, 1))
        self.assertExecuted([ALICE])

    def test_vote_for_another_batch_does_not_count(self) -> None:
        """Departure 39: one bit of the PROPOSAL was wrong at this server, so the others vote for another batch."""
        self.propose(1, ALICE)
        for voter in (1, 3, 4, 5):
            self.receive(accept(voter, 1, 1, of=[batch(BOB)]))
        self.assertExecuted()
        self.assertEqual(self.replica.ordering.contradictions, 4)
        [event] = [event for event in self.log if event["log_level"] is LogLevel.error]
        self.assertEqual((event["server"], event["seq"], event["view"]), (1, 1, 1))

    def test_server_that_holds_the_wrong_batch_gets_the_right_one_by_reconciliation(self) -> None:
        """Departure 39: what the others have ordered replaces what this server holds, on disk, too."""
        self.propose(1, ALICE)
        for voter in (1, 3, 4):
            self.receive(accept(voter, 1, 1, of=[batch(BOB)]))
        self.take_records(OrderedRecord)
        self.receive(reply(3, ordered(3, 1, BOB)))
        self.assertExecuted([BOB])
        self.assertEqual(self.take_records(OrderedRecord), [OrderedRecord(1, batch(BOB))])

    def test_votes_for_another_batch_that_came_before_the_proposal_do_not_count(self) -> None:
        """G17, Departure 39: a vote that waits for its proposal waits with the name of its batch."""
        self.receive(accept(3, 1, 1, of=[batch(ALICE)]))
        self.receive(accept(4, 1, 1, of=[batch(BOB)]))
        self.propose(1, ALICE)
        self.assertExecuted()
        self.assertEqual(self.replica.ordering.contradictions, 1)
        self.receive(accept(5, 1, 1, of=[batch(ALICE)]))
        self.assertExecuted([ALICE])

    def test_repeated_proposal_with_another_batch_is_answered_with_the_vote_that_was_given(self) -> None:
        """Departure 39: a server votes for one batch in one view and slot, the one that is on its disk."""
        self.propose(1, ALICE)
        self.take_records(ProposalRecord)
        self.receive(proposal(1, 1, 1, BOB))
        self.assertSent(accept(2, 1, 1, of=[batch(ALICE)]))
        self.assertEqual(self.take_records(ProposalRecord), [])
        self.assertEqual(self.replica.ordering.contradictions, 1)

    def test_vote_for_an_executed_number_is_of_no_use(self) -> None:
        """G12: a late vote does not make its slot anew."""
        self.order(1, ALICE)
        self.receive(accept(5, 1, 1))
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual(slot.voters, {})

    def test_vote_for_an_ordered_number_is_of_no_use(self) -> None:
        """Figure 5 E: ignored if the slot is ordered."""
        self.receive(reply(3, ordered(3, 2, BOB)))
        self.receive(accept(5, 1, 2))
        slot = self.data.ordering.global_history.get(2)
        assert slot is not None
        self.assertEqual(slot.voters, {})

    def test_vote_beyond_the_window_makes_no_slot(self) -> None:
        """G17: votes are kept inside the window only; what a stranger could send is bounded."""
        self.receive(accept(3, 1, 8, 9, 1_000_000))
        self.assertEqual(set(self.data.ordering.global_history.slots), {8})

    def test_votes_alone_order_nothing(self) -> None:
        """Figure 11 B: the slot must hold the proposal."""
        for voter in (1, 3, 4, 5):
            self.receive(accept(voter, 1, 1))
        self.assertExecuted()
        self.assertEqual(self.data.ordering.local_aru, 0)

    def test_server_in_an_election_still_counts_votes(self) -> None:
        """Section 5.4: to learn what was chosen is safe in any state, and keeps a suspect from falling behind."""
        self.propose(1, ALICE)
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.receive(accept(1, 1, 1))
        self.receive(accept(3, 1, 1))
        self.assertExecuted([ALICE])


class ThreeServerTests(ReplicaTestCase):
    servers = (1, 2, 3)

    def test_follower_orders_while_another_follower_is_down(self) -> None:
        """Scenario 1, G14: the leader's vote and one's own are a majority of three."""
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.receive(accept(1, 1, 1))
        self.assertExecuted([ALICE])


class FourServerTests(ReplicaTestCase):
    servers = (1, 2, 3, 4)

    def test_half_of_the_servers_is_no_majority(self) -> None:
        """Scenario 13, G27: with four servers three must vote."""
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.receive(accept(1, 1, 1))
        self.assertExecuted()
        self.receive(accept(4, 1, 1))
        self.assertExecuted([ALICE])
