"""Defects above the protocol: sessions, exactly once, and locks (docs/internals/sessions.rst)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from pfsb.applications.interfaces import Command, Done, Result
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.reply_cache import ReplyCache
from pfsb.sessions.state_machine import Session
from pfsb.simulator.defects.defect import Defects, do_nothing, instead_of, override

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

    Fencing alone would stop all repeated commands that a correct front end lets through, and so hide the defect.
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


@DEFECTS.add("revision-not-the-same", "docs/internals/sessions.rst", "server 0 does not count every hundredth revision")
def _revision_not_the_same(process: Any) -> None:
    machine = process.server.machine

    if process.replica.membership.server_id != 0:
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
        machine._closed.pop(client_id, None)
        return result


@DEFECTS.add(
    "fate-none-for-unknown", "promise 4, docs/protocol.rst", "a command that is under way is refused with fate=none"
)
def _fate_none_for_unknown(process: Any) -> None:
    """Change refusals when they leave for the clients, not where they are made.

    Code inside the server recognises the object `UNKNOWN` by its identity, and must get that object unchanged.
    """
    turn = process.replica.turn

    def with_fate_none(said: Any) -> Any:
        if isinstance(said, list):
            return [with_fate_none(each) for each in said]
        return evolve(said, fate="none") if getattr(said, "code", "") == "UNAVAILABLE" else said

    @instead_of(turn, "call")
    def broken(call: Callable[..., None], function: Callable[..., None], *args: Any) -> None:
        call(function, *map(with_fate_none, args))


@DEFECTS.add("reply-before-execution", "Departure 1", "a command is answered when it is sent to the leader")
def _reply_before_execution(process: Any) -> None:
    @instead_of(process.replica, "introduce")
    def broken(introduce: Callable[[ClientUpdate], None], update: ClientUpdate) -> None:
        introduce(update)
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


@DEFECTS.add("lock-line-lost", "docs/internals/applications.rst", "after a restart nobody waits for a lock any more")
def _lock_line_lost(process: Any) -> None:
    lock = _lock(process)

    def forget() -> None:
        for held in lock._locks.values():
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


# ---------------------------------------------------------------------------------------------
# Quotas
# ---------------------------------------------------------------------------------------------


@DEFECTS.add("deleted-bytes-counted", "docs/operating.rst", "the bytes of keys that are deleted still count")
def _deleted_bytes_counted(process: Any) -> None:
    kv = process.applications["kv"]

    @instead_of(kv, "execute")
    def broken(execute: Callable[[Command, Any], Any], command: Command, context: Any) -> Any:
        used = kv._used_bytes
        result = execute(command, context)
        if command[0] == "DEL":
            kv._used_bytes = used
        return result


class _LocalQuotas:
    """A context with quotas that only this server has."""

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

    @instead_of(process.applications["kv"], "execute")
    def broken(execute: Callable[[Command, Any], Any], command: Command, context: Any) -> Any:
        return execute(command, _LocalQuotas(context))


@DEFECTS.add(
    "sessions-of-this-server",
    "docs/operating.rst",
    "a server counts only the sessions of its own clients, as it has them",
)
def _sessions_of_this_server(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "_sessions_full")
    def broken(sessions_full: Callable[[], Any]) -> Any:
        own = [session for session in machine.sessions.values() if session.server_id == machine._server_id]
        return sessions_full() if 2 * len(own) >= machine.settings.values.sessions else None


@DEFECTS.add("ended-replies-counted", "docs/operating.rst", "the answers of sessions that have ended still count")
def _ended_replies_counted(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "end_session")
    def broken(end: Callable[[str, int, str], Result], client_id: str, epoch: int, verb: str) -> Result:
        size = machine.kept_replies.size
        result = end(client_id, epoch, verb)
        machine.kept_replies.size = size
        return result
