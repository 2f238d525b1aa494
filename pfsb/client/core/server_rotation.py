"""A client's way round the servers, from one that does not serve it to the next."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from attrs import define, field

from pfsb.client.core.addresses import ServerAddress

BACKOFF_SECONDS_MAX: Final = 1.0


@define(eq=False)
class ServerRotation:
    """Time in seconds."""

    _addresses: Sequence[ServerAddress]
    _dice: Random
    _index: int = 0
    last_trouble: str = field(init=False, default="no server was tried yet")
    """Why the last server was left, or could not be reached."""
    _failures: int = field(init=False, default=0)
    """Servers left since one has served."""

    @property
    def server(self) -> ServerAddress:
        return self._addresses[self._index % len(self._addresses)]

    def has_served(self) -> None:
        self._failures = 0

    def note_trouble(self, why: str) -> None:
        """Of the server that it is at."""
        self.last_trouble = f"server {self.server.id} ({self.server.shown}): {why.rstrip('.')}"

    def move_to_next(self) -> float:
        """To the next one. Returns how long to pause before: not at all, unless a whole round of them was in vain."""
        self._index += 1
        self._failures += 1
        rounds, rest = divmod(self._failures, len(self._addresses))
        return 0.0 if rest else self._dice.uniform(0.05, min(0.1 * 2 ** min(rounds, 10), BACKOFF_SECONDS_MAX))
