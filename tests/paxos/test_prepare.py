"""Figures 7, 8 and 9: a new leader learns what may have been chosen before it."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos.allowance import Allowance
from pfsb.paxos.messages import (
    Accept,
    ClientUpdate,
    GloballyOrderedUpdate,
    Prepare,
    PrepareOK,
    Proposal,
    State,
    ViewChange,
)
from pfsb.paxos.records import Accepted, PeerRecord, ProposalRecord, Recovered, ViewRecord
from tests.paxos.case import SMALL, ReplicaTestCase, identity_of
from tests.paxos.messages import (
    accept,
    alive,
    batch,
    client_update,
    ordered,
    prepare,
    prepare_ok,
    proposal,
    reply,
    vc_proof,
    view_change,
)

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


def whole_promise(case: ReplicaTestCase, leader: int) -> list[PrepareOK]:
    """All parts of the promise that server 2 or 4 has just begun to send: the first, and those that are asked for."""
    (first,) = case.take(PrepareOK)
    for part in range(1, first.parts):
        case.receive(PrepareOK(leader, first.view, (), part, first.parts, first.edition))
    return [first, *case.take(PrepareOK)]


class ShiftToPreparePhaseTests(ReplicaTestCase):
    def test_prepare_waits_for_the_view_on_disk(self) -> None:
        """Figure 7, Block A: never two different PREPAREs for one view."""
        self.hold_syncs = True
        self.preinstall(view=2)
        self.assertNotSent(Prepare)
        self.assertEqual(self.take_records(ViewRecord), [ViewRecord(2, 2)])
        self.storage.finish_all()
        self.assertSent(Prepare(2, 2, 0))

    def test_own_promise_is_noted(self) -> None:
        """Figure 7, Block A: Prepare and Prepare_OK[me] are set; the State stays."""
        self.begin_prepare_phase(view=2)
        self.assertEqual(self.data.preparing.prepare, Prepare(2, 2, 0))
        self.assertTrue(self.data.preparing.prepare_oks[2].complete)
        self.assertEqual(self.data.views.last_installed, 2)
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_prepare_carries_the_leaders_local_aru(self) -> None:
        """Figure 7, Block A: what is below needs no report."""
        self.receive(reply(3, ordered(3, 1, ALICE)))
        self.preinstall(view=2)
        self.assertSent(Prepare(2, 2, 1))


class PrepareTests(ReplicaTestCase):
    def test_promise_is_sent_when_the_view_is_on_disk(self) -> None:
        """Figure 7, Block B, and Figure 9, Block B: the promise outlives a crash, or is not made."""
        self.hold_syncs = True
        self.receive(prepare(1, 1))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.take_records(ViewRecord), [ViewRecord(1, 1)])
        self.assertNotSent(PrepareOK)
        self.storage.finish_all()
        self.assertSent(PrepareOK(2, 1, (), edition=1), to=1)

    def test_repeated_prepare_gets_the_same_promise(self) -> None:
        """Section 5.9: receiver-driven; between building and sending nothing older can have been accepted (G7)."""
        self.receive(prepare(1, 1))
        self.advance(self.settings.resend_seconds)
        self.receive(prepare(1, 1))
        self.assertEqual(self.take(PrepareOK), [PrepareOK(2, 1, (), edition=1)] * 2)

    def test_copies_of_a_prepare_are_not_each_answered(self) -> None:
        """Departure 37: a promise may be a thousand times as large as the PREPARE that asks for it."""
        self.receive(*[prepare(1, 1)] * 100)
        self.assertEqual(len(self.take(PrepareOK)), 1)

    def test_prepare_that_a_proof_has_overtaken_is_answered(self) -> None:
        """Scenario 3, G7: the view was installed by VC_PROOF, and still needs this promise."""
        self.receive(vc_proof(1, 1))
        self.receive(prepare(1, 1))
        self.assertSent(PrepareOK(2, 1, (), edition=1), to=1)

    def test_promise_of_an_older_view_is_not_sent_for_a_newer_one(self) -> None:
        """G7: a would-be leader of view 2 is overtaken by view 3; its own promise of 2 is still in Prepare_OK[me]."""
        self.begin_prepare_phase(view=2)
        self.receive(reply(3, ordered(3, 1, ALICE)))
        self.receive(vc_proof(3, 3))
        self.assertEqual(self.data.preparing.prepare_oks[2].view, 2)
        self.receive(prepare(3, 3))
        self.assertSent(PrepareOK(2, 3, (GloballyOrderedUpdate(2, 1, batch(ALICE)),), edition=1), to=3)

    def test_follower_watches_the_leader_that_it_has_promised_to(self) -> None:
        """G5: the timer starts at every installation."""
        self.receive(prepare(1, 1))
        self.take(PrepareOK)
        self.assertTrue(self.replica.progress_timer.running)

    def test_own_queue_is_dropped(self) -> None:
        """Figure 9, Block B: a non-leader queues nothing; what it answers for is pending."""
        self.introduce(client_update("carol", 1, server_id=2))
        self.assertEqual(len(self.replica.update_queue), 1)
        self.receive(prepare(1, 1))
        self.take(PrepareOK)
        self.assertEqual(len(self.replica.update_queue), 0)
        self.assertIn("carol", self.data.clients.pending_updates)


class DataListTests(ReplicaTestCase):
    starts = False

    def with_history(self) -> None:
        """Slot 1 accepted in view 1, nothing in 2, 3 ordered, 4 accepted in view 3; view 3 is installed."""
        self.found.last_attempted = self.found.last_installed = 3
        self.found.accepted = [
            Accepted(1, 1, batch(ALICE)),
            Accepted(3, 0, batch(BOB)),
            Accepted(4, 3, batch()),
        ]
        self.start()
        self.receive(view_change(1, 6))
        self.assertSent(view_change(2, 6))

    def test_every_slot_above_the_leaders_aru_is_reported(self) -> None:
        """Figure 8, Block A: the ordered update, else the latest accepted proposal; nothing for an empty slot."""
        self.with_history()
        self.receive(prepare(1, 6))
        (promise,) = self.take(PrepareOK)
        self.assertEqual(
            [(type(e), e.seq, e.batch) for e in promise.data_list],
            [(Proposal, 1, batch(ALICE)), (GloballyOrderedUpdate, 3, batch(BOB)), (Proposal, 4, batch())],
        )
        self.assertEqual([e.view for e in promise.data_list if isinstance(e, Proposal)], [1, 3])

    def test_what_the_leader_has_is_left_out(self) -> None:
        """Figure 8, Block A."""
        self.with_history()
        self.receive(prepare(1, 6, local_aru=3))
        (promise,) = self.take(PrepareOK)
        self.assertEqual([e.seq for e in promise.data_list], [4])

    def test_long_list_travels_in_parts(self) -> None:
        """Departure 6, G28: no part is larger than a frame carries, and together they are the whole list."""
        big = [client_update(f"c{seq}", 1, payload=bytes(120)) for seq in range(1, 6)]
        self.found.last_attempted = self.found.last_installed = 1
        self.found.accepted = [Accepted(seq, 1, batch(update)) for seq, update in enumerate(big, 1)]
        self.start()
        self.receive(view_change(1, 6))
        self.assertSent(view_change(2, 6))
        self.receive(prepare(1, 6))
        parts = whole_promise(self, 1)
        self.assertGreater(len(parts), 1)
        self.assertEqual([(p.part, p.parts) for p in parts], [(n, len(parts)) for n in range(len(parts))])
        self.assertEqual([e.seq for p in parts for e in p.data_list], [1, 2, 3, 4, 5])
        for part in parts:
            self.assertLessEqual(sum(len(e.batch.data) for e in part.data_list), SMALL.frame_data_bytes_max)

    def test_proposal_learned_from_a_report_is_reported_on(self) -> None:
        """A would-be leader knows more than it has accepted: to report too much is safe, too little is not."""
        self.with_history()
        self.expire_nothing()
        self.preinstall(view=7)
        self.assertSent(Prepare(2, 7, 0))
        self.receive(prepare_ok(5, 7, proposal(4, 4, 2, ALICE)))
        self.expire_progress_timer()
        self.assertSent(view_change(2, 8))
        self.receive(view_change(1, 11))
        self.assertSent(view_change(2, 11))
        self.receive(prepare(1, 11))
        (promise,) = self.take(PrepareOK)
        self.assertIn(proposal(4, 4, 2, ALICE), promise.data_list)

    def expire_nothing(self) -> None:
        self.assertFalse(self.replica.progress_timer.running)


class TablingTests(ReplicaTestCase):
    """G19, Departure 6: a leader that lacks more than a data list carries catches up first."""

    settings = evolve(SMALL, history_slots_kept=3)

    def after_start(self) -> None:
        for seq in range(1, 6):
            self.receive(reply(3, ordered(3, seq, client_update("alice", seq))))
        self.assertEqual(self.data.ordering.global_history.floor, 2)

    def test_view_is_installed_but_the_answer_waits(self) -> None:
        """G19: a data list that starts above the leader's aru plus one is a safety violation."""
        self.receive(prepare(1, 1, local_aru=1))
        self.assertEqual(self.data.views.last_installed, 1)
        self.assertNotSent(PrepareOK)

    def test_answer_follows_when_the_leader_has_caught_up(self) -> None:
        """Departure 6: the leader's repeated PREPARE carries a higher aru."""
        self.receive(prepare(1, 1, local_aru=1))
        self.receive(prepare(1, 1, local_aru=2))
        (promise,) = self.take(PrepareOK)
        self.assertEqual([e.seq for e in promise.data_list], [3, 4, 5])

    def test_leader_far_behind_reconciles_before_it_gets_an_answer(self) -> None:
        """Departure 6: a PREPARE_OK is bounded, even while the slots are still in memory."""
        for seq in range(6, 12):
            self.receive(reply(3, ordered(3, seq, client_update("alice", seq))))
        self.replica.data.ordering.global_history.floor = 0
        self.receive(prepare(1, 1, local_aru=2))
        self.assertNotSent(PrepareOK)

    def test_leader_in_its_prepare_phase_catches_up(self) -> None:
        """G19: it may reconcile, and asks again with what it has then."""
        self.begin_prepare_phase(view=2)
        self.receive(reply(3, ordered(3, 6, client_update("alice", 6))))
        self.advance(0.1)
        self.assertSent(Prepare(2, 2, 6))
        self.take(type(view_change(2, 2)))


class PrepareOKTests(ReplicaTestCase):
    def test_majority_of_promises_prepares_the_view(self) -> None:
        """Figure 7, Block C, and Figure 8, Block B: the leader's own promise counts."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.receive(prepare_ok(4, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_repeated_promise_counts_once(self) -> None:
        """Figure 5 C."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2))
        self.receive(prepare_ok(3, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_half_a_promise_does_not_count(self) -> None:
        """G28: the parts that lack may hold what was chosen."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2))
        self.receive(prepare_ok(4, 2, part=0, parts=2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertSent(PrepareOK(2, 2, (), 1, 2), to=4)
        self.receive(prepare_ok(4, 2, part=1, parts=2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_highest_view_of_all_reports_is_proposed_again(self) -> None:
        """Figure 7, Block C: the data lists bind the new leader."""
        self.begin_prepare_phase(view=7)
        self.receive(prepare_ok(3, 7, proposal(3, 3, 1, BOB)))
        self.receive(prepare_ok(4, 7, proposal(1, 1, 1, ALICE)))
        self.assertSent(proposal(2, 7, 1, BOB))
        self.assertSent(accept(2, 7, 1))

    def test_report_is_not_a_vote(self) -> None:
        """Learning of a proposal puts nothing on disk: this server has not accepted it."""
        self.begin_prepare_phase(view=7)
        self.receive(prepare_ok(3, 7, proposal(3, 3, 1, BOB)))
        self.assertEqual(self.take_records(ProposalRecord), [])
        self.assertNotSent(Accept)

    def test_ordered_entries_are_executed_at_once(self) -> None:
        """Scenario 7, G13: all missing slots arrive as ordered ones."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2, ordered(3, 1, ALICE), ordered(3, 2, BOB)))
        self.assertExecuted([ALICE], [BOB])

    def test_leader_goes_on_above_what_it_learned(self) -> None:
        """Scenario 6, G1: no server is asked to accept another value in a slot that is ordered."""
        self.introduce(client_update("carol", 1, server_id=2))
        self.lead(2, ordered(3, 1, ALICE))
        self.assertSent(proposal(2, 2, 2, client_update("carol", 1, server_id=2)))
        self.assertSent(accept(2, 2, 2))


class ContestedSlotTests(ReplicaTestCase):
    """Departure 39: promises that report different batches of one view for one slot."""

    def contest(self) -> None:
        """Servers 3 and 4, which make a majority with this server, report different batches of view 3 in slot 1."""
        self.replica.perform(self.replica.election.suspect)
        self.take(ViewChange)
        self.begin_prepare_phase(view=7)
        self.receive(prepare_ok(3, 7, proposal(3, 3, 1, BOB)))
        self.receive(prepare_ok(4, 7, proposal(3, 3, 1, ALICE)))

    def assertWaits(self) -> None:
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertNotSent(Proposal)

    def assertProposed(self, update: ClientUpdate) -> None:
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.assertSent(proposal(2, 7, 1, update))
        self.assertSent(accept(2, 7, 1))

    def test_leader_waits_while_each_batch_may_have_been_chosen(self) -> None:
        """With servers 1 and 5, of which nothing is known, either batch may have a majority."""
        self.contest()
        self.assertEqual(self.replica.ordering.contradictions, 1)
        self.assertWaits()
        self.receive(prepare_ok(3, 7, proposal(3, 3, 1, BOB)))
        self.assertWaits()

    def test_batch_that_a_majority_may_have_accepted_is_proposed(self) -> None:
        """Not the one that was learned first."""
        self.contest()
        self.receive(prepare_ok(5, 7, proposal(3, 3, 1, ALICE)))
        self.assertProposed(ALICE)

    def test_report_of_an_earlier_view_counts(self) -> None:
        """The batch may have been chosen in that view, and proposed again in the later one."""
        self.contest()
        self.receive(prepare_ok(5, 7, proposal(1, 1, 1, ALICE)))
        self.assertProposed(ALICE)

    def test_one_of_them_is_proposed_if_none_was_chosen(self) -> None:
        """Two servers of five hold no batch of that slot, so neither has a majority."""
        self.contest()
        self.receive(prepare_ok(5, 7))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.assertEqual((len(self.take(Proposal)), len(self.take(Accept))), (1, 1))

    def test_votes_tell_of_servers_that_have_not_promised(self) -> None:
        """Servers 1 and 5 have voted for the batch that server 4 reports."""
        self.follow(view=3)
        for voter in (1, 5):
            self.receive(accept(voter, 3, 1, of=[batch(ALICE)]))
        self.contest()
        self.assertProposed(ALICE)

    def test_slot_that_is_ordered_is_contested_no_more(self) -> None:
        """Server 5 has executed it."""
        self.contest()
        self.receive(prepare_ok(5, 7, ordered(5, 1, BOB)))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.assertExecuted([BOB])

    def test_batch_of_a_later_view_ends_the_contest(self) -> None:
        """The batch of the latest view binds the new leader, whatever was accepted in earlier ones."""
        self.contest()
        carol = client_update("carol", 1)
        self.receive(prepare_ok(5, 7, proposal(5, 5, 1, carol)))
        self.assertProposed(carol)

    def test_own_report_counts(self) -> None:
        """This server has accepted the batch itself, before it began to prepare the view."""
        self.follow(view=3)
        self.receive(proposal(3, 3, 1, ALICE))
        self.take(Accept)
        self.contest()
        self.assertWaits()
        self.receive(prepare_ok(5, 7))
        self.assertProposed(ALICE)

    def test_parts_of_a_further_promise_are_asked_for(self) -> None:
        """Else a long promise would come as slowly as the PREPARE is repeated."""
        self.contest()
        self.receive(prepare_ok(5, 7, part=0, parts=2))
        self.assertWaits()
        self.assertSent(PrepareOK(2, 7, (), 1, 2), to=5)
        self.receive(prepare_ok(5, 7, proposal(3, 3, 1, ALICE), part=1, parts=2))
        self.assertProposed(ALICE)

    def test_next_view_begins_anew(self) -> None:
        """A contest is forgotten with its view; the batch that was learned first is still held."""
        self.contest()
        self.replica.perform(self.replica.election.suspect)
        self.take(ViewChange)
        self.begin_prepare_phase(view=12)
        self.receive(prepare_ok(3, 12))
        self.receive(prepare_ok(4, 12))
        self.assertSent(proposal(2, 12, 1, BOB))
        self.assertSent(accept(2, 12, 1))


class MixedPartsTests(ReplicaTestCase):
    """One promise, cut anew after a crash of its sender, must not be pieced together from two cuts."""

    starts = False

    def promise_of_server_4(self, life: int, installed: int, leaders_aru: int) -> list[PrepareOK]:
        """The answer to PREPARE(2) of one incarnation of server 4, whose disk has four slots that were accepted in view
        1."""
        self.server_id = 4
        self.found = Recovered(identity_of(4), life, last_attempted=installed, last_installed=installed)
        self.found.accepted = [
            Accepted(seq, 1, batch(client_update(f"c{seq}", payload=bytes(100)))) for seq in range(1, 5)
        ]
        self.found.peers = {i: PeerRecord(i, identity_of(i)) for i in (1, 2, 3, 5)}
        self.start()
        self.receive(vc_proof(2, 2))
        self.receive(prepare(2, 2, leaders_aru))
        parts = whole_promise(self, 2)
        self.replica.stop()
        return parts

    def test_parts_of_two_data_lists_are_not_one_promise(self) -> None:
        """Figure 8 B: a promise counts when all that its sender accepted above the leader's aru is here (S1).

        Server 4 answers, crashes, comes back by VC_PROOF (G9 i) and answers the repeated PREPARE, whose aru is higher.
        The second part of the first answer and the first part of the second are lost: slot 3, perhaps chosen, is in
        neither.
        """
        first_life = self.promise_of_server_4(1, installed=1, leaders_aru=0)
        second_life = self.promise_of_server_4(2, installed=2, leaders_aru=1)
        cuts = [[[entry.seq for entry in part.data_list] for part in life] for life in (first_life, second_life)]
        self.assertEqual(cuts, [[[1, 2], [3, 4]], [[2, 3], [4]]])
        self.server_id = 2
        self.found = Recovered(identity_of(2), 1)
        self.found.peers = {i: PeerRecord(i, identity_of(i)) for i in (1, 3, 4, 5)}
        self.start()
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2))
        self.receive(first_life[0])
        self.receive(reply(3, ordered(3, 1, client_update("c1", payload=bytes(100)))))
        self.receive(second_life[1])
        self.take(PrepareOK)
        values = {p.seq: p.batch for p in self.take(Proposal)}
        self.take(Accept)
        self.assertNotEqual(values.get(3), batch(), "slot 3 was given up")


class FollowerSendsPartsTests(ReplicaTestCase):
    """Departure 47: a follower sends a long promise part by part, as its leader asks for them."""

    starts = False

    def promise_of_five_parts(self, *, hold_syncs: bool = False) -> None:
        big = [client_update(f"c{seq}", 1, payload=bytes(120)) for seq in range(1, 6)]
        self.found.last_attempted = self.found.last_installed = 1
        self.found.accepted = [Accepted(seq, 1, batch(update)) for seq, update in enumerate(big, 1)]
        self.start()
        self.receive(view_change(1, 6))
        self.assertSent(view_change(2, 6))
        self.hold_syncs = hold_syncs
        self.receive(prepare(1, 6))

    def parts_sent(self) -> list[int]:
        return [message.part for message in self.take(PrepareOK)]

    def wanted(self, part: int, **other: int) -> PrepareOK:
        return evolve(PrepareOK(1, 6, (), part, 5, 1), **other)

    def test_each_prepare_is_answered_with_the_next_part(self) -> None:
        """All parts come in the end to a leader that only repeats its PREPARE, whichever are lost."""
        self.promise_of_five_parts()
        sent = self.parts_sent()
        for _ in range(6):
            self.advance(self.settings.resend_seconds)
            self.receive(prepare(1, 6))
            sent += self.parts_sent()
        self.assertEqual(sent, [0, 1, 2, 3, 4, 0, 1])

    def test_parts_that_are_asked_for_are_sent(self) -> None:
        self.promise_of_five_parts()
        self.take(PrepareOK)
        self.receive(self.wanted(2), self.wanted(1))
        self.assertEqual(self.parts_sent(), [2, 1])

    def test_parts_wait_for_the_view_on_disk(self) -> None:
        """A part is a promise like the whole: it leaves when the view is on disk."""
        self.promise_of_five_parts(hold_syncs=True)
        self.receive(self.wanted(2))
        self.assertNotSent(PrepareOK)
        self.storage.finish_all()
        self.assertEqual(self.parts_sent(), [0, 2])

    def test_parts_of_another_promise_are_not_sent(self) -> None:
        """The leader asks for parts of another incarnation's promise, or of one cut otherwise."""
        self.promise_of_five_parts()
        self.take(PrepareOK)
        self.receive(self.wanted(2, edition=2), self.wanted(2, parts=3))
        self.assertNotSent(PrepareOK)

    def test_requests_for_another_view_are_discarded(self) -> None:
        """4 D4: a deposed leader asks, whose view is over."""
        self.promise_of_five_parts()
        self.take(PrepareOK)
        self.receive(self.wanted(2, view=1))
        self.assertNotSent(PrepareOK)
        self.assertEqual(self.replica.discarded, {"4 D4": 1})

    def test_request_for_a_new_part_starts_the_progress_timer_again(self) -> None:
        """The leader gets somewhere; with a repeated request alone it does not."""
        self.promise_of_five_parts()
        self.take(PrepareOK)
        seconds = self.data.timers.progress_seconds
        for part in (1, 2):
            self.advance(0.7 * seconds)
            self.receive(self.wanted(part))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.advance(0.7 * seconds)
        self.receive(self.wanted(2))
        self.advance(0.7 * seconds)
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.take(PrepareOK)
        self.take(type(view_change(2, 7)))

    def test_requests_without_end_are_not_answered_without_end(self) -> None:
        """Departure 37: each peer has an allowance of bytes."""
        self.promise_of_five_parts()
        self.take(PrepareOK)
        self.replica.prepare.allowances[1] = Allowance(300)
        self.receive(*[self.wanted(1)] * 100)
        self.assertEqual(self.parts_sent(), [1, 1, 1])


class LeaderAsksForPartsTests(ReplicaTestCase):
    """Departure 47: a new leader asks for the parts that it lacks."""

    def asked(self) -> list[tuple[int | None, int]]:
        """(server, part) of the requests since the last call."""
        found = [(s.to, s.message.part) for s in self.transport.sent if isinstance(s.message, PrepareOK)]
        self.take(PrepareOK)
        self.transport.sent.clear()
        return found

    def prepares(self) -> list[int | None]:
        found = [s.to for s in self.transport.sent if isinstance(s.message, Prepare)]
        self.take(Prepare)
        return found

    def test_next_parts_are_asked_for_when_one_arrives(self) -> None:
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2, part=0, parts=6))
        self.assertEqual(self.asked(), [(3, 1), (3, 2), (3, 3)])
        self.receive(prepare_ok(3, 2, part=1, parts=6))
        self.assertEqual(self.asked(), [(3, 4), (3, 5)])

    def test_lost_part_is_asked_for_again(self) -> None:
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2, part=0, parts=2))
        self.assertEqual(self.asked(), [(3, 1)])
        self.advance(self.settings.resend_seconds)
        self.assertIn((3, 1), self.asked())
        self.take(type(view_change(2, 2)))

    def test_prepare_goes_only_to_those_of_whom_nothing_has_come(self) -> None:
        """A server whose promise is on its way is not asked for it anew."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2, part=0, parts=9))
        self.receive(prepare_ok(4, 2, part=0, parts=9))
        self.transport.sent.clear()
        self.receive(prepare_ok(3, 2, part=1, parts=9))
        self.advance(self.settings.resend_seconds / 2)
        self.receive(prepare_ok(3, 2, part=2, parts=9))
        self.take(PrepareOK)
        self.transport.sent.clear()
        self.advance(self.settings.resend_seconds / 2)
        self.assertNotIn(4, self.prepares())
        self.take(PrepareOK)
        self.take(type(view_change(2, 2)))

    def test_silent_server_is_sent_the_prepare_again(self) -> None:
        """The server may have crashed: its next incarnation promises anew, and only a PREPARE begins that."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2, part=0, parts=2))
        self.take(PrepareOK)
        self.transport.sent.clear()
        self.advance(self.settings.resend_seconds)
        self.assertIn(3, self.prepares())
        self.take(PrepareOK)
        self.take(type(view_change(2, 2)))

    def test_new_part_starts_the_progress_timer_again(self) -> None:
        """A long promise may take as long as it arrives; one whose parts repeat may not."""
        self.begin_prepare_phase(view=2)
        seconds = self.data.timers.progress_seconds
        for part in (0, 1, 2):
            self.receive(prepare_ok(3, 2, part=part, parts=4))
            self.advance(0.7 * seconds)
        self.assertEqual(self.data.views.last_attempted, 2)
        self.receive(prepare_ok(3, 2, part=2, parts=4))
        self.advance(0.7 * seconds)
        self.assertEqual(self.data.views.last_attempted, 3)
        for kind in (PrepareOK, Prepare, type(view_change(2, 2))):
            self.take(kind)


class ShiftToRegLeaderTests(ReplicaTestCase):
    def test_new_leader_says_so_at_once(self) -> None:
        """Departure 18: other servers forward their pending updates when they hear the new leader."""
        self.ignore_periodic = False
        self.transport.sent.clear()
        self.lead(view=2)
        self.assertIn(alive(2, 2, State.REG_LEADER, has_clients=False), [s.message for s in self.transport.sent])
        self.transport.sent.clear()

    def test_what_it_answers_for_is_proposed(self) -> None:
        """Figure 9, Block A: pending updates that no slot holds are queued, then proposed."""
        carol = client_update("carol", 1, server_id=2)
        self.introduce(carol)
        self.lead(view=2)
        self.assertSent(proposal(2, 2, 1, carol))
        self.assertSent(accept(2, 2, 1))

    def test_what_a_slot_holds_is_not_proposed_twice(self) -> None:
        """Figure 13 C and D: bound in slot 1, so not queued for slot 2 (G15 ii)."""
        carol = client_update("carol", 1, server_id=2)
        self.introduce(carol)
        self.lead(2, proposal(1, 1, 1, carol))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1, carol)])
        self.take(Accept)

    def test_last_proposed_starts_at_local_aru(self) -> None:
        """Figure 9, Block A."""
        self.receive(reply(3, ordered(3, 1, ALICE)))
        self.lead(view=2)
        self.assertEqual(self.data.ordering.last_proposed, 1)

    def test_timer_runs_at_the_leader_too(self) -> None:
        """G5, G8: a leader that makes no progress suspects itself."""
        self.lead(view=2)
        self.assertTrue(self.replica.progress_timer.running)
