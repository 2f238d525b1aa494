from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import BadRequest
from pfsb.transports import faults
from pfsb.transports.faults import LinkFaults


class LinkFaultsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.faults = LinkFaults(self.clock, Random(1))
        self.carried: list[tuple[int, bytes]] = []

    def send_frame(self, peer: int, frame: bytes) -> None:
        self.carried.append((peer, frame))

    def test_everything_passes_at_first(self) -> None:
        """Faults are asked for, never a default."""
        self.assertTrue(all(self.faults.admits(1) for _ in range(1000)))
        self.assertEqual(self.faults.delay_seconds, 0)

    def test_loss_takes_its_share(self) -> None:
        """FAULT LOSS 0.3 loses about 30 % of the frames."""
        self.faults.lose(0.3)
        passed = sum(self.faults.admits(1) for _ in range(10_000))
        self.assertApproximates(passed, 7000, 300)

    def test_certain_loss_lets_nothing_pass(self) -> None:
        """FAULT LOSS 1 is a server on its own."""
        self.faults.lose(1)
        self.assertFalse(any(self.faults.admits(1) for _ in range(1000)))

    def test_same_seed_loses_the_same_frames(self) -> None:
        """One seed reproduces a run."""
        outcomes = []
        for _ in range(2):
            faults = LinkFaults(self.clock, Random(7))
            faults.lose(0.5)
            outcomes.append([faults.admits(1) for _ in range(50)])
        self.assertEqual(*outcomes)

    def test_cuts_add_up_until_healed(self) -> None:
        """FAULT CUT 1, then FAULT CUT 2: both are cut off, 3 is not; FAULT HEAL brings all back."""
        self.faults.cut([1])
        self.faults.cut([2])
        self.assertEqual([self.faults.admits(peer) for peer in (1, 2, 3)], [False, False, True])
        self.faults.heal()
        self.assertEqual([self.faults.admits(peer) for peer in (1, 2, 3)], [True, True, True])

    def test_heal_ends_loss_and_delay(self) -> None:
        """FAULT HEAL leaves nothing of any fault."""
        self.faults.lose(1)
        self.faults.delay(50)
        self.faults.heal()
        self.assertTrue(self.faults.admits(1))
        self.assertEqual(self.faults.delay_seconds, 0)

    def test_values_that_make_no_sense_are_refused(self) -> None:
        """The text says what would be right."""
        for probability in (-0.1, 1.1, float("nan")):
            self.assertIn("0 to 1", str(self.assertRaises(BadRequest, self.faults.lose, probability)))
        for milliseconds in (-1, 60_001):
            self.assertIn("60000", str(self.assertRaises(BadRequest, self.faults.delay, milliseconds)))
        self.assertEqual((self.faults.loss, self.faults.delay_ms), (0, 0))

    def test_held_back_frame_arrives_after_the_delay(self) -> None:
        """FAULT DELAY 250: a quarter of a second."""
        self.faults.delay(250)
        self.assertTrue(self.faults.hold_back(self.send_frame, 1, b"frame"))
        self.clock.advance(0.24)
        self.assertEqual(self.carried, [])
        self.clock.advance(0.01)
        self.assertEqual(self.carried, [(1, b"frame")])

    def test_frames_held_back_are_bounded(self) -> None:
        """Every queue has a maximum length: a full one loses frames."""
        self.patch(faults, "DELAYED_FRAMES_MAX", 40)
        self.faults.delay(1000)
        held = [self.faults.hold_back(self.send_frame, 1, b"") for _ in range(41)]
        self.assertEqual(held, [True] * 40 + [False])
        self.faults.stop()

    def test_stop_loses_what_is_held_back(self) -> None:
        """A server that stopped sends nothing more."""
        self.faults.delay(100)
        self.faults.hold_back(self.send_frame, 1, b"frame")
        self.faults.stop()
        self.clock.advance(1)
        self.assertEqual(self.carried, [])
