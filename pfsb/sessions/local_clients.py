"""LocalClients: the clients that are connected to this server, and the entry point for every front end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from math import inf
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import IEventLog, Refused, Result
from pfsb.config.config import Limits
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.sessions import bundle
from pfsb.sessions.command_times import CommandTimes
from pfsb.sessions.connection import ClientConnection
from pfsb.sessions.event_feed import EventFeed
from pfsb.sessions.observer import ISessionObserver
from pfsb.sessions.refusals import TROUBLE_REFUSALS, NotSent, Provisional
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.sessions.submission import Submission

SWEEP_SECONDS = 0.25
"""Time, in seconds, between two looks at unanswered commands: a command that is overdue is refused at most this much
too late."""


@implementer(ISessionObserver)
class LocalClients:
    """All client connections of one server, the oldest first. Built when the replica has recovered.

    This class is the observer of the state machine: it passes results to Submission, and new events to EventFeed.
    """

    def __init__(
        self,
        server_id: int,
        incarnation_name: str,
        replica: Replica,
        machine: SessionStateMachine,
        catalogue: Catalogue,
        clock: IReactorTime,
        limits: Limits,
    ) -> None:
        self.replica = replica
        self._machine = machine
        self.clock = clock
        self._limits = limits
        self.submission = Submission(server_id, incarnation_name, replica, machine, clock, limits.connections)
        self.event_feed = EventFeed(catalogue, replica.turn, machine.event_count)
        self.times = CommandTimes(clock.seconds)
        """Counts how long clients have waited for their answers since this server started."""
        self._incarnation_name = incarnation_name
        self._connection_numbers = count(1)
        self._connections: dict[ClientConnection, None] = {}
        """The open connections, the oldest first. A dictionary keeps that order, which a set would not, so that one
        seed of the simulator gives one order."""
        self._sweep: IDelayedCall = clock.callLater(SWEEP_SECONDS, self.sweep_unanswered)
        machine.observer = self

    def close(self) -> None:
        self.submission.close()
        if self._sweep.active():
            self._sweep.cancel()

    @property
    def draining(self) -> bool:
        """True when the server is stopping: no new commands are accepted."""
        return self.submission.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.submission.draining = draining

    @property
    def idle(self) -> bool:
        """True if no command and no read is under way."""
        return self.submission.idle

    @property
    def connections(self) -> int:
        """Number of clients that are connected."""
        return len(self._connections)

    @property
    def unanswered(self) -> int:
        """Number of commands and questions of all clients that have no answer yet."""
        return sum(connection.unanswered for connection in self._connections)

    def connect(
        self, ended: Callable[[str, str], None], failed: Callable[[Exception], None] | None = None
    ) -> ClientConnection:
        """Makes the connection of a client. `ended(code, text)` is called when the session of the connection has ended:
        it is `on_session_end` of `ClientConnection`. `failed` is called with each exception of a call-back that takes
        an answer or the end of the session: then the client may wait in vain. None: such an exception is only logged.
        """
        client_id = bundle.anonymous(self._incarnation_name, next(self._connection_numbers))
        connection = ClientConnection(
            client_id,
            submission=self.submission,
            machine=self._machine,
            turn=self.replica.turn,
            clock=self.clock,
            on_session_end=ended,
            on_failed=failed,
            on_disconnected=self._remove,
            names_max=self._limits.opened_sessions,
            times=self.times,
        )
        self._connections[connection] = None
        return connection

    def answers_in_wait(self) -> list[int]:
        """For each connection, the oldest first: the number of answers that its client waits for
        (`ClientConnection.answers_in_wait`)."""
        return [connection.answers_in_wait for connection in self._connections]

    def unaccounted_answers(self) -> list[int]:
        """For each connection, the oldest first: the number of answers that its client waits for in vain. All must be
        0."""
        return [connection.unaccounted_answers for connection in self._connections]

    def _remove(self, connection: ClientConnection) -> None:
        self._connections.pop(connection, None)

    def clients_wait(self) -> bool:
        """True if a client of this server waits for an answer, or for events that it should get at once (Departure
        25)."""
        waiting = any(connection.unanswered for connection in self._connections)
        return self.event_feed.has_impatient_subscriptions or waiting

    # ------------------------------------------------------------------ called by the replicated state machine

    def executed(self, update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        self.submission.executed(update, position, results)

    def too_old(self, update: ClientUpdate) -> None:
        self.submission.too_old(update)

    def completed(self, client_id: str, epoch: int, number: int, result: Result) -> None:
        self.submission.completed(client_id, epoch, number, result)

    def session_ended(self, client_id: str, epoch: int, refusal: Refused) -> None:
        self.submission.session_ended(client_id, epoch, refusal)

    def asked_for(self) -> None:
        self.submission.answer_leader()

    def log_grew(self, application: IEventLog, length: int) -> None:
        self.event_feed.log_grew(application, length)

    def restored(self) -> None:
        self.submission.restored()

    # ------------------------------------------------------------------ commands that are not answered in time

    def disk_changed(self) -> None:
        """Refuses, in a turn, all that is under way or PENDING, if the disk has begun to hang, or is full."""
        trouble = self.replica.turn.trouble
        if trouble is not None:
            refusals = TROUBLE_REFUSALS[trouble]
            self.refuse_all(refusals.under_way, refusals.not_sent)

    def refuse_all(self, under_way: Provisional, not_sent: NotSent) -> None:
        """Refuses, in a turn, all that is under way or PENDING by the one refusal, and all that waits by the other."""
        self.submission.refuse_operations_submitted_before(inf, under_way, not_sent)
        for connection in self._connections:
            connection.refuse_submitted_before(inf, under_way, not_sent)
            connection.refuse_pending(under_way)

    def sweep_unanswered(self) -> None:
        self.times.count_noted()
        self.replica.perform(self._refuse_old)
        if not self.replica.turn.stopped:
            self._sweep = self.clock.callLater(SWEEP_SECONDS, self.sweep_unanswered)

    def _refuse_old(self) -> None:
        oldest = self.clock.seconds() - self._limits.request_seconds
        self.submission.refuse_operations_submitted_before(oldest)
        for connection in self._connections:
            connection.refuse_submitted_before(oldest)
