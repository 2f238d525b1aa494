"""SessionStateMachine: the replicated state machine of sessions, and of the applications that their commands run in.

Its state is a function of the executed updates: equal on every server, and after any restart. Facts that only one
server knows (which clients are connected, which of them wait for an answer) are behind `ISessionObserver`
(`pfsb.sessions.observer`), which the state machine calls, but whose methods return nothing.

At most once: a command runs only if its number is above the session's `last_number`, and if it comes in the epoch under
which the session is open. `last_number` is kept after the session has ended, until any update that contains the command
is too old to be executed (Departure 7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, groupby, pairwise, repeat
from operator import attrgetter, itemgetter
from typing import Any

from attrs import define, evolve
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.applications.application import Application
from pfsb.applications.catalogue import Catalogue, InstalledApplications, version_of
from pfsb.applications.failures import depends_on_machine
from pfsb.applications.interfaces import (
    PENDING,
    BadRequest,
    Command,
    Counters,
    Done,
    IContext,
    IEventLog,
    IGrowingValues,
    IQuotaUser,
    IRunExecutor,
    Quotas,
    Refused,
    Result,
    RunResults,
    Ticket,
    Word,
)
from pfsb.applications.results import check_result
from pfsb.paxos.interfaces import IStateMachine
from pfsb.paxos.members import encode_members
from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.snapshot import Piece
from pfsb.paxos.snapshot_rows import FrozenPieces, packed, pieces_of
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle, Entry, NotOpened
from pfsb.sessions.checked_payloads import CheckedPayloads
from pfsb.sessions.cluster_settings import QUOTAS, RULES_OF_EPOCHS, ClusterSettings, WrongSetting, show_app
from pfsb.sessions.command_counts import CommandCounts
from pfsb.sessions.frozen_sessions import FrozenSessions
from pfsb.sessions.frozen_state import (
    CLOSED,
    GROWING,
    SESSIONS,
    STATE,
    FrozenApplication,
    StateHead,
    raising,
)
from pfsb.sessions.observer import NoObserver
from pfsb.sessions.ordered_settings import SET, Abilities, OrderedSettings
from pfsb.sessions.outcomes import Noted, encode_outcomes
from pfsb.sessions.reply_cache import KeptReplies, ReplyCache
from pfsb.sessions.restorer import RestoredState, SessionRestorer
from pfsb.sessions.session import Closed, Session

OPEN, CLOSE, EXPIRE = "OPEN", "CLOSE", "EXPIRE"
BIRTH, ANNOUNCE = "BIRTH", "ANNOUNCE"
"""BIRTH brings the first settings of the cluster, ANNOUNCE what a server is able to run (Departure 34)."""
EPOCH = "EPOCH"
"""EPOCH brings the servers of the next epoch of the membership (Departure 60)."""
ASK, HERE = "ASK", "HERE"
"""ASK is the leader's question, through the log, whether a server that it does not hear still serves its clients. HERE
is that server's answer (Departure 36)."""
_EPOCH_BYTES = EPOCH.encode()
_verb = itemgetter(0)
_client_id = itemgetter(0)
_first = itemgetter(0)
_number = itemgetter(0)
_entries = attrgetter("entries")
_command = itemgetter(1)
_ONE = {1}
_NOT_NAMES = ("", bundle.SERVER, bundle.ANONYMOUS)
"""Beginnings that a client id must not have if a client is to open a session under it."""

_log = Logger()


def may_change_members(batch: Batch) -> bool:
    """Whether a batch may hold EPOCH. One that has these letters in a value of a client counts, too: it then waits as
    well while the disk is in trouble, which does no harm."""
    return _EPOCH_BYTES in batch.data


class CannotRun(ImportError):
    """The settings of the cluster ask for something that this server does not have; the text is for a person.

    The exception is a fault of this machine (`pfsb.applications.failures`), so the server stops.
    """


def birth(server_id: int, values: ClusterSettings) -> ClientUpdate:
    """The update that slot 1 holds: it brings the first settings.

    The name of its Paxos client contains the identity of the cluster. If two leaders propose different settings, of
    which one set is chosen, their updates therefore have clients of different names.
    """
    entry = bundle.encode_entries([(0, (BIRTH, values.encode()))])
    payload = bundle.encode([bundle.encode_bundle(bundle.encode_head(bundle.SERVER, 0, opens=False), 1, [entry])])
    return ClientUpdate(f"{server_id}.birth.{values.cluster_identity.hex()}", server_id, 1, 0, payload)


def is_birth(update: ClientUpdate) -> bool:
    """Whether an update consists of one bundle with the first settings, which can be decoded, and of nothing else."""
    contents = bundle.decode(update.payload)
    if (
        contents is None
        or len(contents) != 1
        or contents[0].client_id != bundle.SERVER
        or len(contents[0].entries) != 1
    ):
        return False
    command = contents[0].entries[0][1]
    if len(command) != 2 or command[0] != BIRTH or type(command[1]) is not bytes:
        return False
    try:
        ClusterSettings.decode(command[1])
    except WrongSetting:
        return False
    return True


RUN_MIN = 3
"""Minimum number of commands of one verb, in a bundle of several verbs, that are executed together. Two take 3 % more
byte code together than one by one, in bundles whose verbs are drawn at random."""

ANONYMOUS_TTL_MS = 10_000
"""How long, in milliseconds, an anonymous session stays open when the server of its connection is silent.

When only the connection is lost, that server closes the session at once.
"""


def replaced(client_id: str) -> Refused:
    """The refusal of a command that comes under a former epoch of its session."""
    return Refused("REPLACED", f"session {client_id} was opened anew from another connection")


def over(client_id: str) -> Refused:
    """The refusal of a command whose session has ended before."""
    return Refused("NOSESSION", f"session {client_id} is over: closed, or expired while nothing was heard of it")


def failed_alike(verb: str) -> Refused:
    """The result of a command that has failed by a fault of the application's program, at every server."""
    text = f"{verb} failed inside the application, at every server alike; it may have changed something"
    return Refused("INTERNAL", text, fate="unknown")


def _changes_settings(content: Bundle) -> bool:
    """Whether a bundle has a command that changes settings.

    Such a bundle may open its anonymous session even if as many sessions are open as the setting `sessions` allows.
    Otherwise clients that keep their sessions open could keep all operators from raising that setting.
    """
    return any(command[0] == SET for _, command in content.entries)


@implementer(IContext)
@define
class Context:
    """The facts that a call of an application may depend on. One object serves for all calls, one after the other."""

    machine: SessionStateMachine
    quotas: Quotas
    revision: int = 0
    time_ms: int = 0
    session: str = ""
    number: int = 0
    sessions: Sequence[str] = ()

    @property
    def ticket(self) -> Ticket:
        return (self.session, self.number)

    def complete(self, ticket: Ticket, result: Result) -> None:
        self.machine.complete(ticket, result)


@define
class _EventLog:
    """An application that has events, and `length`: the number of the latest event that the observer was told of."""

    application: Any
    length: int = 0


def _never_has_a_deadline(application: Any) -> bool:
    """Whether an application has `next_deadline` of the class `Application`, which always returns None.

    The application's class alone does not tell: an application may set a `next_deadline` of its own when it is made.
    """
    return getattr(getattr(application, "next_deadline", None), "__func__", None) is Application.next_deadline


def _successor(before: Any, name: str, version: int, installed: InstalledApplications) -> Any:
    """The application that runs as `name` from now on, given the one that ran as `name` before, if any.

    Raises `CannotRun` if this server cannot make it, and `BadRequest` if it cannot take over the state of the one that
    ran before, which is so at every server alike.
    """
    if before is not None and version_of(before) == version:
        return before
    try:
        made: Any = installed.make(name, version)
    # Other servers may have been able to make it: what is installed at one server is no part of the log.
    except Exception as error:
        raise CannotRun(
            f"the settings of the cluster ask for {show_app(name, version)}, which cannot be loaded here: {error}"
        ) from error
    if before is not None:
        _hand_over(before, made)
    return made


def _hand_over(before: Any, made: Any) -> None:
    """Gives the state of an application to its next version. Raises `BadRequest` for a fault in the program of one of
    the two, which every server meets; any other exception, which perhaps only this server meets, is raised as it is."""
    try:
        made.restore(before.snapshot())
    except Exception as error:
        if depends_on_machine(error):
            raise
        _log.failure("{name} could not be handed over; so it is on every server", Failure(error), name=before.name)
        shown = show_app(before.name, version_of(made))
        # The text of the exception is left out: a part of it, such as an address, may differ from server to server.
        raise BadRequest(
            f"{shown} cannot take over the state of version {version_of(before)} ({type(error).__name__})", "CONFLICT"
        ) from None


def _follow_each_other(entries: Sequence[Entry]) -> bool:
    """Whether the numbers of a bundle follow each other, without a gap."""
    first = entries[0][0]
    return [*map(_number, entries)] == [*range(first, first + len(entries))]


def _keep_single(sessions: Sequence[Session], numbers: Sequence[int], results: Sequence[Result]) -> None:
    """Keeps, in the reply caches, the results of a run that has one command of each session."""
    if type(results) is RunResults and not results.counted:
        for session, number, revision in zip(sessions, numbers, results.revisions, strict=True):
            session.last_number = number
            session.answers.keep_revision(number, revision)
    else:
        for session, number, result in zip(sessions, numbers, results, strict=True):
            session.last_number = number
            session.answers.keep(number, result)


def _keep_runs(
    sessions: Sequence[Session], lengths: Sequence[int], numbers: Sequence[int], results: Sequence[Result]
) -> None:
    """Keeps, in the reply caches, the results of commands of several sessions that were executed together: `lengths`
    says how many of them each session has, and its commands follow each other in `numbers` and `results`."""
    for session, (start, end) in zip(sessions, pairwise(accumulate(lengths, initial=0)), strict=True):
        session.last_number = numbers[end - 1]
        session.answers.keep_run(numbers[start], results[start:end])


@implementer(IStateMachine)
class SessionStateMachine:
    """Runs all ordered updates, in their order."""

    _log = Logger()

    def __init__(self, server_id: int, catalogue: Catalogue, values: ClusterSettings | None = None) -> None:
        """`values` are the settings of a machine whose cluster is born already; None: slot 1 brings them."""
        self._server_id = server_id
        self._catalogue = catalogue
        self.settings = OrderedSettings(values)
        self.settings.on_change = self._adopt_settings
        catalogue.include(self.settings)
        self._read_catalogue()
        initial: Any = values  # without settings, no command is executed before slot 1 brings them
        self.context = Context(self, initial)
        """The facts that the application which is being called may depend on: quotas, revision, time, session and
        command number. Between two calls they are those of the last call."""
        self.kept_replies = KeptReplies()
        """The count of the results that all sessions together keep, which the quota `replies_bytes` bounds."""
        self._waits_max = 0
        """Maximum number of commands of one session that may be PENDING."""
        self.on_settings: Callable[[ClusterSettings], None] = lambda values: None
        """Called inside execution with the settings that are in force from then on: at their birth and at each
        change."""
        self.observer: Any = NoObserver()
        self.on_executed: Callable[[int, Sequence[ClientUpdate]], None] | None = None
        """Called with a slot and its updates when they have run; None: no function is called."""
        self.counts: CommandCounts | None = None
        """Counts of commands of this server's own clients; None in recovery, so that no command is counted twice."""
        self.revision = 0
        """Number of commands executed so far, including operations that open, close and expire sessions."""
        self.updates = 0
        """Number of updates that this process has executed, including those that it has executed again to recover."""
        self.time_ms = 0
        self.sessions: dict[str, Session] = {}
        self.closed_sessions: dict[str, Closed] = {}
        """Client id of a named session that has ended, unless forgotten -> its end, oldest first."""
        self._ends: deque[tuple[str, Closed]] = deque()
        """(client id, end) of the sessions in `closed_sessions`, in their order. Sessions that were opened anew may
        still be among them. A deque is used since a dict finds its first key slowly when many keys before it were
        removed."""
        self.forgotten = 0
        """The revision at which the latest forgotten session ended; 0: none was forgotten (Departure 33)."""
        self.heard_in: dict[int, int] = {}
        """Server -> the last slot in which an update of that server was executed (Departure 36)."""
        self._seq = 0
        if values is not None:
            self._apply_quotas(values)
        self.oldest_kept = 0
        """Slot below which ended sessions are forgotten. It never goes back, also when the horizon grows."""
        self._ending: Session | None = None
        """The session that ends at this moment, while the applications are told of its end; None: none ends."""
        self._completed: list[tuple[str, int, int, Result]] = []
        """(client id, epoch, number, result) of each PENDING command that has got its result, and of which the observer
        was not told yet.

        The observer is told when no application is running: so an exception of the observer is not taken for a fault of
        an application.
        """
        self._overdue: dict[str, int] = {}
        """Name of an application -> a deadline that the application has not dealt with, although it was told of the
        time."""
        self._failing: set[tuple[str, str]] = set()
        """(name of an application, name of its method) of each repeated call that has failed, and has returned no value
        since."""
        self._checked = CheckedPayloads()
        self._prefixes: dict[int, str] = {}
        """Server id -> the beginning of the names of its Paxos clients."""
        self.refused = 0
        """Number of updates that were ordered although they are not valid, and were refused (Departure 37)."""
        self.outcomes: list[Noted] = []
        """Results of the slot that is being executed: those that the digest of the history must cover
        (`pfsb.sessions.outcomes`)."""
        self._freezes = 0
        """Number of snapshots that were begun since this server's start."""
        self._frozen_applications: list[FrozenApplication] = []
        """The applications of the snapshot under way whose pieces may not be taken yet."""
        self.frozen: FrozenSessions | None = None
        """The sessions of the moment at which the last snapshot was begun, while it is taken; else None. It is told of
        each session before the session changes."""

    def _read_catalogue(self) -> None:
        catalogue = self._catalogue
        self.applications = catalogue.applications
        self._changes = {verb: entry.description.changes for verb, entry in catalogue.verbs.items()}
        self._shrinking = {verb for verb, entry in catalogue.verbs.items() if entry.description.shrinks}
        inner_at = {verb: entry.description.inner_at for verb, entry in catalogue.verbs.items()}
        self._inner_at = {verb: at for verb, at in inner_at.items() if at}
        """Verb of a command that runs another one -> the index at which the verb of that other one stands."""
        self._waits = frozenset(verb for verb, entry in catalogue.verbs.items() if entry.description.waits)
        self._application_of = {verb: entry.application for verb, entry in catalogue.verbs.items()}
        self._run_executors: dict[str, Any] = {
            verb: entry.application
            for verb, entry in catalogue.verbs.items()
            if IRunExecutor.providedBy(entry.application)
            and verb in entry.application.run_verbs
            and entry.description.changes
            and not entry.description.waits
        }
        """Verb -> the application that executes runs of its commands together."""
        self._have_deadlines = [app for app in catalogue.applications if not _never_has_a_deadline(app)]
        """The applications that are asked for deadlines, in their order."""
        self._logs = [_EventLog(app) for app in catalogue.applications if IEventLog.providedBy(app)]
        self._sharing: list[Any] = [app for app in catalogue.applications if IGrowingValues.providedBy(app)]
        """The applications whose state shares values that grow with kept results."""

    # ------------------------------------------------------------------ settings

    def _adopt_settings(self, values: ClusterSettings) -> None:
        """Follow the settings from here on. Raises `CannotRun` if this server lacks what they ask for."""
        self._switch_applications(values)
        self._apply_quotas(values)
        for session in self.sessions.values():
            session.answers.set_limits(values.session_window, values.reply_cache_bytes)
        self.on_settings(values)

    def _apply_quotas(self, values: ClusterSettings) -> None:
        self.context.quotas = values
        self.kept_replies.bytes_max = values.replies_bytes
        self._waits_max = min(values.session_window, values.session_waits)

    def quotas(self) -> dict[str, tuple[int | None, int]]:
        """Name of each quota -> (how much of it is in use, how much there may be); empty before slot 1 is executed.

        The use of a quota that holds for each value, or for each session, is None, and so is a use that the application
        cannot tell. Raises an exception of an application if perhaps only this server meets it.
        """
        if not self.settings.is_born:
            return {}
        used: dict[str, int | None] = {
            app.quota: self._used_of(app) for app in self.applications if IQuotaUser.providedBy(app)
        }
        used |= {"sessions": len(self.sessions), "replies_bytes": self.kept_replies.size}
        return {name: (used.get(name), getattr(self.settings.values, name)) for name in QUOTAS}

    def _used_of(self, application: Any) -> int | None:
        """How much of its quota an application uses; None if it cannot tell, at every server alike. That is logged
        once."""
        try:
            used: int = application.used()
            if type(used) is not int:
                raise TypeError(f"used() of {application.name} has returned {used!r:.40}, no int")
        except Exception as error:
            self._stop_or_tell_once(error, application, "used")
            return None
        self._failing.discard((application.name, "used"))
        return used

    def _require_abilities(self, values: ClusterSettings) -> None:
        lacking = Abilities.of_server(self._catalogue.installed).lacks(values)
        if lacking:
            raise CannotRun(
                f"the settings of the cluster ask for {', '.join(lacking)}, which this server does not have: "
                "install it here and start the server again; nothing is lost"
            )

    def _switch_applications(self, values: ClusterSettings) -> None:
        """Run the applications that the settings name.

        An application that ran before under the same version goes on. One that ran under another version hands its
        state over. Any other one begins with its first state.
        """
        self._require_abilities(values)
        chosen = self._chosen(values)
        if chosen != list(self._catalogue.chosen):
            self._look_at_logs()  # an application that ends may have new events from this slot
            self._catalogue.switch(chosen)
            self._read_catalogue()
            self._refuse_waits_without_application()

    def _refuse_waits_without_application(self) -> None:
        """Ends the PENDING commands of applications that run no more, which would never be answered."""
        running = {application.name for application in self.applications}
        orphans = [
            ((session.client_id, number), name)
            for session in self.sessions.values()
            for number, name in session.waiting.items()
            if name not in running
        ]
        for ticket, name in orphans:
            self.complete(ticket, Refused("UNKNOWN", f"the cluster does not run {name} any more; nothing was changed"))

    def _chosen(self, values: ClusterSettings) -> list[Any]:
        before = {each.name: each for each in self._catalogue.chosen} if self._seq > 1 else {}
        installed = self._catalogue.installed
        return [_successor(before.get(name), name, version, installed) for name, version in values.apps]

    # ------------------------------------------------------------------ driven by the ordered update queue

    def is_valid(self, update: ClientUpdate) -> bool:
        """Departure 37: whether the payload of an update is valid, and its Paxos client belongs to the server that the
        update names.

        The names of Paxos clients begin with the id of their server (`PaxosClients`), so another server cannot use up
        their timestamps by mistake.
        """
        server_id = update.server_id
        prefix = self._prefixes.get(server_id)
        if prefix is None:
            prefix = self._prefixes[server_id] = f"{server_id}."
        return update.client_id.startswith(prefix) and self._checked.check(update.payload)

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        """Lets applications end the PENDING commands whose time limit has passed by `time_ms`, then runs the updates of
        one slot. Returns the results of the slot in a form that servers compare (`IStateMachine.execute`)."""
        self._seq = seq
        self.time_ms = self.context.time_ms = time_ms
        if self.settings.is_born:
            self.updates += len(updates)
            self._end_waits()
            for update in updates:
                self._run(update)
            self._forget_closed_sessions()
            if self.kept_replies.size > self.kept_replies.bytes_max:
                self.kept_replies.make_room()
            self._look_at_logs()
        else:
            self._execute_before_birth(updates)
        if self.on_executed is not None:
            self.on_executed(seq, updates)
        outcomes, self.outcomes = self.outcomes, []
        return encode_outcomes(self.revision, outcomes)

    def _look_at_logs(self) -> None:
        for log in self._logs:
            try:
                length = log.application.length()
            except Exception as error:
                self._stop_or_tell_once(error, log.application, "length")
            else:
                if length != log.length:
                    self._log_grew(log, length)

    def _log_grew(self, log: _EventLog, length: object) -> None:
        """Tells the observer of new events of an application's event log, unless `length`, which the application has
        given, is no number of events."""
        application = log.application
        if type(length) is not int or length < 0:
            error = TypeError(f"length() of {application.name} has returned {length!r:.40}, no number of events")
            self._stop_or_tell_once(error, application, "length")
            return
        self._failing.discard((application.name, "length"))
        log.length = length
        self.observer.log_grew(application, length)

    def event_count(self, application: Any) -> int:
        """The number of events that an application had when its log was looked at last, after the last slot."""
        return next(log.length for log in self._logs if log.application is application)

    def _execute_before_birth(self, updates: Sequence[ClientUpdate]) -> None:
        """Run the birth of the settings, and nothing else: no other command can be executed without them."""
        for update in updates:
            for content in self._checked.take(update.payload) or ():
                if content.client_id == bundle.SERVER:
                    for _, command in content.entries:
                        if command[0] == BIRTH:
                            self.run_operation(update.server_id, command)

    def too_old(self, update: ClientUpdate) -> None:
        """Tells the observer of an ordered update of this server that no server runs, for example since it is beyond
        its horizon.

        An update beyond its horizon may have run before, and the numbers of its commands may be forgotten by now: so it
        could run twice.
        """
        if update.server_id == self._server_id:
            self.observer.too_old(update)

    def changes(self, command: Command) -> bool:
        """Whether a command changes something, and so runs at most once. Otherwise it is a question, which may be asked
        any number of times."""
        return self._changes.get(command[0], True)

    def has_session(self, client_id: str) -> bool:
        """Whether a session of this client is open, in the state after the slots that this server has executed."""
        return client_id in self.sessions

    def shrinks(self, command: Command) -> bool:
        """Whether a command makes the state of its application smaller, or leaves it as large as it is. For a command
        that runs another one (IF), the answer is that for the other one."""
        if command[0] in self._shrinking:
            return True
        at = self._inner_at.get(command[0])
        return at is not None and len(command) > at and command[at] in self._shrinking

    def is_open(self, client_id: str, epoch: int) -> bool:
        session = self.sessions.get(client_id)
        return session is not None and session.epoch == epoch

    def last_number(self, client_id: str) -> int:
        """The highest number executed for a session, open or ended; 0 if none was, or the session is forgotten."""
        session = self.sessions.get(client_id)
        return self.closed_sessions.get(client_id, (0, 0, 0))[0] if session is None else session.last_number

    def next_deadline(self) -> int | None:
        """The earliest time limit of a PENDING command, over all applications, in milliseconds of the state machine's
        time; None if there is none."""
        deadlines = map(self._deadline_of, self._have_deadlines)
        return min((d for d in deadlines if d is not None), default=None)

    def _end_waits(self) -> None:
        """Tells each application with a time limit that has passed to answer its PENDING commands. In most slots no
        limit has passed: that is found out first."""
        try:
            for application in self._have_deadlines:
                deadline = application.next_deadline()
                if deadline is not None and deadline <= self.time_ms:
                    break
            else:
                return
        except Exception:
            self._log.debug("a time limit could not be asked for")
        for application in self._have_deadlines:
            deadline = self._deadline_of(application)
            if deadline is not None and deadline <= self.time_ms:
                self._call_application(application.time_passed, self._context_for(""))
                self._overdue.pop(application.name, None)
                left = self._deadline_of(application)
                if left is not None and left <= self.time_ms:
                    self._overdue[application.name] = left
        if self._completed:
            self._tell_completed()

    def _deadline_of(self, application: Any) -> int | None:
        """The next deadline of an application, if it has one that it can still deal with; else None.

        A deadline that the application still has after it was told of the time (`time_passed`) is not returned: for a
        deadline that never goes away, the leader would order the time again and again.
        """
        try:
            deadline: int | None = application.next_deadline()
            if deadline is not None and type(deadline) is not int:
                raise TypeError(f"next_deadline of {application.name} has returned {deadline!r:.40}, no int")
        except Exception as error:
            self.stop_unless_alike(error, "next_deadline")
            return None
        return None if deadline is not None and self._overdue.get(application.name) == deadline else deadline

    # ------------------------------------------------------------------ bundles

    def _run(self, update: ClientUpdate) -> None:
        """Runs the bundles of an update one by one.

        The observer gets the results of a bundle before the next bundle runs, which may end the session.
        """
        self.heard_in[update.server_id] = self._seq
        is_ours = update.server_id == self._server_id
        contents = self._checked.take(update.payload)
        if contents is None:
            self._refuse(update)
            return
        if len(contents) > 1 and (together := self.run_bundles_together(update.server_id, contents)) is not None:
            if is_ours:
                ends = accumulate(map(len, map(_entries, contents)), initial=0)
                for position, (start, end) in enumerate(pairwise(ends)):
                    self.observer.executed(update, position, together[start:end])
            return
        for position, content in enumerate(contents):
            results = self.run_bundle(update.server_id, content)
            if self._completed:
                self._tell_completed()
            if is_ours:
                self.observer.executed(update, position, results)

    def _refuse(self, update: ClientUpdate) -> None:
        """Departure 37: handles an ordered update that is not valid. It changes nothing in the replicated state of any
        server.

        A server in error, or of another version, must have proposed it, since this one proposes and accepts no such
        update.
        """
        self.refused += 1
        self._log.error(
            "slot {seq}: the update {timestamp} of {client} has no valid content, and is refused by all servers",
            seq=self._seq,
            timestamp=update.timestamp,
            client=update.client_id,
        )
        if update.server_id == self._server_id:
            self.observer.too_old(update)

    def run_bundle(self, server_id: int, content: Bundle) -> Sequence[Any]:
        """Runs the commands and questions of a bundle that server `server_id` has sent. Returns a result for each.

        The bundle of a server's own session holds operations. If the session of any other bundle is not open under the
        bundle's epoch, nothing runs, and each result is the refusal.
        """
        if content.client_id == bundle.SERVER:
            return [self.run_operation(server_id, command) for _, command in content.entries]
        session = self.session_for(server_id, content)
        if isinstance(session, Refused):
            self.outcomes.append((session, content.client_id))
            last_number = self.last_number(content.client_id)
            return [evolve(session, fate="unknown") if 0 < n <= last_number else session for n, _ in content.entries]
        is_ours = server_id == self._server_id
        entries = content.entries
        results: Sequence[Any]
        if len(entries) == 1:
            ((number, command),) = entries
            one = self.run_command(session, number, command) if number else self.ordered_question(command, is_ours)
            results = [one]
        elif len({*map(_verb, map(_command, entries))}) > 1:
            results = self.run_in_pieces(session, entries, is_ours)
        elif (together := self.run_together(session, entries)) is not None:
            if is_ours and self.counts is not None:
                self.counts.note_run(entries[0][1][0], together)
            return together
        else:
            results = self._run_one_by_one(session, entries, is_ours)
        if is_ours and self.counts is not None:
            self.counts.note([*map(_verb, map(_command, entries))], results)
        return results

    def run_in_pieces(self, session: Session, entries: Sequence[Entry], is_ours: bool) -> Sequence[Any]:
        """Runs a bundle of several verbs: commands of one verb that follow each other together if they are a run, and
        all others one by one.

        Returns a result for each entry; at another server than the one at which the bundle was asked, for each command:
        questions are left out there, and the commands before and behind them may be one run. With ten PUTs, four SAYs
        and two questions in turn, and 256 under way on eight connections, a command takes half of the byte code.
        """
        if not is_ours:
            entries = [*filter(_number, entries)]
        results: list[Any] = []
        first = 0
        for verb, alike in groupby(map(_verb, map(_command, entries))):
            end = first + len([*alike])
            if end - first >= RUN_MIN and verb in self._run_executors:
                results += self._run_one_by_one(session, entries[len(results) : first], is_ours)
                results += self.run_together(session, entries[first:end]) or ()
            first = end
        results += self._run_one_by_one(session, entries[len(results) :], is_ours)
        return results

    def _run_one_by_one(self, session: Session, entries: Sequence[Entry], is_ours: bool) -> Sequence[Any]:
        return [
            self.run_command(session, number, command) if number else self.ordered_question(command, is_ours)
            for number, command in entries
        ]

    def run_together(self, session: Session, entries: Sequence[Entry]) -> Sequence[Result] | None:
        """Runs commands of one verb together if they are a run that its application executes together; else None.

        The commands of a run have numbers that follow each other, all of which are above what the session has run. So
        none of them is a question or a repetition, and each of them is executed as if it came alone: it has the same
        revision and result, and counts the same in the reply cache and in the digest of the history.
        """
        application = self._run_executors.get(entries[0][1][0])
        if application is None:
            return None
        numbers, commands = zip(*entries, strict=True)
        first, count = numbers[0], len(numbers)
        if first <= session.last_number or numbers != tuple(range(first, first + count)):
            return None
        results = self.execute_run(application, [*zip(repeat(session.client_id), numbers)], commands)
        if results is None:
            return None
        session.last_number = first + count - 1
        session.answers.keep_run(first, results)
        return results

    def run_bundles_together(self, server_id: int, contents: Sequence[Bundle]) -> Sequence[Result] | None:
        """Runs all bundles of an update together if they are of different sessions, each of them is a run, and all of
        their commands are a run that their application executes together; else None.

        Returns the results of all bundles, one after the other. Anonymous sessions that the bundles open are open even
        if None is returned; running the bundles one by one would open them as well. Of 256 PUTs under way on eight
        connections, each takes 8 % less byte code.
        """
        application = self._run_executors.get(contents[0].entries[0][1][0])
        if application is None:
            return None
        client_ids, _, _, entries = zip(*contents, strict=True)
        numbers, commands = zip(*chain.from_iterable(entries), strict=True)
        if len({*map(_verb, commands)}) > 1 or len({*client_ids}) < len(client_ids):
            return None
        sessions, lengths = [], [*map(len, entries)]
        for content, first in zip(contents, map(_number, map(_first, entries)), strict=True):
            session = self.session_for(server_id, content)
            if isinstance(session, Refused) or first <= session.last_number:
                return None
            sessions.append(session)
        if len(commands) == len(contents):
            tickets = [*zip(client_ids, numbers, strict=True)]
        elif not all(map(_follow_each_other, entries)):
            return None
        else:
            tickets = [*zip(chain.from_iterable(map(repeat, client_ids, lengths)), numbers, strict=True)]
        results = self.execute_run(application, tickets, commands)
        if results is None:
            return None
        if len(commands) == len(contents):
            _keep_single(sessions, numbers, results)
        else:
            _keep_runs(sessions, lengths, numbers, results)
        if server_id == self._server_id and self.counts is not None:
            self.counts.note_run(commands[0][0], results)
        return results

    def execute_run(
        self, application: Any, tickets: Sequence[Ticket], commands: Sequence[Command]
    ) -> Sequence[Result] | None:
        """Executes a run in its application, and counts its revisions. Returns the result of each command.

        Returns None if nothing was executed, and the commands have to be executed one by one. Raises an exception of
        the application if perhaps only this server meets it: then this server stops.
        """
        context = self.context
        context.revision = self.revision + 1
        context.session, context.number = tickets[0]
        context.sessions = [*map(_client_id, tickets)]
        try:
            counters = application.execute_run(commands, context)
        except Exception as error:
            self.stop_unless_alike(error, commands[0][0])
            return None
        if counters is not True and type(counters) is not tuple:
            return None
        self.revision += len(commands)
        revisions = range(self.revision - len(commands) + 1, self.revision + 1)
        if counters is True:
            return RunResults(revisions)
        return self._counted_results(commands[0][0], revisions, counters)

    def _counted_results(self, verb: str, revisions: range, counters: Counters) -> Sequence[Result]:
        """Makes the results of a run that have further fields besides the revision (`counters`), and notes them in
        `outcomes` for the digest of the history. If no client can be told such a result, each result is INTERNAL.
        """
        results: Sequence[Result]
        try:
            results = RunResults.of(revisions, counters)
            check_result(results[0])
        except Exception as error:  # no client can be told what the application has returned (`check_result`)
            results = [self._internal(verb, error)] * len(revisions)
            self.outcomes += zip(results, revisions, strict=True)
        else:
            self.outcomes.append((results, self.revision))
        return results

    def session_for(self, server_id: int, content: Bundle) -> Session | Refused:
        """The open session in which a bundle runs, or the refusal. Opens the session of an anonymous client's first
        bundle."""
        client_id = content.client_id
        session = self.sessions.get(client_id)
        if self.frozen is not None and session is not None:
            self.frozen.keep(session)
        if content.opens and session is None and client_id[0] == bundle.ANONYMOUS:
            refusal = self.refusal_if_full()
            if refusal is not None and not _changes_settings(content):
                return refusal
            answers = self._reply_cache(client_id)
            session = Session(client_id, 0, server_id, ANONYMOUS_TTL_MS, answers, frozen_in=self._freezes)
            self.sessions[client_id] = session
        if session is None:
            return over(client_id)
        if session.epoch != content.epoch:
            return replaced(client_id)
        return session

    def _reply_cache(self, client_id: str, forgotten: int = 0) -> ReplyCache:
        values = self.settings.values
        return ReplyCache(values.session_window, forgotten, values.reply_cache_bytes, self.kept_replies, client_id)

    def refusal_if_full(self) -> NotOpened | None:
        """The refusal of one more session; None if there may be one."""
        count, most = len(self.sessions), self.settings.values.sessions
        if count < most:
            return None
        return NotOpened("BUSY", f"{count} sessions are open, and the setting sessions allows {most}: try later")

    def run_command(self, session: Session, number: int, command: Command) -> Any:
        """Runs a command if its number is above all that have run; otherwise the result comes from the reply cache."""
        if number <= session.last_number:
            return self.answer_of(session, number)
        session.last_number = number
        self.revision += 1
        result = self.execute_command(session, number, command)
        if result is PENDING and command[0] in self._waits:
            session.waiting[number] = self._application_of[command[0]].name
            self.outcomes.append((result, self.revision))
            return result
        try:
            is_revision = session.answers.keep(number, result, self.revision)
        except Exception as error:  # no client can be told what the application has returned (`check_result`)
            result = self._internal(command[0], error)
            is_revision = session.answers.keep(number, result, self.revision)
        if not is_revision:
            self.outcomes.append((result, self.revision))
        return result

    def execute_command(self, session: Session, number: int, command: Command) -> Any:
        """Runs a command in its application, at the present revision. Returns its result, a refusal or PENDING.

        Raises an exception of the application if perhaps only this server meets it: then this server stops.
        """
        verb = command[0]
        try:
            application = self._application_of[verb]
        except KeyError:
            return Refused("UNKNOWN", f"no application here knows {verb}")
        if verb in self._waits and len(session.waiting) >= self._waits_max:
            return Refused("BUSY", f"{len(session.waiting)} commands of this session wait already, no more may")
        context = self.context
        context.revision = self.revision
        context.session = session.client_id
        context.number = number
        try:
            try:
                return application.execute(command, context)
            except BadRequest as error:
                if depends_on_machine(error):
                    raise
                return Refused(error.code, str(error))  # which may raise, in a class that the application has derived
        except Exception as error:
            return self._internal(verb, error)

    def _internal(self, verb: str, error: Exception) -> Refused:
        """The result of a command that failed by a fault of the application's program.

        Raises `error` if perhaps only this server meets it: then this server stops, and has not executed the command.
        """
        self.stop_unless_alike(error, verb)
        return failed_alike(verb)

    def stop_unless_alike(self, error: Exception, what: str) -> None:
        """Raises `error` if it may have happened at this server alone; otherwise logs it. `what` names the call that
        failed."""
        if depends_on_machine(error):
            raise error
        self._log.failure("{what} raised; so it does on every server", Failure(error), what=what)

    def _stop_or_tell_once(self, error: Exception, application: Any, what: str) -> None:
        """Does what `stop_unless_alike` does, for a call of an application that is repeated in every slot or at every
        look: logs the exceptions of the call once, until it has returned a value again (`_failing`)."""
        key = (application.name, what)
        if key in self._failing and not depends_on_machine(error):
            return
        self._failing.add(key)
        self.stop_unless_alike(error, f"{what} of {application.name}")

    def ordered_question(self, command: Command, is_ours: bool) -> Result | None:
        """Answers a question that came through the log. Only the server at which it was asked does so (`is_ours`).

        Other servers return None, since a question changes nothing.
        """
        return self.question(command) if is_ours else None

    def question(self, command: Command) -> Result:
        """The result of a question, from the application's present state. Changes nothing."""
        application = self._application_of.get(command[0])
        if application is None:
            return Refused("UNKNOWN", f"no application here knows {command[0]}")
        try:
            try:
                result: Result = application.query(command)
            except BadRequest as error:
                if depends_on_machine(error):
                    raise
                result = Refused(error.code, str(error))
            check_result(result)
        except Exception as error:
            # A question may have changed what the application keeps beside its state, such as an index.
            self.stop_unless_alike(error, command[0])
            result = Refused("INTERNAL", f"{command[0]} failed inside the application; it changes nothing")
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
        window = self.settings.values.session_window
        return Refused(
            "BADREQUEST",
            f"number {number} is past, and its answer no longer kept: at most {window} are, fewer large ones, and none "
            "when the session ends",
            fate="unknown",
        )

    def complete(self, ticket: Ticket, result: Result) -> None:
        """Takes the result that an application gives to a PENDING command: keeps it in the session's reply cache, and
        notes it for the observer.

        A command gets no result if its session has ended before: a later session of the same client may use its number
        for another command.
        """
        client_id, number = ticket
        try:
            check_result(result)
        except Exception as error:
            result = self._internal("a command that has waited", error)
        self.outcomes.append((result, (client_id, number)))
        session = self.sessions.get(client_id)
        if session is None and self._ending is not None and self._ending.client_id == client_id:
            session = self._ending
        if session is not None and number in session.waiting:
            if self.frozen is not None:
                self.frozen.keep(session)
            session.answers.keep(number, result)
            session.waiting.pop(number, None)
            self._completed.append((client_id, session.epoch, number, result))

    def _tell_completed(self) -> None:
        completed, self._completed = self._completed, []
        for each in completed:
            self.observer.completed(*each)

    def _call_application(self, function: Callable[..., None], *args: Any) -> None:
        """Calls `function`, a method of an application, and goes on if it raises a fault of its program.

        Every server meets such a fault in this call, and would meet it again after every restart, so to stop would not
        help.
        """
        try:
            function(*args)
        except Exception as error:
            self.stop_unless_alike(error, getattr(function, "__qualname__", "a method of an application"))

    def _context_for(self, client_id: str) -> Context:
        """Sets `context` for a call of an application that executes no command, and returns it.

        Such a call tells the application that the session `client_id` has ended; or, with "" as `client_id`, that time
        has passed.
        """
        context = self.context
        context.revision, context.time_ms = self.revision, self.time_ms
        context.session, context.number = client_id, 0
        return context

    # ------------------------------------------------------------------ sessions open and end

    def run_operation(self, server_id: int, command: Command) -> Result:
        """Runs an operation of a server's own session. BIRTH, ANNOUNCE, EPOCH, ASK and HERE add nothing to the
        revision."""
        result = self._operation_about_servers(server_id, command)
        if result is None:
            self.revision += 1
            result = self._operation(server_id, command)
        self.outcomes.append((result, self.revision))
        return result

    def _operation_about_servers(self, server_id: int, command: Command) -> Result | None:
        match command:
            case (str(verb), data) if verb == BIRTH:
                return self.settings.give_birth(data)
            case (str(verb), data) if verb == ANNOUNCE:
                return self.settings.announce(server_id, data)
            case (str(verb), data) if verb == EPOCH and self.settings.values.rules >= RULES_OF_EPOCHS:
                return self.settings.change_members(self._seq, data)
            case (str(verb), int(asked)) if verb == ASK:
                if asked == self._server_id:
                    self.observer.asked_for()
                return Done()
            case (verb,) if verb == HERE:
                return Done()
        return None

    def _operation(self, server_id: int, command: Command) -> Result:
        match command:
            case (str(verb), str(client_id), int(ttl_ms)) if verb == OPEN:
                if client_id[:1] in _NOT_NAMES or ttl_ms < 1:
                    return Refused("BADREQUEST", f"no session of this name and ttl can be opened: {ttl_ms} ms")
                return self.open_session(server_id, client_id, ttl_ms)
            case (str(verb), str(client_id), int(epoch)) if verb in (CLOSE, EXPIRE):
                return self.end_session(client_id, epoch, verb)
            case (str(verb), str(client_id), int(epoch), int(heard)) if verb == EXPIRE:
                return self.expire_silent(client_id, epoch, heard)
            case _:
                return Refused("UNKNOWN", f"no operation {command[0]}")

    def open_session(self, server_id: int, client_id: str, ttl_ms: int) -> Result:
        """Opens a session, or takes it over: the new epoch fences off the connection that had opened it before.

        If a former session of this client id has ended and is not forgotten, the new session begins with the last
        command number of the former one as its own, so none of the numbers up to it can run again. The results of the
        former session are gone: if the client repeats such a number, it is told that the fate is unknown.
        """
        session = self.sessions.get(client_id)
        resumed = session is not None
        if session is not None:
            if self.frozen is not None:
                self.frozen.keep(session)
            self.observer.session_ended(client_id, session.epoch, replaced(client_id))
            session.epoch, session.server_id, session.ttl_ms = self.revision, server_id, ttl_ms
        else:
            refusal = self.refusal_if_full()
            if refusal is not None:
                return refusal
            ended = self.closed_sessions.pop(client_id, (0, 0, 0))
            if self.frozen is not None:
                self.frozen.keep_closed(ended)
            last_number = ended[0]
            answers = self._reply_cache(client_id, last_number)
            session = Session(
                client_id,
                self.revision,
                server_id,
                ttl_ms,
                answers,
                last_number,
                opened=self.revision,
                frozen_in=self._freezes,
            )
            self.sessions[client_id] = session
        fields = (
            ("client", client_id),
            ("epoch", session.epoch),
            ("last", session.last_number),
            ("resumed", Word("yes" if resumed else "no")),
            ("opened", session.opened),
        )
        return Done((*fields, ("forgotten", self.forgotten)) if self.forgotten else fields)

    def expire_silent(self, client_id: str, epoch: int, heard: int) -> Result:
        """Departure 36: expires a session for the leader, unless updates of the server at which it was opened get
        through the log.

        `heard` is the last slot in which, as far as the leader knew, an update of that server was executed. If one was
        executed in a later slot, the session is being served, and goes on.
        """
        session = self.sessions.get(client_id)
        if session is not None and self.heard_in.get(session.server_id, 0) > heard:
            return Done()
        return self.end_session(client_id, epoch, EXPIRE)

    def end_session(self, client_id: str, epoch: int, verb: str) -> Result:
        """Closes or expires a session. Has no effect if the session was opened under another epoch in the meantime.

        In that case the answer is a refusal: a connection that is fenced off must not believe that its BYE has released
        the locks.
        """
        session = self.sessions.get(client_id)
        if session is None:
            return Done()
        if session.epoch != epoch:
            return replaced(client_id)
        del self.sessions[client_id]
        if session.last_number and client_id[0] != bundle.ANONYMOUS:
            ended = self.closed_sessions[client_id] = (session.last_number, self._seq, self.revision)
            self._ends.append((client_id, ended))
        self._ending = session
        for application in self.applications:
            self._call_application(application.session_ended, client_id, self._context_for(client_id))
        self._ending = None
        # This comes after the applications have completed the waiting commands of this session, since those results are
        # kept, too.
        session.answers.drop_all()
        if self._completed:
            self._tell_completed()
        how = "closed" if verb == CLOSE else "expired: nothing was heard of it for too long"
        self.observer.session_ended(client_id, epoch, Refused("NOSESSION", f"session {client_id} is {how}"))
        return Done()

    def _forget_closed_sessions(self) -> None:
        """Departure 33: forgets sessions that ended more than a horizon ago.

        By now every update with a command of such a session is too old to run, so the numbers of these commands need no
        longer be known.
        """
        self.oldest_kept = max(self.oldest_kept, self._seq - self.settings.values.horizon)
        while self._ends:
            client_id, ended = self._ends[0]
            _, closed_at, revision = ended
            if closed_at >= self.oldest_kept:
                return
            self._ends.popleft()
            if self.closed_sessions.get(client_id) is ended:
                if self.frozen is not None:
                    self.frozen.keep_closed(ended)
                del self.closed_sessions[client_id]
                self.forgotten = revision

    # ------------------------------------------------------------------ snapshots

    def freeze(self) -> Generator[Piece, None, None]:
        """The present state as pieces (`IStateMachine.freeze`): the sections of `pfsb.sessions.frozen_state`.

        An application that does not make pieces itself makes its snapshot here, in one go. If an application raises an
        exception, the first step of the iterator raises it: the server goes on, without this snapshot.
        """
        self._end_freeze(self._freezes)
        self._freezes += 1
        try:
            pieces = self._freeze()
        except Exception as error:
            self._end_freeze(self._freezes)
            pieces = raising(error)
        return FrozenPieces(pieces, partial(self._end_freeze, self._freezes))

    def _freeze(self) -> Iterator[Piece]:
        kept, settings, applications = self.kept_replies, self.settings, self._frozen_applications
        for application in self._catalogue.chosen if settings.is_born else ():
            applications.append(FrozenApplication.of(application))
        head = StateHead(
            self._seq,
            self.revision,
            self.time_ms,
            self.forgotten,
            self.oldest_kept,
            sorted(self.heard_in.items()),
            sorted(self._overdue.items()),
            kept.size,
            kept.numbered,
            len(self.closed_sessions),
            len(kept.growing),
            len(self.sessions),
            settings.values.encode() if settings.is_born else None,
            [(server_id, each.encode()) for server_id, each in sorted(settings.announced.items())],
            [(each.name, each.version, each.size) for each in applications],
            None if settings.later_members is None else encode_members(settings.later_members),
        )
        frozen = self.frozen = FrozenSessions(
            self._freezes,
            [*self.sessions.values()],
            self.sessions,
            [*kept.growing.values()],
            self._sharing,
            [*self._ends],
            self.closed_sessions,
        )
        kept.watcher = frozen
        return chain(
            pieces_of(STATE, [(packed(head.row()), 1)]),
            pieces_of(CLOSED, frozen.closed_rows()),
            pieces_of(GROWING, frozen.growing_rows()),
            pieces_of(SESSIONS, frozen.rows()),
            *[each.pieces() for each in applications],
        )

    def _end_freeze(self, number: int) -> None:
        """Drop the frozen state of snapshot `number`, unless a later snapshot was begun meanwhile."""
        if number != self._freezes:
            return
        applications, self._frozen_applications = self._frozen_applications, []
        self.frozen = self.kept_replies.watcher = None
        for each in applications:
            each.close()

    def restorer(self) -> SessionRestorer:
        """Make a restorer, which builds a state from the pieces of a snapshot (`IStateMachine.restorer`)."""
        return SessionRestorer(self._make_for, self._catalogue, self._adopt)

    def _make_for(self, values: ClusterSettings, name: str, version: int) -> Any:
        self._require_abilities(values)
        return _successor(None, name, version, self._catalogue.installed)

    def _adopt(self, state: RestoredState) -> None:
        """Go on with the state of a snapshot in place of the present state, and tell the observer."""
        self._end_freeze(self._freezes)
        state.end(waiting=True)
        head = state.head
        self.settings.put(state.values, state.announced, state.members)
        self._seq, self.revision, self.time_ms = head.seq, head.revision, head.time_ms
        self.context.time_ms = head.time_ms
        self.sessions, self.closed_sessions = state.sessions, state.closed_sessions
        self._ends = deque(state.closed_sessions.items())
        self.forgotten, self.oldest_kept = head.forgotten, head.oldest_kept
        self.heard_in, self._overdue = dict(head.heard_in), dict(head.overdue)
        self.kept_replies = state.kept
        if state.values is not None:
            self._catalogue.switch([each.application for each in state.applications])
            self._read_catalogue()
            self._apply_quotas(state.values)
            self.on_settings(state.values)
        self.observer.restored()
        self._look_at_logs()
