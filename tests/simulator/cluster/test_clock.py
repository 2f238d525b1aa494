"""Simulated time (design part 10)."""

from __future__ import annotations

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pfsb.simulator.cluster import clock
from pfsb.simulator.cluster.clock import SimulatedClock


class SimulatedClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SimulatedClock()
        self.ran: list[tuple[str, float]] = []

    def note(self, name: str) -> None:
        self.ran.append((name, self.clock.seconds()))

    def test_is_what_twisted_calls_a_clock(self) -> None:
        """Whatever takes an IReactorTime takes this."""
        verifyObject(IReactorTime, self.clock)
        verifyObject(IReactorTime, self.clock.server_clock("a"))
        verifyObject(IDelayedCall, self.clock.callLater(1, self.note, "a"))

    def test_calls_run_at_their_own_time(self) -> None:
        """Not at the end of the interval, as `task.Clock.advance` has it."""
        self.clock.callLater(2, self.note, "b")
        self.clock.callLater(1, self.note, "a")
        self.clock.run_until(5)
        self.assertEqual(self.ran, [("a", 1), ("b", 2)])
        self.assertEqual(self.clock.seconds(), 5)

    def test_calls_of_one_time_run_in_the_order_of_asking(self) -> None:
        """So that one seed gives one run."""
        for name in "cab":
            self.clock.callLater(1, self.note, name)
        self.clock.callFromThread(self.note, "first")
        self.clock.run_until(1)
        self.assertEqual("".join(name for name, _ in self.ran), "firstcab")

    def test_step_jumps_to_the_next_event(self) -> None:
        """One event at a time, however far away it is."""
        self.clock.callLater(1000, self.note, "a")
        self.assertTrue(self.clock.step())
        self.assertEqual(self.ran, [("a", 1000)])
        self.assertFalse(self.clock.step())

    def test_what_a_call_asks_for_now_runs_in_the_same_instant(self) -> None:
        """A call made with a delay of 0 is due by the end of the interval."""
        self.clock.callLater(1, lambda: self.clock.callLater(0, self.note, "child"))
        self.clock.run_until(1)
        self.assertEqual(self.ran, [("child", 1)])

    def test_cancelled_call_does_not_run(self) -> None:
        """And is not listed, nor cancelled twice."""
        call = self.clock.callLater(1, self.note, "a")
        call.cancel()
        self.assertFalse(call.active())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.clock.run_until(2)
        self.assertEqual(self.ran, [])

    def test_call_that_has_run_cannot_be_moved(self) -> None:
        """As with a real reactor."""
        call = self.clock.callLater(1, self.note, "a")
        self.clock.run_until(1)
        self.assertRaises(AlreadyCalled, call.cancel)
        self.assertRaises(AlreadyCalled, call.reset, 1)
        self.assertRaises(AlreadyCalled, call.delay, 1)

    def test_reset_counts_from_now_and_delay_from_its_time(self) -> None:
        """Later and earlier; it runs once."""
        later = self.clock.callLater(1, self.note, "later")
        sooner = self.clock.callLater(9, self.note, "sooner")
        put_off = self.clock.callLater(1, self.note, "put off")
        self.clock.run_until(0.5)
        later.reset(3)
        sooner.reset(1)
        put_off.delay(1)
        self.assertEqual([later.getTime(), sooner.getTime(), put_off.getTime()], [3.5, 1.5, 2])
        self.clock.run_until(20)
        self.assertEqual(self.ran, [("sooner", 1.5), ("put off", 2), ("later", 3.5)])

    def test_past_is_refused(self) -> None:
        """A negative delay is a mistake of the caller."""
        self.assertRaises(AssertionError, self.clock.callLater, -1, self.note, "a")

    def test_endless_loop_in_one_instant_is_found(self) -> None:
        """Time must move on."""

        def again() -> None:
            self.clock.callLater(0, again)

        again()
        self.patch(clock, "EVENTS_AT_ONE_TIME_MAX", 100)
        self.assertRaises(AssertionError, self.clock.run_until, 1)


class LaneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SimulatedClock()
        self.server_clock = self.clock.server_clock("a server")
        self.ran: list[tuple[str, float]] = []

    def note(self, name: str) -> None:
        self.ran.append((name, self.clock.seconds()))

    def test_paused_lane_runs_late_and_in_order(self) -> None:
        """As a stopped process: its timers come due, and run when it goes on; others do not wait for it."""
        self.server_clock.callLater(2, self.note, "second")
        self.server_clock.callLater(1, self.note, "first")
        self.clock.callLater(1.5, self.note, "another's")
        self.server_clock.pause()
        self.clock.run_until(5)
        self.assertEqual(self.ran, [("another's", 1.5)])
        self.server_clock.resume()
        self.clock.run_until(6)
        self.assertEqual(self.ran[1:], [("first", 5), ("second", 5)])

    def test_what_came_due_in_a_pause_can_still_be_cancelled(self) -> None:
        """The first call that runs may call off the next."""
        second = self.server_clock.callLater(2, self.note, "second")
        self.server_clock.callLater(1, second.cancel)
        self.server_clock.pause()
        self.clock.run_until(5)
        self.server_clock.resume()
        self.clock.run_until(6)
        self.assertEqual(self.ran, [])

    def test_what_came_due_in_a_pause_can_be_put_off(self) -> None:
        """It then runs once, at its new time."""
        call = self.server_clock.callLater(1, self.note, "call")
        self.server_clock.pause()
        self.clock.run_until(5)
        call.reset(3)
        self.server_clock.resume()
        self.clock.run_until(20)
        self.assertEqual(self.ran, [("call", 8)])

    def test_closed_lane_runs_nothing(self) -> None:
        """As a killed process: neither what waits nor what it still asks for."""
        self.server_clock.callLater(1, self.note, "before")
        self.server_clock.close()
        self.server_clock.callLater(1, self.note, "after")
        self.clock.run_until(5)
        self.assertEqual((self.ran, self.server_clock.getDelayedCalls()), ([], []))
