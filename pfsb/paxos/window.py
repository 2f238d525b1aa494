"""Section 5.10: how many slots above Local_Aru may be under way at once.

Departure 20: the window is a fixed number of slots. How ALIVE messages keep the servers informed of each other, the
other half of that section of the paper, is in `pfsb.paxos.alive`.
"""

from __future__ import annotations

from pfsb.paxos.data_structures import OrderingData
from pfsb.paxos.settings import Settings


class Window:
    """The slots that a leader may propose in, and that a follower accepts proposals for."""

    def __init__(self, ordering: OrderingData, settings: Settings) -> None:
        self._ordering = ordering
        self._slots = settings.window_slots

    def may_propose(self, seq: int) -> bool:
        """A leader proposes slot `seq` only after it has executed slot `seq - window_slots`."""
        return seq <= self._ordering.local_aru + self._slots

    def may_accept(self, seq: int) -> bool:
        """A follower accepts proposals up to two windows above its Local_Aru.

        The leader may have executed up to one window more than this follower. A server holds no proposal of a slot more
        than two windows above its Local_Aru, which bounds the data list of a PREPARE_OK.
        """
        return seq <= self._ordering.local_aru + 2 * self._slots

    def executed_by_leader_of(self, seq: int) -> int:
        """The lowest Local_Aru that a leader can have when it proposes slot `seq`; every slot up to it is ordered."""
        return seq - self._slots
