"""Asks an application something outside of execution, such as the events of its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.python.failure import Failure

from pfsb.applications.failures import depends_on_machine
from pfsb.paxos.turn import Turn

T = TypeVar("T")


def ask(turn: Turn, question: Callable[..., T], *args: object) -> T:
    """Returns `question(*args)`, which calls a method of an application that changes nothing of its state.

    Raises what the application raises. If it may have been raised at this server alone, the server stops as it does
    when such an exception comes in execution (`pfsb.applications.failures`), since the application may have changed
    what it keeps beside its state, such as an index. In execution, an exception stops the server without this function,
    by leaving the turn.
    """
    try:
        return question(*args)
    except BaseException as error:
        if depends_on_machine(error):
            turn.fail(Failure())
        raise
