"""The promises of locks, checked command by command: one holder, growing tokens, first come first served.

The checker is written after docs/protocol.rst and not after the code of the lock application, so that it does not
repeat a mistake of that code. It sees the commands and the results of one lock application, which belongs to one
incarnation of one server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, evolve, field
from zope.interface import alsoProvides, implementer

from pfsb.applications.interfaces import (
    PENDING,
    Command,
    CommandDescription,
    Done,
    IContext,
    IFrozenState,
    IReplicatedApplication,
    Quotas,
    Refused,
    Result,
    Ticket,
)
from pfsb.simulator.checkers.violation import Violation


@define
class _CheckedLock:
    """One lock, as the `LockChecker` expects it to be: its holder, its token and its queue."""

    holder: str | None = None
    token: int = 0
    """The token of the latest grant; 0 if the lock was never granted."""
    queue: list[Ticket] = field(factory=list)
    """Tickets of the LOCK commands that wait, in the order of their execution."""
    deadlines: dict[Ticket, int] = field(factory=dict)
    """Ticket of a LOCK with a time limit -> the state machine's time, in milliseconds, at which its wait ends."""

    def first_in_queue(self) -> str | None:
        return self.queue[0][0] if self.queue else None


@define
class LockChecker:
    """Checks the lock application of one server in one incarnation: each command with its result, for every lock."""

    locks: dict[str, _CheckedLock] = field(factory=dict)
    grants_after_a_wait: int = 0
    timeouts: int = 0
    locks_max: int = 10_000
    """The quota `session_locks` in force: how many locks a session may hold or wait for."""

    def copy(self) -> LockChecker:
        """Another checker that knows the same locks. Checks by either of them do not change the other."""
        locks = {
            name: evolve(lock, queue=list(lock.queue), deadlines=dict(lock.deadlines))
            for name, lock in self.locks.items()
        }
        return evolve(self, locks=locks)

    def begins(self, time_ms: int) -> None:
        """Check, before a command runs at the state machine's time `time_ms`, that no LOCK waits beyond its time
        limit."""
        for name, lock in self.locks.items():
            late = [ticket for ticket in lock.queue if lock.deadlines.get(ticket, time_ms + 1) <= time_ms]
            _require(not late, f"their time has come, and they wait for lock {name} still: {late}")

    def executed(
        self,
        command: Command,
        ticket: Ticket,
        result: Any,
        completed: Sequence[tuple[Ticket, Result]],
        time_ms: int = 0,
    ) -> None:
        """Check a command that ran, and `completed`: the LOCKs that had waited until it ran, with their results."""
        lock = self.locks.setdefault(command[1], _CheckedLock())
        match command[0], result:
            case "UNLOCK", Done():
                _require(lock.holder == ticket[0], f"{ticket} unlocks {command[1]}, which {lock.holder} holds")
                lock.holder = None
        self._complete(completed)
        match command[0], result:
            case (("LOCK" | "TRYLOCK"), Done(fields=fields)):
                self._granted(command[1], lock, ticket[0], dict(fields)["token"])
            case (("LOCK" | "TRYLOCK"), Refused(code="TOOLARGE")):
                count = self._locks_of(ticket[0])
                _require(count >= self.locks_max, f"{ticket} is refused a lock, with {count} of {self.locks_max}")
            case (("LOCK" | "TRYLOCK"), Refused()):
                _require(lock.holder not in (None, ticket[0]), f"{ticket} is refused the free lock {command[1]}")
            case "LOCK", _ if result is PENDING:
                lock.queue.append(ticket)
                if command[2] >= 0:
                    lock.deadlines[ticket] = time_ms + command[2]
        count = self._locks_of(ticket[0])
        _require(count <= self.locks_max, f"{ticket[0]} holds or waits for {count} locks, of {self.locks_max}")
        self._require_no_vain_wait()

    def session_ended(self, client_id: str, completed: Sequence[tuple[Ticket, Result]]) -> None:
        for lock in self.locks.values():
            if lock.holder == client_id:
                lock.holder = None
        self._complete(completed)
        for name, lock in self.locks.items():
            left = [ticket for ticket in lock.queue if ticket[0] == client_id]
            _require(not left, f"the session {client_id} is over, and waits for lock {name}")
        self._require_no_vain_wait()

    def time_passed(self, completed: Sequence[tuple[Ticket, Result]]) -> None:
        self._complete(completed)

    def _complete(self, completed: Sequence[tuple[Ticket, Result]]) -> None:
        for ticket, result in completed:
            name, lock = self._waited_for_by(ticket)
            first = lock.first_in_queue()
            lock.queue.remove(ticket)
            lock.deadlines.pop(ticket, None)
            if isinstance(result, Done):
                token = dict(result.fields)["token"]
                # A session has one place in the queue, however many LOCKs it has sent, and all of them are granted at
                # once with one token. So only the first of these grants must go to the head of the queue.
                if (lock.holder, lock.token) != (ticket[0], token):
                    _require(first == ticket[0], f"lock {name} goes to {ticket}, but {first} has waited longer")
                self._granted(name, lock, ticket[0], token)
                self.grants_after_a_wait += 1
            else:
                self.timeouts += result.code == "TIMEOUT"

    def _waited_for_by(self, ticket: Ticket) -> tuple[str, _CheckedLock]:
        found = [(name, lock) for name, lock in self.locks.items() if ticket in lock.queue]
        _require(len(found) == 1, f"{ticket} is answered, and waits for {[name for name, _ in found]}")
        return found[0]

    def _granted(self, name: str, lock: _CheckedLock, client_id: str, token: Any) -> None:
        if lock.holder == client_id:
            _require(token == lock.token, f"{client_id} holds lock {name} with {lock.token}, and is told {token}")
            return
        _require(lock.holder is None, f"lock {name} is granted to {client_id}, but {lock.holder} holds it")
        _require(token > lock.token, f"lock {name} had the token {lock.token}, and now {token}")
        lock.holder, lock.token = client_id, token

    def _locks_of(self, client_id: str) -> int:
        """Number of locks that a session holds or waits for."""
        return sum(
            lock.holder == client_id or any(ticket[0] == client_id for ticket in lock.queue)
            for lock in self.locks.values()
        )

    def _require_no_vain_wait(self) -> None:
        for name, lock in self.locks.items():
            _require(lock.holder is not None or not lock.queue, f"lock {name} is free, and {lock.queue} wait for it")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise Violation(text)


@implementer(IContext)
@define
class _WatchedContext:
    """Stands between the lock application and the `IContext` through which the sessions serve it.

    It records the waiting commands that the application completes, and passes all calls on to that context.
    """

    _inner: IContext
    completed: list[tuple[Ticket, Result]] = field(factory=list)

    @property
    def revision(self) -> int:
        return int(self._inner.revision)

    @property
    def time_ms(self) -> int:
        return int(self._inner.time_ms)

    @property
    def session(self) -> str:
        return str(self._inner.session)

    @property
    def sessions(self) -> Sequence[str]:
        sessions: Sequence[str] = self._inner.sessions
        return sessions

    @property
    def ticket(self) -> Ticket:
        ticket: Ticket = self._inner.ticket
        return ticket

    @property
    def quotas(self) -> Quotas:
        quotas: Quotas = self._inner.quotas
        return quotas

    def complete(self, ticket: Ticket, result: Result) -> None:
        self.completed.append((ticket, result))
        self._inner.complete(ticket, result)


@implementer(IReplicatedApplication)
class WatchedLock:
    """The lock application of one server, with a `LockChecker` that checks each call and its result.

    The first violation is kept until the run calls `raise_violation`. If it were raised in `execute`, it would not end
    the run, since the sessions catch the exceptions of applications.
    """

    version = 1

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        """The application itself."""
        self.name: str = inner.name
        self.commands: Sequence[CommandDescription] = inner.commands
        self.checker = LockChecker()
        self._violation: Violation | None = None
        if IFrozenState.providedBy(inner):
            alsoProvides(self, IFrozenState)

    def raise_violation(self) -> None:
        if self._violation is not None:
            raise self._violation

    def check(self, command: tuple[str, ...]) -> Command:
        checked: Command = self.inner.check(command)
        return checked

    def execute(self, command: Command, context: IContext) -> Any:
        watched = _WatchedContext(context)
        ticket = context.ticket
        self._run_check(self.checker.begins, watched.time_ms)
        result = self.inner.execute(command, watched)
        self.checker.locks_max = watched.quotas.session_locks
        self._run_check(self.checker.executed, command, ticket, result, watched.completed, watched.time_ms)
        return result

    def query(self, command: Command) -> Result:
        result: Result = self.inner.query(command)
        return result

    def session_ended(self, client_id: str, context: IContext) -> None:
        watched = _WatchedContext(context)
        self.inner.session_ended(client_id, watched)
        self._run_check(self.checker.session_ended, client_id, watched.completed)

    def time_passed(self, context: IContext) -> None:
        watched = _WatchedContext(context)
        self.inner.time_passed(watched)
        self._run_check(self.checker.time_passed, watched.completed)

    def next_deadline(self) -> int | None:
        deadline: int | None = self.inner.next_deadline()
        return deadline

    def snapshot(self) -> bytes:
        return bytes(self.inner.snapshot())

    def restore(self, data: bytes) -> None:
        self.inner.restore(data)

    def freeze(self) -> Iterator[bytes]:
        pieces: Iterator[bytes] = self.inner.freeze()
        return pieces

    def take_piece(self, data: bytes) -> None:
        self.inner.take_piece(data)

    def pieces_end(self) -> None:
        self.inner.pieces_end()

    def _run_check(self, check: Callable[..., None], *args: object) -> None:
        try:
            check(*args)
        except Violation as violation:
            self._violation = self._violation or violation
