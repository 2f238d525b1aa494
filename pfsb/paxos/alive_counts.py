"""How many ALIVEs of a server have said the same thing (Departures 51 and 52)."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from pfsb.paxos.peers import NEVER
from pfsb.paxos.settings import Settings

ALIVES_BELIEVED: Final = 2
"""Number of ALIVEs, one after the other, by which a server must say that it is in a view before this server believes
it, and gives up an election (Departure 51) or forgets the vote of that server (Departure 52). More than one, since a
single ALIVE may be older than the last vote of its sender, and arrive after it."""


class AliveCounts:
    """Counts, for each server, the ALIVEs that say one thing, which the owner of the counts has chosen. If
    `ALIVES_BELIEVED` of them have come, the server is believed.

    An ALIVE has no number, and a network may deliver a frame twice. So an ALIVE that comes less than half of
    `alive_seconds` after the last one that counted does not count: it may be a second copy of that one.
    """

    def __init__(self, clock: IReactorTime, settings: Settings) -> None:
        self._clock = clock
        self._apart = settings.alive_seconds / 2
        self._alives: dict[int, int] = {}
        """Server id -> number of its ALIVEs that count."""
        self._latest: dict[int, float] = {}
        """Server id -> time by the clock at which its last ALIVE that counts has come."""

    def add(self, server_id: int) -> None:
        """Count an ALIVE of a server, unless it may be another copy of the last one that counted."""
        now = self._clock.seconds()
        if now - self._latest.get(server_id, NEVER) >= self._apart:
            self._latest[server_id] = now
            self._alives[server_id] = self._alives.get(server_id, 0) + 1

    def are_believed(self, server_id: int) -> bool:
        """Whether enough ALIVEs of a server have been counted."""
        return self._alives.get(server_id, 0) >= ALIVES_BELIEVED

    def forget(self, server_id: int) -> None:
        """Begin to count the ALIVEs of a server anew."""
        self._alives.pop(server_id, None)
        self._latest.pop(server_id, None)

    def clear(self) -> None:
        """Begin to count the ALIVEs of all servers anew."""
        self._alives.clear()
        self._latest.clear()
