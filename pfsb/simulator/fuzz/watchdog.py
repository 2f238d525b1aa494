"""Notices that an input keeps its target busy for too long, or takes too much memory."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from attrs import define, field

HANG_SECONDS: Final = 10.0
"""Processor time, in seconds, after which an input that has not ended counts as a hang. A timer looks each time that so
much processor time has been used; so a hang is noticed before twice this time is used.

Processor time is measured because a process on a busy machine gets little of it. An input that only waits uses none;
`WAITING_SECONDS` is for that.
"""
WAITING_SECONDS: Final = 300.0
"""Real time, in seconds, after which an input that has not ended counts as a hang; the hang is noticed before twice
this time has passed."""
GROWTH_MEGABYTES: Final = 256
"""Maximum memory, in megabytes, by which one input may raise the highest use of memory of this process."""


class Hang(BaseException):
    """Raised in the middle of an input that does not end. Not an Exception: a server would catch it."""


class Greed(AssertionError):
    """Raised after an input that took too much memory."""


@define(eq=False)
class Watchdog:
    """Raises `Hang` if an input takes too long, and `Greed` if it has taken too much memory.

    Inside of `with watchdog.watching()`, in the main thread, call `next_input` before each input and after the last.
    """

    _inputs: int = field(default=0, init=False)
    _seen: dict[int, int] = field(factory=dict, init=False)
    """Number of a signal -> the number of the input that was under way when the signal last came."""
    _megabytes: int = field(default=0, init=False)

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, self._look)
        before_busy = signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_REAL, WAITING_SECONDS, WAITING_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS, HANG_SECONDS)
        self._megabytes = megabytes_in_use()
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGALRM, before)
            signal.signal(signal.SIGPROF, before_busy)

    def next_input(self) -> None:
        """Begin to watch the next input. Raises `Greed` if the one before it has taken too much memory."""
        self._inputs += 1
        now = megabytes_in_use()
        grown, self._megabytes = now - self._megabytes, now
        if grown > GROWTH_MEGABYTES:
            raise Greed(f"the highest use of memory has grown by {grown} MB")

    def _look(self, number: int, _frame: FrameType | None) -> None:
        if self._seen.pop(number, -1) == self._inputs:
            is_busy = number == signal.SIGPROF
            seconds, what = (HANG_SECONDS, "of the processor") if is_busy else (WAITING_SECONDS, "of waiting")
            raise Hang(f"does not end within {seconds:g} s {what}")
        self._seen[number] = self._inputs


def megabytes_in_use() -> int:
    """The largest resident memory that this process has had so far, in MiB (`ru_maxrss` is in KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
