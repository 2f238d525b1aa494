"""FakeServer: answers the calls of a front end from memory, without Paxos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.task import Clock
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import (
    PENDING,
    Answer,
    Command,
    Done,
    Event,
    Fields,
    IContext,
    Refused,
    Result,
    Ticket,
    Word,
)
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.config.config import Config, Limits, ServerConfig
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.ordered_settings import Abilities, OrderedSettings
from pfsb.transports.faults import LinkFaults


def fake_config(limits: Limits | None = None, faults: bool = True) -> Config:
    servers = {i: ServerConfig(i, ("127.0.0.1", 7400 + i), f"tcp:{9400 + i}:interface=127.0.0.1") for i in range(4)}
    return Config("four.yaml", "four", servers, f=1, limits=limits or Limits(), faults=faults)


VALUES = ClusterSettings((0, 1, 2, 3), (("chat", 1), ("kv", 1), ("lock", 1)), bytes(range(8)))


def fake_catalogue() -> Catalogue:
    """A catalogue of chat, kv, lock and the settings; a change of the settings switches the applications, as in the
    state machine."""
    catalogue = Catalogue([Chat(), KeyValue(), Lock()])
    settings = OrderedSettings(VALUES)
    for server_id in VALUES.members:
        settings.announce(server_id, Abilities.of(catalogue.installed.versions).encode())
    catalogue.include(settings)
    settings.on_change = lambda values: catalogue.switch(catalogue.installed.make(*app) for app in values.apps)
    return catalogue


@implementer(IContext)
@define
class FakeContext:
    cluster: FakeCluster
    revision: int
    session: str
    ticket: Ticket
    time_ms: int = 0
    quotas: ClusterSettings = field(factory=lambda: ClusterSettings(members=(0,), apps=(("kv", 1),)))

    def complete(self, ticket: Ticket, result: Result) -> None:
        self.cluster.complete(ticket, result)


@define
class FakeSession:
    epoch: int
    last: int = 0
    replies: dict[int, Result] = field(factory=dict)
    owner: FakeClientConnection | None = None
    opened: int = 0


@define(eq=False)
class FakeCluster:
    """The state that all servers of a fake cluster share: applications, sessions, and the revision."""

    catalogue: Catalogue = field(factory=fake_catalogue)
    revision: int = 0
    sessions: dict[str, FakeSession] = field(factory=dict)
    waiting: dict[Ticket, Answer] = field(factory=dict)
    executed: list[tuple[str, int, Command]] = field(factory=list)
    subscriptions: list[FakeSubscription] = field(factory=list)
    anonymous: int = 0

    def complete(self, ticket: Ticket, result: Result) -> None:
        self.sessions[ticket[0]].replies[ticket[1]] = result
        answer = self.waiting.pop(ticket, None)
        if answer is not None:
            answer(result)

    def run(self, client_id: str, number: int, command: Command, answer: Answer) -> None:
        session = self.sessions[client_id]
        if number <= session.last:
            ticket = (client_id, number)
            if number in session.replies:
                answer(session.replies[number])
            else:
                self.waiting[ticket] = answer
            return
        session.last = number
        self.revision += 1
        entry = self.catalogue.entry(command[0])
        context = FakeContext(self, self.revision, client_id, (client_id, number))
        self.executed.append((client_id, number, command))
        if entry.description.changes:
            result = entry.application.execute(command, context)
        else:
            result = entry.application.query(command)
        if result is PENDING:
            self.waiting[(client_id, number)] = answer
        else:
            session.replies[number] = result
            answer(result)
        for subscription in self.subscriptions:
            subscription.go_on()


@define(eq=False)
class FakeSubscription:
    log: Any
    next: int
    deliver: Callable[[Event], None]
    failed: Callable[[Exception], None]
    ended: Callable[[str], None]
    paused: bool = False
    stopped: bool = False
    _going: bool = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.go_on()

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        if self._going:
            return
        self._going = True
        while not self.paused and not self.stopped and self.next <= self.log.length():
            self.next += 1
            self.deliver(self.log.events(self.next - 1, 1)[0])
        self._going = False


@define(eq=False, slots=False)
class FakeClientConnection:
    local_clients: FakeLocalClients
    ended: Callable[[str, str], None]
    failed: Callable[[Exception], None] | None = None
    client_id: str = ""
    number: int = 0
    over: Refused | None = None
    calls: list[str] = field(factory=list)
    submitted: int = 0
    epoch: int = 0

    def _open(self, client_id: str) -> FakeSession:
        cluster = self.local_clients.cluster
        session = cluster.sessions.setdefault(client_id, FakeSession(0))
        if session.owner is not None:
            session.owner.end("REPLACED", "this session was opened anew from another connection")
        if not client_id.startswith("!"):
            cluster.revision += 1
        session.epoch = cluster.revision
        session.opened = session.opened or cluster.revision
        session.owner = self
        self.client_id = client_id
        return session

    def end(self, code: str, text: str) -> None:
        """Ends the session, as a takeover or an expiry does."""
        self.over = Refused(code, text)
        self.ended(code, text)

    def submit(self, number: int | None, command: Command, answer: Answer) -> None:
        self.calls.append("submit")
        self.submitted += 1
        refused = Refused("SHUTDOWN", "this server is stopping") if self.local_clients.draining else self.over
        if refused is not None:
            answer(refused)
            return
        if not self.client_id:
            self.local_clients.cluster.anonymous += 1
            self._open(f"!{self.local_clients.cluster.anonymous}")
        self.number = given = self.number + 1 if number is None else number
        self.local_clients.later(lambda: self.local_clients.cluster.run(self.client_id, given, command, answer), answer)

    def submit_all(
        self,
        numbers: Sequence[int | None],
        commands: Sequence[Command],
        place: Callable[[], Callable[[Sequence[Result]], None]],
    ) -> bool:
        is_refused = self.local_clients.draining or self.over is not None or self.local_clients.refuse is not None
        given = [number for number in numbers if number is not None]
        if is_refused or any(b <= a for a, b in pairwise([self.number, *given])):
            return False
        results: list[Result] = []
        answer_all = place()

        def answer(result: Result) -> None:
            results.append(result)
            if len(results) == len(commands):
                answer_all(results)

        for number, command in zip(numbers, commands, strict=True):
            self.submit(number, command, answer)
        self.calls[-len(commands) :] = [f"submit {len(commands)}" if len(commands) > 1 else "submit"]
        return True

    def query_local(self, question: Command, answer: Answer) -> None:
        self.query_local_all([question], lambda results: answer(results[0]))

    def query_local_all(self, questions: Sequence[Command], answer: Callable[[Sequence[Result]], None]) -> None:
        self.calls.append(f"ask {len(questions)}" if len(questions) > 1 else "ask")
        query = {verb: entry.application.query for verb, entry in self.local_clients.cluster.catalogue.verbs.items()}
        self.local_clients.later(
            lambda: answer([query[question[0]](question) for question in questions]),
            lambda refused: answer([refused] * len(questions)),
        )

    def hello(self, client_id: str, ttl_seconds: int, answer: Answer) -> None:
        self.calls.append(f"hello {client_id} {ttl_seconds}")

        def opened() -> None:
            resumed = client_id in self.local_clients.cluster.sessions
            session = self._open(client_id)
            answer(
                Done(
                    (
                        ("client", client_id),
                        ("epoch", session.epoch),
                        ("last", session.last),
                        ("resumed", Word("yes" if resumed else "no")),
                        ("opened", session.opened),
                    )
                )
            )

        self.local_clients.later(opened, answer)

    def bye(self, answer: Answer) -> None:
        self.calls.append("bye")
        self.local_clients.later(lambda: answer(Done()), answer)

    def disconnected(self) -> None:
        self.calls.append("disconnected")
        session = self.local_clients.cluster.sessions.get(self.client_id)
        if session is not None and session.owner is self:
            session.owner = None


@define(eq=False, slots=False)
class FakeLocalClients:
    """A stand-in for LocalClients.

    If `hold` is true, answers wait in `held` until `release`; if `silent` is true, no answer comes; `refuse`, if set,
    is the answer to every command.
    """

    cluster: FakeCluster
    draining: bool = False
    hold: bool = False
    silent: bool = False
    unanswered: int = 0
    """Number of commands that got no answer, since `silent` was set."""
    refuse: Refused | None = None
    held: list[Callable[[], None]] = field(factory=list)
    connections: list[FakeClientConnection] = field(factory=list)

    def connect(
        self, ended: Callable[[str, str], None], failed: Callable[[Exception], None] | None = None
    ) -> FakeClientConnection:
        connection = FakeClientConnection(self, ended, failed)
        self.connections.append(connection)
        return connection

    def later(self, what: Callable[[], None], answer: Answer) -> None:
        refused = self.refuse
        if self.silent:
            self.unanswered += 1
            return
        if refused is not None:
            answer(refused)
        elif self.hold:
            self.held.append(what)
        else:
            what()

    def release(self, count: int | None = None) -> None:
        held, self.held = self.held[:count], self.held[len(self.held) if count is None else count :]
        for what in held:
            what()


@define(eq=False, slots=False)
class FakeRevisions:
    """A stand-in for RevisionWaiters. `behind` is the number of revisions that this server lacks."""

    cluster: FakeCluster
    behind: int = 0
    waits: list[tuple[int, float, Callable[[bool], None]]] = field(factory=list)

    @property
    def told(self) -> int:
        return self.cluster.revision - self.behind

    def wait(self, revision: int, seconds: float, reached: Callable[[bool], None]) -> None:
        if revision <= self.told:
            reached(True)
        else:
            self.waits.append((revision, seconds, reached))


@define(eq=False, slots=False)
class FakeEventFeed:
    """A stand-in for EventFeed: its subscriptions deliver an event as soon as it is there, and end with their
    application."""

    cluster: FakeCluster

    def __attrs_post_init__(self) -> None:
        self.cluster.catalogue.watch(self._end_those_without_application)

    def _end_those_without_application(self) -> None:
        names = {each.name for each in self.cluster.catalogue.applications}
        for subscription in self.cluster.subscriptions:
            if not subscription.stopped and subscription.log.name not in names:
                subscription.stop()
                subscription.ended(f"no {subscription.log.name} any more")

    def subscribe(
        self,
        verb: str,
        first: int,
        deliver: Callable[[Event], None],
        failed: Callable[[Exception], None],
        ended: Callable[[str], None],
        *,
        is_paused: bool = False,
    ) -> FakeSubscription:
        log = self.cluster.catalogue.entry(verb).application
        subscription = FakeSubscription(log, first or log.length() + 1, deliver, failed, ended, paused=is_paused)
        self.cluster.subscriptions.append(subscription)
        subscription.go_on()
        return subscription


class FakePastReads:
    """Answers questions about the past from a table."""

    def __init__(self) -> None:
        self.values: dict[tuple[bytes, int], Result] = {}
        """(key, revision) -> the answer to a question about that key at that revision."""
        self.asked: list[tuple[bytes, int, float]] = []
        self.addresses: list[str] = []

    def get(self, address: str, key: bytes, revision: int, until: float, answer: Answer) -> None:
        self.addresses.append(address)
        self.asked.append((key, revision, until))
        answer(self.values.get((key, revision), Refused("COMPACTED", "what is kept goes back to revision 7")))


class FakeChanges:
    """Notes the changes of the membership that are asked for, and answers them: with the next epoch, or as told."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refusal: Refused | None = None

    def add(self, server_id: int, address: str, answer: Answer, *, permanent: bool = False) -> None:
        self._note(answer, "add", server_id, address, *["permanent"] * permanent)

    def move(self, server_id: int, address: str, answer: Answer) -> None:
        self._note(answer, "move", server_id, address)

    def replace(self, former: int, server_id: int, address: str, answer: Answer) -> None:
        self._note(answer, "replace", former, server_id, address)

    def remove(self, server_id: int, answer: Answer) -> None:
        self._note(answer, "remove", server_id)

    def _note(self, answer: Answer, *asked: object) -> None:
        self.asked.append(asked)
        answer(self.refusal or Done((("epoch", len(self.asked)),)))


class FakeSnapshots:
    """Takes no snapshots, and says so."""

    def answer(self, seconds: float, answer: Answer) -> None:
        self.take(seconds, answer)

    def take(self, seconds: float, taken: Callable[[Any], None]) -> None:
        taken(Refused("UNAVAILABLE", "a fake server takes no snapshots"))


class FakeHandOvers:
    """Lets any server lead but server 9, which there is not."""

    def answer(self, target: int, answer: Answer) -> None:
        if target == 9:
            answer(Refused("NOTFOUND", "there is no server 9"))
        else:
            answer(Done((("leader", target), ("view", 8), ("changed", Word("yes")))))


class FakeServer:
    view = 7
    epoch = 0
    no_member: Refused | None = None

    def __init__(
        self,
        config: Config | None = None,
        cluster: FakeCluster | None = None,
        server_id: int = 2,
        leader: int | None = 0,
    ) -> None:
        self.config = config or fake_config()
        self.server_id = server_id
        self.cluster = cluster or FakeCluster()
        self.catalogue = self.cluster.catalogue
        self.past_reads = FakePastReads()
        self.changes = FakeChanges()
        self.snapshots = FakeSnapshots()
        self.hand_overs = FakeHandOvers()
        self.local_clients = FakeLocalClients(self.cluster)
        self.revisions = FakeRevisions(self.cluster)
        self.event_feed = FakeEventFeed(self.cluster)
        self.dead: set[int] = set()
        self.faults = LinkFaults(Clock(), Random(1))
        self.skip: set[int] = set()
        self.leader_id = leader
        self.differs_from: list[int] = []
        self.disk_trouble: DiskTrouble | None = None
        self.clients: dict[int, str] = {}
        self.watchers: list[Callable[[], None]] = []

    def replacing(self) -> Fields:
        return ()

    def places(self) -> dict[int, str]:
        return self.clients

    def watch_places(self, changed: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(changed)
        return lambda: self.watchers.remove(changed)

    @property
    def session_window(self) -> int:
        return self.config.limits.session_window

    def leader(self) -> int | None:
        return self.leader_id

    def status(self) -> dict[str, object]:
        return {
            "cluster": "four",
            "server": self.server_id,
            "version": "0",
            "state": "REG_NONLEADER",
            "view": self.view,
            "leader": self.leader_id,
            "aru": len(self.cluster.executed),
            "revision": self.cluster.revision,
            "uptime": 1.5,
        }

    def servers(self) -> list[Fields]:
        return [
            (
                ("id", each),
                ("state", Word("REG_LEADER")),
                ("aru", 1),
                ("alive", Word("no" if each in self.dead else "yes")),
                ("address", "127.0.0.1"),
                ("role", Word("voter")),
                ("client", f"127.0.0.1:{9400 + each}"),
            )
            for each in self.config.ids
        ]

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(i for i in self.config.ids if i != self.server_id)

    @property
    def why_outside(self) -> str | None:
        return None

    @property
    def too_few_heard(self) -> str | None:
        alive, n, quorum = self.config.n - len(self.dead), self.config.n, self.config.quorum
        if alive >= quorum:
            return None
        return f"this server hears {alive} of {n} servers, itself included; {quorum} are needed"

    def waiting(self, client_id: str) -> list[int]:
        return sorted(number for who, number in self.cluster.waiting if who == client_id)

    def deadline(self) -> float:
        return self.config.limits.request_seconds

    def digest(self, seq: int | None, answer: Answer, until: float | None = None) -> None:
        number = len(self.cluster.executed) if seq is None else seq
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        self.local_clients.later(lambda: answer(Done((("seq", number), ("digest", Word(digest))))), answer)

    def has_session(self, client_id: str) -> bool:
        return client_id in self.cluster.sessions
