"""Section 5.10: how many slots above Local_Aru may be under way at once.

Departure 20: the window is a fixed number of slots. How ALIVE messages keep the servers informed of each other, the
other half of that section of the paper, is in `pfsb.paxos.alive`.
"""

from __future__ import annotations

from pfsb.paxos.data_structures import OrderingData


class Window:
    """The slots that a leader may propose in, and that a follower accepts proposals for."""

    def __init__(self, ordering: OrderingData, slots: int, *, is_born: bool) -> None:
        """`slots` is the size of the window, in slots. `is_born` says whether the settings of the cluster are in force
        already: if not, they will replace the size at the birth (`adopt`).
        """
        self._ordering = ordering
        self.slots = slots
        """Size of the window."""
        self.is_born = is_born
        """Whether the settings of the cluster are in force. Before that, a leader proposes only these settings, one
        slot at a time."""
        self.is_closed = False
        """Whether this server, as leader, proposes nothing new, since it hands its view over (Departure 59)."""
        self._room = 0
        """How many slots above Local_Aru a leader may propose."""
        self._measure()

    def _measure(self) -> None:
        self._room = 0 if self.is_closed else self.slots if self.is_born else 1

    def adopt(self, slots: int) -> None:
        """Take the size of the window from the settings of the cluster, which are executed now (Departure 34)."""
        self.slots = slots
        self.is_born = True
        self._measure()

    def close(self) -> None:
        """Departure 59: propose nothing new from now on, since the view is handed over."""
        self.is_closed = True
        self._measure()

    def open(self) -> None:
        """Propose as before: the hand-over is over."""
        self.is_closed = False
        self._measure()

    def may_propose(self, seq: int) -> bool:
        """Whether a leader may propose slot `seq`: only after it has executed slot `seq` less the window."""
        return seq <= self._ordering.local_aru + self._room

    def may_accept(self, seq: int) -> bool:
        """Whether a follower may accept a proposal of slot `seq`: up to two windows above its Local_Aru.

        The leader may have executed up to one window more than this follower. A server holds no proposal of a slot more
        than two windows above its Local_Aru, which bounds the data list of a PREPARE_OK.
        """
        return seq <= self._ordering.local_aru + 2 * self.slots

    def executed_by_leader_of(self, seq: int) -> int:
        """The lowest Local_Aru that a leader can have when it proposes slot `seq`; every slot up to it is ordered."""
        return seq - self.slots
