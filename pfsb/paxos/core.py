"""The parts of a replica that every handler needs."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.interfaces import ITracer
from pfsb.paxos.membership import Membership
from pfsb.paxos.settings import Settings
from pfsb.paxos.turn import Turn


@frozen(eq=False)
class Core:
    """One replica's state, membership, turn, clock, settings and tracer: built once, and given to every handler."""

    data: DataStructures
    membership: Membership
    turn: Turn
    clock: IReactorTime
    settings: Settings
    tracer: ITracer | None = None


class Handler:
    """A part of the protocol that works on the core.

    The parts of the core are attributes of each handler, since handlers read them for every message: a way through
    `self._core` would cost byte code each time.
    """

    def __init__(self, core: Core) -> None:
        self._data = core.data
        self._membership = core.membership
        self._turn = core.turn
        self._clock = core.clock
        self._settings = core.settings
        self._tracer = core.tracer
        self.quorum = core.membership.quorum
        """How many servers this handler takes for a majority."""
