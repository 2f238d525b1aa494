"""People who only listen: they are told every event once, in order, wherever they are connected just then."""

from __future__ import annotations

import random

from attrs import define, field

from pfsb.applications.interfaces import Event
from pfsb.sessions.subscription import Subscription
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.workload.read_checker import Log

LOOK_SECONDS = 0.1
STAYS_SECONDS = 4.0


@define(eq=False)
class Listener:
    """Follows the chat from the first line on, at one server after another; now and then it does not read on."""

    cluster: SimulatedCluster
    log: Log
    rng: random.Random
    heard: int = 0
    """How many events."""
    _lane: ServerClock | None = None
    _visit: int = 0
    """How often the listener has gone to a server."""
    _server_id: int = -1
    _following: Subscription | None = None
    _stays_until: float = field(default=0.0)
    _is_paused: bool = False

    def start(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, LOOK_SECONDS), self._live)

    def _live(self) -> None:
        if self._lane is None or self._lane.closed or self.cluster.now >= self._stays_until:
            self._move()
        elif self._following is not None and self.rng.random() < 0.2:
            self._stop_or_go_on(self._following)
        self.cluster.clock.callLater(LOOK_SECONDS, self._live)

    def _stop_or_go_on(self, following: Subscription) -> None:
        """The connection's buffer is full, or empty again."""
        self._is_paused = not self._is_paused
        if self._is_paused:
            following.pause()
        else:
            following.resume()

    def _move(self) -> None:
        if self._following is not None:
            self._following.stop()
        self._following, self._lane, self._is_paused = None, None, False
        able = self.cluster.serving_ids
        if able:
            self._server_id = self.rng.choice(able)
            self._stays_until = self.cluster.now + self.rng.uniform(0, 2) * STAYS_SECONDS
            self._visit += 1
            self._lane = lane = self.cluster.lane(self._server_id)
            lane.callLater(0, self._listen, lane, self._visit)

    def _listen(self, lane: ServerClock, visit: int) -> None:
        if visit != self._visit:
            return  # the server was paused for so long that the listener has gone
        server = self.cluster.process(self._server_id).server
        self._following = server.subscribe("LISTEN", self.heard + 1, lambda event: self._hear(lane, event))

    def _hear(self, lane: ServerClock, event: Event) -> None:
        """What a server tells that dies in this moment gets nowhere."""
        if lane is self._lane and not lane.closed:
            self.heard += 1
            self.cluster.findings.note(self.log.heard, self.heard, event, f"server {self._server_id}")
