"""Departure 60: a change of the membership ends its epoch within the turn that executes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from attrs import define, evolve, field

from pfsb.paxos.data_structures import Slot
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.epochs import LATER_SECONDS, UNKNOWN_SECONDS
from pfsb.paxos.members import Members, encode_members
from pfsb.paxos.messages import (
    Accept,
    Alive,
    ClientUpdate,
    Confirm,
    Confirmed,
    GloballyOrderedUpdate,
    HandOverReason,
    Heard,
    Prepare,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReadRequest,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
    VCProof,
    ViewChange,
)
from pfsb.paxos.outbound import WaitingVotes
from pfsb.paxos.records import Accepted, AruRecord, EpochRecord, ViewRecord
from pfsb.paxos.snapshot import SNAPSHOT_DIGEST_BYTES, Piece, SnapshotName, WrongSnapshot
from pfsb.paxos.snapshot_rows import packed
from pfsb.support.limits import SLOT_MAX
from pfsb.support.views import view_of
from tests.paxos import case
from tests.paxos.case import RecordingStateMachine, ReplicaTestCase, identity_of
from tests.paxos.messages import (
    accept,
    alive,
    batch,
    client_update,
    ordered,
    prepare_ok,
    proposal,
    reply,
    request,
    vc_proof,
    view_change,
)

ALICE, BOB = client_update("alice", server_id=3), client_update("bob", server_id=3)
GONE = client_update("gone", server_id=1)
"""An update of a client of server 1, which the next epoch does not have."""
CHANGE = client_update("servers", payload=b"change")
"""The update whose execution ends epoch 0."""


@define(eq=False)
class ChangingStateMachine(RecordingStateMachine):
    """A state machine that executes a change of the membership, which names servers 2, 3 and 4."""

    test: EpochTestCase | None = field(default=None, kw_only=True)

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        if any(update.payload == b"change" for update in updates):
            assert self.test is not None
            self.test.replica.ordered_queue.change_members(evolve(self.test.next, since=seq))
        return super().execute(seq, time_ms, updates)


class EpochTestCase(ReplicaTestCase):
    """Server 2 of three; the change puts server 4 into the place of server 1, and server 3 leads first."""

    servers = (1, 2, 3)
    next: ClassVar[Members] = Members((2, 3, 4), epoch=1, first=3)
    view = view_of(1, 2)
    """The first view of the next epoch: server 3 is the second of its voters."""

    def setUp(self) -> None:
        self.patch(case, "RecordingStateMachine", lambda: ChangingStateMachine(test=self))
        super().setUp()

    def after_start(self) -> None:
        self.replica.membership.identities[4] = identity_of(4)

    def tearDown(self) -> None:
        """The replies that bring the change to the other servers are looked at by `BringTests` alone."""
        for sent in self.transport.sent:
            reply = sent.message
            if isinstance(reply, ReconciliationReply) and reply.updates[-1].batch == batch(CHANGE):
                sent.looked_at = True
        super().tearDown()

    def change(self, seq: int = 1) -> None:
        """The change is ordered in slot `seq` of epoch 0, as this server follows server 1 there."""
        self.order(seq, CHANGE)

    def slot(self, seq: int) -> Slot | None:
        return self.data.ordering.global_history.get(seq)


class FullDiskTests(EpochTestCase):
    """A change while the disk of this server is full (Departures 45 and 60): it begins an epoch, whose records are
    forced."""

    def after_start(self) -> None:
        super().after_start()
        self.replica.ordered_queue.may_hold_change = lambda each: b"change" in each.data

    def fill(self, *, is_full: bool = True) -> None:
        self.storage.is_full = is_full
        self.advance(0.2)
        self.assertEqual(self.replica.turn.trouble, DiskTrouble.FULL if is_full else None)
        self.transport.sent.clear()

    def vote_for(self, seq: int, update: ClientUpdate) -> None:
        self.receive(proposal(1, 1, seq, update))
        self.assertSent(accept(2, 1, seq))

    def test_change_waits_for_room(self) -> None:
        """A server with a full disk executes what it has voted for before, up to the change of the membership."""
        self.follow()
        for seq, update in ((1, ALICE), (2, CHANGE), (3, BOB)):
            self.vote_for(seq, update)
        self.fill()
        syncs = self.storage.syncs
        for seq in (1, 2, 3):
            self.receive(accept(1, 1, seq))
        self.assertExecuted([ALICE])
        self.assertEqual((self.replica.membership.epoch, self.storage.syncs), (0, syncs))
        self.assertEqual(self.replica.turn.writes_in_trouble, 0)

    def test_change_is_executed_when_there_is_room(self) -> None:
        """A change that waited for room on the disk is executed when there is room, without a further message; what was
        ordered above it is void."""
        self.follow()
        for seq, update in ((1, CHANGE), (2, BOB)):
            self.vote_for(seq, update)
        self.fill()
        for seq in (1, 2):
            self.receive(accept(1, 1, seq))
        self.assertExecuted()
        self.fill(is_full=False)
        self.assertExecuted([CHANGE])
        self.assertEqual((self.replica.membership.epoch, self.data.ordering.local_aru), (1, 1))
        self.assertIsNone(self.slot(2))
        self.take(VCProof)

    def test_leader_whose_disk_is_full_attempts_no_view_for_a_later_epoch(self) -> None:
        """A leader that hears of a later epoch would attempt a view, which is a record; it does so when there is
        room."""
        self.lead()
        self.fill()
        late = alive(3, self.view, State.REG_NONLEADER, 9)
        self.receive(late, epoch=1)
        self.assertEqual((self.data.views.last_attempted, self.replica.turn.writes_in_trouble), (2, 0))
        self.fill(is_full=False)
        self.receive(late, epoch=1)
        self.assertGreater(self.data.views.last_attempted, 2)
        self.transport.sent.clear()


class BeginTests(EpochTestCase):
    """The turn that executes the change, and its results."""

    def test_follower_follows_the_first_leader_of_the_next_epoch(self) -> None:
        """A follower that executes the change follows the first leader of the next epoch, without an election or a
        Prepare phase."""
        self.follow()
        self.change()
        views = self.data.views
        self.assertEqual((views.last_attempted, views.last_installed), (self.view, self.view))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertTrue(self.replica.progress_timer.running)
        self.assertEqual((self.transport.epoch, self.transport.others), (1, (3, 4)))
        self.receive(proposal(3, self.view, 2, ALICE))
        self.assertSent(accept(2, self.view, 2))

    def test_records_of_the_epoch_are_forced_together(self) -> None:
        """The slots up to the change, the servers of the next epoch, and a promise for its first view are forced to
        disk together."""
        self.follow()
        self.change()
        records = [each for each in self.storage.records if isinstance(each, AruRecord | EpochRecord | ViewRecord)]
        self.assertEqual(
            records[:3], [AruRecord(1), EpochRecord(evolve(self.next, since=1)), ViewRecord(self.view, self.view)]
        )

    def test_nothing_of_the_next_epoch_leaves_before_its_record(self) -> None:
        """No message of the next epoch leaves before the record of that epoch is on disk: a crash would take this
        server back into its former epoch."""
        self.follow()
        self.receive(proposal(1, 1, 1, CHANGE))
        self.assertSent(accept(2, 1, 1))
        self.hold_syncs = True
        self.receive(accept(1, 1, 1))
        self.transport.sent.clear()
        self.replica.perform(self.replica.alive.send_alive)
        self.assertEqual(self.transport.sent, [])
        self.storage.finish_all()
        self.assertEqual([sent.message.view for sent in self.transport.sent if isinstance(sent.message, Alive)], [1])

    def test_messages_of_the_former_epoch_that_have_not_left_are_dropped(self) -> None:
        """Messages of the former epoch that have not left are dropped: a frame tells the epoch at which it leaves."""
        self.follow()
        self.hold_syncs = True
        self.receive(proposal(1, 1, 2, ALICE))
        self.receive(proposal(1, 1, 1, CHANGE))
        self.receive(accept(1, 1, 1))
        self.assertEqual(self.data.views.last_installed, self.view)
        self.storage.finish_all()
        self.assertNotSent(Accept)

    def test_votes_that_wait_for_company_are_dropped(self) -> None:
        """Votes that wait to travel with other messages are dropped at a change: they would leave in a frame of the
        next epoch."""
        self.follow()
        self.receive(proposal(1, 1, 1, CHANGE))
        self.take(Accept)
        late = accept(2, 1, 1, of=[batch(CHANGE)])
        self.replica.outbound.waiting_votes[3] = WaitingVotes(late, 0.0)
        self.receive(accept(1, 1, 1))
        self.assertEqual(self.replica.outbound.waiting_votes, {})

    def test_second_change_needs_a_later_epoch(self) -> None:
        """Executing an old change again, as at a restart, begins no epoch."""
        self.follow()
        self.change()
        self.replica.ordered_queue.change_members(self.next)
        self.assertIs(self.replica.ordered_queue.next_members, None)


class BringTests(EpochTestCase):
    """The slot of the change is sent to the servers that may lack it."""

    def brought_to(self) -> list[int | None]:
        """The servers to which this server has sent the change, in slot 1."""
        expected = (GloballyOrderedUpdate(2, 1, batch(CHANGE)),)
        replies = [each for each in self.transport.sent if isinstance(each.message, ReconciliationReply)]
        for each in replies:
            assert isinstance(each.message, ReconciliationReply)
            self.assertEqual((each.message.updates, each.message.local_aru), (expected, 1))
        return [each.to for each in replies]

    def test_change_is_sent_to_the_servers_of_both_epochs(self) -> None:
        """A server that executes the change sends it to the servers of both epochs: its own votes for it are dropped,
        so the others may lack a majority."""
        self.follow()
        self.change()
        self.assertEqual(self.brought_to(), [1, 3, 4])

    def test_change_waits_for_the_record_of_the_epoch(self) -> None:
        """The change is sent to others when the record of the epoch is on disk: they count upon this server having
        executed it."""
        self.follow()
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, CHANGE))
        self.receive(accept(1, 1, 1))
        self.assertEqual(self.data.views.last_installed, self.view)
        self.assertEqual(self.brought_to(), [])
        self.storage.finish_all()
        self.assertEqual(self.brought_to(), [1, 3, 4])

    def test_server_that_has_executed_the_change_is_left_out(self) -> None:
        """An ALIVE of that server has said so. A server that executes the change late sends it to few others."""
        self.follow()
        self.receive(alive(3, self.view, local_aru=1), epoch=1)
        self.transport.sent.clear()
        self.receive(reply(3, ordered(3, 1, CHANGE), local_aru=1), epoch=1)
        self.assertExecuted([CHANGE])
        self.assertEqual(self.brought_to(), [1, 4])

    def brought(self) -> dict[int | None, list[int]]:
        """Server -> the slots that this server has sent to it."""
        sent = [(each.to, each.message) for each in self.transport.sent]
        return {to: [u.seq for u in reply.updates] for to, reply in sent if isinstance(reply, ReconciliationReply)}

    def test_slots_before_the_change_go_with_it(self) -> None:
        """Slots before the change are sent with it, since this server's votes for them are dropped, too; a server that
        lacks more than is in memory, as one that comes, is sent the change alone."""
        self.follow()
        self.order(1, ALICE)
        self.change(2)
        self.assertEqual(self.brought(), {1: [1, 2], 3: [1, 2], 4: [2]})

    def test_slots_that_a_server_has_are_left_out(self) -> None:
        """Slots that a server has executed, as its ALIVE tells, are not sent to it with the change."""
        self.follow()
        self.order(1, ALICE)
        self.receive(alive(3, 1, local_aru=1))
        self.change(2)
        self.assertEqual(self.brought(), {1: [1, 2], 3: [2], 4: [2]})

    def test_highest_slots_go_if_not_all_fit_a_frame(self) -> None:
        """If the slots before the change do not fit a frame, the highest ones are sent with it; a server that lacks
        more asks for the rest."""
        self.follow()
        for seq in range(1, 9):
            self.order(seq, evolve(ALICE, timestamp=seq, payload=bytes(self.settings.frame_data_bytes_max // 4)))
        self.change(9)
        self.assertEqual(self.brought(), {1: [7, 8, 9], 3: [7, 8, 9], 4: [9]})

    def test_snapshot_of_the_next_epoch_is_no_slot(self) -> None:
        """A server that was brought into the epoch by a snapshot has no slot to send."""
        self.follow()
        self.replica.perform(lambda: self.replica.epochs.begin(self.next, by_snapshot=True))
        self.assertEqual(self.brought_to(), [])
        self.transport.sent.clear()


class VoidTests(EpochTestCase):
    """Slots that the former epoch has left above the change do not count."""

    def test_slot_that_was_ordered_above_the_change_is_filled_anew(self) -> None:
        """A batch that the former epoch has ordered above the change is void: the next epoch orders another one in its
        slot."""
        self.follow()
        self.receive(proposal(1, 1, 2, ALICE))
        self.take(Accept)
        self.receive(accept(1, 1, 2))
        self.assertEqual(self.batch_held_at(2), batch(ALICE))
        self.change()
        self.assertExecuted([CHANGE])
        self.assertIs(self.slot(2), None)
        self.receive(proposal(3, self.view, 2, BOB))
        self.take(Accept)
        self.receive(accept(3, self.view, 2))
        self.assertExecuted([CHANGE], [BOB])

    def test_votes_behind_the_change_in_one_message_are_void(self) -> None:
        """If an ACCEPT orders the change, its votes for slots above the change are void."""
        self.follow()
        self.receive(proposal(1, 1, 1, CHANGE), proposal(1, 1, 2, ALICE))
        self.take(Accept)
        self.receive(accept(1, 1, 1, 2))
        self.assertExecuted([CHANGE])
        self.assertIs(self.slot(2), None)

    def test_data_list_ends_with_the_change(self) -> None:
        """A promise whose data list brings the change ends there: a proposal above it is void."""
        self.begin_prepare_phase()
        void = evolve(proposal(1, 1, 2, ALICE))
        self.receive(prepare_ok(3, 2, ordered(3, 1, CHANGE), void))
        self.assertExecuted([CHANGE])
        self.assertIs(self.slot(2), None)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.data.views.last_installed, self.view)

    def test_other_messages_of_the_same_frame_are_void(self) -> None:
        """If a frame brings the vote that orders the change, a PROPOSAL of the former epoch behind it in the frame is
        discarded."""
        self.follow()
        self.receive(proposal(1, 1, 1, CHANGE))
        self.take(Accept)
        self.receive(accept(1, 1, 1), proposal(1, 1, 2, ALICE), epoch=0)
        self.assertDiscarded("epoch")
        self.assertIs(self.slot(2), None)

    def test_change_and_more_from_a_server_that_it_removes(self) -> None:
        """If one frame of the next epoch brings the change, and then an ALIVE of a sender that the change removes, the
        ALIVE is discarded."""
        self.follow()
        self.receive(reply(1, ordered(1, 1, CHANGE), local_aru=1), alive(1, self.view, local_aru=1), epoch=1)
        self.assertExecuted([CHANGE])
        self.assertDiscarded("epoch")
        self.assertNotIn(1, self.replica.peers.by_id)

    def test_history_of_the_next_epoch_meets_a_void_mark(self) -> None:
        """If the next epoch has ordered another batch in a slot that the former epoch had ordered here, this server
        takes it, and does not stop."""
        self.follow()
        self.receive(proposal(1, 1, 2, ALICE))
        self.take(Accept)
        self.receive(accept(1, 1, 2))
        self.receive(reply(3, ordered(3, 1, CHANGE), ordered(3, 2, BOB), local_aru=2), epoch=1)
        self.assertExecuted([CHANGE], [BOB])

    def test_slot_above_a_change_that_is_missing_is_not_taken(self) -> None:
        """An ordered slot of a later epoch is not taken while the change is missing: it would count as ordered in the
        epoch that the change ends."""
        self.follow()
        self.receive(reply(3, ordered(3, 2, BOB), local_aru=2), epoch=1)
        self.assertIs(self.slot(2), None)
        self.assertExecuted()

    def test_ordered_slot_of_a_leader_in_the_former_epoch_is_not_taken(self) -> None:
        """A leader may send slots that it has ordered and not executed: they hold in its own epoch only."""
        self.follow()
        self.change()
        self.receive(reply(1, ordered(1, 2, ALICE), local_aru=0), epoch=0)
        self.assertIs(self.slot(2), None)


class FirstLeaderTests(EpochTestCase):
    """Server 2 leads the first view of the next epoch."""

    next = Members((2, 3, 4), epoch=1, first=2)
    view = view_of(1, 1)

    def test_first_leader_leads_at_once_and_fills_the_next_slot(self) -> None:
        """The first leader of an epoch leads without a PREPARE, as the epoch holds nothing older, and proposes an empty
        batch, which brings the epoch into force."""
        self.follow()
        self.change()
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.assertNotSent(Prepare)
        self.assertEqual(self.data.ordering.last_proposed, 2)
        [filled] = self.take(Proposal)
        self.assertEqual((filled.view, filled.seq, filled.batch.updates()), (self.view, 2, []))
        self.take(Accept)

    def test_updates_that_the_former_epoch_has_lost_are_taken_again(self) -> None:
        """A leader proposes an update again that stood in a void slot: Last_Enqueued does not hold such updates."""
        self.lead(2)
        self.receive(CHANGE, sender=1)
        self.receive(ALICE, sender=3)
        self.assertEqual([each.seq for each in self.take(Proposal)], [1, 2])
        self.take(Accept)
        self.receive(accept(3, 2, 1))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.take(Proposal)
        self.take(Accept)
        self.receive(ALICE, sender=3)
        self.assertEqual([(each.view, each.batch.updates()) for each in self.take(Proposal)], [(self.view, [ALICE])])
        self.take(Accept)

    def test_first_slot_is_filled_at_once_though_the_view_was_being_handed_over(self) -> None:
        """A change ends a hand-over under way, so that the first leader of the next epoch fills its first slot at once:
        its window is open."""
        self.lead(2)
        self.receive(CHANGE, sender=1)
        self.take(Proposal)
        self.take(Accept)
        for other in (1, 3):
            self.receive(alive(other, 2))
        ends: list[str | None] = []
        hand_over = self.replica.hand_over
        self.replica.perform(hand_over.begin, 3, HandOverReason.ASKED, ends.append)
        (asked,) = self.take(Confirm)
        self.receive(Confirmed(3, 2, asked.number))
        self.replica.perform(hand_over.step)
        self.assertTrue(self.replica.window.is_closed)
        self.receive(accept(3, 2, 1))
        self.assertEqual(ends, ["the membership has changed meanwhile"])
        self.assertEqual([(each.view, each.seq) for each in self.take(Proposal)], [(self.view, 2)])
        self.take(Accept)

    def test_target_of_a_hand_over_that_a_change_has_ended_is_asked_again(self) -> None:
        """A leader that stops asks the target of a hand-over again in the next epoch if a change has ended that
        hand-over."""
        self.lead(2)
        self.receive(CHANGE, sender=1)
        self.take(Proposal)
        self.take(Accept)
        self.receive(alive(3, 2))
        self.replica.perform(self.replica.hand_over.hand_over_to_stop)
        self.assertEqual([sent.to for sent in self.transport.sent if isinstance(sent.message, Confirm)], [3])
        self.take(Confirm)
        self.receive(accept(3, 2, 1))
        self.take(Proposal)
        self.take(Accept)
        self.receive(alive(3, self.view, local_aru=1))
        self.replica.perform(self.replica.hand_over.step)
        self.assertEqual([each.view for each in self.take(Confirm)], [self.view])
        self.assertTrue(self.replica.hand_over.is_stopping)

    def test_updates_of_servers_that_are_gone_are_dropped(self) -> None:
        """At a change, a leader drops queued updates of servers that are gone: other servers would accept no batch with
        one, and the leader would repeat it for ever."""
        self.lead(2)
        self.receive(CHANGE, sender=1)
        self.take(Proposal)
        self.take(Accept)
        self.data.clients.update_queue.append(GONE)
        self.receive(accept(3, 2, 1))
        self.assertEqual([each.batch.updates() for each in self.take(Proposal)], [[]])
        self.take(Accept)
        self.receive(GONE, sender=3)
        self.assertDiscarded("invalid")


class CountTests(EpochTestCase):
    """Votes of the next epoch are those of its voters."""

    def test_server_that_is_gone_counts_no_more(self) -> None:
        """A vote of a server that the change has removed does not count, and its sender is told by an ALIVE how far the
        others are."""
        self.follow()
        self.change()
        self.receive(proposal(3, self.view, 2, ALICE))
        self.take(Accept)
        self.transport.sent.clear()
        self.receive(accept(1, self.view, 2), epoch=1)
        self.assertExecuted([CHANGE])
        self.assertEqual([(type(sent.message), sent.to) for sent in self.transport.sent], [(Alive, 1)])
        self.receive(accept(4, self.view, 2))
        self.assertExecuted([CHANGE], [ALICE])

    def test_server_of_a_later_epoch_is_asked_for_slots(self) -> None:
        """A server of a later epoch that is none of this epoch is asked for slots if it has executed more."""
        self.follow()
        self.receive(alive(4, self.view, local_aru=2), epoch=1)
        self.assertEqual(self.take(ReconciliationRequest), [ReconciliationRequest(2, 1, 2)])
        self.receive(alive(4, self.view, local_aru=0), epoch=1)
        self.assertNotSent(ReconciliationRequest)
        self.receive(reply(4, ordered(4, 1, CHANGE), local_aru=2), epoch=1)
        self.assertExecuted([CHANGE])
        self.take(Alive)

    def test_stranger_of_no_later_epoch_is_asked_for_nothing(self) -> None:
        """A server that is none of this epoch, and in no later one, is asked for nothing: it may have been removed
        before."""
        self.follow()
        self.receive(alive(4, 1, local_aru=2), epoch=0)
        self.receive(reply(4, ordered(4, 1, ALICE), local_aru=2), epoch=0)
        self.assertNotSent(ReconciliationRequest)
        self.assertEqual(self.data.ordering.local_aru, 0)
        self.take(Alive)

    def test_what_cannot_be_right_is_not_taken_from_a_stranger(self) -> None:
        """An update of the future, far slots, wrong parts of snapshots, and a Local_Aru above all slots, as a confused
        server sends them."""
        self.follow()
        name = SnapshotName(2, 10, bytes(SNAPSHOT_DIGEST_BYTES))
        wrong = (
            (reply(4, ordered(4, 1, evolve(ALICE, made_at=1)), local_aru=2), "invalid"),
            (reply(4, ordered(4, SLOT_MAX - 1, ALICE), local_aru=SLOT_MAX), "implausible"),
            (SnapshotOffer(4, 1, name), "implausible"),
            (SnapshotPart(4, name, 8, b"too much"), "implausible"),
            (SnapshotRequest(4, name, 8, 8), "implausible"),
            (alive(4, self.view, local_aru=SLOT_MAX + 1), "implausible"),
        )
        for message, line in wrong:
            self.receive(message, epoch=1)
            self.assertDiscarded(line)
        self.assertNotSent(ReconciliationRequest)
        self.assertEqual(self.data.ordering.local_aru, 0)
        self.take(Alive)

    def test_stranger_that_brings_slots_is_asked_on(self) -> None:
        """A server of a later epoch is asked for one burst of slots after the other until the change is executed."""
        self.follow()
        self.receive(alive(4, self.view, local_aru=3), epoch=1)
        self.take(ReconciliationRequest)
        self.receive(reply(4, ordered(4, 1, ALICE), local_aru=3), epoch=1)
        self.assertEqual(self.take(ReconciliationRequest), [ReconciliationRequest(2, 2, 3)])
        self.receive(reply(4, ordered(4, 1, ALICE), local_aru=3), epoch=1)
        self.assertNotSent(ReconciliationRequest)
        self.take(Alive)

    def test_server_that_is_gone_is_served_slots(self) -> None:
        """The server may need the change to learn that it is gone."""
        self.follow()
        self.change()
        self.take(ReconciliationReply)
        self.transport.sent.clear()
        self.receive(request(1, 1, 1), epoch=0)
        self.assertEqual([each.updates for each in self.take(ReconciliationReply)], [(ordered(2, 1, CHANGE),)])

    def test_view_of_the_next_epoch_is_not_installed_by_a_proof(self) -> None:
        """A VC_PROOF of the next epoch is discarded: a server that followed it would skip the change."""
        self.expire_progress_timer() if self.replica.progress_timer.running else None
        self.receive(vc_proof(3, self.view), epoch=1)
        self.assertDiscarded("epoch")
        self.assertEqual(self.data.views.last_installed, 0)

    def test_messages_of_another_epoch_are_discarded(self) -> None:
        """A message that binds, or asks for a bond, counts in its own epoch alone."""
        self.follow()
        self.change()
        for message in (
            view_change(3, 2),
            vc_proof(3, 2),
            Prepare(1, 1, 0),
            PrepareOK(3, 1, ()),
            proposal(1, 1, 2, ALICE),
            accept(3, 1, 2, of=[batch(ALICE)]),
            Confirm(1, 1, 1),
            Confirmed(3, 1, 1),
            ReadRequest(3, 1),
            ReadIndex(3, 1, 1),
        ):
            with self.subTest(type(message).__name__):
                self.receive(evolve(message, server_id=3), epoch=0)
                self.assertDiscarded("epoch")

    def test_sender_in_an_earlier_epoch_is_told_once_in_a_while(self) -> None:
        """A sender in an earlier epoch is told now and then, by an ALIVE, how far this server has executed."""
        self.follow()
        self.change()
        self.transport.sent.clear()
        for _ in range(3):
            self.receive(view_change(3, 2), epoch=0)
        told = [sent.to for sent in self.transport.sent if isinstance(sent.message, Alive) and sent.to is not None]
        self.assertEqual(told, [3])


class LateTests(EpochTestCase):
    """A server that has not executed the change while others have."""

    def test_leader_that_is_told_leaves_its_view_and_asks(self) -> None:
        """A leader that is told of a later epoch leaves its view, and asks for slots: a leader asks for none."""
        self.lead(2)
        self.receive(alive(3, self.view, State.REG_LEADER, local_aru=1), epoch=1)
        self.assertDiscarded("epoch")
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.take(ViewChange)
        self.advance(0.5)
        self.assertIn(ReconciliationRequest(2, 1, 1), self.take(ReconciliationRequest))
        self.take(ViewChange)

    def test_leader_in_a_later_epoch_is_no_leader_here(self) -> None:
        """An ALIVE of a later epoch tells of executed slots, and does not make this server suspect its own leader."""
        self.follow()
        self.receive(alive(3, self.view, State.REG_LEADER, local_aru=0), epoch=1)
        self.assertEqual(self.replica.peers.by_id[3].view, 0)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)

    def test_target_above_the_change_is_forgotten(self) -> None:
        """Slots above the change that a server still wanted to fetch in the former epoch are forgotten: they never
        come."""
        self.follow()
        self.receive(alive(3, 1, local_aru=1))
        self.replica.perform(self.replica.reconciliation.catch_up_to, 5)
        self.change()
        self.assertFalse(self.replica.reconciliation.is_behind())
        self.replica.peers.by_id[3].local_aru = 0
        self.advance(0.5)
        self.assertNotSent(ReconciliationRequest)
        self.take(ViewChange)


class ReadTests(EpochTestCase):
    """Departure 24 across a change."""

    def setUp(self) -> None:
        super().setUp()
        self.follow()
        self.answers: list[bool] = []
        self.replica.perform(self.replica.reads.begin_reads, [self.answers.append])
        [self.asked] = self.take(ReadRequest)

    def test_index_at_the_change_is_asked_for_anew(self) -> None:
        """A read index that is the slot of the change is asked for anew: the next epoch may have answered commands
        above it already."""
        self.receive(ReadIndex(1, self.asked.number, 1))
        self.change()
        self.assertEqual(self.answers, [])
        [again] = self.take(ReadRequest)
        self.assertGreater(again.number, self.asked.number)
        self.receive(ReadIndex(3, again.number, 1))
        self.assertEqual(self.answers, [True])

    def test_index_below_the_change_holds(self) -> None:
        """A read index below the slot of the change holds: it was found before the change was proposed."""
        self.receive(proposal(1, 1, 1, ALICE))
        self.take(Accept)
        self.receive(ReadIndex(1, self.asked.number, 1))
        self.receive(proposal(1, 1, 2, CHANGE))
        self.take(Accept)
        self.receive(accept(1, 1, 2))
        self.receive(accept(1, 1, 1))
        self.assertEqual(self.answers, [True])
        self.assertNotSent(ReadRequest)

    def test_answer_to_a_request_of_the_former_epoch_is_dropped(self) -> None:
        """A read index that comes from the former epoch is discarded, whether its number is that of the former request
        or of the present one."""
        self.change()
        [again] = self.take(ReadRequest)
        for number in (self.asked.number, again.number):
            self.receive(evolve(ReadIndex(1, number, 1), server_id=3), epoch=0)
            self.assertDiscarded("epoch")
        self.assertEqual(self.answers, [])


class SnapshotTests(EpochTestCase):
    """Departure 57 across a change."""

    def snapshot(self) -> list[Piece]:
        """The snapshot of a server that has executed the change in slot 1, and one more slot."""
        self.follow()
        self.change()
        self.receive(reply(3, ordered(3, 2, ALICE), local_aru=2))
        pieces = [*self.replica.ordered_queue.freeze()]
        self.replica.stop()
        self.transport.sent.clear()
        return pieces

    def install(self, pieces: list[Piece]) -> None:
        restorer = self.replica.ordered_queue.restorer()
        for piece in pieces:
            restorer.take(piece)
        restorer.adopt()
        self.replica.snapshot_fetcher.installed += 1

    def test_snapshot_of_a_later_epoch_begins_it(self) -> None:
        """Slots that the former epoch has left above the snapshot are void."""
        pieces = self.snapshot()
        self.start()
        self.follow()
        self.receive(proposal(1, 1, 3, BOB))
        self.take(Accept)
        self.replica.perform(self.install, pieces)
        self.assertEqual(self.replica.membership.members, evolve(self.next, since=1))
        self.assertEqual(self.data.views.last_installed, self.view)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertIs(self.slot(3), None)
        self.assertIn(EpochRecord(evolve(self.next, since=1)), self.storage.records)

    def test_snapshot_of_the_present_epoch_leaves_votes_alone(self) -> None:
        """A snapshot of the present epoch does not void proposals that this server has accepted above it."""
        pieces = self.snapshot()
        self.start()
        self.follow()
        self.change()
        self.receive(proposal(3, self.view, 3, BOB))
        self.take(Accept)
        self.take(ReconciliationRequest)
        self.replica.perform(self.install, pieces)
        slot = self.slot(3)
        assert slot is not None
        self.assertEqual(slot.proposal, proposal(3, self.view, 3, BOB))
        self.assertEqual(self.data.views.last_installed, self.view)

    def test_damaged_members_are_refused(self) -> None:
        """A snapshot is refused if its members have a wrong form, or if their epoch does not begin at a slot that the
        snapshot holds."""
        head = (2, bytes(16), 0, 0, 0)
        for form in (b"garbage", encode_members(evolve(self.next, since=3)), encode_members(self.next), 5):
            restorer = self.replica.ordered_queue.restorer()
            self.assertRaises(WrongSnapshot, restorer.take, Piece("history", packed((*head, form))))


class SnapshotOfFirstLeaderTests(SnapshotTests):
    """Server 2 would lead the first view of the next epoch, had it executed the change."""

    next = Members((2, 3, 4), epoch=1, first=2)
    view = view_of(1, 1)

    def test_snapshot_of_a_later_epoch_begins_it(self) -> None:
        """A server that comes into an epoch by a snapshot does not lead its first view: it may have led that view
        before, and lost its disk since."""
        self.data.ordering.last_proposed = 0
        members = encode_members(evolve(self.next, since=1))
        executed = Piece("executed", packed([]))
        self.follow()
        self.replica.perform(self.install, [Piece("history", packed((2, bytes(16), 0, 0, 0, members))), executed])
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.advance(0.0)
        self.assertEqual(self.take(ViewChange), [ViewChange(2, self.view + 1)])

    def test_snapshot_of_the_present_epoch_leaves_votes_alone(self) -> None:
        """There is nothing to test here: a leader installs no snapshots."""


class OutsiderTests(EpochTestCase):
    """The next epoch has server 2 only as a learner, or not at all."""

    next = Members((1, 3, 4), (2,), epoch=1, first=3)
    view = view_of(1, 2)

    def test_learner_takes_no_part(self) -> None:
        """A learner neither votes nor confirms, and its timer does not run."""
        self.follow()
        self.change()
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertFalse(self.replica.progress_timer.running)
        for message in (proposal(3, self.view, 2, ALICE), Confirm(3, self.view, 1), Prepare(3, self.view, 1)):
            self.receive(message)
            self.assertDiscarded("newcomer")
        self.advance(2.0)
        self.assertNotSent(ViewChange)

    def test_learner_answers_no_alive_by_an_alive(self) -> None:
        """A learner waits for no ACQUAINTED. A voter that has just started answers each ALIVE of a server that has not
        sent it ACQUAINTED, so the two would answer each other without end."""
        self.follow()
        self.change()
        self.take(ReconciliationReply)
        self.transport.sent.clear()
        self.receive(alive(4, self.view, local_aru=1))
        self.assertEqual([sent for sent in self.transport.sent if isinstance(sent.message, Alive)], [])

    def test_learner_executes_what_the_others_order(self) -> None:
        """A learner fetches and executes what the others order by reconciliation."""
        self.follow()
        self.change()
        self.receive(alive(3, self.view, State.REG_LEADER, local_aru=2))
        self.advance(0.5)
        self.assertIn(ReconciliationRequest(2, 2, 2), self.take(ReconciliationRequest))
        self.receive(reply(3, ordered(3, 2, ALICE), local_aru=2))
        self.assertExecuted([CHANGE], [ALICE])


class RemovedTests(EpochTestCase):
    """The next epoch does not have server 2."""

    next = Members((1, 3, 4), epoch=1, first=3, retired=(2,))

    def test_removed_server_takes_no_part(self) -> None:
        """A server that was removed knows that it is gone: its timer does not run, and it votes for no view."""
        self.follow()
        self.change()
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.assertFalse(self.replica.progress_timer.running)
        self.advance(2.0)
        self.assertNotSent(ViewChange)


class LeftBehindTests(EpochTestCase):
    """Server 2 is a founder without data. Server 1 is in a later epoch, and knows another storage of server 2, or that
    it was removed: so it takes no frame of this one."""

    def after_start(self) -> None:
        del self.replica.membership.identities[1]

    def tell_of_later(self) -> None:
        self.receive(alive(1, view_of(3, 1), State.REG_LEADER, local_aru=9), epoch=3)
        self.take(Heard)

    def test_cluster_does_not_begin_for_a_time_after_one_frame(self) -> None:
        """A forged frame holds up a birth, and nothing else."""
        epochs = self.replica.epochs
        self.assertTrue(epochs.may_begin())
        self.tell_of_later()
        self.assertEqual((epochs.may_begin(), epochs.is_left_behind), (False, False))
        self.advance(LATER_SECONDS + 0.1)
        self.assertTrue(epochs.may_begin())
        self.tell_of_later()
        self.assertFalse(epochs.is_left_behind, "the time between the two frames does not count")
        self.take(ViewChange)

    def test_server_that_is_not_known_for_long_was_removed(self) -> None:
        epochs = self.replica.epochs
        self.tell_of_later()
        self.advance(UNKNOWN_SECONDS)
        self.tell_of_later()
        self.assertEqual((epochs.is_left_behind, epochs.missed_epoch), (True, 3))
        self.advance(2 * LATER_SECONDS)
        self.assertFalse(epochs.may_begin())
        self.take(ViewChange)

    def test_frames_of_known_servers_and_of_the_same_epoch_mean_nothing(self) -> None:
        """Nor do any once this server has executed something."""
        epochs = self.replica.epochs
        for _ in range(2):
            self.receive(alive(1, 1, State.REG_LEADER))
            self.receive(alive(3, view_of(3, 1), State.REG_LEADER), epoch=3)
            self.advance(UNKNOWN_SECONDS)
        self.assertTrue(epochs.may_begin())
        self.receive(reply(3, ordered(3, 1, ALICE), local_aru=1))
        self.assertExecuted([ALICE])
        for _ in range(2):
            self.tell_of_later()
            self.advance(UNKNOWN_SECONDS)
        self.assertEqual((epochs.may_begin(), epochs.is_left_behind), (True, False))
        for kind in (Heard, ViewChange, ReconciliationRequest):
            self.take(kind)


class RestartTests(EpochTestCase):
    """Figure 14 with a change."""

    starts = False

    def found_change(self) -> None:
        self.found.last_attempted = self.found.last_installed = 1
        self.found.accepted = [Accepted(1, 0, batch(CHANGE)), Accepted(2, 0, batch(ALICE)), Accepted(3, 1, batch(BOB))]

    def test_change_that_was_executed_and_not_forced_begins_the_epoch(self) -> None:
        """If the disk has the change as ordered, but no record of its epoch, the start begins the epoch, and slots
        above the change are void."""
        self.found_change()
        self.start()
        self.assertExecuted([CHANGE])
        self.assertEqual(self.replica.membership.members, evolve(self.next, since=1))
        self.assertEqual(self.take_records(EpochRecord), [EpochRecord(evolve(self.next, since=1))])
        self.assertEqual([self.slot(2), self.slot(3)], [None, None])
        self.assertEqual(self.data.views.last_installed, self.view)
        self.take(ViewChange)

    def test_epoch_that_is_on_disk_is_rebuilt(self) -> None:
        """A start with an epoch on disk executes the change again without beginning another epoch, and keeps the slots
        of the epoch."""
        after = evolve(self.next, since=1)
        self.found.members = after
        self.found.last_attempted = self.found.last_installed = self.view
        self.found.local_aru = 1
        self.found.ordered = [(1, batch(CHANGE))]
        self.found.accepted = [Accepted(2, self.view, batch(ALICE))]
        self.found.peers[4] = evolve(self.found.peers[1], server_id=4, identity=identity_of(4))
        self.start()
        self.assertEqual(self.replica.membership.members, after)
        self.assertEqual(self.take_records(EpochRecord), [])
        self.assertEqual(self.transport.others, (3, 4))
        slot = self.slot(2)
        assert slot is not None
        self.assertEqual(slot.proposal, Proposal(2, self.view, 2, batch(ALICE)))
