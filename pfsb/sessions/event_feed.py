"""EventFeed: delivers new events of the applications' event logs to the clients that subscribe to them (LISTEN)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pfsb.applications.interfaces import Event, IEventLog
from pfsb.paxos.turn import Turn
from pfsb.sessions.subscription import Subscription


class EventFeed:
    """All subscriptions of one server. Events are delivered behind the durability gate, like answers."""

    def __init__(self, applications: Iterable[Any], turn: Turn) -> None:
        self._turn = turn
        self._logs = {app.listen_verb: app for app in applications if IEventLog.providedBy(app)}
        """Listen verb -> the application whose events it subscribes to."""
        self._released = {verb: app.length() for verb, app in self._logs.items()}
        """Listen verb -> the number of the last event that may be delivered: later ones wait at the durability gate."""
        self._subscriptions: dict[str, dict[Subscription, None]] = {verb: {} for verb in self._logs}
        """Listen verb -> its subscriptions, the oldest first, so that one seed of the simulator gives one order."""
        self._impatient: dict[Subscription, None] = {}
        """The subscriptions that count as clients that wait (Departure 25), so that events come without delay."""

    @property
    def has_impatient_subscriptions(self) -> bool:
        return bool(self._impatient)

    def subscribe(
        self, verb: str, first: int, deliver: Callable[[Event], None], *, is_patient: bool = False
    ) -> Subscription:
        """Calls `deliver` with each event of the application with listen verb `verb`, from number `first` on.

        `first` 0 stands for the next new event. Each event is delivered once, in order, until the returned subscription
        is stopped. A subscriber that `is_patient` does not count as a client that waits (Departure 25), so its events
        may come some milliseconds later.
        """
        released = self._released[verb]
        subscriptions = self._subscriptions[verb]

        def stopped(subscription: Subscription) -> None:
            subscriptions.pop(subscription, None)
            self._impatient.pop(subscription, None)

        subscription = Subscription(self._logs[verb], first or released + 1, deliver, stopped)
        subscriptions[subscription] = None
        if not is_patient:
            self._impatient[subscription] = None
        subscription.release(released)
        return subscription

    def log_grew(self, application: IEventLog) -> None:
        """Delivers the new events of an application, to all its subscribers, when the present turn has passed the
        gate."""
        self._turn.call(self._release, application.listen_verb, application.length())

    def _release(self, verb: str, length: int) -> None:
        self._released[verb] = length
        for subscription in tuple(self._subscriptions[verb]):
            subscription.release(length)
