"""The Update_Timers (Figure 2, line E2, and Figure 12, Block B): an update that is not executed in time is sent again.

All these timers have the same length, so they expire in the order in which they were started. One ordered table and one
delayed call of the reactor are therefore enough for any number of clients.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from attrs import define
from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.messages import ClientUpdate, State


@define
class UpdateTimer:
    due: float
    expiries: int = 0


class UpdateTimers(Handler):
    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._seconds = core.settings.update_seconds
        self._timers: OrderedDict[str, UpdateTimer] = OrderedDict()
        self._call: IDelayedCall | None = None

    def start_timer(self, client_id: str) -> None:
        """Start the timer of this client's pending update, or start it again if it runs."""
        self._timers[client_id] = UpdateTimer(self._clock.seconds() + self._seconds)
        self._timers.move_to_end(client_id)
        self._arm()

    def stop(self) -> None:
        self._timers.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def running(self) -> Iterable[UpdateTimer]:
        """The timers that run, in the order in which they expire."""
        return self._timers.values()

    def forward_pending_updates(self) -> None:
        """Departure 18: send the pending updates to a new leader at once, before their timers expire."""
        if self._data.server.state is State.REG_NONLEADER:
            leader = self._membership.leader_of(self._data.views.last_installed)
            for update in self._data.clients.pending_updates.values():
                self._turn.send(update, leader)

    def _arm(self) -> None:
        if self._call is None and self._timers:
            due = next(iter(self._timers.values())).due
            self._call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self.expire)

    def expire(self) -> None:
        self._call = None
        self._turn.run(self._expire_due)
        if not self._turn.stopped:
            self._arm()

    def _expire_due(self) -> None:
        now = self._clock.seconds()
        while self._timers:
            client_id, timer = next(iter(self._timers.items()))
            if client_id not in self._data.clients.pending_updates:
                del self._timers[client_id]  # executed meanwhile
            elif timer.due <= now:
                self._expire_one(client_id, timer)
            else:
                return

    def _expire_one(self, client_id: str, timer: UpdateTimer) -> None:
        """Figure 12, Block B: start the timer of a pending update again, and send the update to the leader.

        Departure 17: from the second expiry on the update is sent to all servers, so that each of them knows that the
        update waits, and a server that can reach the leader relays it (G8.3).
        """
        update = self._data.clients.pending_updates[client_id]
        timer.due = self._clock.seconds() + self._seconds
        timer.expiries += 1
        self._timers.move_to_end(client_id)
        if self._tracer is not None:
            self._tracer.trace("timer", name="update", client=client_id, expiries=timer.expiries)
        self.send_again(update, timer.expiries)

    def send_again(self, update: ClientUpdate, expiries: int) -> None:
        """Send an update once more, unless the disk is in trouble: this server could not take the result (Departures 44
        and 45)."""
        if self._turn.trouble is not None:
            return
        if expiries >= 2:
            self._turn.send(update)
        elif self._data.server.state is State.REG_NONLEADER:
            self._turn.send(update, self._membership.leader_of(self._data.views.last_installed))
