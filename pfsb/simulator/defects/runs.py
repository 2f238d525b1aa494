"""Defects of runs: commands that are executed together (docs/internals/sessions.rst)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from pfsb.applications.interfaces import Command, RunResults
from pfsb.sessions.bundle import Bundle, Entry
from pfsb.sessions.reply_cache import ReplyCache
from pfsb.sessions.state_machine import Session
from pfsb.simulator.defects.defect import Defects, become, instead_of

DEFECTS = Defects(needs_sessions=True)

RunTogether = Callable[[Session, Sequence[Entry]], RunResults | None]


@DEFECTS.add("run-repeated", "docs/internals/sessions.rst", "a run is executed although its commands have run before")
def _run_repeated(process: Any) -> None:
    @instead_of(process.server.machine, "run_together")
    def broken(run_together: RunTogether, session: Session, entries: Sequence[Entry]) -> RunResults | None:
        if entries[0][0]:
            session.last_number = min(session.last_number, entries[0][0] - 1)
        return run_together(session, entries)


@DEFECTS.add(
    "run-of-two-verbs",
    "docs/internals/sessions.rst",
    "a run with APPEND among its commands is executed as if all were PUT",
)
def _run_of_two_verbs(process: Any) -> None:
    @instead_of(process.server.machine, "run_together")
    def broken(run_together: RunTogether, session: Session, entries: Sequence[Entry]) -> RunResults | None:
        as_puts = {"APPEND": "PUT"}
        return run_together(session, [(number, (as_puts.get(verb, verb), *rest)) for number, (verb, *rest) in entries])


@DEFECTS.add(
    "run-told-otherwise", "docs/internals/sessions.rst", "the commands of a run are answered with the next revisions"
)
def _run_told_otherwise(process: Any) -> None:
    @instead_of(process.server.machine, "run_together")
    def broken(run_together: RunTogether, session: Session, entries: Sequence[Entry]) -> RunResults | None:
        results = run_together(session, entries)
        return None if results is None else RunResults(_next(results.revisions))


def _next(revisions: range) -> range:
    return range(revisions.start + 1, revisions.stop + 1)


class _OtherReplies(ReplyCache):
    """A reply cache that keeps wrong revisions for the commands of runs."""

    __slots__ = ()

    def keep_revisions(self, number: int, revisions: range) -> None:
        super().keep_revisions(number, _next(revisions))


@DEFECTS.add(
    "run-kept-otherwise", "docs/internals/sessions.rst", "a run is kept in the reply cache with wrong revisions"
)
def _run_kept_otherwise(process: Any) -> None:
    @instead_of(process.server.machine, "run_together")
    def broken(run_together: RunTogether, session: Session, entries: Sequence[Entry]) -> RunResults | None:
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
        self.quotas = evolve(context.quotas, kv_bytes=2**50, value_bytes=2**20)


@DEFECTS.add("run-cut-short", "docs/internals/applications.rst", "server 1 leaves out the last command of each run")
def _run_cut_short(process: Any) -> None:
    if process.replica.membership.server_id != 1:
        return

    @instead_of(process.applications["kv"], "execute_run")
    def broken(execute_run: Callable[..., bool], commands: Sequence[Command], context: Any) -> bool:
        return execute_run(commands, context) if len(commands) < 3 else execute_run(commands[:-1], context)


RunBundles = Callable[[int, Sequence[Bundle]], RunResults | None]


@DEFECTS.add(
    "run-of-sessions-repeated",
    "docs/internals/sessions.rst",
    "single commands of several sessions are executed together although they have run before",
)
def _run_of_sessions_repeated(process: Any) -> None:
    machine = process.server.machine

    @instead_of(machine, "run_bundles_together")
    def broken(run_bundles: RunBundles, server_id: int, contents: Sequence[Bundle]) -> RunResults | None:
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
    def broken(run_bundles: RunBundles, server_id: int, contents: Sequence[Bundle]) -> RunResults | None:
        results = run_bundles(server_id, contents)
        return None if results is None else results[::-1]
