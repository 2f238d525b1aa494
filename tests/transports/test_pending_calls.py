from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.transports.pending_calls import PendingCalls


class PendingCallsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pending = PendingCalls(self.clock)
        self.called: list[str] = []

    def test_calls_happen_at_their_time(self) -> None:
        """Each call is made after its own delay, and forgotten then."""
        self.pending.call(2, self.called.append, "second")
        self.pending.call(1, self.called.append, "first")
        self.clock.advance(1)
        self.assertEqual((self.called, len(self.pending)), (["first"], 1))
        self.clock.advance(1)
        self.assertEqual((self.called, len(self.pending)), (["first", "second"], 0))

    def test_cancelled_calls_never_happen(self) -> None:
        """Cancelled calls are never made: an owner that has stopped leaves nothing on the clock."""
        self.pending.call(1, self.called.append, "never")
        self.pending.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(2)
        self.assertEqual(self.called, [])
