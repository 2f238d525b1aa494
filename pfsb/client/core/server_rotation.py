"""The order in which a client tries the servers, and the pause after it has tried all of them in vain."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from attrs import define, field

from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.outage import Trouble, short_reason

BACKOFF_SECONDS_MAX: Final = 1.0
"""Maximum length, in seconds, of a pause after the client has tried all servers and none has answered."""


@define(eq=False)
class ServerRotation:
    """Chooses the server that a client uses: one after the other, in the order of the addresses."""

    _addresses: Sequence[ServerAddress]
    _dice: Random
    _index: int = 0
    last_trouble: str = field(init=False, default="no server was tried yet")
    """Why the client has left the server before the present one, or could not reach it, as a text for people."""
    troubles: dict[int, Trouble] = field(init=False, factory=dict)
    """Server -> why the client has last left it, or could not reach it. A server is taken out when it has served the
    client again."""
    _failures: int = field(init=False, default=0)
    """How many times the client has left a server since a server last answered."""

    def replace(self, addresses: Sequence[ServerAddress]) -> None:
        """Choose among these servers from now on, in this order. The present one, which must be among them, stays the
        present one."""
        here, former = self.server.shown, {each.shown: each.id for each in self._addresses}
        self._addresses = addresses
        self._index = next(i for i, each in enumerate(addresses) if each.shown == here)
        kept = [(each.id, self.troubles.get(former.get(each.shown, -1))) for each in addresses]
        self.troubles = {i: trouble for i, trouble in kept if trouble is not None}

    @property
    def server(self) -> ServerAddress:
        """The server that the client uses, or tries to reach."""
        return self._addresses[self._index % len(self._addresses)]

    def has_served(self) -> None:
        """Called when the present server has accepted HELLO or answered a command: the pauses become short again."""
        self._failures = 0
        self.troubles.pop(self.server.id, None)

    def note_trouble(self, why: str, *, is_unreachable: bool = False) -> None:
        """Remember `why` the client leaves the present server. `is_unreachable` is True if the server accepted no
        connection."""
        self.last_trouble = f"server {self.server.id} ({self.server.shown}): {why.rstrip('.')}"
        self.troubles[self.server.id] = Trouble(short_reason(why), is_unreachable)

    @property
    def none_is_reachable(self) -> bool:
        """Whether every server was tried, and none accepted a connection the last time."""
        found = self.troubles.values()
        return len(found) == len(self._addresses) and all(trouble.is_unreachable for trouble in found)

    def move_to_next(self) -> float:
        """Make the next server the present one. Returns how many seconds to pause before it is tried.

        The pause is 0, except each time when the client has just tried all servers in vain. Then it is random, so that
        clients do not all come back at the same moment; such pauses grow, up to `BACKOFF_SECONDS_MAX`, until a server
        answers.
        """
        self._index += 1
        self._failures += 1
        rounds, rest = divmod(self._failures, len(self._addresses))
        return 0.0 if rest else self._dice.uniform(0.05, min(0.1 * 2 ** min(rounds, 10), BACKOFF_SECONDS_MAX))
