"""The Update_Timers (Figure 2, line E2, and Figure 12, Block B): an update that is not executed in time is sent again.

At any moment all these timers have the same length, so they expire in the order in which their updates were sent last.
One ordered table and one delayed call of the reactor are therefore enough for any number of clients.

Departure 49: the length follows the time from sending an update to its PROPOSAL (`RoundTrip`). An update that this
server sees in a PROPOSAL of its leader has arrived, so it is not sent again; if its slot stays open, the leader is
asked for the slot.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable

from attrs import define
from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.messages import ClientUpdate, State
from pfsb.paxos.round_trip import RoundTrip
from pfsb.paxos.window import Window

LONGEST_WAIT = 4
"""Maximum length to which the Update_Timer doubles, in units of `update_seconds`: other servers may not
remember for longer that an update waits (`Demand.note_foreign_update`)."""
SLOTS_PATIENCE = 2
"""Minimum length of the Update_Timer while the window is full, in units of the time within which nearly all slots were
ordered lately: an update may have to wait for a slot to end."""


@define
class UpdateTimer:
    """The timer of one pending update."""

    first_sent_at: float
    sent_at: float
    """Time by the clock at which the update was last sent, or was found to be under way."""
    position: int
    """The running count of this server's disk writes (`Turn.position`) that must be done before the update counts as
    having left this server."""
    expiries: int = 0


class UpdateTimers(Handler):
    """Sends the updates of this server's clients again that are not executed in time.

    The timer of an update starts when the update becomes pending (`start_timer`), and ends when it is executed
    (`executed`). When the timer expires, a follower sends the update to the leader as CLIENT_UPDATE; from the second
    time on, it is sent to all servers. If the update is known to be in a slot that stays open, `on_open_slot` is called
    instead. Figure 2, line E2, and Figure 12, Block B of the paper.
    """

    def __init__(self, core: Core, rng: random.Random, slot_time: RoundTrip, window: Window) -> None:
        super().__init__(core)
        default = core.settings.update_seconds
        self._slot_time = slot_time
        self._window = window
        self.round_trip = RoundTrip(default, rng, LONGEST_WAIT * default)
        """Tells how long to wait for an update to come back in a PROPOSAL, by how long that has taken."""
        self._timers: OrderedDict[str, UpdateTimer] = OrderedDict()
        self._latest_executed = 0.0
        """Time by the clock at which the most recently sent of the executed updates was first sent. An update that was
        sent before it and is not under way was lost; that is no reason for longer timers."""
        self._call: IDelayedCall | None = None
        self._call_at = 0.0
        """Time by the clock for which the delayed call is set."""
        self.is_behind: Callable[[], bool] = lambda: False
        """Tells whether this server knows that it lacks slots, in which its updates may have been executed."""
        self.on_open_slot: Callable[[int], None] = lambda seq: None
        """Called with the highest slot that holds a pending update, when the slot should have been executed by now."""

    @property
    def seconds(self) -> float:
        """The present length of the timers, in seconds.

        A leader sends its clients' updates nowhere but in PROPOSALs. Its timers only tell the other servers, late, that
        updates wait, so they are no shorter than `update_seconds`.
        """
        seconds, ordering = self.round_trip.seconds, self._data.ordering
        if ordering.global_history.top - ordering.local_aru >= self._window.slots:
            seconds = max(seconds, SLOTS_PATIENCE * self._slot_time.measured)
        if self._data.server.state is State.REG_NONLEADER:
            return seconds
        return max(seconds, self._settings.update_seconds)

    def start_timer(self, client_id: str) -> None:
        """Start the timer of this client's pending update, or start it again if it runs."""
        now = self._clock.seconds()
        self._timers[client_id] = UpdateTimer(now, now, self._turn.position)
        self._timers.move_to_end(client_id)
        if self._call is None or now + self.round_trip.seconds < self._call_at:
            self._arm()

    def executed(self, client_id: str, seq: int) -> None:
        """Stop the timer of a client's update, which was executed here in slot `seq`.

        A follower measures the time from sending the update to its PROPOSAL (`RoundTrip.answered`), if the PROPOSAL
        came after the last copy of the update was sent.
        """
        timer = self._timers.pop(client_id, None)
        if timer is None:
            return
        self._latest_executed = max(self._latest_executed, timer.first_sent_at)
        slot = self._data.ordering.global_history.get(seq)
        if slot is None or self._data.server.state is not State.REG_NONLEADER:
            return
        last_at = timer.sent_at if timer.expiries else timer.first_sent_at
        if slot.sent_at > last_at:
            self.round_trip.answered(timer.first_sent_at, last_at, slot.sent_at)

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

    def path_is_back(self) -> None:
        """Called when a server is heard again that was not heard for a while: undo the doubling of the timers
        (Departure 49)."""
        self.round_trip.interrupted(self._clock.seconds())
        self._arm()

    def _arm(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._call = None
        if self._timers:
            self._call_at = next(iter(self._timers.values())).sent_at + self.seconds
            self._call = self._clock.callLater(max(0.0, self._call_at - self._clock.seconds()), self.expire)

    def expire(self) -> None:
        self._call = None
        self._turn.run(self.expire_due)
        if not self._turn.stopped:
            self._arm()

    def expire_due(self) -> None:
        """Send again the updates whose timers have expired, except those that are known to be on their way."""
        now = self._clock.seconds()
        seconds = self.seconds
        due = []
        for client_id, timer in self._timers.items():
            if timer.sent_at + seconds > now:
                break
            due.append((client_id, timer))
        bound = self.bound_in_this_view() if due else {}
        is_behind = bool(due) and self.is_behind()
        open_slot = 0
        was_in_vain = False
        for client_id, timer in due:
            update = self._data.clients.pending_updates.get(client_id)
            if update is None:
                del self._timers[client_id]
                continue
            if timer.position <= self._turn.durable_position:  # else the last copy has not even left
                seq = bound.get((client_id, update.timestamp), 0)
                open_slot = max(open_slot, seq)
                if not seq:
                    was_in_vain |= timer.sent_at >= self._latest_executed and not is_behind
                    self._expire_one(update, timer)
            timer.sent_at, timer.position = now, self._turn.position
            self._timers.move_to_end(client_id)
        if open_slot:
            self.on_open_slot(open_slot)
        has_sent = self._data.server.state is State.REG_NONLEADER and self._turn.trouble is None
        if was_in_vain and has_sent:
            self.round_trip.back_off()

    def _expire_one(self, update: ClientUpdate, timer: UpdateTimer) -> None:
        """Figure 12, Block B: start the timer of a pending update again, and send the update to the leader.

        Departure 17: from the second expiry on the update is sent to all servers, so that each of them knows that the
        update waits, and a server that can reach the leader relays it (G8.3).
        """
        timer.expiries += 1
        if self._tracer is not None:
            self._tracer.trace("timer", name="update", client=update.client_id, expiries=timer.expiries)
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

    def bound_in_this_view(self) -> dict[tuple[str, int], int]:
        """(client id, timestamp) -> slot, of the updates that are known to be on their way (Departure 49).

        Such an update is in a PROPOSAL of the installed view, which the leader repeats until its slot is ordered; or it
        is in a slot that is ordered, and waits for an earlier slot. In an election no update is known to be on its way.
        """
        if self._data.server.state is State.LEADER_ELECTION:
            return {}
        view, ordering = self._data.views.last_installed, self._data.ordering
        bound: dict[tuple[str, int], int] = {}
        for seq, slot in ordering.global_history.above(ordering.local_aru):
            batch = slot.ordered
            if slot.proposal is not None and slot.proposal.view == view:
                batch = slot.proposal.batch
            if batch is not None:
                bound.update({(u.client_id, u.timestamp): seq for u in batch.updates()})
        return bound
