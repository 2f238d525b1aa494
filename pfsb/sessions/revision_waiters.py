"""Which revision clients may be told, and who waits for a later one (HTTP's `Pfsb-Revision`)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pfsb.paxos.turn import Turn
from pfsb.sessions.state_machine import SessionStateMachine


@define(eq=False)
class _Waiting:
    revision: int
    reached: Callable[[bool], None]
    call: IDelayedCall


class RevisionWaiters:
    """The revision of this server, behind the door (docs/internals/turn.rst) like every answer. Built after recovery.

    At the end of a turn all answers of that turn lie before the revision in the outbox: who looks at `told` once the
    present turn of the reactor is over sees a revision that no answer given before was ahead of.
    """

    def __init__(self, machine: SessionStateMachine, turn: Turn, clock: IReactorTime) -> None:
        self._machine = machine
        self._turn = turn
        self._clock = clock
        self.told = self._noted = machine.revision
        self._waiting: dict[_Waiting, None] = {}

    def wait(self, revision: int, seconds: float, reached: Callable[[bool], None]) -> None:
        """Call `reached(True)` once `told` is `revision` or later; after `seconds`, `reached(False)`."""
        if self.told >= revision:
            reached(True)
            return

        def time_came() -> None:
            del self._waiting[waiting]
            reached(False)

        waiting = _Waiting(revision, reached, self._clock.callLater(seconds, time_came))
        self._waiting[waiting] = None

    def note(self) -> None:
        """At the end of each turn: tell a revision that is new, behind the answers of the turn."""
        if self._machine.revision != self._noted:
            self._noted = self._machine.revision
            self._turn.call(self._tell, self._noted)

    def _tell(self, revision: int) -> None:
        self.told = revision
        for waiting in [each for each in self._waiting if each.revision <= revision]:
            del self._waiting[waiting]
            waiting.call.cancel()
            waiting.reached(True)
