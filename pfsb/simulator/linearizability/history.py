"""The history of commands and answers as clients saw them, for the linearizability checker.

Calls and answers are numbered in the order in which they happen, so that no two are at the same instant.
"""

from __future__ import annotations

from attrs import define, field

from pfsb.applications.interfaces import Command, Result
from pfsb.simulator.linearizability.checker import CheckResult, check_linearizability
from pfsb.simulator.linearizability.models import all_sub_histories
from pfsb.simulator.linearizability.operations import Operation

STEPS_MAX = 100_000
"""Maximum number of steps of the search in one sub-history. A longer search ends undecided, and does not fail a run."""


@define(eq=False)
class HistoryEntry:
    """One command of one client, with the client's call and, as soon as it has come, the answer."""

    client: str
    command: Command
    call: int
    ret: int | None = None
    result: Result | None = None
    fate: str = "unknown"


@define
class History:
    """All commands of the clients of a run, in the order of their calls."""

    entries: list[HistoryEntry] = field(factory=list)
    _moments: int = 0

    def called(self, client: str, command: Command) -> HistoryEntry:
        self._moments += 1
        entry = HistoryEntry(client, command, self._moments)
        self.entries.append(entry)
        return entry

    def answered(self, entry: HistoryEntry, result: Result) -> None:
        """Record the answer to a command that was carried out."""
        self._moments += 1
        entry.ret, entry.result, entry.fate = self._moments, result, "done"

    def did_not_happen(self, entry: HistoryEntry) -> None:
        entry.fate = "none"

    def session_ended(self, client: str) -> None:
        """Record that the session of `client` was closed or has expired; its locks become free at some later moment."""
        self.called(client, ("EXPIRE",))

    def check(self) -> CheckResult:
        operations = [
            Operation(entry.client, entry.call, entry.ret, entry.command, entry.result, entry.fate)
            for entry in self.entries
        ]
        return check_linearizability(all_sub_histories(operations), STEPS_MAX)
