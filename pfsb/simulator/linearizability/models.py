"""Takes a history apart into sub-histories with specifications, for the linearizability checker (docs/protocol.rst).

There is one sub-history for each key and each lock, one for the chat, and one for the revisions. The commands in a
history have the form that an application's `check` returns. The specifications follow the document and not the code of
the applications, so that a mistake in the code is not repeated in them.

The checker does not find the following errors:

* MPUT and MGET are taken apart into one operation per key, each with the call and return of the whole command. The
  checker does not require that they happen at one moment for all keys, nor that an MPUT of unknown fate sets all of its
  keys or none.
* LOCK is one operation, at the moment when the lock is granted. Whether waiting clients get the lock in the right
  order is not checked, since no client can know when its LOCK was executed. Nor is it checked that a LOCK waits as long
  as it was asked to.
* If a session ends while its LOCK of unknown fate waits, the specification still permits that it is granted the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Final

from attrs import evolve

from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.simulator.linearizability.chat_model import ChatSpecification
from pfsb.simulator.linearizability.lock_model import LockSpecification
from pfsb.simulator.linearizability.operations import Operation, Specification, SubHistory, revision_of
from pfsb.simulator.linearizability.register_model import RegisterSpecification

KEY_VALUE_VERBS: Final = frozenset({"GET", "PUT", "DEL", "CAS", "INCR", "APPEND", "PUTHASH", "MPUT", "MGET", "IF"})
LOCK_VERBS: Final = frozenset({"LOCK", "TRYLOCK", "UNLOCK"})
SESSION_END_VERBS: Final = frozenset({"BYE", "EXPIRE"})
"""Verbs of operations that stand for the end of the session of `Operation.client`: BYE if the client has closed it,
EXPIRE if it has expired.

The `call` of an EXPIRE is a moment before any effect of the expiry can be seen, for example when the servers last heard
from the client. Its fate is unknown, unless an answer to a client has shown the expiry.
"""
CHAT_VERBS: Final = frozenset({"SAY", "LOG"})


def all_sub_histories(history: Sequence[Operation]) -> list[SubHistory]:
    """Split a history into the sub-histories that are checked one by one.

    There is one for each key, one for each lock, one for the chat, and one for the revisions. Raises `ValueError` for
    an operation whose verb none of them has.
    """
    known = KEY_VALUE_VERBS | LOCK_VERBS | SESSION_END_VERBS | CHAT_VERBS
    for operation in history:
        if operation.command[0] not in known:
            verbs = ", ".join(sorted(known))
            raise ValueError(f"there is no specification of {operation} (there are: {verbs})")
    return [
        *key_value_sub_histories(history),
        *lock_sub_histories(history),
        *chat_sub_histories(history),
        *revision_sub_histories(history),
    ]


def key_value_sub_histories(history: Iterable[Operation]) -> list[SubHistory]:
    """Split the operations on keys: the result has one sub-history for each key. The history must not contain
    sequential or stale reads."""
    return _sub_histories_by_name(
        "key", (pair for operation in history for pair in _by_key(operation)), RegisterSpecification
    )


def lock_sub_histories(history: Sequence[Operation]) -> list[SubHistory]:
    """Split the operations on locks: the result has one sub-history for each lock. Each has also the ends of those
    sessions that have asked for this lock."""
    askers: dict[str, set[str]] = {}
    for operation in history:
        if operation.command[0] in LOCK_VERBS:
            askers.setdefault(operation.command[1], set()).add(operation.client)
    return _sub_histories_by_name("lock", _by_lock(history, askers), LockSpecification)


def chat_sub_histories(history: Iterable[Operation]) -> list[SubHistory]:
    """Collect the operations on the chat, which is one object: a list of their one sub-history, empty if there are
    none."""
    operations = [operation for operation in history if operation.command[0] in CHAT_VERBS]
    return [SubHistory("the chat", operations, ChatSpecification)] if operations else []


def revision_sub_histories(history: Iterable[Operation]) -> list[SubHistory]:
    """Collect the changes whose revision an answer has shown: a list of their one sub-history, empty if there are none.

    Revisions count the commands of the whole cluster, so that a later change of another key has a higher revision, too.
    The sub-histories of single keys cannot show this.
    """
    operations = [
        operation
        for operation in history
        if operation.command[0] not in ("GET", "MGET", "LOG") and revision_of(operation) is not None
    ]
    return [SubHistory("revisions", operations, RevisionSpecification)] if operations else []


def _sub_histories_by_name(
    kind: str,
    pairs: Iterable[tuple[str, Operation]],
    specification: Callable[[Sequence[Operation]], Specification],
) -> list[SubHistory]:
    by_name: dict[str, list[Operation]] = {}
    for name, operation in pairs:
        by_name.setdefault(name, []).append(operation)
    return [SubHistory(f"{kind} {quoted(name)}", found, specification) for name, found in by_name.items()]


def _by_key(operation: Operation) -> Iterator[tuple[str, Operation]]:
    match operation.command:
        case ("MPUT", *words):
            # If MPUT has a key twice, the later value is set.
            for key, value in dict(zip(words[::2], words[1::2], strict=True)).items():
                yield key, evolve(operation, command=("PUT", key, value))
        case ("MGET", *keys):
            for key in dict.fromkeys(keys):
                result = None if operation.answer is None else _of_row(operation.answer, key)
                yield key, evolve(operation, command=("GET", key), result=result)
        case (verb, key, *_) if verb in KEY_VALUE_VERBS:
            yield key, operation


def _of_row(answer: Result, key: str) -> Result:
    """The part of an MGET's answer that concerns `key`, in the form of an answer to GET: a refusal NOTFOUND if no row
    has this key."""
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
            case (verb, *_) if verb in SESSION_END_VERBS:
                yield from ((name, operation) for name, clients in askers.items() if operation.client in clients)
            case (verb, name, *_) if verb in LOCK_VERBS:
                yield name, operation


class RevisionSpecification:
    """The revision of the cluster, which only grows; the state is the last revision that an answer has shown."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        """Ignore `operations`: revisions have only one specification, whatever the clients have asked."""

    def start(self) -> int:
        return 0

    def step(self, state: int, operation: Operation) -> int | None:
        revision = revision_of(operation)
        if revision is None:
            return state
        return revision if revision > state else None

    def position(self, operation: Operation) -> int | None:
        return revision_of(operation)

    def alike(self, operation: Operation) -> Hashable:
        return operation.command

    def describe(self, state: int) -> str:
        return f"the revision is {state}"
