"""Subscription: delivers an event log to one client (LISTEN): each event once, in order, as fast as the client
reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pfsb.applications.interfaces import Event
from pfsb.applications.results import check_event

EVENTS_AT_ONCE = 64
"""Maximum number of events that a subscription fetches from the event log at once."""


class EventSource(Protocol):
    """The log that a subscription reads."""

    def events(self, first: int, limit: int) -> Sequence[Event]: ...


class Subscription:
    """A cursor of one client into an event log. It needs no queue: events that are not delivered yet are in the log."""

    def __init__(
        self,
        log: EventSource,
        first: int,
        deliver: Callable[[Event], None],
        failed: Callable[[Exception], None],
        ended: Callable[[str], None],
        on_stopped: Callable[[Subscription], None],
    ) -> None:
        """`deliver` is called with each event, in their order. `failed` is called, once, with the exception, if the
        subscription ends since an event cannot be told; it should log the exception. `ended` is called, once, with the
        reason, if the subscription ends since its log does. `on_stopped` is called at every end, before `failed` and
        `ended`."""
        self._source = log
        self._next = first
        self.deliver = deliver
        """Called with each event, in their order."""
        self._failed = failed
        self._ended = ended
        self._on_stopped = on_stopped
        self._paused = False
        self._is_running = True
        self._released = 0
        self._is_delivering = False

    @property
    def next(self) -> int:
        """The number of the event that is delivered next."""
        return self._next

    def release(self, length: int) -> None:
        """Delivers events up to number `length`, since the records of the turns that caused these events are on
        disk."""
        self._released = max(self._released, length)
        self._deliver_events()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._deliver_events()

    def stop(self) -> None:
        self._is_running = False
        self._on_stopped(self)

    def end(self, why: str) -> None:
        """Called when no event comes to the log any more: ends the subscription, and tells the subscriber why. Events
        that a paused subscriber has not got yet are gone with the log. Does nothing if the subscription has ended."""
        if not self._is_running:
            return
        self.stop()
        try:
            self._ended(why)
        except Exception as error:
            self._failed(error)

    def _deliver_events(self) -> None:
        if self._is_delivering:
            return  # `deliver` has called `resume`: the loop of the outer call goes on delivering
        self._is_delivering = True
        try:
            while self._may_deliver():
                self._deliver_some()
        except Exception as error:
            self.stop()
            self._failed(error)
        finally:
            self._is_delivering = False

    def _deliver_some(self) -> None:
        """Delivers up to `EVENTS_AT_ONCE` events. Raises an exception if one of them cannot be told: if the application
        raises it, the event is not one that a client can be told (`check_event`), or the call-back raises it."""
        limit = min(EVENTS_AT_ONCE, self._released - self._next + 1)
        events = self._source.events(self._next, limit)
        if not events:
            raise LookupError(f"event {self._next} was released, and is not in its log")
        for event in events:
            if not self._may_deliver():
                break
            check_event(event)
            self._next += 1
            self.deliver(event)

    def _may_deliver(self) -> bool:
        return self._is_running and not self._paused and self._next <= self._released
