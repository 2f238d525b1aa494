"""ClientConnection: one client of this server, the session that it speaks for, and the numbers of its commands.

At most once: a command runs only if its number is above all that the session has run (`SessionStateMachine`), and this
class gives every new command a higher number than the one before. A number that the client repeats is not submitted
again: the repetition gets the result of the first submission if that is under way, else the result in the session's
reply cache. A number may be used for another command only when no command at or above that number has run, or ever
will.

Fencing: bundles carry the epoch under which this connection opened its session. When another connection opens the
session, the epoch changes, and the state machine refuses the commands that this connection has under way or submits
later.

Every answer is given behind the durability gate, in the order in which the turns give them. A refusal that rests on no
record does not wait there. While the disk hangs, answers at the gate become refusals (Departure 44).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from pfsb.applications.interfaces import PENDING, Answer, BadRequest, Command, Done, Refused, Result, RunResults
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.turn import Turn
from pfsb.sessions import bundle
from pfsb.sessions.asking import ask
from pfsb.sessions.bundler import NOT_SENT, UNKNOWN, BundlePart, Bundler
from pfsb.sessions.command_times import CommandTimes
from pfsb.sessions.refusals import (
    HANGING,
    TROUBLE_REFUSALS,
    WITHOUT_STATE,
    NeverRan,
    NotSent,
    Provisional,
    of_question,
)
from pfsb.sessions.state_machine import CLOSE, OPEN, SessionStateMachine, over, replaced
from pfsb.sessions.submission import Submission

SHUTDOWN = Refused("SHUTDOWN", "this server is stopping; another one will answer")
DIVERGED = Refused(
    "DIVERGED", "servers have executed equal commands with different results, and no majority agrees: see STATUS"
)
SHORT_OF_MEMORY = Refused(
    "READONLY", "this server is short of memory, and takes no command that adds something; delete what is not needed"
)
TOO_SHORT_FOR_SESSIONS = Refused(
    "READONLY",
    "this server is short of memory, and opens no more sessions until it has more; commands that delete something are "
    "taken from clients that do not say HELLO",
)
BUSY = Refused("BUSY", "too much is under way here for clients that are gone; another server may have room")

_verb = itemgetter(0)

AnswerAll = Callable[[Sequence[Result]], None]
"""Call-back of a front end for commands or questions that were submitted together, with one result for each, in order.

The `ClientConnection`, or the front end where it refuses them by itself, calls it once, when the client may be told of
the results. It is not called if the client's connection ends before.
"""


def _answer_one(answer: Answer, results: Sequence[Result]) -> None:
    answer(results[0])


@define(eq=False)
class Submitted:
    """Commands that were submitted together and are under way, or have run and are PENDING."""

    numbers: Sequence[int]
    """The number of each command, in ascending order; 0 for a question among them."""
    highest: int
    """The highest of the command numbers; 0 if all of the commands are questions."""
    answer: AnswerAll | None
    """The call-back for the results of these commands, called once; None after that.

    If it was called with a `Provisional` refusal, because the disk hung before the results were known, the results go
    only to the call-backs in `repeats`.
    """
    repeats: list[tuple[int, Answer]] = field(factory=list)
    """(number, call-back) for each repetition of a number by the client before its result was known."""

    @property
    def lowest(self) -> int:
        return min(number for number in self.numbers if number)


@frozen
class WaitingBye:
    """A BYE that waits until the commands before it have their results."""

    submitted_at: float
    answer: Answer


class ClientConnection:
    """One client connection. Its session is anonymous until `hello`.

    The client gets each answer once. Answers that come after the connection was lost are dropped.
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
        on_failed: Callable[[Exception], None] | None,
        on_disconnected: Callable[[ClientConnection], None],
        names_max: int,
        times: CommandTimes,
    ) -> None:
        """`client_id` is the id of the anonymous session with which the connection begins.

        `on_session_end(code, text)` is called, behind the durability gate, when the session for which this connection
        speaks at that time is taken over by another connection, or ends otherwise. `on_failed` is called with each
        exception of `on_session_end` and of the call-backs for answers; None: it is raised. `on_disconnected` is called
        once, when this connection is lost. `names_max` is the number of sessions that the connection may open by HELLO:
        a client that says HELLO again and again, each time with another id, leaves a session behind each time. `times`
        counts how long the client waits for its answers.
        """
        self._submission = submission
        self._machine = machine
        self._turn = turn
        self._clock = clock
        self._on_session_end = on_session_end
        self._on_failed = on_failed
        self._on_disconnected = on_disconnected
        self._names_max = names_max
        self._times = times
        self._names: set[str] = set()
        """Client ids of the sessions that this connection has opened, or has tried to open."""
        self.client_id = client_id
        self.epoch = 0
        self.unanswered = 0
        """Number of requests of this client that have no answer yet."""
        self._highest = 0
        """The highest command number that is in use: a new command gets, or must have, a higher one."""
        self.submitted: dict[int, Submitted] = {}
        """Commands under way, by the highest command number among those that were submitted together."""
        self.pending: dict[int, Submitted] = {}
        """Command number -> a command that has run and is PENDING: the application will give its result later."""
        self._session_end: Refused | None = None
        """The refusal of every new command, since the session has ended; None while the session is open."""
        self._is_changing_session = False
        """True while HELLO or BYE is under way: then `on_session_end` is not called for the end of the old session."""
        self._reads_under_way = 0
        """Number of reads that are not decided yet; later commands wait for them, so that answers keep their order."""
        self._waiting_bye: WaitingBye | None = None
        self._is_connected = True
        self._speak_for(client_id, 0, 0, opens=True)

    @property
    def unaccounted_answers(self) -> int:
        """Number of answers that the client waits for in vain, as its session has ended and no command is under way.

        Always 0, unless there is a mistake in this class: the simulator checks it.
        """
        is_through = self.bundler.idle and not self._reads_under_way and not self._is_changing_session
        has_ended = self._session_end is not None and self._waiting_bye is None
        return self.unanswered if has_ended and is_through else 0

    @property
    def answers_in_wait(self) -> int:
        """Number of answers that the client waits for; 0 while the server decides how to answer a read.

        Always 0 while the disk hangs, unless there is a mistake in this class: the simulator checks it.
        """
        return 0 if self._reads_under_way else self.unanswered

    # ------------------------------------------------------------------ commands and questions

    def submit(self, number: int | None, command: Command, answer: Answer) -> None:
        """Runs a command through the log, once for its number; or answers a question in its order among the commands.

        A question goes through the log if commands of this client are under way. Otherwise this server waits, by a
        read, until it has executed all updates that were answered before the question was asked (Departure 24), and
        commands that come after the question wait for its answer.

        `number` None stands for the next number. `answer` may be called with a refusal before this method returns.
        Raises, without any effect, if the command cannot be sent to the servers (`bundle.encode_checked`).
        """
        is_question = not self._machine.changes(command)
        refusal = self._refusal(number, is_question, may_grow=not (is_question or self._machine.shrinks(command)))
        number = self._highest + 1 if number is None else number
        entry_number = 0 if is_question else number
        encoded = bundle.encode_checked([(entry_number, command)])
        self.unanswered += 1
        now = self._clock.seconds()
        answer = partial(self._give_answer, now, command, answer)
        if refusal is not None:
            answer(refusal)
        elif is_question and (self.bundler.idle or self._turn.trouble is not None):
            self._read([command], encoded, partial(_answer_one, answer), now)
        elif is_question or number > self._highest:
            self._submit_to_log([entry_number], encoded, partial(_answer_one, answer), now)
        elif (submitted := self._submitted_with(number)) is not None:
            self._join(submitted, number, answer)
        else:
            self._turn.run(self._answer_repeated, number, answer)

    def submit_all(
        self, numbers: Sequence[int | None], commands: Sequence[Command], place: Callable[[], AnswerAll]
    ) -> bool:
        """Does for several commands of a pipelining client what `submit` does for each, at a third of the cost. A None
        in `numbers` stands for the next number.

        Returns False, without any effect, if a command would be refused or repeats a number: then the caller must call
        `submit` for each command. Otherwise this method calls `place`, once, which returns the call-back that takes the
        results of all the commands. No command may be one whose description says that it `waits` (LOCK). Raises like
        `submit`.
        """
        submission = self._submission
        if submission.draining or self._session_end is not None or submission.is_busy or submission.has_diverged:
            return False
        if submission.outside is not None:
            return False
        if self._turn.trouble is not None or submission.is_short_of_memory:
            return False
        entry_numbers = self._entry_numbers(numbers, commands)
        if entry_numbers is None:
            return False
        encoded = bundle.encode_checked([*zip(entry_numbers, commands, strict=True)])
        self.unanswered += len(commands)
        now = self._clock.seconds()
        answer = partial(self._give_answers, now, commands, place())
        if self.bundler.idle and not any(entry_numbers):
            self._read(commands, encoded, answer, now)
        else:
            self._submit_to_log(entry_numbers, encoded, answer, now)
        return True

    def _entry_numbers(self, numbers: Sequence[int | None], commands: Sequence[Command]) -> Sequence[int] | None:
        """The number of each entry of a bundle: 0 for a question. None if a command repeats a number.

        Commands of one verb without numbers are usual, and need no step for each.
        """
        changes, highest = self._machine.changes, self._highest
        if not any(numbers) and len({*map(_verb, commands)}) == 1:
            return range(highest + 1, highest + 1 + len(commands)) if changes(commands[0]) else [0] * len(commands)
        changing = {verb for verb in {*map(_verb, commands)} if changes((verb,))}
        found = []
        for number, verb in zip(numbers, map(_verb, commands), strict=True):
            if verb not in changing:
                found.append(0)
                continue
            if number is not None and number <= highest:
                return None
            highest = highest + 1 if number is None else number
            found.append(highest)
        return found

    def query_local(self, question: Command, answer: Answer) -> None:
        """Answers a question from this server's own state (read=sequential, read=stale), behind the durability gate."""
        self.query_local_all([question], partial(_answer_one, answer))

    def query_local_all(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        """Answers several questions as `query_local` does, all from one state of this server.

        While the disk is in trouble, the durability gate may stay shut for long. If all that the state shows is on
        disk, the questions are answered at once, past the gate. If not, they are refused while the disk hangs
        (Departure 44), and wait at the gate while it is full. A server that has lost its state refuses them, too
        (Departure 58), and one that is no member of the cluster (Departure 60).
        """
        self.unanswered += len(questions)
        answer = partial(self._give_answers, self._clock.seconds(), questions, answer)
        trouble = self._turn.trouble
        if self._turn.lacks_state:
            answer([WITHOUT_STATE] * len(questions))
        elif self._submission.is_no_member and self._submission.outside is not None:
            answer([self._submission.outside] * len(questions))
        elif trouble is not None and self._turn.shows_only_what_is_durable:
            answer(ask(self._turn, self._results_of, questions))
        elif trouble is DiskTrouble.HANGS:
            answer([HANGING.question] * len(questions))
        else:
            self._turn.run(self._answer_questions, questions, answer)

    def completed(self, number: int, result: Result) -> None:
        """Takes, in a turn, the result of a command that was PENDING, and answers the client.

        Usually the command is in `pending`. It is still in `submitted` if another command of its own bundle has
        completed it, as an UNLOCK completes a LOCK: then this connection has not got the results of that bundle yet, in
        which the command is PENDING.
        """
        submitted = self.pending.pop(number, None) or self.submitted.pop(number, None)
        if submitted is not None:
            self._answer_submitted(submitted, [result])

    def refuse_submitted_before(
        self, oldest: float, unknown: Provisional = UNKNOWN, not_sent: NotSent = NOT_SENT
    ) -> None:
        """Refuses the unanswered commands and the BYE that were submitted before clock time `oldest`; called in a turn.

        A command that is PENDING is not refused: it has run, and its result may come much later (but see
        `refuse_pending`). The two refusals are those of `Bundler.refuse_submitted_before`.
        """
        self.bundler.refuse_submitted_before(oldest, unknown, not_sent)
        if self._waiting_bye is not None and self._waiting_bye.submitted_at < oldest:
            bye, self._waiting_bye = self._waiting_bye, None
            self._turn.refuse(bye.answer, unknown)

    def refuse_pending(self, refusal: Provisional) -> None:
        """Answers the clients of PENDING commands with a provisional refusal; called in a turn when the disk is in
        trouble.

        It may take long until this server learns the results. They go to clients that repeat the numbers, here or at
        another server.
        """
        for submitted in self.pending.values():
            self._refuse_submitted(submitted, [refusal])

    def _refusal(self, number: int | None, is_question: bool, may_grow: bool) -> Refused | None:
        """The refusal of a command, or of a question if `is_question`, that comes now with this number; None if it is
        accepted. `may_grow` says whether it may make the state larger.

        If the number was used before, the command may have run already, so the refusal has the fate unknown.
        """
        is_used = number is not None and number <= max(self._highest, self._machine.last_number(self.client_id))
        refusal = SHUTDOWN if self._submission.draining else self._submission.outside or self._session_end
        if refusal is None and self._submission.is_busy and not is_used:
            return BUSY
        if refusal is None and self._submission.is_short_of_memory and may_grow and not is_used:
            return SHORT_OF_MEMORY
        if refusal is None and self._submission.has_diverged and not is_used and not is_question:
            return DIVERGED
        if refusal is None and self._turn.trouble is not None:
            return self._refusal_in_trouble(self._turn.trouble, is_question=is_question, is_used=is_used)
        return evolve(refusal, fate="unknown") if refusal is not None and is_used else refusal

    def _refusal_in_trouble(self, trouble: DiskTrouble, *, is_question: bool, is_used: bool) -> Refused | None:
        """The refusal of a command or question (`is_question`) while the disk is in trouble; None if it is accepted.
        `is_used` says whether its number was used before.

        A server with a full disk tries to answer questions, by a read without the log (Departure 45).
        """
        if is_question and trouble is DiskTrouble.FULL:
            return None
        return TROUBLE_REFUSALS[trouble].of(is_question=is_question, is_used=is_used)

    def _submit_to_log(
        self, numbers: Sequence[int], encoded_entries: bytes, answer: AnswerAll, submitted_at: float
    ) -> None:
        highest = max(numbers)
        submitted = Submitted(numbers, highest, answer)
        if highest:
            self._highest = highest
            self.submitted[highest] = submitted
        self.bundler.add(BundlePart(numbers, encoded_entries, submitted_at, partial(self._on_results, submitted)))
        if not self._reads_under_way:
            self._submission.mark_ready(self.bundler)

    def _read(
        self, questions: Sequence[Command], encoded_entries: bytes, answer: AnswerAll, submitted_at: float
    ) -> None:
        self._reads_under_way += 1
        on_decided = partial(self._on_read_decided, questions, encoded_entries, answer, submitted_at)
        self._submission.begin_read(on_decided)

    def _on_read_decided(
        self,
        questions: Sequence[Command],
        encoded_entries: bytes,
        answer: AnswerAll,
        submitted_at: float,
        is_current: bool,
    ) -> None:
        """Answers the questions of a read, in a turn, or puts them through the log, or refuses them if the disk is in
        trouble.

        `is_current` is True if this server has executed all updates that the questions must see: then it answers them.
        """
        self._reads_under_way -= 1
        if is_current:
            self._answer_questions(questions, answer)
        elif self._turn.trouble is not None:
            self._turn.refuse(answer, [TROUBLE_REFUSALS[self._turn.trouble].question] * len(questions))
        elif self._is_connected:
            self._submit_to_log([0] * len(questions), encoded_entries, answer, submitted_at)
        if not self._reads_under_way and not self.bundler.idle:
            self._submission.mark_ready(self.bundler)

    def _on_results(self, submitted: Submitted, results: Sequence[Any]) -> None:
        """Takes, in a turn, the results of commands that were submitted together.

        After a `Provisional` refusal the numbers stay in use: the commands may still run, and a repeated number waits
        for their results. The same holds for PENDING; a command that may be PENDING is always submitted alone.
        `NeverRan` and `NotOpened` are the results of commands that never run, and all commands that were submitted
        after them get the same, so the client may use these numbers again.
        """
        if type(results) is RunResults or type(results[0]) is Done:
            # All commands of the group have run, and none is PENDING. With one command in each group, the checks below
            # would cost 2 % of its time.
            self.submitted.pop(submitted.highest, None)
            self._answer_submitted(submitted, results)
            return
        first = results[0]
        if isinstance(first, Provisional):
            self._refuse_submitted(submitted, results)
            return
        if self.submitted.pop(submitted.highest, None) is not None:
            if first is PENDING:
                self.pending[submitted.highest] = submitted
            elif isinstance(first, NeverRan | bundle.NotOpened):
                self._highest = min(self._highest, submitted.lowest - 1)
        if isinstance(first, NotSent):
            self._refuse_submitted(submitted, results)
        elif first is not PENDING:
            self._answer_submitted(submitted, results)

    def _answer_submitted(self, submitted: Submitted, results: Sequence[Result]) -> None:
        answer, submitted.answer = submitted.answer, None
        if answer is not None:
            self._turn.answer(answer, results, HANGING.under_way)
        repeats, submitted.repeats = submitted.repeats, []
        for number, repeated in repeats:
            self._answer_behind_gate(repeated, results[submitted.numbers.index(number)])

    def _refuse_submitted(self, submitted: Submitted, results: Sequence[Result]) -> None:
        """Gives refusals to the client in place of results, without waiting for the disk.

        A question, which has the number 0, changes nothing, so nothing about it stays unknown.
        """
        answer, submitted.answer = submitted.answer, None
        if answer is not None:
            pairs = zip(submitted.numbers, results, strict=True)
            self._turn.refuse(answer, [result if number else of_question(result) for number, result in pairs])
        repeats, submitted.repeats = submitted.repeats, []
        for number, repeated in repeats:
            self._turn.refuse(repeated, results[submitted.numbers.index(number)])

    def _answer_behind_gate(self, answer: Answer, result: Result) -> None:
        """Gives one result to the client, in a turn, when all that it rests on is on disk."""
        self._turn.answer(partial(_answer_one, answer), [result], HANGING.under_way)

    def _submitted_with(self, number: int) -> Submitted | None:
        """The commands, under way or PENDING, that were submitted together and have `number` among them; or None."""
        if number in self.pending:
            return self.pending[number]
        return next((submitted for submitted in self.submitted.values() if number in submitted.numbers), None)

    def _join(self, submitted: Submitted, number: int, answer: Answer) -> None:
        """Lets a repeated number wait for the result of its first submission, which may have been answered
        provisionally."""
        submitted.repeats.append((number, answer))
        self.bundler.note_repeated(number, self._clock.seconds())

    def _answer_repeated(self, number: int, answer: Answer) -> None:
        """Answers, in a turn, a repeated number whose command is not under way here, by the session's reply cache."""
        session = self._machine.sessions.get(self.client_id)
        if session is not None and session.epoch != self.epoch:
            self._answer_behind_gate(answer, evolve(replaced(self.client_id), fate="unknown"))
            return
        if session is None or number > session.last_number:
            text = f"number {number} comes after {self._highest}: numbers only grow"
            self._answer_behind_gate(answer, Refused("BADREQUEST", text))
            return
        result = self._machine.answer_of(session, number)
        if result is PENDING:
            self.pending[number] = Submitted((number,), number, None, [(number, answer)])
        else:
            self._answer_behind_gate(answer, result)

    def _answer_questions(self, questions: Sequence[Command], answer: AnswerAll) -> None:
        """Answers questions in a turn, behind the durability gate."""
        self._turn.answer(answer, self._results_of(questions), HANGING.question)

    def _results_of(self, questions: Sequence[Command]) -> list[Result]:
        """The answers to questions by the present state. If the session has ended, its refusal for each question: the
        client may have seen later states at another server."""
        ended = self._session_end
        return [*map(self._machine.question, questions)] if ended is None else [ended] * len(questions)

    def _give_answer(self, submitted_at: float, command: Command, answer: Answer, result: Result) -> None:
        self.unanswered -= 1
        if self._is_connected:
            try:
                answer(result)
            except Exception as error:
                self._fail(error)
            self._times.note(submitted_at, (command,), (result,))

    def _give_answers(
        self, submitted_at: float, commands: Sequence[Command], answer: AnswerAll, results: Sequence[Result]
    ) -> None:
        self.unanswered -= len(commands)
        if self._is_connected:
            try:
                answer(results)
            except Exception as error:
                self._fail(error)
            self._times.note(submitted_at, commands, results)

    def _fail(self, error: Exception) -> None:
        if self._on_failed is None:
            raise error
        self._on_failed(error)

    # ------------------------------------------------------------------ the session

    def hello(self, client_id: str, ttl_seconds: int, answer: Answer) -> None:
        """Opens the session `client_id`, or takes it over. Must be called before any command of this connection.

        Raises `BadRequest` for a client id that could be a server's own or an anonymous one.
        """
        if client_id[:1] in ("", bundle.SERVER, bundle.ANONYMOUS):
            raise BadRequest(f"a client id is not empty and does not begin with {bundle.SERVER} or {bundle.ANONYMOUS}")
        assert self.bundler.idle and not self.bundler.introduced, "a connection speaks for one session"
        self.unanswered += 1
        answer = partial(self._give_answer, self._clock.seconds(), ("HELLO",), answer)
        if self._submission.draining:
            answer(SHUTDOWN)
        elif self._submission.outside is not None:
            answer(self._submission.outside)
        elif self._submission.has_diverged:
            answer(DIVERGED)
        elif self._turn.trouble is not None:
            answer(TROUBLE_REFUSALS[self._turn.trouble].change)
        elif client_id not in self._names and len(self._names) >= self._names_max:
            answer(Refused("BUSY", f"this connection has opened {self._names_max} sessions; open a new connection"))
        elif not self._machine.has_session(client_id) and not self._submission.may_open_session():
            answer(TOO_SHORT_FOR_SESSIONS)
        else:
            self._names.add(client_id)
            operation = (OPEN, client_id, ttl_seconds * 1000)
            self._change_session(operation, partial(self._on_opened, client_id), answer)

    def bye(self, answer: Answer) -> None:
        """Closes the session, once all commands before it have their results."""
        self.unanswered += 1
        answer = partial(self._give_answer, self._clock.seconds(), ("BYE",), answer)
        if self._submission.draining:
            answer(SHUTDOWN)
        elif self._turn.trouble is not None:
            answer(TROUBLE_REFUSALS[self._turn.trouble].change)
        elif not self.bundler.idle:
            self._waiting_bye = WaitingBye(self._clock.seconds(), answer)
        elif self.epoch or self.bundler.introduced:
            self._close_session(answer)
        else:
            answer(Done())

    def disconnected(self) -> None:
        """Ends this connection, which was lost. A named session stays open for its ttl, so its client can come back."""
        if self._is_connected:
            self._is_connected = False
            self._on_disconnected(self)
            self._submission.detach(self)

    def session_ended(self, refusal: Refused) -> None:
        """Refuses later commands, in a turn: the session was taken over, closed or expired.

        Commands under way still get their results from the log. A PENDING command may still be completed, for the
        connection that has taken the session over, so this connection answers it with the fate unknown.
        """
        self._session_end = refusal
        for number in list(self.pending):
            self.completed(number, evolve(refusal, fate="unknown"))
        if not self._is_changing_session:
            self._turn.call(self._tell_session_end, refusal)

    def restored(self) -> None:
        """Takes notice, in a turn, that the state is that of a snapshot now, and that `completed` and `session_ended`
        were not called for the slots before it.

        The result of a command that was PENDING, and is not any more, is kept by the session, unless that was dropped.
        That is the right one if the session had begun by the time at which this connection opened it: in one session no
        number is used twice, whichever connection opens it. If the session is another one by now, its numbers may be
        those of other commands.
        """
        session = self._machine.sessions.get(self.client_id)
        if session is not None and session.opened <= self.epoch:
            for number in [number for number in self.pending if number not in session.waiting]:
                self.completed(number, self._machine.answer_of(session, number))
        if self._session_end is None and not self.bundler.may_open:
            if session is None:
                self.session_ended(over(self.client_id))
            elif session.epoch != self.epoch:
                self.session_ended(replaced(self.client_id))

    def _tell_session_end(self, refusal: Refused) -> None:
        if self._is_connected:
            try:
                self._on_session_end(refusal.code, refusal.text)
            except Exception as error:
                self._fail(error)

    def _on_bundler_idle(self) -> None:
        """Closes the session, in a turn, if a BYE has waited until no command of the session was under way."""
        if self._waiting_bye is not None:
            bye, self._waiting_bye = self._waiting_bye, None
            self._close_session(bye.answer)

    def _close_session(self, answer: Answer) -> None:
        self._change_session((CLOSE, self.client_id, self.epoch), self._on_closed, answer)

    def _change_session(self, operation: Command, on_changed: Callable[[Result], None], answer: Answer) -> None:
        self._is_changing_session = True
        on_result = partial(self._on_operation_result, on_changed, answer)
        self._submission.submit_operation(operation, on_result, is_asked=True)

    def _on_operation_result(self, on_changed: Callable[[Result], None], answer: Answer, result: Result) -> None:
        """Takes, in a turn, the result of HELLO or BYE: the operation was executed, or was refused.

        The client gets the result by `answer`, and `on_changed(result)` is called.
        """
        self._is_changing_session = False
        if isinstance(result, Provisional | NotSent):
            self._turn.refuse(answer, result)
        else:
            self._answer_behind_gate(answer, result)
        on_changed(result)

    def _on_opened(self, client_id: str, result: Result) -> None:
        """Takes the result of HELLO: if the client is still connected, its commands belong to the new session from now.

        If another connection has taken the session over already, in the same bundle of operations, the session has
        ended for this connection at once, and its commands are refused (`session_ended`).
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
        self.submitted = {}
        self.pending = {}
        self._session_end = None
        self.bundler = Bundler(client_id, epoch, opens=opens, on_idle=self._on_bundler_idle)
        self._submission.attach(self)
