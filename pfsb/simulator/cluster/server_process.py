"""The whole server, sessions and applications included, as a process of the simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen

from pfsb.applications.catalogue import Catalogue, find
from pfsb.config.config import Config, Limits, ServerConfig, Timers
from pfsb.paxos.interfaces import IStateMachine
from pfsb.paxos.settings import Settings
from pfsb.server import Server
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.simulator.checkers.lock_checker import WatchedLock
from pfsb.simulator.checkers.session_checker import SessionChecker, WatchedSessions
from pfsb.simulator.cluster.process import Parts
from pfsb.transports.faults import LinkFaults

APPLICATIONS = ("chat", "lock", "kv")

WatchReads = Callable[[Any, SessionStateMachine, Any], IStateMachine]
"""See `pfsb.simulator.workload.read_checker.WatchedReads.of`."""


@frozen
class SimulatedConfig(Config):
    """A configuration with numbers that no file can have: small ones, whose limits are met."""

    drawn: Settings = field(factory=Settings)

    def settings(self) -> Settings:
        return self.drawn


def configuration(servers: Sequence[int], settings: Settings, limits: Limits) -> SimulatedConfig:
    timers = Timers(settings.progress_seconds, settings.update_seconds, settings.alive_seconds)
    return SimulatedConfig(
        file="simulated",
        cluster="simulated",
        servers={i: ServerConfig(i, (f"server-{i}", 1), "tcp:1") for i in servers},
        f=(len(servers) - 1) // 2,
        apps=APPLICATIONS,
        timers=timers,
        limits=limits,
        window=settings.window_slots,
        snapshot_every=0,
        drawn=settings,
    )


class ServerProcess:
    """One life of a `Server`; its state machine and its lock application are watched."""

    def __init__(
        self, parts: Parts, config: Config, checks: SessionChecker, watch_reads: WatchReads | None = None
    ) -> None:
        applications = find(config.apps)
        self.applications = {application.name: application for application in applications}
        catalogue = Catalogue([WatchedLock(app) if app.name == "lock" else app for app in applications])
        self.server = Server(
            config=config,
            server_id=parts.server_id,
            catalogue=catalogue,
            clock=parts.clock,
            rng=parts.rng,
            storage=parts.storage,
            transport=parts.transport,
            faults=LinkFaults(parts.clock, parts.rng),
            on_failure=parts.on_failure,
            tracer=parts.tracer,
        )
        self.replica = self.server.replica
        self._watch_executions(parts, checks, watch_reads)
        self._watch_introductions(parts)

    def start(self) -> None:
        self.server.start()

    def drain(self, drained: Callable[[], None]) -> None:
        self.server.drain(drained)

    def stop(self) -> None:
        self.server.stop()

    def _watch_executions(self, parts: Parts, checks: SessionChecker, watch_reads: WatchReads | None) -> None:
        """Between the ordered update queue and the sessions."""
        machine = self.server.machine
        watched: Any = WatchedSessions(parts.server_id, machine, checks, parts.settle)
        if watch_reads is not None:
            watched = watch_reads(watched, machine, self.applications["chat"])
        self.replica.ordered_queue._state_machine = parts.watched(watched)

    def _watch_introductions(self, parts: Parts) -> None:
        """Between the sessions and the protocol."""
        introduce = self.replica.introduce

        def introduced(update: Any) -> None:
            parts.introduced(update)
            introduce(update)

        self.replica.introduce = introduced  # type: ignore[method-assign]


def builder(config: Config, checks: SessionChecker) -> Callable[[Parts], ServerProcess]:
    """For `SimulatedCluster`: builds whole servers."""
    return lambda parts: ServerProcess(parts, config, checks)
