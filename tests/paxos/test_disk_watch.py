"""Departures 44 and 45: disks that hang or are full, as the protocol sees them."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import (
    Accept,
    Acquainted,
    Alive,
    Confirmed,
    KnownPosition,
    Prepare,
    Proposal,
    ReconciliationRequest,
    State,
    VCProof,
    ViewChange,
)
from pfsb.paxos.messages import Confirm as ConfirmMessage
from pfsb.paxos.records import ProposalRecord
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import accept, alive, client_update, ordered, prepare, proposal, reply, vc_proof

DISK_SECONDS = 3.0
UPDATE = client_update("alice", 1, server_id=1)


class DiskTestCase(ReplicaTestCase):
    """Server 2 of five, whose disk counts as hanging after three seconds."""

    settings = evolve(SMALL, disk_seconds=DISK_SECONDS)

    def hang(self) -> None:
        """Let a write hang until the server has noticed; the other servers order the slot that the write is about."""
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, UPDATE))
        for other in (1, 3):
            self.receive(accept(other, 1, 1))
        self.pass_time(DISK_SECONDS + 0.6)
        self.assertIs(self.replica.turn.trouble, DiskTrouble.HANGS)

    def fill(self) -> None:
        self.storage.is_full = True
        self.advance(0.2)
        self.assertIs(self.replica.turn.trouble, DiskTrouble.FULL)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in which the leader of view 1 is heard."""
        for _ in range(round(seconds / 0.2)):
            self.hear_leader()
            self.advance(0.2)


class HangingDiskTests(DiskTestCase):
    def after_start(self) -> None:
        self.follow()

    def tearDown(self) -> None:
        self.hold_syncs = False
        self._after_event()
        self.transport.sent.clear()
        super().tearDown()

    def test_write_that_ends_in_time_is_no_trouble(self) -> None:
        """Writes that each end in time are no trouble, however slow: the time counts anew from each write that ends."""
        self.hold_syncs = True
        for seq in (1, 2, 3):
            self.receive(proposal(1, 1, seq, client_update("alice", seq, server_id=1)))
            self.pass_time(DISK_SECONDS - 0.4)
            self.storage.finish_all()
            self.assertIsNone(self.replica.turn.trouble)

    def test_time_in_which_the_process_stood_still_does_not_count(self) -> None:
        """The time in which the process stood still (SIGSTOP, SIGCONT) does not count: the disk had no time to
        answer."""
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, UPDATE))
        self.pass_time(0.4)
        self.clock.rightNow += 60
        self.pass_time(0.4)
        self.assertIsNone(self.replica.turn.trouble)

    def test_nothing_waits_and_nothing_is_written_while_the_disk_hangs(self) -> None:
        """While the disk hangs, messages are dropped on arrival and at the gate, and no write begins, so that memory
        does not grow."""
        self.hang()
        waiting, syncs = self.replica.turn.messages_in_wait, self.storage.syncs
        self.storage.records.clear()
        for seq in range(1, 5):
            self.receive(proposal(1, 1, seq, client_update("bob", seq, server_id=1)))
        self.receive(prepare(3, 2))
        self.introduce(client_update("carol", 1, server_id=2))
        self.pass_time(5)
        self.assertEqual((self.replica.turn.messages_in_wait, self.storage.syncs), (waiting, syncs))
        self.assertEqual(self.storage.records, [])
        self.assertEqual(self.replica.discarded["disk"], 5)

    def test_alive_leaves_and_says_that_this_server_is_out(self) -> None:
        """While the disk hangs, ALIVE leaves without waiting, and tells the state of a server that neither leads nor
        follows."""
        self.hang()
        self.transport.sent.clear()
        self.advance(0.2)
        told = [sent.message for sent in self.transport.sent]
        self.assertEqual([type(message) for message in told], [Alive])
        self.assertEqual([message.state for message in told if isinstance(message, Alive)], [State.LEADER_ELECTION])

    def test_server_suspects_no_leader(self) -> None:
        """A server whose disk hangs does not suspect its leader, though that is dead: an election would need the
        disk."""
        self.hang()
        self.advance(20)
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertTrue(self.replica.progress_timer.running)

    def test_server_takes_part_again_when_the_disk_answers(self) -> None:
        """When the disk answers again, the vote that has waited leaves, and the next proposal gets a vote."""
        self.hang()
        self.hold_syncs = False
        self._after_event()
        self.pass_time(0.4)
        self.assertIsNone(self.replica.turn.trouble)
        self.assertSent(accept(2, 1, 1))
        self.receive(proposal(1, 1, 2, client_update("alice", 2, server_id=1)))
        self.assertSent(accept(2, 1, 2))
        self.assertEqual(self.notes.of("disk"), [{"trouble": "hangs"}, {"trouble": None}])

    def test_stale_state_may_be_shown_only_if_it_rests_on_nothing_that_waits(self) -> None:
        """While the disk hangs, questions about the present state may be answered only if no executed slot waits at the
        gate: after a crash such a slot might be executed otherwise."""
        self.order(1, UPDATE)
        self.hold_syncs = True
        self.receive(proposal(1, 1, 2, client_update("alice", 2, server_id=1)))
        self.assertTrue(self.replica.turn.shows_only_what_is_durable)
        for other in (1, 3):
            self.receive(accept(other, 1, 2))
        self.assertEqual(self.data.ordering.local_aru, 2)
        self.assertFalse(self.replica.turn.shows_only_what_is_durable)


class HangingLeaderTests(DiskTestCase):
    def test_leader_proposes_nothing(self) -> None:
        """A leader whose disk hangs proposes nothing; commands that are under way stay so."""
        self.lead(view=2)
        self.hold_syncs = True
        self.introduce(client_update("carol", 1, server_id=2))
        self.take(Proposal)
        for _ in range(20):
            self.receive(alive(1, 2), alive(3, 2))
            self.advance(0.2)
            self.take(Proposal)
        self.assertIs(self.replica.turn.trouble, DiskTrouble.HANGS)
        self.introduce(client_update("dora", 1, server_id=2))
        self.advance(1)
        self.assertNotSent(Proposal)
        self.hold_syncs = False
        self._after_event()
        self.transport.sent.clear()

    def test_leader_does_not_count_followers_whose_disks_hang(self) -> None:
        """A leader does not count followers whose disks hang. With too few others it suspects itself, so that a
        majority can follow another leader."""
        self.lead(view=2)
        for _ in range(20):
            self.receive(alive(1, 2))
            self.receive(alive(3, 2, State.LEADER_ELECTION))
            self.advance(0.2)
        self.assertIs(self.data.server.state, State.LEADER_ELECTION)
        self.take(ViewChange)


class LeaderWhoseDiskHangsTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow()

    def test_leader_that_says_it_leads_no_more_is_suspected(self) -> None:
        """Departure 44: if the leader's ALIVE says that it leads no more, what is left of the Progress_Timer is cut to
        a small random delay."""
        self.hear_leader()
        self.receive(alive(1, 1, State.LEADER_ELECTION))
        self.advance(0.03)
        self.assertIn(ViewChange(2, 2), self.take(ViewChange))

    def test_leader_that_does_not_lead_yet_is_waited_for(self) -> None:
        """A leader that does not lead yet is not suspected for that: it tells LEADER_ELECTION until its view is
        prepared."""
        self.receive(alive(1, 1, State.LEADER_ELECTION))
        self.advance(0.5)
        self.assertNotSent(ViewChange)

    def test_other_followers_and_other_views_do_not_count(self) -> None:
        """An ALIVE of another follower, or of another view, that tells LEADER_ELECTION does not end the followed
        view."""
        self.hear_leader()
        self.receive(alive(3, 1, State.LEADER_ELECTION))
        self.receive(alive(1, 0, State.LEADER_ELECTION))
        self.advance(0.5)
        self.take(Acquainted)
        self.take(KnownPosition)
        self.assertEqual(self.take(ViewChange), [])


class FullDiskTests(DiskTestCase):
    def after_start(self) -> None:
        self.follow()

    def test_server_does_not_vote(self) -> None:
        """A server with a full disk does not vote, since a vote needs a record, and the room is reserved."""
        self.fill()
        self.receive(proposal(1, 1, 1, UPDATE))
        self.receive(vc_proof(1, 6))
        self.pass_time(3)
        self.assertNotSent(Accept)
        self.assertEqual(self.take_records(ProposalRecord), [])
        self.assertEqual(self.data.views.last_installed, 1)

    def test_what_was_voted_for_before_is_executed(self) -> None:
        """A server with a full disk executes slots for which it voted before, since the records of its votes are on
        disk."""
        self.receive(proposal(1, 1, 1, UPDATE))
        self.assertSent(accept(2, 1, 1))
        self.fill()
        self.receive(accept(1, 1, 1))
        self.receive(accept(3, 1, 1))
        self.assertExecuted([UPDATE])

    def test_server_confirms_reads_and_does_not_count_as_a_follower(self) -> None:
        """A server with a full disk confirms reads, which needs no disk, and does not count as a follower: a leader
        that counted on its votes would stay where nothing can be ordered."""
        self.fill()
        self.receive(ConfirmMessage(1, 1, 7))
        self.assertSent(Confirmed(2, 1, 7), 1)
        self.transport.sent.clear()
        self.advance(0.2)
        states = [sent.message.state for sent in self.transport.sent if isinstance(sent.message, Alive)]
        self.assertEqual(states, [State.LEADER_ELECTION])
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.transport.sent.clear()

    def test_server_that_is_behind_asks_for_nothing(self) -> None:
        """A server that is behind and whose disk is full asks for no slots, since it could not store them; it asks when
        there is room."""
        self.fill()
        self.hear_leader(local_aru=5)
        self.pass_time(2)
        self.assertNotSent(ReconciliationRequest)
        self.receive(reply(1, ordered(1, 1, UPDATE), burst_end=1))
        self.assertExecuted()
        self.storage.is_full = False
        for _ in range(3):
            self.hear_leader(local_aru=5)
            self.advance(0.2)
        self.assertNotEqual(self.take(ReconciliationRequest), [])

    def test_server_votes_again_when_there_is_room(self) -> None:
        self.fill()
        self.storage.is_full = False
        self.advance(0.2)
        self.receive(proposal(1, 1, 1, UPDATE))
        self.assertSent(accept(2, 1, 1))
        self.assertEqual(self.replica.disk_watch.begun, {DiskTrouble.HANGS: 0, DiskTrouble.FULL: 1})

    def test_disk_that_is_full_at_the_start_is_noticed_before_anything_is_sent(self) -> None:
        """A disk that is full at the start is noticed before the first ALIVE."""
        self.replica.stop()
        self.found.last_installed = self.found.last_attempted = 1
        self.start_full()
        self.assertIs(self.replica.turn.trouble, DiskTrouble.FULL)
        self.receive(prepare(3, 2))
        self.assertNotSent(Prepare)
        self.transport.sent.clear()

    def start_full(self) -> None:
        self.after_start = lambda: None  # type: ignore[method-assign]
        self.start()
        self.fill()

    def test_lazy_records_wait_for_room(self) -> None:
        """While the disk is full, lazy records wait for room: no message rests on them."""
        self.receive(proposal(1, 1, 1, UPDATE))
        self.assertSent(accept(2, 1, 1))
        self.fill()
        self.receive(accept(1, 1, 1), sender=1)
        self.receive(accept(3, 1, 1), sender=3)
        syncs = self.storage.syncs
        self.pass_time(1)
        self.assertEqual(self.storage.syncs, syncs)
        self.storage.is_full = False
        self.pass_time(0.4)
        self.assertEqual(self.storage.syncs, syncs + 1)
        self.take(VCProof)
