"""Liveness drills at the end of a run: single known faults in a healthy cluster, with bounds on the time of recovery.

While faults happen at random, a server that is slow, or that leaves a view which works, is always excused. In a *drill*
one fault happens for a known time, and the timers in `Settings` bound the time that the cluster may take to recover.
All drills are about liveness (promise 3 in docs/architecture.rst), and about the repetition of lost messages (section
5.9 of the paper). Without bounds the simulator would not notice that a message is never repeated: an election repairs
the loss as well, only later.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.paxos.messages import State
from pfsb.paxos.reconciliation import LAZY_VOTES_PATIENCE
from pfsb.sessions.bundler import BundlePart
from pfsb.sessions.local_clients import LocalClients
from pfsb.simulator.checkers.session_checker import ROUNDING_MS
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.cluster.marks import Marks

ROUND_SECONDS: Final = 0.02
"""How long, in seconds, a few messages and disk writes one after the other may take.

With links of 1 ms and disks of 2 ms, ordering one update takes a third of this time.
"""
BLACKOUT_SECONDS: Final = 0.03
"""How long, in seconds, no message arrives at any server in the drill `blackout`."""
SETTLING_SECONDS: Final = 60.0
"""How long, in seconds, all servers may take to follow one leader: some elections with the longest timeout."""
LOOK_SECONDS: Final = 0.01
"""How often, in seconds, a drill looks whether the condition that it waits for holds."""
HASTE_SECONDS: Final = 1.0
"""How long, in seconds, `settle` looks every LOOK_SECONDS; later it looks ten times less often, to save work."""


@define
class TimerBounds:
    """Bounds of the times that a cluster's timers take, in simulated seconds.

    The clocks of the servers run at different rates. Each bound holds for all of them: a maximum is that of the slowest
    clock, a minimum that of the fastest.
    """

    cluster: SimulatedCluster

    @property
    def earliest_suspicion(self) -> float:
        """Minimum time from an ALIVE of a leader until a server suspects it, if the Progress_Timer has its default."""
        return self.cluster.settings.progress_seconds / max(self._rates())

    def longest(self, seconds: float) -> float:
        """The simulated time in which the slowest clock of a server counts `seconds`."""
        return seconds / min(self._rates())

    def shortest(self, seconds: float) -> float:
        """The simulated time in which the fastest clock of a server counts `seconds`."""
        return seconds / max(self._rates())

    def counted_by(self, server_id: int, seconds: float) -> float:
        """The simulated time in which the clock of a server counts `seconds`."""
        return seconds / self.cluster.server_clock(server_id).rate

    @property
    def alive(self) -> float:
        return self.longest(self.cluster.settings.alive_seconds)

    @property
    def progress(self) -> float:
        return self.longest(self.cluster.settings.progress_seconds)

    @property
    def update(self) -> float:
        return self.longest(self.cluster.settings.update_seconds)

    @property
    def resend(self) -> float:
        return self.longest(self.cluster.settings.resend_seconds)

    @property
    def lazy(self) -> float:
        return self.longest(self.cluster.settings.lazy_seconds)

    @property
    def catching_up(self) -> float:
        """Maximum time until a server has learned a slot that others have executed.

        The others write their Local_Aru to disk with one ALIVE at the latest, and tell it with the next one. Then the
        server waits for ACCEPTs that may still be held back (Departure 25), and asks a peer for the slot; if that peer
        does not answer, it asks another peer after a timeout.
        """
        asking = self.longest(self.cluster.settings.reconciliation_seconds)
        return 2 * self.alive + LAZY_VOTES_PATIENCE * self.lazy + asking + ROUND_SECONDS

    @property
    def is_steady(self) -> bool:
        """Whether each ALIVE of an idle leader arrives before any server suspects it. Unequal clocks may prevent it."""
        return self.alive + ROUND_SECONDS < self.earliest_suspicion

    @property
    def are_alike(self) -> bool:
        """Whether the clocks' rates are so similar that all servers suspect a dead leader in the same election.

        That is so if the last server suspects it before the first one gives up on the next leader. Otherwise a second
        election may follow: the next leader may itself be the last server to suspect, and until then it takes no part
        in the election (Figure 4 A4).
        """
        return self.progress + 2 * ROUND_SECONDS < 2 * self.earliest_suspicion

    def _rates(self) -> list[float]:
        running_servers = [self.cluster.servers[i].running for i in self.cluster.ids]
        return [running.server_clock.rate for running in running_servers if running is not None]


@define(eq=False)
class DrillRequest:
    """One update that a drill asks a server to order, and the answer to it.

    The update is the operation EXPIRE for a session that does not exist, so it changes nothing. As an operation of the
    server's own session it needs no connection.
    """

    server_id: int
    _local_clients: LocalClients
    _result: Result | None = None
    _held: tuple[BundlePart, ...] = ()
    """The parts of the bundle that the server's own session had outstanding when the answer came. If the answer was a
    refusal, and the update may still run, it is one of these parts, or waits until they have ended. Empty before the
    answer."""

    def ask(self) -> None:
        self._local_clients.submission.submit_operation(("EXPIRE", "nobody", 0), self._told)

    @property
    def is_answered(self) -> bool:
        """Whether the update has run.

        After a refusal such as UNAVAILABLE the update may run later, and no further answer tells so. Then the update
        counts as run when all operations that were outstanding at the refusal have ended. Operations that the server's
        own session has submitted since, such as EXPIRE for other sessions, do not matter.
        """
        if isinstance(self._result, Refused):
            outstanding = self._local_clients.submission.own_bundler.outstanding
            return not any(part is held for part in outstanding for held in self._held)
        return isinstance(self._result, Done)

    def _told(self, result: Result) -> None:
        self._result = result
        self._held = tuple(self._local_clients.submission.own_bundler.outstanding)


@frozen
class _OrderedTime:
    """The state machine's time at the leader (`time_ms`) when an update of a drill had just been answered.

    `asked` and `answered` are the simulated times of the request and the answer, in seconds.
    """

    asked: float
    answered: float
    time_ms: int


@define(eq=False)
class LivenessDrills:
    """Runs drills in a cluster without faults, and heals the cluster after each drill. Raises `Violation`."""

    cluster: SimulatedCluster
    rng: random.Random
    marks: Marks
    slowness: float = 1.0
    """Multiplies the time in which the cluster must settle (`pfsb.simulator.faults.profiles.Profile`)."""
    times: TimerBounds = field(init=False)

    @times.default
    def _make_times(self) -> TimerBounds:
        return TimerBounds(self.cluster)

    def run_drills(self, drills: int) -> None:
        """Let the cluster settle, then run `drills` of the drills that are possible in it, drawn at random."""
        self.cluster.network.lose_frames_under_way()
        self.settle()
        possible = self.possible_drills()
        for drill in self.rng.sample(possible, min(drills, len(possible))):
            self.marks.counts[f"drill: {drill.__name__}"] += 1
            self.cluster.tracers.tell(None, "drill", kind=drill.__name__)
            drill()
            heal_all(self.cluster)
            self.settle()

    def possible_drills(self) -> list[Callable[[], None]]:
        """The drills that this cluster must pass: it has enough servers for them, and clocks of similar rates."""
        if not self.times.is_steady:
            return []
        drills = [self.idleness]
        if len(self.cluster.ids) > 1:
            drills += [self.blackout, self.blackout, self.lateness]
        if len(self.cluster.ids) > 2:
            drills += [self.detour, self.absence, self.restart]
            if self.times.are_alike:
                drills.append(self.failover)
        return drills

    # ------------------------------------------------------------------ a settled cluster

    def settle(self) -> None:
        """Wait until each server follows the leader's installed view (G9), with its Progress_Timer at the default (G8).

        Meanwhile the drill asks for one update after the other. While updates wait, a server that has suspected its
        leader returns to it only when it sees the leader order something. Its Progress_Timer returns to the default
        when it orders a slot of its view by ACCEPTs; it may learn some slots by reconciliation instead, but not all. If
        a minority has installed a later view, the leader raises its own above that one (Departure 50). A server must
        also have forgotten each update of another server's client that it remembers as waiting (Departure 17).
        """
        began = self.cluster.now
        until = began + self.times.longest(self.slowness * SETTLING_SECONDS)
        request = self._ask(self._server_to_settle())
        while (wrong := self._unsettled()) or not request.is_answered or (wrong := self._unequal()):
            if self.cluster.now > until:
                what = wrong or f"server {request.server_id} gets no answer"
                raise Violation(f"all is well, and {what}\n{self.cluster.picture()}")
            if request.is_answered and not self._unequal():
                request = self._ask(self._server_to_settle())
            self.cluster.run(LOOK_SECONDS if self.cluster.now < began + HASTE_SECONDS else 10 * LOOK_SECONDS)

    def _server_to_settle(self) -> int:
        """A server to ask for the next update: one that waits for too long, if there is any. Only answers to its own
        updates make its waits shorter."""
        server_id = self._any_server()
        waiting = [i for i in self.cluster.ids if self._long_wait(i)]
        return server_id if not waiting or server_id in waiting else waiting[0]

    def _unsettled(self) -> str:
        """A sentence about the first thing that has not settled, or "" if all has.

        The Progress_Timer of a server with a quick clock may stay longer than its default, but not longer than that of
        the slowest clock takes: slots that other servers bring late (Departure 25) seem to take longer there, by as
        much as the clocks differ, and the timer follows the time of slots (Departure 48).
        """
        leader = self.cluster.leader()
        if leader is None:
            return "no server leads"
        view = self._installed(leader)
        for server_id in self.cluster.ids:
            data = self.cluster.replica(server_id).data
            if data.views.last_installed != view or data.server.state is State.LEADER_ELECTION:
                return f"server {server_id} does not follow server {leader} in view {view}"
        for server_id in self.cluster.ids:
            timer = self.cluster.replica(server_id).progress_timer.seconds
            if self.times.counted_by(server_id, timer) > self.times.progress:
                return f"the Progress_Timer of server {server_id} stays at {timer:g} s"
            if wait := self._long_wait(server_id):
                return f"server {server_id} {wait}"
            if self.cluster.replica(server_id).demand.knows_of_unexecuted_update():
                return f"server {server_id} thinks that an update waits"
            if self.cluster.storage(server_id).seconds_left > ROUND_SECONDS:
                return f"server {server_id} has begun to write when its disk was slow"
        return ""

    def _long_wait(self, server_id: int) -> str:
        """A sentence about a server that waits longer for an answer than the default of this wait, or "" (Departure
        49).

        Measured times can make the waits longer. The bounds of the drills hold only for waits that are back at the
        default or below it.
        """
        replica, settings = self.cluster.replica(server_id), self.cluster.settings
        # A follower's slots may take longer, as ACCEPTs to it may be held back (Departure 25), and it repeats nothing.
        leads = replica.data.server.state is State.REG_LEADER
        if leads and replica.slot_time.seconds > settings.resend_seconds:
            return f"waits {replica.slot_time.seconds:g} s for a slot"
        if (wait := replica.reconciliation.round_trip.seconds) > settings.reconciliation_seconds:
            return f"waits {wait:g} s for slots that it asks for"
        wait = replica.update_timers.round_trip.seconds
        return f"waits {wait:g} s for a PROPOSAL" if wait > settings.update_seconds else ""

    def _unequal(self) -> str:
        """A sentence about servers that have slots to learn or updates to order, or "" if there are none.

        While there are such servers, no drill begins: the bounds of the drills do not allow for this work.
        """
        if len({self.cluster.aru(server_id) for server_id in self.cluster.ids}) > 1:
            return "some have executed more than others"
        busy = [i for i in self.cluster.ids if not self.cluster.process(i).server.local_clients.idle]
        return f"something is under way at servers {busy}" if busy else ""

    # ------------------------------------------------------------------ drills

    def idleness(self) -> None:
        """Departures 10 and 35: while no update is asked for, there is no election. The ordered
        time, which the leader puts into its proposals, has gone on meanwhile as the leader's clock has."""
        view, leader = self._view(), self.cluster.required_leader()
        before = self._order_the_time(leader)
        self.cluster.run(4 * self.times.progress)
        self._require_view(view, "nothing has happened")
        after = self._order_the_time(leader)
        self._require_view(view, "something was asked")
        rate = self.cluster.server_clock(leader).rate * 1000
        at_least, at_most = (after.asked - before.answered) * rate, (after.answered - before.asked) * rate
        passed = after.time_ms - before.time_ms
        if not at_least - ROUNDING_MS <= passed <= at_most + ROUNDING_MS:
            raise Violation(
                f"the leader counts {at_least:.0f} to {at_most:.0f} ms between two slots, and their times differ by "
                f"{passed} ms"
            )

    def lateness(self) -> None:
        """Departure 25: ACCEPTs that are held back leave so soon that no server has to ask others for the slot.

        Another slot may follow meanwhile, with an update that a server makes itself; the other servers may lack that.
        """
        view, request = self._view(), self._ask(self.cluster.required_leader())
        answered_at: list[int] = []

        def all_have_executed_that() -> bool:
            if request.is_answered and not answered_at:
                answered_at.append(self.cluster.aru(request.server_id))
            return bool(answered_at) and all(self.cluster.aru(i) >= answered_at[0] for i in self.cluster.ids)

        self._wait(
            all_have_executed_that,
            2 * ROUND_SECONDS + self.times.lazy,
            f"server {request.server_id} was asked, and all should have executed that",
        )
        self._require_view(view, "something was asked")

    def blackout(self) -> None:
        """Section 5.9 of the paper: a short loss of all messages leads to repetitions, not to an election."""
        view, times = self._view(), self.times
        request = self._ask(self._any_server())
        self.cluster.run(self.rng.uniform(0, 0.008))
        self._cut_everything()
        self.cluster.run(BLACKOUT_SECONDS)
        self.cluster.heal()
        # In the worst case the Update_Timer expires, twice if the server suspects its leader meanwhile (Figure 12 B);
        # the PROPOSAL is sent again at the second tick of the retransmission; and the server lacks an ACCEPT, so that
        # it learns the slot from others. The bound is twice the sum of these times, since another update may be under
        # way before this one, or the leader's queue may be full.
        answer = BLACKOUT_SECONDS + 2 * times.update + 2 * times.resend + times.catching_up + ROUND_SECONDS
        self._require_answer(request, 2 * answer, f"nothing arrived for {BLACKOUT_SECONDS} s")
        # The followers have heard an ALIVE before the blackout. There is no election if they hear a repeated message of
        # the leader after it before they suspect the leader. In a cluster of two both servers are needed, so the server
        # that was asked must not suspect the leader either, before its Update_Timer has sent the update again.
        repetition = BLACKOUT_SECONDS + 2 * max(times.resend, times.alive) + 2 * ROUND_SECONDS
        if len(self.cluster.ids) == 2:
            repetition += times.update
        if times.alive + repetition < times.earliest_suspicion:
            self.marks.counts["blackout that costs no election"] += 1
            self._require_view(view, f"nothing arrived for {BLACKOUT_SECONDS} s")

    def detour(self) -> None:
        """G8.3: an update of a server that cannot reach the leader gets to the leader by way of the other servers."""
        view, times = self._view(), self.times
        leader, follower = self.cluster.required_leader(), self._follower()
        self.cluster.cut(follower, leader, one_way=True)
        request = self._ask(follower)
        # The second expiry of the Update_Timer sends the update to all servers (Departure 17). If the follower suspects
        # its leader meanwhile, it learns the slot from others. The time is doubled because an operation of the
        # follower's own session may have to go the same way before. The bound is twice the result, as in `blackout`.
        answer = 2 * (2 * times.update + times.catching_up + 2 * ROUND_SECONDS)
        self._require_answer(request, 2 * answer, f"server {follower} does not reach its leader")
        self._require_view(view, f"server {follower} did not reach its leader")

    def absence(self) -> None:
        """Figure 4 A4: a server that was cut off, and votes for another view meanwhile, returns without an election."""
        view, away = self._view(), self._follower()
        self.cluster.isolate(away)
        self._ask(self.cluster.required_leader())
        self.cluster.run(2 * self.times.progress)
        self.cluster.heal()
        # The VIEW_CHANGE of the server that was away has time to arrive at the others, who must discard it.
        self.cluster.run(self.times.resend + ROUND_SECONDS)
        self._require_return(away, view)

    def restart(self) -> None:
        """Figure 14: a server that restarts returns to its view and does not disturb the others (G9)."""
        view, away = self._view(), self._follower()
        self.cluster.crash(away)
        self.cluster.run(self.rng.uniform(0, self.times.progress))
        self.cluster.restart(away)
        self._require_return(away, view)

    def failover(self) -> None:
        """G8: a leader that dies is replaced within the time of one Progress_Timer and one election."""
        view, times = self._view(), self.times
        self.cluster.crash(self.cluster.required_leader())
        # All servers suspect the leader; a lost VIEW_CHANGE or PREPARE may have to be repeated; and the new leader may
        # have to learn slots that others have executed.
        longest = times.progress + 2 * times.resend + times.catching_up + 5 * ROUND_SECONDS
        self._wait(lambda: self.cluster.has_leader() and self._view() > view, longest, "the leader is dead")

    # ------------------------------------------------------------------ requirements

    def _require_return(self, server_id: int, view: int) -> None:
        """Wait until a server that was away follows its leader again, and require that the view is still the same.

        Until then it learns the slots that it has missed, and the view from a PROPOSAL or VC_PROOF.
        """
        replica, request = self.cluster.replica(server_id), self._ask(self.cluster.required_leader())

        def is_back() -> bool:
            nonlocal request
            if request.is_answered:
                request = self._ask(request.server_id)
            return replica.data.server.state is not State.LEADER_ELECTION

        self._wait(is_back, 2 * self.times.catching_up + self.times.alive, f"server {server_id} is here again")
        self._require_view(view, f"server {server_id} was away")

    def _require_view(self, view: int, why: str) -> None:
        latest = max(self.cluster.checks.messages.leaders)
        if latest != view:
            raise Violation(
                f"view {view} worked, and now it is view {latest}, though only {why}\n{self.cluster.picture()}"
            )

    def _require_answer(self, request: DrillRequest, seconds: float, why: str) -> None:
        self._wait(lambda: request.is_answered, seconds, f"{why}: server {request.server_id} waits for an answer")

    def _wait(self, predicate: Callable[[], bool], seconds: float, why: str) -> None:
        until = self.cluster.now + seconds
        while not predicate():
            if self.cluster.now > until:
                raise Violation(f"in vain for {seconds:.2f} s, {why}\n{self.cluster.picture()}")
            self.cluster.run(LOOK_SECONDS)

    # ------------------------------------------------------------------ servers and requests

    def _any_server(self) -> int:
        return self.rng.choice(self.cluster.ids)

    def _follower(self) -> int:
        leader = self.cluster.required_leader()
        return self.rng.choice([i for i in self.cluster.ids if i != leader])

    def _view(self) -> int:
        return self._installed(self.cluster.required_leader())

    def _installed(self, server_id: int) -> int:
        return self.cluster.replica(server_id).data.views.last_installed

    def _ask(self, server_id: int) -> DrillRequest:
        request = DrillRequest(server_id, self.cluster.process(server_id).server.local_clients)
        request.ask()
        return request

    def _order_the_time(self, leader: int) -> _OrderedTime:
        """Have an update ordered at the leader. Returns the state machine's time after that, and when it was asked for
        and answered."""
        asked, request = self.cluster.now, self._ask(leader)
        self._require_answer(request, self.times.update, "nothing else happens")
        machine = self.cluster.process(leader).server.machine
        return _OrderedTime(asked, self.cluster.now, machine.time_ms)

    def _cut_everything(self) -> None:
        for a in self.cluster.ids:
            for b in self.cluster.ids:
                if a < b:
                    self.cluster.cut(a, b)
