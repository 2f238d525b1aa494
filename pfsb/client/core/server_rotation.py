"""The order in which a client tries the servers, and the pause after a round in vain."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from attrs import define, field

from pfsb.client.core.addresses import ServerAddress

BACKOFF_SECONDS_MAX: Final = 1.0
"""Maximum pause after a round in which no server has served."""


@define(eq=False)
class ServerRotation:
    """The server that a client is at, and the next one."""

    _addresses: Sequence[ServerAddress]
    _dice: Random
    _index: int = 0
    last_trouble: str = field(init=False, default="no server was tried yet")
    """Why the last server was left, or could not be reached."""
    _failures: int = field(init=False, default=0)
    """How many servers were left since one has served."""

    @property
    def server(self) -> ServerAddress:
        """The present server."""
        return self._addresses[self._index % len(self._addresses)]

    def has_served(self) -> None:
        """The present server has answered."""
        self._failures = 0

    def note_trouble(self, why: str) -> None:
        """Remember why the present server is left."""
        self.last_trouble = f"server {self.server.id} ({self.server.shown}): {why.rstrip('.')}"

    def move_to_next(self) -> float:
        """Make the next server the present one. Returns how many seconds to pause before it is tried.

        The pause is 0 except after a whole round of servers in vain. Then it is random and grows with each round, so
        that clients do not all come back at the same moment.
        """
        self._index += 1
        self._failures += 1
        rounds, rest = divmod(self._failures, len(self._addresses))
        return 0.0 if rest else self._dice.uniform(0.05, min(0.1 * 2 ** min(rounds, 10), BACKOFF_SECONDS_MAX))
