"""The clusters that schedules run, with their clients, and operations that many schedules use."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import evolve

from pfsb.applications.interfaces import Done, Result
from pfsb.config.config import Limits
from pfsb.paxos.messages import Message, State
from pfsb.paxos.settings import Settings
from pfsb.sessions.cluster_settings import RULES_OF_EPOCHS
from pfsb.simulator.checkers.session_checker import SessionChecker
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.cluster.server_process import SimulatedConfig, builder, configuration
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.workload.connection import SimulatedConnection
from pfsb.simulator.workload.paper_clients import PaperClient
from pfsb.storage.effect import KEPT_SLOTS

FOUNDERS: Final = 3
"""Number of servers with which a cluster of `Servers` begins."""
Schedule = Callable[[int, Plant | None], None]
"""A directed schedule: called once for a run, with the seed of the run and the defect that is planted in every server
(None: no defect). Raises `AssertionError` if a promise is broken."""


class Scenario:
    """A cluster of servers that run the Paxos layer only, without sessions and front ends, and some `PaperClient`s.

    The clients give their updates to the servers.
    """

    def __init__(self, seed: int, patch: Plant | None, servers: int = 3, clients: int = 2, **parameters: Any) -> None:
        self.rng = random.Random(f"{seed}/directed")
        self.cluster = SimulatedCluster(seed, servers, patch=patch, **parameters)
        self.clients = [
            PaperClient(self.cluster, f"client-{i}", random.Random(f"{seed}/client/{i}")) for i in range(clients)
        ]

    def begin(self) -> None:
        """Start the clients, and run until a server leads and more updates than there are clients were answered."""
        for client in self.clients:
            client.start()
        self.cluster.run_until(lambda: self.cluster.has_leader() and len(self.cluster.answers) > len(self.clients))

    def leader(self) -> int:
        leader = self.cluster.leader()
        assert leader is not None, "nobody leads, though all is well"
        return leader

    def follower(self) -> int:
        return self.rng.choice([i for i in self.cluster.running_ids if i != self.leader()])

    def finish_clients(self) -> None:
        """Let clients begin no new updates."""
        for client in self.clients:
            client.finish()

    def everyone_is_served(self, seconds: float) -> None:
        """Let clients begin no new updates, and require that their last updates are answered within `seconds`."""
        self.finish_clients()
        self.cluster.run_until(lambda: all(client.is_satisfied for client in self.clients), seconds)

    def lose(self, kind: type[Message]) -> None:
        """Lose all messages of this class that any server sends from now on."""
        self.cluster.network.drop(lambda passage: isinstance(passage.message, kind))

    def everyone_executes(self, seq: int, seconds: float) -> None:
        """Require that within `seconds` there is a moment when all servers have `seq` as their Local_Aru."""
        self.cluster.run_until(lambda: all(self.cluster.aru(i) == seq for i in self.cluster.ids), seconds)

    def state(self, server_id: int) -> State:
        return self.cluster.replica(server_id).data.server.state

    def late(self, kind: type[Message], seconds: float) -> None:
        """From now on, hold each message of this class back for `seconds` before it is sent."""
        network = self.cluster.network

        def stop(passage: Passage) -> bool:
            if isinstance(passage.message, kind):
                self.cluster.clock.callLater(seconds, network.inject, passage)
                return True
            return False

        network.drop(stop)

    def view(self) -> int:
        """The view of the present leader."""
        return self.cluster.replica(self.leader()).data.views.last_installed

    def require_view(self, view: int) -> None:
        """Raise `Violation` unless `view` is the latest view that any server has led in this run."""
        latest = max(self.cluster.checks.messages.leaders)
        if latest != view:
            raise Violation(f"view {view} worked, and now it is view {latest}")


class Servers:
    """A cluster of whole servers, to which clients connect and open sessions."""

    def __init__(
        self,
        seed: int,
        patch: Plant | None,
        limits: Mapping[int, Limits] | None = None,
        kept_slots: int = KEPT_SLOTS,
        joining: int = 0,
        **parameters: Any,
    ) -> None:
        """`joining` is the number of servers that may be added, and are not started; if there are any, the cluster
        follows the rules that know changes of the membership. `limits`: server -> the limits in its configuration file;
        servers that are left out have the usual ones.
        `kept_slots` is the number of slots, up to that of a snapshot, that disks keep. `parameters` are values for
        fields of the protocol's `Settings`, in place of the usual ones."""
        settings = Settings(**parameters)
        self.rng = random.Random(f"{seed}/directed")
        self.cluster = SimulatedCluster(
            seed,
            FOUNDERS + joining,
            settings=settings,
            patch=patch,
            start=False,
            build=lambda parts: builder(config(parts.server_id), self.checks)(parts),
            kept_slots=kept_slots,
            founders=range(FOUNDERS),
        )
        own_limits, quotas = limits or {}, {"rules": RULES_OF_EPOCHS} if joining else None

        def config(server_id: int) -> SimulatedConfig:
            ids, founders = self.cluster.file_of(server_id), self.cluster.founders
            made = configuration(ids, settings, own_limits.get(server_id, Limits()), quotas)
            return evolve(made, founders=founders) if joining else made

        self.checks = SessionChecker(
            self.cluster.checks.durability.disks,
            settings.horizon_slots,
            Counter(),
            now=self.cluster.clock.seconds,
            electorate=self.cluster.checks.electorate,
        )
        for server_id in self.cluster.ids:
            self.cluster.restart(server_id)
        self.cluster.run_until(self.cluster.has_leader)

    def connect(self, server_id: int) -> SimulatedConnection:
        """Connect a client to this server, without opening a session by HELLO. Returns the connection."""
        line = SimulatedConnection(self.cluster, self.checks, self.rng, server_id, lambda line, code: None)
        line.connect(lambda: None)
        return line

    def hello(self, server_id: int, client_id: str, ttl_seconds: int = 100) -> SimulatedConnection:
        """Connect a client to this server and open its session. Returns the connection."""
        line = self.connect(server_id)
        self.wait_for(lambda told: line.hello(client_id, ttl_seconds, told))
        return line

    def greeting(self, server_id: int, client_id: str) -> Done:
        """Connect a client to this server and open its session. Returns the answer to HELLO."""
        line = self.connect(server_id)
        answer = self.wait_for(lambda told: line.hello(client_id, 100, told))
        assert isinstance(answer, Done), f"HELLO is answered {answer}"
        return answer

    def present_leader(self) -> int:
        leader = self.cluster.leader()
        assert leader is not None, "nobody leads, though all is well"
        return leader

    def sessions(self, server_id: int) -> list[str]:
        """The client ids of the sessions that are open at this server."""
        return list(self.cluster.process(server_id).server.machine.sessions)

    def wait_for(self, ask: Callable[[Callable[[Result], None]], None]) -> Result:
        """Let time pass until a question is answered, and return the answer.

        `ask` is called once with a function, and must arrange that this function is called with the answer.
        """
        answers: list[Result] = []
        ask(answers.append)
        self.cluster.run_until(lambda: bool(answers), 5)
        return answers[0]


def size(seed: int) -> int:
    """The number of servers, drawn from the seed, for a schedule that works with any number of them."""
    return random.Random(f"{seed}/servers").choice((3, 4, 5))
