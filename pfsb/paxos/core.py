"""Core: the state and the tools of a replica that all its handlers share; and Handler, the base class of handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
    """Base class of the handlers: each is one part of the protocol, and works on the shared `Core`.

    The fields of the core are copied into attributes of each handler, because handlers read them for every message, and
    `self._data` is a faster look-up than `self._core.data`.
    """

    def __init__(self, core: Core) -> None:
        self._data = core.data
        self._membership = core.membership
        self._turn = core.turn
        self._clock = core.clock
        self._settings = core.settings
        self._tracer = core.tracer
        self.is_majority: Callable[[Iterable[int]], bool] = core.membership.is_majority
        """Tells whether the voters among some servers are a majority (`Membership.is_majority`). Whatever a handler
        counts, it counts by this, so a planted defect can make it count wrongly."""
