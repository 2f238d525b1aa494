"""The specification of one key of the key-value store, for the linearizability checker (docs/protocol.rst)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

from attrs import evolve

from pfsb.applications.arguments import integer_in, quoted
from pfsb.applications.interfaces import Command, Fields, Refused, Result
from pfsb.applications.key_value import fnv1a_32
from pfsb.simulator.linearizability.operations import Operation, is_refusal, number_in, revision_of

INTEGER_BOUND: Final = 2**63
"""Bound of the integers that INCR can store: from -INTEGER_BOUND to INTEGER_BOUND - 1."""


class Register(NamedTuple):
    """The state of one key; a named tuple, because a search compares and hashes states all the time."""

    value: str | None = None
    """The value; None if the key is absent."""
    revision: int | None = None
    """The revision of the value; None if the key is absent, or if no answer has shown the revision."""
    floor: int = 0
    """The highest revision in the answers to the operations that are in the order so far; 0: they show none.

    The next change of this key must have a higher revision.
    """


class _CommandEffect(NamedTuple):
    """The effect that a command must have on the value of a key, and the answer that it must get.

    The answer is described without its field `revision`, which `RegisterSpecification` checks by itself.
    """

    writes: bool
    """Whether the command changes the key, which then has a new revision."""
    value: str | None
    """The value after the command; None if the key is absent."""
    fields: Fields = ()
    """The fields that the answer must have, unless the command is refused."""
    refusal: str | None = None
    """The code with which the command must be refused; None if it must not be refused."""


class RegisterSpecification:
    """GET, PUT, DEL, CAS, INCR, APPEND and PUTHASH on one key, which is absent at first; and IF on this key with one of
    these commands for the same key.

    As far as answers show revisions, a change must have a higher revision than all operations on this key that are
    before it in the order, and a GET must show the revision of the latest change before it. A quota, which belongs to
    all keys together, may refuse a command that would make the key larger (TOOLARGE).
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        """Ignore `operations`: all keys have the same specification, whatever was asked of them."""

    def start(self) -> Register:
        return Register()

    def step(self, state: Register, operation: Operation) -> Register | None:
        if operation.command[0] == "IF":
            return self._conditional(state, operation)
        outcome = effect_of(operation.command, state.value)
        answer = operation.answer
        if answer is not None and is_refusal(answer, "TOOLARGE"):
            return state if _grows(outcome, state.value) else None
        if answer is not None and not _fits(outcome, answer):
            return None
        revision = number_in(answer, "revision")
        if operation.command[0] == "GET":
            return _seen(state, revision)
        return _written(state, outcome, revision)

    def _conditional(self, state: Register, operation: Operation) -> Register | None:
        """The state after an IF; None if the IF cannot have had its answer in this state. Where no answer before has
        shown the key's revision, the answer of the IF itself tells whether its condition held."""
        _, _, revision, *command = operation.command
        holds = _holds(state, revision)
        answer = operation.answer
        if answer is not None and is_refusal(answer, "PRECONDITION"):
            return None if holds else state
        if holds is False:
            return state if answer is None else None
        if holds is None and answer is not None:
            seen = _seen(state, revision)
            if seen is None:
                return None
            state = seen
        return self.step(state, evolve(operation, command=tuple(command)))

    def position(self, operation: Operation) -> int | None:
        """The place of an operation in every right order (`Specification.position`), as its answer shows it.

        It is twice the revision for a change, and twice the revision, plus 1, for a GET: the GET comes behind the
        change whose revision it shows, and before the next change. None if the answer shows no revision.
        """
        revision = revision_of(operation)
        return None if revision is None else 2 * revision + (operation.command[0] == "GET")

    def alike(self, operation: Operation) -> Hashable:
        return operation.command

    def describe(self, state: Register) -> str:
        if state.value is None:
            return "it is absent"
        revision = "unknown revision" if state.revision is None else f"revision {state.revision}"
        return f"it is {quoted(state.value)} ({revision})"


def effect_of(command: Command, value: str | None) -> _CommandEffect:
    """The effect of a command on a key with this value (None: the key is absent), and the answer to it, if no quota
    stands in its way.
    """
    match command:
        case ("GET", _):
            return _refused(value, "NOTFOUND") if value is None else _CommandEffect(False, value, (("value", value),))
        case ("PUT", _, new):
            return _CommandEffect(True, new)
        case ("DEL", _):
            return _CommandEffect(value is not None, None, (("deleted", int(value is not None)),))
        case ("CAS", _, must_exist, old, new):
            agrees = value == old if must_exist else value is None
            return _CommandEffect(True, new) if agrees else _refused(value, "CONFLICT")
        case ("INCR", _, step):
            number = 0 if value is None else integer_in(value.encode())
            if number is None or not -INTEGER_BOUND <= number + step < INTEGER_BOUND:
                return _refused(value, "CONFLICT")
            return _CommandEffect(True, str(number + step), (("value", str(number + step)),))
        case ("APPEND", _, text):
            longer = (value or "") + text
            return _CommandEffect(True, longer, (("value", longer),))
        case ("PUTHASH", _, text):
            previous = value or ""
            return _CommandEffect(True, str(fnv1a_32((previous + text).encode())), (("previous", previous),))
    raise ValueError(f"{command} is no normalised command on one key")


def _holds(state: Register, revision: int) -> bool | None:
    """Whether the condition of an IF holds in this state: the key has the revision `revision`; for 0 it is absent, for
    -1 it is there. None if that cannot be told, because no answer so far has shown the revision."""
    if state.value is None or revision <= 0:
        return (revision == 0) == (state.value is None)
    if state.revision is None:
        return None if revision > state.floor else False
    return state.revision == revision


def _grows(outcome: _CommandEffect, value: str | None) -> bool:
    """Whether a command with this `outcome` makes the key larger, whose value was `value` before (None: absent). Only
    then a quota may refuse the command (`QuotaChecker` says if it must).
    """
    if outcome.value is None or outcome.refusal is not None:
        return False
    return value is None or len(outcome.value.encode()) > len(value.encode())


def _refused(value: str | None, code: str) -> _CommandEffect:
    return _CommandEffect(False, value, refusal=code)


def _fits(outcome: _CommandEffect, answer: Result) -> bool:
    if isinstance(answer, Refused):
        return answer.code == outcome.refusal
    return outcome.refusal is None and all(pair in answer.fields for pair in outcome.fields)


def _seen(state: Register, revision: int | None) -> Register | None:
    """The state after a GET whose answer shows `revision`; None if that cannot be the revision of the latest change.

    The GET may be the first answer that shows the revision of this change.
    """
    if revision is None or revision == state.revision:
        return state
    if state.revision is None and revision > state.floor:
        return Register(state.value, revision, revision)
    return None


def _written(state: Register, outcome: _CommandEffect, revision: int | None) -> Register | None:
    if revision is not None and revision <= state.floor:
        return None
    floor = state.floor if revision is None else revision
    if not outcome.writes:
        return state._replace(floor=floor)
    return Register(outcome.value, None if outcome.value is None else revision, floor)
