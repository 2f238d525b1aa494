"""Liveness drills with servers that stay out of the leader's view, for profiles that have them.

The servers are in a later view than the leader's (Departure 50), or suspect a leader that is idle (Departure 51).
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from pfsb.paxos.messages import Alive
from pfsb.paxos.view_raise import PATIENCE
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.cluster.stranding import all_follow, strand, tell_view
from pfsb.simulator.runs.liveness_drills import ROUND_SECONDS, LivenessDrills


@define(eq=False)
class ViewDrills(LivenessDrills):
    """Two drills instead of those of `LivenessDrills`, and one that follows them at the end. Raises `Violation`."""

    def possible_drills(self) -> list[Callable[[], None]]:
        if not self.times.is_steady or len(self.cluster.ids) < 3:
            return []
        return [self.later_view, self.later_view, self.untrue_views, self.later_view]

    def run_drills(self, drills: int) -> None:
        """Let the cluster settle, and run `drills` of the drills that are possible in it, as `LivenessDrills` does;
        then run `stillness`, if any drill is possible.
        """
        super().run_drills(drills)
        if self.possible_drills():
            self.marks.counts["drill: stillness"] += 1
            self.cluster.tracers.tell(None, "drill", kind="stillness")
            self.stillness()
            heal_all(self.cluster)
            self.settle()

    # ------------------------------------------------------------------ drills

    def stillness(self) -> None:
        """Departure 51: followers of an idle leader that were cut off for some time come back, though nothing is
        asked."""
        view, times, followers = self._view(), self.times, self._followers()
        away = self.rng.sample(followers, self.rng.randint(1, (len(self.cluster.ids) - 1) // 2))
        self.cluster.isolate(*away)
        self.cluster.run(self.rng.uniform(1, 3) * times.progress)
        self.cluster.heal()
        # A server may have an update of its own under way, which reaches the leader by way of the others at the second
        # expiry of the Update_Timer, and may have to learn slots. Then two ALIVEs of each server of a majority come,
        # and one of the leader after those.
        longest = 2 * (2 * times.update + times.catching_up) + 3 * times.alive + 5 * ROUND_SECONDS
        self._wait(lambda: all_follow(self.cluster), longest, f"servers {away} were cut off, and nothing is asked")
        self._require_view(view, f"servers {away} were cut off")

    def later_view(self) -> None:
        """Departure 50: make a minority of the servers install a later view, which no server leads. Require that soon
        all servers follow the present leader again, in a view above that one."""
        leader, times, followers = self.cluster.required_leader(), self.times, self._followers()
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
        # If the server were cut off before it tells its true view, the leader might raise its view in the next drill.
        cluster.run(2 * self.times.alive + ROUND_SECONDS)
        self._wait(cluster.has_leader, 10 * self.times.progress, f"server {wrong} has told later views")
        elections += len(cluster.checks.messages.leaders)
        # Three raises in the first longest wait, one in each further one, and one at the very end of the time.
        if elections > 6:
            raise Violation(f"server {wrong} told untrue views for some time: {elections} elections, a few are enough")
        self._require_leader(leader, f"server {wrong} told untrue views")

    def _followers(self) -> list[int]:
        leader = self.cluster.required_leader()
        return [i for i in self.cluster.ids if i != leader]

    def _require_leader(self, leader: int, why: str) -> None:
        if self.cluster.leader() != leader:
            raise Violation(f"{why}: server {leader} led, and now {self.cluster.leader()}\n{self.cluster.picture()}")
