"""What one user of a simulated cluster wants, until it is known what became of it."""

from __future__ import annotations

from attrs import define

from pfsb.applications.interfaces import Command, Result
from pfsb.simulator.linearizability.history import HistoryEntry
from pfsb.simulator.workload.connection import SimulatedConnection


@define(eq=False)
class UserRequest:
    """One command that a user wants carried out; it is asked until its fate is known."""

    number: int
    """0: a question, which is asked once."""
    command: Command
    history_entry: HistoryEntry | None = None
    asked_at: float = 0.0
    connection: SimulatedConnection | None = None
    """Where it was asked last, and may still be answered."""
    may_have_run: bool = False
    result: Result | None = None
