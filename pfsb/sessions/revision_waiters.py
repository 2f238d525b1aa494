"""RevisionWaiters: the revision that clients may be told, and HTTP requests that wait for one (`Pfsb-Revision`)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.paxos.turn import Turn
from pfsb.sessions.state_machine import SessionStateMachine


@define(eq=False)
class _Waiter:
    """A request that waits until this server has reached a revision, or until its timeout."""

    revision: int
    on_end: Callable[[bool], None]
    timeout: IDelayedCall


class RevisionWaiters:
    """Knows the latest revision that clients may be told (`told`), and the requests that wait for a revision. Built
    after recovery.

    Clients may be told a revision when it has passed the durability gate, as every answer does. Each turn, at its end,
    puts its revision into the outbox behind all answers of that turn. So once the present iteration of the reactor is
    over, `told` is no less than the revision of every answer that was given before.
    """

    def __init__(self, machine: SessionStateMachine, turn: Turn, clock: IReactorTime) -> None:
        self._machine = machine
        self._turn = turn
        self._clock = clock
        self.told = self._noted = machine.revision
        self._waiters: dict[_Waiter, None] = {}

    def wait(self, revision: int, seconds: float, reached: Callable[[bool], None]) -> None:
        """Calls `reached`, once: with True when `told` is at least `revision`, or with False after `seconds`.

        The call may come before this method returns.
        """
        if self.told >= revision:
            reached(True)
            return

        def time_out() -> None:
            del self._waiters[waiter]
            reached(False)

        waiter = _Waiter(revision, reached, self._clock.callLater(seconds, time_out))
        self._waiters[waiter] = None

    def note(self) -> None:
        """Called by the server at the end of each turn, when all answers of the turn are in the outbox.

        If the revision has changed, this method puts a call into the outbox, behind these answers. When the gate lets
        the call out, it sets `told`, and ends the waits for that revision.
        """
        if self._machine.revision != self._noted:
            self._noted = self._machine.revision
            self._turn.call(self._tell_revision, self._noted)

    def _tell_revision(self, revision: int) -> None:
        self.told = revision
        for waiter in [each for each in self._waiters if each.revision <= revision]:
            del self._waiters[waiter]
            waiter.timeout.cancel()
            waiter.on_end(True)
