"""Figure 10, Block C: how ACCEPTs are counted, and when they order a slot."""

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
        """Figure 10, Block C: the votes of three of five servers, this one included (G14), order a slot, which is
        executed."""
        self.propose(1, ALICE)
        self.receive(accept(3, 1, 1))
        self.assertExecuted()
        self.receive(accept(1, 1, 1))
        self.assertExecuted([ALICE])

    def test_one_message_votes_for_several_numbers(self) -> None:
        """Section 7.3: one ACCEPT votes for several sequence numbers."""
        self.propose(1, ALICE)
        self.propose(2, BOB)
        self.receive(accept(1, 1, 1, 2))
        self.receive(accept(3, 1, 1, 2))
        self.assertExecuted([ALICE], [BOB])

    def test_repeated_vote_counts_once(self) -> None:
        """Figure 5 E: a repeated vote counts once, since distinct servers are counted."""
        self.propose(1, ALICE)
        self.receive(accept(3, 1, 1))
        self.receive(accept(3, 1, 1))
        self.assertExecuted()

    def test_votes_of_different_views_do_not_add_up(self) -> None:
        """G17: ACCEPTs of one view are never counted for the proposal of another."""
        self.propose(1, ALICE)
        self.receive(accept(3, 2, 1))
        self.receive(accept(4, 3, 1))
        self.assertExecuted()

    def test_votes_for_a_view_that_is_not_installed_yet_count_in_it(self) -> None:
        """G17: votes for a view that is not installed yet are kept, and count once this server has installed it."""
        self.receive(accept(3, 3, 1, of=[batch(ALICE)]))
        self.receive(accept(4, 3, 1, of=[batch(ALICE)]))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.follow(view=3)
        self.receive(proposal(3, 3, 1, ALICE))
        self.assertSent(accept(2, 3, 1))
        self.assertExecuted([ALICE])

    def test_vote_for_another_batch_does_not_count(self) -> None:
        """Departure 39: a vote for another batch does not count: here one bit of the PROPOSAL was wrong at this
        server."""
        self.propose(1, ALICE)
        for voter in (1, 3, 4, 5):
            self.receive(accept(voter, 1, 1, of=[batch(BOB)]))
        self.assertExecuted()
        self.assertEqual(self.replica.ordering.contradictions, 4)
        [event] = [event for event in self.log if event["log_level"] is LogLevel.error]
        self.assertEqual((event["server"], event["seq"], event["view"]), (1, 1, 1))

    def test_server_that_holds_the_wrong_batch_gets_the_right_one_by_reconciliation(self) -> None:
        """Departure 39: the batch that the others have ordered replaces, by reconciliation, the wrong one that this
        server holds, on disk, too."""
        self.propose(1, ALICE)
        for voter in (1, 3, 4):
            self.receive(accept(voter, 1, 1, of=[batch(BOB)]))
        self.take_records(OrderedRecord)
        self.receive(reply(3, ordered(3, 1, BOB)))
        self.assertExecuted([BOB])
        self.assertEqual(self.take_records(OrderedRecord), [OrderedRecord(1, batch(BOB))])

    def test_votes_for_another_batch_that_came_before_the_proposal_do_not_count(self) -> None:
        """G17, Departure 39: votes for another batch that came before the proposal do not count, since a vote is kept
        with the digest of its batch."""
        self.receive(accept(3, 1, 1, of=[batch(ALICE)]))
        self.receive(accept(4, 1, 1, of=[batch(BOB)]))
        self.propose(1, ALICE)
        self.assertExecuted()
        self.assertEqual(self.replica.ordering.contradictions, 1)
        self.receive(accept(5, 1, 1, of=[batch(ALICE)]))
        self.assertExecuted([ALICE])

    def test_repeated_proposal_with_another_batch_is_answered_with_the_vote_that_was_given(self) -> None:
        """Departure 39: a repeated proposal with another batch is answered with the vote that was given before, for the
        batch on this server's disk."""
        self.propose(1, ALICE)
        self.take_records(ProposalRecord)
        self.receive(proposal(1, 1, 1, BOB))
        self.assertSent(accept(2, 1, 1, of=[batch(ALICE)]))
        self.assertEqual(self.take_records(ProposalRecord), [])
        self.assertEqual(self.replica.ordering.contradictions, 1)

    def test_vote_for_an_executed_number_is_of_no_use(self) -> None:
        """G12: a vote for an executed slot does not create its slot anew."""
        self.order(1, ALICE)
        self.receive(accept(5, 1, 1))
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual(slot.voters, {})

    def test_vote_for_an_ordered_number_is_of_no_use(self) -> None:
        """Figure 5 E: a vote for a slot that is ordered is ignored."""
        self.receive(reply(3, ordered(3, 2, BOB)))
        self.receive(accept(5, 1, 2))
        slot = self.data.ordering.global_history.get(2)
        assert slot is not None
        self.assertEqual(slot.voters, {})

    def test_vote_beyond_the_window_makes_no_slot(self) -> None:
        """G17: a vote for a slot beyond the window is not kept, so that votes which any server could send take bounded
        memory."""
        self.receive(accept(3, 1, 8, 9, 1_000_000))
        self.assertEqual(set(self.data.ordering.global_history.slots), {8})

    def test_votes_alone_order_nothing(self) -> None:
        """Figure 11 B: votes alone do not order a slot, which must hold the proposal."""
        for voter in (1, 3, 4, 5):
            self.receive(accept(voter, 1, 1))
        self.assertExecuted()
        self.assertEqual(self.data.ordering.local_aru, 0)

    def test_server_in_an_election_still_counts_votes(self) -> None:
        """Section 5.4: a server in an election still counts votes and orders: that is safe in any state, and keeps it
        from falling behind."""
        self.propose(1, ALICE)
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.receive(accept(1, 1, 1))
        self.receive(accept(3, 1, 1))
        self.assertExecuted([ALICE])


class ThreeServerTests(ReplicaTestCase):
    servers = (1, 2, 3)

    def test_follower_orders_while_another_follower_is_down(self) -> None:
        """Scenario 1, G14: of three servers, a follower orders with the leader's vote and its own while the other
        follower is down."""
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.receive(accept(1, 1, 1))
        self.assertExecuted([ALICE])


class FourServerTests(ReplicaTestCase):
    servers = (1, 2, 3, 4)

    def test_half_of_the_servers_is_no_majority(self) -> None:
        """Scenario 13, G27: of four servers, three must vote to order a slot."""
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, ALICE))
        self.assertSent(accept(2, 1, 1))
        self.receive(accept(1, 1, 1))
        self.assertExecuted()
        self.receive(accept(4, 1, 1))
        self.assertExecuted([ALICE])
