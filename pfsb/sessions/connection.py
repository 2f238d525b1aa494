"""ClientConnection: one client of this server, the session that it speaks for, and the numbers of its commands.

At most once: a command number runs if it is above all that the session has run (`SessionStateMachine`), and this class
gives every new command a higher number than the one before. A number that the client repeats is never submitted again:
it joins its first submission while that is under way, and is answered from the session's reply cache afterwards.
Numbers are given back only when none of the commands at or above them has run, or ever will.

Fencing: bundles carry the epoch under which this connection opened its session. When another connection opens the
session, the epoch changes, and the state machine refuses what this connection has submitted or submits later.

Every answer is given behind the durability gate, in the order in which the turns give them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from pfsb.applications.interfaces import PENDING, Answer, BadRequest, Command, Done, Refused, Result
from pfsb.paxos.turn import Turn
from pfsb.sessions import bundle
from pfsb.sessions.bundler import NOT_SENT, TOO_OLD, UNKNOWN, BundlePart, Bundler
from pfsb.sessions.state_machine import CLOSE, OPEN, SessionStateMachine, replaced
from pfsb.sessions.submission import Submission

SHUTDOWN = Refused("SHUTDOWN", "this server is stopping; another one will answer")
BUSY = Refused("BUSY", "too much is under way here for clients that are gone; another server may have room")

AnswerAll = Callable[[Sequence[Result]], None]
"""Like `Answer`, for commands that were submitted together: called once, with a result for each, in their order."""


def _answer_one(answer: Answer, results: Sequence[Result]) -> None:
    answer(results[0])


@define(eq=False)
class Submitted:
    """Commands that were submitted together, and are under way or PENDING."""

    numbers: Sequence[int]
    """The number of each command, growing; 0 for a question among them."""
    answer: AnswerAll | None
    """None after the answer was given: perhaps with `UNKNOWN`, while the commands are still under way."""
    repeats: list[tuple[int, Answer]] = field(factory=list)
    """(number, answer) for each time that the client has repeated a number before its result was there."""

    @property
    def highest(self) -> int:
        """The highest number; 0 if there are only questions."""
        return max(self.numbers)

    @property
    def lowest(self) -> int:
        return min(number for number in self.numbers if number)


@frozen
class WaitingBye:
    """A BYE that waits until the commands before it have their results."""

    submitted_at: float
    answer: Answer


class ClientConnection:
    """One connection. Its session is anonymous until `hello`.

    The client sees each answer once. When the connection is gone, answers are dropped.
    """

    def __init__(
        self,
        client_id: str,
        *,
        submission: Submission,
        machine: SessionStateMachine,
        turn: Turn,
        clock: IReactorTime,
        on_session_end: Callable[[str, str], None],
        on_disconnected: Callable[[ClientConnection], None],
    ) -> None:
        """`client_id` is that of the anonymous session. `on_session_end(code, text)` is called behind the gate."""
        self._submission = submission
        self._machine = machine
        self._turn = turn
        self._clock = clock
        self._on_session_end = on_session_end
        self._on_disconnected = on_disconnected
        self.client_id = client_id
        self.epoch = 0
        self.unanswered = 0
        """How many answers this client is still owed."""
        self._highest = 0
        """The highest number in use: new commands must have higher ones."""
        self._submitted: dict[int, Submitted] = {}
        """Commands under way, by the highest number among those that were submitted together."""
        self._pending: dict[int, Submitted] = {}
        """Commands that have run and whose answer the application gives later, by number."""
        self._session_end: Refused | None = None
        """Why the session accepts no more commands; None while it does."""
        self._is_changing_session = False
        """True while HELLO or BYE is under way: the client is not told separately that its former session ends."""
        self._reads_under_way = 0
        """Reads that have begun and are not decided; commands behind them wait, so that answers keep their order."""
        self._waiting_bye: WaitingBye | None = None
        self._is_connected = True
        self._speak_for(client_id, 0, 0, opens=True)

    @property
    def unaccounted_answers(self) -> int:
        """Answers owed in a session that has ended, although nothing is under way that would give them: must be 0."""
        is_through = self.bundler.idle and not self._reads_under_way and not self._is_changing_session
        has_ended = self._session_end is not None and self._waiting_bye is None
        return self.unanswered if has_ended and is_through else 0

    # ------------------------------------------------------------------ commands and questions

    def submit(self, number: int | None, command: Command, answer: Answer) -> None:
        """Runs a command once for its number, through the log; or answers a question in its place among the commands.

        A question goes through the log if commands of this client are under way. Otherwise a read makes sure that this
        server has executed all that was answered before (Departure 24), and commands behind the question wait for it.

        `number` None stands for the next number. A refusal may be answered before this method returns.
        Raises, without any effect, if the command cannot be encoded.
        """
        is_question = not self._machine.changes(command)
        refusal = self._refusal(number)
        number = self._highest + 1 if number is None else number
        entry_number = 0 if is_question else number
        encoded = bundle.encode_entries([(entry_number, command)])
        self.unanswered += 1
        answer = partial(self._give_answer, answer)
        if refusal is not None:
            answer(refusal)
        elif is_question and self.bundler.idle:
            self._read([command], encoded, partial(_answer_one, answer))
        elif is_question or number > self._highest:
            self._submit_to_log([entry_number], encoded, partial(_answer_one, answer), self._clock.seconds())
        elif (submitted := self._submitted_with(number)) is not None:
            self._join(submitted, number, answer)
        else:
            self._turn.run(self._answer_repeated, number, answer)

    def submit_all(
        self, numbers: Sequence[int | None], commands: Sequence[Command], place: Callable[[], AnswerAll]
    ) -> bool:
        """Does what `submit` would do for each command in turn, at a third of the cost, for a pipelining client.

        Returns False, without any effect, if one of the commands needs a closer look: then the caller must `submit`
        each by itself. Otherwise `place` is called, once, for the call-back that takes the answers. No command may
        be one that `waits` (LOCK). Raises like `submit`.
        """
        if self._submission.draining or self._session_end is not None or self._submission.is_busy:
            return False
        highest = self._highest
        entries: list[bundle.Entry] = []
        changes = self._machine.changes
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
        answer = partial(self._give_answers, place())
        if highest == self._highest and self.bundler.idle:
            self._read(commands, encoded, answer)
        else:
            self._submit_to_log([number for number, _ in entries], encoded, answer, self._clock.seconds())
        return True

    def query_local(self, question: Command, answer: Answer) -> None:
        """Answers a question from this server's own state (read=sequential, read=stale)."""
        self.query_local_all([question], partial(_answer_one, answer))

    def query_local_all(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        """Answers several questions from one state of this server."""
        self.unanswered += len(questions)
        self._turn.run(self._answer_questions, questions, partial(self._give_answers, answer))

    def completed(self, number: int, result: Result) -> None:
        """In a turn: a command that was PENDING has its result, and its number is no longer in use.

        If the command was completed by another one of its own bundle, this connection has not heard of PENDING yet.
        """
        submitted = self._pending.pop(number, None) or self._submitted.pop(number, None)
        if submitted is not None:
            self._answer_submitted(submitted, [result])

    def refuse_submitted_before(self, oldest: float) -> None:
        """In a turn: no command goes without an answer for longer than `request_seconds`."""
        self.bundler.refuse_submitted_before(oldest)
        if self._waiting_bye is not None and self._waiting_bye.submitted_at < oldest:
            bye, self._waiting_bye = self._waiting_bye, None
            self._turn.call(bye.answer, UNKNOWN)

    def _refusal(self, number: int | None) -> Refused | None:
        """Why no command is accepted now; None if it is.

        If the number was used before, the command may have run: refusing to say so now leaves its fate unknown.
        """
        is_used = number is not None and number <= max(self._highest, self._machine.last_number(self.client_id))
        refusal = SHUTDOWN if self._submission.draining else self._session_end
        if refusal is None and self._submission.is_busy and not is_used:
            return BUSY
        return evolve(refusal, fate="unknown") if refusal is not None and is_used else refusal

    def _submit_to_log(
        self, numbers: Sequence[int], encoded_entries: bytes, answer: AnswerAll, submitted_at: float
    ) -> None:
        submitted = Submitted(numbers, answer)
        if submitted.highest:
            self._highest = submitted.highest
            self._submitted[submitted.highest] = submitted
        self.bundler.add(BundlePart(numbers, encoded_entries, submitted_at, partial(self._on_results, submitted)))
        if not self._reads_under_way:
            self._submission.mark_ready(self.bundler)

    def _read(self, questions: Sequence[Command], encoded_entries: bytes, answer: AnswerAll) -> None:
        self._reads_under_way += 1
        on_decided = partial(self._on_read_decided, questions, encoded_entries, answer, self._clock.seconds())
        self._submission.begin_read(on_decided)

    def _on_read_decided(
        self,
        questions: Sequence[Command],
        encoded_entries: bytes,
        answer: AnswerAll,
        submitted_at: float,
        is_current: bool,
    ) -> None:
        """In a turn: this server has executed all that the questions must see, or they have to go through the log."""
        self._reads_under_way -= 1
        if is_current:
            self._answer_questions(questions, answer)
        elif self._is_connected:
            self._submit_to_log([0] * len(questions), encoded_entries, answer, submitted_at)
        if not self._reads_under_way and not self.bundler.idle:
            self._submission.mark_ready(self.bundler)

    def _on_results(self, submitted: Submitted, results: Sequence[Any]) -> None:
        """In a turn: commands that were submitted together have run, or have certainly not run, or are UNKNOWN.

        `UNKNOWN` leaves the numbers in use: the commands may still run, and a repeated number waits for their results.
        PENDING does so, too; a command that may be PENDING is always submitted by itself. `NOT_SENT` and `TOO_OLD` are
        told of commands that never run, and of all that were submitted after them, so their numbers are given back.
        """
        first = results[0]
        if first is not UNKNOWN and self._submitted.pop(submitted.highest, None) is not None:
            if first is PENDING:
                self._pending[submitted.highest] = submitted
            elif first is NOT_SENT or first is TOO_OLD:
                self._highest = min(self._highest, submitted.lowest - 1)
        if first is not PENDING:
            self._answer_submitted(submitted, results)

    def _answer_submitted(self, submitted: Submitted, results: Sequence[Result]) -> None:
        answer, submitted.answer = submitted.answer, None
        if answer is not None:
            self._turn.call(answer, results)
        repeats, submitted.repeats = submitted.repeats, []
        for number, repeated in repeats:
            self._turn.call(repeated, results[submitted.numbers.index(number)])

    def _submitted_with(self, number: int) -> Submitted | None:
        """The commands under way or PENDING among which this number is; None if there are none."""
        if number in self._pending:
            return self._pending[number]
        return next((submitted for submitted in self._submitted.values() if number in submitted.numbers), None)

    def _join(self, submitted: Submitted, number: int, answer: Answer) -> None:
        """The client repeats a number that is under way, perhaps after it was answered UNAVAILABLE."""
        submitted.repeats.append((number, answer))
        self.bundler.note_repeated(number, self._clock.seconds())

    def _answer_repeated(self, number: int, answer: Answer) -> None:
        """In a turn: the client repeats a number that is not under way here, and is not above all that are in use."""
        session = self._machine.sessions.get(self.client_id)
        if session is None or number > session.last_number:
            text = f"number {number} comes after {self._highest}: numbers only grow"
            self._turn.call(answer, Refused("BADREQUEST", text))
            return
        result = self._machine.answer_of(session, number)
        if result is PENDING:
            self._pending[number] = Submitted((number,), None, [(number, answer)])
        else:
            self._turn.call(answer, result)

    def _answer_questions(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        self._turn.call(answer, [self._machine.question(question) for question in questions])

    def _give_answer(self, answer: Answer, result: Result) -> None:
        self.unanswered -= 1
        if self._is_connected:
            answer(result)

    def _give_answers(self, answer: AnswerAll, results: Sequence[Result]) -> None:
        self.unanswered -= len(results)
        if self._is_connected:
            answer(results)

    # ------------------------------------------------------------------ the session

    def hello(self, client_id: str, ttl_seconds: int, answer: Answer) -> None:
        """Opens the session `client_id`, or takes it over. Must come before any command on this connection.

        Raises `BadRequest` for a client id that could be a server's own or an anonymous one.
        """
        if client_id[:1] in ("", bundle.SERVER, bundle.ANONYMOUS):
            raise BadRequest(f"a client id is not empty and does not begin with {bundle.SERVER} or {bundle.ANONYMOUS}")
        assert self.bundler.idle and not self.bundler.introduced, "a connection speaks for one session"
        self.unanswered += 1
        answer = partial(self._give_answer, answer)
        if self._submission.draining:
            answer(SHUTDOWN)
        else:
            operation = (OPEN, client_id, ttl_seconds * 1000)
            self._change_session(operation, partial(self._on_opened, client_id), answer)

    def bye(self, answer: Answer) -> None:
        """Closes the session, once all commands before it have their results."""
        self.unanswered += 1
        answer = partial(self._give_answer, answer)
        if self._submission.draining:
            answer(SHUTDOWN)
        elif not self.bundler.idle:
            self._waiting_bye = WaitingBye(self._clock.seconds(), answer)
        elif self.epoch or self.bundler.introduced:
            self._close_session(answer)
        else:
            answer(Done())

    def disconnected(self) -> None:
        """The connection is gone. A session with a name waits for `ttl` for its client to come back."""
        if self._is_connected:
            self._is_connected = False
            self._on_disconnected(self)
            self._submission.detach(self)

    def session_ended(self, refusal: Refused) -> None:
        """In a turn: the session was taken over, closed or expired. Commands under way get their own answers.

        A command that is PENDING may still be completed, for the connection that has taken the session over: here its
        fate is unknown.
        """
        self._session_end = refusal
        for number in list(self._pending):
            self.completed(number, evolve(refusal, fate="unknown"))
        if not self._is_changing_session:
            self._turn.call(self._tell_session_end, refusal)

    def _tell_session_end(self, refusal: Refused) -> None:
        if self._is_connected:
            self._on_session_end(refusal.code, refusal.text)

    def _on_bundler_idle(self) -> None:
        """In a turn: no command of this session is under way any more. A BYE that waited for that follows."""
        if self._waiting_bye is not None:
            bye, self._waiting_bye = self._waiting_bye, None
            self._close_session(bye.answer)

    def _close_session(self, answer: Answer) -> None:
        self._change_session((CLOSE, self.client_id, self.epoch), self._on_closed, answer)

    def _change_session(self, operation: Command, on_changed: Callable[[Result], None], answer: Answer) -> None:
        self._is_changing_session = True
        self._submission.submit_operation(operation, partial(self._on_operation_result, on_changed, answer))

    def _on_operation_result(self, on_changed: Callable[[Result], None], answer: Answer, result: Result) -> None:
        """In a turn: the operation was executed, or was refused."""
        self._is_changing_session = False
        self._turn.call(answer, result)
        on_changed(result)

    def _on_opened(self, client_id: str, result: Result) -> None:
        """This connection speaks for the session from now on, if it is still connected.

        Another connection may have taken the session over in the very bundle that opened it.
        """
        if isinstance(result, Done) and self._is_connected:
            self._submission.detach(self)
            fields = dict(result.fields)
            epoch, last = int(fields["epoch"]), int(fields["last"])
            self._speak_for(client_id, epoch, last, opens=False)
            if not self._machine.is_open(client_id, epoch):
                self.session_ended(replaced(client_id))

    def _on_closed(self, result: Result) -> None:
        if isinstance(result, Done):
            self._session_end = Refused("NOSESSION", f"session {self.client_id} is closed")

    def _speak_for(self, client_id: str, epoch: int, last: int, *, opens: bool) -> None:
        self.client_id, self.epoch = client_id, epoch
        self._highest = last
        self._submitted = {}
        self._pending = {}
        self._session_end = None
        self.bundler = Bundler(client_id, epoch, opens=opens, on_idle=self._on_bundler_idle)
        self._submission.attach(self)
