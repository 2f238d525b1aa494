"""How long an answer from a peer's transport takes: the estimate of RFC 6298."""

from __future__ import annotations

from typing import Final

from attrs import define, field

FIRST_SECONDS: Final = 0.2
"""How long to wait for an answer, in seconds, as long as nothing was measured."""
LEAST_SECONDS: Final = 0.03
"""Shortest time, in seconds, to wait for an answer. A server answers between two turns, so it may be late by one."""
MOST_SECONDS: Final = 1.0
"""Longest time, in seconds, to wait for an answer."""


@define(eq=False)
class RoundTrip:
    """The round trip to one peer, smoothed, and how long to wait for an answer before it counts as lost."""

    _smoothed: float | None = field(init=False, default=None)
    _variation: float = field(init=False, default=0.0)
    timeout: float = field(init=False, default=FIRST_SECONDS)
    """How long, in seconds, to wait for an answer."""

    def measured(self, seconds: float) -> None:
        """Take in one measured round trip, in seconds, of something that was sent once (RFC 6298, sections 2 and 3)."""
        if self._smoothed is None:
            self._smoothed, self._variation = seconds, seconds / 2
        else:
            self._variation += (abs(self._smoothed - seconds) - self._variation) / 4
            self._smoothed += (seconds - self._smoothed) / 8
        self.timeout = min(max(self._smoothed + 4 * self._variation, LEAST_SECONDS), MOST_SECONDS)
