"""How long an answer of a peer's transport takes: the estimate of RFC 6298.

The protocol has other waits (`pfsb.paxos.round_trip`): for slots and updates, which need disks and majorities. Its
estimate must cope with servers that stand still, and with answers of which it is not known to which copy of a message
they belong. A transport answers at once, a notice says what it answers, and each frame in parts has its own doubled
wait. The two have only the formulas of the estimate in common.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

FIRST_SECONDS: Final = 0.2
"""How long, in seconds, to wait for an answer before any round trip was measured."""
SHORTEST_SECONDS: Final = 0.03
"""Shortest time, in seconds, to wait for an answer. A server answers between two turns, so its answer may be late by
the length of one."""
LONGEST_SECONDS: Final = 1.0
"""Longest time, in seconds, to wait for an answer."""


@define(eq=False)
class PathRoundTrip:
    """The round trip to one peer, smoothed, and how long to wait for an answer before it counts as lost."""

    _smoothed: float | None = field(init=False, default=None)
    _variation: float = field(init=False, default=0.0)
    seconds: float = field(init=False, default=FIRST_SECONDS)
    """How long, in seconds, to wait for an answer."""

    def observe(self, seconds: float) -> None:
        """Take in one measured round trip, in seconds, of something that was sent once (RFC 6298, sections 2 and 3)."""
        if self._smoothed is None:
            self._smoothed, self._variation = seconds, seconds / 2
        else:
            self._variation += (abs(self._smoothed - seconds) - self._variation) / 4
            self._smoothed += (seconds - self._smoothed) / 8
        self.seconds = min(max(self._smoothed + 4 * self._variation, SHORTEST_SECONDS), LONGEST_SECONDS)
