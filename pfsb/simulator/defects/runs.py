"""Defects of runs: commands that are executed together (docs/internals/sessions.rst)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from pfsb.applications.interfaces import Command, Result, RunResults
from pfsb.sessions.bundle import Bundle, Entry
from pfsb.sessions.reply_cache import ReplyCache
from pfsb.sessions.session import Session
from pfsb.simulator.defects.defect import Defects, become, instead_of

DEFECTS = Defects(needs_sessions=True)

RunTogether = Callable[[Session, Sequence[Entry]], Sequence[Result] | None]
RunInPieces = Callable[[Session, Sequence[Entry], bool], Sequence[Any]]


@DEFECTS.add("run-repeated", "docs/internals/sessions.rst", "a run is executed although its commands have run before")
def _run_repeated(process: Any) -> None:
    @instead_of(process.server.machine, "run_together")
    def broken(run_together: RunTogether, session: Session, entries: Sequence[Entry]) -> Sequence[Result] | None:
        if entries[0][0]:
            session.last_number = min(session.last_number, entries[0][0] - 1)
        return run_together(session, entries)


@DEFECTS.add(
    "run-of-two-verbs",
    "docs/internals/sessions.rst",
    "a bundle with PUT and APPEND is executed as if all of its commands were PUT",
)
def _run_of_two_verbs(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "run_in_pieces")
    def broken(run_in_pieces: RunInPieces, session: Session, entries: Sequence[Entry], is_ours: bool) -> Sequence[Any]:
        as_puts = {"APPEND": "PUT"}
        renamed = [(number, (as_puts.get(verb, verb), *rest)) for number, (verb, *rest) in entries]
        are_puts = {command[0] for _, command in renamed} == {"PUT"}
        together = machine.run_together(session, renamed) if are_puts else None
        return together or run_in_pieces(session, entries, is_ours)


@DEFECTS.add(
    "run-overtakes", "docs/internals/sessions.rst", "the runs in a bundle of several verbs are executed before the rest"
)
def _run_overtakes(process: Any) -> None:
    @instead_of(process.server.machine, "run_in_pieces")
    def broken(run_in_pieces: RunInPieces, session: Session, entries: Sequence[Entry], is_ours: bool) -> Sequence[Any]:
        return run_in_pieces(session, sorted(entries, key=lambda entry: entry[1][0] != "SAY"), is_ours)


@DEFECTS.add(
    "questions-left-out",
    "docs/internals/sessions.rst",
    "questions in a bundle of several verbs are left out at the server at which they were asked, too",
)
def _questions_left_out(process: Any) -> None:
    @instead_of(process.server.machine, "run_in_pieces")
    def broken(run_in_pieces: RunInPieces, session: Session, entries: Sequence[Entry], is_ours: bool) -> Sequence[Any]:
        return run_in_pieces(session, entries, False)


@DEFECTS.add(
    "run-told-otherwise", "docs/internals/sessions.rst", "the commands of a run are answered with the next revisions"
)
def _run_told_otherwise(process: Any) -> None:
    @instead_of(process.server.machine, "run_together")
    def broken(run_together: RunTogether, session: Session, entries: Sequence[Entry]) -> Sequence[Result] | None:
        results = run_together(session, entries)
        return RunResults(_next(results.revisions)) if isinstance(results, RunResults) else results


def _next(revisions: range) -> range:
    return range(revisions.start + 1, revisions.stop + 1)


class _OtherReplies(ReplyCache):
    """A reply cache that keeps wrong revisions for the commands of runs."""

    __slots__ = ()

    def keep_run(self, number: int, results: Sequence[Result]) -> None:
        super().keep_run(number, RunResults(_next(results.revisions)) if isinstance(results, RunResults) else results)


@DEFECTS.add(
    "run-kept-otherwise", "docs/internals/sessions.rst", "a run is kept in the reply cache with wrong revisions"
)
def _run_kept_otherwise(process: Any) -> None:
    @instead_of(process.server.machine, "run_together")
    def broken(run_together: RunTogether, session: Session, entries: Sequence[Entry]) -> Sequence[Result] | None:
        become(session.answers, _OtherReplies)
        return run_together(session, entries)


@DEFECTS.add("run-beyond-quota", "docs/operating.rst", "a run is executed although a quota does not allow it")
def _run_beyond_quota(process: Any) -> None:
    @instead_of(process.applications["kv"], "execute_run")
    def broken(execute_run: Callable[..., bool], commands: Sequence[Command], context: Any) -> bool:
        return execute_run(commands, _WithoutQuotas(context))


class _WithoutQuotas:
    """The context of an application, with quotas that nothing reaches."""

    def __init__(self, context: Any) -> None:
        self.revision = context.revision
        self.sessions = context.sessions
        self.quotas = evolve(context.quotas, kv_bytes=2**50, chat_bytes=2**50, value_bytes=2**20)


@DEFECTS.add("run-of-lines-beyond-quota", "docs/operating.rst", "lines are said together although a quota forbids it")
def _run_of_lines_beyond_quota(process: Any) -> None:
    @instead_of(process.applications["chat"], "execute_run")
    def broken(execute_run: Callable[..., Any], commands: Sequence[Command], context: Any) -> Any:
        return execute_run(commands, _WithoutQuotas(context))


@DEFECTS.add(
    "run-of-lines-numbered-otherwise", "docs/protocol.rst", "lines that are said together are told the number before"
)
def _run_of_lines_numbered_otherwise(process: Any) -> None:
    @instead_of(process.applications["chat"], "execute_run")
    def broken(execute_run: Callable[..., Any], commands: Sequence[Command], context: Any) -> Any:
        counters = execute_run(commands, context)
        return counters and tuple((name, first - 1) for name, first in counters)


@DEFECTS.add(
    "run-of-lines-said-by-one",
    "docs/protocol.rst",
    "lines that several clients say together are noted as those of the first client",
)
def _run_of_lines_said_by_one(process: Any) -> None:
    @instead_of(process.applications["chat"], "execute_run")
    def broken(execute_run: Callable[..., Any], commands: Sequence[Command], context: Any) -> Any:
        context.sessions = [context.session] * len(commands)
        return execute_run(commands, context)


@DEFECTS.add(
    "run-of-lines-not-compared",
    "Departure 40",
    "the results of lines that are said together are not part of the digest of the history",
)
def _run_of_lines_not_compared(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "execute_run")
    def broken(execute_run: Callable[..., Any], *args: Any) -> Any:
        known = len(machine.outcomes)
        results = execute_run(*args)
        del machine.outcomes[known:]
        return results


@DEFECTS.add("run-cut-short", "docs/internals/applications.rst", "server 1 leaves out the last command of each run")
def _run_cut_short(process: Any) -> None:
    if process.replica.membership.server_id != 1:
        return

    @instead_of(process.applications["kv"], "execute_run")
    def broken(execute_run: Callable[..., bool], commands: Sequence[Command], context: Any) -> bool:
        return execute_run(commands, context) if len(commands) < 3 else execute_run(commands[:-1], context)


RunBundles = Callable[[int, Sequence[Bundle]], Sequence[Result] | None]


@DEFECTS.add(
    "run-of-sessions-repeated",
    "docs/internals/sessions.rst",
    "single commands of several sessions are executed together although they have run before",
)
def _run_of_sessions_repeated(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "run_bundles_together")
    def broken(run_bundles: RunBundles, server_id: int, contents: Sequence[Bundle]) -> Sequence[Result] | None:
        for content in contents:
            session, number = machine.sessions.get(content.client_id), content.entries[0][0]
            if session is not None and number:
                session.last_number = min(session.last_number, number - 1)
        return run_bundles(server_id, contents)


@DEFECTS.add(
    "run-of-sessions-mixed-up",
    "docs/internals/sessions.rst",
    "single commands of several sessions that are executed together get each other's results",
)
def _run_of_sessions_mixed_up(process: Any) -> None:
    @instead_of(process.server.machine, "run_bundles_together")
    def broken(run_bundles: RunBundles, server_id: int, contents: Sequence[Bundle]) -> Sequence[Result] | None:
        results = run_bundles(server_id, contents)
        return None if results is None else results[::-1]


@DEFECTS.add(
    "run-of-sessions-without-gaps",
    "docs/internals/sessions.rst",
    "commands of several sessions that are executed together are numbered on from the first of each session",
)
def _run_of_sessions_without_gaps(process: Any) -> None:
    @instead_of(process.server.machine, "run_bundles_together")
    def broken(run_bundles: RunBundles, server_id: int, contents: Sequence[Bundle]) -> Sequence[Result] | None:
        return run_bundles(server_id, [each._replace(entries=_without_gaps(each.entries)) for each in contents])


def _without_gaps(entries: Sequence[Entry]) -> Sequence[Entry]:
    first = entries[0][0]
    return [(first + place, command) for place, (_, command) in enumerate(entries)]
