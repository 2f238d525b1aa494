from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.start_number import start_number
from pfsb.transports.replay import STARTS_MAX, STORAGES_MAX, WINDOW_FRAMES, ReplayGuard, ReplayWindow
from tests.examples import examples


class ReplayWindowTests(SynchronousTestCase):
    def test_reordered_frames_are_admitted_once_each(self) -> None:
        """Frames that UDP has reordered are admitted, each once."""
        window = ReplayWindow()
        self.assertEqual([window.admit(n) for n in (1, 4, 2, 3)], [True] * 4)
        self.assertEqual([window.admit(n) for n in (1, 4, 2, 3)], [False] * 4)

    def test_frame_older_than_the_window_is_refused(self) -> None:
        """A frame older than the window is refused, since it cannot be told from a replay."""
        window = ReplayWindow()
        window.admit(WINDOW_FRAMES + 10)
        self.assertFalse(window.admit(10))
        self.assertTrue(window.admit(11))

    def test_huge_jump_costs_nothing(self) -> None:
        """A counter near 2**64 is admitted without an integer of 2**64 bits."""
        window = ReplayWindow()
        window.admit(1)
        self.assertTrue(window.admit(2**64 - 1))
        self.assertFalse(window.admit(2**64 - 1))
        self.assertFalse(window.admit(1))

    @examples(100)
    @given(st.lists(st.integers(1, 3 * WINDOW_FRAMES), max_size=60))
    def test_window_agrees_with_a_set(self, counters: list[int]) -> None:
        """The window agrees with a set of the counters seen: it admits one that was not seen, less than its size below
        the highest."""
        window, seen = ReplayWindow(), set[int]()
        for counter in counters:
            fresh = counter not in seen and counter > max(seen, default=0) - WINDOW_FRAMES
            self.assertEqual(window.admit(counter), fresh)
            seen.add(counter)


class ReplayGuardTests(SynchronousTestCase):
    def test_senders_do_not_share_a_window(self) -> None:
        """Each sender has a window of its own."""
        guard = ReplayGuard()
        self.assertTrue(guard.admit(1, b"identity", 1, 1))
        self.assertTrue(guard.admit(2, b"identity", 1, 1))
        self.assertFalse(guard.admit(1, b"identity", 1, 1))

    def test_new_storage_of_a_known_id_is_heard(self) -> None:
        """Departure 12: a server that has lost its disk is heard although it counts its starts from 1 again."""
        guard = ReplayGuard()
        guard.admit(1, b"old disk", 7, 300)
        self.assertTrue(guard.admit(1, b"new disk", 1, 1))
        self.assertFalse(guard.admit(1, b"old disk", 7, 300))

    def test_each_start_has_a_window_of_its_own(self) -> None:
        """Departure 53: each start of a storage has a window of its own: starts of an older copy have higher numbers
        than the next one of the right storage, and no frame of any start is admitted twice."""
        guard = ReplayGuard()
        starts = (start_number(7, 1), start_number(8, 9), start_number(9, 9), start_number(8, 3))
        for again in (True, False):
            for start in starts:
                self.assertEqual([guard.admit(1, b"identity", start, n) for n in (1, 2)], [again] * 2, start)
        self.assertTrue(guard.admit(1, b"identity", start_number(8, 3), 3))

    def test_starts_of_one_storage_are_bounded(self) -> None:
        """Windows for starts of one storage are bounded in number; that of the start that sends is kept."""
        guard = ReplayGuard()
        guard.admit(1, b"identity", 1, 1)
        for start in range(2, 2 * STARTS_MAX):
            guard.admit(1, b"identity", start, 1)
            self.assertTrue(guard.admit(1, b"identity", 1, start))
            self.assertFalse(guard.admit(1, b"identity", 1, start))
        self.assertFalse(guard.admit(1, b"identity", 2 * STARTS_MAX - 1, 1))
        self.assertTrue(guard.admit(1, b"identity", 2, 1), "was forgotten")

    def test_storages_of_one_id_are_bounded(self) -> None:
        """Windows for storages of one id are bounded in number: a server that starts with an empty disk over and over
        does not fill the memory of its peers."""
        guard = ReplayGuard()
        for n in range(STORAGES_MAX + 1):
            guard.admit(1, b"%8d" % n, 1, 1)
        self.assertFalse(guard.admit(1, b"%8d" % STORAGES_MAX, 1, 1))
        self.assertTrue(guard.admit(1, b"%8d" % 0, 1, 1))
