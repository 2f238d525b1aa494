"""Liveness drills with servers in a later view than the leader's (Departure 50), for profiles that have them."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from pfsb.paxos.messages import Alive
from pfsb.paxos.view_raise import PATIENCE
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.stranding import all_follow, strand, tell_view
from pfsb.simulator.runs.liveness_drills import ROUND_SECONDS, LivenessDrills


@define(eq=False)
class ViewDrills(LivenessDrills):
    """Two drills instead of those of `LivenessDrills`. Raises `Violation`."""

    def possible_drills(self) -> list[Callable[[], None]]:
        if not self.times.is_steady or len(self.cluster.ids) < 3:
            return []
        return [self.later_view, self.later_view, self.untrue_views, self.later_view]

    # ------------------------------------------------------------------ drills

    def later_view(self) -> None:
        """Departure 50: make a minority of the servers install a later view, which no server leads. Require that soon
        all servers follow the present leader again, in a view above that one."""
        leader, times = self.cluster.required_leader(), self.times
        followers = [i for i in self.cluster.ids if i != leader]
        away = self.rng.sample(followers, self.rng.randint(1, (len(self.cluster.ids) - 1) // 2))
        strand(self.cluster, away, self._view() + self.rng.choice((1, 2, 7, 100, 1_000)))
        # The leader waits, raises its view, and is elected, which may cost a repetition of VIEW_CHANGE and PREPARE. Its
        # first ALIVE hurries the servers that follow, and a VC_PROOF brings them into its view.
        wait = times.longest(self.cluster.replica(leader).view_raise.wait)
        longest = wait + 4 * times.alive + 4 * times.resend + times.progress + 5 * ROUND_SECONDS
        self._wait(lambda: all_follow(self.cluster), longest, f"a minority is in a later view: {away}")
        self._require_leader(leader, "a minority was in a later view")

    def untrue_views(self) -> None:
        """Departure 50: require that a follower in error, which tells later views without end, causes few elections,
        and that after these the server leads that led before."""
        cluster, leader = self.cluster, self.cluster.required_leader()
        wrong, ahead = self._follower(), self.rng.choice((1, 7, 2**19))
        longest_wait = PATIENCE * self.times.progress * 2**cluster.settings.progress_doublings_max
        is_true = cluster.network.drop(lambda passage: isinstance(passage.message, Alive) and passage.sender == wrong)
        elections, until = -len(cluster.checks.messages.leaders), cluster.now + 3 * longest_wait
        while cluster.now < until:
            tell_view(cluster, wrong, ahead)
            cluster.run(self.times.shortest(cluster.settings.alive_seconds) / 4)
        cluster.network.filters.remove(is_true)
        self._wait(cluster.has_leader, 10 * self.times.progress, f"server {wrong} has told later views")
        elections += len(cluster.checks.messages.leaders)
        # Three raises in the first longest wait, one in each further one, and one at the very end of the time.
        if elections > 6:
            raise Violation(f"server {wrong} told untrue views for some time: {elections} elections, a few are enough")
        self._require_leader(leader, f"server {wrong} told untrue views")

    def _require_leader(self, leader: int, why: str) -> None:
        if self.cluster.leader() != leader:
            raise Violation(f"{why}: server {leader} led, and now {self.cluster.leader()}\n{self.cluster.picture()}")
