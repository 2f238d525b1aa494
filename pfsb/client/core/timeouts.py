"""How long a client waits for a server before it tries another."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from pfsb.client.core.command import WAITING_VERBS

RESPONSE_SECONDS: Final = 2.0
DOUBLINGS_MAX: Final = 2


@define(eq=False)
class ResponseTimeout:
    """Longer after each server that did not answer: under heavy load a short one would never see an answer."""

    seconds: float = RESPONSE_SECONDS
    expected: int = field(init=False, default=0)
    """Requests under way whose answer is due."""
    quiet_since: float = field(init=False, default=0.0)
    _doublings: int = field(init=False, default=0)

    @property
    def ends_at(self) -> float:
        return self.quiet_since + self._current_seconds

    @property
    def _current_seconds(self) -> float:
        return self.seconds * 2.0**self._doublings

    def begin(self, now: float) -> None:
        """The first thing is asked of a server."""
        self.quiet_since = now

    def expect(self, verb: str, now: float) -> None:
        if verb not in WAITING_VERBS:
            if not self.expected:
                self.quiet_since = now
            self.expected += 1

    def answered(self, verb: str, now: float) -> None:
        if verb not in WAITING_VERBS:
            self.expected -= 1
        self.heard(now)

    def heard(self, now: float) -> None:
        """The server answers."""
        self._doublings = 0
        self.quiet_since = now

    def expire(self) -> float:
        """It is `ends_at`: returns how long it was waited."""
        waited = self._current_seconds
        self._doublings = min(self._doublings + 1, DOUBLINGS_MAX)
        return waited
