"""What the applications promise to one client at a time, for the linearizability checker (interface part 3).

The commands are those that an application's `check` returns. Written from the interface, not from the applications:
a mistake there must not be repeated here.

What is not checked:

* MPUT and MGET are taken apart into one operation per key, each with the interval of the whole. That they happen at
  one moment for all keys is not seen, nor that an MPUT of unknown fate sets all of its keys or none.
* LOCK counts as one operation, at the moment of its grant. That waiters come first come, first served cannot be seen
  from outside: nobody is told when his LOCK was executed. That a wait lasted as long as was asked is not looked at.
* A session that ends while its LOCK of unknown fate waits may still be granted the lock here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from attrs import evolve

from pfsb.applications.arguments import absent, parse_integer, quoted, row_limit
from pfsb.applications.key_value import fnv1a_32
from pfsb.interfaces import Command, Done, Fields, Refused, Result
from pfsb.simulator.linearizability import Operation, Part, Specification

integer_bound: Final = 2**63
"""INCR keeps to integers from -integer_bound to integer_bound - 1."""

key_value_verbs: Final = frozenset({"GET", "PUT", "DEL", "CAS", "INCR", "APPEND", "PUTHASH", "MPUT", "MGET"})
lock_verbs: Final = frozenset({"LOCK", "TRYLOCK", "UNLOCK"})
session_end_verbs: Final = frozenset({"BYE", "EXPIRE"})
"""The end of the session `Operation.client`, asked for by itself or found by the servers. One operation for each end:
for an expiry `call` is when the client fell silent, and its fate is unknown unless somebody was told of it."""
chat_verbs: Final = frozenset({"SAY", "LOG"})


def all_parts(history: Sequence[Operation]) -> list[Part]:
    """The history of all applications, in parts. Raises `ValueError` for an operation that cannot be checked."""
    known = key_value_verbs | lock_verbs | session_end_verbs | chat_verbs
    for operation in history:
        if operation.command[0] not in known:
            verbs = ", ".join(sorted(known))
            raise ValueError(f"there is no specification of {operation} (there are: {verbs})")
    return [*key_value_parts(history), *lock_parts(history), *chat_parts(history), *revision_parts(history)]


def key_value_parts(history: Iterable[Operation]) -> list[Part]:
    """One part for each key. Only reads that were asked to be linearizable belong into the history."""
    return _parts_by_name("key", (pair for operation in history for pair in _by_key(operation)), RegisterSpecification)


def lock_parts(history: Sequence[Operation]) -> list[Part]:
    """One part for each lock, with the ends of the sessions that have asked for it."""
    askers: dict[str, set[str]] = {}
    for operation in history:
        if operation.command[0] in lock_verbs:
            askers.setdefault(operation.command[1], set()).add(operation.client)
    return _parts_by_name("lock", _by_lock(history, askers), LockSpecification)


def chat_parts(history: Iterable[Operation]) -> list[Part]:
    """The chat is one object: one part, or none."""
    operations = [operation for operation in history if operation.command[0] in chat_verbs]
    return [Part("the chat", operations, ChatSpecification)] if operations else []


def revision_parts(history: Iterable[Operation]) -> list[Part]:
    """All changes of which the revision is known: one part, or none.

    Revisions count the commands of the whole cluster, so they must grow from key to key as well. This sees what
    the parts for single keys cannot.
    """
    operations = [
        operation
        for operation in history
        if operation.command[0] not in ("GET", "MGET", "LOG") and _revision(operation) is not None
    ]
    return [Part("revisions", operations, RevisionSpecification)] if operations else []


def _parts_by_name(
    kind: str,
    pairs: Iterable[tuple[str, Operation]],
    specification: Callable[[Sequence[Operation]], Specification],
) -> list[Part]:
    by_name: dict[str, list[Operation]] = {}
    for name, operation in pairs:
        by_name.setdefault(name, []).append(operation)
    return [Part(f"{kind} {quoted(name)}", found, specification) for name, found in by_name.items()]


def _by_key(operation: Operation) -> Iterator[tuple[str, Operation]]:
    match operation.command:
        case ("MPUT", *words):
            # A key that is given twice has the later value.
            for key, value in dict(zip(words[::2], words[1::2], strict=True)).items():
                yield key, evolve(operation, command=("PUT", key, value))
        case ("MGET", *keys):
            for key in dict.fromkeys(keys):
                result = None if operation.answer is None else _of_row(operation.answer, key)
                yield key, evolve(operation, command=("GET", key), result=result)
        case (verb, key, *_) if verb in key_value_verbs:
            yield key, operation


def _of_row(answer: Result, key: str) -> Result:
    """What MGET says about one key, as GET would say it."""
    if isinstance(answer, Refused):
        return answer
    for row in answer.rows:
        fields = dict(row)
        if fields.pop("key") == key:
            return Done(tuple(fields.items()))
    return Refused("NOTFOUND", "MGET has no row for it")


def _by_lock(history: Iterable[Operation], askers: dict[str, set[str]]) -> Iterator[tuple[str, Operation]]:
    for operation in history:
        match operation.command:
            case (verb, *_) if verb in session_end_verbs:
                yield from ((name, operation) for name, clients in askers.items() if operation.client in clients)
            case (verb, name, *_) if verb in lock_verbs:
                yield name, operation


def _number(answer: Result | None, name: str) -> int | None:
    """A number among the fields of an answer."""
    if isinstance(answer, Done):
        for field_name, value in answer.fields:
            if field_name == name and isinstance(value, int):
                return value
    return None


def _revision(operation: Operation) -> int | None:
    return _number(operation.answer, "revision")


# ---------------------------------------------------------------------------------------------
# Keys
# ---------------------------------------------------------------------------------------------


class Register(NamedTuple):
    """One key. (Named tuples here and below: a search compares and hashes states all the time.)"""

    value: str | None = None
    """None: the key is absent."""
    revision: int | None = None
    """When the value was written; None: absent, or written by an operation whose revision nobody was told."""
    floor: int = 0
    """The highest revision known so far: all that changes from here on has a higher one."""


class _Outcome(NamedTuple):
    """What a command does to a value and what it must be answered, but for the revision."""

    writes: bool
    value: str | None
    fields: Fields = ()
    refusal: str | None = None


class RegisterSpecification:
    """GET, PUT, DEL, CAS, INCR, APPEND and PUTHASH on one key, which is absent at first.

    Revisions, where answers tell them: each change has a higher one than everything before it on this key, and GET
    tells that of the latest change.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        """The same for all operations."""

    def start(self) -> Register:
        return Register()

    def step(self, state: Register, operation: Operation) -> Register | None:
        outcome = _run(operation.command, state.value)
        answer = operation.answer
        if answer is not None and not _fits(outcome, answer):
            return None
        revision = _number(answer, "revision")
        if operation.command[0] == "GET":
            return _seen(state, revision)
        return _written(state, outcome, revision)

    def position(self, operation: Operation) -> int | None:
        """GETs come behind the change that they saw, and before the next."""
        revision = _revision(operation)
        return None if revision is None else 2 * revision + (operation.command[0] == "GET")

    def alike(self, operation: Operation) -> Hashable:
        return operation.command

    def describe(self, state: Register) -> str:
        if state.value is None:
            return "it is absent"
        revision = "unknown revision" if state.revision is None else f"revision {state.revision}"
        return f"it is {quoted(state.value)} ({revision})"


def _run(command: Command, value: str | None) -> _Outcome:
    match command:
        case ("GET", _):
            return _refused(value, "NOTFOUND") if value is None else _Outcome(False, value, (("value", value),))
        case ("PUT", _, new):
            return _Outcome(True, new)
        case ("DEL", _):
            return _Outcome(value is not None, None, (("deleted", int(value is not None)),))
        case ("CAS", _, must_exist, old, new):
            agrees = value == old if must_exist else value is None
            return _Outcome(True, new) if agrees else _refused(value, "CONFLICT")
        case ("INCR", _, step):
            number = parse_integer("0" if value is None else value)
            if number is None or not -integer_bound <= number + step < integer_bound:
                return _refused(value, "CONFLICT")
            return _Outcome(True, str(number + step), (("value", str(number + step)),))
        case ("APPEND", _, text):
            longer = (value or "") + text
            return _Outcome(True, longer, (("value", longer),))
        case ("PUTHASH", _, text):
            previous = value or ""
            return _Outcome(True, str(fnv1a_32((previous + text).encode())), (("previous", previous),))
    raise ValueError(f"{command} is no normalised command on one key")


def _refused(value: str | None, code: str) -> _Outcome:
    return _Outcome(False, value, refusal=code)


def _fits(outcome: _Outcome, answer: Result) -> bool:
    if isinstance(answer, Refused):
        return answer.code == outcome.refusal
    return outcome.refusal is None and all(pair in answer.fields for pair in outcome.fields)


def _seen(state: Register, revision: int | None) -> Register | None:
    """The state after a GET, which may tell the revision of a write that nobody was told."""
    if revision is None or revision == state.revision:
        return state
    if state.revision is None and revision > state.floor:
        return Register(state.value, revision, revision)
    return None


def _written(state: Register, outcome: _Outcome, revision: int | None) -> Register | None:
    if revision is not None and revision <= state.floor:
        return None
    floor = state.floor if revision is None else revision
    if not outcome.writes:
        return state._replace(floor=floor)
    return Register(outcome.value, None if outcome.value is None else revision, floor)


# ---------------------------------------------------------------------------------------------
# Locks
# ---------------------------------------------------------------------------------------------


class HeldLock(NamedTuple):
    holder: str | None = None
    token: int | None = None
    """None: nobody holds it, or nobody was told the token."""
    floor: int = 0
    """The highest token known so far: the next grant has a higher one."""


class LockSpecification:
    """One holder at a time; each grant has a higher token than those before it; who holds the lock has it again.

    HELD and TIMEOUT are right only while somebody else holds the lock, NOTHELD only while oneself does not.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        """The same for all operations."""

    def start(self) -> HeldLock:
        return HeldLock()

    def step(self, state: HeldLock, operation: Operation) -> HeldLock | None:
        match operation.command:
            case ("LOCK" | "TRYLOCK" as verb, *_):
                return self._lock(state, operation, refusal="HELD" if verb == "TRYLOCK" else "TIMEOUT")
            case ("UNLOCK", _, token):
                return self._unlock(state, operation, None if token == absent else token)
            case _:
                return HeldLock(floor=state.floor) if state.holder == operation.client else state

    def position(self, operation: Operation) -> int | None:
        """A lock is given back behind all grants with its token, and before those with the next."""
        match operation.command, operation.answer:
            case ("UNLOCK", _, token), Done():
                return None if token == absent else 2 * int(token) + 1
            case ("LOCK" | "TRYLOCK", *_), Done() as answer:
                token = _number(answer, "token")
                return None if token is None else 2 * token
        return None

    def alike(self, operation: Operation) -> Hashable:
        return operation.client, operation.command

    def describe(self, state: HeldLock) -> str:
        if state.holder is None:
            return "nobody holds it"
        token = "an unknown token" if state.token is None else f"token {state.token}"
        return f"{state.holder} holds it with {token}"

    @staticmethod
    def _lock(state: HeldLock, operation: Operation, refusal: str) -> HeldLock | None:
        answer = operation.answer
        if state.holder not in (None, operation.client):
            return state if answer is None or _is_refusal(answer, refusal) else None
        if isinstance(answer, Refused):
            return None
        token = _number(answer, "token")
        if state.holder is None:
            return _holds(operation.client, token, state.floor)
        if token is None or token == state.token:
            return state
        return _holds(operation.client, token, state.floor) if state.token is None else None

    @staticmethod
    def _unlock(state: HeldLock, operation: Operation, token: int | None) -> HeldLock | None:
        answer = operation.answer
        # With a token that nobody was told, one that is given may be the right one, or not.
        is_surely_right = token is None or token == state.token
        may_be_right = is_surely_right or (state.token is None and (token or 0) > state.floor)
        if isinstance(answer, Refused):
            is_right = state.holder == operation.client and is_surely_right
            return state if not is_right and answer.code == "NOTHELD" else None
        if state.holder == operation.client and may_be_right:
            return HeldLock(floor=max(state.floor, token or 0))
        return state if answer is None else None


def _holds(client: str, token: int | None, floor: int) -> HeldLock | None:
    if token is None:
        return HeldLock(client, None, floor)
    return HeldLock(client, token, token) if token > floor else None


def _is_refusal(answer: Result, code: str) -> bool:
    return isinstance(answer, Refused) and answer.code == code


# ---------------------------------------------------------------------------------------------
# Chat
# ---------------------------------------------------------------------------------------------


_Line = tuple[str, str]
"""(client id, text)"""


class ChatSpecification:
    """A list that only grows: SAY tells the index of its line, LOG shows lines without gaps.

    All that was seen of the lines is collected first: whoever is told first what line I is, is right. The state is
    then no more than the number of lines.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._lines: dict[int, _Line] = {}
        self._mistaken: set[Operation] = set()
        certain = [operation for operation in operations if operation.is_certain]
        for operation in sorted(certain, key=lambda op: op.ret or 0):
            seen = _lines_seen(operation)
            if all(self._lines.get(index, line) == line for index, line in seen.items()):
                self._lines.update(seen)
            else:
                self._mistaken.add(operation)

    def start(self) -> int:
        return 0

    def step(self, state: int, operation: Operation) -> int | None:
        if operation in self._mistaken:
            return None
        if operation.command[0] == "SAY":
            return self._say(state, operation)
        return state if operation.answer is None else _log(state, operation.command, operation.answer)

    def position(self, operation: Operation) -> int | None:
        """A LOG that saw the end of the log comes behind its last line, and before the next."""
        if operation.command[0] == "SAY":
            index = _number(operation.answer, "index")
            return None if index is None else 2 * index
        if isinstance(operation.answer, Done) and operation.answer.rows and not _is_cut(operation):
            return 2 * max(_lines_seen(operation), default=0) + 1
        return None

    def alike(self, operation: Operation) -> Hashable:
        return operation.client, operation.command

    def describe(self, state: int) -> str:
        if not state:
            return "it is empty"
        who, text = self._lines.get(state, ("", ""))
        last = f", the last one {quoted(text)} by {who}" if who else ""
        return f"it has {state} {'line' if state == 1 else 'lines'}{last}"

    def _say(self, length: int, operation: Operation) -> int | None:
        said = (operation.client, operation.command[1])
        index = length + 1
        told = _number(operation.answer, "index")
        if isinstance(operation.answer, Refused) or told not in (None, index):
            return None
        return index if self._lines.get(index, said) == said else None


def _lines_seen(operation: Operation) -> dict[int, _Line]:
    """Which lines an answer tells of: {index: line}."""
    match operation.command, operation.answer:
        case ("SAY", text), Done() as answer:
            index = _number(answer, "index")
            return {} if index is None else {index: (operation.client, text)}
        case ("LOG", *_), Done(rows=rows):
            return {row["index"]: (row["client"], row["text"]) for row in map(_as_dict, rows)}
    return {}


def _as_dict(row: Fields) -> dict[str, Any]:
    return dict(row)


def _log(length: int, command: Command, answer: Result) -> int | None:
    """LOG shows what there is from `first` on, up to its limit."""
    _, first, limit = command
    start = max(first, 1)
    if isinstance(answer, Refused):
        return None
    shown = [dict(row)["index"] for row in answer.rows]
    count = min(max(length - start + 1, 0), row_limit(limit))
    return length if shown == list(range(start, start + count)) else None


def _is_cut(operation: Operation) -> bool:
    """Whether a LOG has as many rows as it may: then there may be more."""
    return isinstance(operation.answer, Done) and len(operation.answer.rows) >= row_limit(operation.command[2])


# ---------------------------------------------------------------------------------------------
# Revisions
# ---------------------------------------------------------------------------------------------


class RevisionSpecification:
    """A counter that only grows; the state is its last value that was told."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        """The same for all operations."""

    def start(self) -> int:
        return 0

    def step(self, state: int, operation: Operation) -> int | None:
        revision = _revision(operation)
        if revision is None:
            return state
        return revision if revision > state else None

    def position(self, operation: Operation) -> int | None:
        return _revision(operation)

    def alike(self, operation: Operation) -> Hashable:
        return operation.command

    def describe(self, state: int) -> str:
        return f"the revision is {state}"
