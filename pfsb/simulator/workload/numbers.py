"""The numbers that a user gives to commands: growing, some of them passed over, for mischief."""

from __future__ import annotations

import random

from attrs import define, field


@define(eq=False)
class Numbers:
    """Of one session."""

    _rng: random.Random
    _gaps: float
    """The chance that a number is passed over."""
    _last: int = field(default=0, init=False)
    passed_over: list[int] = field(factory=list, init=False)

    def next(self) -> int:
        self._last += 1
        if self._rng.random() < self._gaps:
            self.passed_over.append(self._last)
            self._last += 1
        return self._last

    def take_passed_over(self) -> int:
        """One of those, to be used after all."""
        return self.passed_over.pop(self._rng.randrange(len(self.passed_over)))

    def know(self, last: int) -> None:
        """The session is there already, and has come so far."""
        self._last = max(self._last, last)

    def begin_anew(self) -> None:
        """Another session."""
        self._last = 0
        self.passed_over.clear()
