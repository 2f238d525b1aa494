"""Section 5.9: lost messages are sent again.

This module repeats VIEW_CHANGE during an election, PREPARE until the view is prepared, and PROPOSAL until its slot is
ordered, and it sends ALIVE and VC_PROOF periodically. A PREPARE_OK or an ACCEPT that was lost is sent again by its
handler, as the answer to a repeated PREPARE or PROPOSAL. Client updates have their Update_Timers.

Departure 49: how long a message waits for its answer follows the time that slots take (`RoundTrip`). A PROPOSAL is
repeated sooner if a slot that was proposed after it is ordered already, as a lost TCP segment is when later ones are
acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from attrs import define
from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.demand import Demand
from pfsb.paxos.disk_watch import DiskWatch
from pfsb.paxos.hand_over import HandOverHandler
from pfsb.paxos.leader_election import LeaderElectionHandler
from pfsb.paxos.messages import State
from pfsb.paxos.prepare import PrepareHandler
from pfsb.paxos.proposal import ProposalHandler
from pfsb.paxos.reconciliation import ReconciliationHandler
from pfsb.paxos.round_trip import JITTER, SHORTEST_SECONDS, RoundTrip
from pfsb.paxos.storage_identity import StorageIdentityHandler
from pfsb.paxos.view_raise import ViewRaise

REORDERING = 1.25
"""How long, in units of the mean time of a slot, a PROPOSAL waits before it counts as lost because a later slot is
ordered already: messages may overtake each other (RFC 8985)."""

BURSTS = 4
"""Maximum number of times in `resend_seconds` that `Retransmission.resend_proposals` sends as much as one call may
send, which is about four frames of batches."""


@define
class Repetition:
    """Says when one message of an election, a VIEW_CHANGE or a PREPARE, is to be sent again: its view, the time by the
    clock, and the wait before that, in seconds."""

    view: int
    due: float
    wait: float


class Retransmission(Handler):
    """Two timers: one sends messages again that have had no effect in time, a slow one sends ALIVE and VC_PROOF."""

    def __init__(
        self,
        core: Core,
        election: LeaderElectionHandler,
        prepare: PrepareHandler,
        proposals: ProposalHandler,
        alive: AliveHandler,
        reconciliation: ReconciliationHandler,
        storage_identity: StorageIdentityHandler,
        disk_watch: DiskWatch,
        view_raise: ViewRaise,
        hand_over: HandOverHandler,
        demand: Demand,
        rng: random.Random,
        slot_time: RoundTrip,
        update_time: RoundTrip,
    ) -> None:
        """`slot_time` tells how long to wait for a slot to be ordered, and `update_time` how long to wait for the
        PROPOSAL that carries an update.
        """
        super().__init__(core)
        self._reconciliation = reconciliation
        self._election = election
        self._prepare = prepare
        self._proposals = proposals
        self._alive = alive
        self._storage_identity = storage_identity
        self._disk_watch = disk_watch
        self._view_raise = view_raise
        self._hand_over = hand_over
        self._demand = demand
        self._rng = rng
        self._slot_time = slot_time
        self._update_time = update_time
        self._votes = Repetition(0, 0.0, 0.0)
        self._prepares = Repetition(0, 0.0, 0.0)
        self._wake_at = 0.0
        """Time by the clock at which this server looks next whether a message is to be repeated."""
        self._calls: dict[str, IDelayedCall] = {}

    def start(self) -> None:
        self.resend_due()
        self.alive_due()

    def stop(self) -> None:
        for call in self._calls.values():
            if call.active():
                call.cancel()
        self._calls.clear()

    def resend_due(self) -> None:
        """Send again the VIEW_CHANGE, PREPARE or PROPOSALs that had no effect in time, and set the timer for the next
        look.

        The timer is a delayed call and not a LoopingCall, which would end silently after an exception: an exception in
        a turn must stop the whole server.
        """
        self._wake_at = self._clock.seconds() + self._settings.resend_seconds
        self._turn.run(self._resend)
        if not self._turn.stopped:
            self._calls["resend"] = self._clock.callLater(
                max(0.0, self._wake_at - self._clock.seconds()), self.resend_due
            )

    def wake_by(self, time: float) -> None:
        """Set the timer so that this server looks for messages to repeat at `time`, by its clock, or sooner."""
        if time < self._wake_at:
            self._wake_at = time
            call = self._calls.get("resend")
            if call is not None and call.active():
                call.reset(max(0.0, time - self._clock.seconds()))

    def proposal_sent(self, now: float) -> None:
        """Called when a PROPOSAL was sent, at `now` by the clock: set the timer to the time by which its slot should be
        ordered, so that the PROPOSAL is repeated if it is not."""
        due = now + self._slot_time.seconds
        if due < self._wake_at:
            self.wake_by(due)

    def election_begun(self) -> None:
        """Called in the turn that sends a first VIEW_CHANGE for a view: set the timer for its repetition.

        The waits that grew under the former leader begin anew (`RoundTrip.start_anew`): they say little about the next
        leader.
        """
        self._slot_time.start_anew()
        wait = self._first_wait()
        due = self._clock.seconds() + wait
        self._votes = Repetition(self._data.views.last_attempted, due, wait)
        self.wake_by(due)

    def gap_seen(self) -> None:
        """Called when a slot is ordered above one that is not: set the timer, as leader, to repeat the PROPOSALs below
        it soon."""
        if self._data.server.state is State.REG_LEADER:
            self.wake_by(self._clock.seconds() + self._slot_time.mean * (REORDERING - 1))

    def path_is_back(self) -> None:
        """Called when a server is heard again that was not heard for a while: set the timer to repeat PROPOSALs
        soon."""
        now = self._clock.seconds()
        self._slot_time.interrupted(now)
        self.wake_by(now + self._slot_time.mean)

    def alive_due(self) -> None:
        """Send ALIVE and VC_PROOF, write the lazy records that still wait, and set the timer for the next time.

        This is also when the server looks whether its disk works, when slots that all servers have are forgotten, and
        when a leader looks for servers that have installed a later view (Departure 50), or that are preferred to it
        (Departure 59). Measured times of which nothing
        new is learned are forgotten by and by (`RoundTrip.relax`).
        """
        self._disk_watch.look()
        self._turn.run(self._keep_informed)
        self._turn.flush_lazy()
        if not self._turn.stopped:
            self._calls["alive"] = self._clock.callLater(self._settings.alive_seconds, self.alive_due)

    def _keep_informed(self) -> None:
        self._alive.send_alive()
        self._storage_identity.ask_again()
        self._reconciliation.forget_what_all_have()
        self.relax()
        self._view_raise.look()
        self._hand_over.look()

    def relax(self) -> None:
        """Shorten measured times that are long, if nothing is under way that would measure them (`RoundTrip.relax`).

        Those are the time of a reply of reconciliation, unless this server is behind; the time of a slot, unless an
        update waits to be executed; and the time of an update, unless one of this server's clients is pending. The last
        two depend on disks, and stay as they are while this server's disk writes: the disks of other servers may be
        writing the same, with updates at their gates of which this server does not know yet (Departure 48).
        """
        if not self._reconciliation.is_behind():
            self._reconciliation.round_trip.relax()
        if self._turn.is_writing:
            return
        if not self._demand.knows_of_unexecuted_update():
            self._slot_time.relax()
        if not self._data.clients.pending_updates:
            self._update_time.relax()

    def _resend(self) -> None:
        """Repeat the messages that belong to the present state, and none of a state that this server has left (G23).

        A server that is not admitted yet repeats nothing: it does not vote (Departure 12). Nor does a server whose disk
        is in trouble: it could not go on when the messages are answered (Departures 44, 45).
        """
        if self._storage_identity.is_newcomer or self._turn.trouble is not None:
            return
        views = self._data.views
        if self._data.server.state is State.REG_LEADER:
            self.resend_proposals()
        elif self._data.server.state is State.LEADER_ELECTION and views.last_attempted > 0:
            longest = self._settings.resend_seconds
            prepares = views.last_installed == views.last_attempted and self._membership.i_lead(views.last_installed)
            if prepares:
                self._prepare.ask_for_parts()  # these requests have times of their own (Departure 47)
                if self._is_due(self._prepares, max(longest, self._slot_time.measured)):
                    self._prepare.ask_again()
            if self._is_due(self._votes, longest):
                self._election.send_view_change()

    # ------------------------------------------------------------------ elections

    def _first_wait(self) -> float:
        return min(self._settings.resend_seconds, self._slot_time.seconds)

    def _is_due(self, repetition: Repetition, longest: float) -> bool:
        """Whether a message of the present election is to be sent again now. If so, its next wait is about twice as
        long, but at most `longest` seconds.

        A message is not due while a disk write is under way: either an earlier copy of it still waits at the gate for
        that write, or a new copy would have to wait there.
        """
        now, view = self._clock.seconds(), self._data.views.last_attempted
        if repetition.view != view:
            repetition.view, repetition.wait = view, self._first_wait()
            repetition.due = now + repetition.wait
        is_due = now >= repetition.due and not self._turn.is_writing
        if is_due:
            repetition.wait = min(longest, repetition.wait * self._rng.uniform(2.0, 2.0 * (1 + JITTER)))
            repetition.due = now + repetition.wait
        self.wake_by(max(repetition.due, now + min(SHORTEST_SECONDS, longest)))
        return is_due

    # ------------------------------------------------------------------ proposals

    def resend_proposals(self) -> None:
        """Send again the proposals that were not ordered in time, the lowest slot first (Departure 49).

        Departure 32: each call sends about four frames of batches at most, so that repetitions do not flood a slow
        network; the next call goes on. If no slot at all was ordered while one waited, disks or links may have become
        slow, and all waits become longer. Otherwise the messages of this slot were lost.
        """
        now, slot_time = self._clock.seconds(), self._slot_time
        room = 4 * self._settings.frame_data_bytes_max
        pause = min(SHORTEST_SECONDS, self._settings.resend_seconds)
        was_in_vain = False
        waiting = list(self._unordered())
        for seq, slot, wait in waiting:
            if slot.sent_at + wait <= now and room >= 0:
                assert slot.proposal is not None
                room -= len(slot.proposal.batch.data)
                was_in_vain |= slot.sent_at >= slot_time.last_answer_at
                self._proposals.resend(seq)
        if room < 0:
            pause = self._settings.resend_seconds / BURSTS
        elif was_in_vain:
            slot_time.back_off()
        if waiting:
            due = min(slot.sent_at + min(wait, slot_time.seconds) for _, slot, wait in waiting)
            self.wake_by(max(due, now + pause))

    def resend_to(self, server_id: int, first: int, last: int) -> int:
        """Send the PROPOSALs from `first` to `last` that are not ordered yet to a server that lacks these slots.

        Returns the number of bytes in their batches. Departure 32: about four frames are sent at most.
        A PROPOSAL that was sent less than the mean time of a slot ago may be on its way, and is not repeated.
        """
        now = self._clock.seconds()
        size = 0
        for seq, slot, _ in self._unordered():
            has_room = size <= 4 * self._settings.frame_data_bytes_max
            if first <= seq <= last and has_room and slot.sent_at + self._slot_time.mean <= now:
                assert slot.proposal is not None
                size += len(slot.proposal.batch.data)
                self._proposals.resend(seq, server_id)
        return size

    def _unordered(self) -> Iterator[tuple[int, Slot, float]]:
        """(number, slot, wait in seconds) for the slots that this leader has proposed and that are not ordered yet.

        The wait is shorter for a slot if another slot, whose PROPOSAL was sent after its own, is ordered already.
        """
        ordering = self._data.ordering
        slots = list(ordering.global_history.above(ordering.local_aru))
        latest_ordered = max((slot.sent_at for _, slot in slots if slot.ordered is not None), default=0.0)
        wait = self._slot_time.seconds
        soon = min(wait, REORDERING * self._slot_time.mean)
        for seq, slot in slots:
            if seq <= ordering.last_proposed and slot.proposal is not None and slot.ordered is None:
                yield seq, slot, soon if slot.sent_at < latest_ordered else wait
