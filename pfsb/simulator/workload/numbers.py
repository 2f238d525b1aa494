"""The numbers that a user gives to its commands: they grow, and some are skipped, as a correct client never does."""

from __future__ import annotations

import random

from attrs import define, field


@define(eq=False)
class CommandNumbers:
    """The command numbers of one session."""

    _rng: random.Random
    _gaps: float
    """Chance, for each new command, that the number before the command's own is skipped."""
    _last: int = field(default=0, init=False)
    skipped: list[int] = field(factory=list, init=False)

    def next(self) -> int:
        self._last += 1
        if self._rng.random() < self._gaps:
            self.skipped.append(self._last)
            self._last += 1
        return self._last

    def take_skipped(self) -> int:
        """Return one of the skipped numbers, which the user will now use after all."""
        return self.skipped.pop(self._rng.randrange(len(self.skipped)))

    def continue_from(self, last: int) -> None:
        """Go on after number `last` of a session that was resumed."""
        self._last = max(self._last, last)

    def restart(self) -> None:
        """Begin with number 1 again, for a new session."""
        self._last = 0
        self.skipped.clear()
