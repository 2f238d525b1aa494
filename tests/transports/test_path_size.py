from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.transports.path_round_trip import FIRST_SECONDS, LONGEST_SECONDS, SHORTEST_SECONDS, PathRoundTrip
from pfsb.transports.path_size import (
    BASE_BYTES,
    CONFIRM_LOSSES,
    CONFIRM_SECONDS,
    CONTROL_BYTES,
    FLOOR_BYTES,
    GRAIN_BYTES,
    RAISE_SECONDS,
    RETRY_SECONDS,
    SEARCH_LOSSES,
    PathSize,
)


class PathSizeTestCase(SynchronousTestCase):
    """A path that carries `carried` bytes; the own interface takes `interface` bytes. Echoes come at once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.interface, self.carried = 1_472, 1_472
        self.probes: list[int] = []
        self.echoes: list[bytes] = []
        self.changes: list[tuple[int, int]] = []
        self.loses: Callable[[int], bool] = lambda size: size > self.carried
        self.size = PathSize(
            self.clock,
            PathRoundTrip(),
            self.send_probe,
            60_000,
            lambda before, now: self.changes.append((before, now)),
        )

    def send_probe(self, size: int) -> bytes:
        tag = len(self.probes).to_bytes(16, "big")
        self.probes.append(size)
        if size > self.interface:
            self.size.refused(size, self.interface)
        elif not self.loses(size):
            self.echoes.append(tag)
        return tag

    def let_pass(self, seconds: float) -> None:
        """Let time go on, with all that happens in it."""
        for _ in range(round(seconds / 0.01)):
            echoes, self.echoes = self.echoes, []
            for tag in echoes:
                self.size.answered(tag)
            self.clock.advance(0.01)
            self.size.tick()


class SearchTests(PathSizeTestCase):
    def test_size_begins_at_the_base_and_nothing_is_probed_without_need(self) -> None:
        """The size begins at the base (`BASE_BYTES`); a cluster that sends small frames only causes no probe."""
        self.let_pass(10)
        self.assertEqual((self.size.size, self.probes), (BASE_BYTES, []))

    def test_size_grows_by_an_answer_alone(self) -> None:
        """The size grows only when a probe is answered; the limit of this machine's interface is tried first."""
        self.size.larger_wanted()
        self.size.tick()
        self.assertEqual(self.size.size, BASE_BYTES)
        self.let_pass(0.1)
        self.assertEqual(self.size.size, 1_472)
        self.assertEqual(self.changes, [(BASE_BYTES, 1_472)])

    def test_search_finds_any_size(self) -> None:
        """The search finds any size that a path between large interfaces carries."""
        self.interface = 8_972
        for self.carried in (508, 600, 1_199, 1_200, 1_300, 1_452, 1_472, 4_000, 8_900, 8_972):
            self.probes.clear()
            self.echoes.clear()
            self.size = PathSize(self.clock, PathRoundTrip(), self.send_probe, 60_000, lambda before, now: None)
            if self.carried < BASE_BYTES:
                self.size.doubt()
            self.size.larger_wanted()
            self.let_pass(4)
            self.assertLessEqual(self.size.size, self.carried)
            self.assertLess(self.carried - self.size.size, GRAIN_BYTES, self.carried)

    def test_search_is_repeated_after_a_while(self) -> None:
        """The search is repeated after a while, since paths get better, too."""
        self.carried = 1_300
        self.size.larger_wanted()
        self.let_pass(4)
        found, self.carried = self.size.size, 1_472
        self.size.larger_wanted()
        self.let_pass(1)
        self.assertEqual(self.size.size, found)
        self.clock.advance(RAISE_SECONDS)
        self.size.larger_wanted()
        self.let_pass(1)
        self.assertEqual(self.size.size, 1_472)

    def test_search_ends_when_nothing_is_answered(self) -> None:
        """The search ends when no probe is answered, as by a peer that is down, and begins again later."""
        self.loses = lambda size: True
        self.size.larger_wanted()
        self.let_pass(20)
        self.assertEqual((self.size.size, self.changes), (BASE_BYTES, []))
        count = len(self.probes)
        self.let_pass(20)
        self.assertEqual(len(self.probes), count)
        self.loses = lambda size: False
        self.clock.advance(RETRY_SECONDS)
        self.size.larger_wanted()
        self.let_pass(0.5)
        self.assertEqual(self.size.size, 1_472)

    def test_probe_that_is_lost_by_chance_is_sent_again(self) -> None:
        """A probe that is lost by chance is sent again; only several losses mean that a size does not pass."""
        lost: list[int] = []

        def loses(size: int) -> bool:
            if size > CONTROL_BYTES and len(lost) < SEARCH_LOSSES - 1:
                lost.append(size)
                return True
            return False

        self.loses = loses
        self.size.larger_wanted()
        self.let_pass(2)
        self.assertEqual(self.size.size, 1_472)
        self.assertEqual(len(lost), SEARCH_LOSSES - 1)


class ShrinkTests(PathSizeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.size.larger_wanted()
        self.let_pass(0.2)
        self.assertEqual(self.size.size, 1_472)
        self.probes.clear()

    def test_black_hole_is_found(self) -> None:
        """When datagrams of the present size vanish, the size is reduced after some lost probes to one that passes."""
        self.carried = 1_300
        self.size.doubt()
        self.let_pass(0.5)
        self.assertEqual(self.changes[1], (1_472, BASE_BYTES))
        self.let_pass(3)
        self.assertTrue(1_300 - GRAIN_BYTES < self.size.size <= 1_300, self.size.size)

    def test_below_the_base(self) -> None:
        """On a path that does not carry even the size with which it began (the base) any more, the size becomes that of
        the smallest datagrams."""
        self.carried = 600
        for _ in range(2):
            self.size.doubt()
            self.let_pass(2)
        self.assertTrue(FLOOR_BYTES <= self.size.size <= 600, self.size.size)
        self.carried = 1_472
        self.let_pass(RETRY_SECONDS + 1)
        self.size.larger_wanted()
        self.let_pass(0.5)
        self.assertEqual(self.size.size, 1_472)

    def test_peer_that_is_down_is_no_black_hole(self) -> None:
        """If small probes are not answered either, the peer is down, and the size stays."""
        self.loses = lambda size: True
        self.size.doubt()
        self.let_pass(20)
        self.assertEqual(self.size.size, 1_472)

    def test_few_losses_are_no_black_hole(self) -> None:
        """A few lost probes do not reduce the size: one of the present size that is answered ends the doubt."""
        lost: list[int] = []

        def loses(size: int) -> bool:
            if size > CONTROL_BYTES and len(lost) < CONFIRM_LOSSES - 1:
                lost.append(size)
                return True
            return False

        self.loses = loses
        self.size.doubt()
        self.let_pass(2)
        self.assertEqual((self.size.size, len(lost)), (1_472, CONFIRM_LOSSES - 1))

    def test_proof_is_renewed_while_large_datagrams_are_sent(self) -> None:
        """While large datagrams are sent, the size is tested every half second, unless a frame in parts has arrived,
        which shows as much."""
        self.size.used()
        self.assertEqual(self.probes, [])
        self.clock.advance(2 * CONFIRM_SECONDS)
        self.size.proved(1_472)
        self.size.used()
        self.assertEqual(self.probes, [])
        self.clock.advance(2 * CONFIRM_SECONDS)
        self.size.proved(BASE_BYTES)
        self.size.used()
        self.assertEqual(self.probes, [CONTROL_BYTES, 1_472])

    def test_own_interface_that_became_smaller(self) -> None:
        """When a datagram of a size that was sent before is refused by the own interface, the size comes down at
        once."""
        self.interface = 1_252
        self.size.refused(1_472, 1_252)
        self.assertEqual(self.size.size, 1_252)

    def test_forged_limit_does_not_take_the_size_down(self) -> None:
        """A forged limit does not reduce the size: only a refused datagram of the present size does."""
        self.size.refused(1_500, 600)
        self.assertEqual(self.size.size, 1_472)


class RoundTripTests(SynchronousTestCase):
    def test_wait_follows_what_was_measured(self) -> None:
        """The wait for an answer follows the measured times: four times the variation above the mean, within bounds
        (RFC 6298)."""
        trip = PathRoundTrip()
        self.assertEqual(trip.seconds, FIRST_SECONDS)
        trip.observe(0.1)
        self.assertAlmostEqual(trip.seconds, 0.3)
        for _ in range(100):
            trip.observe(0.1)
        self.assertAlmostEqual(trip.seconds, 0.1, 3)
        for _ in range(100):
            trip.observe(0.0001)
        self.assertEqual(trip.seconds, SHORTEST_SECONDS)
        trip.observe(50)
        self.assertEqual(trip.seconds, LONGEST_SECONDS)
