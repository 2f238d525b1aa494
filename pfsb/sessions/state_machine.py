"""SessionStateMachine: the replicated state machine of sessions, and of the applications that their commands run in.

Its state is a function of the executed updates: equal on every server, and after any restart. Facts that only one
server knows (which clients are connected, which of them wait for an answer) are behind `ISessionObserver`
(`pfsb.sessions.observer`), which the state machine calls, but whose methods return nothing.

At most once: a command runs only if its number is above the session's `last_number`, and if it comes in the epoch under
which the session is open. `last_number` is kept after the session has ended, until any update that contains the command
is too old to be executed (Departure 7).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from attrs import define, evolve, field
from twisted.logger import Logger
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import PENDING, Command, Done, IContext, IEventLog, Refused, Result, Ticket, Word
from pfsb.paxos.interfaces import IStateMachine
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.command_counts import CommandCounts
from pfsb.sessions.observer import NoObserver
from pfsb.sessions.reply_cache import ReplyCache

OPEN, CLOSE, EXPIRE = "OPEN", "CLOSE", "EXPIRE"

ANONYMOUS_TTL_MS = 10_000
"""How long, in milliseconds, an anonymous session stays open when the server of its connection is silent.

When only the connection is lost, that server closes the session at once.
"""


def replaced(client_id: str) -> Refused:
    """The refusal of a command that comes under a former epoch of its session."""
    return Refused("REPLACED", f"session {client_id} was opened anew from another connection")


@define
class Session:
    """The replicated state of one client's session."""

    client_id: str
    epoch: int
    """The revision at which the session was last opened: commands that come under another epoch are fenced off."""
    server_id: int
    """The id of the server at which the session was last opened, and which knows whether its client is connected."""
    ttl_ms: int
    answers: ReplyCache
    last_number: int = 0
    """The highest command number executed."""
    waiting: set[int] = field(factory=set)
    """The numbers of those commands of this session that have run and are PENDING: their results come later (LOCK). At
    most `session_window` of them."""
    opened: int = 0
    """The revision at which the session began. A client to which HELLO gives another value than before knows that its
    former session has ended."""


@implementer(IContext)
@define
class Context:
    """The facts that a running command may depend on. One object serves for all commands, one after the other."""

    machine: SessionStateMachine
    revision: int = 0
    time_ms: int = 0
    session: str = ""
    number: int = 0

    @property
    def ticket(self) -> Ticket:
        return (self.session, self.number)

    def complete(self, ticket: Ticket, result: Result) -> None:
        self.machine.complete(ticket, result)


@define
class _EventLog:
    """An application with events, and `length`: the number of its latest event of which the observer was told."""

    application: Any
    length: int = 0


@implementer(IStateMachine)
class SessionStateMachine:
    """Runs all ordered updates, in their order."""

    _log = Logger()

    def __init__(self, server_id: int, catalogue: Catalogue, session_window: int, horizon_slots: int) -> None:
        self._server_id = server_id
        self._session_window = session_window
        self._horizon_slots = horizon_slots
        self.applications = catalogue.applications
        self._changes = {verb: entry.description.changes for verb, entry in catalogue.verbs.items()}
        self._waits = frozenset(verb for verb, entry in catalogue.verbs.items() if entry.description.waits)
        self._application_of = {verb: entry.application for verb, entry in catalogue.verbs.items()}
        self._logs = [_EventLog(app) for app in catalogue.applications if IEventLog.providedBy(app)]
        self._context = Context(self)
        self.observer: Any = NoObserver()
        self.counts: CommandCounts | None = None
        """Counts of commands of this server's own clients; None in recovery, so that no command is counted twice."""
        self.revision = 0
        """Number of commands executed so far, including operations that open, close and expire sessions."""
        self.updates = 0
        """Number of updates that this process has executed, including those that it has executed again to recover."""
        self.time_ms = 0
        self.sessions: dict[str, Session] = {}
        self._closed: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Client id of a named session that has ended -> (its last number, the slot that ended it), oldest first."""
        self._seq = 0

    # ------------------------------------------------------------------ driven by the ordered update queue

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        """Lets applications end the PENDING commands whose time limit has passed by `time_ms`, then runs the updates of
        one slot."""
        self._seq, self.time_ms = seq, time_ms
        self.updates += len(updates)
        self._end_waits()
        for update in updates:
            self._run(update)
        self._forget_closed_sessions()
        for log in self._logs:
            if log.application.length() != log.length:
                log.length = log.application.length()
                self.observer.log_grew(log.application)

    def too_old(self, update: ClientUpdate) -> None:
        """Tells the observer of an update beyond its horizon, which is not run.

        If the update was run before, the numbers of its commands may be forgotten by now, so it could run twice.
        """
        if update.server_id == self._server_id:
            self.observer.too_old(update)

    def changes(self, command: Command) -> bool:
        """True for a command, which runs at most once; False for a question, which may be asked any number of times."""
        return self._changes.get(command[0], True)

    def is_open(self, client_id: str, epoch: int) -> bool:
        session = self.sessions.get(client_id)
        return session is not None and session.epoch == epoch

    def last_number(self, client_id: str) -> int:
        """The highest number executed for a session, open or ended; 0 if none was, or the session is forgotten."""
        session = self.sessions.get(client_id)
        return self._closed.get(client_id, (0, 0))[0] if session is None else session.last_number

    @property
    def closed_sessions(self) -> Mapping[str, tuple[int, int]]:
        """Client id of an ended session that is not forgotten -> (last number, slot that ended it), oldest first."""
        return MappingProxyType(self._closed)

    def next_deadline(self) -> int | None:
        """The earliest time limit of a PENDING command, over all applications, in milliseconds of the state machine's
        time; None if there is none."""
        deadlines = [app.next_deadline() for app in self.applications]
        return min((d for d in deadlines if d is not None), default=None)

    def _end_waits(self) -> None:
        for application in self.applications:
            deadline = application.next_deadline()
            if deadline is not None and deadline <= self.time_ms:
                self._call_application(application.time_passed, self._context_for(""))

    # ------------------------------------------------------------------ bundles

    def _run(self, update: ClientUpdate) -> None:
        """Runs the bundles of an update one by one.

        The observer gets the results of a bundle before the next bundle runs, which may end the session.
        """
        is_ours = update.server_id == self._server_id
        for position, content in enumerate(bundle.decode(update.payload)):
            results = self._run_bundle(update.server_id, content)
            if is_ours:
                self.observer.executed(update, position, results)

    def _run_bundle(self, server_id: int, content: Bundle) -> list[Any]:
        if content.client_id == bundle.SERVER:
            return [self.run_operation(server_id, command) for _, command in content.entries]
        session = self.session_for(server_id, content)
        if isinstance(session, Refused):
            last_number = self.last_number(content.client_id)
            return [evolve(session, fate="unknown") if 0 < n <= last_number else session for n, _ in content.entries]
        is_ours = server_id == self._server_id
        results = [
            self.run_command(session, number, command) if number else self._question(command, is_ours)
            for number, command in content.entries
        ]
        if is_ours and self.counts is not None:
            self.counts.note([command[0] for _, command in content.entries], results)
        return results

    def session_for(self, server_id: int, content: Bundle) -> Session | Refused:
        client_id = content.client_id
        session = self.sessions.get(client_id)
        if content.opens and session is None:
            session = Session(client_id, 0, server_id, ANONYMOUS_TTL_MS, ReplyCache(self._session_window))
            self.sessions[client_id] = session
        if session is None:
            return Refused(
                "NOSESSION", f"session {client_id} is over: closed, or expired while nothing was heard of it"
            )
        if session.epoch != content.epoch:
            return replaced(client_id)
        return session

    def run_command(self, session: Session, number: int, command: Command) -> Any:
        """Runs a command if its number is above all that have run; otherwise the result comes from the reply cache."""
        if number <= session.last_number:
            return self.answer_of(session, number)
        session.last_number = number
        self.revision += 1
        result = self._execute(session, number, command)
        if result is PENDING:
            session.waiting.add(number)
        else:
            session.answers.keep(number, result)
        return result

    def _execute(self, session: Session, number: int, command: Command) -> Any:
        verb = command[0]
        application = self._application_of.get(verb)
        if application is None:
            return Refused("UNKNOWN", f"no application here knows {verb}")
        if verb in self._waits and len(session.waiting) >= self._session_window:
            return Refused("BUSY", f"{len(session.waiting)} commands of this session wait already, no more may")
        context = self._context
        context.revision, context.time_ms = self.revision, self.time_ms
        context.session, context.number = session.client_id, number
        try:
            return application.execute(command, context)
        except Exception:
            self._log.failure("{verb} raised; so it does on every server", verb=command[0])
            return Refused("INTERNAL", f"{command[0]} failed inside the application; it changed nothing")

    def _question(self, command: Command, is_ours: bool) -> Result | None:
        """Answers a question at the server at which it was asked; other servers skip it, since it changes nothing."""
        return self.question(command) if is_ours else None

    def question(self, command: Command) -> Result:
        """The result of a question, from the application's present state. Changes nothing."""
        application = self._application_of.get(command[0])
        if application is None:
            return Refused("UNKNOWN", f"no application here knows {command[0]}")
        try:
            result: Result = application.query(command)
        except Exception:
            self._log.failure("{verb} raised", verb=command[0])
            result = Refused("INTERNAL", f"{command[0]} failed inside the application")
        return result

    def answer_of(self, session: Session, number: int) -> Any:
        """The result of a repeated number, which is not above `last_number`: the kept result, PENDING, or a refusal.

        A number that the client has skipped has not run. A number whose result was dropped may have run, so the refusal
        has the fate unknown.
        """
        if number in session.waiting:
            return PENDING
        answer = session.answers.get(number)
        if answer is not None:
            return answer
        if number > session.answers.forgotten:
            return Refused(
                "BADREQUEST", f"number {number} comes after {session.last_number}, and was not used: numbers only grow"
            )
        return Refused(
            "BADREQUEST",
            f"number {number} is past, and its answer no longer kept: at most {self._session_window} are, fewer large "
            "ones, and none when the session ends",
            fate="unknown",
        )

    def complete(self, ticket: Ticket, result: Result) -> None:
        """Takes the result that an application gives to a command that was PENDING: keeps it, and tells the
        observer."""
        client_id, number = ticket
        session = self.sessions.get(client_id)
        if session is not None and number in session.waiting:
            session.waiting.discard(number)
            session.answers.keep(number, result)
        self.observer.completed(client_id, number, result)

    def _call_application(self, function: Callable[..., None], *args: Any) -> None:
        """Calls `function`, a method of an application, and goes on if it raises.

        An application is deterministic: it raises in this call on every server, and would again after every restart.
        """
        try:
            function(*args)
        except Exception:
            self._log.failure("{what} raised; so it does on every server", what=function.__qualname__)

    def _context_for(self, client_id: str) -> Context:
        """The context of a call of an application that executes no command: a session has ended, or time has passed."""
        context = self._context
        context.revision, context.time_ms = self.revision, self.time_ms
        context.session, context.number = client_id, 0
        return context

    # ------------------------------------------------------------------ sessions open and end

    def run_operation(self, server_id: int, command: Command) -> Result:
        """Runs an operation of a server's own session."""
        self.revision += 1
        match command:
            case (str(verb), str(client_id), int(ttl_ms)) if verb == OPEN:
                return self._open(server_id, client_id, ttl_ms)
            case (str(verb), str(client_id), int(epoch)) if verb in (CLOSE, EXPIRE):
                return self.end_session(client_id, epoch, verb)
            case _:
                return Refused("UNKNOWN", f"no operation {command[0]}")

    def _open(self, server_id: int, client_id: str, ttl_ms: int) -> Result:
        """Opens a session, or takes it over: the new epoch fences off the connection that had opened it before.

        If a session of this client id has ended, the new one starts above its last number. The results of the ended
        session are gone, so the fate of a number up to its last number is unknown.
        """
        session = self.sessions.get(client_id)
        resumed = session is not None
        if session is not None:
            self.observer.session_ended(
                client_id,
                session.epoch,
                replaced(client_id),
            )
            session.epoch, session.server_id, session.ttl_ms = self.revision, server_id, ttl_ms
        else:
            last_number, _ = self._closed.pop(client_id, (0, 0))
            answers = ReplyCache(self._session_window, forgotten=last_number)
            session = Session(client_id, self.revision, server_id, ttl_ms, answers, last_number, opened=self.revision)
            self.sessions[client_id] = session
        return Done(
            (
                ("client", client_id),
                ("epoch", session.epoch),
                ("last", session.last_number),
                ("resumed", Word("yes" if resumed else "no")),
                ("opened", session.opened),
            )
        )

    def end_session(self, client_id: str, epoch: int, verb: str) -> Result:
        """Closes or expires a session. Has no effect if the session was opened under another epoch in the meantime."""
        session = self.sessions.get(client_id)
        if session is None or session.epoch != epoch:
            return Done()
        del self.sessions[client_id]
        if session.last_number and client_id[0] != bundle.ANONYMOUS:
            self._closed[client_id] = (session.last_number, self._seq)
        for application in self.applications:
            self._call_application(application.session_ended, client_id, self._context_for(client_id))
        how = "closed" if verb == CLOSE else "expired: nothing was heard of it for too long"
        self.observer.session_ended(client_id, epoch, Refused("NOSESSION", f"session {client_id} is {how}"))
        return Done()

    def _forget_closed_sessions(self) -> None:
        """Departure 33: forgets sessions that ended more than `horizon_slots` slots ago.

        By now every update with a command of such a session is too old to run, so the numbers of these commands need no
        longer be known.
        """
        while self._closed:
            client_id, (_, closed_at) = next(iter(self._closed.items()))
            if closed_at >= self._seq - self._horizon_slots:
                return
            del self._closed[client_id]
