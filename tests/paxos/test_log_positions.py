"""Tests of `pfsb.paxos.log_positions`: a storage in an earlier state than it was known in (Departure 43)."""

from __future__ import annotations

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.log_positions import DOUBT_PERIODS, SILENCE_PERIODS, WORDS_BELIEVED, StorageWentBack
from pfsb.paxos.messages import (
    Acquainted,
    Alive,
    Heard,
    KnownPosition,
    PrepareOK,
    ReconciliationRequest,
    State,
    ViewChange,
)
from pfsb.paxos.records import PeerRecord, ViewRecord
from pfsb.paxos.start_number import start_number
from pfsb.paxos.turn import SYNCS_PER_NOTE
from tests.paxos.case import ReplicaTestCase, identity_of
from tests.paxos.messages import accept, prepare_ok, view_change


def state(server_id: int, incarnation: int, position: int) -> KnownPosition:
    """A KNOWN_POSITION in which server `server_id` tells server 2 in what state it knows the storage of server 2."""
    return KnownPosition(server_id, identity_of(2), start_number(incarnation, 0), position)


class RefusalTests(ReplicaTestCase):
    """Server 2 of five, which knows server 3 in start 4 with 100 groups."""

    def after_start(self) -> None:
        for _ in range(2):
            self.replica.receive(3, identity_of(3), [], start_number(4, 7), 100)
        self.assertSent(Heard(2, identity_of(3)), to=3)
        self._after_event()

    def test_vote_of_a_storage_that_went_back_is_not_counted(self) -> None:
        """A vote from a storage in an earlier state than was known is not counted: the storage has lost votes, which
        the new one may contradict."""
        self.replica.receive(1, identity_of(1), [view_change(1, 1)])
        for _ in range(2):
            self.replica.receive(3, identity_of(3), [view_change(3, 1)], start_number(5, 7), 99)
        self.assertFalse(self.replica.progress_timer.running, "two of five vote for view 1")
        self.assertSent(KnownPosition(2, identity_of(3), start_number(4, 7), 100), to=3)

    def test_server_is_told_seldom(self) -> None:
        """A server whose frames are refused is told so only seldom, and not for each frame."""
        for _ in range(10):
            self.replica.receive(3, identity_of(3), [view_change(3, 1)], start_number(5, 7), 99)
        self.assertEqual(len(self.take(KnownPosition)), 1)
        self.advance(self.settings.alive_seconds)
        self.replica.receive(3, identity_of(3), [view_change(3, 1)], start_number(5, 7), 99)
        self.assertEqual(len(self.take(KnownPosition)), 1)
        self.take(ViewChange)

    def test_asking_server_is_told_what_is_known_and_not_what_it_says(self) -> None:
        """A server that asks is told the known state of its storage, and not the one in its frame: right after a
        restart a frame with less passes for a late one, and its sender finds out that it lacks something."""
        new = Alive(3, 0, State.LEADER_ELECTION, 0)
        for question, position in ((Heard(3, identity_of(2)), 99), (new, 99), (Heard(3, identity_of(2)), 100)):
            self.replica.receive(3, identity_of(3), [question], start_number(4, 7), position)
            self.assertSent(Acquainted(2, identity_of(3)), to=3)
            self.assertSent(KnownPosition(2, identity_of(3), start_number(4, 7), 100), to=3)

    def test_first_frame_of_a_later_start_is_answered_by_a_question(self) -> None:
        """The first frame of a later start is answered by HEARD; the answer to that is the second frame, from which on
        the frames of this start count."""
        self.replica.receive(1, identity_of(1), [view_change(1, 1)])
        self.replica.receive(3, identity_of(3), [view_change(3, 1)], start_number(5, 7), 101)
        self.assertFalse(self.replica.progress_timer.running)
        self.assertSent(Heard(2, identity_of(3)), to=3)
        self.replica.receive(3, identity_of(3), [view_change(3, 1)], start_number(5, 7), 101)
        self.assertTrue(self.replica.progress_timer.running, "three of five vote for view 1")
        self.take(ViewChange)

    def test_vote_that_counts_makes_its_position_known(self) -> None:
        """Departure 54: the log position of a frame with a vote that counts is noted at once, since no later frame may
        tell it. The position with a vote that is discarded, not stored, or stored before is not noted, nor one that is
        far from what two frames have told: a forged frame with such a vote, which does no other harm, would stop server
        3 at its next start."""
        for message, position, known in (
            (accept(3, 2**30, 1), 120, 100),
            (accept(3, 1, 2**30), 120, 100),
            (accept(3, 1, 1), 2**62, 100),
            (view_change(3, 1), 120, 120),
            (accept(3, 1, 1), 120, 120),
        ):
            self.setUp()
            self.replica.receive(3, identity_of(3), [message], start_number(4, 7), position)
            self.assertEqual(self.replica.peers.by_id[3].position, known, message)
            self.replica.receive(3, identity_of(3), [message], start_number(4, 7), 2**62)
            self.assertLessEqual(self.replica.peers.by_id[3].position, max(position, known), message)
            self._after_event()
            self.take(ViewChange)


class PromiseTests(ReplicaTestCase):
    """Server 2 of five prepares view 2."""

    def test_promise_that_counts_makes_its_position_known(self) -> None:
        """Departure 54: the log position that comes with a part of a promise is noted once, when the part is stored."""
        self.begin_prepare_phase(view=2)
        for part, position, known in ((0, 7, 7), (0, 8, 7), (1, 9, 9), (1, 12, 9)):
            message = prepare_ok(5, 2, part=part, parts=3)
            self.replica.receive(5, identity_of(5), [message], 0, position)
            self.assertEqual(self.replica.peers.by_id[5].position, known)
        self._after_event()
        self.take(PrepareOK)


class NoteTests(ReplicaTestCase):
    """Server 2 writes down the states of the others' storages."""

    def frames(self, *states: tuple[int, int]) -> None:
        for each in states:
            incarnation, position = each
            self.replica.receive(3, identity_of(3), [], start_number(incarnation, 7), position)
        self._after_event()
        self.take(Heard)

    def test_later_start_is_on_disk_before_anything_leaves_that_rests_on_its_frames(self) -> None:
        """Before anything leaves that rests on frames of a later start, that start is on disk: otherwise this server
        would forget it by a restart, and handle frames of an earlier copy."""
        self.frames((1, 7), (1, 7))
        self.take_records(PeerRecord)
        self.hold_syncs = True
        self.frames((2, 9), (2, 9))
        self.assertEqual(self.take_records(PeerRecord), [PeerRecord(3, identity_of(3), start_number(2, 7), 9)])
        self.replica.receive(3, identity_of(3), [Heard(3, identity_of(2))], start_number(2, 7), 9)
        self.assertNotSent(Acquainted)
        self.assertNotSent(KnownPosition)
        self.storage.finish_all()
        self.assertSent(Acquainted(2, identity_of(3)), to=3)
        self.assertSent(KnownPosition(2, identity_of(3), start_number(2, 7), 9), to=3)

    def test_disk_in_trouble_is_not_asked_to_write_a_start(self) -> None:
        """While the disk is in trouble, the record of a start is not forced; it goes to disk later with others."""
        self.take_records(PeerRecord)
        self.storage.is_full = True
        self.advance(self.settings.alive_seconds)
        self.assertIs(self.replica.turn.trouble, DiskTrouble.FULL)
        self.frames((1, 7), (1, 7))
        self.assertEqual(self.take_records(PeerRecord), [])
        self.assertEqual(
            list(self.replica.log_positions.due_records()), [PeerRecord(3, identity_of(3), start_number(1, 7), 7)]
        )
        self.flushLoggedErrors()
        self.take(ViewChange)

    def test_position_of_the_first_vote_is_on_disk_before_anything_leaves_that_rests_on_it(self) -> None:
        """Departure 54: before anything leaves that rests on the first vote of a start, its log position is on disk.
        Otherwise this server would forget it by a restart, and take frames of a copy from before, once the copy was
        started so often that its incarnation is a later one."""
        self.frames((2, 9), (2, 9), (2, 30))
        self.take_records(PeerRecord)
        self.hold_syncs = True
        self.replica.receive(3, identity_of(3), [view_change(3, 1)], start_number(2, 7), 30)
        self.assertEqual(self.take_records(PeerRecord), [PeerRecord(3, identity_of(3), start_number(2, 7), 30)])
        self.assertNotSent(ViewChange)
        self.storage.finish_all()
        self.assertSent(ViewChange(2, 1), to=3)
        self.hold_syncs = False
        self.replica.receive(3, identity_of(3), [accept(3, 1, 1)], start_number(2, 7), 31)
        self.assertEqual(self.take_records(PeerRecord), [], "later positions go with other records")
        self.frames((3, 31), (3, 31))
        self.take_records(PeerRecord)
        self.replica.receive(3, identity_of(3), [accept(3, 1, 2)], start_number(3, 7), 32)
        self.assertEqual(self.take_records(PeerRecord), [PeerRecord(3, identity_of(3), start_number(3, 7), 32)])
        self._after_event()
        self.take(ViewChange)

    def test_first_vote_with_a_position_that_is_not_believed_does_not_count_as_the_first(self) -> None:
        """A first vote whose log position is not believed does not count as the first: the next vote brings its
        position to disk."""
        self.frames((2, 9), (2, 9))
        self.take_records(PeerRecord)
        self.replica.receive(3, identity_of(3), [accept(3, 1, 1)], start_number(2, 7), 5_000)
        self.assertEqual(self.take_records(PeerRecord), [])
        self.replica.receive(3, identity_of(3), [accept(3, 1, 2)], start_number(2, 7), 5_001)
        self.assertEqual(self.take_records(PeerRecord), [PeerRecord(3, identity_of(3), start_number(2, 7), 5_001)])
        self._after_event()
        self.take(ViewChange)

    def test_nothing_is_written_for_the_sake_of_a_note(self) -> None:
        """Nothing is written only to note a log position: otherwise, in an idle cluster, each server's note would make
        others write one."""
        self.frames((1, 1), (1, 1))
        self.take_records(PeerRecord)
        self.frames((1, 2), (1, 3))
        for _ in range(20):
            self.advance(self.settings.alive_seconds)
        self.assertEqual(self.take_records(PeerRecord), [])
        self.take(ViewChange)

    def test_notes_go_with_what_is_written_anyway(self) -> None:
        """Changed log positions are written along with other records, with one in a number of groups."""
        self.frames((1, 6), (1, 6))
        self.take_records(PeerRecord)
        self.frames((1, 7), (1, 9))
        for _ in range(SYNCS_PER_NOTE):
            self.replica.perform(self.replica.turn.append, ViewRecord(1, 1))
        self.assertEqual(self.take_records(PeerRecord), [PeerRecord(3, identity_of(3), start_number(1, 7), 7)])
        for _ in range(SYNCS_PER_NOTE):
            self.replica.perform(self.replica.turn.append, ViewRecord(1, 1))
        self.assertEqual(self.take_records(PeerRecord), [])

    def test_number_that_no_disk_takes_is_not_written(self) -> None:
        """A number in the header of a frame that the storage has no room for is not written: a forged frame must not
        stop the server."""
        self.frames((1, (1 << 64) - 1), (1, (1 << 64) - 1))
        self.assertEqual(list(self.replica.log_positions.due_records()), [])


class TellingTests(ReplicaTestCase):
    """Frames tell the groups that were written while the server was admitted."""

    starts = False
    introduced = False

    def begin_at(self, position: int, incarnation: int = 1) -> None:
        """Start a server whose storage has `position` groups and the records of the server before."""
        if incarnation > 1:
            written = [*self.records_of_own_storage, *self.take_records(PeerRecord)]
            self.found.peers |= {record.server_id: record for record in written}
        self.found.incarnation = incarnation
        self.position_at_start = position
        self.start()

    def told(self) -> int:
        return self.replica.log_positions.told()

    def admit(self) -> None:
        for sender in (1, 3, 4):
            self.receive(Acquainted(sender, identity_of(2)), state(sender, self.found.incarnation, 0))

    def test_only_groups_of_an_admitted_server_are_told(self) -> None:
        """Frames tell only groups that were written while the server was admitted: starts, and groups from before, must
        not hide that as many groups were lost."""
        self.begin_at(1)
        self.storage.position = 4
        self.assertEqual(self.told(), 0)
        self.admit()
        self.storage.position = 10
        self.assertEqual(self.told(), 9)
        for incarnation, position in ((2, 11), (3, 15), (4, 16)):
            self.begin_at(position, incarnation)
            self.storage.position += 3
            self.assertEqual(self.told(), 9, incarnation)
        self.begin_at(20, 5)
        self.admit()
        self.storage.position = 22
        self.assertEqual(self.told(), 11)
        self.take(ViewChange)

    def test_admission_is_on_disk_before_more_is_told(self) -> None:
        """The admission is on disk before frames tell more: otherwise, after a crash, the next start would tell less
        than was told, and the server would be refused for ever."""
        self.begin_at(1)
        self.storage.position = 4
        self.hold_syncs = True
        self.admit()
        self.assertEqual(self.told(), 0)
        self.storage.finish_all()
        self.assertEqual(self.told(), 3)
        self.take(ViewChange)


class AccusedTests(ReplicaTestCase):
    """Server 2 of five is told what others know of its storage, which has 50 groups in its third start."""

    starts = False
    introduced = False
    position_at_start = 40

    def setUp(self) -> None:
        super().setUp()
        self.found.incarnation = 3
        self.found.last_installed = self.found.last_attempted = 4
        self.start()
        self.take(Heard)

    def start(self) -> None:
        """Start with 40 groups, all of which frames have told; be admitted without a message, and write ten more."""
        self.found.peers[2] = PeerRecord(2, identity_of(2), 0, self.position_at_start)
        super().start()
        self.replica.log_positions.is_admitted = True
        self.storage.position = 50

    def vouch(self, sender: int) -> None:
        """Let a server tell that it takes the frames of this start."""
        self.receive(Acquainted(sender, identity_of(2)), state(sender, 3, 40))

    def test_late_word_about_an_earlier_state_is_nothing(self) -> None:
        """A KNOWN_POSITION about an earlier start of this server counts for nothing: the frame that was refused was
        only late."""
        for message in (state(1, 3, 50), state(1, 2, 40), state(1, 3, 0)):
            self.receive(message)
            self.advance(self.settings.alive_seconds)
            self.receive(message)
        self.assertFalse(self.replica.log_positions.is_doubted)
        self.take(Heard)

    def test_word_about_another_storage_is_nothing(self) -> None:
        """A KNOWN_POSITION about another storage counts for nothing: it was meant for a storage that had this id
        before."""
        self.receive(KnownPosition(1, b"brandnew", start_number(9, 0), 99))
        self.assertFalse(self.replica.log_positions.is_doubted)

    def test_server_that_lacks_something_does_not_vote(self) -> None:
        """A server that lacks a part of its storage does not vote, if one other server knows that, however many do
        not."""
        self.receive(state(1, 3, 51))
        for sender in (3, 4, 5):
            self.vouch(sender)
        self.advance(3 * self.settings.alive_seconds)
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.assertNotSent(ViewChange)
        self.take(Heard)
        self.flushLoggedErrors()

    def test_late_acquaintance_takes_no_doubt_back(self) -> None:
        """An ACQUAINTED that comes late, sent before the storage went back, does not end the doubt about this start."""
        self.receive(state(1, 3, 51))
        for sender in (3, 4, 5):
            self.vouch(sender)
        for late in (Acquainted(1, identity_of(2)), Acquainted(1, b"brandnew"), state(1, 2, 40)):
            self.receive(late)
            self.advance(2 * self.settings.alive_seconds)
            self.assertTrue(self.replica.log_positions.is_doubted, late)
            self.assertTrue(self.replica.storage_identity.is_newcomer, late)
        self.vouch(1)
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        for kind in (Heard, ViewChange, ReconciliationRequest):
            self.take(kind)
        self.flushLoggedErrors()

    def test_late_acquaintance_does_not_hide_words_in_a_row(self) -> None:
        """A late ACQUAINTED does not end a row of KNOWN_POSITIONs with a later state: a server that lacks something
        stops."""
        for _ in range(WORDS_BELIEVED - 1):
            self.hear_again_and_again(state(1, 3, 51), 1)
            self.receive(Acquainted(1, identity_of(2)), Acquainted(1, b"brandnew"))
        self.assertEqual(self.failures, [])
        self.hear_again_and_again(state(1, 3, 51), 1)
        self.assertIsNotNone(self.failures.pop().check(StorageWentBack))
        self.take(Heard)

    def test_doubt_that_is_not_repeated_ends(self) -> None:
        """A doubt that is not repeated ends after a time: a server in error may have raised it, and be down since."""
        self.receive(state(1, 3, 51))
        for sender in (3, 4, 5):
            self.vouch(sender)
        self.advance((DOUBT_PERIODS - 1) * self.settings.alive_seconds)
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.advance(2 * self.settings.alive_seconds)
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        for kind in (Heard, ViewChange, ReconciliationRequest):
            self.take(kind)
        self.flushLoggedErrors()

    def hear_again_and_again(self, message: KnownPosition, times: int) -> None:
        for _ in range(times):
            self.advance(self.settings.alive_seconds)
            self.receive(message)
            self.receive(message)

    def test_word_that_is_told_again_and_again_stops_the_server(self) -> None:
        """A later state that is told again and again stops the server, with a line that says what was known, what is
        there, and what to do. Copies of one frame do not count."""
        for message in (state(1, 3, 51), state(1, 4, 0), state(1, 2, 41)):
            self.start()
            self.hear_again_and_again(message, WORDS_BELIEVED - 1)
            self.assertEqual(self.failures, [])
            self.hear_again_and_again(message, 1)
            self.assertIsNotNone(self.failures.pop().check(StorageWentBack), message)
            self.take(Heard)

    def test_word_that_is_told_now_and_then_is_not_believed(self) -> None:
        """A later state that is told only now and then is not believed: a server that has refused one frame refuses the
        following ones, too, and says so each time."""
        for _ in range(4 * WORDS_BELIEVED):
            self.hear_again_and_again(state(1, 3, 51), 1)
            self.advance((SILENCE_PERIODS + 1) * self.settings.alive_seconds)
        self.assertEqual(self.failures, [])
        self.take(Heard)
        self.flushLoggedErrors()

    def test_word_about_another_copy_takes_no_doubt_back(self) -> None:
        """Departure 53: a KNOWN_POSITION about another copy, with the present incarnation and another mark, does not
        end a doubt."""
        self.receive(state(1, 3, 51))
        for sender in (1, 3, 4, 5):
            self.receive(Acquainted(sender, identity_of(2)))
            self.receive(KnownPosition(sender, identity_of(2), start_number(3, 9), 40))
        self.assertTrue(self.replica.log_positions.is_doubted)
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.take(Heard)
        self.flushLoggedErrors()

    def test_word_about_another_copy_stops_the_server_when_it_is_repeated(self) -> None:
        """A repeated KNOWN_POSITION about another copy stops the server: one of the two storages lacks votes of the
        other, whatever their positions are."""
        word = KnownPosition(1, identity_of(2), start_number(3, 9), 0)
        self.hear_again_and_again(word, WORDS_BELIEVED - 1)
        self.assertEqual(self.failures, [])
        self.hear_again_and_again(word, 1)
        self.assertIsNotNone(self.failures.pop().check(StorageWentBack))
        self.take(Heard)

    def test_server_that_takes_the_storage_again_is_believed(self) -> None:
        """If the next KNOWN_POSITION of a server says that it takes this storage's frames, the earlier ones of it with
        a later state were wrong, and no longer count."""
        self.hear_again_and_again(state(1, 9, 99), WORDS_BELIEVED - 1)
        for sender in (1, 3, 4, 5):
            self.vouch(sender)
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        self.hear_again_and_again(state(1, 9, 99), WORDS_BELIEVED - 1)
        self.assertEqual(self.failures, [])
        self.take(ViewChange)
        self.take(Heard)
        self.take(ReconciliationRequest)
