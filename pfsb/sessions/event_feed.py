"""EventFeed: the event logs of the applications, the clients that subscribe to them, and how much they may be told."""

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
        """Listen verb -> the number of the last event that may be told: later ones are behind the gate."""
        self._subscriptions: dict[str, dict[Subscription, None]] = {verb: {} for verb in self._logs}
        """Listen verb -> its subscriptions in the order of their beginning, so that equal runs have equal orders."""
        self._impatient: dict[Subscription, None] = {}
        """The subscriptions of clients that would notice if an event came some milliseconds later."""

    @property
    def has_impatient_subscriptions(self) -> bool:
        return bool(self._impatient)

    def subscribe(
        self, verb: str, first: int, deliver: Callable[[Event], None], *, is_patient: bool = False
    ) -> Subscription:
        """Delivers events of the application with that listen verb, from number `first` on (0: only events to come).

        A subscriber that `is_patient` does not count as a client that waits (Departure 25).
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
        """In a turn: an application has new events."""
        self._turn.call(self._release, application.listen_verb, application.length())

    def _release(self, verb: str, length: int) -> None:
        self._released[verb] = length
        for subscription in tuple(self._subscriptions[verb]):
            subscription.release(length)
