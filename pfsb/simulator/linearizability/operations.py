"""The input of the linearizability checker: operations as clients saw them, and specifications of objects."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Protocol

from attrs import field, frozen
from attrs.validators import in_

from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import Command, Done, Fields, Refused, Result

_JUDGEMENTS: Final = frozenset({"NOTFOUND", "CONFLICT", "PRECONDITION", "HELD", "NOTHELD", "TIMEOUT"})
"""Codes of refusals that an application gives because of its state. The checker requires that they fit the state."""


def _as_result(given: Result | Fields | None) -> Result | None:
    return Done(given) if isinstance(given, tuple) else given


@frozen(eq=False)
class Operation:
    """One command as its client saw it; all repetitions with the same command number are one operation.

    `call` and `ret` are times in seconds, or numbers of events in the order in which they happened. If one operation
    returns at the same time as another is called, either of the two may come first in the order. Raises `ValueError`
    if `ret` is before `call`.
    """

    client: str
    call: float
    """When the command was sent for the first time."""
    ret: float | None
    """When the command was answered; None if it was not."""
    command: Command
    """The command in the normalised form that the application's `check` returns."""
    result: Result | None = field(default=None, converter=_as_result)
    """The answer; None: it is not known. A tuple of fields is converted to a `Done` with these fields."""
    fate: str = field(default="done", validator=in_(("done", "none", "unknown")))
    """done: the command was carried out with this `result`, which may be a refusal such as CONFLICT.
    none: the command was certainly not carried out.
    unknown: the command may have been carried out, at any time from `call` on."""
    answer: Result | None = field(init=False)
    """The `result`, if the command is known to have been carried out with this result between `call` and `ret`; else
    None."""

    @answer.default
    def _make_answer(self) -> Result | None:
        return self.result if self.fate == "done" and self.ret is not None else None

    def __attrs_post_init__(self) -> None:
        if self.ret is not None and self.ret < self.call:
            raise ValueError(
                f"{self.client}'s {self.command} is answered at {self.ret}, before its call at {self.call}"
            )

    @classmethod
    def answered(cls, client: str, call: float, ret: float, command: Command, result: Result) -> Operation:
        """Make the operation for a command that a server has answered; the fate follows from the answer.

        Refusals such as NOTFOUND and CONFLICT say fate=none to a client, because nothing was changed. Here their fate
        is done: the application has read its state, and the refusal must fit that state.
        """
        fate = "done" if isinstance(result, Done) or result.code in _JUDGEMENTS else result.fate
        return cls(client, call, ret, command, result, fate)

    @property
    def is_certain(self) -> bool:
        """Whether the operation is *certain*: it is known to have taken effect between `call` and `ret`, with a known
        answer."""
        return self.answer is not None

    def __str__(self) -> str:
        return f"{' '.join([self.command[0], *map(word_of, self.command[1:])])} by {self.client}"


class Specification(Protocol):
    """The behaviour of one object (a key, a lock, the chat) when operations come one after the other.

    `search` calls these methods with operations of one sub-history. A state is a value that `start` or `step` has
    returned.
    """

    def start(self) -> Hashable:
        """The state of the object before the first operation; never None."""

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        """The state after `operation`, if it comes next in `state`; None if it cannot have its answer there.

        `search` calls this each time that it tries to put an operation into the order. If the operation is not certain
        (`Operation.is_certain`), its answer is ignored. If `state` does not determine its effect then, the operation
        has the greatest effect that it can have.
        """

    def position(self, operation: Operation) -> int | None:
        """A number for the place of `operation` in the order of operations, if its answer shows it; otherwise None.

        From the first operation to the last of any order that `step` permits, these numbers never decrease. Each search
        calls this once, before it begins, for each operation that is certain (`Operation.is_certain`).
        """

    def alike(self, operation: Operation) -> Hashable:
        """A value that tells which operations of unknown fate can replace each other: those for which it is equal.

        Two operations with equal values must have the same effect in every state, if neither is certain
        (`Operation.is_certain`). Each search calls this once, before it begins, for each operation that is not certain.
        """

    def describe(self, state: Any) -> str:
        """Describe `state` for people, in the text of a violation: a clause such as 'it is "blue"'."""


@frozen
class SubHistory:
    """The operations on one object. Whether they are linearizable does not depend on operations on other objects."""

    name: str
    operations: Sequence[Operation]
    specification: Callable[[Sequence[Operation]], Specification]
    """Makes the `Specification` of the object that `name` names.

    The checker calls it at the beginning of each search, with those of `operations` that the search may put into the
    order; and to explain a violation, with those that the search has put into the order.
    """


def number_in(answer: Result | None, name: str) -> int | None:
    """The integer in the field `name` of an answer; None if the answer has no such field."""
    if isinstance(answer, Done):
        for field_name, value in answer.fields:
            if field_name == name and isinstance(value, int):
                return value
    return None


def revision_of(operation: Operation) -> int | None:
    return number_in(operation.answer, "revision")


def is_refusal(answer: Result, code: str) -> bool:
    return isinstance(answer, Refused) and answer.code == code


def word_of(value: object) -> str:
    return quoted(value) if isinstance(value, str) else str(value)
