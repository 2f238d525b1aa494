"""A user's connection to one life of one server: what goes there and back takes its time, and ends with that life."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil
from typing import Any

from attrs import define, field

from pfsb.applications.interfaces import Command, Done, Result
from pfsb.sessions.connection import ClientConnection
from pfsb.simulator.checkers.session_checker import SessionChecker
from pfsb.simulator.cluster.cluster import SimulatedCluster

LATENCY_SECONDS = (0.0002, 0.003)

Told = Callable[[Result], None]


@define(eq=False)
class SimulatedConnection:
    """Like a TCP connection: in order, and lost when the server dies. What it answers goes through the checks first."""

    cluster: SimulatedCluster
    checks: SessionChecker
    rng: random.Random
    server_id: int
    on_ended: Callable[[SimulatedConnection, str], None]
    turn_seconds: float = 0.0
    """What arrives within such a time is seen by the server at its end, together; 0: at once."""
    client_id: str = ""
    """Whose session it speaks for; "" until it is known."""
    is_left: bool = False
    unanswered: int = 0
    _lane: Any = field(init=False)
    _connection: ClientConnection | None = field(default=None, init=False)
    _there: float = field(default=0.0, init=False)
    _back: float = field(default=0.0, init=False)

    @_lane.default
    def _make_lane(self) -> Any:
        running = self.cluster.servers[self.server_id].running
        assert running is not None, "one connects to a server that runs"
        return running.lane

    @property
    def is_lost(self) -> bool:
        """The server of that life is gone."""
        return bool(self._lane.closed)

    # ------------------------------------------------------------------ there

    def connect(self, connected: Callable[[], None]) -> None:
        self._go(self._connect, connected)

    def hello(self, client_id: str, ttl_seconds: int, told: Told) -> None:
        self._go(self._hello, client_id, ttl_seconds, told)

    def submit(self, number: int, command: Command, told: Told) -> None:
        """A numbered command."""
        self.unanswered += 1
        self._go(self._submit, number, command, told)

    def question(self, command: Command, told: Told) -> None:
        self.unanswered += 1
        self._go(self._question, command, told)

    def read(self, name: str, told: Callable[[int, Result], None]) -> None:
        """What this server knows of a key, by itself; with the slot up to which that is."""
        self._go(self._read, name, told)

    def bye(self, told: Told) -> None:
        self._go(self._bye, told)

    def leave(self) -> None:
        """Hang up. What is under way is not answered any more."""
        if not self.is_left:
            self.is_left = True
            self._go(self._disconnect)

    def _go(self, act: Callable[..., None], *args: Any) -> None:
        """In order; a paused server takes it when it goes on."""
        now = self.cluster.now
        self._there = max(self._there, self._seen(now + self.rng.uniform(*LATENCY_SECONDS)))
        self.cluster.clock.callLater(self._there - now, self._lane.callLater, 0, act, *args)

    def _seen(self, arrival: float) -> float:
        return ceil(arrival / self.turn_seconds) * self.turn_seconds if self.turn_seconds else arrival

    # ------------------------------------------------------------------ at the server

    def _connect(self, connected: Callable[[], None]) -> None:
        local_clients = self.cluster.process(self.server_id).server.local_clients
        self._connection = local_clients.connect(lambda code, text: self._return(self.on_ended, self, code))
        self.client_id = self._connection.client_id
        self._return(connected)

    def _hello(self, client_id: str, ttl_seconds: int, told: Told) -> None:
        answered_up_to = self.checks.answered_up_to(client_id)

        def answered(result: Result) -> None:
            if isinstance(result, Done) and not self._lane.closed:
                self.client_id = client_id
                fields = dict(result.fields)
                self.checks.marks["session taken over"] += fields["resumed"] == "yes"
                self.cluster.findings.note(
                    self.checks.opened, client_id, fields["last"], fields["resumed"] == "yes", answered_up_to
                )
            self._return(told, result)

        assert self._connection is not None
        self._connection.hello(client_id, ttl_seconds, answered)

    def _submit(self, number: int, command: Command, told: Told) -> None:
        ticket = (self.client_id, number)

        def answered(result: Result) -> None:
            if not self._lane.closed:
                self.cluster.findings.note(self.checks.answered, ticket, result)
                self.cluster.network.note(repr((self.cluster.now, ticket, result)).encode())
            self.unanswered -= 1
            self._return(told, result)

        assert self._connection is not None
        self.checks.ask(ticket, command)
        self._connection.submit(number, command, answered)

    def _question(self, command: Command, told: Told) -> None:
        def answered(result: Result) -> None:
            self.unanswered -= 1
            self._return(told, result)

        assert self._connection is not None
        self._connection.submit(None, command, answered)

    def _read(self, name: str, told: Callable[[int, Result], None]) -> None:
        assert self._connection is not None
        replica = self.cluster.replica(self.server_id)
        seq = replica.data.ordering.local_aru
        self._connection.query_local(("GET", name), lambda result: self._return(told, seq, result))

    def _bye(self, told: Told) -> None:
        assert self._connection is not None
        self._connection.bye(lambda result: self._return(told, result))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnected()

    # ------------------------------------------------------------------ back

    def _return(self, told: Callable[..., None], *args: Any) -> None:
        """What a server says that dies in this moment gets nowhere."""
        if self._lane.closed:
            return
        now = self.cluster.now
        self._back = max(self._back, now + self.rng.uniform(*LATENCY_SECONDS))
        self.cluster.clock.callLater(self._back - now, self._arrive, told, *args)

    def _arrive(self, told: Callable[..., None], *args: Any) -> None:
        if not self.is_left:
            told(*args)
