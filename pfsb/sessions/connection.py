"""One client of this server: its session, the numbers of its commands, and its answers, once each (design part 5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from pfsb.interfaces import PENDING, Answer, Command, Done, Refused, Result
from pfsb.sessions import bundle
from pfsb.sessions.bundler import Bundler
from pfsb.sessions.machine import CLOSE, OPEN

if TYPE_CHECKING:
    from pfsb.sessions.desk import Desk

SHUTDOWN = Refused("SHUTDOWN", "this server is stopping; another one will answer")


@define(eq=False)
class Numbered:
    """A numbered command without its answer: it waits, is under way, or has run and is PENDING."""

    answers: list[Answer] = field(factory=list)
    """One for each time the client has asked under this number and not been told."""
    pending: bool = False
    """It has run; its answer is the application's to give."""


class ClientConnection:
    """Anonymous until `hello`. Answers come behind the door; `unanswered` counts those still owed."""

    def __init__(self, desk: Desk, client_id: str, ended: Callable[[str, str], None]) -> None:
        self._desk = desk
        self._ended = ended
        self.client_id = client_id
        self.epoch = 0
        self.unanswered = 0
        self._highest = 0
        """The highest number in use: new ones must be above it."""
        self._numbered: dict[int, Numbered] = {}
        self._over: Refused | None = None
        """Why this session takes nothing more."""
        self._changing = False
        """HELLO or BYE is under way: that the session ends here is no news."""
        self._is_here = True
        self._speak_for(client_id, 0, 0, client_id, opens=True)

    # ------------------------------------------------------------------ commands and questions

    def submit(self, number: int | None, command: Command, answer: Answer) -> None:
        """Through the log: what changes something, once for each number; and questions, in their place.

        `number` None stands for the next one. The answer may come at once if it is a refusal.
        """
        self.unanswered += 1
        answer = partial(self._told, answer)
        refusal = SHUTDOWN if self._desk.draining else self._over
        if refusal is not None:
            answer(refusal)
        elif not self._desk.machine.changes(command):
            self._add(0, command, partial(self._desk.tell, answer))
        elif number is None or number > self._highest:
            self._highest = self._highest + 1 if number is None else number
            self._numbered[self._highest] = Numbered([answer])
            self._add(self._highest, command, partial(self._settle, self._highest))
        elif number in self._numbered:
            self._join(number, answer)
        else:
            self._desk.replica.perform(self._look_up, number, answer)

    def ask(self, command: Command, answer: Answer) -> None:
        """A question, answered from this server's own state (read=sequential, read=stale)."""
        self.unanswered += 1
        self._desk.replica.perform(self._ask, command, partial(self._told, answer))

    def completed(self, number: int, result: Result) -> None:
        """In a turn: the answer of a command. It stays in use if its fate is not known yet."""
        numbered = self._numbered.get(number)
        if numbered is None:
            return
        answers, numbered.answers = numbered.answers, []
        for answer in answers:
            self._desk.tell(answer, result)
        if isinstance(result, Refused) and result.code == "UNAVAILABLE":
            if result.fate == "unknown":
                return
            self._highest = min(self._highest, number - 1)  # it was not sent: the number can be used again
        del self._numbered[number]

    def _add(self, number: int, command: Command, settle: Callable[[Any], None]) -> None:
        self.bundler.add(number, command, self._desk.clock.seconds(), settle)
        self._desk.make_ready(self.bundler)

    def _settle(self, number: int, result: Any) -> None:
        """In a turn: what the log made of a numbered command."""
        if result is PENDING:
            numbered = self._numbered.get(number)
            if numbered is not None:  # it may have been completed later in its own bundle
                numbered.pending = True
        else:
            self.completed(number, result)

    def _join(self, number: int, answer: Answer) -> None:
        """The client asks again for what is under way, perhaps after it was told UNAVAILABLE."""
        self._numbered[number].answers.append(answer)
        for request in self.bundler.outstanding:
            if request.number == number:
                request.settle = partial(self._settle, number)
                request.asked_at = self._desk.clock.seconds()

    def _look_up(self, number: int, answer: Answer) -> None:
        """In a turn: a number that was used, and is not under way here."""
        session = self._desk.machine.sessions.get(self.client_id)
        if session is None or number > session.last_number:
            text = f"number {number} comes after {self._highest}: numbers only grow"
            self._desk.tell(answer, Refused("BADREQUEST", text))
            return
        result = self._desk.machine.answer_of(session, number)
        if result is PENDING:
            self._numbered[number] = Numbered([answer], pending=True)
        else:
            self._desk.tell(answer, result)

    def _ask(self, command: Command, answer: Answer) -> None:
        self._desk.tell(answer, self._desk.machine.question(command))

    def _told(self, answer: Answer, result: Result) -> None:
        self.unanswered -= 1
        if self._is_here:
            answer(result)

    # ------------------------------------------------------------------ the session

    def hello(self, client_id: str, ttl_seconds: int, answer: Answer) -> None:
        """Open the session `client_id`, or take it over. Comes first: nothing was submitted here before."""
        assert self.bundler.idle and not self.bundler.introduced, "a connection speaks for one session"
        self._change((OPEN, client_id, ttl_seconds * 1000), partial(self._opened, client_id), answer)

    def bye(self, answer: Answer) -> None:
        """Close the session, once all that was asked before is through."""
        if not self.bundler.idle:
            self.bundler.on_idle = partial(self.bye, answer)
        elif self.epoch or self.bundler.introduced:
            self._change((CLOSE, self.client_id, self.epoch), self._closed, answer)
        else:
            answer(Done())

    def disconnected(self) -> None:
        """The connection is gone. A session with a name waits for `ttl` for its client to come back."""
        if self._is_here:
            self._is_here = False
            self._desk.gone(self)
            self._desk.let_go(self)

    def session_ended(self, refusal: Refused) -> None:
        """In a turn: taken over, closed or expired. What is under way gets its own answer."""
        self._over = refusal
        for number in [n for n, numbered in self._numbered.items() if numbered.pending]:
            self.completed(number, refusal)
        if not self._changing:
            self._desk.replica.turn.call(self._tell_end, refusal)

    def _tell_end(self, refusal: Refused) -> None:
        if self._is_here:
            self._ended(refusal.code, refusal.text)

    def _change(self, operation: Command, changed: Callable[[Result], None], answer: Answer) -> None:
        self.unanswered += 1
        answer = partial(self._told, answer)
        if self._desk.draining:
            answer(SHUTDOWN)
            return
        self._changing = True
        self._desk.operate(operation, partial(self._changed, changed, answer))

    def _changed(self, changed: Callable[[Result], None], answer: Answer, result: Result) -> None:
        """In a turn: the operation is executed, or was refused."""
        self._changing = False
        changed(result)
        self._desk.tell(answer, result)

    def _opened(self, client_id: str, result: Result) -> None:
        """This connection speaks for the session now, if it is still there to do so."""
        if isinstance(result, Done) and self._is_here:
            self._desk.let_go(self)
            fields = dict(result.fields)
            epoch, last = int(fields["epoch"]), int(fields["last"])
            self._speak_for(client_id, epoch, last, bundle.named(client_id, epoch), opens=False)

    def _closed(self, result: Result) -> None:
        if isinstance(result, Done):
            self._over = Refused("NOSESSION", f"session {self.client_id} is closed")

    def _speak_for(self, client_id: str, epoch: int, last: int, update_client_id: str, *, opens: bool) -> None:
        self.client_id, self.epoch = client_id, epoch
        self._highest = last
        self._numbered = {}
        self._over = None
        self.bundler = Bundler(update_client_id, self._desk.server_id, epoch, opens=opens)
        self._desk.hold(self)
