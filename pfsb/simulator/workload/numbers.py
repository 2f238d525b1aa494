"""The numbers that a user gives to its commands: they grow, and some are skipped, as a correct client never does."""

from __future__ import annotations

import random

from attrs import define, field


@define(eq=False)
class CommandNumbers:
    """Gives out the command numbers of one user's session: `next` gives each time a higher number than before.

    By chance `next` skips some numbers. The user gives a skipped number to a later command (`take_skipped`), or to
    none, so that runs try how servers check numbers.
    """

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
        """Take one of `skipped` out of that list, at random, and return it: the user now gives it to a command."""
        return self.skipped.pop(self._rng.randrange(len(self.skipped)))

    def continue_from(self, last: int) -> None:
        """Give out only numbers above `last` from now on: `last` is the highest number that a resumed session has
        run."""
        self._last = max(self._last, last)

    def go_back_to(self, last: int) -> None:
        """Go on after number `last`, and use the numbers above it anew, since none of them has run."""
        self._last = last
        self.skipped = [number for number in self.skipped if number <= last]

    def restart(self) -> None:
        """Forget all numbers and begin with 1 again, for a new session of the user."""
        self._last = 0
        self.skipped.clear()
