"""Simulated time (docs/testing.rst)."""

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

    def test_clocks_provide_the_interface_of_a_reactor(self) -> None:
        """Clocks and calls can replace those of a reactor."""
        verifyObject(IReactorTime, self.clock)
        verifyObject(IReactorTime, self.clock.server_clock("a"))
        verifyObject(IDelayedCall, self.clock.callLater(1, self.note, "a"))

    def test_calls_run_at_their_own_time(self) -> None:
        """A call runs at its own time, not at the end of the interval as in `task.Clock.advance`."""
        self.clock.callLater(2, self.note, "b")
        self.clock.callLater(1, self.note, "a")
        self.clock.run_until(5)
        self.assertEqual(self.ran, [("a", 1), ("b", 2)])
        self.assertEqual(self.clock.seconds(), 5)

    def test_calls_of_one_time_run_in_the_order_of_asking(self) -> None:
        """Calls of one time run in the order in which they were asked for, so that one seed gives one run."""
        for name in "cab":
            self.clock.callLater(1, self.note, name)
        self.clock.callFromThread(self.note, "first")
        self.clock.run_until(1)
        self.assertEqual("".join(name for name, _ in self.ran), "firstcab")

    def test_step_jumps_to_the_next_event(self) -> None:
        """A step advances the clock to the next event and runs it, however far away it is."""
        self.clock.callLater(1000, self.note, "a")
        self.assertTrue(self.clock.step())
        self.assertEqual(self.ran, [("a", 1000)])
        self.assertFalse(self.clock.step())

    def test_call_with_a_delay_of_0_runs_in_the_same_instant(self) -> None:
        """A call made with a delay of 0 is due by the end of the interval."""
        self.clock.callLater(1, lambda: self.clock.callLater(0, self.note, "child"))
        self.clock.run_until(1)
        self.assertEqual(self.ran, [("child", 1)])

    def test_cancelled_call_does_not_run(self) -> None:
        """A cancelled call is not listed, and cannot be cancelled twice."""
        call = self.clock.callLater(1, self.note, "a")
        call.cancel()
        self.assertFalse(call.active())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.clock.run_until(2)
        self.assertEqual(self.ran, [])

    def test_call_that_has_run_cannot_be_moved(self) -> None:
        """A call that has run raises AlreadyCalled, as in a real reactor."""
        call = self.clock.callLater(1, self.note, "a")
        self.clock.run_until(1)
        self.assertRaises(AlreadyCalled, call.cancel)
        self.assertRaises(AlreadyCalled, call.reset, 1)
        self.assertRaises(AlreadyCalled, call.delay, 1)

    def test_reset_counts_from_now_and_delay_from_its_time(self) -> None:
        """A call can be moved later and earlier, and runs once."""
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

    def test_negative_delay_is_refused(self) -> None:
        """A negative delay is a mistake of the caller."""
        self.assertRaises(AssertionError, self.clock.callLater, -1, self.note, "a")

    def test_endless_loop_in_one_instant_is_found(self) -> None:
        """An endless loop without any progress of time is reported."""

        def again() -> None:
            self.clock.callLater(0, again)

        again()
        self.patch(clock, "EVENTS_AT_ONE_TIME_MAX", 100)
        self.assertRaises(AssertionError, self.clock.run_until, 1)


class ServerClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SimulatedClock()
        self.server_clock = self.clock.server_clock("a server")
        self.ran: list[tuple[str, float]] = []

    def note(self, name: str) -> None:
        self.ran.append((name, self.clock.seconds()))

    def test_calls_of_a_paused_server_run_late_and_in_order(self) -> None:
        """Calls that come due in a pause run after it, and other servers do not wait for them."""
        self.server_clock.callLater(2, self.note, "second")
        self.server_clock.callLater(1, self.note, "first")
        self.clock.callLater(1.5, self.note, "another's")
        self.server_clock.pause()
        self.clock.run_until(5)
        self.assertEqual(self.ran, [("another's", 1.5)])
        self.server_clock.resume()
        self.clock.run_until(6)
        self.assertEqual(self.ran[1:], [("first", 5), ("second", 5)])

    def test_call_that_came_due_in_a_pause_can_be_cancelled(self) -> None:
        """The first call that runs after a pause may cancel the next one."""
        second = self.server_clock.callLater(2, self.note, "second")
        self.server_clock.callLater(1, second.cancel)
        self.server_clock.pause()
        self.clock.run_until(5)
        self.server_clock.resume()
        self.clock.run_until(6)
        self.assertEqual(self.ran, [])

    def test_call_that_came_due_in_a_pause_can_be_put_off(self) -> None:
        """A call that came due in a pause and was put off runs once, at its new time."""
        call = self.server_clock.callLater(1, self.note, "call")
        self.server_clock.pause()
        self.clock.run_until(5)
        call.reset(3)
        self.server_clock.resume()
        self.clock.run_until(20)
        self.assertEqual(self.ran, [("call", 8)])

    def test_rest_of_a_delay_ends_although_the_clock_is_too_coarse_for_it(self) -> None:
        """When the clock is too coarse for the rest of a timer's delay, time still goes on, and the timer ends."""
        self.clock.run_until(2.0**30)
        late = self.clock.server_clock("late", rate=0.7, offset=0.3)
        due = late.seconds() + 0.1

        def look() -> None:
            if late.seconds() < due:
                late.callLater(due - late.seconds(), look)
            else:
                self.note("over")

        late.callLater(0.05, look)
        late.callLater(0.0999999999, look)
        self.clock.run_until(2.0**30 + 1)
        self.assertEqual([name for name, _ in self.ran], ["over", "over"])

    def test_closed_clock_runs_nothing(self) -> None:
        """A closed clock runs neither pending calls nor new ones, as a killed process."""
        self.server_clock.callLater(1, self.note, "before")
        self.server_clock.close()
        self.server_clock.callLater(1, self.note, "after")
        self.clock.run_until(5)
        self.assertEqual((self.ran, self.server_clock.getDelayedCalls()), ([], []))
