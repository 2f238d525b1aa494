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
    """All parts of the promise that server 2 or 4 has just begun to send: the first, and the others, which are asked
    for."""
    (first,) = case.take(PrepareOK)
    for part in range(1, first.parts):
        case.receive(PrepareOK(leader, first.view, (), part, first.parts, first.edition))
    return [first, *case.take(PrepareOK)]


class ShiftToPreparePhaseTests(ReplicaTestCase):
    def test_prepare_waits_for_the_view_on_disk(self) -> None:
        """Figure 7, Block A: a PREPARE waits until its view is on disk, so that there are never two different PREPAREs
        for one view."""
        self.hold_syncs = True
        self.preinstall(view=2)
        self.assertNotSent(Prepare)
        self.assertEqual(self.take_records(ViewRecord), [ViewRecord(2, 2)])
        self.storage.finish_all()
        self.assertSent(Prepare(2, 2, 0))

    def test_own_promise_is_noted(self) -> None:
        """Figure 7, Block A: the leader stores its own PREPARE and PREPARE_OK (Prepare_OK[me]), and its State stays."""
        self.begin_prepare_phase(view=2)
        self.assertEqual(self.data.preparing.prepare, Prepare(2, 2, 0))
        self.assertTrue(self.data.preparing.prepare_oks[2].complete)
        self.assertEqual(self.data.views.last_installed, 2)
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_prepare_carries_the_leaders_local_aru(self) -> None:
        """Figure 7, Block A: a PREPARE carries the leader's Local_Aru; slots up to it need no report."""
        self.receive(reply(3, ordered(3, 1, ALICE)))
        self.preinstall(view=2)
        self.assertSent(Prepare(2, 2, 1))


class PrepareTests(ReplicaTestCase):
    def test_promise_is_sent_when_the_view_is_on_disk(self) -> None:
        """Figure 7, Block B, and Figure 9, Block B: a promise is sent when the view is on disk, so that it outlives a
        crash."""
        self.hold_syncs = True
        self.receive(prepare(1, 1))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.take_records(ViewRecord), [ViewRecord(1, 1)])
        self.assertNotSent(PrepareOK)
        self.storage.finish_all()
        self.assertSent(PrepareOK(2, 1, (), edition=1), to=1)

    def test_repeated_prepare_gets_the_same_promise(self) -> None:
        """Section 5.9: a repeated PREPARE gets the same promise: since it was built nothing of an older view can have
        been accepted (G7)."""
        self.receive(prepare(1, 1))
        self.advance(self.settings.resend_seconds)
        self.receive(prepare(1, 1))
        self.assertEqual(self.take(PrepareOK), [PrepareOK(2, 1, (), edition=1)] * 2)

    def test_copies_of_a_prepare_are_not_each_answered(self) -> None:
        """Departure 37: copies of a PREPARE that come at once are not all answered: a promise may be a thousand times
        as large."""
        self.receive(*[prepare(1, 1)] * 100)
        self.assertEqual(len(self.take(PrepareOK)), 1)

    def test_prepare_that_a_proof_has_overtaken_is_answered(self) -> None:
        """Scenario 3, G7: a PREPARE is answered although its view was installed by a VC_PROOF that has overtaken it."""
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
        """G5: a follower starts its Progress_Timer when it installs a view, and so watches the leader that it has
        promised to."""
        self.receive(prepare(1, 1))
        self.take(PrepareOK)
        self.assertTrue(self.replica.progress_timer.running)

    def test_own_queue_is_dropped(self) -> None:
        """Figure 9, Block B: a server that begins to follow empties its queue; updates of its own clients are
        pending."""
        self.introduce(client_update("carol", 1, server_id=2))
        self.assertEqual(len(self.replica.update_queue), 1)
        self.receive(prepare(1, 1))
        self.take(PrepareOK)
        self.assertEqual(len(self.replica.update_queue), 0)
        self.assertIn("carol", self.data.clients.pending_updates)


class DataListTests(ReplicaTestCase):
    starts = False

    def with_history(self) -> None:
        """Make a history: slot 1 accepted in view 1, nothing in 2, 3 ordered, 4 accepted in view 3; view 3 is
        installed."""
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
        """Figure 8, Block A: for each slot above the leader's aru a data list has the ordered update, or else the
        latest accepted proposal; an empty slot is left out."""
        self.with_history()
        self.receive(prepare(1, 6))
        (promise,) = self.take(PrepareOK)
        self.assertEqual(
            [(type(e), e.seq, e.batch) for e in promise.data_list],
            [(Proposal, 1, batch(ALICE)), (GloballyOrderedUpdate, 3, batch(BOB)), (Proposal, 4, batch())],
        )
        self.assertEqual([e.view for e in promise.data_list if isinstance(e, Proposal)], [1, 3])

    def test_what_the_leader_has_is_left_out(self) -> None:
        """Figure 8, Block A: slots up to the leader's Local_Aru are left out of the data list."""
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
        """A server that was about to lead reports also proposals that it learned from others' reports: to report too
        much is safe, too little is not."""
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
        """G19: a leader that lacks slots gets no promise, though the view is installed: a data list that does not begin
        right above the leader's Local_Aru would break safety."""
        self.receive(prepare(1, 1, local_aru=1))
        self.assertEqual(self.data.views.last_installed, 1)
        self.assertNotSent(PrepareOK)

    def test_answer_follows_when_the_leader_has_caught_up(self) -> None:
        """Departure 6: a server that is ahead answers the PREPARE when the leader has caught up: the repeated PREPARE
        carries a higher aru."""
        self.receive(prepare(1, 1, local_aru=1))
        self.receive(prepare(1, 1, local_aru=2))
        (promise,) = self.take(PrepareOK)
        self.assertEqual([e.seq for e in promise.data_list], [3, 4, 5])

    def test_leader_far_behind_reconciles_before_it_gets_an_answer(self) -> None:
        """Departure 6: a leader that is far behind gets no answer before it has reconciled, even while the slots are
        still in memory here: a PREPARE_OK is bounded."""
        for seq in range(6, 12):
            self.receive(reply(3, ordered(3, seq, client_update("alice", seq))))
        self.replica.data.ordering.global_history.floor = 0
        self.receive(prepare(1, 1, local_aru=2))
        self.assertNotSent(PrepareOK)

    def test_leader_in_its_prepare_phase_catches_up(self) -> None:
        """G19: a leader in its Prepare phase may reconcile, and then repeats its PREPARE with a higher Local_Aru."""
        self.begin_prepare_phase(view=2)
        self.receive(reply(3, ordered(3, 6, client_update("alice", 6))))
        self.advance(0.1)
        self.assertSent(Prepare(2, 2, 6))
        self.take(type(view_change(2, 2)))


class PrepareOKTests(ReplicaTestCase):
    def test_majority_of_promises_prepares_the_view(self) -> None:
        """Figure 7, Block C, and Figure 8, Block B: a majority of promises prepares the view, the leader's own
        included."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.receive(prepare_ok(4, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_repeated_promise_counts_once(self) -> None:
        """Figure 5 C: a promise that is repeated counts once."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2))
        self.receive(prepare_ok(3, 2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)

    def test_half_a_promise_does_not_count(self) -> None:
        """G28: a promise of which parts are missing does not count, since these may hold what was chosen."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2))
        self.receive(prepare_ok(4, 2, part=0, parts=2))
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertSent(PrepareOK(2, 2, (), 1, 2), to=4)
        self.receive(prepare_ok(4, 2, part=1, parts=2))
        self.assertIs(self.data.server.state, State.REG_LEADER)

    def test_highest_view_of_all_reports_is_proposed_again(self) -> None:
        """Figure 7, Block C: of all reports for a slot, the proposal of the highest view is proposed again."""
        self.begin_prepare_phase(view=7)
        self.receive(prepare_ok(3, 7, proposal(3, 3, 1, BOB)))
        self.receive(prepare_ok(4, 7, proposal(1, 1, 1, ALICE)))
        self.assertSent(proposal(2, 7, 1, BOB))
        self.assertSent(accept(2, 7, 1))

    def test_report_is_not_a_vote(self) -> None:
        """A proposal that a leader learns from a report is not written to its disk: it has not accepted the
        proposal."""
        self.begin_prepare_phase(view=7)
        self.receive(prepare_ok(3, 7, proposal(3, 3, 1, BOB)))
        self.assertEqual(self.take_records(ProposalRecord), [])
        self.assertNotSent(Accept)

    def test_ordered_entries_are_executed_at_once(self) -> None:
        """Scenario 7, G13: slots that a data list reports as ordered are executed at once."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2, ordered(3, 1, ALICE), ordered(3, 2, BOB)))
        self.assertExecuted([ALICE], [BOB])

    def test_leader_goes_on_above_what_it_learned(self) -> None:
        """Scenario 6, G1: a leader proposes above the slots that it has learned as ordered, and asks no server to
        accept another batch in them."""
        self.introduce(client_update("carol", 1, server_id=2))
        self.lead(2, ordered(3, 1, ALICE))
        self.assertSent(proposal(2, 2, 2, client_update("carol", 1, server_id=2)))
        self.assertSent(accept(2, 2, 2))


class ContestedSlotTests(ReplicaTestCase):
    """Departure 39: promises that report different batches of one view for one slot."""

    def contest(self) -> None:
        """Let servers 3 and 4, which make a majority with this server, report different batches of view 3 in slot 1."""
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
        """A leader waits while each of two batches may have been chosen: servers 1 and 5, of which nothing is known,
        could give either a majority."""
        self.contest()
        self.assertEqual(self.replica.ordering.contradictions, 1)
        self.assertWaits()
        self.receive(prepare_ok(3, 7, proposal(3, 3, 1, BOB)))
        self.assertWaits()

    def test_batch_that_a_majority_may_have_accepted_is_proposed(self) -> None:
        """The batch that a majority may have accepted is proposed, even if the other one was learned first."""
        self.contest()
        self.receive(prepare_ok(5, 7, proposal(3, 3, 1, ALICE)))
        self.assertProposed(ALICE)

    def test_report_of_an_earlier_view_counts(self) -> None:
        """A report of the batch from an earlier view counts, too: it may have been chosen there, and proposed again in
        the later view."""
        self.contest()
        self.receive(prepare_ok(5, 7, proposal(1, 1, 1, ALICE)))
        self.assertProposed(ALICE)

    def test_one_of_them_is_proposed_if_none_was_chosen(self) -> None:
        """If neither of two batches can have been chosen, one of them is proposed: here two servers of five hold no
        batch of that slot."""
        self.contest()
        self.receive(prepare_ok(5, 7))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.assertEqual((len(self.take(Proposal)), len(self.take(Accept))), (1, 1))

    def test_votes_tell_of_servers_that_have_not_promised(self) -> None:
        """Votes of servers that have not promised count: servers 1 and 5 have voted for the batch that server 4
        reports."""
        self.follow(view=3)
        for voter in (1, 5):
            self.receive(accept(voter, 3, 1, of=[batch(ALICE)]))
        self.contest()
        self.assertProposed(ALICE)

    def test_slot_that_is_ordered_is_contested_no_more(self) -> None:
        """A contested slot that server 5 has executed, and reports as ordered, is contested no more."""
        self.contest()
        self.receive(prepare_ok(5, 7, ordered(5, 1, BOB)))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.assertExecuted([BOB])

    def test_batch_of_a_later_view_ends_the_contest(self) -> None:
        """A batch of a later view ends the contest between two batches of one view for a slot: the latest view binds
        the new leader."""
        self.contest()
        carol = client_update("carol", 1)
        self.receive(prepare_ok(5, 7, proposal(5, 5, 1, carol)))
        self.assertProposed(carol)

    def test_own_report_counts(self) -> None:
        """The batch that this server has accepted itself, before it began to prepare the view, counts as a report."""
        self.follow(view=3)
        self.receive(proposal(3, 3, 1, ALICE))
        self.take(Accept)
        self.contest()
        self.assertWaits()
        self.receive(prepare_ok(5, 7))
        self.assertProposed(ALICE)

    def test_parts_of_a_further_promise_are_asked_for(self) -> None:
        """While a slot is contested, the parts of a further promise are asked for: otherwise they would come only with
        each repeated PREPARE."""
        self.contest()
        self.receive(prepare_ok(5, 7, part=0, parts=2))
        self.assertWaits()
        self.assertSent(PrepareOK(2, 7, (), 1, 2), to=5)
        self.receive(prepare_ok(5, 7, proposal(3, 3, 1, ALICE), part=1, parts=2))
        self.assertProposed(ALICE)

    def test_next_view_begins_anew(self) -> None:
        """A contest is forgotten when the next view begins; the slot still holds the batch that was learned first."""
        self.contest()
        self.replica.perform(self.replica.election.suspect)
        self.take(ViewChange)
        self.begin_prepare_phase(view=12)
        self.receive(prepare_ok(3, 12))
        self.receive(prepare_ok(4, 12))
        self.assertSent(proposal(2, 12, 1, BOB))
        self.assertSent(accept(2, 12, 1))


class MixedPartsTests(ReplicaTestCase):
    """Parts of a promise that was cut anew after a crash of its sender must not be put together with parts of the
    former cut."""

    starts = False

    def promise_of_server_4(self, life: int, installed: int, leaders_aru: int) -> list[PrepareOK]:
        """The parts of the answer to PREPARE(2) of one incarnation of server 4, whose disk has four slots that were
        accepted in view 1."""
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
        """Each repeated PREPARE is answered with the next part, so that a leader that only repeats it gets all parts in
        the end, whichever are lost."""
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
        """Each part of a promise leaves only when the view is on disk, as the whole would."""
        self.promise_of_five_parts(hold_syncs=True)
        self.receive(self.wanted(2))
        self.assertNotSent(PrepareOK)
        self.storage.finish_all()
        self.assertEqual(self.parts_sent(), [0, 2])

    def test_parts_of_another_promise_are_not_sent(self) -> None:
        """A request for a part of another incarnation's promise, or of one that was cut otherwise, is not answered."""
        self.promise_of_five_parts()
        self.take(PrepareOK)
        self.receive(self.wanted(2, edition=2), self.wanted(2, parts=3))
        self.assertNotSent(PrepareOK)

    def test_requests_for_another_view_are_discarded(self) -> None:
        """Figure 4 D4: a request for a part of another view, as of a deposed leader, is discarded."""
        self.promise_of_five_parts()
        self.take(PrepareOK)
        self.receive(self.wanted(2, view=1))
        self.assertNotSent(PrepareOK)
        self.assertEqual(self.replica.discarded, {"4 D4": 1})

    def test_request_for_a_new_part_starts_the_progress_timer_again(self) -> None:
        """A request for a part that was not asked for before restarts the Progress_Timer; a repeated one does not."""
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
        """Departure 37: requests for parts are answered up to the peer's allowance of bytes."""
        self.promise_of_five_parts()
        self.take(PrepareOK)
        self.replica.prepare.allowances[1] = Allowance(300)
        self.receive(*[self.wanted(1)] * 100)
        self.assertEqual(self.parts_sent(), [1, 1, 1])


class LeaderAsksForPartsTests(ReplicaTestCase):
    """Departure 47: a new leader asks for the parts that it lacks."""

    def asked(self) -> list[tuple[int | None, int]]:
        """(server, part) of the requests for parts since the last call."""
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
        """A PREPARE is repeated only to servers from which no part of a promise has come."""
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
        """A server that leaves requests unanswered is sent the PREPARE again: it may have crashed, and the promise of
        its next incarnation begins with a PREPARE."""
        self.begin_prepare_phase(view=2)
        self.receive(prepare_ok(3, 2, part=0, parts=2))
        self.take(PrepareOK)
        self.transport.sent.clear()
        self.advance(self.settings.resend_seconds)
        self.assertIn(3, self.prepares())
        self.take(PrepareOK)
        self.take(type(view_change(2, 2)))

    def test_new_part_starts_the_progress_timer_again(self) -> None:
        """Each new part of a long promise restarts the Progress_Timer; a repeated one does not."""
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
        """Departure 18: a new leader sends an ALIVE at once, at which other servers forward their pending updates."""
        self.ignore_periodic = False
        self.transport.sent.clear()
        self.lead(view=2)
        self.assertIn(alive(2, 2, State.REG_LEADER, has_clients=False), [s.message for s in self.transport.sent])
        self.transport.sent.clear()

    def test_what_it_answers_for_is_proposed(self) -> None:
        """Figure 9, Block A: pending updates of the new leader that no slot holds are queued, and then proposed."""
        carol = client_update("carol", 1, server_id=2)
        self.introduce(carol)
        self.lead(view=2)
        self.assertSent(proposal(2, 2, 1, carol))
        self.assertSent(accept(2, 2, 1))

    def test_what_a_slot_holds_is_not_proposed_twice(self) -> None:
        """Figure 13 C and D: an update that is bound in slot 1 is not queued for slot 2 (G15 ii)."""
        carol = client_update("carol", 1, server_id=2)
        self.introduce(carol)
        self.lead(2, proposal(1, 1, 1, carol))
        self.assertEqual(self.take(Proposal), [proposal(2, 2, 1, carol)])
        self.take(Accept)

    def test_last_proposed_starts_at_local_aru(self) -> None:
        """Figure 9, Block A: Last_Proposed of a new leader starts at Local_Aru."""
        self.receive(reply(3, ordered(3, 1, ALICE)))
        self.lead(view=2)
        self.assertEqual(self.data.ordering.last_proposed, 1)

    def test_timer_runs_at_the_leader_too(self) -> None:
        """G5, G8: the Progress_Timer runs at a leader, too, which suspects itself if it makes no progress."""
        self.lead(view=2)
        self.assertTrue(self.replica.progress_timer.running)
