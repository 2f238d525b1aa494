"""The whole server, sessions and applications included, as a process of the simulation.

Only the clock, the disk, the network and the random numbers of the server are replaced. Watchers stand between the
protocol and the sessions, and around the lock application, so that the checkers see what is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from pfsb.applications.catalogue import Catalogue, find_applications
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import IRunExecutor
from pfsb.config.config import Config, Limits, ServerConfig, Timers
from pfsb.paxos.birth import Birth
from pfsb.paxos.interfaces import IStateMachine
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.service.assembly import make_server
from pfsb.sessions.cluster_settings import HORIZON_MIN, RULES_KNOWN
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.simulator.checkers.lock_checker import WatchedLock
from pfsb.simulator.checkers.session_checker import SessionChecker, WatchedSessions
from pfsb.simulator.cluster.process import ServerParts
from pfsb.simulator.cluster.quota_checker import QuotaChecker
from pfsb.simulator.cluster.tally import TALLY, SimulatedApplications

APPLICATIONS = ("chat", "lock", "kv")

WatchReads = Callable[[IStateMachine, SessionStateMachine, Chat], IStateMachine]
"""Function of (state machine, the sessions inside it, the chat application) that returns another state machine.

`ServerProcess` calls the function once, when it is made, and gives the returned state machine to the protocol. The
returned state machine passes all calls on to the first argument, and records which answers to reads are right.
`pfsb.simulator.workload.read_checker.WatchedReads.of` makes such functions.
"""


@frozen
class SimulatedConfig(Config):
    """A configuration whose limits may be smaller than a configuration file allows, so that runs reach them."""

    drawn: Settings = field(factory=Settings)
    drawn_quotas: Mapping[str, int] = field(factory=dict)
    servers_without_runs: frozenset[int] = frozenset()
    """Ids of the servers whose applications execute no runs."""
    tallies: Sequence[int] = ()
    """The versions of the application `tally` that the server has installed; empty: it has only `APPLICATIONS`, and can
    run no others."""
    rules: int = RULES_KNOWN
    """The latest version of the rules of execution that the server says it can follow."""
    horizon_min: int = HORIZON_MIN
    """Minimum that users may choose for the setting `horizon`; the same for all servers."""

    def quotas(self) -> Mapping[str, int]:
        return self.drawn_quotas

    def settings(self) -> Settings:
        return self.drawn


def configuration(
    servers: Sequence[int],
    settings: Settings,
    limits: Limits,
    quotas: Mapping[str, int] | None = None,
    servers_without_runs: frozenset[int] = frozenset(),
) -> SimulatedConfig:
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
        drawn_quotas=quotas or {},
        servers_without_runs=servers_without_runs,
    )


class ServerProcess:
    """One incarnation of a `Server`, whose state machine and lock application are watched."""

    def __init__(
        self, parts: ServerParts, config: Config, checks: SessionChecker, watch_reads: WatchReads | None = None
    ) -> None:
        applications: Sequence[Any] = find_applications([name for name in config.apps if name != TALLY])
        if isinstance(config, SimulatedConfig) and parts.server_id in config.servers_without_runs:
            for application in filter(IRunExecutor.providedBy, applications):
                application.run_verbs = ()
        self.applications = {application.name: application for application in applications}
        self.server = make_server(config, self._catalogue(config, applications), parts)
        if isinstance(config, SimulatedConfig):
            self.server.machine.settings.horizon_min = config.horizon_min
        self.replica = self.server.replica
        self.clock = parts.clock
        self.transport = parts.transport
        self._watch_executions(parts, checks, watch_reads)
        watch_introductions(self.replica, parts)

    def _catalogue(self, config: Config, applications: Sequence[Any]) -> Catalogue:
        """The catalogue with these applications, of which that for locks is watched. A server that has versions of
        `tally` installed can be switched to them."""
        given = {app.name: WatchedLock(app) if app.name == "lock" else app for app in applications}
        if not isinstance(config, SimulatedConfig) or not config.tallies:
            return Catalogue(given.values())
        installed = SimulatedApplications(given, config.tallies, config.rules)
        return Catalogue([installed.make(name, 1) for name in config.apps], installed)

    def snapshots(self) -> dict[str, bytes]:
        """Name of each application that runs, or could run -> its state."""
        running = {app.name: app.snapshot() for app in self.server.catalogue.chosen}
        return running | {name: app.snapshot() for name, app in self.applications.items()}

    def start(self) -> None:
        self.server.start()

    def drain(self, drained: Callable[[], None]) -> None:
        self.server.drain(drained)

    def stop(self) -> None:
        self.server.stop()

    def _watch_executions(self, parts: ServerParts, checks: SessionChecker, watch_reads: WatchReads | None) -> None:
        """Put the watchers between the ordered update queue and the sessions: one for `checks`, the one that
        `watch_reads` makes (None: no reads are checked), and the one that `parts` give.
        """
        machine = self.server.machine
        self.quotas = QuotaChecker(machine, self.applications["kv"], self.applications["chat"], checks.marks)
        watched: IStateMachine = WatchedSessions(parts.server_id, machine, checks, parts.settle)
        if watch_reads is not None:
            chat = self.applications["chat"]
            assert isinstance(chat, Chat)
            watched = watch_reads(watched, machine, chat)
        self.replica.ordered_queue.state_machine = parts.watched(watched)


def watch_introductions(replica: Replica, parts: ServerParts) -> None:
    """Make the replica report to the checkers each update of its own clients, before the protocol gets the update.

    The replica also reports the BIRTH, the update with the first settings of the cluster, when it makes one.
    """
    introduce, birth = replica.introduce, replica.proposals.birth

    def introduced(update: ClientUpdate, *, is_asked: bool = True) -> None:
        parts.introduced(update)
        introduce(update, is_asked=is_asked)

    def born(made: Birth) -> ClientUpdate:
        update = made.make()
        parts.introduced(update)
        return update

    replica.introduce = introduced  # type: ignore[method-assign]
    if birth is not None:
        replica.proposals.birth = Birth(lambda: born(birth), birth.is_birth)


def builder(config: Config, checks: SessionChecker) -> Callable[[ServerParts], ServerProcess]:
    """Make the function for `SimulatedCluster(build=...)` that makes a whole server of its `ServerParts`."""
    return lambda parts: ServerProcess(parts, config, checks)
