"""The whole server, sessions and applications included, as a process of the simulation.

Only the clock, the disk, the network and the random numbers of the server are replaced. Watchers stand between the
protocol and the sessions, and around the lock application, so that the checkers see what is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from pfsb.applications.catalogue import Catalogue, PluginApplications, version_of
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import IReplicatedApplication, IRunExecutor
from pfsb.config.config import Config, Limits, ServerConfig, Timers
from pfsb.paxos.birth import Birth
from pfsb.paxos.interfaces import IStateMachine
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.service.assembly import make_server
from pfsb.sessions.cluster_settings import HORIZON_MIN, RULES_KNOWN
from pfsb.sessions.reply_cache import Beginning
from pfsb.sessions.session import Session
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.simulator.checkers.lock_checker import WatchedLock
from pfsb.simulator.checkers.session_checker import SessionChecker, WatchedSessions
from pfsb.simulator.checkers.snapshot_checker import Facts, Models
from pfsb.simulator.cluster.process import ServerParts, facts_of_history
from pfsb.simulator.cluster.quota_checker import QuotaChecker
from pfsb.simulator.cluster.tally import TALLY, Tally

APPLICATIONS = ("chat", "lock", "kv")

WatchReads = Callable[[IStateMachine, SessionStateMachine, Callable[[], Chat]], IStateMachine]
"""Function of (state machine, the sessions inside it, a function that returns the chat application which runs at the
moment) that returns another state machine.

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
    rules_at_birth: int = 1
    """The version of the rules with which a cluster begins to which the server gives birth."""
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
    rules_at_birth: int = 1,
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
        rules_at_birth=rules_at_birth,
    )


@define(eq=False)
class SimulatedApplications:
    """The applications that one incarnation of a server can run, with a watcher around each lock application.

    Those in `first` are there before the cluster is born, so that defects can be planted in them. They are given out at
    the birth. Once a snapshot is restored, or has begun to be, others are made, since a state must be built beside the
    present one. A `Tally` is made anew each time: a change of the settings may end it, and another one begin it anew.
    """

    names: Sequence[str]
    """The applications in the configuration file of the server."""
    has_runs: bool = True
    """Whether these applications execute runs of commands together."""
    tallies: Sequence[int] = ()
    """The versions of `Tally` that are installed."""
    rules: int = RULES_KNOWN
    """The latest version of the rules of execution that the server says it can follow."""
    _plugins: PluginApplications = field(factory=PluginApplications, init=False)
    first: dict[str, IReplicatedApplication] = field(init=False)

    @first.default
    def _make_first(self) -> dict[str, IReplicatedApplication]:
        names = [name for name in self.names if name != TALLY]
        return {name: self._watched(self._plugins.make(*self._plugins.latest(name))) for name in names}

    @property
    def versions(self) -> Mapping[str, Sequence[int]]:
        versions = {name: (self._plugins.latest(name)[1],) for name in self.names if name != TALLY}
        return {**versions, TALLY: self.tallies} if self.tallies else versions

    def of_file(self) -> list[IReplicatedApplication]:
        """The applications with which the server begins."""
        return [self.first[name] if name in self.first else self.make(name, 1) for name in self.names]

    def make(self, name: str, version: int) -> IReplicatedApplication:
        """An application with its first state. Raises `BadRequest` for one that is not installed."""
        if name == TALLY and version in self.tallies:
            tally: IReplicatedApplication = Tally(version)
            return tally
        first = self.first.get(name)
        if first is not None and version_of(first) == version:
            return first
        return self._watched(self._plugins.make(name, version))

    def _watched(self, application: Any) -> IReplicatedApplication:
        if not self.has_runs and IRunExecutor.providedBy(application):
            application.run_verbs = ()
        watched: IReplicatedApplication = WatchedLock(application) if application.name == "lock" else application
        return watched


def _installed(config: Config, server_id: int) -> SimulatedApplications:
    if not isinstance(config, SimulatedConfig):
        return SimulatedApplications(config.apps)
    has_runs = server_id not in config.servers_without_runs
    return SimulatedApplications(config.apps, has_runs, config.tallies, config.rules)


class ServerProcess:
    """One incarnation of a `Server`, whose state machine and lock application are watched."""

    def __init__(
        self, parts: ServerParts, config: Config, checks: SessionChecker, watch_reads: WatchReads | None = None
    ) -> None:
        self._installed = _installed(config, parts.server_id)
        catalogue = Catalogue(self._installed.of_file(), self._installed)
        rules = config.rules_at_birth if isinstance(config, SimulatedConfig) else 1
        self.server = make_server(config, catalogue, parts, rules_at_birth=rules)
        if isinstance(config, SimulatedConfig):
            self.server.machine.settings.horizon_min = config.horizon_min
        self.replica = self.server.replica
        self.clock = parts.clock
        self.transport = parts.transport
        self._read_applications()
        catalogue.watch(self._read_applications)
        self._watch_executions(parts, checks, watch_reads)
        watch_introductions(self.replica, parts)

    def start(self) -> None:
        self.server.start()

    def drain(self, drained: Callable[[], None]) -> None:
        self.server.drain(drained)

    def retire(self, drained: Callable[[], None]) -> None:
        self.server.retire(drained)

    def stop(self) -> None:
        self.server.stop()

    def _read_applications(self) -> None:
        chosen: Sequence[Any] = self.server.catalogue.chosen
        self.applications: Mapping[str, Any] = {
            app.name: app.inner if isinstance(app, WatchedLock) else app for app in chosen
        }
        """Name -> the application that runs at the moment, without the watcher around it."""

    def facts(self) -> Facts:
        machine = self.server.machine
        return {
            **facts_of_history(self.replica),
            "revision": machine.revision,
            "time": machine.time_ms,
            "table of sessions": {client_id: contents_of(session) for client_id, session in machine.sessions.items()},
            "table of closed sessions": list(machine.closed_sessions.items()),
            "last forgotten session": machine.forgotten,
            "slots in which servers were heard": dict(machine.heard_in),
            "quotas": machine.quotas(),
            "settings": machine.settings.snapshot() if machine.settings.is_born else None,
            **{f"state of {name}": app.snapshot() for name, app in self.applications.items()},
        }

    def models(self) -> Models:
        return {"locks": self._watched_lock.checker.copy(), "quotas": self.quotas.counted()}

    def follow(self, models: Models) -> None:
        self._watched_lock.checker = models["locks"].copy()
        self.quotas.go_on_from(models["quotas"])

    @property
    def _watched_lock(self) -> WatchedLock:
        lock = self.server.catalogue.entry("LOCK").application
        assert isinstance(lock, WatchedLock)
        return lock

    def _chat(self) -> Chat:
        chat = self.applications["chat"]
        assert isinstance(chat, Chat)
        return chat

    def _watch_executions(self, parts: ServerParts, checks: SessionChecker, watch_reads: WatchReads | None) -> None:
        """Put the watchers between the ordered update queue and the sessions: one for `checks`, the one that
        `watch_reads` makes (None: no reads are checked), and the one that `parts` give.
        """
        machine = self.server.machine
        self.quotas = QuotaChecker(machine, lambda: self.applications, checks.marks)
        watched: IStateMachine = WatchedSessions(
            parts.server_id, machine, checks, parts.settle, self._installed.first.clear
        )
        if watch_reads is not None:
            watched = watch_reads(watched, machine, self._chat)
        self.replica.ordered_queue.state_machine = parts.watched(watched)


def contents_of(session: Session) -> Sequence[object]:
    """All that a session holds, with each kept result by itself.

    A server that has executed commands together may keep their results as one entry, and is equal to one that has
    executed them one by one.
    """
    answers = session.answers
    pages = [
        (page.number, page.looked_at, page.size, page.shared, [(n, _kept(page.kept(n))) for n in page.numbers])
        for page in answers.pages()
    ]
    limits = answers.answers_max, answers.bytes_max, answers.forgotten
    origin = session.epoch, session.server_id, session.ttl_ms, session.opened
    return origin, session.last_number, dict(session.waiting), limits, pages


def _kept(result: Any) -> object:
    """A copy of a kept result. If the result is a beginning of a value that grows, the copy has the present bytes of
    that value."""
    if isinstance(result, Beginning):
        growing = result.growing
        return result.name, result.size, result.fields, growing.data, growing.kept, growing.counted
    return result


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
