"""EventFeed: delivers new events of the applications' event logs to the clients that subscribe to them (LISTEN)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import BadRequest, Event, IEventLog
from pfsb.paxos.turn import Turn
from pfsb.sessions.asking import ask
from pfsb.sessions.subscription import Subscription


@define(eq=False)
class EventLog:
    """The event log of one application, with the subscriptions of this server's clients to it. Each application that
    has an event log has one listen verb for it."""

    _turn: Turn
    application: Any
    """The application that keeps the events. When the cluster changes to another version of the application, the object
    of that version takes its place."""
    released: int
    """Number of the last event that may be told: later ones are behind the durability gate."""
    subscriptions: dict[Subscription, None] = field(factory=dict)
    """The subscriptions to this log, in the order in which they began, so that equal runs of the simulator deliver
    alike."""

    def events(self, first: int, limit: int) -> Sequence[Event]:
        """Up to `limit` events of the log, in order, from number `first` on. Raises what the application raises."""
        found: Sequence[Event] = ask(self._turn, self.application.events, first, limit)
        return found


class EventFeed:
    """All subscriptions of one server. Events are delivered behind the durability gate, like answers."""

    def __init__(self, catalogue: Catalogue, turn: Turn, event_count: Callable[[IEventLog], int]) -> None:
        """`event_count` gives the number of events that an application had when its log was looked at last
        (`SessionStateMachine.event_count`)."""
        self._catalogue = catalogue
        self._turn = turn
        self._logs: dict[str, EventLog] = {}
        """Listen verb -> the event log that it subscribes clients to."""
        self._impatient: dict[Subscription, None] = {}
        """The subscriptions that began without `is_patient`. As long as there is one, this server's ALIVEs say that its
        clients wait, and the others send ACCEPTs to this server at once (Departure 25)."""
        self._follow_catalogue()
        for log in self._logs.values():
            log.released = event_count(log.application)  # all events up to here were recovered, so they are on disk
        catalogue.watch(self._follow_catalogue)

    @property
    def has_impatient_subscriptions(self) -> bool:
        """Whether there is a subscription that began without `is_patient`: its client would notice if events came some
        milliseconds later (Departure 25)."""
        return bool(self._impatient)

    def subscribe(
        self,
        verb: str,
        first: int,
        deliver: Callable[[Event], None],
        failed: Callable[[Exception], None],
        ended: Callable[[str], None],
        *,
        is_patient: bool = False,
        is_paused: bool = False,
    ) -> Subscription:
        """Calls `deliver` with each event of the event log that clients follow by the verb `verb`, from number `first`
        on; 0 stands for the next new event.

        Each event is delivered once, in order, until the returned subscription is stopped. A subscriber that
        `is_patient` does not count as a client that waits: for its sake the other servers need not send ACCEPTs to this
        server at once, so its events may come some milliseconds later (Departure 25). If `is_paused`, no event is
        delivered before `Subscription.resume` is called: the log may have more events already than the subscriber can
        take at once.

        If an event cannot be told, the subscription ends, and `failed` is called with the exception. It should log it,
        and tell the subscriber, who must not wait for further events. If the cluster stops running the application, the
        subscription ends, and `ended` is called with a text for people that says so. It should tell the subscriber,
        too.

        Raises `BadRequest` if no application of the cluster has the verb any more.
        """
        log = self._logs.get(verb)
        if log is None:
            raise BadRequest(f"no application here has the verb {verb} now", "UNKNOWN")

        def stopped(subscription: Subscription) -> None:
            log.subscriptions.pop(subscription, None)
            self._impatient.pop(subscription, None)

        subscription = Subscription(log, first or log.released + 1, deliver, failed, ended, stopped)
        log.subscriptions[subscription] = None
        if not is_patient:
            self._impatient[subscription] = None
        if is_paused:
            subscription.pause()
        subscription.release(log.released)
        return subscription

    def log(self, verb: str) -> EventLog:
        """The event log that clients follow by the verb `verb`. It stays readable when the cluster stops running the
        application. Raises KeyError if no application has the verb."""
        return self._logs[verb]

    def subscriptions(self, verb: str) -> int:
        """Number of subscriptions to the events of a listen verb."""
        return len(self._logs[verb].subscriptions)

    def log_grew(self, application: IEventLog, length: int) -> None:
        """Delivers the new events of an application, up to number `length`, to all its subscribers, when the present
        turn has passed the gate."""
        self._turn.call(self._release, self._logs[application.listen_verb], length)

    def _release(self, log: EventLog, length: int) -> None:
        log.released = length
        for subscription in tuple(log.subscriptions):
            subscription.release(length)

    def _follow_catalogue(self) -> None:
        """Called when the cluster runs other applications than before: brings the event logs up to date.

        The subscriptions of an application that goes on under another version go on. Those of an application that runs
        no more end behind the gate, when the events that its last commands have made are released. Events of a new
        application may still wait at the gate, so none of them is released here.
        """
        before, self._logs = self._logs, {}
        for application in self._catalogue.applications:
            if IEventLog.providedBy(application):
                verb = application.listen_verb
                log = self._logs[verb] = before.get(verb) or EventLog(self._turn, application, 0)
                log.application = application
        for verb, log in before.items():
            if verb not in self._logs and log.subscriptions:
                self._turn.call(self._end, log)

    def _end(self, log: EventLog) -> None:
        for subscription in tuple(log.subscriptions):
            subscription.end(f"the cluster does not run the application {log.application.name} any more")
