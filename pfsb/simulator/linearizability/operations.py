"""The input of the linearizability checker: operations as clients saw them, and specifications of objects."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Protocol

from attrs import field, frozen
from attrs.validators import in_

from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import Command, Done, Fields, Refused, Result

_JUDGEMENTS: Final = frozenset({"NOTFOUND", "CONFLICT", "HELD", "NOTHELD", "TIMEOUT"})
"""Refusals that an application gives after it has read its state, so that they must fit that state."""


def _as_result(given: Result | Fields | None) -> Result | None:
    return Done(given) if isinstance(given, tuple) else given


@frozen(eq=False)
class Operation:
    """One command as its client saw it; all repetitions of one number are one operation.

    `call` and `ret` are in seconds, or numbers of events, which leave no doubt about the order. An end and a beginning
    at the same instant may have come in either order. Raises `ValueError` if `ret` is before `call`.
    """

    client: str
    call: float
    """When the command was sent for the first time."""
    ret: float | None
    """When the command was answered; None if it was not."""
    command: Command
    """The normalised command, as the application's `check` returns it."""
    result: Result | None = field(default=None, converter=_as_result)
    """The answer; fields alone stand for a `Done`."""
    fate: str = field(default="done", validator=in_(("done", "none", "unknown")))
    """done: the command was carried out with this `result`, which may be a refusal such as CONFLICT.
    none: the command was certainly not carried out. unknown: it may have been, at any time from `call` on."""
    answer: Result | None = field(init=False)
    """`result`, if it is known that the command was carried out with this result between `call` and `ret`."""

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
        """Make the operation of an answer of a server, with the fate that goes with the answer.

        NOTFOUND, CONFLICT and the like have fate=none for a client, because nothing was changed. Here their fate is
        done: the application has read its state, and the refusal must fit that state.
        """
        fate = "done" if isinstance(result, Done) or result.code in _JUDGEMENTS else result.fate
        return cls(client, call, ret, command, result, fate)

    @property
    def is_certain(self) -> bool:
        """Whether the operation has taken effect between `call` and `ret`, with a known answer."""
        return self.answer is not None

    def __str__(self) -> str:
        return f"{' '.join([self.command[0], *map(word_of, self.command[1:])])} by {self.client}"


class Specification(Protocol):
    """The behaviour of one object when operations come one after the other."""

    def start(self) -> Hashable:
        """The state before the first operation; never None."""

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        """The state after `operation`, or None if `operation` cannot have its answer in `state`.

        An operation that is not certain has no answer that counts. If the state alone does not determine its effect,
        the operation has the greatest effect that it can have.
        """

    def position(self, operation: Operation) -> int | None:
        """A number, known from the answer, that never falls along an order that `step` permits; None if unknown."""

    def alike(self, operation: Operation) -> Hashable:
        """A key that is equal for operations with the same effect in every state, if their answers are not known."""

    def describe(self, state: Any) -> str:
        """The state in half a sentence: 'it is "blue"'."""


@frozen
class SubHistory:
    """The operations on one object, whose linearizability does not depend on other objects."""

    name: str
    operations: Sequence[Operation]
    specification: Callable[[Sequence[Operation]], Specification]
    """Makes the specification for these operations, or for the first of them."""


def number_in(answer: Result | None, name: str) -> int | None:
    """The number in a field of an answer, or None."""
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
