"""A context for applications that run without a cluster around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from pfsb.applications.interfaces import (
    BadRequest,
    Done,
    Fields,
    IContext,
    IReplicatedApplication,
    Refused,
    Result,
    Ticket,
)
from pfsb.sessions.cluster_settings import ClusterSettings


@implementer(IContext)
class FakeContext:
    """The revision and the time of a state machine, and what was completed on it."""

    def __init__(self) -> None:
        self.revision = 0
        self.time_ms = 1_000_000
        self.session = ""
        self.sessions: Sequence[str] = ()
        self.ticket: Ticket = ("", 0)
        self.quotas = ClusterSettings(members=(0,), apps=(("kv", 1),))
        self.completed: list[tuple[Ticket, Result]] = []

    def complete(self, ticket: Ticket, result: Result) -> None:
        assert ticket not in [earlier for earlier, _ in self.completed], f"{ticket} is answered twice"
        self.completed.append((ticket, result))


class Machine:
    """One application and its context: runs commands as clients type them, each at a revision of its own."""

    def __init__(self, application: IReplicatedApplication) -> None:
        self.application = application
        self.context = FakeContext()

    def run(self, client_id: str, verb: str, *args: str) -> Any:
        """Check a command and execute it, under its revision as command number."""
        return self.run_checked(client_id, self.application.check((verb, *args)))

    def run_checked(self, client_id: str, command: tuple[Any, ...]) -> Any:
        """Execute a command that `check` has not seen, as another version of the server may have let it through."""
        self.context.revision += 1
        self.context.session = client_id
        self.context.ticket = (client_id, self.context.revision)
        return self.application.execute(command, self.context)

    def ask(self, verb: str, *args: str) -> Result:
        return self.application.query(self.application.check((verb, *args)))

    def end(self, *client_ids: str) -> None:
        """End these sessions within one update, at one revision."""
        for client_id in client_ids:
            self.application.session_ended(client_id, self.context)

    def pass_time(self, milliseconds: int) -> None:
        self.context.time_ms += milliseconds
        self.application.time_passed(self.context)

    def take_completed(self) -> list[tuple[Ticket, Result]]:
        """The commands that were completed since the last call of this method, with their results."""
        completed, self.context.completed = self.context.completed, []
        return completed


def field(result: Result, name: str) -> Any:
    """One field of a `Done`."""
    assert isinstance(result, Done), result
    return dict(result.fields)[name]


def rows(result: Result) -> Sequence[Fields]:
    """The rows of a `Done`, whose count is right."""
    assert field(result, "count") == len(result.rows), result  # type: ignore[union-attr]
    return result.rows  # type: ignore[union-attr]


def code(result: Result) -> str:
    """The code of a `Refused` that has changed nothing."""
    assert isinstance(result, Refused) and result.fate == "none", result
    return result.code


def refusal(application: IReplicatedApplication, *command: str) -> BadRequest:
    """The refusal that `check` of an application raises for a command."""
    try:
        checked = application.check(command)
    except BadRequest as refused:
        return refused
    raise AssertionError(f"{command} was taken, as {checked}")
