"""Liveness drills with clients of the drills' own, which see how servers answer."""

from __future__ import annotations

from attrs import define, field

from pfsb.applications.interfaces import Command, Refused, Result
from pfsb.simulator.runs.liveness_drills import ROUND_SECONDS, LivenessDrills
from pfsb.simulator.runs.population import UserPopulation
from pfsb.simulator.workload.connection import SimulatedConnection

CHANGE: Command = ("DEL", "nobody-writes-this")
"""A command of the drills. It goes through the log as every change does, and changes no value that users write."""
QUESTION: Command = ("GET", "nobody-writes-this")
REFUSALS = ("UNAVAILABLE", "READONLY")
"""Codes of the refusals by which a server says that it cannot serve a client at present."""


@define(eq=False)
class DrillClient:
    """A client with an anonymous session at one server, which has one request under way at a time."""

    connection: SimulatedConnection
    result: Result | None = None
    """The answer to the latest request; None: there is none yet."""
    _number: int = 0

    def change(self) -> None:
        self._number += 1
        self.result = None
        self.connection.submit(self._number, CHANGE, self._told)

    def ask(self) -> None:
        self.result = None
        self.connection.question(QUESTION, self._told)

    @property
    def is_served(self) -> bool:
        """Whether the latest request has its answer, and the answer is no refusal of `REFUSALS`.

        An answer such as NOTFOUND, which comes from the state, counts as served.
        """
        return self.result is not None and not self.is_refused

    @property
    def is_refused(self) -> bool:
        return isinstance(self.result, Refused) and self.result.code in REFUSALS

    def _told(self, result: Result) -> None:
        self.result = result


@define(eq=False)
class ClientDrills(LivenessDrills):
    """The liveness drills of a cluster with users, to which clients can be added."""

    population: UserPopulation = field(kw_only=True)

    def _connect(self, server_id: int) -> DrillClient:
        """A client that is connected to a server now."""
        connection = SimulatedConnection(
            self.cluster, self.population.checks, self.rng, server_id, lambda connection, code: None
        )
        connection.connect(lambda: None)
        self.cluster.run(ROUND_SECONDS)
        return DrillClient(connection)
