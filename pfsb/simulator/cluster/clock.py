"""Time that jumps from event to event: the one clock of a simulated cluster (docs/testing.rst).

`SimulatedClock` keeps all calls that wait, in the order of their times. Each simulated server asks a `ServerClock` of
its own for time, so that one server can be paused or killed, or can have a clock that is wrong, without effect on the
others.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf, nextafter
from typing import Any

from attrs import define, field
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

SIMULATOR = "pfsb.simulator."
"""The beginning of the names of the modules whose calls are no calls of a server."""
EVENTS_AT_ONE_TIME_MAX = 1_000_000
"""Maximum number of calls that run at one instant. If there are more, they are taken for a loop that never ends."""


@implementer(IDelayedCall)
@define(eq=False)
class SimulatedCall:
    """A function call that waits, in the heap of the `SimulatedClock`, until its time comes.

    A call that is rescheduled leaves its old entry in the heap. Only the entry with the call's `number` is valid.
    """

    _server_clock: ServerClock
    _time: float
    number: int
    _function: Callable[..., object]
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]
    _called: bool = False
    _cancelled: bool = False

    def getTime(self) -> float:
        return self._server_clock.local(self._time)

    def cancel(self) -> None:
        self._must_be_waiting()
        self._cancelled = True
        self._server_clock.calls.discard(self)

    def reset(self, secondsFromNow: float) -> None:
        self._must_be_waiting()
        self._server_clock.clock.put(
            self, self._server_clock.clock.seconds() + secondsFromNow / self._server_clock.rate
        )

    def delay(self, secondsLater: float) -> None:
        self._must_be_waiting()
        self._server_clock.clock.put(self, self._time + secondsLater / self._server_clock.rate)

    def active(self) -> bool:
        return not (self._called or self._cancelled)

    def stands_at(self, time: float, number: int) -> None:
        """Remember the time and number of the only valid entry of this call in the heap. Called by the clock."""
        self._time, self.number = time, number

    def order(self) -> tuple[float, int]:
        return self._time, self.number

    def is_stale(self, number: int) -> bool:
        """Whether the entry of this call with this number must be dropped from the heap. Called by the clock.

        It must if the call was cancelled or rescheduled since, or if its server has ended.
        """
        return self._cancelled or self.number != number or self._server_clock.closed

    @property
    def server_clock(self) -> ServerClock:
        return self._server_clock

    @property
    def name(self) -> str:
        """The name of the function that is called, as in `Class.method`."""
        return str(getattr(self._function, "__qualname__", self._function))

    @property
    def is_of_the_simulator(self) -> bool:
        """Whether this call belongs to the simulator, such as a user's request on its way, and not to a server."""
        return str(getattr(self._function, "__module__", "")).startswith(SIMULATOR)

    def run(self) -> None:
        """Make the call, whose time has come. Called by the clock."""
        self._called = True
        self._server_clock.calls.discard(self)
        self._function(*self._args, **self._kwargs)

    def _must_be_waiting(self) -> None:
        if self._called:
            raise AlreadyCalled
        if self._cancelled:
            raise AlreadyCancelled


@implementer(IReactorTime)
@define(eq=False)
class ServerClock:
    """The clock and the pending calls of one simulated server.

    `pause` holds back the calls while the clock goes on; `close` drops the calls for good. The clock need not be
    right: it may have been wrong by `offset` seconds when the server started, and it runs at a `rate` of its own.
    """

    clock: SimulatedClock
    name: str
    rate: float = 1.0
    """Number of seconds by which this clock advances in one second of the simulation; 1.0 is right."""
    offset: float = 0.0
    """Seconds by which this clock was ahead of the simulation when the server started."""
    _began: float = field(init=False)
    paused: bool = False
    closed: bool = False
    calls: set[SimulatedCall] = field(factory=set)
    _due: list[tuple[int, SimulatedCall]] = field(factory=list)
    """(number of the entry in the clock's heap, call) of each call whose time came during the pause, in the order of
    their times."""

    @_began.default
    def _begins_now(self) -> float:
        return self.clock.seconds()

    def seconds(self) -> float:
        return self.local(self.clock.seconds())

    def local(self, time: float) -> float:
        """The time that this server's clock shows when the simulation's clock shows `time`."""
        if self.rate == 1.0 and not self.offset:
            return time
        return self._began + self.offset + (time - self._began) * self.rate

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> SimulatedCall:
        """Call a function after `delay` seconds of this clock.

        Raises AssertionError on a negative delay, as a real reactor does. If a positive delay is so short that the sum
        of it and the present time is rounded to the present time, the next larger number is the time of the call.
        Otherwise a timer that fires too early by rounding, and waits for the rest, would fire for ever at one instant.
        """
        assert delay >= 0, f"{delay} seconds from now is in the past"
        call = SimulatedCall(self, 0.0, 0, callable, args, kw)
        if not self.closed:
            self.calls.add(call)
            now = self.clock.seconds()
            time = now + delay / self.rate
            self.clock.put(call, nextafter(now, inf) if time == now and delay else time)
        return call

    def callFromThread(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        """Call a function without delay, after all calls that are due now: the simulation has no threads."""
        self.callLater(0, callable, *args, **kw)

    def getDelayedCalls(self) -> list[SimulatedCall]:
        return sorted(self.calls, key=SimulatedCall.order)

    def pause(self) -> None:
        """Hold back all calls, as SIGSTOP does; time goes on."""
        self.paused = True

    def resume(self) -> None:
        """Schedule the calls that came due during the pause for the present time, in the order of their times."""
        self.paused = False
        due, self._due = self._due, []
        for number, call in due:
            if not call.is_stale(number):
                self.clock.put(call, self.clock.seconds())

    def hold(self, number: int, call: SimulatedCall) -> None:
        """Keep a call that has come due during a pause until `resume`; `number` is that of its entry in the heap.
        Called by the clock."""
        self._due.append((number, call))

    def close(self) -> None:
        """Drop all pending calls for good, as SIGKILL does."""
        self.closed = True
        self.calls.clear()
        self._due.clear()


@implementer(IReactorTime)
@define(eq=False)
class SimulatedClock:
    """Runs calls in the order of their times, and calls of the same time in the order in which they were asked for."""

    _now: float = 0.0
    _heap: list[tuple[float, int, SimulatedCall]] = field(factory=list, init=False)
    _numbers: int = field(default=0, init=False)
    _own: ServerClock = field(init=False)
    events: int = field(default=0, init=False)
    """Number of calls that have run."""

    @_own.default
    def _make_own(self) -> ServerClock:
        return ServerClock(self, "the simulation")

    def server_clock(self, name: str, rate: float = 1.0, offset: float = 0.0) -> ServerClock:
        """Make the clock of an incarnation of a server that starts now."""
        return ServerClock(self, name, rate, offset)

    def seconds(self) -> float:
        return self._now

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> SimulatedCall:
        return self._own.callLater(delay, callable, *args, **kw)

    def callFromThread(self, callable: Callable[..., object], *args: object, **kw: object) -> None:
        self._own.callFromThread(callable, *args, **kw)

    def getDelayedCalls(self) -> list[SimulatedCall]:
        """The pending calls of all servers and of the simulation itself, in the order of their times."""
        waiting = {call for _, number, call in self._heap if not call.is_stale(number)}
        return sorted(waiting, key=SimulatedCall.order)

    def put(self, call: SimulatedCall, time: float) -> None:
        """Schedule or reschedule a call for a time of the simulation.

        An older entry of the call stays in the heap, and is dropped when its time comes.
        """
        self._numbers += 1
        call.stands_at(time, self._numbers)
        heappush(self._heap, (time, self._numbers, call))

    def step(self) -> bool:
        """Let time pass until the next call is due, and run it. Returns False if no call waits."""
        call = self._next(float("inf"))
        if call is None:
            return False
        call.run()
        return True

    def step_until(self, time: float) -> bool:
        """If a call is due by `time`, run the first such call and return True.

        Otherwise let time pass until `time`, and return False.
        """
        call = self._next(time)
        if call is None:
            self._now = max(self._now, time)
            return False
        call.run()
        return True

    def run_until(self, time: float) -> None:
        """Run all calls that are due by `time`, each at its time."""
        since, events = self._now, 0
        while self.step_until(time):
            events = events + 1 if self._now == since else 0
            since = self._now
            assert events < EVENTS_AT_ONE_TIME_MAX, f"time stands still at {self._now} s"

    def _next(self, until: float) -> SimulatedCall | None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            time, number, call = heappop(heap)
            if call.is_stale(number):
                continue
            # A call that was held back by a pause, and then delayed, may stand at a time in the past: it runs late, and
            # the time does not go back.
            self._now = max(self._now, time)
            if call.server_clock.paused:
                call.server_clock.hold(number, call)
                continue
            self.events += 1
            return call
        return None
