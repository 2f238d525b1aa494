"""The Progress_Timer (Figure 2, line E1, and Figure 6, Block A): the only failure detector.

The timer runs in REG_LEADER and REG_NONLEADER at all times, and in an election from the moment a view is preinstalled
(G5, G8). Departure 28: the timer's length doubles at each preinstall, up to a cap.

Departure 48: the length comes down by half each time that updates are executed which were ordered in the installed
view, down to its default, and the timer never expires sooner than a multiple of the time that slots have taken lately.
Nor does it expire while this server's own disk is slow (`ProgressTimer.own_disk_is_slow`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.round_trip import RoundTrip

HURRY_SECONDS = 0.02
"""Maximum time, in seconds, that `hurry` leaves until the timer expires. The time is random, so that not all servers
suspect their leader at once."""

NO_WRITE = -1
"""A value of `ProgressTimer.written` below any count of disk writes: the timer waits for no write."""
SLOTS_PATIENCE = 2
"""Minimum length of the timer, in units of the time within which nearly all slots were ordered lately."""
WRITES_PATIENCE = 4
"""Maximum length that slow slots give the timer, in units of the time after which a disk counts as one that hangs: a
slot waits for a write that is under way and for its own, at the leader or at a follower."""


class ProgressTimer(Handler):
    """Suspects the leader if there is no sign of progress for the length of the timer.

    Other handlers start the timer when a view is preinstalled or installed, and again at each sign of progress:
    updates were executed, or the leader's ALIVE came while no update waits. They hurry it when the leader seems gone,
    and stop it when an election begins. The timer sends no message: when it expires, it calls `on_expiry`, which begins
    an election. Figure 2, line E1, and Figure 6, Block A of the paper.
    """

    def __init__(self, core: Core, rng: random.Random, slot_time: RoundTrip) -> None:
        """`slot_time` measures how long slots take, from PROPOSAL to order (Departure 48)."""
        super().__init__(core)
        self.slot_time = slot_time
        """Measures how long slots take to be ordered; the length of the timer follows it (`seconds`)."""
        self._timers = core.data.timers
        self._rng = rng
        self._default = core.settings.progress_seconds
        self.longest = core.settings.progress_seconds * 2**core.settings.progress_doublings_max
        """Maximum length to which the timer doubles, in seconds (G8)."""
        self.longest_for_slots = WRITES_PATIENCE * core.settings.disk_seconds
        """Maximum length of the timer, in seconds, on account of slots that took long (Departure 48)."""
        self._call: IDelayedCall | None = None
        self._due = 0.0
        self.written = 0
        """Number of disk writes that had begun when the timer was started, or were done when it was started once more
        after a slow write."""
        self._awaits_disk_since: float | None = None
        """Time by the clock at which the timer was due, if it waits for a write of this server's disk; else None."""
        self.expiries = 0
        self.on_expiry: Callable[[], None] = lambda: None
        """Called in a turn each time that the timer expires. `Replica._wire` sets it to the beginning of an
        election."""

    @property
    def running(self) -> bool:
        return self._call is not None

    @property
    def seconds(self) -> float:
        """The timer's length at its next start, in seconds (Departure 48)."""
        for_slots = min(SLOTS_PATIENCE * self.slot_time.measured, self.longest_for_slots)
        return max(self._timers.progress_seconds, for_slots)

    def start(self) -> None:
        """Start the timer, or start it again, with its present length.

        The timer is started again for every executed update. To keep that cheap, a later deadline only changes `_due`;
        when the delayed call of the earlier deadline comes, `expire` makes another delayed call for the rest of the
        time.
        """
        seconds = self._timers.progress_seconds  # `self.seconds`, in fewer steps: this runs for every slot
        if self.slot_time.measured * SLOTS_PATIENCE > seconds:
            seconds = self.seconds
        self._due = self._clock.seconds() + seconds
        self.written = self._turn.position
        self._awaits_disk_since = None
        if self._call is None:
            self._arm(self._due)
        elif self._call.getTime() > self._due:
            self._call.reset(seconds)

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
        if self._clock.seconds() + left < max(self._due, self._call.getTime()):
            self._due = self._clock.seconds() + left
            self.written = NO_WRITE
            self._awaits_disk_since = None
            self._call.reset(left)

    def double(self) -> None:
        """Double the timer's length, up to `longest`: called at each preinstall, so that slow servers get more time."""
        self._timers.progress_seconds = min(self._timers.progress_seconds * 2, self.longest)

    def come_down(self) -> None:
        """Halve the timer's length, down to its default: called when this view orders updates (Departure 48)."""
        if self._timers.progress_seconds > self._default:
            self._timers.progress_seconds = max(self._default, self._timers.progress_seconds / 2)

    def _arm(self, due: float) -> None:
        self._call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self.expire)

    def expire(self) -> None:
        self._call = None
        if self._clock.seconds() < self._due:
            self._arm(self._due)
        elif self.own_disk_is_slow():
            self._arm(self._clock.seconds() + self._default)
        elif self._awaits_disk_since is not None:
            waited = self._clock.seconds() - self._awaits_disk_since
            self.start()
            self._due += waited
            self.written = self._turn.durable_position
        else:
            self._turn.run(self._suspect)

    def own_disk_is_slow(self) -> bool:
        """Departure 48: whether this server's disk is writing, and has finished no write that it began after the start
        of the timer.

        If so, the vote of this server may be the one that is missing. Its VIEW_CHANGE would wait at the gate for the
        same write, so this server would bring about no new leader sooner by suspecting the present one now. After the
        write the timer runs once more, and as much longer as it has waited, since the disks of the other servers may be
        as slow.

        A write that was under way when the timer was started does not count, even if it has ended: it tells nothing of
        the next one, which may be the first slow one.
        """
        turn = self._turn
        is_slow = turn.is_writing and turn.durable_position <= self.written
        if is_slow and self._awaits_disk_since is None:
            self._awaits_disk_since = self._clock.seconds()
        return is_slow

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
