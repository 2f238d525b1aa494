"""A user's connection to one incarnation of one server, with delays in both directions."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil
from typing import Any, Final

from attrs import define, field

from pfsb.applications.interfaces import Command, Done, Refused, Result
from pfsb.sessions.connection import ClientConnection
from pfsb.simulator.checkers.session_checker import SessionChecker
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.linearizability.texts import ordered_form, result_in_text

LATENCY_SECONDS = (0.0002, 0.003)

BELIEVED: Final = frozenset({"DIVERGED", "UNAVAILABLE", "SHUTDOWN", "READONLY", "NOSESSION", "REPLACED"})
"""Codes of refusals that no application gives. They are believed of a server in error, too
(`SimulatedCluster.in_error`)."""
NOT_BELIEVED: Final = Refused("UNAVAILABLE", "an application of this server has gone wrong", fate="unknown")
"""The answer that counts in place of one that depends on the applications of a server in error."""

Told = Callable[[Result], None]
"""Call-back of a user with the result of one request: called once, when the answer reaches the user, or never."""


@define(eq=False)
class SimulatedConnection:
    """A connection that, like a TCP connection, keeps the order of requests and is lost when the server stops.

    The checkers are called for each request when it reaches the server, and for each answer when it leaves the server.
    On the user's side keys and values are text, on the server's they are bytes (`linearizability.texts`).
    """

    cluster: SimulatedCluster
    checks: SessionChecker
    rng: random.Random
    server_id: int
    on_ended: Callable[[SimulatedConnection, str], None]
    """Called with this connection and a code, such as REPLACED, when the user hears that its session here is over; not
    called if the server stops."""
    batching_seconds: float = 0.0
    """Length, in seconds, of the periods at whose ends requests reach the server, all requests of one period together;
    0: requests do not wait for others."""
    client_id: str = ""
    """The client id of the session that this connection has; "" until the server has accepted the connection."""
    epoch: int = 0
    """The epoch under which HELLO has opened the session; 0 for an anonymous one."""
    is_disconnected: bool = False
    unanswered: int = 0
    _server_clock: ServerClock = field(init=False)
    _connection: ClientConnection | None = field(default=None, init=False)
    _request_arrival: float = field(default=0.0, init=False)
    _reply_arrival: float = field(default=0.0, init=False)

    @_server_clock.default
    def _make_server_clock(self) -> ServerClock:
        running = self.cluster.servers[self.server_id].running
        assert running is not None, "connections are made to running servers only"
        return running.server_clock

    @property
    def is_lost(self) -> bool:
        """Whether the incarnation of the server has ended."""
        return self._server_clock.closed

    # ------------------------------------------------------------------ requests of the user

    def connect(self, connected: Callable[[], None]) -> None:
        self._send(self._connect, connected)

    def hello(self, client_id: str, ttl_seconds: int, told: Told) -> None:
        self._send(self._hello, client_id, ttl_seconds, told)

    def submit(self, number: int, command: Command, told: Told) -> None:
        """Send a command with its number; `told` is called once with the result, if it reaches the user."""
        self.unanswered += 1
        self._send(self._submit, number, command, told)

    def question(self, command: Command, told: Told) -> None:
        self.unanswered += 1
        self._send(self._question, command, told)

    def read(self, name: str, told: Callable[[int, Result], None]) -> None:
        """Have the server answer a read of the key `name` from its own state, without the log.

        If the result reaches the user, `told` is called once, with the last slot that the server had executed when it
        got the request, and with the result.
        """
        self._send(self._read, name, told)

    def bye(self, told: Told) -> None:
        self._send(self._bye, told)

    def disconnect(self) -> None:
        """Close the connection. Requests under way get no answer any more."""
        if not self.is_disconnected:
            self.is_disconnected = True
            self._send(self._disconnect)

    def _send(self, act: Callable[..., None], *args: Any) -> None:
        """Call `act(*args)` once, when the request arrives at the server, after all requests that were sent on this
        connection before. If the server is paused then, `act` is called when the server is resumed."""
        now = self.cluster.now
        self._request_arrival = max(self._request_arrival, self._batched(now + self.rng.uniform(*LATENCY_SECONDS)))
        self.cluster.clock.callLater(self._request_arrival - now, self._server_clock.callLater, 0, act, *args)

    def _batched(self, arrival: float) -> float:
        return ceil(arrival / self.batching_seconds) * self.batching_seconds if self.batching_seconds else arrival

    # ------------------------------------------------------------------ at the server

    def _connect(self, connected: Callable[[], None]) -> None:
        local_clients = self.cluster.process(self.server_id).server.local_clients
        self._connection = local_clients.connect(lambda code, text: self._reply_with(self.on_ended, self, code))
        self.client_id = self._connection.client_id
        self._reply_with(connected)

    def _hello(self, client_id: str, ttl_seconds: int, told: Told) -> None:
        answered_up_to = self.checks.answered_up_to(client_id)

        def answered(result: Result) -> None:
            if isinstance(result, Done) and not self._server_clock.closed:
                self.client_id = client_id
                fields = dict(result.fields)
                self.epoch = int(fields["epoch"])
                self.checks.marks["session taken over"] += fields["resumed"] == "yes"
                self.cluster.findings.note(
                    self.checks.opened, client_id, fields["last"], fields["resumed"] == "yes", answered_up_to
                )
            self._reply_with(told, result)

        assert self._connection is not None
        self._connection.hello(client_id, ttl_seconds, answered)

    def _submit(self, number: int, command: Command, told: Told) -> None:
        ticket, epoch, command = (self.client_id, number), self.epoch, ordered_form(command)

        def answered(result: Result) -> None:
            result = self._as_believed(result)
            if not self._server_clock.closed:
                self.cluster.findings.note(self.checks.answered, ticket, command, result, epoch)
                self.cluster.network.note(repr((self.cluster.now, ticket, result)).encode())
            self.unanswered -= 1
            self._reply_with(told, result_in_text(result))

        assert self._connection is not None
        self.checks.ask(ticket, command)
        self._connection.submit(number, command, answered)

    def _question(self, command: Command, told: Told) -> None:
        def answered(result: Result) -> None:
            self.unanswered -= 1
            self._reply_with(told, result_in_text(self._as_believed(result)))

        assert self._connection is not None
        self._connection.submit(None, ordered_form(command), answered)

    def _read(self, name: str, told: Callable[[int, Result], None]) -> None:
        assert self._connection is not None
        replica = self.cluster.replica(self.server_id)
        seq = replica.data.ordering.local_aru
        question = ordered_form(("GET", name))
        self._connection.query_local(
            question, lambda result: self._reply_with(told, seq, result_in_text(self._as_believed(result)))
        )

    def _bye(self, told: Told) -> None:
        assert self._connection is not None
        self._connection.bye(lambda result: self._reply_with(told, result))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnected()

    # ------------------------------------------------------------------ answers to the user

    def _as_believed(self, result: Result) -> Result:
        """The result, or `NOT_BELIEVED` if it comes from a server in error and depends on its applications."""
        if self.server_id not in self.cluster.in_error or (isinstance(result, Refused) and result.code in BELIEVED):
            return result
        return NOT_BELIEVED

    def _reply_with(self, told: Callable[..., None], *args: Any) -> None:
        """Call `told(*args)` once, when the answer reaches the user.

        It is not called if the server has stopped before it answers, or if the user has disconnected before the answer
        arrives.
        """
        if self._server_clock.closed:
            return
        now = self.cluster.now
        self._reply_arrival = max(self._reply_arrival, now + self.rng.uniform(*LATENCY_SECONDS))
        self.cluster.clock.callLater(self._reply_arrival - now, self._deliver_reply, told, *args)

    def _deliver_reply(self, told: Callable[..., None], *args: Any) -> None:
        if not self.is_disconnected:
            told(*args)
