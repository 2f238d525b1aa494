"""Submission: the commands of this server's clients on their way through the log, and their results on the way back.

Commands go down: a connection puts them into the bundler of its session and calls `mark_ready`; at the end of the
reactor's present iteration all bundlers that are ready are introduced together, in as few updates as possible. Results
come back up: the state machine tells of each bundle that has run, the bundler hands the results to the call-backs of
its parts, and the session's next bundle follows at the end of the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Command, Refused, Result
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.sessions import bundle
from pfsb.sessions.bundler import BundlePart, Bundler, nothing
from pfsb.sessions.paxos_clients import PaxosClients
from pfsb.sessions.state_machine import CLOSE, SessionStateMachine


class Submitter(Protocol):
    """A connection that speaks for a session, as Submission sees it (`pfsb.sessions.connection`)."""

    client_id: str
    epoch: int
    bundler: Bundler

    def completed(self, number: int, result: Result) -> None:
        """In a turn: a command that was PENDING has its result."""

    def session_ended(self, refusal: Refused) -> None:
        """In a turn: the session was taken over, closed or expired."""


class Submission:
    """Every session that a client of this server speaks for, and the server's own session."""

    def __init__(
        self,
        server_id: int,
        incarnation: int,
        replica: Replica,
        machine: SessionStateMachine,
        clock: IReactorTime,
        abandoned_max: int,
    ) -> None:
        """`abandoned_max` is the number of bundles of disconnected clients beyond which new commands are refused."""
        self._replica = replica
        self._machine = machine
        self._clock = clock
        self._abandoned_max = abandoned_max
        self.draining = False
        """True when the server is stopping: no new commands are accepted."""
        self.paxos_clients = PaxosClients(server_id, incarnation, replica.settings.batch_bytes_max)
        self._own = Bundler(bundle.SERVER, 0, opens=False)
        """The bundler of the server's own session."""
        self._submitters: dict[str, Submitter] = {}
        """Session client id -> the connection that speaks for the session."""
        self._bundlers: dict[Bundler, None] = {self._own: None}
        """All bundlers that may have an outstanding bundle."""
        self._abandoned: set[Bundler] = set()
        """The bundlers among them that no connection speaks for any more."""
        self._ready: dict[Bundler, None] = {}
        """Bundlers to introduce at the end of the iteration, in the order in which they became ready."""
        self._unloaded: list[Bundler] = []
        """Bundlers with waiting parts whose outstanding bundle was executed, or found too old, in the present turn."""
        self._reads: list[Callable[[bool], None]] = []
        """Reads to begin at the end of the iteration (Departure 24)."""
        self._introduction: IDelayedCall | None = None

    def close(self) -> None:
        if self._introduction is not None and self._introduction.active():
            self._introduction.cancel()

    @property
    def idle(self) -> bool:
        """No command and no read is under way."""
        reading = self._reads or self._replica.reads.under_way
        return not reading and all(bundler.idle for bundler in self._bundlers)

    @property
    def is_busy(self) -> bool:
        """Too many bundles of disconnected clients are outstanding: without a majority none of them comes back."""
        return len(self._abandoned) >= self._abandoned_max

    def speaks_for(self, client_id: str, epoch: int) -> bool:
        """True if a client of this server is connected and speaks for this session under this epoch."""
        submitter = self._submitters.get(client_id)
        return submitter is not None and submitter.epoch == epoch

    # ------------------------------------------------------------------ commands on their way down

    def attach(self, submitter: Submitter) -> None:
        """From now on this connection speaks for its session."""
        self._bundlers[submitter.bundler] = None
        self._submitters[submitter.client_id] = submitter

    def detach(self, submitter: Submitter) -> None:
        """The connection speaks for its session no more: drop its waiting parts, and only await its outstanding bundle.

        The connection may be gone, or about to speak for another session.
        """
        if self._submitters.get(submitter.client_id) is submitter:
            del self._submitters[submitter.client_id]
        bundler = submitter.bundler
        bundler.drop_waiting()
        self._abandoned.add(bundler)
        if bundler.idle:
            self._retire(bundler)

    def submit_operation(self, command: Command, on_result: Callable[[Any], None] = nothing) -> None:
        """Submits an operation of the server's own session: it opens, closes or expires the session of a client."""
        entry = bundle.encode_entries([(0, command)])
        self._own.add(BundlePart((0,), entry, self._clock.seconds(), lambda results: on_result(results[0])))
        self.mark_ready(self._own)

    def mark_ready(self, bundler: Bundler) -> None:
        """Introduces the bundler's next bundle together with those of all others that become ready in this iteration.

        A bundler with an outstanding bundle is not marked: its next bundle follows when that one comes back.
        """
        if not bundler.outstanding:
            self._ready[bundler] = None
            self._introduce_soon()

    def begin_read(self, on_decided: Callable[[bool], None]) -> None:
        """Calls `on_decided` in a turn: with True when this server may answer a question asked now from its own state.

        With False the question has to go through the log.
        """
        self._reads.append(on_decided)
        self._introduce_soon()

    def refuse_operations_submitted_before(self, oldest: float) -> None:
        """In a turn: operations of the server's own session go unanswered no longer than `request_seconds`, either."""
        self._own.refuse_submitted_before(oldest)

    def _retire(self, bundler: Bundler) -> None:
        """The last bundle of a session that no connection speaks for has come back.

        An anonymous session is closed now and not before: that bundle may have been the one that opened it.
        """
        self._abandoned.discard(bundler)
        self._bundlers.pop(bundler, None)
        client_id = bundler.client_id
        if client_id[0] == bundle.ANONYMOUS and bundler.introduced and client_id in self._machine.sessions:
            self.submit_operation((CLOSE, client_id, 0))

    def _introduce_soon(self) -> None:
        if self._introduction is None:
            self._introduction = self._clock.callLater(0, self._introduce_ready)

    def _introduce_ready(self) -> None:
        self._introduction = None
        self._replica.perform(self._introduce_and_read)

    def _introduce_and_read(self) -> None:
        ready, self._ready = self._ready, {}
        reads, self._reads = self._reads, []
        self._introduce(ready)
        for on_decided in reads:
            self._replica.reads.begin_read(on_decided)

    def _introduce(self, bundlers: Iterable[Bundler]) -> None:
        for update in self.paxos_clients.make_updates(bundlers, self._replica.data.ordering.local_aru):
            self._replica.introduce(update)

    # ------------------------------------------------------------------ results on their way up

    def executed(self, update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        """In a turn: the bundle at `position` of an update has run. After the update's last bundle, those that wait
        for it may follow.

        An update of a former incarnation of this server runs as well, but its clients are gone: there is nothing to do.
        """
        bundlers = self.paxos_clients.bundlers_of(update)
        if not bundlers:
            of_ours = self.paxos_clients.is_of_this_incarnation(update)
            assert not of_ours, "one update of a Paxos client is outstanding at a time"
            return
        bundlers[position].executed(results)
        if position + 1 == len(bundlers):
            self._end_update(update)

    def too_old(self, update: ClientUpdate) -> None:
        """In a turn: an update was ordered beyond its horizon, so no server has executed it.

        An update that has not run does not count as executed: it may be ordered, and told to be too old, once more.
        By then it is not outstanding any more, and nothing happens.
        """
        for bundler in self.paxos_clients.bundlers_of(update):
            bundler.too_old()
        self._end_update(update)

    def completed(self, client_id: str, number: int, result: Result) -> None:
        """In a turn: a command of a session that was PENDING has its result."""
        submitter = self._submitters.get(client_id)
        if submitter is not None:
            submitter.completed(number, result)

    def session_ended(self, client_id: str, epoch: int, refusal: Refused) -> None:
        """In a turn: a session is no longer open under `epoch`."""
        submitter = self._submitters.get(client_id)
        if submitter is not None and submitter.epoch == epoch:
            submitter.session_ended(refusal)

    def introduce_unloaded(self) -> None:
        """At the end of a turn: introduces all bundles that waited for updates which this turn has executed.

        One call for all of them keeps sessions together that are busy at the same time.
        """
        if self._unloaded:
            unloaded, self._unloaded = self._unloaded, []
            self._introduce(unloaded)

    def _end_update(self, update: ClientUpdate) -> None:
        for bundler in self.paxos_clients.end_update(update):
            if bundler.waiting:
                self._unloaded.append(bundler)
            elif bundler in self._abandoned:
                self._retire(bundler)
            else:
                bundler.on_idle()
