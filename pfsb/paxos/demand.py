"""Whether anything waits to be executed, and whether clients of this server wait for results.

Departure 10: while this server knows of no unexecuted update, an ALIVE from the leader of its view counts as progress.
Departure 25: ACCEPTs to a server that has no waiting clients may be delayed.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.peers import NEVER, Peers

LINGER_ALIVES = 5
"""Number of periods of ALIVE, after their last request, for which this server's clients count as waiting for
results."""

FOREIGN_UPDATES_MAX = 10_000
"""Maximum number of other servers' updates that are remembered as waiting; one is enough to expect progress."""


@define
class ForeignUpdate:
    """An update of another server's client that, as far as this server knows, is not executed yet (G8.3)."""

    timestamp: int
    until: float
    """Time by the clock after which the update no longer counts as waiting, unless the client's server repeats it."""


class Demand(Handler):
    """Tells whether updates wait to be executed, and whether clients of this server wait for results."""

    def __init__(self, core: Core, peers: Peers) -> None:
        super().__init__(core)
        self._peers = peers
        self.foreign_updates: dict[str, ForeignUpdate] = {}
        """Paxos client -> its update that waits at another server, as far as this server knows (Departure 17)."""
        self._asked_until = NEVER
        """Time by the clock until which this server's clients count as waiting, because of their last request."""
        self.clients_wait: Callable[[], bool] = lambda: False
        """Function that tells whether a client of this server waits for an answer or an event; set by
        `Replica.attach`."""

    # ------------------------------------------------------------------ clients of this server (Departure 25)

    def note_request(self) -> bool:
        """Record a request of one of this server's own clients.

        Returns True if no request came in the last `LINGER_ALIVES` periods of ALIVE, so that the other servers may be
        delaying their ACCEPTs to this server; always False if the settings say that servers do not delay ACCEPTs.
        """
        now = self._clock.seconds()
        is_news = now >= self._asked_until and self._settings.lazy_seconds > 0
        self._asked_until = now + LINGER_ALIVES * self._settings.alive_seconds
        return is_news

    def has_clients(self) -> bool:
        """Whether other servers should send their ACCEPTs to this server without delay, because its clients wait.

        Always True if `lazy_seconds` is 0, which means that no ACCEPT is delayed.
        """
        return (
            self._settings.lazy_seconds <= 0
            or self._clock.seconds() < self._asked_until
            or bool(self._data.clients.pending_updates)
            or self.clients_wait()
        )

    # ------------------------------------------------------------------ unexecuted updates (Departure 10)

    def note_foreign_update(self, update: ClientUpdate) -> None:
        """Record that an update of another server's client waits: an ALIVE of the leader is then no progress.

        This server remembers it for the longer one of two times: the longest time between two copies of an update, and
        the present length of the Progress_Timer, which grows with elections that come to nothing. Otherwise, when
        copies are lost, each ALIVE would restart that timer again while the leader orders nothing.
        """
        known = update.client_id in self.foreign_updates or len(self.foreign_updates) < FOREIGN_UPDATES_MAX
        if known and update.timestamp > self._data.clients.last_executed.of(update.client_id):
            remembered = max(4 * self._settings.update_seconds, self._data.timers.progress_seconds)
            until = self._clock.seconds() + remembered
            self.foreign_updates[update.client_id] = ForeignUpdate(update.timestamp, until)

    def knows_of_unexecuted_update(self) -> bool:
        """Whether this server knows of an update that it has not executed.

        Such an update is pending here or at another server, is accepted in a slot, or has been executed elsewhere.
        """
        local_aru = self._data.ordering.local_aru
        return bool(
            self._data.clients.pending_updates
            or self._an_accepted_update_waits()
            or self._peers.any_is_ahead(local_aru)
            or self._a_foreign_update_waits()
        )

    def forget_foreign_updates(self) -> None:
        """Drop foreign updates that have been executed, and those that the client's server has stopped repeating."""
        now = self._clock.seconds()
        last_executed = self._data.clients.last_executed
        for client_id, waiting in list(self.foreign_updates.items()):
            if waiting.until < now or waiting.timestamp <= last_executed.of(client_id):
                del self.foreign_updates[client_id]

    def _an_accepted_update_waits(self) -> bool:
        """Whether a slot above Local_Aru holds a proposal of the installed view, or is ordered while an earlier slot is
        not.

        A proposal of an older view does not count: if it was chosen, the leader proposes it again in this view.
        """
        ordering = self._data.ordering
        view = self._data.views.last_installed
        return ordering.global_history.top > ordering.local_aru and any(
            slot.ordered is not None or (slot.proposal is not None and slot.proposal.view == view)
            for _, slot in ordering.global_history.above(ordering.local_aru)
        )

    def _a_foreign_update_waits(self) -> bool:
        self.forget_foreign_updates()
        return bool(self.foreign_updates)
