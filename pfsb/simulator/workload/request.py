"""One command of a user of a simulated cluster, from its first sending until its fate is known."""

from __future__ import annotations

from attrs import define

from pfsb.applications.interfaces import Command, Result
from pfsb.simulator.linearizability.history import HistoryEntry
from pfsb.simulator.workload.connection import SimulatedConnection


@define(eq=False)
class UserRequest:
    """One command of a user, which is repeated until its fate is known."""

    number: int
    """The number of the command; 0 for a read, which is sent once."""
    command: Command
    history_entry: HistoryEntry | None = None
    asked_at: float = 0.0
    connection: SimulatedConnection | None = None
    """The connection on which the command was sent last and may still be answered; None: the command must be sent."""
    may_have_run: bool = False
    result: Result | None = None
