"""One client of this server: its session, the numbers of its commands, and its answers, once each.

See docs/internals/sessions.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from pfsb.applications.interfaces import PENDING, Answer, BadRequest, Command, Done, Refused, Result
from pfsb.paxos.replica import Replica
from pfsb.sessions import bundle
from pfsb.sessions.bundler import NOT_SENT, TOO_OLD, UNKNOWN, Bundler, Request
from pfsb.sessions.state_machine import CLOSE, OPEN, SessionStateMachine, replaced

SHUTDOWN = Refused("SHUTDOWN", "this server is stopping; another one will answer")
BUSY = Refused("BUSY", "too much is under way here for clients that are gone; another server may have room")


class ConnectionHost(Protocol):
    """What a connection asks of the desk that it stands at (`pfsb.sessions.local_clients`)."""

    replica: Replica
    machine: SessionStateMachine
    clock: IReactorTime
    draining: bool

    @property
    def is_busy(self) -> bool: ...

    def operate(self, command: Command, settle: Callable[[Any], None]) -> None: ...

    def make_ready(self, bundler: Bundler) -> None: ...

    def read(self, ready: Callable[[bool], None]) -> None: ...

    def hold(self, connection: ClientConnection) -> None: ...

    def let_go(self, connection: ClientConnection) -> None: ...

    def gone(self, connection: ClientConnection) -> None: ...

    def tell(self, answer: Callable[[Any], None], result: Any) -> None: ...


AnswerAll = Callable[[Sequence[Result]], None]
"""Like `Answer`, for commands that were asked together: called once, with a result for each, in their order."""


def _one(answer: Answer, results: Sequence[Result]) -> None:
    answer(results[0])


@define(eq=False)
class Asked:
    """Commands that were asked together: they wait, or are under way."""

    numbers: Sequence[int]
    """Growing; 0 for a question among them."""
    answer: AnswerAll | None
    """None when it was called: with `UNKNOWN`, perhaps."""
    again: list[tuple[int, Answer]] = field(factory=list)
    """(number, answer) of a client that repeats one of them before it has the final answer."""

    @property
    def highest(self) -> int:
        """0 if there are only questions."""
        return max(self.numbers)

    @property
    def lowest(self) -> int:
        return min(number for number in self.numbers if number)


@frozen
class Goodbye:
    """A BYE that waits for what was asked before it."""

    asked_at: float
    answer: Answer


class ClientConnection:
    """Anonymous until `hello`. Answers come behind the door; `unanswered` counts those still owed."""

    def __init__(self, desk: ConnectionHost, client_id: str, ended: Callable[[str, str], None]) -> None:
        self._desk = desk
        self._ended = ended
        self.client_id = client_id
        self.epoch = 0
        self.unanswered = 0
        self._highest = 0
        """The highest number in use: new ones must be above it."""
        self._asked: dict[int, Asked] = {}
        """What is under way, by the highest number in it."""
        self._pending: dict[int, Asked] = {}
        """Commands that have run, and whose answer is the application's to give."""
        self._over: Refused | None = None
        """Why this session takes nothing more."""
        self._changing = False
        """HELLO or BYE is under way: that the session ends here is no news."""
        self._reading = 0
        """Questions under way beside the log; commands wait for their answers."""
        self._goodbye: Goodbye | None = None
        self._is_here = True
        self._speak_for(client_id, 0, 0, opens=True)

    # ------------------------------------------------------------------ commands and questions

    def submit(self, number: int | None, command: Command, answer: Answer) -> None:
        """What changes something, once for each number, through the log; and questions, in their place.

        A question goes through the log if commands of this client are under way; else it is only made sure that this
        server has seen all that was answered before (Departure 24), and what the client asks after it waits for it.

        `number` None stands for the next one. The answer may come at once if it is a refusal.
        Raises, without any effect, if the command cannot be encoded.
        """
        is_question = not self._desk.machine.changes(command)
        refusal = self._refusal(number)
        number = self._highest + 1 if number is None else number
        entry_number = 0 if is_question else number
        encoded = bundle.encode_entries([(entry_number, command)])
        self.unanswered += 1
        answer = partial(self._told, answer)
        if refusal is not None:
            answer(refusal)
        elif is_question and self.bundler.idle:
            self._read([command], encoded, partial(_one, answer))
        elif is_question or number > self._highest:
            self._add([entry_number], encoded, partial(_one, answer), self._desk.clock.seconds())
        elif (asked := self._in_use(number)) is not None:
            self._join(asked, number, answer)
        else:
            self._desk.replica.perform(self._look_up, number, answer)

    def submit_all(
        self, numbers: Sequence[int | None], commands: Sequence[Command], place: Callable[[], AnswerAll]
    ) -> bool:
        """Like `submit` for each in turn, at a third of the cost: for a pipelining client, whose lines come together.

        `place` is asked for what to answer. False, without any effect, if something about them needs a closer look:
        then each is to be submitted by itself. None of them must be one that `waits`. Raises like `submit`.
        """
        if self._desk.draining or self._over is not None or self._desk.is_busy:
            return False
        highest = self._highest
        entries: list[bundle.Entry] = []
        changes = self._desk.machine.changes
        for number, command in zip(numbers, commands, strict=True):
            if changes(command):
                if number is not None and number <= highest:
                    return False
                highest = highest + 1 if number is None else number
                entries.append((highest, command))
            else:
                entries.append((0, command))
        encoded = bundle.encode_entries(entries)
        self.unanswered += len(entries)
        answer = partial(self._all_told, place())
        if highest == self._highest and self.bundler.idle:
            self._read(commands, encoded, answer)
        else:
            self._add([number for number, _ in entries], encoded, answer, self._desk.clock.seconds())
        return True

    def ask(self, question: Command, answer: Answer) -> None:
        """A question, answered from this server's own state (read=sequential, read=stale)."""
        self.ask_all([question], partial(_one, answer))

    def ask_all(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        """Like `ask` for each in turn."""
        self.unanswered += len(questions)
        self._desk.replica.perform(self._answer, questions, partial(self._all_told, answer))

    def completed(self, number: int, result: Result) -> None:
        """In a turn: a command that was PENDING has its answer, and its number is no longer in use.

        Perhaps it was completed in its own bundle, and is not known as PENDING here.
        """
        asked = self._pending.pop(number, None) or self._asked.pop(number, None)
        if asked is not None:
            self._tell(asked, [result])

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

    def _add(self, numbers: Sequence[int], encoded_entries: bytes, answer: AnswerAll, asked_at: float) -> None:
        asked = Asked(numbers, answer)
        if asked.highest:
            self._highest = asked.highest
            self._asked[asked.highest] = asked
        self.bundler.add(Request(numbers, encoded_entries, asked_at, partial(self._settle, asked)))
        if not self._reading:
            self._desk.make_ready(self.bundler)

    def _read(self, questions: Sequence[Command], encoded_entries: bytes, answer: AnswerAll) -> None:
        self._reading += 1
        self._desk.read(partial(self._may_read, questions, encoded_entries, answer, self._desk.clock.seconds()))

    def _may_read(
        self,
        questions: Sequence[Command],
        encoded_entries: bytes,
        answer: AnswerAll,
        asked_at: float,
        is_certain: bool,
    ) -> None:
        """In a turn: this server has executed all that matters, or the log must tell."""
        self._reading -= 1
        if is_certain:
            self._answer(questions, answer)
        elif self._is_here:
            self._add([0] * len(questions), encoded_entries, answer, asked_at)
        if not self._reading and not self.bundler.idle:
            self._desk.make_ready(self.bundler)

    def _settle(self, asked: Asked, results: Sequence[Any]) -> None:
        """In a turn: what the log made of what was asked together.

        After `UNKNOWN` and PENDING the numbers stay in use; what may be PENDING is always asked by itself.
        """
        first = results[0]
        if first is not UNKNOWN and self._asked.pop(asked.highest, None) is not None:
            if first is PENDING:
                self._pending[asked.highest] = asked
            elif first is NOT_SENT or first is TOO_OLD:
                self._highest = min(self._highest, asked.lowest - 1)  # none ran: the numbers can be used again
        if first is not PENDING:
            self._tell(asked, results)

    def _tell(self, asked: Asked, results: Sequence[Result]) -> None:
        answer, asked.answer = asked.answer, None
        if answer is not None:
            self._desk.tell(answer, results)
        again, asked.again = asked.again, []
        for number, repeated in again:
            self._desk.tell(repeated, results[asked.numbers.index(number)])

    def _in_use(self, number: int) -> Asked | None:
        """What is under way or PENDING under this number."""
        if number in self._pending:
            return self._pending[number]
        return next((asked for asked in self._asked.values() if number in asked.numbers), None)

    def _join(self, asked: Asked, number: int, answer: Answer) -> None:
        """The client asks again for what is under way, perhaps after it was told UNAVAILABLE."""
        asked.again.append((number, answer))
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
            self._pending[number] = Asked((number,), None, [(number, answer)])
        else:
            self._desk.tell(answer, result)

    def _answer(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        self._desk.tell(answer, [self._desk.machine.question(question) for question in questions])

    def _told(self, answer: Answer, result: Result) -> None:
        self.unanswered -= 1
        if self._is_here:
            answer(result)

    def _all_told(self, answer: AnswerAll, results: Sequence[Result]) -> None:
        self.unanswered -= len(results)
        if self._is_here:
            answer(results)

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
        for number in list(self._pending):
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
            self._speak_for(client_id, epoch, last, opens=False)
            if not self._desk.machine.is_open(client_id, epoch):  # taken over in the very bundle that opened it
                self.session_ended(replaced(client_id))

    def _closed(self, result: Result) -> None:
        if isinstance(result, Done):
            self._over = Refused("NOSESSION", f"session {self.client_id} is closed")

    def _speak_for(self, client_id: str, epoch: int, last: int, *, opens: bool) -> None:
        self.client_id, self.epoch = client_id, epoch
        self._highest = last
        self._asked = {}
        self._pending = {}
        self._over = None
        self.bundler = Bundler(client_id, epoch, opens=opens)
        self._desk.hold(self)
