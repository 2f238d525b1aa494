"""One client of this server: its session, the numbers of its commands, and its answers, once each (design part 5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from pfsb.interfaces import PENDING, Answer, BadRequest, Command, Done, Refused, Result
from pfsb.paxos.replica import Replica
from pfsb.sessions import bundle
from pfsb.sessions.bundler import NOT_SENT, OUTLIVED, UNKNOWN, Bundler
from pfsb.sessions.machine import CLOSE, OPEN, SessionMachine, replaced

SHUTDOWN = Refused("SHUTDOWN", "this server is stopping; another one will answer")
BUSY = Refused("BUSY", "too much is under way here for clients that are gone; another server may have room")


class ServedBy(Protocol):
    """What a connection asks of the desk that it stands at (`pfsb.sessions.desk`)."""

    server_id: int
    replica: Replica
    machine: SessionMachine
    clock: IReactorTime
    draining: bool

    @property
    def is_busy(self) -> bool: ...

    def operate(self, command: Command, settle: Callable[[Any], None]) -> None: ...

    def make_ready(self, bundler: Bundler) -> None: ...

    def hold(self, connection: ClientConnection) -> None: ...

    def let_go(self, connection: ClientConnection) -> None: ...

    def gone(self, connection: ClientConnection) -> None: ...

    def tell(self, answer: Answer, result: Result) -> None: ...


@define(eq=False)
class Numbered:
    """A numbered command without its answer: it waits, is under way, or has run and is PENDING."""

    answers: list[Answer] = field(factory=list)
    """One for each time the client has asked under this number and not been told."""
    pending: bool = False
    """It has run; its answer is the application's to give."""


@frozen
class Goodbye:
    """A BYE that waits for what was asked before it."""

    asked_at: float
    answer: Answer


class ClientConnection:
    """Anonymous until `hello`. Answers come behind the door; `unanswered` counts those still owed."""

    def __init__(self, desk: ServedBy, client_id: str, ended: Callable[[str, str], None]) -> None:
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
        self._goodbye: Goodbye | None = None
        self._is_here = True
        self._speak_for(client_id, 0, 0, client_id, opens=True)

    # ------------------------------------------------------------------ commands and questions

    def submit(self, number: int | None, command: Command, answer: Answer) -> None:
        """Through the log: what changes something, once for each number; and questions, in their place.

        `number` None stands for the next one. The answer may come at once if it is a refusal.
        Raises, without any effect, if the command cannot be encoded.
        """
        encoded = bundle.encode_command(command)
        self.unanswered += 1
        answer = partial(self._told, answer)
        refusal = self._refusal(number)
        if refusal is not None:
            answer(refusal)
        elif not self._desk.machine.changes(command):
            self._add(0, encoded, partial(self._desk.tell, answer))
        elif number is None or number > self._highest:
            self._highest = self._highest + 1 if number is None else number
            self._numbered[self._highest] = Numbered([answer])
            self._add(self._highest, encoded, partial(self._settle, self._highest))
        elif number in self._numbered:
            self._join(number, answer)
        else:
            self._desk.replica.perform(self._look_up, number, answer)

    def ask(self, command: Command, answer: Answer) -> None:
        """A question, answered from this server's own state (read=sequential, read=stale)."""
        self.unanswered += 1
        self._desk.replica.perform(self._ask, command, partial(self._told, answer))

    def completed(self, number: int, result: Result) -> None:
        """In a turn: a command has its answer, and its number is no longer in use."""
        numbered = self._numbered.pop(number, None)
        if numbered is not None:
            self._tell_all(numbered, result)

    def refuse_asked_before(self, oldest: float) -> None:
        """In a turn: nothing goes without an answer for longer than `request_seconds`."""
        self.bundler.refuse_asked_before(oldest)
        if self._goodbye is not None and self._goodbye.asked_at < oldest:
            goodbye, self._goodbye = self._goodbye, None
            self._desk.tell(goodbye.answer, UNKNOWN)

    def _refusal(self, number: int | None) -> Refused | None:
        """Why no command is taken now. Of a number that is in use already, that does not tell the fate."""
        is_used = number is not None and number <= max(self._highest, self._desk.machine.last_number(self.client_id))
        refusal = SHUTDOWN if self._desk.draining else self._over
        if refusal is None and self._desk.is_busy and not is_used:
            return BUSY
        return evolve(refusal, fate="unknown") if refusal is not None and is_used else refusal

    def _add(self, number: int, encoded_command: bytes, settle: Callable[[Any], None]) -> None:
        self.bundler.add(number, encoded_command, self._desk.clock.seconds(), settle)
        self._desk.make_ready(self.bundler)

    def _settle(self, number: int, result: Any) -> None:
        """In a turn: what the log made of a numbered command."""
        if result is PENDING or result is UNKNOWN:
            self._is_not_over(number, result)
            return
        if result is NOT_SENT or result is OUTLIVED:
            self._highest = min(self._highest, number - 1)  # it did not run: the number can be used again
        self.completed(number, result)

    def _is_not_over(self, number: int, result: Any) -> None:
        """The number stays in use, whether the client hears of it now or not."""
        numbered = self._numbered.get(number)
        if numbered is None:
            return  # PENDING, and completed later in its own bundle
        if result is PENDING:
            numbered.pending = True
        else:
            self._tell_all(numbered, result)

    def _tell_all(self, numbered: Numbered, result: Result) -> None:
        answers, numbered.answers = numbered.answers, []
        for answer in answers:
            self._desk.tell(answer, result)

    def _join(self, number: int, answer: Answer) -> None:
        """The client asks again for what is under way, perhaps after it was told UNAVAILABLE."""
        self._numbered[number].answers.append(answer)
        self.bundler.ask_again(number, self._desk.clock.seconds())

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
        """Open the session `client_id`, or take it over. Comes first: nothing was submitted here before.

        Raises `BadRequest` for a client id that could be a server's own or an anonymous one.
        """
        if client_id[:1] in ("", bundle.SERVER, bundle.ANONYMOUS):
            raise BadRequest(f"a client id is not empty and does not begin with {bundle.SERVER} or {bundle.ANONYMOUS}")
        assert self.bundler.idle and not self.bundler.introduced, "a connection speaks for one session"
        self.unanswered += 1
        answer = partial(self._told, answer)
        if self._desk.draining:
            answer(SHUTDOWN)
        else:
            self._change((OPEN, client_id, ttl_seconds * 1000), partial(self._opened, client_id), answer)

    def bye(self, answer: Answer) -> None:
        """Close the session, once all that was asked before is through."""
        self.unanswered += 1
        answer = partial(self._told, answer)
        if self._desk.draining:
            answer(SHUTDOWN)
        elif not self.bundler.idle:
            self._goodbye = Goodbye(self._desk.clock.seconds(), answer)
            self.bundler.on_idle = self._say_goodbye
        elif self.epoch or self.bundler.introduced:
            self._close(answer)
        else:
            answer(Done())

    def disconnected(self) -> None:
        """The connection is gone. A session with a name waits for `ttl` for its client to come back."""
        if self._is_here:
            self._is_here = False
            self._desk.gone(self)
            self._desk.let_go(self)

    def session_ended(self, refusal: Refused) -> None:
        """In a turn: taken over, closed or expired. What is under way gets its own answer.

        What is PENDING may still be granted to whoever has taken the session over.
        """
        self._over = refusal
        for number in [n for n, numbered in self._numbered.items() if numbered.pending]:
            self.completed(number, evolve(refusal, fate="unknown"))
        if not self._changing:
            self._desk.replica.turn.call(self._tell_end, refusal)

    def _tell_end(self, refusal: Refused) -> None:
        if self._is_here:
            self._ended(refusal.code, refusal.text)

    def _say_goodbye(self) -> None:
        """In a turn: what was asked before BYE is through."""
        if self._goodbye is not None:
            goodbye, self._goodbye = self._goodbye, None
            self._close(goodbye.answer)

    def _close(self, answer: Answer) -> None:
        self._change((CLOSE, self.client_id, self.epoch), self._closed, answer)

    def _change(self, operation: Command, changed: Callable[[Result], None], answer: Answer) -> None:
        self._changing = True
        self._desk.operate(operation, partial(self._changed, changed, answer))

    def _changed(self, changed: Callable[[Result], None], answer: Answer, result: Result) -> None:
        """In a turn: the operation is executed, or was refused."""
        self._changing = False
        self._desk.tell(answer, result)
        changed(result)

    def _opened(self, client_id: str, result: Result) -> None:
        """This connection speaks for the session now, if it is still there to do so."""
        if isinstance(result, Done) and self._is_here:
            self._desk.let_go(self)
            fields = dict(result.fields)
            epoch, last = int(fields["epoch"]), int(fields["last"])
            self._speak_for(client_id, epoch, last, bundle.named(client_id, epoch), opens=False)
            if not self._desk.machine.is_open(client_id, epoch):  # taken over in the very bundle that opened it
                self.session_ended(replaced(client_id))

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
