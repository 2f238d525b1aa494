"""The servers and users of a run: whole servers with users, or only the protocol with the clients of section 3."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final, Protocol

from attrs import define, evolve, field

from pfsb.config.config import ServerConfig
from pfsb.sessions.cluster_settings import RULES_OF_EPOCHS
from pfsb.simulator.checkers.session_checker import SessionChecker
from pfsb.simulator.checkers.snapshot_checker import Facts
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.cluster.process import ProtocolProcess, ServerParts, SimulatedProcess
from pfsb.simulator.cluster.server_process import ServerProcess, SimulatedConfig, configuration
from pfsb.simulator.faults.parameters import APPS_OF_FILES, Parameters
from pfsb.simulator.linearizability.history import History
from pfsb.simulator.linearizability.search import Verdict
from pfsb.simulator.runs.bounds_checker import check_bounds
from pfsb.simulator.workload.listeners import SimulatedListener
from pfsb.simulator.workload.operators import SimulatedOperator
from pfsb.simulator.workload.paper_clients import PaperClient
from pfsb.simulator.workload.read_checker import ReadHistory, WatchedReads
from pfsb.simulator.workload.users import User

SHARE_OF_LATER_VERSIONS: Final = 0.4
"""Chance, drawn at each start of a server in a run whose settings change, that it has later versions from then on."""
SHARE_IF_MEMBERS_CHANGE: Final = 0.8
"""Chance, drawn at each start of a server in a run whose settings and members change, that it has later versions from
then on. It is higher than in other runs, since changes of the membership need later versions at all servers."""


class Population(Protocol):
    """The interface through which `Run` deals with the servers and users of a run.

    `UserPopulation` and `PaperClientPopulation` implement it.
    """

    size: int
    """Number of users."""

    def build(self, parts: ServerParts) -> SimulatedProcess:
        """Make the process of one server from what the cluster gives it. The cluster calls this at each start of a
        server."""

    def begin(self) -> None:
        """Let the users begin."""

    def finish(self) -> None:
        """Let the users finish what they have begun, and then begin nothing new.

        A user of whole servers sends one more command, to show that it is served (`User.finish`).
        """

    def waiting(self) -> Iterator[str]:
        """A sentence for each user that still waits for something."""

    def contradicting(self) -> set[int]:
        """The servers that have come to other results than correct servers, in their present incarnation."""

    def check_bounds(self) -> None:
        """Raises `Violation` if a table in a server's memory has grown beyond its limit, or a periodic timer has
        stopped."""

    def state(self, server_id: int) -> Facts:
        """The parts of a server's state that must be equal at all servers, by name."""

    def check_history(self) -> None:
        """Raise `Violation` if there is no order of execution that explains every answer which a user of the run has
        got."""

    def count(self, marks: Marks) -> None:
        """Add to `marks` the counts that are known only at the end of a run."""


@define(eq=False)
class UserPopulation:
    """Whole servers, sessions and applications included, and their users."""

    cluster: SimulatedCluster
    seed: int
    parameters: Parameters
    marks: Marks
    size: int
    checks: SessionChecker = field(init=False)
    history: History = field(factory=History, init=False)
    log: ReadHistory = field(init=False)
    users: list[User] = field(init=False)
    listeners: list[SimulatedListener] = field(init=False)
    operators: list[SimulatedOperator] = field(init=False)
    _config: SimulatedConfig = field(init=False)
    _starts: Counter[int] = field(factory=Counter, init=False)
    """Server -> how many times it was started in this run."""
    _is_later: defaultdict[int, bool] = field(factory=lambda: defaultdict(bool), init=False)
    """Server -> whether it has a later version of pfsb and its applications, in a run whose settings change: a server
    gets one at a start, and keeps it."""

    def __attrs_post_init__(self) -> None:
        cluster, parameters = self.cluster, self.parameters
        self._config = configuration(
            cluster.ids,
            parameters.settings,
            parameters.limits,
            parameters.quotas,
            parameters.servers_without_runs,
            RULES_OF_EPOCHS if parameters.joiners and not parameters.changing_settings else 1,
        )
        self.checks = SessionChecker(
            cluster.checks.durability.disks,
            parameters.settings.horizon_slots,
            self.marks.counts,
            self.history.session_ended,
            cluster.clock.seconds,
            cluster.in_error,
            cluster.checks.electorate,
        )
        self.log = ReadHistory(parameters.vocabulary.names(), self.marks.counts, cluster.in_error)
        numbers = count(1)
        self.users = [self._user(number, lambda: next(numbers)) for number in range(parameters.users)][-self.size :]
        self.listeners = [
            SimulatedListener(cluster, self.log, random.Random(f"{self.seed}/listener/{number}"))
            for number in range(parameters.listeners)
        ]
        changing = parameters.changing_settings
        if changing:
            cluster.window_max = max(map(int, changing["window"]))
            # By some horizon that was in force, one of two slots may be out of the reach of the other.
            cluster.checks.bindings.horizon_slots = self.checks.model.horizon_min = min(map(int, changing["horizon"]))
        self.operators = [
            SimulatedOperator(cluster, self.checks, random.Random(f"{self.seed}/operator"), changing)
            for _ in range(bool(changing))
        ]

    def _user(self, number: int, unique: Callable[[], int]) -> User:
        return User(
            self.cluster,
            self.checks,
            self.history,
            self.log,
            random.Random(f"{self.seed}/user/{number}"),
            "" if number < self.parameters.anonymous else f"user-{number}",
            self.parameters.user_profile,
            self.parameters.vocabulary
            if number >= self.parameters.onlookers
            else self.parameters.vocabulary.questions_only,
            unique,
            self.parameters.home_servers,
        )

    def connected_sessions(self) -> list[str]:
        """The sessions of the users whose connections are open and in use, and of no other clients."""
        return [user.session_in_use for user in self.users if user.session_in_use]

    def build(self, parts: ServerParts) -> ServerProcess:
        watch = WatchedReads.of(parts, self.log)
        return ServerProcess(parts, self._config_of(parts.server_id), self.checks, watch)

    def _config_of(self, server_id: int) -> SimulatedConfig:
        """The configuration with which a server starts next: the one that all servers have, or one with values of its
        own for the settings that change in the run."""
        config, changing = self._config, self.parameters.changing_settings
        if self.parameters.joiners:
            ids = self.cluster.file_of(server_id)
            servers = {i: ServerConfig(i, (f"server-{i}", 1), "tcp:1") for i in ids}
            config = evolve(config, servers=servers, founders=self.cluster.founders)
        if not changing:
            return config
        self._starts[server_id] += 1
        rng = random.Random(f"{self.seed}/file/{server_id}/{self._starts[server_id]}")
        values: dict[str, Any] = {name: rng.choice(choices) for name, choices in changing.items()}
        limits = evolve(config.limits, session_window=values.pop("session_window"))
        drawn = evolve(config.drawn, horizon_slots=values.pop("horizon"))
        del values["rules"], values["apps"]
        # A server that is added meets settings which the others have announced that they can follow: the latest.
        share = SHARE_IF_MEMBERS_CHANGE if self.parameters.joiners else SHARE_OF_LATER_VERSIONS
        self._is_later[server_id] |= rng.random() < share or server_id in self.parameters.joiners
        return evolve(
            config,
            limits=limits,
            window=values.pop("window"),
            drawn=drawn,
            drawn_quotas=values,
            apps=tuple(rng.choice(changing["apps"][:APPS_OF_FILES]).split(",")),
            tallies=(1, 2) if self._is_later[server_id] else (1,),
            rules=2 if self._is_later[server_id] else 1,
            horizon_min=min(changing["horizon"]),
        )

    def begin(self) -> None:
        for user in self.users:
            user.start()
        for listener in self.listeners:
            listener.start()
        for operator in self.operators:
            operator.start()

    def finish(self) -> None:
        for user in self.users:
            user.finish()
        for operator in self.operators:
            operator.finish()

    def waiting(self) -> Iterator[str]:
        yield from (user.describe() for user in self.users if not user.is_satisfied)
        yield from (operator.describe() for operator in self.operators if not operator.is_satisfied)

    def contradicting(self) -> set[int]:
        return set(self.checks.contradicting)

    def check_bounds(self) -> None:
        check_bounds(self.cluster, len(self.users), self.parameters.changing_settings)

    def state(self, server_id: int) -> Facts:
        process: ServerProcess = self.cluster.process(server_id)
        return process.facts()

    def check_history(self) -> None:
        outcome = self.history.check()
        if outcome.verdict is Verdict.VIOLATION:
            raise Violation(f"not linearizable: {outcome.text}")
        self.marks.counts["history undecided"] += outcome.verdict is Verdict.UNDECIDED

    def count(self, marks: Marks) -> None:
        for server_id in self.cluster.running_ids:
            lock = self.cluster.process(server_id).server.catalogue.entry("LOCK").application.checker
            marks.counts["lock granted after a wait"] += lock.grants_after_a_wait
            marks.counts["lock not free in time"] += lock.timeouts
        marks.counts["operations"] += len(self.history.entries)
        for operator in self.operators:
            marks.counts.update({f"operator: {what}": times for what, times in operator.told.items()})


@define(eq=False)
class PaperClientPopulation:
    """Servers that run only the protocol, without sessions and front ends, and the clients of section 3 of the paper.

    Each client has one outstanding update, which it repeats at any server until it is answered.
    """

    cluster: SimulatedCluster
    seed: int
    parameters: Parameters
    size: int
    clients: list[PaperClient] = field(init=False)

    @clients.default
    def _make_clients(self) -> list[PaperClient]:
        user_profile = self.parameters.user_profile
        return [
            PaperClient(
                self.cluster,
                f"client-{number}",
                random.Random(f"{self.seed}/client/{number}"),
                user_profile.patience_seconds,
                user_profile.think_seconds,
            )
            for number in range(self.parameters.users)
        ][-self.size :]

    def build(self, parts: ServerParts) -> ProtocolProcess:
        return ProtocolProcess(parts)

    def begin(self) -> None:
        for client in self.clients:
            client.start()

    def finish(self) -> None:
        for client in self.clients:
            client.finish()

    def waiting(self) -> Iterator[str]:
        return (f"{c.client_id} waits for #{c.timestamp}" for c in self.clients if not c.is_satisfied)

    def contradicting(self) -> set[int]:
        return set()

    def check_bounds(self) -> None:
        for server_id in self.cluster.running_ids:
            pending = len(self.cluster.replica(server_id).data.clients.pending_updates)
            if pending > self.size:
                raise Violation(f"server {server_id}: {pending} updates are pending for {self.size} clients")

    def state(self, server_id: int) -> Facts:
        process: ProtocolProcess = self.cluster.process(server_id)
        return process.facts()

    def check_history(self) -> None:
        """Do nothing: each answer was checked when it was given."""

    def count(self, marks: Marks) -> None:
        marks.counts["operations"] += len(self.cluster.answers)
