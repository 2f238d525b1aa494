"""The specification of the chat, for the linearizability checker (docs/protocol.rst)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from pfsb.applications.arguments import quoted, row_limit
from pfsb.applications.interfaces import Command, Done, Fields, Refused, Result
from pfsb.simulator.linearizability.operations import Operation, is_refusal, number_in

_Line = tuple[str, str]
"""One line of the chat: (id of the client that said it, text)."""


class ChatSpecification:
    """A list of lines that only grows: SAY returns the index of its line, LOG returns lines without gaps.

    Before the search, the lines are collected from all answers, in the order of their returns. If two answers show
    different lines at one index, the earlier answer is taken as right, and the later one fits no state. The state need
    therefore only be the number of lines.
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
        """The place of an operation in every right order (`Specification.position`), as its answer shows it.

        It is twice the index of the line for a SAY. It is twice the index of the last shown line, plus 1, for a LOG
        that has shown the chat to its end: such a LOG comes behind the SAY of that line, and before the SAY of the next
        line. None: the answer shows no position.
        """
        if operation.command[0] == "SAY":
            index = number_in(operation.answer, "index")
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
        """The state after a SAY; None if the answer to the SAY does not fit.

        The refusal TOOLARGE always fits, and changes nothing; `QuotaChecker` says whether a quota must refuse a SAY.
        """
        if operation.answer is not None and is_refusal(operation.answer, "TOOLARGE"):
            return length
        said = (operation.client, operation.command[1])
        index = length + 1
        told = number_in(operation.answer, "index")
        if isinstance(operation.answer, Refused) or told not in (None, index):
            return None
        return index if self._lines.get(index, said) == said else None


def _lines_seen(operation: Operation) -> dict[int, _Line]:
    """The lines of the chat that the answer to a SAY or LOG shows, by index."""
    match operation.command, operation.answer:
        case ("SAY", text), Done() as answer:
            index = number_in(answer, "index")
            return {} if index is None else {index: (operation.client, text)}
        case ("LOG", *_), Done(rows=rows):
            return {row["index"]: (row["client"], row["text"]) for row in map(_as_dict, rows)}
    return {}


def _as_dict(row: Fields) -> dict[str, Any]:
    return dict(row)


def _log(length: int, command: Command, answer: Result) -> int | None:
    """The state after a LOG, which changes nothing; None if the answer to the LOG does not fit.

    An answer fits if it shows the lines from the index that the LOG names on, as many as the limit of the LOG allows.
    """
    _, first, limit = command
    start = max(first, 1)
    if isinstance(answer, Refused):
        return None
    shown = [dict(row)["index"] for row in answer.rows]
    count = min(max(length - start + 1, 0), row_limit(limit))
    return length if shown == list(range(start, start + count)) else None


def _is_cut(operation: Operation) -> bool:
    """Whether the answer to a LOG has as many rows as its limit allows, so that the chat may have more lines."""
    return isinstance(operation.answer, Done) and len(operation.answer.rows) >= row_limit(operation.command[2])
