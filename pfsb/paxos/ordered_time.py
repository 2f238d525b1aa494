"""The state machine's time: ordered with the batches, and carried on by the steady clock of each server (Departure 35).

Each batch carries a time in milliseconds, and executing it moves the state machine's time there. Between two slots a
leader knows the time of the last one and how long ago it was executed. The sum is the time of its next proposal.

The wall clock is read for the first proposal of a cluster only. Afterwards differences of one server's clock are used
and nothing else, so it makes no difference whether the clock of a new leader is a day ahead or a day behind.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from pfsb.support.limits import TIME_MS_MAX, TIME_STEP_MS_MAX


class OrderedTime:
    """The state machine's time at one server. Times are in milliseconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.time_ms = 0
        """The time of the last executed slot. It never goes back."""
        self.has_begun = False
        """Whether any slot was executed here since this server's start, its stored history included. The first slot
        sets the time to that of its batch, however far ahead that is."""
        self._ahead_ms = 0
        """How far, in milliseconds, the state machine's time is ahead of this server's clock."""
        self._told_ms = 0
        """The latest time that a proposal of this server has carried."""

    def execute(self, batch_time_ms: int, leads: bool) -> int:
        """Move the time to that of a batch which is being executed, and return the new time.

        `leads`: this server leads, so it has proposed the batch itself. Its time goes on from the proposal and not from
        the execution; otherwise each slot would cost the time that ordering it takes.

        Departure 35: one slot moves the time by at most `TIME_STEP_MS_MAX`, except for the first slot, before which the
        time is 0. All servers compute the same time, since it depends on nothing but the batches.
        """
        before = self.time_ms
        begins = not self.has_begun
        if begins or not before <= batch_time_ms <= before + TIME_STEP_MS_MAX or batch_time_ms > TIME_MS_MAX:
            batch_time_ms = self._bounded(batch_time_ms)
            self.has_begun = True
        self.time_ms = batch_time_ms
        if begins or not leads:
            self._ahead_ms = batch_time_ms - int(self._clock.seconds() * 1000)
        elif batch_time_ms > self._told_ms:  # a former leader has proposed the batch, and its time is ahead
            self._ahead_ms = max(self._ahead_ms, batch_time_ms - int(self._clock.seconds() * 1000))
        return batch_time_ms

    def restore(self, time_ms: int, leads: bool) -> None:
        """Move the time to that of a snapshot, as if its slot had just been executed here. `leads` says whether this
        server leads."""
        begins = not self.has_begun
        self.has_begun = True
        self.time_ms = time_ms
        if begins or not leads or time_ms > self._told_ms:
            ahead_ms = time_ms - int(self._clock.seconds() * 1000)
            self._ahead_ms = max(self._ahead_ms, ahead_ms) if leads and not begins else ahead_ms

    def _bounded(self, batch_time_ms: int) -> int:
        """The state machine's time after a batch with this time: it does not go back, and goes ahead by
        `TIME_STEP_MS_MAX` at most, except with the first batch."""
        latest_ms = min(self.time_ms + TIME_STEP_MS_MAX, TIME_MS_MAX) if self.has_begun else TIME_MS_MAX
        return max(self.time_ms, min(batch_time_ms, latest_ms))

    def now_ms(self) -> int:
        """The time that a proposal of this server carries.

        It is never further ahead of the last executed slot than one slot may move the time. If more time has passed
        since that slot, the excess is left out for good: if the next slots made up for it, waits would end too early.
        """
        clock_ms = int(self._clock.seconds() * 1000)
        if not self.has_begun:
            return clock_ms
        now_ms = clock_ms + self._ahead_ms
        if now_ms > self.time_ms + TIME_STEP_MS_MAX or now_ms > TIME_MS_MAX:
            now_ms = self._bounded(now_ms)
            self._ahead_ms = now_ms - clock_ms
        self._told_ms = now_ms
        return now_ms
