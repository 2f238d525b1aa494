"""The clients of this server: who is connected, and what is under way for them (docs/internals/sessions.rst)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from pfsb.applications.interfaces import Command, Event, IEventLog, Refused, Result
from pfsb.config.config import Limits
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.sessions import bundle
from pfsb.sessions.bundler import Bundler, Request, nothing
from pfsb.sessions.connection import ClientConnection
from pfsb.sessions.observer import ISessionObserver
from pfsb.sessions.paxos_clients import PaxosClients
from pfsb.sessions.state_machine import CLOSE, SessionStateMachine
from pfsb.sessions.subscription import Subscription

SWEEP_SECONDS = 0.25
"""How exactly `request_seconds` is kept."""


@implementer(ISessionObserver)
class LocalClients:
    """Every client connection of one server, and the server's own session. Built when the replica has recovered."""

    def __init__(
        self,
        server_id: int,
        incarnation: int,
        replica: Replica,
        machine: SessionStateMachine,
        clock: IReactorTime,
        limits: Limits,
    ) -> None:
        self.server_id = server_id
        self.replica = replica
        self.machine = machine
        self.clock = clock
        self.limits = limits
        self.draining = False
        """The server is stopping: no new commands."""
        self._incarnation = incarnation
        self._connection_numbers = count(1)
        self._connections: dict[ClientConnection, None] = {}
        """In the order in which they came, as those who follow below: a set would answer in another order each time."""
        self._connected: dict[str, ClientConnection] = {}
        """Session client id -> the connection that speaks for it."""
        self.paxos_clients = PaxosClients(server_id, incarnation, replica.settings.batch_bytes_max)
        self._own = Bundler(bundle.SERVER, 0, opens=False)
        self._bundlers: dict[Bundler, None] = {self._own: None}
        """Whose bundles may be under way."""
        self._ready: dict[Bundler, None] = {}
        """Bundlers that got something to send, in that order."""
        self._unloaded: list[Bundler] = []
        """Bundlers that have more to send, and whose last bundle has run in the present turn, or never will."""
        self._reads: list[Callable[[bool], None]] = []
        """Questions that do not go through the log."""
        self._released = {app.listen_verb: app.length() for app in self._event_logs()}
        """Listen verb -> how many of its events may be told: those behind the door may not."""
        self._following: dict[str, dict[Subscription, None]] = {verb: {} for verb in self._released}
        self._listeners: dict[Subscription, None] = {}
        """Those of them who would notice that an event comes some milliseconds later."""
        self._gather: IDelayedCall | None = None
        self._sweep: IDelayedCall = clock.callLater(SWEEP_SECONDS, self.sweep_unanswered)
        machine.observer = self

    def close(self) -> None:
        for call in (self._gather, self._sweep):
            if call is not None and call.active():
                call.cancel()

    @property
    def idle(self) -> bool:
        """No command is under way."""
        reading = self._reads or self.replica.reads.under_way
        return not reading and all(bundler.idle for bundler in self._bundlers)

    @property
    def is_busy(self) -> bool:
        """Too many bundles are under way for clients that are gone: without a majority they stay and stay."""
        return len(self._bundlers) - len(self._connections) > self.limits.connections

    @property
    def connections(self) -> int:
        return len(self._connections)

    def connect(self, ended: Callable[[str, str], None]) -> ClientConnection:
        """A client is here. `ended(code, text)` is called if its session is taken over or ends while it is here."""
        client_id = bundle.anonymous(self.server_id, self._incarnation, next(self._connection_numbers))
        connection = ClientConnection(self, client_id, ended)
        self._connections[connection] = None
        return connection

    def is_connected(self, client_id: str, epoch: int) -> bool:
        connection = self._connected.get(client_id)
        return connection is not None and connection.epoch == epoch

    def clients_wait(self) -> bool:
        return bool(self._listeners) or any(connection.unanswered for connection in self._connections)

    # ------------------------------------------------------------------ for connections

    def operate(self, command: Command, settle: Callable[[Any], None] = nothing) -> None:
        """An operation of the server's own session: open, close or expire a client's."""
        entry = bundle.encode_entries([(0, command)])
        self._own.add(Request((0,), entry, self.clock.seconds(), lambda results: settle(results[0])))
        self.make_ready(self._own)

    def make_ready(self, bundler: Bundler) -> None:
        """Its next bundle leaves together with those of all others that got something in this turn of the reactor."""
        if not bundler.outstanding:
            self._ready[bundler] = None
            self._gather_soon()

    def read(self, ready: Callable[[bool], None]) -> None:
        """Call `ready` in a turn: with True when this server may answer a question asked now, with False if it is
        better asked through the log."""
        self._reads.append(ready)
        self._gather_soon()

    def hold(self, connection: ClientConnection) -> None:
        """This connection speaks for its session from now on."""
        self._bundlers[connection.bundler] = None
        self._connected[connection.client_id] = connection

    def let_go(self, connection: ClientConnection) -> None:
        """It does so no more: what waits is dropped, what is under way is only awaited."""
        if self._connected.get(connection.client_id) is connection:
            del self._connected[connection.client_id]
        bundler = connection.bundler
        bundler.waiting.clear()
        bundler.on_idle = partial(self._retire, bundler, connection.client_id)
        if bundler.idle:
            bundler.on_idle()

    def gone(self, connection: ClientConnection) -> None:
        self._connections.pop(connection, None)

    def tell(self, answer: Callable[[Any], None], result: Any) -> None:
        """In a turn: answer behind the door; one command, or all that were asked together."""
        self.replica.turn.call(answer, result)

    def _retire(self, bundler: Bundler, client_id: str) -> None:
        """An anonymous session is closed when its last bundle is through, not before: that bundle may open it."""
        self._bundlers.pop(bundler, None)
        if client_id[0] == bundle.ANONYMOUS and bundler.introduced and client_id in self.machine.sessions:
            self.operate((CLOSE, client_id, 0))

    def _gather_soon(self) -> None:
        if self._gather is None:
            self._gather = self.clock.callLater(0, self._introduce_ready)

    def _introduce_ready(self) -> None:
        self._gather = None
        self.replica.perform(self._introduce_all)

    def _introduce_all(self) -> None:
        ready, self._ready = self._ready, {}
        reads, self._reads = self._reads, []
        self._introduce(ready)
        for read in reads:
            self.replica.reads.begin_read(read)

    def _introduce(self, bundlers: Iterable[Bundler]) -> None:
        for update in self.paxos_clients.updates(bundlers, self.replica.data.ordering.local_aru):
            self.replica.introduce(update)

    # ------------------------------------------------------------------ told by the replicated state machine

    def executed(self, update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        """In a turn: settle a bundle; after the last one of its update the clients' next ones may follow."""
        aboard = self.paxos_clients.aboard(update)
        if not aboard:
            assert not self.paxos_clients.know(update), "one update of a carrier is outstanding at a time"
            return  # this server was restarted since
        aboard[position].executed(results)
        if position + 1 == len(aboard):
            self._go_on(update)

    def too_old(self, update: ClientUpdate) -> None:
        """In a turn. What has not run does not count as executed, so that it may be ordered and refused once more."""
        for bundler in self.paxos_clients.aboard(update):
            bundler.too_old()
        self._go_on(update)

    def _go_on(self, update: ClientUpdate) -> None:
        for bundler in self.paxos_clients.unload(update):
            if bundler.waiting:
                self._unloaded.append(bundler)
            else:
                bundler.on_idle()

    def introduce_unloaded(self) -> None:
        """At the end of a turn: what waited for any of the updates that it has executed."""
        if self._unloaded:
            unloaded, self._unloaded = self._unloaded, []
            self._introduce(unloaded)

    def completed(self, client_id: str, number: int, result: Result) -> None:
        connection = self._connected.get(client_id)
        if connection is not None:
            connection.completed(number, result)

    def session_ended(self, client_id: str, epoch: int, refusal: Refused) -> None:
        connection = self._connected.get(client_id)
        if connection is not None and connection.epoch == epoch:
            connection.session_ended(refusal)

    def log_grew(self, application: IEventLog) -> None:
        self.replica.turn.call(self._release_events, application.listen_verb, application.length())

    # ------------------------------------------------------------------ event logs

    def follow(
        self, verb: str, first: int, deliver: Callable[[Event], None], *, is_patient: bool = False
    ) -> Subscription:
        """Events of the application with that listen verb, from number `first` on (0: only what is to come).

        Whoever `is_patient` does not count as a client that waits (Departure 25).
        """
        application = next(app for app in self._event_logs() if app.listen_verb == verb)
        released = self._released[verb]
        group = self._following[verb]

        def stopped(following: Subscription) -> None:
            group.pop(following, None)
            self._listeners.pop(following, None)

        following = Subscription(application, first or released + 1, deliver, stopped)
        group[following] = None
        if not is_patient:
            self._listeners[following] = None
        following.released(released)
        return following

    def _event_logs(self) -> list[Any]:
        return [app for app in self.machine.applications if IEventLog.providedBy(app)]

    def _release_events(self, verb: str, length: int) -> None:
        self._released[verb] = length
        for following in tuple(self._following[verb]):
            following.released(length)

    # ------------------------------------------------------------------ commands that nobody answers

    def sweep_unanswered(self) -> None:
        self.replica.perform(self._refuse_old)
        if not self.replica.turn.stopped:
            self._sweep = self.clock.callLater(SWEEP_SECONDS, self.sweep_unanswered)

    def _refuse_old(self) -> None:
        oldest = self.clock.seconds() - self.limits.request_seconds
        self._own.refuse_asked_before(oldest)
        for connection in self._connections:
            connection.refuse_asked_before(oldest)
