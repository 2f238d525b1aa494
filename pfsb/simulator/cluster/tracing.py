"""Traces of a simulated cluster: each event goes to the tracers that a test or a command has asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from attrs import define
from zope.interface import implementer

from pfsb.paxos.interfaces import ITracer
from pfsb.simulator.cluster.clock import SimulatedClock

Trace = Callable[[dict[str, Any]], None]
"""Call-back with one event, as a dict (docs/operating.rst): called when the event happens, once for each event of the
cluster itself and of its servers."""


_WATCHER: Final[ContextVar[Trace | None]] = ContextVar("watcher", default=None)
"""Function that gets the events of each cluster that is made without a trace of its own; None: their events are not
traced."""


@contextmanager
def watched(trace: Trace) -> Iterator[None]:
    """A context manager: the events of each cluster that is made in its block, and has no trace of its own, go to
    `trace`.

    So the run of a directed schedule, which makes its cluster itself, can be drawn as a diagram.
    """
    token = _WATCHER.set(trace)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@define(eq=False)
class Tracers:
    """The traces of a simulated cluster: `tell` traces the events that no server traces itself, such as a crash, and
    `tracer_of` makes the tracers that trace those of the servers.

    At each start of a server a new tracer is made. It passes every event of the server to the function `_trace`, and to
    the tracer that the function `_tracer` has made for the server, as far as there are such functions.
    """

    _clock: SimulatedClock
    _trace: Trace | None
    """Called with every event of the cluster itself and of all its servers; None: nothing is called."""
    _tracer: Callable[[int], ITracer] | None
    """Called with a server's id at each of its starts; makes the tracer that receives the events of that server. None:
    there is no such tracer."""

    def __attrs_post_init__(self) -> None:
        self._trace = self._trace or _WATCHER.get()

    def tell(self, server_id: int | None, event: str, **fields: Any) -> None:
        """Trace an event that no server traces itself, such as a crash.

        `server_id` is None for an event of the whole cluster.
        """
        if self._trace is not None:
            self._trace({"t": self._clock.seconds(), "server": server_id, "event": event, **fields})

    def tracer_of(self, server_id: int) -> ITracer | None:
        """Make the tracer of one incarnation of a server; None if no events are wanted."""
        tracer = None if self._tracer is None else self._tracer(server_id)
        if self._trace is None:
            return tracer
        writer = ClusterTracer(server_id, self._clock, self._trace)
        return writer if tracer is None else BothTracers(tracer, writer)


@implementer(ITracer)
@define
class ClusterTracer:
    """Passes each event of one server on, with the time and the id of the server added (docs/operating.rst)."""

    _server_id: int
    _clock: SimulatedClock
    _note: Trace

    def trace(self, event: str, **fields: Any) -> None:
        self._note({"t": self._clock.seconds(), "server": self._server_id, "event": event, **fields})


@implementer(ITracer)
@define
class BothTracers:
    """Passes each event of one server on to two tracers, in the order in which they were given."""

    _one: ITracer
    _other: ITracer

    def trace(self, event: str, **fields: Any) -> None:
        self._one.trace(event, **fields)
        self._other.trace(event, **fields)
