"""Defects above the protocol: sessions, exactly once, and locks (docs/internals/sessions.rst)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from pfsb.applications.interfaces import Command, Done, Refused, Result, Ticket
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.cluster_settings import RULES_KNOWN, ClusterSettings
from pfsb.sessions.reply_cache import ReplyCache
from pfsb.sessions.session import Session
from pfsb.sessions.state_machine import EXPIRE
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override

DEFECTS = Defects(needs_sessions=True)


def _lock(process: Any) -> Any:
    return process.applications["lock"]


def _once_recovered(process: Any, change: Callable[[], None]) -> None:
    """Call `change` once, when a server that starts has executed the history on its disk, before its first message."""

    @instead_of(process.replica, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        change()


@DEFECTS.add(
    "replies-lost",
    "docs/internals/sessions.rst, G20",
    "a server that is restarted has forgotten the replies that it kept",
)
def _replies_lost(process: Any) -> None:
    def forget() -> None:
        for session in process.server.machine.sessions.values():
            session.answers = ReplyCache(session.answers.answers_max)

    _once_recovered(process, forget)


def _do_not_fence(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "session_for")
    def broken(session_for: Callable[[int, Bundle], Any], server_id: int, content: Bundle) -> Any:
        session = machine.sessions.get(content.client_id)
        return session_for(server_id, content._replace(epoch=session.epoch) if session is not None else content)


@DEFECTS.add(
    "epoch-not-fenced",
    "docs/internals/sessions.rst",
    "a session that was taken over still runs what comes from the old connection",
)
def _epoch_not_fenced(process: Any) -> None:
    _do_not_fence(process)


@DEFECTS.add(
    "numbers-not-filtered",
    "docs/internals/sessions.rst",
    "neither its number nor its epoch keeps a command from running again",
)
def _numbers_not_filtered(process: Any) -> None:
    """Let a command run whatever its number is, and switch off fencing by epochs, too.

    If fencing stayed on, it would stop all repeated commands that a correct front end lets through, and so hide the
    defect.
    """
    _do_not_fence(process)

    @instead_of(process.server.machine, "run_command")
    def broken(command: Callable[[Session, int, Command], Any], session: Session, number: int, asked: Command) -> Any:
        session.last_number = min(session.last_number, number - 1)
        return command(session, number, asked)


@DEFECTS.add("revision-not-counted", "docs/internals/sessions.rst", "commands of clients do not count as revisions")
def _revision_not_counted(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "run_command")
    def broken(command: Callable[[Session, int, Command], Any], session: Session, number: int, asked: Command) -> Any:
        revision = machine.revision
        result = command(session, number, asked)
        machine.revision = revision
        return result


@DEFECTS.add(
    "revision-not-the-same", "docs/internals/sessions.rst", "the server with the lowest id counts some revisions twice"
)
def _revision_not_the_same(process: Any) -> None:
    machine = process.server.machine

    if process.replica.membership.server_id != process.replica.membership.ids[0]:
        return

    @instead_of(machine, "run_operation")
    def broken(operate: Callable[[int, Command], Result], server_id: int, command: Command) -> Result:
        result = operate(server_id, command)
        if machine.revision % 10 == 0:
            machine.revision += 1
        return result


@DEFECTS.add(
    "closed-number-forgotten", "docs/internals/sessions.rst", "the last number of a session that ends is not kept"
)
def _closed_number_forgotten(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "end_session")
    def broken(end: Callable[[str, int, str], Result], client_id: str, epoch: int, verb: str) -> Result:
        result = end(client_id, epoch, verb)
        machine.closed_sessions.pop(client_id, None)
        return result


@DEFECTS.add(
    "fate-none-for-unknown", "promise 4, docs/protocol.rst", "a command that is under way is refused with fate=none"
)
def _fate_none_for_unknown(process: Any) -> None:
    """Change refusals when they leave for the clients, not where they are made.

    Code inside the server recognises provisional refusals by their class, and must get these objects unchanged.
    """
    turn = process.replica.turn

    def with_fate_none(said: Any) -> Any:
        if isinstance(said, list):
            return [with_fate_none(each) for each in said]
        return evolve(said, fate="none") if getattr(said, "code", "") == "UNAVAILABLE" else said

    def broken(give: Callable[..., None], function: Callable[..., None], *args: Any) -> None:
        give(function, *map(with_fate_none, args))

    for name in ("answer", "refuse"):
        instead_of(turn, name)(broken)


@DEFECTS.add("reply-before-execution", "Departure 1", "a command is answered when it is sent to the leader")
def _reply_before_execution(process: Any) -> None:
    @instead_of(process.replica, "introduce")
    def broken(introduce: Callable[..., None], update: ClientUpdate, *, is_asked: bool = True) -> None:
        introduce(update, is_asked=is_asked)
        for bundler in process.server.local_clients.submission.paxos_clients.bundlers_of(update):
            for part in bundler.outstanding:
                if any(part.numbers):
                    part.on_results([Done()] * len(part.numbers))


@DEFECTS.add("results-mixed-up", "Departure 8", "sessions whose bundles travel together get each other's results")
def _results_mixed_up(process: Any) -> None:
    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        clients = process.server.local_clients.submission.paxos_clients

        @instead_of(clients, "bundlers_of")
        def mixed_up(bundlers_of: Callable[[ClientUpdate], Sequence[Any]], update: ClientUpdate) -> Sequence[Any]:
            return bundlers_of(update)[::-1]


@DEFECTS.add("expiry-left-out", "Departure 9", "the sessions of a server that is silent are not expired")
def _expiry_left_out(process: Any) -> None:
    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        override(process.server.expiry, "sweep", lambda _: do_nothing)


@DEFECTS.add(
    "idle-client-expired", "docs/protocol.rst, HELLO", "the session of a client that only listens for ten minutes ends"
)
def _idle_client_expired(process: Any) -> None:
    asked_at: dict[str, float] = {}

    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        expiry, clock = process.server.expiry, process.clock

        @instead_of(process.server.machine, "run_command")
        def noted(
            command: Callable[[Session, int, Command], Any], session: Session, number: int, asked: Command
        ) -> Any:
            asked_at[session.client_id] = clock.seconds()
            return command(session, number, asked)

        @instead_of(process.server.machine, "execute_run")
        def run_noted(
            execute_run: Callable[..., Any], app: Any, tickets: Sequence[Ticket], asked: Sequence[Command]
        ) -> Any:
            asked_at.update((client_id, clock.seconds()) for client_id, _ in tickets)
            return execute_run(app, tickets, asked)

        @instead_of(expiry, "is_silent")
        def is_silent(truly_silent: Callable[[Session], bool], session: Session) -> bool:
            return truly_silent(session) or clock.seconds() - asked_at.get(session.client_id, clock.seconds()) > 600


@DEFECTS.add("idle-wait-not-ended", "Departure 29", "a wait ends when something is ordered, and not before")
def _idle_wait_not_ended(process: Any) -> None:
    override(process.replica.proposals, "propose_time", lambda _: lambda: False)


@DEFECTS.add("lock-not-fair", "docs/internals/applications.rst", "a lock goes to whoever waits shortest for it")
def _lock_not_fair(process: Any) -> None:
    lock = _lock(process)

    @instead_of(lock, "pass_on")
    def broken(pass_on: Callable[[str, Any, Any], None], name: str, held: Any, context: Any) -> None:
        if held.places:
            held.places.move_to_end(next(reversed(held.places)), last=False)
        pass_on(name, held, context)


@DEFECTS.add("lock-not-released", "docs/internals/sessions.rst", "a session that ends keeps its locks")
def _lock_not_released(process: Any) -> None:
    override(_lock(process), "session_ended", lambda _: do_nothing)


@DEFECTS.add("lock-line-lost", "docs/internals/applications.rst", "after a restart no client waits for a lock any more")
def _lock_line_lost(process: Any) -> None:
    lock = _lock(process)

    def forget() -> None:
        for held in lock.locks.values():
            held.places.clear()

    _once_recovered(process, forget)


class _AtRevision0:
    revision = 0

    def __init__(self, context: Any) -> None:
        self.complete = context.complete


@DEFECTS.add(
    "lock-token-again", "docs/internals/applications.rst", "a lock is granted again with the token of its last holder"
)
def _lock_token_again(process: Any) -> None:
    lock = _lock(process)

    @instead_of(lock, "pass_on")
    def broken(pass_on: Callable[[str, Any, Any], None], name: str, held: Any, context: Any) -> None:
        held.token -= 1
        pass_on(name, held, _AtRevision0(context))


@DEFECTS.add(
    "lock-waits-for-ever", "docs/protocol.rst, LOCK", "a LOCK with a time limit waits on when its time has come"
)
def _lock_waits_for_ever(process: Any) -> None:
    override(_lock(process), "time_passed", lambda _: do_nothing)
    override(_lock(process), "next_deadline", lambda _: lambda: None)


@DEFECTS.add(
    "takeover-keeps-epoch",
    "docs/internals/sessions.rst",
    "a session that is opened anew at the same server keeps its epoch, so the old connection is not fenced off",
)
def _takeover_keeps_epoch(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "open_session")
    def broken(open_session: Callable[..., Result], server_id: int, client_id: str, ttl_ms: int) -> Result:
        session = machine.sessions.get(client_id)
        known = (session.epoch, session.server_id) if session is not None else (0, None)
        result = open_session(server_id, client_id, ttl_ms)
        if known[1] != server_id:
            return result
        machine.sessions[client_id].epoch = known[0]
        assert isinstance(result, Done)
        return Done(tuple((name, known[0] if name == "epoch" else value) for name, value in result.fields))


def _ignore_epoch(process: Any, ignored: str) -> None:
    machine = process.server.machine

    @instead_of(machine, "end_session")
    def broken(end: Callable[[str, int, str], Result], client_id: str, epoch: int, verb: str) -> Result:
        session = machine.sessions.get(client_id)
        return end(client_id, session.epoch if session is not None and verb == ignored else epoch, verb)


@DEFECTS.add(
    "close-ignores-epoch", "docs/internals/sessions.rst", "CLOSE of a connection that is fenced off closes the session"
)
def _close_ignores_epoch(process: Any) -> None:
    _ignore_epoch(process, "CLOSE")


@DEFECTS.add(
    "expire-ignores-epoch", "docs/internals/sessions.rst", "EXPIRE ends a session that was opened anew in the meantime"
)
def _expire_ignores_epoch(process: Any) -> None:
    _ignore_epoch(process, "EXPIRE")


@DEFECTS.add(
    "fenced-connection-told",
    "docs/internals/sessions.rst",
    "a connection that is fenced off is told the result of the new connection's command of that number",
)
def _fenced_connection_told(process: Any) -> None:
    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        submission = process.server.local_clients.submission

        @instead_of(submission, "completed")
        def told(completed: Callable[..., None], client_id: str, epoch: int, number: int, result: Result) -> None:
            submitter = submission.submitters.get(client_id)
            completed(client_id, epoch if submitter is None else submitter.epoch, number, result)


@DEFECTS.add(
    "served-session-expired",
    "Departure 36",
    "the leader expires the sessions of a server that it does not hear, although updates of that server are executed",
)
def _served_session_expired(process: Any) -> None:
    machine = process.server.machine
    override(
        machine,
        "expire_silent",
        lambda _: lambda client_id, epoch, heard: machine.end_session(client_id, epoch, EXPIRE),
    )

    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        expiry = process.server.expiry
        override(expiry, "has_not_answered", lambda _: lambda server_id, heard, now: True)

        @instead_of(expiry, "silence_of")
        def unbroken(silence_of: Callable[..., Any], session: Session, key: tuple[str, int], now: float) -> Any:
            return expiry.silences.get(key) or silence_of(session, key, now)


@DEFECTS.add(
    "expiry-not-asked",
    "Departure 36",
    "the leader expires the sessions of a server that it does not hear without asking it",
)
def _expiry_not_asked(process: Any) -> None:
    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        override(process.server.expiry, "ask", lambda _: do_nothing)
        override(process.server.expiry, "has_not_answered", lambda _: lambda server_id, heard, now: True)


@DEFECTS.add(
    "expiry-overtaken",
    "Departure 36",
    "an expiry has its effect although an update of the session's server was executed before it",
)
def _expiry_overtaken(process: Any) -> None:
    machine = process.server.machine
    override(
        machine,
        "expire_silent",
        lambda _: lambda client_id, epoch, heard: machine.end_session(client_id, epoch, EXPIRE),
    )


@DEFECTS.add(
    "deaf-server-keeps-sessions",
    "Departure 36",
    "the leader expires no session of a server that is heard, although that server executes nothing",
)
def _deaf_server_keeps_sessions(process: Any) -> None:
    peers = process.replica.peers

    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()

        @instead_of(process.server.expiry, "is_silent")
        def unbroken(is_silent: Callable[[Session], bool], session: Session) -> bool:
            is_heard = session.server_id in peers.by_id and peers.heard_lately(session.server_id)
            return is_silent(session) and not is_heard


@DEFECTS.add("displaced-not-told", "Departure 37", "an update in a server's name counts as one that it has made")
def _displaced_not_told(process: Any) -> None:
    @instead_of(process.server, "start")
    def broken(start: Callable[[], None]) -> None:
        start()
        clients = process.server.local_clients.submission.paxos_clients
        override(clients, "is_foreign", lambda _: lambda update: False)


@DEFECTS.add(
    "operators-shut-out", "docs/operating.rst", "the limit of sessions cannot be raised while all sessions are in use"
)
def _operators_shut_out(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "session_for")
    def broken(session_for: Callable[[int, Bundle], Any], server_id: int, content: Bundle) -> Any:
        if content.opens and content.client_id not in machine.sessions and (refusal := machine.refusal_if_full()):
            return refusal
        return session_for(server_id, content)


@DEFECTS.add(
    "program-fault-stops",
    "docs/internals/applications.rst",
    "a command that fails alike at every server stops every server",
)
def _program_fault_stops(process: Any) -> None:
    @instead_of(process.server.machine, "stop_unless_alike")
    def broken(_: object, error: Exception, what: str) -> None:
        raise error


class _BelievingCache(ReplyCache):
    __slots__ = ()

    def keep(self, number: int, result: Any, revision: int = 0) -> bool:
        try:
            return super().keep(number, result, revision)
        except ValueError:
            self.page.results[number] = result
            return False


@DEFECTS.add(
    "wrong-names-told", "docs/internals/applications.rst", "an answer of an application is told whatever is in it"
)
def _wrong_names_told(process: Any) -> None:
    @instead_of(process.server.machine, "run_command")
    def broken(run: Callable[..., Any], session: Session, number: int, command: Command) -> Any:
        become(session.answers, _BelievingCache)
        return run(session, number, command)


@DEFECTS.add(
    "machine-fault-answered",
    "docs/internals/applications.rst",
    "a command that fails for want of memory at one server is answered there, and the server goes on",
)
def _machine_fault_answered(process: Any) -> None:
    override(process.server.machine, "stop_unless_alike", lambda _: do_nothing)


@DEFECTS.add("time-from-wall-clock", "Departure 35", "a leader's time is that of its own clock")
def _time_from_wall_clock(process: Any) -> None:
    time = process.replica.ordered_queue.time
    override(time, "now_ms", lambda _: lambda: int(process.clock.seconds() * 1000))


@DEFECTS.add("time-stands-still", "Departure 35", "a leader's time is that of the last slot, however long ago that was")
def _time_stands_still(process: Any) -> None:
    time = process.replica.ordered_queue.time

    @instead_of(time, "now_ms")
    def broken(now_ms: Callable[[], int]) -> int:
        return int(time.time_ms) or now_ms()


@DEFECTS.add(
    "executes-otherwise", "Departure 40", "server 1 refuses every twentieth command, as if its memory were full"
)
def _executes_otherwise(process: Any) -> None:
    machine = process.server.machine
    if process.replica.membership.server_id != 1:
        return

    @instead_of(machine, "execute_command")
    def broken(execute: Callable[..., Any], session: Session, number: int, command: Command) -> Any:
        if machine.revision % 20 == 0:
            return Refused("INTERNAL", f"{command[0]} failed inside the application")
        return execute(session, number, command)


@DEFECTS.add("digest-of-questions", "Departure 40", "questions are in the digest of the one server that answers them")
def _digest_of_questions(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "ordered_question")
    def broken(question: Callable[..., Any], command: Command, is_ours: bool) -> Any:
        result = question(command, is_ours)
        if is_ours:
            machine.outcomes.append((result, machine.revision))
        return result


# ---------------------------------------------------------------------------------------------
# Quotas
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("condition-ignored", "docs/protocol.rst", "IF runs its command whatever the revision of the key is")
def _condition_ignored(process: Any) -> None:
    @instead_of(process.applications["kv"], "execute")
    def broken(execute: Callable[[Command, Any], Any], command: Command, context: Any) -> Any:
        return execute(command[3:] if command[0] == "IF" else command, context)


@DEFECTS.add("deleted-bytes-counted", "docs/operating.rst", "the bytes of keys that are deleted still count")
def _deleted_bytes_counted(process: Any) -> None:
    kv = process.applications["kv"]

    @instead_of(kv, "execute")
    def broken(execute: Callable[[Command, Any], Any], command: Command, context: Any) -> Any:
        used = kv.used_bytes
        result = execute(command, context)
        if command[0] == "DEL":
            kv.used_bytes = used
        return result


class _LocalQuotas:
    """The context of an application, with half the quota of keys and values that the other servers have."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.quotas = evolve(context.quotas, kv_bytes=context.quotas.kv_bytes // 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@DEFECTS.add(
    "quota-of-this-server", "docs/operating.rst", "server 0 has half the quota of keys and values that others have"
)
def _quota_of_this_server(process: Any) -> None:
    if process.replica.membership.server_id != 0:
        return

    def broken(execute: Callable[[Any, Any], Any], command: Any, context: Any) -> Any:
        return execute(command, _LocalQuotas(context))

    for name in ("execute", "execute_run"):
        instead_of(process.applications["kv"], name)(broken)


@DEFECTS.add(
    "sessions-of-this-server",
    "docs/operating.rst",
    "a server counts only the sessions of its own clients, as it has them",
)
def _sessions_of_this_server(process: Any) -> None:
    machine, own_id = process.server.machine, process.replica.membership.server_id

    @instead_of(machine, "refusal_if_full")
    def broken(refusal_if_full: Callable[[], Any]) -> Any:
        own = [session for session in machine.sessions.values() if session.server_id == own_id]
        return refusal_if_full() if 2 * len(own) >= machine.settings.values.sessions else None


@DEFECTS.add(
    "file-rules",
    "Departure 34",
    "a server takes session_window from its own configuration file, and not from the cluster's settings",
)
def _file_rules(process: Any) -> None:
    own = process.server.config.limits.session_window
    override(
        process.server.machine.settings,
        "on_change",
        lambda on_change: lambda values: on_change(evolve(values, session_window=own)),
    )


@DEFECTS.add(
    "one-announces-for-all", "Departure 34", "what one server announces that it can run counts for all servers"
)
def _one_announces_for_all(process: Any) -> None:
    settings = process.server.machine.settings

    @instead_of(settings, "announce")
    def broken(announce: Callable[[int, object], Result], server_id: int, data: object) -> Result:
        result = announce(server_id, data)
        if isinstance(result, Done):
            settings.announced.update(dict.fromkeys(settings.values.members, settings.announced[server_id]))
        return result


class _WithoutFormerState:
    """Installed applications that do not take over the state of another version when the settings change."""

    def __init__(self, installed: Any) -> None:
        self._installed = installed
        self.versions, self.rules = installed.versions, getattr(installed, "rules", RULES_KNOWN)
        self.is_changing = False

    def make(self, name: str, version: int) -> Any:
        made = self._installed.make(name, version)
        if self.is_changing:
            made.restore = do_nothing
        return made


@DEFECTS.add(
    "versions-begin-anew", "Departure 34", "an application that runs under another version begins with its first state"
)
def _versions_begin_anew(process: Any) -> None:
    catalogue = process.server.catalogue
    installed = catalogue.installed = _WithoutFormerState(catalogue.installed)

    @instead_of(process.server.machine.settings, "on_change")
    def broken(on_change: Callable[[ClusterSettings], None], values: ClusterSettings) -> None:
        installed.is_changing = True
        on_change(values)
        installed.is_changing = False


@DEFECTS.add(
    "horizon-goes-back", "Departure 34", "when the horizon grows, updates become valid again that were too old"
)
def _horizon_goes_back(process: Any) -> None:
    machine, ordered_queue = process.server.machine, process.replica.ordered_queue

    @instead_of(machine.settings, "on_change")
    def broken(on_change: Callable[[ClusterSettings], None], values: ClusterSettings) -> None:
        on_change(values)
        ordered_queue.oldest_valid = machine.oldest_kept = 0


@DEFECTS.add("ended-replies-counted", "docs/operating.rst", "the answers of sessions that have ended still count")
def _ended_replies_counted(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "end_session")
    def broken(end: Callable[[str, int, str], Result], client_id: str, epoch: int, verb: str) -> Result:
        size = machine.kept_replies.size
        result = end(client_id, epoch, verb)
        machine.kept_replies.size = size
        return result
