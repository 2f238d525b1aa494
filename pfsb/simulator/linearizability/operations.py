"""What the linearizability checker is given: operations as clients saw them, and what one object does with them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Protocol

from attrs import field, frozen
from attrs.validators import in_

from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import Command, Done, Fields, Refused, Result

_JUDGEMENTS: Final = frozenset({"NOTFOUND", "CONFLICT", "HELD", "NOTHELD", "TIMEOUT"})
"""Refusals that an application gives after a look at its state: they say something about it."""


def _as_result(given: Result | Fields | None) -> Result | None:
    return Done(given) if isinstance(given, tuple) else given


@frozen(eq=False)
class Operation:
    """One command as its client saw it; all repetitions of one number are one operation.

    `call` and `ret` are in seconds, or counted in any other way. What ends and what begins at the same instant may have
    come in either order; who knows better counts events instead. Raises `ValueError` if `ret` is before `call`.
    """

    client: str
    call: float
    """When it was first asked."""
    ret: float | None
    """When it was answered. None: it was not."""
    command: Command
    """Normalised, as the application's `check` returns it."""
    result: Result | None = field(default=None, converter=_as_result)
    """What it was answered; fields alone stand for a `Done`."""
    fate: str = field(default="done", validator=in_(("done", "none", "unknown")))
    """done: it was carried out and `result` is what came of it, be it a refusal such as CONFLICT.
    none: certainly not carried out. unknown: perhaps, at any time from `call` on."""
    answer: Result | None = field(init=False)
    """`result`, if the operation is known to have come to it between `call` and `ret`."""

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
        """What a server has answered; the fate is the one that goes with the answer.

        NOTFOUND, CONFLICT and the like say fate=none to a client, because nothing was changed. Here they are done:
        the application has looked, and what it saw must fit.
        """
        fate = "done" if isinstance(result, Done) or result.code in _JUDGEMENTS else result.fate
        return cls(client, call, ret, command, result, fate)

    @property
    def is_certain(self) -> bool:
        """It has taken effect between `call` and `ret`, with a known answer. If not: perhaps, after `call`."""
        return self.answer is not None

    def __str__(self) -> str:
        return f"{' '.join([self.command[0], *map(word_of, self.command[1:])])} by {self.client}"


class Specification(Protocol):
    """What one object does when operations come one after the other."""

    def start(self) -> Hashable:
        """The state before the first operation; never None."""

    def step(self, state: Any, operation: Operation) -> Hashable | None:
        """The state after `operation`, or None if it cannot have been answered as it was in `state`.

        An operation that is not certain has no answer that counts; if the state alone does not say what it does, it
        does the most that it can.
        """

    def position(self, operation: Operation) -> int | None:
        """A number that never falls along any order that `step` permits, if the answer tells it; None: it does not."""

    def alike(self, operation: Operation) -> Hashable:
        """Equal for operations that do the same in every state, as long as their answers are not known."""

    def describe(self, state: Any) -> str:
        """The state in half a sentence: 'it is "blue"'."""


@frozen
class SubHistory:
    """Operations on one object; linearizable or not, whatever other objects do."""

    name: str
    operations: Sequence[Operation]
    specification: Callable[[Sequence[Operation]], Specification]
    """Makes the specification for these operations, or for those of an earlier moment."""


def number_in(answer: Result | None, name: str) -> int | None:
    """A number among the fields of an answer."""
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
