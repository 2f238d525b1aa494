"""A client follows an event log (LISTEN): every event once, in order, as fast as the client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from pfsb.applications.interfaces import Event

EVENTS_AT_ONCE = 64
"""How many events are told before it is looked whether the client still reads."""


class Subscription:
    """A cursor into the log. It needs no queue of its own: what the client has not read is still in the log."""

    _log = Logger()

    def __init__(
        self, application: Any, first: int, deliver: Callable[[Event], None], stopped: Callable[[Subscription], None]
    ) -> None:
        self._application = application
        self._next = first
        self._deliver = deliver
        self._stopped = stopped
        self._paused = False
        self._going_on = True
        self._released = 0
        self._telling = False

    @property
    def next(self) -> int:
        """The number of the event that is told next."""
        return self._next

    def released(self, length: int) -> None:
        """Events up to number `length` may be told: what they rest on is on disk."""
        self._released = max(self._released, length)
        self._tell()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._tell()

    def stop(self) -> None:
        self._going_on = False
        self._stopped(self)

    def _tell(self) -> None:
        if self._telling:
            return  # `deliver` has paused and resumed us; the loop below goes on
        self._telling = True
        try:
            while self._may_tell():
                limit = min(EVENTS_AT_ONCE, self._released - self._next + 1)
                for event in self._application.events(self._next, limit):
                    if not self._may_tell():
                        break
                    self._next += 1
                    self._tell_one(event)
        finally:
            self._telling = False

    def _tell_one(self, event: Event) -> None:
        """Who fails to take an event would have a gap, and must not keep the others from being told."""
        try:
            self._deliver(event)
        except Exception:
            self._log.failure("{name} could not be told; whoever follows there is told no more", name=event.name)
            self.stop()

    def _may_tell(self) -> bool:
        return self._going_on and not self._paused and self._next <= self._released
