"""Clients of a simulated cluster, as the paper has them: one outstanding update each, numbered by the client."""

from __future__ import annotations

import random

from attrs import define, field

from pfsb.simulator.cluster.cluster import SimulatedCluster


@define(eq=False)
class PaperClient:
    """Asks, waits for the answer, asks on. Without an answer it repeats the same number, mostly at another server."""

    cluster: SimulatedCluster
    client_id: str
    rng: random.Random
    patience_seconds: float = 1.5
    think_seconds: float = 0.05
    timestamp: int = 0
    servers: list[int] = field(factory=list)
    """Which it talks to; empty: any that runs."""
    _asked_at: float = 0.0
    _server: int = -1
    _is_finishing: bool = False

    def start(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, self.think_seconds), self._ask_next)

    def finish(self) -> None:
        """Ask nothing new; what is under way is still repeated until it is answered."""
        self._is_finishing = True

    @property
    def is_satisfied(self) -> bool:
        """Everything that it asked for is answered."""
        return self.timestamp == 0 or (self.client_id, self.timestamp) in self.cluster.answers

    def _ask_next(self) -> None:
        if not self._is_finishing:
            self.timestamp += 1
            self._ask()
            self._look()

    def _look(self) -> None:
        """See whether the answer has come; have patience for so long."""
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
        """Different for each update, the same for each repetition; now and then a long one."""
        text = f"{self.client_id}/{self.timestamp}".encode()
        return text * 200 if self.timestamp % 10 == 0 else text
