"""Fetches of snapshots: no server waits for parts that do not come any longer than it may (Departure 57)."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from pfsb.paxos.part_requests import PATIENCE_MAX
from pfsb.paxos.snapshot_fetching import SILENCE_PERIODS, Fetch
from pfsb.paxos.snapshot_taking import WAITING_BYTES_MAX
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster

SLACK_SECONDS: Final = 0.5
"""How much longer, in seconds, than its timers say a server may wait: a fetch may have begun to wait at any time since
the look before."""


@define(eq=False)
class Wait:
    """A fetch to which no part has come since the first of some looks."""

    fetch: Fetch
    source: int
    lacking: int
    looked_at: float
    """Simulated time of the last look."""
    seconds: float = 0.0
    """How long the fetch has waited, in seconds of its server's clock."""

    def goes_on(self, fetch: Fetch) -> bool:
        return self.fetch is fetch and self.source == fetch.source and self.lacking == fetch.lacking


@define(eq=False)
class FetchChecker:
    """Looks at all servers, again and again, and counts how long each fetch has got no part from its source."""

    _cluster: SimulatedCluster
    _waits: dict[int, Wait] = field(factory=dict, init=False)

    @property
    def longest(self) -> float:
        """How long, in seconds of its clock, a server may wait for the next part from one source: it looks whether the
        source is silent each time that a request counts as lost."""
        settings = self._cluster.settings
        return (
            SILENCE_PERIODS * settings.reconciliation_seconds + PATIENCE_MAX * settings.resend_seconds + SLACK_SECONDS
        )

    def look(self) -> None:
        """Look at all servers once. Raises `Violation`."""
        waits = {}
        for server_id in self._cluster.running_ids:
            fetch = self._waiting_fetch(server_id)
            if fetch is None:
                continue
            wait = self._waits.get(server_id)
            if wait is None or not wait.goes_on(fetch):
                wait = Wait(fetch, fetch.source, fetch.lacking, self._cluster.now)
            wait.seconds += (self._cluster.now - wait.looked_at) * self._cluster.server_clock(server_id).rate
            wait.looked_at = self._cluster.now
            if wait.seconds > self.longest:
                raise Violation(
                    f"server {server_id} waits {wait.seconds:.1f} s for parts of a snapshot from server {wait.source}, "
                    f"and asks no other one"
                )
            waits[server_id] = wait
        self._waits = waits

    def _waiting_fetch(self, server_id: int) -> Fetch | None:
        """The fetch of a server that could look after it; None: there is none, or the server is paused, about to end,
        or waits for its disk."""
        replica = self._cluster.replica(server_id)
        fetch = replica.snapshot_fetcher.fetch
        if fetch is None or self._cluster.server_clock(server_id).paused or replica.turn.stopped:
            return None
        return None if fetch.file.waiting_bytes > WAITING_BYTES_MAX else fetch
