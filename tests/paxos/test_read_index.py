"""Departure 24: linearizable reads without the log."""

from __future__ import annotations

from functools import partial

from attrs import evolve

from pfsb.paxos.messages import Accept, Confirm, Confirmed, Prepare, Proposal, ReadIndex, ReadRequest, ViewChange
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import accept, client_update, proposal, view_change

ALICE = client_update("alice", 1)


class ReadTestCase(ReplicaTestCase):
    settings = evolve(SMALL, progress_seconds=20.0)

    def setUp(self) -> None:
        self.told: list[tuple[str, bool]] = []
        super().setUp()

    def read(self, name: str = "x") -> None:
        """Let a client of this server ask for a read."""
        self.read_together(name)

    def read_together(self, *names: str) -> None:
        """Let clients of this server ask for reads, in one turn."""
        reads = [partial(self.tell, name) for name in names]
        self.replica.perform(self.replica.reads.begin_reads, reads)
        self._after_event()

    def tell(self, name: str, is_certain: bool) -> None:
        self.told.append((name, is_certain))

    def request(self, count: int) -> ReadRequest:
        """The number of this server's `count`th request in its first incarnation."""
        return ReadRequest(self.server_id, (1 << 32) + count)


class LeaderTests(ReadTestCase):
    """Server 2 leads view 2 of five servers."""

    def after_start(self) -> None:
        self.lead(2)

    def confirm(self, *servers: int, number: int = 1, view: int = 2) -> None:
        for server_id in servers:
            self.receive(Confirmed(server_id, view, number))

    def test_read_waits_for_a_majority_that_still_follows(self) -> None:
        """A read waits until three of five servers, the leader among them, still follow; nothing is proposed, and
        nothing written."""
        self.storage.records.clear()
        self.read()
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3)
        self.assertEqual(self.told, [])
        self.confirm(4)
        self.assertEqual(self.told, [("x", True)])
        self.assertNotSent(Proposal)
        self.assertEqual(self.storage.records, [])

    def test_one_server_confirms_once(self) -> None:
        self.read()
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3, 3, 3)
        self.assertEqual(self.told, [])

    def test_what_was_confirmed_before_the_read_was_asked_does_not_count(self) -> None:
        """A CONFIRMED of a round that began before the read was asked does not count: another leader may have been
        elected since, and have answered a write."""
        self.read("first")
        self.read("second")
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3, 4)
        self.assertEqual(self.told, [("first", True)])
        self.assertSent(Confirm(2, 2, 2))
        self.confirm(5, 1, number=1)
        self.assertEqual(self.told, [("first", True)])
        self.confirm(5, 1, number=2)
        self.assertEqual(self.told, [("first", True), ("second", True)])

    def test_reads_that_begin_together_share_the_first_round(self) -> None:
        """Reads that begin together share the first round of CONFIRM; none waits for a second one."""
        self.read_together("first", "second", "third")
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3, 4)
        self.assertEqual(self.told, [("first", True), ("second", True), ("third", True)])
        self.assertNotSent(Confirm)

    def test_many_reads_share_one_round(self) -> None:
        """Reads that come while a round is under way share the next one."""
        for name in "abcdef":
            self.read(name)
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3, 4)
        self.assertSent(Confirm(2, 2, 2))
        self.confirm(3, 4, number=2)
        self.assertEqual([name for name, _ in self.told], list("abcdef"))
        self.assertNotSent(Confirm)

    def test_read_waits_for_what_is_proposed_already(self) -> None:
        """A read waits for slots that are proposed already: a follower may count a majority, and answer, before the
        leader does."""
        self.introduce(ALICE)
        self.assertEqual([message.seq for message in self.take(Proposal)], [1])
        self.assertSent(accept(2, 2, 1))
        self.read()
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3, 4)
        self.assertEqual(self.told, [])
        self.receive(accept(3, 2, 1))
        self.receive(accept(4, 2, 1))
        self.assertExecuted([ALICE])
        self.assertEqual(self.told, [("x", True)])

    def test_answer_waits_behind_the_gate(self) -> None:
        """Departure 1: the answer to a read that rests on this server's own vote leaves when the vote is on disk."""
        answers: list[bool] = []
        self.introduce(ALICE)
        self.take(Proposal)
        self.take(Accept)
        self.hold_syncs = True
        self.introduce(client_update("bob", 1))
        self.take(Proposal)
        read = self.replica.reads.begin_reads
        self.replica.perform(read, [lambda is_certain: self.replica.turn.call(answers.append, is_certain)])
        self.assertEqual(self.take(Confirm), [], "it waits behind the records of slot 2")
        self.storage.finish_all()
        self.assertSent(Confirm(2, 2, 1))
        for seq in (1, 2):
            self.receive(accept(3, 2, seq))
            self.receive(accept(4, 2, seq))
        self.introduce(client_update("bob", 2))
        self.take(Proposal)
        self.confirm(3, 4)
        self.assertEqual(answers, [])
        self.storage.finish_all()
        self.take(Accept)
        self.assertEqual(answers, [True])

    def test_deposed_leader_answers_nothing(self) -> None:
        """A deposed leader answers no reads of its round: a CONFIRMED that arrives later has no effect."""
        self.read()
        self.assertSent(Confirm(2, 2, 1))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 3))
        self.confirm(3, 4, 5)
        self.assertEqual(self.told, [])

    def test_leader_that_is_no_longer_followed_answers_nothing(self) -> None:
        """A leader that no server confirms any more answers nothing; after the time of an Update_Timer its reads go
        through the log."""
        self.read()
        self.advance(self.settings.update_seconds + self.settings.resend_seconds)
        self.assertEqual(self.told, [("x", False)])
        self.assertGreater(len(self.take(Confirm)), 2)

    def test_lost_question_is_asked_again(self) -> None:
        """Section 5.9: a CONFIRM that is lost is sent again."""
        self.read()
        self.assertSent(Confirm(2, 2, 1))
        self.advance(self.settings.resend_seconds)
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3, 4)
        self.advance(1.0)
        self.assertNotSent(Confirm)

    def test_followers_request_gets_its_index(self) -> None:
        """A READ_REQUEST of a follower gets its index; if it is repeated, since the answer was lost, it gets a round of
        its own."""
        self.receive(ReadRequest(4, 77))
        self.assertSent(Confirm(2, 2, 1))
        self.confirm(3, 4)
        self.assertSent(ReadIndex(2, 77, 0), to=4)
        self.receive(ReadRequest(4, 77))
        self.assertSent(Confirm(2, 2, 2))
        self.confirm(3, 4, number=2)
        self.assertSent(ReadIndex(2, 77, 0), to=4)


class NewLeaderTests(ReadTestCase):
    def test_new_leader_waits_for_all_that_it_prepared(self) -> None:
        """A new leader answers a read only when all slots that it has prepared are executed: they include all that
        older views have chosen and answered."""
        self.lead(2, proposal(1, 1, 1, ALICE))
        self.assertEqual([message.seq for message in self.take(Proposal)], [1])
        self.assertSent(accept(2, 2, 1))
        self.read()
        self.assertSent(Confirm(2, 2, 1))
        for server_id in (3, 4):
            self.receive(Confirmed(server_id, 2, 1))
        self.assertEqual(self.told, [])
        for server_id in (3, 4):
            self.receive(accept(server_id, 2, 1))
        self.assertEqual(self.told, [("x", True)])

    def test_leader_to_be_answers_nobody(self) -> None:
        """A server whose view is not prepared yet ignores READ_REQUESTs; the server that asks repeats them."""
        self.begin_prepare_phase(2)
        self.receive(ReadRequest(4, 77))
        self.read()
        self.assertNotSent(Confirm)
        self.assertNotSent(ReadRequest)


class FollowerTests(ReadTestCase):
    """Server 2 follows server 1 in view 1."""

    def after_start(self) -> None:
        self.follow(view=1)

    def go_on_to(self, view: int) -> None:
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.follow(view)

    def test_leader_is_asked_and_its_index_waited_for(self) -> None:
        self.read()
        self.assertSent(self.request(1), to=1)
        self.receive(ReadIndex(1, self.request(1).number, 1))
        self.assertEqual(self.told, [])
        self.order(1, ALICE)
        self.assertEqual(self.told, [("x", True)])

    def test_reads_that_come_later_are_not_in_the_request(self) -> None:
        """A read that comes after a READ_REQUEST was sent is not answered by its index, which may be too old."""
        self.read("first")
        self.read("second")
        self.assertSent(self.request(1), to=1)
        self.receive(ReadIndex(1, self.request(1).number, 0))
        self.assertEqual(self.told, [("first", True)])
        self.assertSent(self.request(2), to=1)
        self.receive(ReadIndex(1, self.request(1).number, 0))
        self.assertEqual(self.told, [("first", True)])
        self.receive(ReadIndex(1, self.request(2).number, 0))
        self.assertEqual(self.told, [("first", True), ("second", True)])

    def test_requests_of_two_lives_have_different_numbers(self) -> None:
        """READ_REQUESTs of two incarnations have different numbers: an answer to one of a former incarnation says
        nothing about present reads."""
        self.data.server.incarnation = 2
        self.read()
        self.assertEqual([message.number for message in self.take(ReadRequest)], [(2 << 32) + 1])

    def test_lost_request_is_sent_again_with_its_number(self) -> None:
        self.read()
        self.assertSent(self.request(1), to=1)
        self.advance(self.settings.resend_seconds)
        self.assertSent(self.request(1), to=1)

    def test_new_leader_is_asked(self) -> None:
        """When the view has changed, a READ_REQUEST is sent to the new leader."""
        self.read()
        self.assertSent(self.request(1), to=1)
        self.go_on_to(view=3)
        self.advance(self.settings.resend_seconds)
        self.assertSent(self.request(1), to=3)

    def test_request_that_nobody_answers_is_given_up(self) -> None:
        """A READ_REQUEST that is not answered is given up, and the reads go through the log: an update reaches, by way
        of others, a leader that this server cannot reach (G8.3)."""
        self.read()
        self.advance(self.settings.update_seconds + self.settings.resend_seconds)
        self.assertEqual(self.told, [("x", False)])
        self.take(ReadRequest)
        self.advance(1.0)
        self.assertNotSent(ReadRequest)

    def test_index_that_is_not_reached_is_given_up(self) -> None:
        """A read whose index is not reached in time goes through the log, which is no slower then, and shows other
        servers that an update waits."""
        self.read()
        self.assertSent(self.request(1), to=1)
        self.receive(ReadIndex(1, self.request(1).number, 9))
        self.advance(self.settings.update_seconds + self.settings.resend_seconds)
        self.assertEqual(self.told, [("x", False)])

    def test_follower_confirms_its_leader(self) -> None:
        """A follower answers CONFIRM of its leader, and also a repeated one."""
        for _ in range(2):
            self.receive(Confirm(1, 1, 5))
            self.assertSent(Confirmed(2, 1, 5), to=1)

    def test_whoever_follows_another_view_confirms_nothing(self) -> None:
        """A server that follows another view does not answer CONFIRM, be the view of it older or later."""
        self.go_on_to(view=3)
        self.receive(Confirm(1, 1, 5))
        self.receive(Confirm(4, 4, 5))
        self.assertNotSent(Confirmed)

    def test_whoever_elects_confirms_nothing(self) -> None:
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.receive(Confirm(1, 1, 5))
        self.assertNotSent(Confirmed)

    def test_read_while_nobody_leads_waits_for_who_will(self) -> None:
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.read()
        self.assertNotSent(ReadRequest)
        self.follow(view=3)
        self.advance(self.settings.resend_seconds)
        self.assertSent(self.request(1), to=3)


class AloneTests(ReadTestCase):
    servers = (2,)

    def test_one_server_is_its_own_majority(self) -> None:
        self.read()
        self.assertEqual(self.told, [("x", True)])
        for kind in (Confirm, ViewChange, Prepare):
            self.take(kind)
