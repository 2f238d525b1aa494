"""The Progress_Timer (Figure 2, line E1, and Figure 6, Block A): the only failure detector.

The timer runs in REG_LEADER and REG_NONLEADER at all times, and in an election from the moment a view is preinstalled
(G5, G8). Departure 28: the timer's length doubles at each preinstall, up to a cap. The length goes back to its default
when an update is executed that was ordered in the installed view.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.core import Core, Handler

HURRY_SECONDS = 0.02
"""Maximum time, in seconds, that `hurry` leaves until the timer expires. The time is random, so that not all servers
suspect their leader at once."""


class ProgressTimer(Handler):
    def __init__(self, core: Core, rng: random.Random) -> None:
        super().__init__(core)
        self._timers = core.data.timers
        self._rng = rng
        self._default = core.settings.progress_seconds
        self.longest = core.settings.progress_seconds * 2**core.settings.progress_doublings_max
        """Maximum length of the timer, in seconds (G8)."""
        self._call: IDelayedCall | None = None
        self._due = 0.0
        self.expiries = 0
        self.on_expiry: Callable[[], None] = lambda: None
        """Called in a turn each time that the timer expires. `Replica._wire` sets it to the beginning of an
        election."""

    @property
    def running(self) -> bool:
        return self._call is not None

    def start(self) -> None:
        """Start the timer, or start it again, with its present length.

        The timer is started again for every executed update. To keep that cheap, a later deadline only changes `_due`;
        when the delayed call of the earlier deadline comes, `expire` sets another one for the rest of the time.
        """
        self._due = self._clock.seconds() + self._timers.progress_seconds
        if self._call is None:
            self._arm(self._due)
        elif self._call.getTime() > self._due:
            self._call.reset(self._timers.progress_seconds)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def hurry(self) -> None:
        """Let the timer expire within some random milliseconds, since the leader seems gone (Departure 11).

        Has no effect if the timer does not run.
        """
        if self._call is None:
            return
        left = self._rng.uniform(0, HURRY_SECONDS)
        if self._clock.seconds() + left < self._due:
            self._due = self._clock.seconds() + left
            self._call.reset(left)

    def double(self) -> None:
        """Double the timer's length, up to `longest`: called at each preinstall, so that slow servers get more time."""
        self._timers.progress_seconds = min(self._timers.progress_seconds * 2, self.longest)

    def back_to_default(self) -> None:
        self._timers.progress_seconds = self._default

    def _arm(self, due: float) -> None:
        self._call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self.expire)

    def expire(self) -> None:
        self._call = None
        if self._clock.seconds() < self._due:
            self._arm(self._due)
            return
        self._turn.run(self._suspect)

    def _suspect(self) -> None:
        """Figure 6, Block A: suspect the leader, since the timer has expired without global progress.

        Departures 44 and 45: a server whose disk is in trouble suspects no leader, since it could install no view.
        """
        if self._turn.trouble is not None:
            self.start()
            return
        self.expiries += 1
        if self._tracer is not None:
            self._tracer.trace("timer", name="progress")
        self.on_expiry()
