"""Locks: blocking, first come first served, with fencing tokens (docs/protocol.rst).

Invariants:

* a lock in the table has exactly one holder; a lock that no session holds is forgotten, and uses no memory;
* sessions get a lock in the order in which their LOCKs were executed;
* every grant of a lock has a larger token than every earlier grant of the same lock. The token of a forgotten lock is
  not kept, but it is not larger than `_forgotten_token`, the largest token of all forgotten locks.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
from attrs import define, field

from pfsb.applications.application import Verb
from pfsb.applications.arguments import (
    Arguments,
    absent,
    counted,
    quoted,
    row_limit,
    rows_of_limit,
    wait_ms_max,
)
from pfsb.applications.interfaces import (
    PENDING,
    Command,
    CommandDescription,
    Done,
    IContext,
    Quotas,
    Refused,
    Result,
)
from pfsb.applications.pieces import PiecewiseApplication

_Deadline = tuple[int, str, str, int]
"""The time limit of one waiting LOCK: (time_ms, name of the lock, client id, command number)."""


@define(eq=False)
class HeldLock:
    """A lock that a session holds, and the sessions that wait for it."""

    name: str
    holder: str
    """The client id of the session that holds the lock."""
    token: int
    """The token of the present grant."""
    places: OrderedDict[str, dict[int, int]] = field(factory=OrderedDict)
    """The queue of waiting sessions, longest wait first: client id -> {command number of a waiting LOCK: its time
    limit}.

    A time limit is in milliseconds of the state machine's time, or `absent` for a LOCK that waits without end. A
    session has one place in the queue, even if several of its LOCKs wait. (The type is OrderedDict, because a dict
    finds its first key slowly after many keys have been removed from its front.)
    """


class Deadlines:
    """The time limits of all waiting LOCKs, in a heap. When a LOCK stops waiting earlier, its entry is removed from the
    heap later."""

    def __init__(self) -> None:
        self.live: set[_Deadline] = set()
        """The time limits of the LOCKs that wait now."""
        self.heap: list[_Deadline] = []
        """A heap of all time limits in `live`; it may also have time limits of LOCKs that wait no more, which are
        removed later."""

    def add(self, deadline: _Deadline) -> None:
        self.live.add(deadline)
        heapq.heappush(self.heap, deadline)

    def discard(self, deadline: _Deadline) -> None:
        self.live.discard(deadline)
        if len(self.heap) > 2 * len(self.live) + 64:
            self.heap = sorted(self.live)

    def earliest(self) -> _Deadline | None:
        while self.heap and self.heap[0] not in self.live:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def take_due(self, time_ms: int) -> Iterator[_Deadline]:
        """Remove and yield, the earliest first, the time limits in `live` that are not after `time_ms`, in milliseconds
        of the state machine's time.
        """
        while (earliest := self.earliest()) is not None and earliest[0] <= time_ms:
            self.discard(earliest)
            yield earliest


_LockThen = tuple[str, int, Sequence[str], Sequence[dict[int, int]]]
"""A lock at one moment: holder, token, the sessions in its queue, and the waiting LOCKs of each of them."""


class FrozenLocks:
    """All locks of one moment, in the order in which they were first granted.

    The row of a lock is (name, holder, token). The rows of its queue follow, one for each session: (client id,
    [(command number of a waiting LOCK, its time limit)]).
    """

    def __init__(self, forgotten_token: int, locks: dict[str, HeldLock]) -> None:
        self.head = (forgotten_token,)
        self._locks = [*locks.values()]
        self._then: dict[HeldLock, _LockThen] = {}
        """Lock that has changed since -> its state at that moment; `_TAKEN` if its rows need it no more."""
        self._copied: set[tuple[HeldLock, str]] = set()
        """(lock, client id): the session had a place in the queue, and its LOCKs that wait there now are in a dict that
        is younger than that moment."""

    def keep(self, lock: HeldLock) -> None:
        """Keep holder, token and queue of a lock aside before they are changed."""
        if lock not in self._then:
            self._then[lock] = _present(lock)

    def keep_place(self, lock: HeldLock, client_id: str) -> None:
        """Keep the LOCKs of a session that wait in the queue of a lock aside before they are changed: from now on they
        are in another dict."""
        self.keep(lock)
        numbers = lock.places.get(client_id)
        if numbers is not None and (lock, client_id) not in self._copied:
            self._copied.add((lock, client_id))
            lock.places[client_id] = numbers.copy()

    def rows(self) -> Iterator[bytes]:
        pack = msgpack.Packer().pack
        for lock in self._locks:
            holder, token, clients, waits = self._then.get(lock) or _present(lock)
            if clients:
                self._then[lock] = _TAKEN
            yield pack((lock.name, holder, token))
            for client_id, numbers in zip(clients, waits, strict=True):
                yield pack((client_id, [*numbers.items()]))


_TAKEN: _LockThen = ("", 0, (), ())


def _present(lock: HeldLock) -> _LockThen:
    # The queue has the order of the dict that it is, too, since no place is ever moved. With 100,000 sessions the
    # methods of dict take 3 ms, and those of OrderedDict 15 ms.
    return (lock.holder, lock.token, [*dict.keys(lock.places)], [*dict.values(lock.places)])


class Lock(PiecewiseApplication[FrozenLocks]):
    """The locks, with their holders and the sessions that wait for them."""

    name = "lock"
    snapshot_format = 2
    commands: Sequence[CommandDescription] = (
        CommandDescription(
            "LOCK",
            "LOCK name [wait=SECONDS]",
            "Get a lock; wait for it, for ever or so long.",
            waits=True,
            needs_session=True,
        ),
        CommandDescription("TRYLOCK", "TRYLOCK name", "Get a lock if nobody else holds it.", needs_session=True),
        CommandDescription(
            "UNLOCK",
            "UNLOCK name [token=T]",
            "Give a lock back to whoever waits longest for it.",
            shrinks=True,
            needs_session=True,
        ),
        CommandDescription("LOCKS", "LOCKS [limit=N]", "Show the locks that are held, by name.", changes=False),
    )

    def __init__(self) -> None:
        self.locks: dict[str, HeldLock] = {}
        """Name of a lock that is held -> its holder, and the sessions that wait for it."""
        self.locks_of: dict[str, set[str]] = {}
        """Client id -> names of the locks that its session holds or waits for."""
        self.deadlines = Deadlines()
        self._forgotten_token = 0  # the largest token of all forgotten locks
        self.work_in_rows = {"LOCKS": lambda command: max(rows_of_limit(command), len(self.locks))}
        super().__init__(
            {
                "LOCK": Verb(_check_lock, (str, str, int), self._lock),
                "TRYLOCK": Verb(_check_try_lock, (str, str), self._try_lock),
                "UNLOCK": Verb(_check_unlock, (str, str, int), self._unlock),
                "LOCKS": Verb(_check_locks, (str, int), self._list),
            }
        )

    def session_ended(self, client_id: str, context: IContext) -> None:
        """Grant each lock that the ended session held to the next waiting session, and end the session's own waits."""
        # The names are sorted, because the order of a set may differ from server to server.
        for name in sorted(self.locks_of.pop(client_id, ())):
            lock = self.locks[name]
            if lock.holder == client_id:
                self.pass_on(name, lock, context)
            else:
                self._end_wait(name, lock, client_id, context)

    def time_passed(self, context: IContext) -> None:
        """Answer TIMEOUT to every waiting LOCK whose deadline has come."""
        for _, name, client_id, number in self.deadlines.take_due(context.time_ms):
            lock = self.locks[name]
            if self._frozen is not None:
                self._frozen.keep_place(lock, client_id)
            numbers = lock.places[client_id]
            del numbers[number]
            if not numbers:
                del lock.places[client_id]
                self._let_go(name, client_id)
            context.complete((client_id, number), _timed_out(name))

    def next_deadline(self) -> int | None:
        earliest = self.deadlines.earliest()
        return None if earliest is None else earliest[0]

    def state_now(self) -> FrozenLocks:
        return FrozenLocks(self._forgotten_token, self.locks)

    def begin(self, head: Sequence[int]) -> None:
        (self._forgotten_token,) = head
        self.locks, self.locks_of, self.deadlines = {}, {}, Deadlines()

    def take_rows(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add locks, and places in queues; a place belongs to the lock that was added last."""
        for row in rows:
            if len(row) == 3:
                name, holder, token = row
                self.locks[name] = HeldLock(name, holder, token)
                self.locks_of.setdefault(holder, set()).add(name)
            else:
                client_id, waits = row
                name = next(reversed(self.locks), "")
                for number, deadline in waits:
                    self.begin_wait(name, self.locks[name], client_id, number, deadline)

    def _lock(self, command: Command, context: IContext) -> Any:
        _, name, wait_ms = command
        lock = self.locks.get(name)
        if lock is None or lock.holder == context.session:
            return self._hold(name, lock, context)
        if wait_ms == 0:
            return _timed_out(name)
        names = self.locks_of.get(context.session, ())
        if len(names) >= context.quotas.session_locks and name not in names:
            return _too_many(len(names), context.quotas)
        # Another version may have checked the command with a higher limit, and a snapshot holds integers of 64 bits.
        deadline = absent if wait_ms < 0 else context.time_ms + min(wait_ms, wait_ms_max)
        self.begin_wait(name, lock, context.session, context.ticket[1], deadline)
        return PENDING

    def _try_lock(self, command: Command, context: IContext) -> Result:
        _, name = command
        lock = self.locks.get(name)
        if lock is None or lock.holder == context.session:
            return self._hold(name, lock, context)
        return Refused("HELD", f"lock {quoted(name)} is held by {quoted(lock.holder)}")

    def _unlock(self, command: Command, context: IContext) -> Result:
        _, name, token = command
        lock = self.locks.get(name)
        if lock is None:
            return Refused("NOTHELD", f"nobody holds lock {quoted(name)}")
        if lock.holder != context.session:
            return Refused("NOTHELD", f"lock {quoted(name)} is held by {quoted(lock.holder)}, not by you")
        if token not in (absent, lock.token):
            return Refused("NOTHELD", f"you hold lock {quoted(name)} with token {lock.token}, not {token}")
        self._let_go(name, context.session)
        self.pass_on(name, lock, context)
        return Done((("name", name),))

    def _list(self, command: Command) -> Result:
        """Answer LOCKS. Finding the first names takes a look at the names of all locks, however few are shown, but no
        step of the interpreter for each."""
        shown = ((name, self.locks[name]) for name in heapq.nsmallest(row_limit(command[1]), self.locks))
        rows = tuple(
            (("name", name), ("holder", lock.holder), ("token", lock.token), ("waiting", len(lock.places)))
            for name, lock in shown
        )
        return Done((("count", len(rows)), ("held", len(self.locks))), rows)

    def _hold(self, name: str, lock: HeldLock | None, context: IContext) -> Result:
        """Grant the lock `name` to the session whose command is executed. If the lock is free (`lock` is None), it gets
        a new token; if this session holds it already, the present token stays.

        Returns a refusal for a free lock that would exceed the session's quota of locks.
        """
        if lock is None:
            names = self.locks_of.get(context.session)
            if names is None:
                names = self.locks_of[context.session] = set()
            elif len(names) >= context.quotas.session_locks:
                return _too_many(len(names), context.quotas)
            token = max(context.revision, self._forgotten_token + 1)
            lock = self.locks[name] = HeldLock(name, context.session, token)
            names.add(name)
        return _granted(name, lock)

    def begin_wait(self, name: str, lock: HeldLock, client_id: str, number: int, deadline: int) -> None:
        """Let the command `number` of a session wait for a lock, at the end of the lock's queue, until `deadline`, in
        milliseconds of the state machine's time; `absent`: without end."""
        if self._frozen is not None:
            self._frozen.keep_place(lock, client_id)
        lock.places.setdefault(client_id, {})[number] = deadline
        self.locks_of.setdefault(client_id, set()).add(name)
        if deadline != absent:
            self.deadlines.add((deadline, name, client_id, number))

    def pass_on(self, name: str, lock: HeldLock, context: IContext) -> None:
        """Grant a lock whose holder has let go of it to the session that has waited longest; forget the lock if no
        session waits."""
        if not lock.places:
            self._forgotten_token = max(self._forgotten_token, lock.token)
            del self.locks[name]
            return
        if self._frozen is not None:
            self._frozen.keep(lock)
        lock.holder = next(iter(lock.places))
        # Several sessions can end at one revision, so a lock can be granted several times at that revision.
        lock.token = max(context.revision, lock.token + 1)
        self._answer(name, lock, lock.holder, _granted(name, lock), context)

    def _end_wait(self, name: str, lock: HeldLock, client_id: str, context: IContext) -> None:
        refused = Refused("NOSESSION", f"the session ended while it waited for lock {quoted(name)}")
        self._answer(name, lock, client_id, refused, context)

    def _answer(self, name: str, lock: HeldLock, client_id: str, result: Result, context: IContext) -> None:
        """Remove the session from the queue of this lock, and answer all its LOCKs that wait there with `result`."""
        if self._frozen is not None:
            self._frozen.keep(lock)
        for number, deadline in lock.places.pop(client_id).items():
            self.deadlines.discard((deadline, name, client_id, number))
            context.complete((client_id, number), result)

    def _let_go(self, name: str, client_id: str) -> None:
        names = self.locks_of[client_id]
        names.remove(name)
        if not names:
            del self.locks_of[client_id]


def _granted(name: str, lock: HeldLock) -> Done:
    return Done((("name", name), ("token", lock.token)))


def _too_many(count: int, quotas: Quotas) -> Refused:
    return Refused(
        "TOOLARGE",
        f"this session holds or waits for {counted(count, 'lock')}, and session_locks allows {quotas.session_locks}: "
        "UNLOCK one first",
    )


def _timed_out(name: str) -> Refused:
    return Refused("TIMEOUT", f"lock {quoted(name)} was not free in time")


def _check_lock(asked: Arguments) -> Command:
    (name,) = asked.words(1, 1, options=("wait",))
    return ("LOCK", asked.key(name, "name"), asked.milliseconds("wait"))


def _check_try_lock(asked: Arguments) -> Command:
    (name,) = asked.words(1, 1)
    return ("TRYLOCK", asked.key(name, "name"))


def _check_unlock(asked: Arguments) -> Command:
    (name,) = asked.words(1, 1, options=("token",))
    return ("UNLOCK", asked.key(name, "name"), asked.option("token", absent))


def _check_locks(asked: Arguments) -> Command:
    asked.words(0, 0, options=("limit",))
    return ("LOCKS", asked.limit())
