"""Helpers for tests of sessions: a state machine driven by hand, and a small simulated cluster with clients."""

from __future__ import annotations

import random
from ast import literal_eval
from collections.abc import Sequence
from itertools import count
from typing import Any

from attrs import define, evolve, field
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import (
    PENDING,
    Command,
    CommandDescription,
    Done,
    IContext,
    IEventLog,
    IReplicatedApplication,
    Refused,
    Result,
    Ticket,
)
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.config.config import Config, Limits, ServerConfig
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.settings import Settings
from pfsb.server import Server
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.connection import ClientConnection, Submitted
from pfsb.sessions.observer import ISessionObserver
from pfsb.sessions.state_machine import CLOSE, EXPIRE, OPEN, SessionStateMachine
from pfsb.simulator.checkers.snapshot_checker import Facts, Models
from pfsb.simulator.cluster.cluster import ServerParts, SimulatedCluster
from pfsb.simulator.cluster.process import facts_of_history
from pfsb.simulator.linearizability.texts import ordered_form, result_in_text
from pfsb.transports.faults import LinkFaults

HORIZON_SLOTS = 30
DIGESTS_KEPT = 20


class BareApplication:
    """An application without questions, sessions and time limits, as a base of others."""

    def query(self, command: Command) -> Result:
        raise AssertionError("there are no questions")

    def session_ended(self, client_id: str, context: IContext) -> None:
        """Do nothing: all that the application keeps stays when a session ends."""

    def time_passed(self, context: IContext) -> None:
        raise AssertionError("nothing falls due")

    def next_deadline(self) -> int | None:
        return None

    def restore(self, data: bytes) -> None:
        raise AssertionError("no test restores a snapshot")


@implementer(IReplicatedApplication)
class Later(BareApplication):
    """An application in which WAIT is PENDING until the next GO of any session, even one in the bundle of the WAIT."""

    name = "later"
    commands = (
        CommandDescription("WAIT", "WAIT", "Wait for GO.", waits=True),
        CommandDescription("GO", "GO", "Answer all who wait."),
    )

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []

    def check(self, command: tuple[str, ...]) -> Command:
        return command

    def execute(self, command: Command, context: IContext) -> Any:
        if command == ("WAIT",):
            self._tickets.append(context.ticket)
            return PENDING
        tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            context.complete(ticket, Done((("revision", context.revision),)))
        return Done((("count", len(tickets)),))

    def snapshot(self) -> bytes:
        return repr(self._tickets).encode()

    def restore(self, data: bytes) -> None:
        self._tickets = literal_eval(data.decode())


def applications() -> Catalogue:
    return Catalogue([Chat(), KeyValue(), Lock(), Later()])


def code(result: Any) -> tuple[str, str]:
    """(code, fate) of a refusal."""
    assert isinstance(result, Refused), result
    return result.code, result.fate


def value(result: Any, name: str = "value") -> Any:
    """One field of a successful result; a value of the key-value store in text."""
    assert isinstance(result, Done), result
    return dict(result_in_text(result).fields)[name]  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------
# A state machine, driven by hand
# ---------------------------------------------------------------------------------------------


@implementer(ISessionObserver)
@define
class Observer:
    """An observer that records its calls."""

    results: list[Sequence[Any]] = field(factory=list)
    """The results of each bundle, in the order of execution."""
    expired_updates: list[ClientUpdate] = field(factory=list)
    completions: list[tuple[str, int, Result]] = field(factory=list)
    completed_epochs: list[int] = field(factory=list)
    """The epoch of each of the `completions`."""
    ends: list[tuple[str, int, str]] = field(factory=list)
    asked: int = 0
    grown: list[str] = field(factory=list)
    restored_states: int = 0

    def executed(self, update: ClientUpdate, position: int, results: Sequence[Any]) -> None:
        self.results.append(results)

    def too_old(self, update: ClientUpdate) -> None:
        self.expired_updates.append(update)

    def completed(self, client_id: str, epoch: int, number: int, result: Result) -> None:
        self.completions.append((client_id, number, result))
        self.completed_epochs.append(epoch)

    def asked_for(self) -> None:
        self.asked += 1

    def session_ended(self, client_id: str, epoch: int, refusal: Refused) -> None:
        self.ends.append((client_id, epoch, refusal.code))

    def log_grew(self, application: IEventLog, length: int) -> None:
        self.grown.append(application.listen_verb)

    def restored(self) -> None:
        self.restored_states += 1


class Driver:
    """The state machine of server 0, and the updates that it executes: one slot for each call of `execute`."""

    def __init__(
        self,
        server_id: int = 0,
        catalogue: Catalogue | None = None,
        window: int = 4,
        horizon_slots: int = 10,
        apps: tuple[tuple[str, int], ...] = (),
        **quotas: int,
    ) -> None:
        self.machine = SessionStateMachine(
            server_id,
            catalogue or applications(),
            ClusterSettings(members=(0, 1, 2), apps=apps, session_window=window, horizon=horizon_slots, **quotas),
        )
        self.machine.observer = self.observer = Observer()
        self.seq = 0
        self.time_ms = 1_000
        self._updates = count(1)
        self.outcomes = b""
        """The outcomes of the last slot, as they go into the digest of the history."""

    def execute(self, *updates: ClientUpdate) -> list[Sequence[Any]]:
        """Executes one slot. Returns the results that the observer was told, a list for each bundle of this server."""
        self.observer.results.clear()
        self.seq += 1
        self.outcomes = self.machine.execute(self.seq, self.time_ms, updates)
        return list(self.observer.results)

    def update(self, *bundles: Bundle, server_id: int = 0) -> ClientUpdate:
        """An update that brings these bundles, in which keys and values are written as text."""
        ordered = [
            each._replace(entries=[(number, ordered_form(command)) for number, command in each.entries])
            for each in bundles
        ]
        return ClientUpdate(f"{server_id}.1.1", server_id, next(self._updates), self.seq, encoded(*ordered))

    def operation(self, *command: Any, server_id: int = 0) -> ClientUpdate:
        return self.update(Bundle(bundle.SERVER, 0, False, ((0, command),)), server_id=server_id)

    def open(self, client_id: str, server_id: int = 0, ttl_ms: int = 10_000) -> dict[str, Any]:
        """Opens a session. Returns the fields of the answer."""
        results = self.execute(self.operation(OPEN, client_id, ttl_ms, server_id=server_id))
        if server_id:
            return {"epoch": self.machine.sessions[client_id].epoch}
        return dict(results[0][0].fields)

    def close(self, client_id: str, epoch: int) -> None:
        self.execute(self.operation(CLOSE, client_id, epoch))

    def expire(self, client_id: str, epoch: int) -> None:
        self.execute(self.operation(EXPIRE, client_id, epoch))

    def bundle(self, client_id: str, epoch: int, *entries: tuple[int, Command]) -> ClientUpdate:
        return self.update(Bundle(client_id, epoch, False, entries))

    def run(self, client_id: str, epoch: int, *entries: tuple[int, Command]) -> Sequence[Any]:
        """Runs a bundle of a session with a name. Returns its results."""
        return self.execute(self.bundle(client_id, epoch, *entries))[0]

    def run_anonymous(self, client_id: str, *entries: tuple[int, Command], opens: bool = False) -> Sequence[Any]:
        return self.execute(self.update(Bundle(client_id, 0, opens, entries)))[0]


def encoded(*bundles: Bundle) -> bytes:
    """The payload of an update that brings these bundles."""
    return bundle.encode([_encoded(each) for each in bundles])


def _encoded(each: Bundle) -> bytes:
    head = bundle.encode_head(each.client_id, each.epoch, each.opens)
    return bundle.encode_bundle(head, len(each.entries), [bundle.encode_entries([entry]) for entry in each.entries])


def dump(machine: SessionStateMachine) -> Any:
    """All of the replicated state, in its order."""
    return (
        machine.revision,
        machine.time_ms,
        [(*_fields(session),) for session in machine.sessions.values()],
        list(machine.closed_sessions.items()),
        [application.snapshot() for application in machine.applications],
    )


def _fields(session: Any) -> Sequence[Any]:
    return (
        session.client_id,
        session.epoch,
        session.server_id,
        session.ttl_ms,
        session.last_number,
        [(number, session.answers.get(number)) for number in session.answers.numbers],
        session.answers.forgotten,
        sorted(session.waiting),
    )


# ---------------------------------------------------------------------------------------------
# A cluster, with clients
# ---------------------------------------------------------------------------------------------


class SmallConfig(Config):
    """A configuration with limits that a test can reach."""

    def settings(self) -> Settings:
        return evolve(super().settings(), horizon_slots=HORIZON_SLOTS, digests_kept=DIGESTS_KEPT)


def config(servers: int, limits: Limits | None = None) -> Config:
    return SmallConfig(
        "test.yaml",
        "simulated",
        {i: ServerConfig(i, ("127.0.0.1", 7400 + i), f"tcp:{9400 + i}") for i in range(servers)},
        f=(servers - 1) // 2,
        limits=limits or small_limits(),
    )


def small_limits(**limits: Any) -> Limits:
    return evolve(Limits(request_seconds=2.0, session_window=8), **limits)


class ServerProcess:
    """A whole server without sockets, as a simulated cluster runs it."""

    def __init__(self, parts: ServerParts, limits: Limits | None = None) -> None:
        self.server = Server(
            config=config(len(parts.servers), limits),
            server_id=parts.server_id,
            catalogue=applications(),
            clock=parts.clock,
            rng=parts.rng,
            storage=parts.storage,
            transport=parts.transport,
            faults=LinkFaults(parts.clock, random.Random(0)),
            on_failure=parts.on_failure,
            tracer=parts.tracer,
        )
        self.replica = self.server.replica

    def start(self) -> None:
        self.server.start()

    def facts(self) -> Facts:
        return facts_of_history(self.replica)

    def models(self) -> Models:
        return {}

    def follow(self, models: Models) -> None: ...

    def submit(self, update: ClientUpdate) -> None:
        raise AssertionError("clients connect to LocalClients")


@define(eq=False)
class Told:
    """One request of a test, and the result that it got."""

    client: Client
    number: int | None
    results: list[Result] = field(factory=list)

    def __call__(self, result: Result) -> None:
        self.results.append(result)
        self.client.told.append(self)

    @property
    def answered(self) -> bool:
        return bool(self.results)

    @property
    def result(self) -> Result:
        (result,) = self.results
        return result


class Client:
    """One connection of a client, and all answers that came to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.told: list[Told] = []
        """All requests that were answered, in the order of their answers."""
        self.ends: list[str] = []
        self.connection: ClientConnection = server.local_clients.connect(lambda code, text: self.ends.append(code))

    def ask(self, *words: str, number: int | None = None) -> Told:
        told = Told(self, number)
        self.connection.submit(number, self.server.catalogue.check(words), told)
        return told

    def ask_all(self, *commands: tuple[int | None, Command]) -> list[Told] | None:
        """Submits commands together. Returns what was told of each; None if the connection wants each to be submitted
        by itself."""
        told = [Told(self, number) for number, _ in commands]

        def answer_all(results: Sequence[Result]) -> None:
            for each, result in zip(told, results, strict=True):
                each(result)

        numbers, checked = zip(*((n, self.server.catalogue.check(words)) for n, words in commands), strict=True)
        return told if self.connection.submit_all(numbers, checked, lambda: answer_all) else None

    def look(self, *words: str) -> Told:
        """Asks a question of this server's own state."""
        told = Told(self, None)
        self.connection.query_local(self.server.catalogue.check(words), told)
        return told

    def hello(self, client_id: str, ttl_seconds: int = 10) -> Told:
        told = Told(self, None)
        self.connection.hello(client_id, ttl_seconds, told)
        return told

    def bye(self) -> Told:
        told = Told(self, None)
        self.connection.bye(told)
        return told

    def disconnect(self) -> None:
        self.connection.disconnected()


class ClusterTestCase(SynchronousTestCase):
    """A test with a simulated cluster of its own, whose seed is the test's name."""

    cluster: SimulatedCluster
    client: Client
    base: int
    """Local_Aru when the test begins: the slots below hold the settings, and what each server can run."""

    def begin(self, servers: int = 1, limits: Limits | None = None) -> None:
        self.cluster = SimulatedCluster(self.id(), servers, build=lambda parts: ServerProcess(parts, limits))
        self.cluster.run_until(self.cluster.has_leader)
        self.cluster.run_until(self.all_are_announced)
        self.cluster.run(0.5)
        self.base = self.server().replica.data.ordering.local_aru

    def all_are_announced(self) -> bool:
        """Whether every running server has executed the birth of the settings, and what each member can run."""
        running = [self.server(i).machine.settings for i in self.cluster.running_ids]
        return all(len(settings.announced) == len(self.cluster.ids) for settings in running)

    def server(self, server_id: int = 0) -> Server:
        server: Server = self.cluster.process(server_id).server
        return server

    def connect(self, server_id: int = 0) -> Client:
        return Client(self.server(server_id))

    def open(self, client_id: str, server_id: int = 0, ttl_seconds: int = 10) -> Client:
        """Connects a client, and says HELLO."""
        client = self.connect(server_id)
        self.answer(client.hello(client_id, ttl_seconds))
        return client

    def answer(self, told: Told, seconds: float = 10.0) -> Result:
        """Lets time pass until the answer of this request has come. Returns the answer."""
        self.cluster.run_until(lambda: told.answered, seconds)
        return told.result

    def do(self, client: Client, *words: str, number: int | None = None) -> Result:
        return self.answer(client.ask(*words, number=number))

    def sessions(self, server_id: int = 0) -> list[str]:
        return list(self.server(server_id).machine.sessions)

    def bundles(self, prefix: str, server_id: int | None = None) -> list[list[int]]:
        """The numbers in each ordered bundle of the client ids with this prefix, in order, from the disk of server 0.

        `server_id` restricts them to the bundles that this server has introduced.
        """
        return [
            [number for number, _ in each.entries]
            for update in self.updates()
            for each in bundle.decode(update.payload)
            if each.client_id.startswith(prefix) and server_id in (None, update.server_id)
        ]

    def updates(self) -> list[ClientUpdate]:
        """The updates ordered since the test began, on the disk of server 0, in order."""
        ordered = self.cluster.disk(0).ordered(self.base + 1, self.cluster.disk(0).local_aru)
        return [update for _, batch in ordered for update in batch.open()[1]]

    def in_use(self) -> dict[int, Submitted]:
        """The commands of `self.client` that are under way, or PENDING, by number."""
        return {**self.client.connection.submitted, **self.client.connection.pending}

    def assertNothingLeft(self, server_id: int = 0) -> None:
        """Asserts that all tables of the server's clients are as they were before the first client connected."""
        local_clients = self.server(server_id).local_clients
        submission = local_clients.submission
        self.assertEqual(local_clients.connections, 0)
        self.assertEqual(list(submission.submitters), [])
        self.assertEqual(list(submission.bundlers), [submission.own_bundler])
        self.assertEqual(list(submission.abandoned), [])
        self.assertEqual(list(submission.ready), [])
        self.assertTrue(local_clients.idle)

    def assertEqualServers(self) -> None:
        """Asserts that all servers have the same state, after some time without clients."""
        self.cluster.run_until(lambda: len({self.cluster.aru(i) for i in self.cluster.running_ids}) == 1)
        dumps = [dump(self.server(i).machine) for i in self.cluster.running_ids]
        for other in dumps[1:]:
            self.assertEqual(other, dumps[0])
