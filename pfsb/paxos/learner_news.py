"""LearnerNews: tells the servers that learn for good at once which slots are ordered (Departure 60).

Such a server has no vote, so no votes tell it. By the others' ALIVE alone, which tell how far their disks are, it would
be behind by a third of a second. So the leader sends it what was ordered in the last `NEWS_SECONDS`; or, if that is too
much for one frame, an ALIVE, after which the server asks for the slots. A server that lacks earlier slots asks for them
in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.messages import State
from pfsb.paxos.peers import Peers
from pfsb.paxos.reconciliation import ReconciliationHandler

NEWS_SECONDS: Final = 0.01
"""How long, in seconds, the leader collects slots that it has ordered before it tells them: it sends each server that
learns one frame in this time at most."""
NEWS_SLOTS_MAX: Final = 64
"""Maximum number of slots that are sent at once."""
NEWS_BYTES_MAX: Final = 8_000
"""Maximum size, in bytes, of the batches that are sent at once: one frame, of a few datagrams on a narrow path."""
NEAR_SLOTS: Final = 1_000
"""Maximum number of slots by which a server may be behind, as its last ALIVE tells, to be sent the latest ones: it
keeps them in memory until it has those before them."""


class LearnerNews(Handler):
    """Sends to each server that learns for good, while this server leads, the slots that are ordered."""

    def __init__(
        self,
        core: Core,
        peers: Peers,
        alive: AliveHandler,
        reconciliation: ReconciliationHandler,
        checks: list[Callable[[], None]],
    ) -> None:
        """`checks` are called at the end of each turn. This object is among them only while servers learn for good, so
        a cluster without such servers does nothing more in a turn."""
        super().__init__(core)
        self._peers = peers
        self._alive = alive
        self._reconciliation = reconciliation
        self._checks = checks
        self._told = 0
        """The last slot that this server has sent, or told by an ALIVE, to servers that learn for good."""
        self._call: IDelayedCall | None = None
        self._learners: tuple[int, ...] = ()
        self.follow_membership()
        core.membership.on_change.append(self.follow_membership)

    def follow_membership(self) -> None:
        """Send to the servers that learn for good in the present epoch, from now on."""
        own_id = self._membership.server_id
        self._learners = tuple(i for i in self._membership.members.permanent if i != own_id)
        if self._learners and self.look not in self._checks:
            self._checks.append(self.look)
        elif not self._learners and self.look in self._checks:
            self._checks.remove(self.look)

    def look(self) -> None:
        """Called at the end of a turn: if this server leads and has executed slots, send them soon."""
        data = self._data
        if self._call is None and data.server.state is State.REG_LEADER and data.ordering.local_aru > self._told:
            self._call = self._clock.callLater(NEWS_SECONDS, self._turn.run, self._tell)

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _tell(self) -> None:
        self._call = None
        ordering = self._data.ordering
        first, last = self._told + 1, ordering.local_aru
        self._told = last
        if self._data.server.state is not State.REG_LEADER:
            return
        rows = []
        if last - first < NEWS_SLOTS_MAX and first > ordering.global_history.floor:
            rows = self._reconciliation.rows_from_memory(first, last)
        fits = len(rows) == last - first + 1 and sum(len(batch.data) for _, batch in rows) <= NEWS_BYTES_MAX
        for server_id in self._learners:
            if self._peers.heard_lately(server_id) and self._peers.by_id[server_id].local_aru + NEAR_SLOTS >= last:
                if fits:
                    self._reconciliation.tell(server_id, first, rows)
                else:
                    self._turn.send_early(self._alive.own_alive(), server_id)
