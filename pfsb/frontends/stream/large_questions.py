"""LargeQuestions: lets questions with many rows in their answers take turns, over all clients of a server.

Such a question takes a thousand times as long as a usual one, and its answer as much memory. If each client could ask
as many as its window holds, a few clients would keep the server from everything else for seconds. So a connection has
one large question under way, and all connections together have questions for `ROWS_UNDER_WAY_MAX` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.applications.interfaces import Command, Refused
from pfsb.frontends.stream.reply_queue import ROWS_AT_ONCE, EndOfIteration

ROWS_UNDER_WAY_MAX: Final = 10_000
"""Number of rows, at most, that the answers may have to all large questions that are under way together; one question
may have more, alone. A reading of so many rows from the state takes some ten milliseconds."""


def rows_of(application: Any) -> Mapping[str, Callable[[Command], int]]:
    """Verb -> function that gives the number of rows that the answer to a question of this application may have.

    An application that has no `answer_rows` says nothing about its questions, and they count as small.
    """
    found: Mapping[str, Callable[[Command], int]] = getattr(application, "answer_rows", {})
    return found


def is_large_question(rows: int) -> bool:
    """Whether a question is large whose answer may have so many rows."""
    return rows > ROWS_AT_ONCE


@define(eq=False)
class LargeQuestions:
    """The large questions of all clients of one server, in the order in which they came."""

    _iteration_end: EndOfIteration
    _clock: IReactorTime
    _seconds_max: float
    """How long, in seconds, a question waits for its turn before it is refused."""
    _rows_under_way: int = field(init=False, default=0)
    """The sum of the rows that the answers may have to all questions that are under way."""
    _waiting: dict[LargeQuestion, None] = field(init=False, factory=dict)
    _start_is_due: bool = field(init=False, default=False)
    """True from the start of a question until the end of the reactor's iteration: one is started in each."""

    def ask(self, question: LargeQuestion) -> None:
        """Starts a question when it is its turn: perhaps at once."""
        self._waiting[question] = None
        if not self._start_is_due:
            self._start_next()
        if question in self._waiting:
            question.wait(self._clock, self._seconds_max)

    def over(self, question: LargeQuestion) -> None:
        """Called when a question has its answer, or its client is gone."""
        if question.is_under_way:
            self._rows_under_way -= question.rows
            self._start_later()
        self._waiting.pop(question, None)

    def _start_next(self) -> None:
        """Starts the first question that waits, if its rows fit beside those that are under way."""
        self._start_is_due = False
        question = next(iter(self._waiting), None)
        if question is None or (self._rows_under_way and self._rows_under_way + question.rows > ROWS_UNDER_WAY_MAX):
            return
        del self._waiting[question]
        self._rows_under_way += question.rows
        self._start_later()
        question.start()

    def _start_later(self) -> None:
        if not self._start_is_due:
            self._start_is_due = True
            self._iteration_end.call_in_turn(self._start_next)


@define(eq=False)
class LargeQuestion:
    """One large question: it waits for its turn, then it is under way, then it is over."""

    _questions: LargeQuestions
    rows: int
    """Number of rows that its answer may have."""
    _start: Callable[[], None]
    """Asks the question: called once, when it is its turn."""
    _refuse: Callable[[Refused], None]
    """Called, once, instead of `_start`, if its turn does not come in time."""
    is_under_way: bool = field(init=False, default=False)
    _timeout: IDelayedCall | None = field(init=False, default=None)

    def ask(self) -> None:
        """Waits for the turn of this question. `over` must be called when it has its answer, or its client is gone."""
        self._questions.ask(self)

    def over(self) -> None:
        """Lets other questions have their turn. A second call has no effect."""
        self._end_wait()
        self._questions.over(self)
        self.is_under_way = False

    def wait(self, clock: IReactorTime, seconds: float) -> None:
        """Refuses the question if its turn has not come within so many seconds."""
        self._timeout = clock.callLater(seconds, self._too_late)

    def start(self) -> None:
        self._end_wait()
        self.is_under_way = True
        self._start()

    def _end_wait(self) -> None:
        timeout, self._timeout = self._timeout, None
        if timeout is not None and timeout.active():
            timeout.cancel()

    def _too_late(self) -> None:
        self.over()
        self._refuse(
            Refused("BUSY", "this server answers too many questions with long answers; ask for fewer rows, or later")
        )
