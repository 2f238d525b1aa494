"""Clients as in section 3 of the paper: one outstanding update each, numbered by the client."""

from __future__ import annotations

import random

from attrs import define, field

from pfsb.simulator.cluster.cluster import SimulatedCluster


@define(eq=False)
class PaperClient:
    """A client that has one update under way.

    If no answer comes in `patience_seconds`, it repeats the update with the same number, at another server if another
    server runs.
    """

    cluster: SimulatedCluster
    client_id: str
    rng: random.Random
    patience_seconds: float = 1.5
    think_seconds: float = 0.05
    timestamp: int = 0
    servers: list[int] = field(factory=list)
    """Ids of the servers that the client may use; empty: all servers."""
    _asked_at: float = 0.0
    _server: int = -1
    _is_finishing: bool = False

    def start(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, self.think_seconds), self._ask_next)

    def finish(self) -> None:
        """Called once, towards the end of a run: begin no new update, and repeat the one under way until it is
        answered."""
        self._is_finishing = True

    @property
    def is_satisfied(self) -> bool:
        """Whether the latest update, and therefore every update, is answered."""
        return self.timestamp == 0 or (self.client_id, self.timestamp) in self.cluster.answers

    def _ask_next(self) -> None:
        if not self._is_finishing:
            self.timestamp += 1
            self._ask()
            self._look()

    def _look(self) -> None:
        """Begin the next update if the present one is answered; repeat it if the client has waited long enough."""
        if self.is_satisfied:
            self.cluster.clock.callLater(self.rng.uniform(0, 2 * self.think_seconds), self._ask_next)
            return
        if self.cluster.now - self._asked_at > self.patience_seconds:
            self._ask()
        self.cluster.clock.callLater(0.02, self._look)

    def _ask(self) -> None:
        self._asked_at = self.cluster.now
        able = [i for i in self.servers or self.cluster.ids if self.cluster.is_running(i)]
        others = [i for i in able if i != self._server] or able
        if others:
            self._server = self.rng.choice(others)
            self.cluster.submit(self._server, self.client_id, self.timestamp, self._payload())

    def _payload(self) -> bytes:
        """Make a payload that differs for each update, but not for its repetitions. Every tenth one is long."""
        text = f"{self.client_id}/{self.timestamp}".encode()
        return text * 200 if self.timestamp % 10 == 0 else text
