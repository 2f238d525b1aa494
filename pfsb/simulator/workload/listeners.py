"""Simulated listeners: each must get every event of the chat once, in order, although it moves between servers."""

from __future__ import annotations

import random

from attrs import define, field
from twisted.python.failure import Failure

from pfsb.applications.interfaces import Event
from pfsb.sessions.subscription import Subscription
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.workload.read_checker import ReadHistory

LOOK_SECONDS = 0.1
"""How long, in seconds, a listener waits between two decisions whether to move to another server or to pause."""
STAYS_SECONDS = 4.0
"""How long, in seconds, a listener stays at one server, on average."""


@define(eq=False)
class SimulatedListener:
    """A client that follows the chat from its first line on, moves from server to server, and pauses now and then."""

    cluster: SimulatedCluster
    log: ReadHistory
    rng: random.Random
    heard: int = 0
    """Number of events that the listener has got."""
    _server_clock: ServerClock | None = None
    _visits: int = 0
    """Number of times that the listener has moved to a server."""
    _server_id: int = -1
    _subscription: Subscription | None = None
    _leaves_at: float = field(default=0.0)
    _is_paused: bool = False

    def start(self) -> None:
        self.cluster.clock.callLater(self.rng.uniform(0, LOOK_SECONDS), self._act)

    def _act(self) -> None:
        if self._server_clock is None or self._server_clock.closed or self.cluster.now >= self._leaves_at:
            self.move()
        elif self._subscription is not None and self.rng.random() < 0.2:
            self._pause_or_resume(self._subscription)
        self.cluster.clock.callLater(LOOK_SECONDS, self._act)

    def _pause_or_resume(self, subscription: Subscription) -> None:
        """Pause or resume the subscription, as a connection with a full buffer does."""
        self._is_paused = not self._is_paused
        if self._is_paused:
            subscription.pause()
        else:
            subscription.resume()

    def move(self) -> None:
        """Leave the present server, if there is one, and listen at a server that is drawn."""
        if self._subscription is not None:
            self._subscription.stop()
        self._subscription, self._server_clock, self._is_paused = None, None, False
        able = self.cluster.serving_ids
        if able:
            self._server_id = self.rng.choice(able)
            self._leaves_at = self.cluster.now + self.rng.uniform(0, 2) * STAYS_SECONDS
            self._visits += 1
            self._server_clock = server_clock = self.cluster.server_clock(self._server_id)
            server_clock.callLater(0, self._listen, server_clock, self._visits)

    def _listen(self, server_clock: ServerClock, visit_number: int) -> None:
        if visit_number != self._visits:
            return  # the server was paused for so long that the listener has moved on
        server = self.cluster.process(self._server_id).server
        self._subscription = server.event_feed.subscribe(
            "LISTEN", self.heard + 1, lambda event: self._hear(server_clock, event), self._fail, self._ended
        )

    def _fail(self, error: Exception) -> None:
        self.cluster.findings.add(Failure(error))

    def _ended(self, why: str) -> None:
        """Called when the cluster stops running the chat, which is a failure: the simulated clusters always run it."""
        self.cluster.findings.add(Failure(AssertionError(why)))

    def _hear(self, server_clock: ServerClock, event: Event) -> None:
        """Check an event that a server has sent, unless that server has stopped or the listener has left it.

        The events of a server in error (`SimulatedCluster.in_error`) are not believed: the listener asks another server
        for them later.
        """
        if self._server_id in self.cluster.in_error:
            return
        if server_clock is self._server_clock and not server_clock.closed:
            self.heard += 1
            self.cluster.findings.note(self.log.heard, self.heard, event, f"server {self._server_id}")
