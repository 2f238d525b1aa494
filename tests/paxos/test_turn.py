"""The turn: one event runs to its end, its records go to disk, then its messages leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.members import Members
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Acquainted, Alive, Heard, KnownPosition, Message, Ordered, State, VCProof
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.peers import Peers
from pfsb.paxos.records import AruRecord, OrderedRecord, PeerRecord, ProposalRecord, Recovered, ViewRecord
from pfsb.paxos.replica import new_data
from pfsb.paxos.turn import Durable, Turn
from tests.paxos.case import SMALL, FakeStorage, FakeTransport, Notes, ReplicaTestCase, identity_of
from tests.paxos.messages import accept, alive, batch, client_update, proposal, vc_proof

FORCED = ViewRecord(1, 1)
LAZY = AruRecord(1)


class TurnTestCase(SynchronousTestCase):
    """A turn without a replica around it: events are functions of the test."""

    def setUp(self) -> None:
        self.data: DataStructures = new_data(2, SMALL)
        self.storage = FakeStorage(Recovered(identity_of(2), 1))
        self.transport = FakeTransport()
        self.failures: list[Failure] = []
        self.notes = Notes()
        membership = Membership(2, Members((1, 2, 3)))
        way_out = Outbound(membership, Peers(membership, Clock(), SMALL), self.transport, Clock(), SMALL, self.notes)
        self.at_end: list[Callable[[], None]] = []
        self.turn = Turn(self.data, self.storage, way_out, self.failures.append, self._end_turn, self.notes)
        self.told: list[Any] = []

    def say(self, message: Message, *records: Any, lazy: bool = False) -> None:
        """Run one turn that appends records and sends a message to all."""

        def event() -> None:
            for record in records:
                self.turn.append(record, lazy=lazy)
            self.turn.send(message)

        self.turn.run(event)

    def _end_turn(self) -> None:
        for call in self.at_end:
            call()

    def _raise(self) -> None:
        raise ZeroDivisionError

    def assertLeft(self, *messages: Message) -> None:
        self.assertEqual([sent.message for sent in self.transport.sent], list(messages))


class GateTests(TurnTestCase):
    def test_nothing_forced_leaves_before_sync(self) -> None:
        """A message that rests on a record leaves when the record is on disk, as at the paper's `**Sync to disk`."""
        self.say(accept(2, 1, 1), FORCED)
        self.assertLeft()
        self.storage.finish_sync()
        self.assertLeft(accept(2, 1, 1))

    def test_turn_without_records_leaves_at_once_when_the_disk_is_idle(self) -> None:
        """A turn without records leaves at once when the disk is idle, and no sync is asked for."""
        self.say(vc_proof(2, 1))
        self.assertLeft(vc_proof(2, 1))
        self.assertEqual(self.storage.syncs, 0)

    def test_turn_without_records_waits_for_the_records_of_earlier_turns(self) -> None:
        """A turn without records waits for the records of earlier turns: its message may rest on a change that one of
        them has made in memory."""
        self.say(accept(2, 1, 1), FORCED)
        self.say(vc_proof(2, 1))
        self.assertLeft()
        self.storage.finish_sync()
        self.assertLeft(accept(2, 1, 1), vc_proof(2, 1))

    def test_turns_leave_in_their_order(self) -> None:
        """Turns leave in their order: the gate never releases the second one first."""
        self.say(accept(2, 1, 1), FORCED)
        self.say(vc_proof(2, 7), FORCED)
        self.storage.finish_sync()
        self.assertLeft(accept(2, 1, 1))
        self.storage.finish_sync()
        self.assertLeft(accept(2, 1, 1), vc_proof(2, 7))

    def test_one_sync_for_all_records_of_a_turn(self) -> None:
        """All records of a turn are written by one sync."""
        self.say(accept(2, 1, 1), FORCED, ProposalRecord(1, 1, batch()))
        self.assertEqual(self.storage.syncs, 1)

    def test_client_is_told_after_the_sync(self) -> None:
        """A client is told after the sync: replies pass the same gate as messages."""

        def event() -> None:
            self.turn.append(FORCED)
            self.turn.call(self.told.append, "done")

        self.turn.run(event)
        self.assertEqual(self.told, [])
        self.storage.finish_sync()
        self.assertEqual(self.told, ["done"])

    def test_what_is_called_first_is_called_before_the_messages_leave(self) -> None:
        """Departure 54: functions that must be called first are called before the messages leave, since they set what
        the headers of the frames tell."""

        def event() -> None:
            self.turn.append(FORCED)
            self.turn.send(vc_proof(2, 1))
            self.turn.call_first(lambda: self.told.append(len(self.transport.sent)))

        self.turn.run(event)
        self.turn.run(self.turn.call, self.told.append, "later")
        self.assertEqual(self.told, [])
        self.storage.finish_sync()
        self.assertEqual(self.told, [0, "later"])
        self.assertLeft(vc_proof(2, 1))

    def test_idle_means_that_nothing_waits_at_the_gate(self) -> None:
        """The turn is idle when no outbox waits at the gate; a server that stops waits for that."""
        self.assertTrue(self.turn.idle)
        self.say(accept(2, 1, 1), FORCED)
        self.assertFalse(self.turn.idle)
        self.storage.finish_sync()
        self.assertTrue(self.turn.idle)


class EarlyTests(TurnTestCase):
    def test_alive_leaves_while_the_disk_is_busy(self) -> None:
        """An ALIVE leaves while the disk is busy: heartbeats never wait behind a write."""
        self.say(accept(2, 1, 1), FORCED)
        self.turn.run(self.turn.send_early, alive(2, 0))
        self.assertLeft(alive(2, 0))

    def test_proposal_leaves_before_its_own_record_is_on_disk(self) -> None:
        """Departure 2: a PROPOSAL leaves before its own record is on disk: it needs only Last_Installed there."""
        self.turn.durable.last_installed = 1

        def event() -> None:
            self.turn.append(ProposalRecord(1, 1, batch()))
            self.turn.send_early(proposal(2, 1, 1))
            self.turn.send(accept(2, 1, 1))

        self.turn.run(event)
        self.assertLeft(proposal(2, 1, 1))
        self.storage.finish_sync()
        self.assertLeft(proposal(2, 1, 1), accept(2, 1, 1))

    def test_proposal_waits_until_its_view_is_on_disk(self) -> None:
        """A PROPOSAL waits until its view is on disk: a leader that forgot its view in a crash could lead it again,
        with other proposals."""

        def event() -> None:
            self.turn.append(FORCED)
            self.turn.send_proposal_early(proposal(2, 1, 1))

        self.turn.run(event)
        self.assertLeft()
        self.storage.finish_sync()
        self.assertLeft(proposal(2, 1, 1))

    def test_proposal_and_ordered_wait_for_what_is_noted_about_voters(self) -> None:
        """Departure 54: PROPOSAL and ORDERED wait for records about the senders of the promises and votes on which they
        rest. An ALIVE does not, nor do messages that are sent when these records are on disk."""
        self.turn.durable.last_installed = self.data.views.last_installed = 1

        def event() -> None:
            self.turn.send_proposal_early(proposal(2, 1, 1))
            self.turn.append(PeerRecord(3, identity_of(3), 4, 5))
            self.turn.hold_ordered()
            self.turn.hold_proposals()
            self.turn.send_early(alive(2, 1))
            self.turn.send(accept(2, 1, 1))

        self.turn.run(event)
        ordered = Ordered(2, 1, (1,), batch().digest)
        self.turn.run(self.turn.send_early, ordered)
        self.assertLeft(alive(2, 1))
        self.storage.finish_sync()
        sent = [alive(2, 1), proposal(2, 1, 1), accept(2, 1, 1), ordered]
        self.assertLeft(*sent)
        self.say(accept(2, 1, 2), FORCED)
        self.turn.run(self.turn.send_proposal_early, proposal(2, 1, 3))
        self.assertLeft(*sent, proposal(2, 1, 3))

    def test_proposal_waits_for_no_note_about_the_sender_of_another_vote(self) -> None:
        """Departure 54: a PROPOSAL, which rests on promises alone, does not wait for a record about the sender of
        another vote: slow disks would otherwise cost a view at the first ACCEPT."""
        self.turn.durable.last_installed = self.data.views.last_installed = 1
        ordered = Ordered(2, 1, (1,), batch().digest)

        def event() -> None:
            self.turn.append(PeerRecord(3, identity_of(3), 4, 5))
            self.turn.hold_ordered()
            self.turn.send_early(ordered)
            self.turn.send_proposal_early(proposal(2, 1, 2))

        self.turn.run(event)
        self.assertLeft(proposal(2, 1, 2))
        self.turn.run(self.turn.send_proposal_early, proposal(2, 1, 3))
        self.assertLeft(proposal(2, 1, 2), proposal(2, 1, 3))
        self.storage.finish_sync()
        self.assertLeft(proposal(2, 1, 2), proposal(2, 1, 3), ordered)


class RefusalTests(TurnTestCase):
    def test_refusals_that_lead_to_further_ones_are_not_nested(self) -> None:
        """Each refused client may have a next request, which is refused in a turn of its own. Were these turns nested,
        the last clients of many would never be answered, since Python's stack is limited."""
        refused: list[int] = []

        def tell(number: int) -> None:
            refused.append(number)
            if number < 3_000:
                self.turn.run(self.turn.refuse, tell, number + 1)

        self.turn.run(self.turn.refuse, tell, 1)
        self.assertEqual(refused, [*range(1, 3_001)])
        self.assertTrue(self.turn.idle)


class LazyTests(TurnTestCase):
    def test_lazy_record_forces_nothing(self) -> None:
        """A lazy record, of values that other servers know already, asks for no sync, and no message waits for it."""
        self.say(vc_proof(2, 1), LAZY, lazy=True)
        self.assertEqual(self.storage.records, [LAZY])
        self.assertEqual(self.storage.syncs, 0)
        self.assertLeft(vc_proof(2, 1))

    def test_lazy_record_travels_with_the_next_group(self) -> None:
        """A lazy record is written with the next group, and then nothing is left to flush."""
        self.say(vc_proof(2, 1), LAZY, lazy=True)
        self.say(accept(2, 1, 1), FORCED)
        self.storage.finish_sync()
        self.turn.flush_lazy()
        self.assertEqual(self.storage.syncs, 1)

    def test_flush_gives_lazy_records_a_group_of_their_own(self) -> None:
        """A flush writes lazy records as a group of their own, so that ALIVE soon tells the truth on a quiet server."""
        self.data.ordering.local_aru = 1
        self.say(vc_proof(2, 1), LAZY, lazy=True)
        self.turn.flush_lazy()
        self.assertEqual(self.turn.durable.local_aru, 0)
        self.storage.finish_sync()
        self.assertEqual(self.turn.durable.local_aru, 1)

    def test_flush_writes_nothing_when_nothing_waits(self) -> None:
        """A flush without waiting records writes nothing, so that an idle cluster does not write."""
        self.turn.flush_lazy()
        self.assertEqual(self.storage.syncs, 0)


class DurableTests(TurnTestCase):
    def test_durable_values_are_those_of_the_moment_when_the_sync_was_asked_for(self) -> None:
        """The durable values are those of the moment when the sync was asked for: a change made while the disk writes
        is not durable with that write."""
        self.data.views.last_installed = 1
        self.say(accept(2, 1, 1), FORCED)
        self.data.views.last_installed = 4
        self.storage.finish_sync()
        self.assertEqual(self.turn.durable, Durable(1, 0))

    def test_sync_is_traced_with_what_is_durable_now(self) -> None:
        """The trace of a sync has the values that are durable now, which shows when a promise is on disk
        (docs/operating.rst)."""
        self.data.views.last_installed = 1
        self.say(accept(2, 1, 1), FORCED)
        self.storage.finish_sync()
        self.assertEqual(self.notes.of("sync"), [{"view": 1, "aru": 0}])


class FailureTests(TurnTestCase):
    def broken(self) -> None:
        self.turn.append(FORCED)
        self.turn.send(vc_proof(2, 9))
        self.turn.send_early(alive(2, 9))
        raise ValueError("confused")

    def test_failing_turn_stops_the_server_and_says_nothing(self) -> None:
        """A turn that fails stops the server, and its messages do not leave: Paxos tolerates a crashed server, not a
        confused one."""
        self.turn.run(self.broken)
        self.assertEqual([failure.type for failure in self.failures], [ValueError])
        self.assertTrue(self.turn.stopped)
        self.assertLeft()
        self.assertEqual(self.storage.syncs, 0)

    def test_failing_turn_drops_what_waits_at_the_gate(self) -> None:
        """A turn that fails also drops the messages of earlier turns that wait at the gate: a crash could have come
        before them as well."""
        self.say(accept(2, 1, 1), FORCED)
        self.turn.run(self.broken)
        self.storage.finish_all()
        self.assertLeft()

    def test_no_turn_runs_after_a_failure(self) -> None:
        """After a failure no turn runs any more."""
        self.turn.run(self.broken)
        self.turn.run(self.told.append, "still here")
        self.assertEqual(self.told, [])

    def test_failure_is_reported_once(self) -> None:
        """A failure of a turn is reported once."""
        self.turn.run(self.broken)
        self.turn.fail(Failure(ValueError("again")))
        self.assertEqual(len(self.failures), 1)

    def test_call_that_raises_does_not_stop_the_server(self) -> None:
        """An exception of a call that answers a client does not stop the server, since it has other clients."""

        def event() -> None:
            self.turn.call(self._raise)
            self.turn.call(self.told.append, "the next client")

        self.turn.run(event)
        self.assertEqual(self.told, ["the next client"])
        self.assertEqual([failure.type for failure in self.flushLoggedErrors(ZeroDivisionError)], [ZeroDivisionError])
        self.assertFalse(self.turn.stopped)

    def test_turn_within_a_turn_stops_the_server(self) -> None:
        """A turn within a turn stops the server: a handler that is re-entered would see a half-changed state."""
        self.turn.run(lambda: self.turn.run(self.told.append, "nested"))
        self.assertEqual([failure.type for failure in self.failures], [AssertionError])
        self.assertEqual(self.told, [])

    def test_nothing_is_said_outside_a_turn(self) -> None:
        """Messages, calls and records outside of a turn are errors of the caller, and raise."""
        for say in (
            lambda: self.turn.send(vc_proof(2, 1)),
            lambda: self.turn.send_early(alive(2, 1)),
            lambda: self.turn.append(FORCED),
            lambda: self.turn.call(self.told.append, 1),
        ):
            self.assertRaises(AssertionError, say)

    def test_sync_that_ends_after_stop_opens_nothing(self) -> None:
        """A sync that ends after a stop releases nothing, since a stop is like a crash."""
        self.say(accept(2, 1, 1), FORCED)
        self.turn.stop()
        self.storage.finish_sync()
        self.assertLeft()
        self.assertEqual(self.turn.durable, Durable())


class OrderTests(TurnTestCase):
    def test_call_may_run_a_turn_of_its_own(self) -> None:
        """A call that answers a client may run a turn of its own, in which the client's next command is handled; that
        turn comes after the present ones."""

        def client_hears() -> None:
            self.told.append("heard")
            self.say(vc_proof(2, 2))
            self.told.append("asked")

        def event() -> None:
            self.turn.call(client_hears)
            self.turn.send(vc_proof(2, 1))

        self.turn.run(event)
        self.assertEqual(self.told, ["heard", "asked"])
        self.assertLeft(vc_proof(2, 1), vc_proof(2, 2))

    def test_end_of_turn_hooks_run_inside_the_turn(self) -> None:
        """The functions at the end of a turn run inside the turn: the leader proposes there, and what it sends belongs
        to the turn."""
        self.at_end.append(lambda: self.turn.send(vc_proof(2, 5)))
        self.turn.run(lambda: None)
        self.assertLeft(vc_proof(2, 5))

    def test_hook_that_raises_stops_the_server(self) -> None:
        """An exception in a function at the end of a turn stops the server, since the end is part of the turn."""
        self.at_end.append(self._raise)
        self.turn.run(lambda: None)
        self.assertEqual([failure.type for failure in self.failures], [ZeroDivisionError])

    def test_accepts_of_one_view_travel_in_one_message(self) -> None:
        """Section 7.3: ACCEPTs of one view for several proposals become one message; votes of another view stay
        apart."""

        def event() -> None:
            for message in (accept(2, 1, 1), accept(2, 1, 2), accept(2, 3, 3)):
                self.turn.send(message)

        self.turn.run(event)
        self.assertLeft(accept(2, 1, 1, 2), accept(2, 3, 3))

    def test_turns_that_wait_together_leave_together(self) -> None:
        """Turns that wait together leave together: the votes of several turns for one destination become one
        message."""
        self.say(accept(2, 1, 1), FORCED)
        self.say(accept(2, 1, 2))
        self.storage.finish_sync()
        self.assertLeft(accept(2, 1, 1, 2))

    def test_votes_for_different_destinations_stay_apart(self) -> None:
        """Votes for one server and votes for all stay in messages of their own."""

        def event() -> None:
            self.turn.send(accept(2, 1, 1))
            self.turn.send(accept(2, 1, 2), 4)

        self.turn.run(event)
        destinations = [(sent.message, sent.to) for sent in self.transport.sent]
        self.assertEqual(destinations, [(accept(2, 1, 1), None), (accept(2, 1, 2), 4)])

    def test_turns_are_counted(self) -> None:
        """The counter of turns counts only finished turns."""
        self.turn.run(lambda: None)
        self.turn.run(lambda: None)
        self.assertEqual(self.turn.count, 2)


class ReplicaGateTests(ReplicaTestCase):
    """The durability gate, seen from the network."""

    ignore_periodic = False

    def start(self) -> None:
        super().start()
        self.assertSent(alive(2, 0, State.LEADER_ELECTION, has_clients=False))

    def test_alive_tells_what_is_on_disk_and_no_more(self) -> None:
        """ALIVE and VC_PROOF tell only values that are on disk."""
        self.hold_syncs = True
        self.receive(vc_proof(1, 1))
        self.advance(0.2)
        self.assertSent(alive(2, 0, State.LEADER_ELECTION, has_clients=False))
        self.storage.finish_all()
        self.advance(0.2)
        self.assertSent(alive(2, 1, State.REG_NONLEADER, has_clients=False))
        self.assertSent(VCProof(2, 1))

    def test_executed_but_unwritten_slots_are_not_advertised(self) -> None:
        """ALIVE does not tell slots that are executed but not on disk: other servers may rely on this server's copy of
        all slots up to its Local_Aru."""
        self.hold_syncs = True
        self.receive(vc_proof(1, 1))
        self.storage.finish_all()
        self.receive(proposal(1, 1, 1, client_update()))
        self.receive(accept(1, 1, 1))
        self.receive(accept(3, 1, 1))
        self.assertEqual(self.data.ordering.local_aru, 1)
        self.advance(0.2)
        self.assertSent(alive(2, 1, has_clients=False))
        self.storage.finish_all()
        self.assertSent(accept(2, 1, 1))
        self.assertSent(VCProof(2, 1))
        self.advance(0.2)
        self.storage.finish_all()
        self.advance(0.2)
        self.take(Alive)
        self.take(VCProof)
        self.assertEqual(self.replica.turn.durable.local_aru, 1)

    def test_own_vote_counts_in_the_turn_but_leaves_after_the_sync(self) -> None:
        """Departure 1: a server's own vote counts in the turn that makes it, and leaves after the sync: a crash before
        leaves no trace anywhere."""
        self.receive(vc_proof(1, 1))
        self.storage.records.clear()
        self.hold_syncs = True
        self.receive(accept(1, 1, 1, of=[batch(client_update())]))
        self.receive(accept(3, 1, 1, of=[batch(client_update())]))
        self.receive(proposal(1, 1, 1, client_update()))
        self.assertExecuted([client_update()])
        self.assertNothingSent()
        self.assertEqual(self.take_records(ProposalRecord), [ProposalRecord(1, 1, batch(client_update()))])
        self.assertEqual(self.take_records(OrderedRecord), [])
        self.storage.finish_all()
        self.assertSent(accept(2, 1, 1))

    def test_first_frame_of_a_peer_is_a_record_of_its_own(self) -> None:
        """Departure 12: the first frame of a peer leads to a record of its storage identity, which must be known after
        a crash."""
        del self.replica.membership.identities[3]
        self.receive(Heard(3, identity_of(2)))
        self.assertEqual(self.take_records(PeerRecord), [PeerRecord(3, identity_of(3))])
        self.take(Acquainted)
        self.take(KnownPosition)
