"""The replica as a whole: dispatch, identities, start and stop."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import LogEvent, capturedLogs, formatEvent

from pfsb.paxos.messages import Acquainted, Heard, KnownPosition, PrepareOK, State, Stranger, ViewChange
from pfsb.paxos.records import PeerRecord
from pfsb.paxos.storage_identity import StorageWasReplaced
from tests.paxos.case import ReplicaTestCase, identity_of
from tests.paxos.messages import accept, alive, client_update, ordered, prepare, proposal, vc_proof, view_change

NEW = b"brandnew"


class IdentityTests(ReplicaTestCase):
    """Departure 12: a lost disk is not a new server."""

    def receive_from_new_storage(self, server_id: int) -> None:
        self.replica.receive(server_id, NEW, [view_change(server_id, 1)])
        self._after_event()

    def test_identity_is_remembered_durably_before_anything_is_answered(self) -> None:
        """The identity of a storage is on disk before its frame is answered: a server that has counted a promise must
        know, also after a crash, which storage has made it."""
        del self.replica.membership.identities[1]
        self.hold_syncs = True
        self.receive(Heard(1, identity_of(2)), prepare(1, 1))
        self.assertIn(PeerRecord(1, identity_of(1)), self.storage.records)
        self.assertNotSent(PrepareOK)
        self.assertNotSent(Acquainted)
        self.storage.finish_all()
        self.assertSent(Acquainted(2, identity_of(1)), to=1)
        self.take(KnownPosition)
        self.take(PrepareOK)

    def test_frame_that_may_be_forged_binds_no_id(self) -> None:
        """A frame that may be forged does not fix the identity of a server's storage: before the server was ever
        started, it would be locked out for good."""
        del self.replica.membership.identities[3]
        before = str(self.data)
        for _ in range(20):
            self.replica.receive(3, NEW, [vc_proof(3, 7), alive(3, 7), Heard(3, b"anything")])
        self._after_event()
        self.assertEqual(self.take(Heard), [Heard(2, NEW)])
        self.assertEqual((str(self.data), self.storage.records), (before, []))
        self.assertNotIn(3, self.replica.membership.identities)
        self.receive(Heard(3, identity_of(2)))
        self.assertEqual(self.replica.membership.identities[3], identity_of(3))
        self.take(Acquainted)
        self.take(KnownPosition)

    def test_frame_that_is_not_handled_is_answered_again_after_a_while(self) -> None:
        """A frame that is not handled is answered again after a while, since the answer may be lost."""
        del self.replica.membership.identities[3]
        self.receive(vc_proof(3, 7))
        self.advance(self.settings.alive_seconds)
        self.receive(vc_proof(3, 7))
        self.assertEqual(self.take(Heard), [Heard(2, identity_of(3))] * 2)
        self.take(ViewChange)

    def test_known_identity_is_not_written_again(self) -> None:
        """An identity that is known is not written again, so that an idle cluster writes nothing."""
        self.receive(view_change(3, 1))
        self.assertEqual(self.take_records(PeerRecord), [])

    def test_log_position_of_another_storage_is_not_kept(self) -> None:
        """The log position of a frame from another storage is not noted: positions belong to the storage that is known
        under the id."""
        self.replica.receive(3, NEW, [], 9, 99)
        self.assertEqual(self.replica.peers.by_id[3].position, 0)
        self.assertSent(Stranger(2, NEW), to=3)

    def test_server_with_another_storage_is_ignored_and_told(self) -> None:
        """G20: the frames of a server with another storage are ignored, since it would vote without its promises, and
        it is told so."""
        self.receive_from_new_storage(3)
        self.assertEqual(set(self.data.views.vc), {2})
        self.assertSent(Stranger(2, NEW), to=3)

    def test_stranger_is_not_heard(self) -> None:
        """A frame of a stranger does not count as heard, so that its ALIVE supports no leader."""
        self.receive_from_new_storage(3)
        self.take(Stranger)
        self.assertFalse(self.replica.peers.heard_lately(3))

    def test_server_that_is_told_stops_with_one_clear_line(self) -> None:
        """Departure 12: a server that a majority knows with another storage stops with one line, which tells the
        operator to bring the old data directory back."""
        for server_id in (3, 5, 1):
            self.assertFalse(self.replica.turn.stopped)
            self.receive(Stranger(server_id, identity_of(2)))
        error = self.expected_failure(StorageWasReplaced)
        self.assertIn("server 2 was here before with another storage, says server 1 and 3 and 5", str(error))
        self.assertTrue(self.replica.turn.stopped)

    def test_servers_that_leave_a_majority_stop_nobody(self) -> None:
        """If only two of five servers know another storage for this server's id, it goes on with the other three."""
        for server_id in (3, 5, 3, 5):
            self.receive(Stranger(server_id, identity_of(2)))
        self.assertFalse(self.replica.turn.stopped)

    def test_message_for_an_earlier_storage_is_not_for_me(self) -> None:
        """A STRANGER that names an earlier storage is ignored: it was under way when the old directory was put back."""
        self.receive(Stranger(3, NEW))
        self.assertFalse(self.replica.turn.stopped)


class LifeTests(ReplicaTestCase):
    def test_failed_assertion_stops_the_server(self) -> None:
        """S1: a failed assertion, as for two batches in one slot, stops the server: Paxos tolerates a crashed server,
        not a confused one."""
        self.receive(ordered(3, 2, client_update("alice", 1)))
        self.receive(ordered(4, 2, client_update("bob", 1)))
        self.expected_failure(AssertionError)
        self.receive(view_change(3, 1))
        self.assertEqual(set(self.data.views.vc), {2})

    def test_stopped_server_says_nothing_more(self) -> None:
        """A stopped server sends nothing more, as after a crash."""
        self.hold_syncs = True
        self.receive(prepare(1, 1))
        self.replica.stop()
        self.storage.finish_all()
        self.assertNothingSent()

    def test_state_changes_are_traced(self) -> None:
        """Each change of State or view is in the trace (docs/operating.rst)."""
        self.follow(view=1)
        self.expire_progress_timer()
        self.take(type(view_change(2, 2)))
        states = [(e["from"], e["to"], e["view"]) for e in self.notes.of("state")]
        election, follower = State.LEADER_ELECTION.value, State.REG_NONLEADER.value
        self.assertEqual(states, [(None, election, 1), (election, follower, 1), (follower, election, 2)])

    def test_start_is_traced_with_what_was_found(self) -> None:
        """The trace has, at the start, the state that recovery has found (docs/operating.rst)."""
        self.assertEqual(self.notes.of("start"), [{"view": 0, "aru": 0, "incarnation": 1}])

    def test_messages_of_a_frame_are_handled_in_their_order(self) -> None:
        """The messages of one frame are handled in their order, in one turn and with one sync: here a view is joined,
        promised and accepted in."""
        before = self.storage.syncs
        self.receive(vc_proof(1, 1), alive(1, 1, State.REG_LEADER), prepare(1, 1), proposal(1, 1, 1, client_update()))
        self.assertEqual(self.storage.syncs, before + 1)
        self.assertEqual(len(self.take(PrepareOK)), 1)
        self.assertSent(accept(2, 1, 1))


class LogTests(ReplicaTestCase):
    """The text log tells who leads, and nothing about the moment in which a server that starts finds that out."""

    def logged(self, events: Sequence[LogEvent]) -> list[tuple[str, str]]:
        """(level, text) of the lines about views."""
        found = [(event["log_level"].name, formatEvent(event)) for event in events]
        return [(level, text) for level, text in found if "view" in text]

    def test_leader_of_the_start_is_told_after_a_while_and_later_changes_at_once(self) -> None:
        """The leader that a starting server finds is logged after a while, since it may hear of several views within a
        moment; later changes are logged at once."""
        with capturedLogs() as events:
            self.follow(1)
            self.assertEqual(self.logged(events), [])
            for _ in range(3):
                self.advance(self.settings.progress_seconds / 2)
                self.hear_leader(1)
            self.assertEqual(self.logged(events), [("info", "follows server 1 in view 1")])
            self.advance(3 * self.settings.progress_seconds)
        self.assertEqual(self.logged(events)[1], ("info", "attempts view 2"))
        self.take(ViewChange)

    def test_attempts_before_the_first_leader_are_for_those_who_debug(self) -> None:
        """Attempts before the first leader are logged with the level `debug`: a server that is alone attempts views on
        and on."""
        with capturedLogs() as events:
            self.advance(2 * self.settings.progress_seconds)
        self.take(ViewChange)
        self.assertEqual(self.logged(events), [("debug", "attempts view 1")])
