"""Departure 49: how long to wait for an answer before a message is sent again, as TCP does it (RFC 6298).

The wait follows measured times from request to answer: their smoothed mean and four times their smoothed deviation, so
that it is short on quick links and disks, and long enough on slow ones. An answer to a request that was sent twice may
belong to either copy (Karn's rule, `RoundTrip.answered`). Each time that no answer comes within the wait, the next wait
is twice as long, and up to a quarter longer at random, until an answer to a request that was sent once shows the true
time.
"""

from __future__ import annotations

import random

SHORTEST_SECONDS = 0.01
"""Minimum time, in seconds, that a measured wait lasts: a timer that is much finer would run for every message, and the
pauses of an event loop would cause repetitions."""
LONGEST_SECONDS = 60.0
"""Maximum time, in seconds, that a wait lasts unless another maximum is given (RFC 6298, section 2.5)."""
GUESSING_WAITS = 16
"""How long, in units of the wait, answers may be taken for answers to the last copy, if all of them are to requests
that were sent again. If messages are lost, a request that was sent once is answered within that time, and the guessing
ends. If answers are slow, none is; then times are measured from the first copy (`RoundTrip._guess`)."""
JITTER = 0.25
"""Maximum share of itself by which a wait is made longer at random when it is doubled, after it has passed in vain. So
servers that wait for the same event do not stay in step."""
RELAXATION = 0.97
"""Factor by which the measured times shrink in each period of ALIVE in which nothing is under way: half of them is left
after some 4 s with the default timers."""


class RoundTrip:
    """Tells how long, in seconds, to wait for one kind of answers, by how long such answers have taken."""

    def __init__(self, first_seconds: float, rng: random.Random, longest_seconds: float = LONGEST_SECONDS) -> None:
        """`first_seconds` is the wait while nothing is measured, and `longest_seconds` the maximum of any wait."""
        self._first = first_seconds
        self._longest = longest_seconds
        self._floor = min(SHORTEST_SECONDS, first_seconds)
        self._rng = rng
        self._is_measured = False
        self.mean = 0.0
        """Smoothed time to an answer, in seconds (SRTT); 0 while nothing is measured."""
        self.measured = 0.0
        """Time within which nearly all answers come, in seconds: the mean and four deviations; 0 while nothing is
        measured."""
        self.last_answer_at = 0.0
        """Time by the clock of the last answer, whether it was measured or not."""
        self._valid_from = 0.0
        """Time by the clock: answers to requests that were sent before it are not measured (`interrupted`)."""
        self._deviation = 0.0
        self._backoff = 1.0
        self.guessing_since: float | None = None
        """Time by the clock of the first answer to a request that was sent again, since the last answer to one that was
        sent once; None: there was none."""
        self.seconds = first_seconds
        """How long, in seconds, to wait now before the request is sent again."""

    def answered(self, first_at: float, last_at: float, now: float) -> None:
        """Take the time of an answer that came `now` to a request.

        The first copy of the request was sent at `first_at`, and the last one at `last_at`, all by the clock. If there
        is one copy, the answer tells the true time, and the wait is no longer made longer by earlier calls of
        `back_off`.
        """
        self.last_answer_at = now
        if first_at < self._valid_from:
            return
        if first_at == last_at:
            self._backoff = 1.0
            self.guessing_since = None
            self._measure(now - first_at)
        else:
            self._guess(first_at, last_at, now)

    def _guess(self, first_at: float, last_at: float, now: float) -> None:
        """Take the time of an answer that may belong to any copy of a request (Karn's rule).

        An answer that comes as soon after the last copy as answers usually do seems to show that the copies before were
        lost and not late, so the waits are no longer than before. A later answer took at least the time since the last
        copy, which is measured, and the waits stay long. If for long all answers come to repeated requests, the waits
        are too short: then the time since the first copy is measured, which is no less than the true one.
        """
        if self.guessing_since is None:
            self.guessing_since = now
        if now - self.guessing_since > GUESSING_WAITS * self.seconds:
            self._measure(now - first_at)
        elif now - last_at <= max(self.measured, self._floor):
            self.start_anew()
        else:
            self._measure(now - last_at)

    def interrupted(self, now: float) -> None:
        """Measure no request that was sent before `now`, by the clock, and take back what `back_off` has done.

        Called when this server stood still, or a peer was not heard for a while. How long that lasted tells nothing
        about later answers: a process that was paused for an hour would take its leader for alive for hours.
        """
        self._valid_from = now
        self.guessing_since = None
        self.start_anew()

    def _measure(self, seconds: float) -> None:
        if self._is_measured:
            error = seconds - self.mean
            self.mean += error / 8
            self._deviation += ((error if error > 0.0 else -error) - self._deviation) / 4
        else:
            self._is_measured = True
            self.mean = seconds
            self._deviation = seconds / 2
        self.measured = measured = self.mean + 4 * self._deviation
        if measured < self._floor and self._backoff == 1.0:
            self.seconds = self._floor  # the usual case, in few steps: this runs for every slot
        else:
            self._set()

    def back_off(self) -> None:
        """Make the next wait twice as long, and a random share longer: no answer came within the present one."""
        if self.seconds < self._longest:
            self._backoff *= self._rng.uniform(2.0, 2.0 * (1 + JITTER))
            self._set()

    def start_anew(self) -> None:
        """Take back what `back_off` has done: the reason for vain waits seems to be over."""
        self._backoff = 1.0
        self._set()

    def relax(self) -> None:
        """Make waits that have grown beyond the first one a little shorter: the disks or links that were slow may be
        quick by now.

        Times beyond the longest wait are forgotten at once. An answer that had to wait for a disk that hung may have
        taken minutes, which would keep the waits at their maximum for minutes more.
        """
        if self._backoff > 1.0:
            self._backoff = max(1.0, self._backoff * RELAXATION)
            self._set()
        if self.measured > self._first:
            factor = min(RELAXATION, self._longest / self.measured)
            self.mean *= factor
            self._deviation *= factor
            self.measured = self.mean + 4 * self._deviation
            self._set()

    def _set(self) -> None:
        base = max(self.measured, self._floor) if self._is_measured else self._first
        self.seconds = min(base * self._backoff, self._longest)
