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
        """Without a FAULT command every frame passes."""
        self.assertTrue(all(self.faults.admits(1) for _ in range(1000)))
        self.assertEqual(self.faults.delay_seconds, 0)

    def test_loss_takes_its_share(self) -> None:
        """With FAULT LOSS 0.3 about 30 % of the frames are lost."""
        self.faults.lose(0.3)
        passed = sum(self.faults.admits(1) for _ in range(10_000))
        self.assertApproximates(passed, 7000, 300)

    def test_certain_loss_lets_nothing_pass(self) -> None:
        """With FAULT LOSS 1 no frame passes."""
        self.faults.lose(1)
        self.assertFalse(any(self.faults.admits(1) for _ in range(1000)))

    def test_same_seed_loses_the_same_frames(self) -> None:
        """One seed loses the same frames in each run."""
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
        """Values that make no sense are refused, and the error says which would be right."""
        for probability in (-0.1, 1.1, float("nan")):
            self.assertIn("0 to 1", str(self.assertRaises(BadRequest, self.faults.lose, probability)))
        for milliseconds in (-1, 60_001):
            self.assertIn("60000", str(self.assertRaises(BadRequest, self.faults.delay, milliseconds)))
        self.assertEqual((self.faults.loss, self.faults.delay_ms), (0, 0))

    def test_held_back_frame_arrives_after_the_delay(self) -> None:
        """With FAULT DELAY 250 a frame arrives a quarter of a second later."""
        self.faults.delay(250)
        self.assertTrue(self.faults.hold_back(self.send_frame, 1, b"frame"))
        self.clock.advance(0.24)
        self.assertEqual(self.carried, [])
        self.clock.advance(0.01)
        self.assertEqual(self.carried, [(1, b"frame")])

    def test_frames_held_back_are_bounded(self) -> None:
        """Frames that are held back are bounded in number: further ones are lost."""
        self.patch(faults, "DELAYED_FRAMES_MAX", 40)
        self.faults.delay(1000)
        held = [self.faults.hold_back(self.send_frame, 1, b"") for _ in range(41)]
        self.assertEqual(held, [True] * 40 + [False])
        self.faults.stop()

    def test_stop_loses_what_is_held_back(self) -> None:
        """When a transport stops, frames that are held back are lost."""
        self.faults.delay(100)
        self.faults.hold_back(self.send_frame, 1, b"frame")
        self.faults.stop()
        self.clock.advance(1)
        self.assertEqual(self.carried, [])
