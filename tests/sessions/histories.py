"""Random histories of a state machine: slots with the bundles of several servers and clients, from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

import msgpack
from attrs import frozen
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.instances import Instances
from pfsb.applications.interfaces import (
    PENDING,
    Command,
    CommandDescription,
    Done,
    DoneGrowing,
    IContext,
    IReplicatedApplication,
    Refused,
    Word,
)
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.ordered_settings import Abilities
from pfsb.sessions.state_machine import ANNOUNCE, ASK, CLOSE, EXPIRE, HERE, OPEN, SessionStateMachine
from tests.sessions.support import BareApplication, Observer, encoded

NAMED: Final = ("alice", "bob", "carol", "dave")
ANONYMOUS: Final = ("~0.1", "~1.1", "~2.1", "~1.2")
KEYS: Final = (b"a", b"b", b"c", b"key")
APPS: Final = ("chat", "instances", "kv", "lock", "whole")
HORIZON: Final = 8
"""Number of slots after which ended sessions are forgotten in these histories."""


@implementer(IReplicatedApplication)
class Whole(BareApplication):
    """An application whose snapshot is made in one go, and whose results have values of all kinds."""

    name = "whole"
    commands = (
        CommandDescription("WAIT", "WAIT", "Wait for GO.", waits=True),
        CommandDescription("GO", "GO", "Answer all who wait."),
        CommandDescription("ODD", "ODD n", "Give the nth of some odd results."),
        CommandDescription("DUE", "DUE n", "Have a deadline that nothing ends."),
    )

    def __init__(self) -> None:
        self.tickets: list[tuple[str, int]] = []
        self.count = 0
        self.deadline: int | None = None

    def check(self, command: tuple[str, ...]) -> Command:
        return command

    def execute(self, command: Command, context: IContext) -> Any:
        self.count += 1
        if command[0] == "WAIT":
            self.tickets.append(context.ticket)
            return PENDING
        if command[0] == "GO":
            tickets, self.tickets = self.tickets, []
            for ticket in tickets:
                context.complete(ticket, Done((("revision", context.revision),)))
            return Done((("count", len(tickets)),))
        if command[0] == "DUE":
            self.deadline = context.time_ms + int(command[1])
            return Done()
        return odd_result(int(command[1]), self.count)

    def time_passed(self, context: IContext) -> None:
        self.count += 1

    def next_deadline(self) -> int | None:
        return self.deadline

    def snapshot(self) -> bytes:
        data: bytes = msgpack.packb((self.tickets, self.count, self.deadline))
        return data

    def restore(self, data: bytes) -> None:
        tickets, self.count, self.deadline = msgpack.unpackb(data, use_list=False)
        self.tickets = list(tickets)


def odd_result(kind: int, number: int) -> Any:
    """A result that an application may give, and that no application of this repository gives."""
    row = (("name", "x" * (number % 7)), ("word", Word("yes")))
    return (
        Done((("index", number), ("revision", number))),
        Done((("revision", number),)),
        Done((("revision", True),)),
        Done((("large", 2**70 + number), ("small", -(2**70)), ("word", Word("no")))),
        Done((("text", "\ud800 not in UTF-8"), ("number", -number))),
        Done((("count", 2),), (row, (), row)),
        Done(),
        Refused("CONFLICT", "unknown " * (number % 5), fate="unknown"),
        DoneGrowing((("value", b"y" * number), ("revision", number))),
        Done((("a name", number),)),  # which no client can be told
        "no result",
    )[kind % 11]


@frozen
class Fresh:
    """Installed applications of which each call of `make` makes a new object."""

    makers: Mapping[str, Callable[[], Any]]

    @property
    def versions(self) -> Mapping[str, Sequence[int]]:
        return dict.fromkeys(self.makers, (1,))

    def make(self, name: str, version: int) -> IReplicatedApplication:
        made: IReplicatedApplication = self.makers[name]()
        return made


INSTALLED: Final = Fresh({"chat": Chat, "instances": Instances, "kv": KeyValue, "lock": Lock, "whole": Whole})


class Executor:
    """The state machine of one server, which executes slots of a history."""

    def __init__(self, server_id: int, quotas: Mapping[str, int]) -> None:
        catalogue = Catalogue([INSTALLED.make(name, 1) for name in APPS], INSTALLED)
        apps = tuple((name, 1) for name in APPS)
        values = ClusterSettings(members=(0, 1, 2), apps=apps, horizon=HORIZON, **quotas)
        self.machine = SessionStateMachine(server_id, catalogue, values)
        self.machine.observer = self.observer = Observer()

    def execute(self, slot: Slot) -> tuple[Any, ...]:
        """Execute a slot. Returns all that the execution has told the observer and the digest of the history."""
        self.observer.__init__()  # type: ignore[misc]
        outcomes = self.machine.execute(slot.seq, slot.time_ms, slot.updates)
        told = self.observer
        results = [[_shown(result) for result in results] for results in told.results]
        return outcomes, results, told.completions, told.completed_epochs, told.ends, told.asked, told.grown

    def answers(self) -> list[Any]:
        """The answer of each session to each command number that may be repeated."""
        machine = self.machine
        return [
            (session.client_id, number, _shown(machine.answer_of(session, number)))
            for session in machine.sessions.values()
            for number in range(1, session.last_number + 1)
        ]


def _shown(result: Any) -> Any:
    """A result with the types of its values, since True equals 1, and a `Word` a text."""
    if not isinstance(result, Done):
        return result
    return [(name, type(value), value) for name, value in result.fields], result.rows


@frozen
class Slot:
    seq: int
    time_ms: int
    updates: Sequence[ClientUpdate]


class History:
    """Draws slots. Which sessions are open, and under which epochs, it learns from a state machine that executes
    them."""

    def __init__(self, seed: int, machine: SessionStateMachine) -> None:
        self._dice = random.Random(seed)
        self._machine = machine
        self._last = dict.fromkeys(NAMED + ANONYMOUS, 0)
        self._timestamps = count(1)
        self._seq = 0
        self._time_ms = 1_000
        self._busy = self._dice.random() < 0.3
        """Whether few clients send long bundles of runs."""

    def slot(self) -> Slot:
        dice = self._dice
        self._seq += 1
        self._time_ms += dice.choice((0, 1, 400, 2_000))
        updates = [self._update(dice.randrange(3)) for _ in range(dice.choice((0, 1, 1, 1, 2)))]
        if self._seq <= 3:
            updates.insert(0, self._announcement(self._seq - 1))
        return Slot(self._seq, self._time_ms, updates)

    def _update(self, server_id: int, *bundles: Bundle) -> ClientUpdate:
        made = bundles or [self._bundle() for _ in range(self._dice.choice((1, 1, 2, 3, 4)))]
        return ClientUpdate(f"{server_id}.1.1", server_id, next(self._timestamps), self._seq - 1, encoded(*made))

    def _announcement(self, server_id: int) -> ClientUpdate:
        versions = dict.fromkeys(APPS, (1,))
        return self._update(server_id, _operation(ANNOUNCE, Abilities.of(versions).encode()))

    def _bundle(self) -> Bundle:
        dice = self._dice
        if dice.random() < 0.2:
            return _operation(*self._operation())
        client_id = dice.choice((NAMED + ANONYMOUS)[:: 3 if self._busy else 1])
        epoch = self._epoch(client_id) + (dice.random() < 0.04)
        is_anonymous = client_id[0] == "~"
        commands = self._commands()
        entries = [(self._number(client_id, command), command) for command in commands]
        return Bundle(client_id, 0 if is_anonymous else epoch, is_anonymous, tuple(entries))

    def _epoch(self, client_id: str) -> int:
        session = self._machine.sessions.get(client_id)
        return 0 if session is None else session.epoch

    def _number(self, client_id: str, command: Command) -> int:
        if command[0] in ("GET", "LOG"):
            return 0
        last = self._last[client_id]
        number = max(1, last + self._dice.choice((1,) * 30 + (2, 2, 0, -1, -4)))
        self._last[client_id] = max(last, number)
        return number

    def _operation(self) -> Command:
        dice = self._dice
        client_id, named = dice.choice(NAMED + ANONYMOUS), dice.choice(NAMED)
        epoch = self._epoch(client_id)
        return dice.choice(
            (
                (OPEN, named, dice.choice((10_000, 500))),
                (OPEN, named, 10_000),
                (OPEN, named, 10_000),
                (CLOSE, client_id, epoch),
                (CLOSE, named, self._epoch(named)),
                (EXPIRE, client_id, epoch),
                (EXPIRE, client_id, epoch, dice.randrange(self._seq + 1)),
                (ASK, dice.randrange(3)),
                (HERE,),
            )
        )

    def _commands(self) -> list[Command]:
        dice = self._dice
        if dice.random() < (0.6 if self._busy else 0.3):
            make = dice.choice((self._put, self._put, self._append, self._say))
            return [make() for _ in range(dice.randrange(1, 9))]
        if dice.random() < 0.3:
            return [dice.choice((self._put, self._put, self._put, self._get))() for _ in range(dice.randrange(2, 12))]
        make = dice.choice((self._any, self._any, self._wait))
        return [make() for _ in range(dice.randrange(1, 5))]

    def _put(self) -> Command:
        return "PUT", self._dice.choice(KEYS), b"v" * self._dice.choice((0, 1, 1, 7, 30))

    def _append(self) -> Command:
        return "APPEND", self._dice.choice(KEYS[:3]), b"xyz"

    def _say(self) -> Command:
        return "SAY", self._dice.choice(("hello", "gr\u00fc\u00df", "x" * 15))

    def _get(self) -> Command:
        return "GET", self._dice.choice(KEYS)

    def _wait(self) -> Command:
        name = self._dice.choice(("one", "two"))
        return self._dice.choice(
            (("LOCK", name, -1), ("LOCK", name, -1), ("LOCK", name, 1_500), ("UNLOCK", name, -1), ("WAIT",), ("GO",))
        )

    def _any(self) -> Command:
        dice = self._dice
        key, name = dice.choice(KEYS), dice.choice(("one", "two", "three"))
        return dice.choice(
            (
                self._put(),
                self._append(),
                self._append(),
                self._say(),
                ("INCR", key, 1),
                ("DEL", key, dice.choice(KEYS)),
                ("CAS", key, 0, b"", b"new"),
                ("PUTHASH", key, b"x"),
                ("MPUT", key, b"x", b"b", b"y"),
                ("IF", key, -1, "APPEND", key, b"conditional"),
                ("LOCK", name, -1),
                ("LOCK", name, -1),
                ("LOCK", name, dice.choice((0, 1_500))),
                ("TRYLOCK", name),
                ("UNLOCK", name, -1),
                ("UNLOCK", name, -1),
                ("WAIT",),
                ("WAIT",),
                ("GO",),
                ("ODD", dice.randrange(11)),
                ("ODD", dice.randrange(11)),
                ("DUE", dice.randrange(3_000)),
                ("NONSENSE",),
                ("LOG", 1, 3),
                ("SETTINGS SET", self._setting()),
            )
        )

    def _setting(self) -> str:
        dice = self._dice
        without = dice.choice(APPS)
        return dice.choice(
            (
                f"session_window={dice.randrange(1, 30)}",
                f"replies_bytes={dice.choice((1, 300, 3_000, 100_000))}",
                f"reply_cache_bytes={dice.choice((1, 100, 700, 100_000))}",
                f"kv_bytes={dice.choice((40, 400, 100_000))}",
                f"session_waits={dice.randrange(1, 4)}",
                f"sessions={dice.randrange(2, 9)}",
                "apps=" + ",".join(name for name in APPS if name != without),
                "apps=" + ",".join(APPS),
                "apps=" + ",".join(dice.sample(APPS, len(APPS))),
            )
        )


def _operation(*command: Any) -> Bundle:
    return Bundle("!", 0, False, ((0, command),))
