"""A random run: servers crash, pause and start again, links break and heal, disks are slow; then all becomes quiet.

While it lasts, safety is checked after every event. At the end, when everything is well again, liveness is: each
client has its answer, and all servers have executed the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import define, field

from pfsb.paxos.settings import Settings
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.cluster.network import LinkQuality
from pfsb.simulator.workload.paper_clients import PaperClient

QUIET_SECONDS_MAX = 60.0
"""Within this time after everything has healed, everyone must be served: some elections with the longest timeout."""


@define
class RandomRun:
    """One run, whole and reproducible from its seed."""

    seed: int
    seconds: float = 12.0
    """How long things go wrong."""
    trace: Callable[[dict[str, Any]], None] | None = None
    cluster: SimulatedCluster = field(init=False)
    clients: list[PaperClient] = field(init=False)
    _rng: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        rng = self._rng = random.Random(f"{self.seed}/schedule")
        self.cluster = SimulatedCluster(
            self.seed,
            rng.choice((3, 3, 3, 4, 5, 5)),
            settings=_random_settings(rng),
            quality=_random_quality(rng),
            trace=self.trace,
        )
        self.cluster.network.refusals = rng.random() < 0.5
        self.clients = [
            PaperClient(self.cluster, f"client-{i}", random.Random(f"{self.seed}/client/{i}"))
            for i in range(rng.randint(1, 6))
        ]

    def run(self) -> None:
        """Raises AssertionError, `Violation` among them, when a promise is broken."""
        for client in self.clients:
            client.start()
        until = self.cluster.now + self.seconds
        while self.cluster.now < until:
            self.cluster.run(self._rng.expovariate(2.0))
            self._rng.choice(self._actions())()
        self._be_quiet()

    def _be_quiet(self) -> None:
        cluster = self.cluster
        heal_all(cluster)
        for client in self.clients:
            client.finish()
        cluster.run_until(lambda: all(client.is_satisfied for client in self.clients), QUIET_SECONDS_MAX)
        cluster.run_until(cluster.all_equal, QUIET_SECONDS_MAX)

    # ------------------------------------------------------------------ what may go wrong

    def _actions(self) -> list[Callable[[], None]]:
        return [
            self._crash,
            self._crash,
            self._restart,
            self._restart,
            self._pause_or_resume,
            self._cut,
            self._partition,
            self.cluster.heal,
            self.cluster.heal,
            self._change_quality,
            self._change_disk,
            self._restart_all,
        ]

    def _crash(self) -> None:
        """One server, mostly; now and then all at once. What of the disk's work gets done is left to chance."""
        up = self.cluster.running_ids
        if not up:
            return
        victims = up if self._rng.random() < 0.1 else [self._rng.choice(up)]
        for server_id in victims:
            pending = self.cluster.storage(server_id).pending_groups()
            kept = self._rng.randint(0, len(pending))
            torn = self._rng.randint(0, pending[kept]) if kept < len(pending) and self._rng.random() < 0.5 else 0
            self.cluster.crash(server_id, kept, torn)

    def _restart(self) -> None:
        down = [i for i in self.cluster.ids if not self.cluster.is_running(i)]
        if down:
            self.cluster.restart(self._rng.choice(down))

    def _restart_all(self) -> None:
        for server_id in self.cluster.ids:
            if not self.cluster.is_running(server_id):
                self.cluster.restart(server_id)

    def _pause_or_resume(self) -> None:
        if self.cluster.running_ids:
            server_id = self._rng.choice(self.cluster.running_ids)
            self.cluster.pause(server_id)
            self.cluster.clock.callLater(self._rng.uniform(0.1, 3), self._resume, server_id)

    def _resume(self, server_id: int) -> None:
        if self.cluster.is_running(server_id):
            self.cluster.resume(server_id)

    def _cut(self) -> None:
        a, b = self._rng.sample(self.cluster.ids, 2)
        self.cluster.cut(a, b, one_way=self._rng.random() < 0.5)

    def _partition(self) -> None:
        size = self._rng.randint(1, len(self.cluster.ids) - 1)
        self.cluster.isolate(*self._rng.sample(self.cluster.ids, size))

    def _change_quality(self) -> None:
        self.cluster.network.set_quality(_random_quality(self._rng))

    def _change_disk(self) -> None:
        server = self.cluster.servers[self._rng.choice(self.cluster.ids)]
        slowest = self._rng.choice((0.0, 0.002, 0.02, 0.3))
        server.sync_seconds = (slowest / 4, slowest)


def _random_settings(rng: random.Random) -> Settings:
    """Small windows and short memories, so that their edges are met."""
    return Settings(
        window_slots=rng.choice((1, 2, 4, 16)),
        batch_bytes_max=rng.choice((1, 100, 48_000)),
        frame_data_bytes_max=rng.choice((60, 1_000, 50_000)),
        history_slots_kept=rng.choice((0, 4, 1_024)),
        queue_updates_max=rng.choice((1, 20_000)),
        digests_kept=1_000,
    )


def _random_quality(rng: random.Random) -> LinkQuality:
    return LinkQuality(
        delay_seconds=rng.choice(((0.0002, 0.001), (0.0002, 0.02), (0.05, 0.2))),
        loss=rng.choice((0.0, 0.0, 0.05, 0.3)),
        duplication=rng.choice((0.0, 0.05, 0.3)),
        reordering=rng.choice((0.0, 0.05, 0.5)),
    )
