"""An idle hour at the end of a run: no client asks for anything, and no view, no session and no wait ends early.

Applications know the time of the ordered batches only. It stands still while nothing is ordered, and then jumps by an
hour. Three clients stay connected: one holds a lock, and two others wait for it, one of them for less than the hour.
After the hour the leader crashes, so that the time goes on by the clock of another server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from attrs import define, field

from pfsb.applications.arguments import absent
from pfsb.applications.interfaces import Command, Done, Refused, Result
from pfsb.sessions.expiry import LOOK_SECONDS as DEADLINE_LOOK_SECONDS
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.runs.liveness_drills import ROUND_SECONDS, LivenessDrills
from pfsb.simulator.runs.population import UserPopulation
from pfsb.simulator.workload.connection import SimulatedConnection

IDLE_SECONDS: Final = 3_600.0
"""How long, in seconds, no client asks for anything."""
SHORT_WAIT_SECONDS: Final = 1_200.0
"""Time limit, in seconds, of the LOCK that must be refused within the idle hour, when this limit has passed."""
LONG_WAIT_SECONDS: Final = 3 * 3_600.0
"""Time limit, in seconds, of the LOCK that must still be unanswered after the idle hour."""
SOON_SECONDS: Final = 60.0
"""Maximum time, in seconds, until the cluster answers a client, some elections included."""


@define(eq=False)
class ConnectedClient:
    """A client whose connection stays open, so that its session must not end."""

    name: str
    cluster: SimulatedCluster
    connection: SimulatedConnection = field(init=False)
    result: Result | None = None
    """The answer to the latest request; None: there is none yet."""
    answered_at: float = 0.0
    _number: int = 0

    def open(self, population: UserPopulation, rng: random.Random, server_id: int) -> None:
        """Connect to a server and open a session with a ttl of 1 second, which only the open connection keeps alive."""
        self.connection = SimulatedConnection(self.cluster, population.checks, rng, server_id, self._session_is_over)
        self.connection.connect(lambda: self.connection.hello(self.name, 1, self._told))

    def submit(self, command: Command) -> None:
        self._number += 1
        self.result = None
        self.connection.submit(self._number, command, self._told)

    def _told(self, result: Result) -> None:
        self.result, self.answered_at = result, self.cluster.now

    def _session_is_over(self, connection: SimulatedConnection, code: str) -> None:
        raise Violation(
            f"the session of {self.name}, which is connected to server {connection.server_id}, ends: {code}"
        )


@define(eq=False)
class IdleHour(LivenessDrills):
    """Lets an hour pass in a cluster without faults, and requires that nothing has changed. Raises `Violation`."""

    population: UserPopulation = field(kw_only=True)

    def run(self) -> None:
        self.marks.counts["idle hour"] += 1
        self.settle()
        holder, impatient, patient = (self._connect(f"idle-{role}") for role in ("holder", "impatient", "patient"))
        self._request(holder, ("LOCK", "idle", absent))
        began = self.cluster.now
        impatient.submit(("LOCK", "idle", int(1_000 * SHORT_WAIT_SECONDS)))
        patient.submit(("LOCK", "idle", int(1_000 * LONG_WAIT_SECONDS)))
        self._let_time_pass()
        self._require_waited(impatient, began)
        self._require_waits(patient)
        self._replace_leader()
        self._require_waits(patient)
        self._request(holder, ("UNLOCK", "idle", absent))
        self._await(lambda: isinstance(patient.result, Done), f"{patient.name} waits for a free lock: {patient.result}")

    def _let_time_pass(self) -> None:
        view, connected = self._view(), self.population.connected_sessions()
        sessions = {client_id: epoch for client_id, epoch in self._epochs().items() if client_id in connected}
        self.cluster.run(IDLE_SECONDS)
        self._require_view(view, "nothing has happened for an hour")
        now = self._epochs()
        ended = {client_id: epoch for client_id, epoch in sessions.items() if now.get(client_id) != epoch}
        require(not ended, f"sessions of clients that were connected for an hour have ended: {ended}")

    def _replace_leader(self) -> None:
        """Crash the leader, start it again, and wait until the cluster has settled.

        Nothing is done in a cluster of one server: no other can lead it, or keep the connections of the clients.
        """
        if len(self.cluster.ids) > 1:
            leader = self.cluster.required_leader()
            self.cluster.crash(leader)
            heal_all(self.cluster)
            self.settle()

    # ------------------------------------------------------------------ requirements

    def _require_waited(self, client: ConnectedClient, began: float) -> None:
        """Require that the LOCK of this client, which was sent at the simulated time `began`, was refused
        `SHORT_WAIT_SECONDS` later, and neither earlier nor much later.

        Any server's clock may have measured these seconds, so the time may differ as much as the rates of the clocks.
        """
        is_refused = isinstance(client.result, Refused)
        require(is_refused, f"{client.name} waits for a lock that is held, and is told {client.result}")
        waited, times = client.answered_at - began, self.times
        least, most = times.shortest(SHORT_WAIT_SECONDS), times.longest(SHORT_WAIT_SECONDS + DEADLINE_LOOK_SECONDS)
        text = f"{client.name} was to wait for {SHORT_WAIT_SECONDS:g} s, has waited for {waited:.3f} s: {client.result}"
        require(least <= waited <= most + 2 * ROUND_SECONDS, text)

    def _require_waits(self, client: ConnectedClient) -> None:
        require(client.result is None, f"{client.name} was to wait for {LONG_WAIT_SECONDS:g} s: {client.result}")

    # ------------------------------------------------------------------ clients

    def _epochs(self) -> dict[str, int]:
        """Client id -> the epoch of this session, for each session that is open at the leader."""
        machine = self.cluster.process(self.cluster.required_leader()).server.machine
        return {client_id: session.epoch for client_id, session in machine.sessions.items()}

    def _connect(self, name: str) -> ConnectedClient:
        """Connect the client `name` to a server that does not lead, or to the leader if there is no other server."""
        leader = self.cluster.required_leader()
        server_id = self.rng.choice([i for i in self.cluster.ids if i != leader] or self.cluster.ids)
        client = ConnectedClient(name, self.cluster)
        client.open(self.population, self.rng, server_id)
        self._await(lambda: isinstance(client.result, Done), f"{name} cannot open a session: {client.result}")
        return client

    def _request(self, client: ConnectedClient, command: Command) -> None:
        client.submit(command)
        self._await(lambda: isinstance(client.result, Done), f"{client.name} has asked for {command}: {client.result}")

    def _await(self, predicate: Callable[[], bool], text: str) -> None:
        until = self.cluster.now + self.times.longest(SOON_SECONDS)
        while not predicate():
            require(self.cluster.now < until, f"in vain for {SOON_SECONDS:g} s: {text}")
            self.cluster.run(ROUND_SECONDS)
