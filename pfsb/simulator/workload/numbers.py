"""The numbers that a user gives to commands: growing, some of them passed over, for mischief."""

from __future__ import annotations

import random

from attrs import define, field


@define(eq=False)
class CommandNumbers:
    """Of one session."""

    _rng: random.Random
    _gaps: float
    """The chance that a number is passed over."""
    _last: int = field(default=0, init=False)
    skipped: list[int] = field(factory=list, init=False)

    def next(self) -> int:
        self._last += 1
        if self._rng.random() < self._gaps:
            self.skipped.append(self._last)
            self._last += 1
        return self._last

    def take_skipped(self) -> int:
        """One of those, to be used after all."""
        return self.skipped.pop(self._rng.randrange(len(self.skipped)))

    def continue_from(self, last: int) -> None:
        """The session is there already, and has come so far."""
        self._last = max(self._last, last)

    def restart(self) -> None:
        """Another session."""
        self._last = 0
        self.skipped.clear()
