"""Liveness drills with leaders that hand over (Departure 59), for profiles that have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define

from pfsb.paxos.hand_over import LOOK_SECONDS
from pfsb.paxos.messages import HandOver, HandOverReason
from pfsb.server import DRAIN_LOOK_SECONDS
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.hand_overs import attempts, expiries, repeat
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.cluster.stranding import all_follow
from pfsb.simulator.runs.liveness_drills import ROUND_SECONDS, LivenessDrills

ROUNDS: Final = 4
"""Maximum number of times `ROUND_SECONDS` that a hand-over takes: CONFIRM and its answer, the slot that is under way,
HAND_OVER, votes, PREPARE and promises, with the disk writes between them."""


@define(eq=False)
class HandOverDrills(LivenessDrills):
    """Drills in which leaders hand over, instead of those of `LivenessDrills`. Raises `Violation`."""

    def possible_drills(self) -> list[Callable[[], None]]:
        if not self.times.is_steady or len(self.cluster.ids) < 2:
            return []
        if self._preferred is not None:
            return [self.preference]
        drills = [self.hand_over, self.hand_over]
        if len(self.cluster.ids) > 2:
            drills += [self.retirement, self.retirement, self.rolling_restart, self.silent_target, self.late_copies]
        return drills

    def run_drills(self, drills: int) -> None:
        """Run the drills as `LivenessDrills` does. Where servers are preferred, no view is settled before the first of
        them leads, so the drill `preference` waits for that itself."""
        if self._preferred is None or not self.possible_drills():
            super().run_drills(drills)
            return
        self.cluster.network.lose_frames_under_way()
        self.marks.counts["drill: preference"] += 1
        self.cluster.tracers.tell(None, "drill", kind="preference")
        self.preference()
        heal_all(self.cluster)
        self.settle()

    # ------------------------------------------------------------------ drills

    def hand_over(self) -> None:
        """Let the leader hand over to a follower, while all servers are asked for updates."""
        leader, target, before = self.cluster.required_leader(), self._follower(), expiries(self.cluster)
        requests = [self._ask(server_id) for server_id in self.cluster.ids]
        self.cluster.run(self.rng.choice((0.0, 0.001, 0.003)))
        ends = self._begin(leader, target)
        late = [self._ask(server_id) for server_id in self.cluster.ids]
        why = f"server {leader} hands over to server {target}"
        self._wait(lambda: ends == [None], self._longest, f"{why}: {ends}")
        for request in requests + late:
            self._require_answer(request, self._longest, why)
        self._wait(lambda: all_follow(self.cluster), self._longest, why)
        self._require_leads(target, why)
        self._require_no_expiry(before, why)

    def retirement(self) -> None:
        """Let the leader stop, and start again: another server leads before it has stopped."""
        leader, before = self.cluster.required_leader(), expiries(self.cluster)
        others = [i for i in self.cluster.ids if i != leader]
        requests = [self._ask(server_id) for server_id in others]
        self._retire(leader)
        requests += [self._ask(server_id) for server_id in others]
        for request in requests:
            self._require_answer(request, self._longest, f"server {leader}, which leads, was asked to stop")
        self._restart(leader, before)

    def rolling_restart(self) -> None:
        """Stop and start all servers one after the other, the leader last."""
        leader, before = self.cluster.required_leader(), expiries(self.cluster)
        for server_id in [*(i for i in self.cluster.ids if i != leader), leader]:
            self._retire(server_id)
            self._restart(server_id, before)

    def silent_target(self) -> None:
        """A target that stands still does not answer: the leader leads on, and its clients notice nothing."""
        leader, target, view = self.cluster.required_leader(), self._follower(), self._view()
        self._await_fit(leader, target)
        self.cluster.pause(target)
        ends = self._begin(leader, target)
        request = self._ask(leader)
        self._require_answer(request, self._longest, f"server {leader} asks whether it may hand over")
        self._wait(lambda: bool(ends), 2 * self.times.longest(0.2) + ROUND_SECONDS, "a target stands still")
        self.cluster.resume(target)
        self._require_view(view, f"server {target} was to be handed over to, and stood still")

    def late_copies(self) -> None:
        """Copies of a HAND_OVER of a former leader arrive again and again, and have no effect."""
        self.hand_over()
        self.settle()
        view, before = self._view(), attempts(self.cluster)
        members = self.cluster.replica(self.cluster.ids[0]).membership
        former, next_view = max(self.cluster.checks.messages.handed_over.items())
        sender = members.leader_of(former)
        message = HandOver(sender, former, next_view, HandOverReason.ASKED)
        repeat(self.cluster, message)
        why = f"server {sender}, a former leader, repeats its HAND_OVER"
        self._require_view(view, why)
        if attempts(self.cluster) != before:
            raise Violation(f"{why}: servers attempt views\n{self.cluster.picture()}")

    def preference(self) -> None:
        """The first server of `priority` that is there comes to lead, and leads on while nothing happens.

        A server that leads because of LEAD is stopped before: the preference rests as long as it leads.
        """
        first = self._preferred
        assert first is not None, "the drill is possible"
        self._wait(self.cluster.has_leader, 60.0, "all is well")
        leader = self.cluster.required_leader()
        if leader != first and self.cluster.replica(leader).hand_over.rests:
            self.marks.counts["preference had rested"] += 1
            self.cluster.retire(leader)
            self._wait(lambda: not self.cluster.is_running(leader), 2.0, f"server {leader} was asked to stop")
            self.cluster.restart(leader)
        handlers = [self.cluster.replica(i).hand_over for i in self.cluster.ids]
        present = [i for i in self.cluster.settings.priority if i in self.cluster.ids]
        waits = sum(handler.wait_for(i) for handler in handlers for i in present)
        longest = self.times.longest(2 * waits)
        self._wait(lambda: self.cluster.leader() == first, longest + 60.0, f"server {first} is the preferred server")
        self._wait(lambda: all_follow(self.cluster), 60.0, f"server {first} is the preferred server")
        view = self._view()
        self.cluster.run(8 * self.times.progress)
        self._require_view(view, f"the preferred server {first} leads")

    @property
    def _preferred(self) -> int | None:
        """The first server of `priority` that is there; None: servers prefer none."""
        return next((i for i in self.cluster.settings.priority if i in self.cluster.ids), None)

    # ------------------------------------------------------------------ requirements

    @property
    def _longest(self) -> float:
        """How long a hand-over may take at most, from the request until an update that waits meanwhile is answered.

        It waits for a message that was under way when it began, and is then repeated once if the view has changed.
        """
        return ROUNDS * ROUND_SECONDS + self.times.longest(5 * LOOK_SECONDS) + 2 * self.times.lazy + self.times.resend

    def _begin(self, leader: int, target: int) -> list[str | None]:
        replica, ends = self.cluster.replica(leader), list[str | None]()
        self._await_fit(leader, target)
        replica.perform(replica.hand_over.begin, target, HandOverReason.ASKED, ends.append)
        return ends

    def _await_fit(self, leader: int, target: int) -> None:
        """Wait until the leader can hand over to a server: until that one has told that it follows."""
        hand_over, told = self.cluster.replica(leader).hand_over, 2 * self.times.alive + ROUND_SECONDS
        self._wait(lambda: hand_over.why_not(target) is None, told, f"server {leader} hands over to no server")

    def _retire(self, server_id: int) -> None:
        self.cluster.retire(server_id)
        # A leader that has just begun to lead waits for an ALIVE of a follower.
        longest = self._longest + self.times.alive + self.times.longest(3 * DRAIN_LOOK_SECONDS)
        self._wait(lambda: not self.cluster.is_running(server_id), longest, f"server {server_id} was asked to stop")

    def _restart(self, server_id: int, before: dict[int, int]) -> None:
        """Start a server that was stopped, and wait until all follow one leader; no Progress_Timer has expired."""
        self.cluster.restart(server_id)
        self._wait(
            lambda: self.cluster.has_leader() and all_follow(self.cluster),
            2 * self.times.catching_up + 3 * self.times.alive,
            f"server {server_id} was asked to stop, and is here again",
        )
        before[server_id] = 0
        self._require_no_expiry(before, f"server {server_id} was asked to stop, and started again")
        self.settle()

    def _require_no_expiry(self, before: dict[int, int], why: str) -> None:
        if (now := expiries(self.cluster)) != before:
            raise Violation(f"{why}: Progress_Timers have expired, {before} and now {now}\n{self.cluster.picture()}")

    def _require_leads(self, server_id: int, why: str) -> None:
        if self.cluster.leader() != server_id:
            raise Violation(f"{why}, and server {self.cluster.leader()} leads\n{self.cluster.picture()}")
