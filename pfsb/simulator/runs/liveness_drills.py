"""The end of a run: all links are good, all servers run, and so it can be said how long everything may take.

While things go wrong at random, a server that is slow, or that leaves a view which works, is always excused. Here one
thing goes wrong at a time, for a known while, and the timers in `Settings` give the bounds: a *drill*. All drills are
about promise 3 and about repetition (section 5.9), which hides behind elections otherwise: what was lost comes again,
only later.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field

from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.paxos.messages import State
from pfsb.paxos.reconciliation import LAZY_VOTES_PATIENCE
from pfsb.sessions.local_clients import LocalClients
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.cluster.marks import Marks

ROUND_SECONDS: Final = 0.02
"""Some messages and disk writes one after the other: with links at 1 ms and disks at 2 ms, an update takes a third."""
BLACKOUT_SECONDS: Final = 0.03
SETTLING_SECONDS: Final = 60.0
"""How long all may take to follow one leader: some elections with the longest timeout."""
LOOK_SECONDS: Final = 0.01
HASTE_SECONDS: Final = 1.0
"""For so long all is asked and looked at that often; then ten times less often, since little will change."""


@define
class Times:
    """The timers of a cluster in the seconds of the world, though its clocks run fast and slow."""

    cluster: SimulatedCluster

    @property
    def earliest_suspicion(self) -> float:
        """Nobody suspects a leader sooner after it was heard, if its timer has its default."""
        return self.cluster.settings.progress_seconds / max(self._rates())

    def longest(self, seconds: float) -> float:
        """How long so much takes where it takes longest."""
        return seconds / min(self._rates())

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
        """ALIVE tells of a Local_Aru on disk, which a heartbeat flushes; then it is asked for, twice if in vain.

        Before that, votes that wait for company get the time to come.
        """
        asking = self.longest(self.cluster.settings.reconciliation_seconds)
        return 2 * self.alive + LAZY_VOTES_PATIENCE * self.lazy + asking + ROUND_SECONDS

    @property
    def is_steady(self) -> bool:
        """An idle leader is heard before anybody suspects it. Clocks at too different rates do not have that."""
        return self.alive + ROUND_SECONDS < self.earliest_suspicion

    @property
    def are_alike(self) -> bool:
        """Whoever suspects the leader first still waits for the next one when the last one suspects it.

        Else the next leader may itself be the last, and takes no part before (Figure 4 A6): another election.
        """
        return self.progress + 2 * ROUND_SECONDS < 2 * self.earliest_suspicion

    def _rates(self) -> list[float]:
        lanes = [self.cluster.servers[i].running for i in self.cluster.ids]
        return [running.lane.rate for running in lanes if running is not None]


@define(eq=False)
class Question:
    """Something that one server is asked to order.

    It is the end of a session that does not exist: an operation of the server's own session, which needs no connection.
    """

    server_id: int
    _local_clients: LocalClients
    _result: Any = None

    def ask(self) -> None:
        self._local_clients.submission.submit_operation(("EXPIRE", "nobody", 0), self._told)

    @property
    def is_answered(self) -> bool:
        """It has run: whoever was told in between that this is unknown is told no more."""
        return isinstance(self._result, Done) or (isinstance(self._result, Refused) and self._local_clients.idle)

    def _told(self, result: Result) -> None:
        self._result = result


@define(eq=False)
class LivenessDrills:
    """Looks at a world that is quiet, and makes it so again after each drill. Raises `Violation`."""

    cluster: SimulatedCluster
    rng: random.Random
    marks: Marks
    times: Times = field(init=False)

    @times.default
    def _make_times(self) -> Times:
        return Times(self.cluster)

    def look(self, drills: int) -> None:
        """All settle; then so many drills of those that fit the cluster."""
        self.cluster.network.lose_what_is_under_way()
        self.settle()
        able = self._able()
        for drill in self.rng.sample(able, min(drills, len(able))):
            self.marks.counts[f"drill: {drill.__name__}"] += 1
            self.cluster.tracers.tell(None, "drill", kind=drill.__name__)
            drill()
            heal_all(self.cluster)
            self.settle()

    def _able(self) -> list[Callable[[], None]]:
        """Those whose conditions hold: servers that can be spared, and timers that leave time for a repetition."""
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

    # ------------------------------------------------------------------ all is well

    def settle(self) -> None:
        """Each follows the leader's installed view (G9), with its Progress_Timer at the default (G8).

        Something is asked all the time: who has suspected its leader goes back to it when it sees that it orders. The
        timer is back when a server has ordered something in its view by votes; it may learn one thing from others
        instead, but not everything. What somebody else's client wanted long ago may be thought to wait for a while.
        """
        began = self.cluster.now
        until = began + self.times.longest(SETTLING_SECONDS)
        question = self._ask(self._somebody())
        while (wrong := self._unsettled()) or not question.is_answered or (wrong := self._uneven()):
            if self.cluster.now > until:
                what = wrong or f"server {question.server_id} gets no answer"
                raise Violation(f"all is well, and {what}\n{self.cluster.picture()}")
            if self._bring_together() or (question.is_answered and not self._uneven()):
                question = self._ask(self._somebody())
            self.cluster.run(LOOK_SECONDS if self.cluster.now < began + HASTE_SECONDS else 10 * LOOK_SECONDS)

    def _bring_together(self) -> bool:
        """Some may have promised to follow a later view, that no majority came to: they wait for the next election.

        The paper wants it so: whoever is outside does not interrupt a view that works (Figure 4 A4 and B4). True: the
        leader was restarted for them, and whatever it was asked is gone.
        """
        leader = self.cluster.leader()
        if leader is None or not any(self._waits_beyond(self._installed(leader), i) for i in self.cluster.ids):
            return False
        self.marks.counts["some wait in a later view"] += 1
        self.cluster.crash(leader)
        self.cluster.restart(leader)
        return True

    def _waits_beyond(self, view: int, server_id: int) -> bool:
        data = self.cluster.replica(server_id).data
        return data.views.last_installed > view and data.server.state is State.LEADER_ELECTION

    def _unsettled(self) -> str:
        """What is not as it should be, or ""."""
        leader = self.cluster.leader()
        if leader is None:
            return "nobody leads"
        view = self._installed(leader)
        for server_id in self.cluster.ids:
            data = self.cluster.replica(server_id).data
            if data.views.last_installed != view or data.server.state is State.LEADER_ELECTION:
                return f"server {server_id} does not follow server {leader} in view {view}"
        for server_id in self.cluster.ids:
            timer = self.cluster.replica(server_id).data.timers.progress_seconds
            if timer != self.cluster.settings.progress_seconds:
                return f"the Progress_Timer of server {server_id} stays at {timer:g} s"
            if self.cluster.replica(server_id).flow_control.knows_of_unexecuted_update():
                return f"server {server_id} thinks that an update waits"
            if self.cluster.storage(server_id).seconds_left > ROUND_SECONDS:
                return f"server {server_id} has begun to write when its disk was slow"
        return ""

    def _uneven(self) -> str:
        """Who has still to learn something, or to order it, would be disturbed by a drill more than the others."""
        if len({self.cluster.aru(server_id) for server_id in self.cluster.ids}) > 1:
            return "some have executed more than others"
        busy = [i for i in self.cluster.ids if not self.cluster.process(i).server.local_clients.idle]
        return f"something is under way at servers {busy}" if busy else ""

    # ------------------------------------------------------------------ drills

    def idleness(self) -> None:
        """Departure 10: nothing is asked, and nobody is elected."""
        view = self._view()
        self.cluster.run(4 * self.times.progress)
        self._require_view(view, "nothing has happened")

    def lateness(self) -> None:
        """Departure 25: votes that nobody waits for come soon all the same, and nobody has to ask for the result."""
        view, question = self._view(), self._ask(self._leader())
        self._wait(
            lambda: question.is_answered and not self._uneven(),
            2 * ROUND_SECONDS + self.times.lazy,
            f"server {question.server_id} was asked, and all should have executed that",
        )
        self._require_view(view, "something was asked")

    def blackout(self) -> None:
        """Section 5.9: a short while in which nothing arrives costs a repetition, not an election."""
        view, times = self._view(), self.times
        question = self._ask(self._somebody())
        self.cluster.run(self.rng.uniform(0, 0.008))
        self._cut_everything()
        self.cluster.run(BLACKOUT_SECONDS)
        self.cluster.heal()
        # An Update_Timer expires, or two if its server suspects the leader meanwhile (Figure 12 B); a PROPOSAL is sent
        # again on the second tick; or who lacks a vote learns it from others. All of it twice: something else may
        # be under way, or the leader's queue be full.
        answer = BLACKOUT_SECONDS + 2 * times.update + 2 * times.resend + times.catching_up + ROUND_SECONDS
        self._require_answer(question, 2 * answer, f"nothing arrived for {BLACKOUT_SECONDS} s")
        # The others hear an ALIVE before, and need a repetition after it: that must come before they suspect. Of two
        # servers none can be spared, so that it matters what the one suspects that was asked.
        repetition = BLACKOUT_SECONDS + 2 * max(times.resend, times.alive) + 2 * ROUND_SECONDS
        if len(self.cluster.ids) == 2:
            repetition += times.update
        if times.alive + repetition < times.earliest_suspicion:
            self.marks.counts["blackout that costs no election"] += 1
            self._require_view(view, f"nothing arrived for {BLACKOUT_SECONDS} s")

    def detour(self) -> None:
        """G8.3: what is asked of a server that cannot reach the leader gets there by way of the others."""
        view, times = self._view(), self.times
        leader, follower = self._leader(), self._follower()
        self.cluster.cut(follower, leader, one_way=True)
        question = self._ask(follower)
        # The second expiry of its Update_Timer sends it to all (Departure 17). If it suspects its leader meanwhile, it
        # learns the result from others. An operation of the server itself may go the same way before. Twice, as above.
        answer = 2 * (2 * times.update + times.catching_up + 2 * ROUND_SECONDS)
        self._require_answer(question, 2 * answer, f"server {follower} does not reach its leader")
        self._require_view(view, f"server {follower} did not reach its leader")

    def absence(self) -> None:
        """Figure 4 A4: who was away, and votes for another view, comes back and does not disturb the others."""
        view, away = self._view(), self._follower()
        self.cluster.isolate(away)
        self._ask(self._leader())
        self.cluster.run(2 * self.times.progress)
        self.cluster.heal()
        self.cluster.run(self.times.resend + ROUND_SECONDS)  # so that its vote is heard
        self._require_return(away, view)

    def restart(self) -> None:
        """Figure 14: who starts again comes back to its view and does not disturb the others (G9)."""
        view, away = self._view(), self._follower()
        self.cluster.crash(away)
        self.cluster.run(self.rng.uniform(0, self.times.progress))
        self.cluster.restart(away)
        self._require_return(away, view)

    def failover(self) -> None:
        """G8: a leader that dies is replaced within its Progress_Timer, one election, and no more."""
        view, times = self._view(), self.times
        self.cluster.crash(self._leader())
        # All suspect; each has its vote repeated; the new leader may lack what others have ordered.
        longest = times.progress + 2 * times.resend + times.catching_up + 5 * ROUND_SECONDS
        self._wait(lambda: self.cluster.has_leader() and self._view() > view, longest, "the leader is dead")

    # ------------------------------------------------------------------ what must hold

    def _require_return(self, server_id: int, view: int) -> None:
        """It learns what it has missed, and of the view from the next proposal or VC_PROOF."""
        replica, question = self.cluster.replica(server_id), self._ask(self._leader())

        def is_back() -> bool:
            nonlocal question
            if question.is_answered:
                question = self._ask(question.server_id)
            return replica.data.server.state is not State.LEADER_ELECTION

        self._wait(is_back, 2 * self.times.catching_up + self.times.alive, f"server {server_id} is here again")
        self._require_view(view, f"server {server_id} was away")

    def _require_view(self, view: int, why: str) -> None:
        latest = max(self.cluster.checks.network.leaders)
        if latest != view:
            raise Violation(
                f"view {view} worked, and now it is view {latest}, though only {why}\n{self.cluster.picture()}"
            )

    def _require_answer(self, question: Question, seconds: float, why: str) -> None:
        self._wait(lambda: question.is_answered, seconds, f"{why}: server {question.server_id} waits for an answer")

    def _wait(self, predicate: Callable[[], bool], seconds: float, why: str) -> None:
        until = self.cluster.now + seconds
        while not predicate():
            if self.cluster.now > until:
                raise Violation(f"in vain for {seconds:.2f} s, {why}\n{self.cluster.picture()}")
            self.cluster.run(LOOK_SECONDS)

    # ------------------------------------------------------------------ who is who

    def _somebody(self) -> int:
        return self.rng.choice(self.cluster.ids)

    def _leader(self) -> int:
        leader = self.cluster.leader()
        if leader is None:
            raise Violation(f"nobody leads, though all was well\n{self.cluster.picture()}")
        return leader

    def _follower(self) -> int:
        leader = self._leader()
        return self.rng.choice([i for i in self.cluster.ids if i != leader])

    def _view(self) -> int:
        return self._installed(self._leader())

    def _installed(self, server_id: int) -> int:
        return self.cluster.replica(server_id).data.views.last_installed

    def _ask(self, server_id: int) -> Question:
        question = Question(server_id, self.cluster.process(server_id).server.local_clients)
        question.ask()
        return question

    def _cut_everything(self) -> None:
        for a in self.cluster.ids:
            for b in self.cluster.ids:
                if a < b:
                    self.cluster.cut(a, b)
