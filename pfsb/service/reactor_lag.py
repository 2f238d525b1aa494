"""ReactorLag: how late the reactor makes its calls, for the metrics."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from pfsb.support.histogram import SECONDS, Histogram

LAG_SECONDS: Final = 0.1
"""Time, in seconds, between two measurements of how late the reactor makes its calls."""


@define(eq=False)
class ReactorLag:
    """Measures how late the reactor makes its delayed calls.

    Everything else that a server does is late by as much, since the reactor's thread does one thing at a time.
    """

    _clock: IReactorTime
    late: Histogram = field(init=False, factory=lambda: Histogram(SECONDS))
    _due: float = field(init=False, default=0.0)

    def start(self) -> None:
        self._due = self._clock.seconds() + LAG_SECONDS
        self._clock.callLater(LAG_SECONDS, self._look)

    def _look(self) -> None:
        self.late.observe(max(0.0, self._clock.seconds() - self._due))
        self.start()
