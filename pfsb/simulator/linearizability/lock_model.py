"""The specification of one lock, for the linearizability checker (docs/protocol.rst)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from pfsb.applications.arguments import absent
from pfsb.applications.interfaces import Done, Refused
from pfsb.simulator.linearizability.operations import Operation, is_refusal, number_in


class LockState(NamedTuple):
    """The state of one lock: its holder, and its fencing tokens as far as answers show them."""

    holder: str | None = None
    token: int | None = None
    """The token of the holder; None if there is no holder, or if no answer has shown the token."""
    floor: int = 0
    """The highest token in the answers to the operations that are in the order so far; 0: they show none.

    The next grant must have a higher token.
    """


class LockSpecification:
    """A lock with one holder at a time, whose grants have growing tokens. A holder that asks again keeps its token.

    HELD and TIMEOUT are right answers to a client only while another client holds the lock, NOTHELD only while the
    client itself does not hold it. TOOLARGE (the client has too many other locks) is right while the client does
    not hold this one.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        """Ignore `operations`: all locks have the same specification, whatever was asked of them."""

    def start(self) -> LockState:
        return LockState()

    def step(self, state: LockState, operation: Operation) -> LockState | None:
        match operation.command:
            case ("LOCK" | "TRYLOCK" as verb, *_):
                return self._lock(state, operation, refusal="HELD" if verb == "TRYLOCK" else "TIMEOUT")
            case ("UNLOCK", _, token):
                return self._unlock(state, operation, None if token == absent else token)
            case _:
                return LockState(floor=state.floor) if state.holder == operation.client else state

    def position(self, operation: Operation) -> int | None:
        """The place of an operation in every right order (`Specification.position`), as its answer shows it.

        It is twice the token for a grant of the lock, and twice the token, plus 1, for an UNLOCK with a token: the
        UNLOCK comes behind all grants with its token, and before those with the next token. None: the answer shows no
        token.
        """
        match operation.command, operation.answer:
            case ("UNLOCK", _, token), Done():
                return None if token == absent else 2 * int(token) + 1
            case ("LOCK" | "TRYLOCK", *_), Done() as answer:
                token = number_in(answer, "token")
                return None if token is None else 2 * token
        return None

    def alike(self, operation: Operation) -> Hashable:
        return operation.client, operation.command

    def describe(self, state: LockState) -> str:
        if state.holder is None:
            return "no client holds it"
        token = "an unknown token" if state.token is None else f"token {state.token}"
        return f"{state.holder} holds it with {token}"

    @staticmethod
    def _lock(state: LockState, operation: Operation, refusal: str) -> LockState | None:
        answer = operation.answer
        if answer is not None and is_refusal(answer, "TOOLARGE"):
            return state if state.holder != operation.client else None
        if state.holder not in (None, operation.client):
            return state if answer is None or is_refusal(answer, refusal) else None
        if isinstance(answer, Refused):
            return None
        token = number_in(answer, "token")
        if state.holder is None:
            return _holds(operation.client, token, state.floor)
        if token is None or token == state.token:
            return state
        return _holds(operation.client, token, state.floor) if state.token is None else None

    @staticmethod
    def _unlock(state: LockState, operation: Operation, token: int | None) -> LockState | None:
        answer = operation.answer
        # As long as no answer has shown the holder's token, it is unknown whether an UNLOCK has the right token.
        is_surely_right = token is None or token == state.token
        may_be_right = is_surely_right or (state.token is None and (token or 0) > state.floor)
        if isinstance(answer, Refused):
            is_right = state.holder == operation.client and is_surely_right
            return state if not is_right and answer.code == "NOTHELD" else None
        if state.holder == operation.client and may_be_right:
            return LockState(floor=max(state.floor, token or 0))
        return state if answer is None else None


def _holds(client: str, token: int | None, floor: int) -> LockState | None:
    if token is None:
        return LockState(client, None, floor)
    return LockState(client, token, token) if token > floor else None
