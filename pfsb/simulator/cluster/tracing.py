"""Who is told what happens in a simulated cluster, event by event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from zope.interface import implementer

from pfsb.paxos.interfaces import ITracer
from pfsb.simulator.cluster.clock import SimulatedClock

Trace = Callable[[dict[str, Any]], None]
"""Told an event (docs/operating.rst)."""


@define(eq=False)
class Tracers:
    """What the world tells, and what its servers tell of themselves, goes to whoever wants to hear it."""

    _clock: SimulatedClock
    _trace: Trace | None
    """Told everything."""
    _tracer: Callable[[int], ITracer] | None
    """Makes what takes the events of one server."""

    def tell(self, server_id: int | None, event: str, **fields: Any) -> None:
        """What no server tells of itself; None: of the whole cluster."""
        if self._trace is not None:
            self._trace({"t": self._clock.seconds(), "server": server_id, "event": event, **fields})

    def tracer_of(self, server_id: int) -> ITracer | None:
        """For one life; None: nobody wants to hear."""
        tracer = None if self._tracer is None else self._tracer(server_id)
        if self._trace is None:
            return tracer
        writer = ClusterTracer(server_id, self._clock, self._trace)
        return writer if tracer is None else BothTracers(tracer, writer)


@implementer(ITracer)
@define
class ClusterTracer:
    """Adds when and where to each event (docs/operating.rst)."""

    _server_id: int
    _clock: SimulatedClock
    _note: Trace

    def trace(self, event: str, **fields: Any) -> None:
        self._note({"t": self._clock.seconds(), "server": self._server_id, "event": event, **fields})


@implementer(ITracer)
@define
class BothTracers:
    _one: ITracer
    _other: ITracer

    def trace(self, event: str, **fields: Any) -> None:
        self._one.trace(event, **fields)
        self._other.trace(event, **fields)
