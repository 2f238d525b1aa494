"""The states of a peer's storage that are noted, and the frames that are refused for them (Departure 43)."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.members import Members
from pfsb.paxos.membership import Membership
from pfsb.paxos.peers import OVERTAKEN_PERIODS, STEP_BELIEVED, Peers
from pfsb.paxos.records import PeerRecord
from pfsb.paxos.settings import Settings
from pfsb.paxos.start_number import incarnation_of, start_number

SETTINGS = Settings()
SILENCE = OVERTAKEN_PERIODS * SETTINGS.alive_seconds + 0.01


class NoteTests(SynchronousTestCase):
    """Frames of server 2, as server 1 notes them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.peers = Peers(Membership(1, Members((1, 2, 3))), self.clock, SETTINGS)
        self.peer = self.peers.by_id[2]

    def note(self, *states: tuple[int, int]) -> list[bool]:
        return [self.peers.note_frame(2, start_number(incarnation, 7), p) for incarnation, p in states]

    def assertNoted(self, incarnation: int, position: int) -> None:
        self.assertEqual((incarnation_of(self.peer.start), self.peer.position), (incarnation, position))

    def test_state_is_noted_when_a_second_frame_tells_as_much(self) -> None:
        """A state is noted when a second frame tells as much: a single frame may be forged. The first frame of a later
        incarnation is not handled, either."""
        for state, handled, noted in (
            ((1, 7), False, (0, 0)),
            ((1, 7), True, (1, 7)),
            ((1, 9), True, (1, 7)),
            ((1, 12), True, (1, 9)),
        ):
            self.assertEqual(self.note(state), [handled])
            self.assertNoted(*noted)

    def test_position_with_a_vote_that_counts_is_noted_at_once(self) -> None:
        """Departure 54: the log position of a frame with a vote that counts is noted at once: it may be the last frame,
        and the vote may be lost."""
        self.note((1, 7), (1, 7), (1, 9))
        self.peers.believe(2, 9)
        self.assertNoted(1, 9)
        self.assertEqual(self.note((2, 8), (2, 8)), [False, False])
        self.peers.believe(2, 8)
        self.assertNoted(1, 9)
        self.clock.advance(SILENCE)
        self.assertEqual(self.note((1, 8), (1, 8), (1, 8)), [True] * 3, "late, or overtaken by the only vote")
        self.assertNoted(1, 9)

    def test_position_with_a_vote_is_noted_at_once_only_if_it_is_near(self) -> None:
        """Departure 54: the position with a vote is noted at once only if it is near the known one: a forged frame may
        tell any, and its supposed sender would be refused for it."""
        self.note((1, 7), (1, 7))
        for position, noted in ((8 + STEP_BELIEVED, 7), (1 << 62, 7), (7 + STEP_BELIEVED, 7 + STEP_BELIEVED)):
            self.peers.believe(2, position)
            self.assertNoted(1, noted)
        self.peers.believe(2, 8 + STEP_BELIEVED)
        self.assertNoted(1, 7 + STEP_BELIEVED)

    def test_first_vote_of_a_start_is_told_until_it_is_written(self) -> None:
        """Departure 54: the position of the first vote of a start is passed to the handler until the handler has
        written it."""
        told: list[int] = []
        self.peers.on_first_vote = lambda _, position: told.append(position)
        self.note((1, 7), (1, 7))
        self.peers.believe(2, 9)
        self.peers.believe(2, 9)
        self.peer.voted_in = self.peer.start
        self.peers.believe(2, 10)
        self.note((2, 10), (2, 10))
        self.peers.believe(2, 10)
        self.assertEqual(told, [9, 9, 10])

    def test_start_of_another_copy_is_refused(self) -> None:
        """Departure 53: frames of a start with the known incarnation and another mark, lower or higher, are refused:
        they come from another copy."""
        self.note((2, 9), (2, 9))
        for mark in (6, 8):
            handled = [self.peers.note_frame(2, start_number(2, mark), 20) for _ in range(3)]
            self.assertEqual(handled, [False] * 3)
        self.assertNoted(2, 9)
        self.assertEqual(self.note((3, 9), (3, 9)), [False, True])

    def test_overtaken_frame_of_a_running_server_is_taken(self) -> None:
        """A frame of a running server that later ones have overtaken is taken, since networks change the order of
        frames."""
        self.note((1, 7), (1, 9), (1, 9), (1, 9))
        self.assertEqual(self.note((1, 6)), [True])
        self.clock.advance(0.01)
        self.assertEqual(self.note((1, 9)), [True])
        self.assertNoted(1, 9)

    def test_lower_position_after_a_silence_is_refused(self) -> None:
        """A lower position after a silence is refused: an older copy may begin with the number of starts that was
        known."""
        self.note((2, 9), (2, 9))
        self.clock.advance(SILENCE)
        self.assertEqual(self.note((2, 8)), [False])
        self.assertEqual(self.note((2, 9)), [True])

    def test_later_start_with_less_is_refused_at_once(self) -> None:
        """A later start that tells fewer groups is refused at once: no frame that is only late tells that."""
        self.note((1, 9), (1, 9))
        self.assertEqual(self.note((2, 8), (2, 8)), [False, False])
        self.assertNoted(1, 9)

    def test_one_lost_group_is_found(self) -> None:
        """One lost group is found: a start adds nothing to the position, so a whole storage starts with as many groups
        as it had."""
        self.note((1, 9), (1, 9))
        self.assertEqual(self.note((2, 8), (2, 8)), [False, False])
        self.assertEqual(self.note((2, 9), (2, 9)), [False, True])
        self.assertNoted(2, 9)

    def test_frames_of_one_incarnation_count_at_a_time(self) -> None:
        """At any time frames of one incarnation are handled: otherwise a late vote would count beside one of a copy
        that has forgotten it."""
        self.note((1, 9), (1, 9))
        self.assertEqual(self.note((2, 10), (1, 9), (1, 12)), [False, True, True])
        self.assertEqual(self.note((2, 11), (1, 12), (1, 13), (2, 10)), [True, False, False, True])

    def test_later_incarnation_is_told_before_its_frame_is_handled(self) -> None:
        """A later incarnation is passed to the handler, which writes it to disk, before its frame is handled."""
        told: list[tuple[int, int, int]] = []
        self.peers.on_incarnation = lambda i: told.append((i, incarnation_of(self.peer.start), self.peer.position))
        self.note((1, 7), (1, 8), (1, 9), (2, 20))
        self.assertTrue(self.peers.waits_for_second(2, start_number(2, 7)))
        self.note((1, 9), (2, 21), (2, 22))
        self.assertFalse(self.peers.waits_for_second(2, start_number(2, 7)))
        self.assertEqual(told, [(2, 1, 7), (2, 2, 20)])

    def test_earlier_start_is_refused(self) -> None:
        """Frames of an earlier start are refused: the server has been started again since, or an older copy of its
        directory was."""
        self.note((3, 9), (3, 9))
        self.assertEqual(self.note((2, 9), (2, 20), (2, 20)), [False] * 3)
        self.assertNoted(3, 9)

    def test_refused_frame_does_not_count_as_heard(self) -> None:
        """A refused frame does not count as heard: a leader that counted its sender as a follower would wait for votes
        that do not count."""
        self.note((3, 9), (3, 9))
        heard = self.peer.last_heard
        self.clock.advance(SILENCE)
        self.note((2, 9))
        self.assertEqual(self.peer.last_heard, heard)

    def test_forged_frame_silences_nobody(self) -> None:
        """One forged frame with a state that cannot be reached, in any respect, does not make this server refuse the
        frames of its supposed sender."""
        for forged in ((1, 1 << 60), (1 << 30, 9), (1 << 30, 1 << 60)):
            self.setUp()
            self.note((1, 8), (1, 9), forged)
            for position in range(9, 40):
                self.assertEqual(self.note((1, position)), [True], forged)
                self.clock.advance(0.1)
            self.assertNoted(1, 38)
            self.assertEqual(self.note((2, 41), (2, 41)), [False, True], forged)

    def test_state_on_disk_is_known_after_a_restart(self) -> None:
        """The state of a peer's storage that is on disk here is known after a restart: the peer may have been put back
        while this server was down."""
        self.peers.remember(PeerRecord(2, b"disk-002", start_number(4, 7), 100))
        self.assertEqual(self.note((4, 99), (5, 99), (3, 100)), [False] * 3)
        self.assertEqual(self.note((4, 100)), [True])

    def test_state_on_disk_of_a_version_without_start_numbers_is_known(self) -> None:
        """Departure 53: a record of a version without start numbers tells the incarnation alone; any start with that
        incarnation may be one of a copy."""
        self.peers.remember(PeerRecord(2, b"disk-002", 4, 100))
        self.assertEqual(self.note((3, 100), (4, 100), (4, 100), (5, 99), (5, 99)), [False] * 5)
        self.assertEqual(self.note((5, 100), (5, 100)), [False, True])
