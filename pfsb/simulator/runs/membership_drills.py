"""Liveness drills in which the membership changes while all is well (Departure 60), also while leaders hand over
(Departure 59)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field

from pfsb.applications.interfaces import Done, Result
from pfsb.server_facts import REMOVED
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.simulator.cluster.hand_overs import expiries
from pfsb.simulator.cluster.healing import heal_all, heal_some
from pfsb.simulator.cluster.stranding import all_follow
from pfsb.simulator.faults.membership_faults import address
from pfsb.simulator.runs.hand_over_drills import HandOverDrills

FIRST_ADDRESS: Final = 5_000
"""Number of the first address that a drill gives to a server: faults have given lower ones."""
PROMOTION_SECONDS: Final = 4.0
"""How long, in seconds of a server's clock, a server that learns may take to vote once it has caught up: looks of half
a second, of which three in a row must find it so, and the change itself."""


@define(eq=False)
class Change:
    """A change that a drill has asked a server for, and the answer."""

    text: str
    server_id: int
    address: object = None
    """The address that the change gives to a server; None: it gives none."""
    results: list[Result] = field(factory=list)


@define(eq=False)
class MembershipDrills(HandOverDrills):
    """Drills in which servers are added, removed and moved, instead of those of `LivenessDrills`. Raises
    `Violation`."""

    _addresses: int = FIRST_ADDRESS

    def possible_drills(self) -> list[Callable[[], None]]:
        if not self.times.is_steady:
            return []
        drills: list[Callable[[], None]] = [self.moving]
        if self._fresh is not None:
            drills += [self.addition, self.addition_and_crash, self.read_replica]
            drills += [self.replacement] * (len(self.cluster.ids) > 1)
        if len(self.cluster.ids) > 1:
            drills += [self.change_in_hand_over, self.change_in_hand_over]
        if len(self.cluster.ids) > 2:
            drills += [self.removal, self.removal_of_leader, self.change_and_retire, self.two_at_once]
        return drills

    def run_drills(self, drills: int) -> None:
        """Let the cluster settle, then run `drills` drills one after the other: each may leave another number of
        servers, so the next one is drawn when that is known."""
        self.cluster.network.lose_frames_under_way()
        self.settle()
        for _ in range(drills):
            possible = self.possible_drills()
            if not possible:
                return
            drill = self.rng.choice(possible)
            # A change is refused while servers have not told how far they are, as just after the change before.
            self.cluster.run(2 * self.times.alive)
            self.marks.counts[f"drill: {drill.__name__}"] += 1
            self.cluster.tracers.tell(None, "drill", kind=drill.__name__)
            drill()
            heal_all(self.cluster)
            self.settle()

    # ------------------------------------------------------------------ drills

    def moving(self) -> None:
        """A member gets another address: the change is in force at once, and no view ends but by its epoch."""
        before = expiries(self.cluster)
        self._require_done(self._move(self._any_server()), "nothing else happens")
        self._require_quiet(before, "a server was moved")

    def removal(self) -> None:
        """A follower is removed: it says so itself, and the others notice nothing."""
        gone = self._follower()
        self._remove(gone, self._asked_to_remove(gone))

    def removal_of_leader(self) -> None:
        """The leader is removed: the server that the change names leads at once, without an election."""
        gone = self.cluster.required_leader()
        self._remove(gone, self._asked_to_remove(gone))

    def _asked_to_remove(self, gone: int) -> int:
        """The server that is asked to remove server `gone`: any, but not that one itself if its clients do not wait
        until it can have heard that the others go on."""
        asked = self._any_server()
        patience = self.cluster.process(gone).server.config.limits.request_seconds
        if asked == gone and self.times.shortest(patience) < self._removed_hears:
            asked = self.rng.choice([i for i in self.cluster.ids if i != gone])
        return asked

    @property
    def _removed_hears(self) -> float:
        """Maximum time until a server that was removed has heard, by an ALIVE in answer to one of its own, that the
        others go on."""
        return 2 * self.times.alive + self.times.resend

    def _remove(self, gone: int, asked: int) -> None:
        before = expiries(self.cluster)
        requests = [self._ask(i) for i in self.cluster.ids if i != gone]
        self._require_done(self._change(asked, "remove", gone), f"server {gone} is removed")
        for request in requests:
            self._require_answer(request, self._patience, f"server {gone} was removed")
        facts = self.cluster.process(gone).server.facts
        told = self.times.catching_up + self.times.alive
        self._wait(lambda: facts.role == REMOVED, told, f"server {gone} was removed, and does not say so")
        self._require_quiet(before, f"server {gone} was removed")

    def addition(self) -> None:
        """A server that starts with an empty storage is added, learns, and votes."""
        fresh, before = self._begin_addition(), expiries(self.cluster)
        self._await_promotion(fresh)
        self._require_quiet(before, f"server {fresh} was added")

    def addition_and_crash(self) -> None:
        """A server that was added crashes while it learns, starts again, and votes."""
        fresh = self._begin_addition()
        self.cluster.run(self.rng.uniform(0, 1.5))
        if not self.cluster.is_voter(fresh):
            self.cluster.crash(fresh)
            self.cluster.run(self.rng.uniform(0, 1))
            self.cluster.restart(fresh)
        self._await_promotion(fresh)

    def read_replica(self) -> None:
        """A server that never votes is added, executes what the others order, and is removed again, also while another
        server is away that votes."""
        before = expiries(self.cluster)
        fresh = self._begin_addition(permanent=True)
        request = self._ask(self._any_voter())
        self._require_answer(request, self._patience, f"server {fresh} was added, and never votes")
        reached = max(self.cluster.aru(i) for i in self.cluster.ids)
        told = 2 * self.times.catching_up + self.times.alive
        self._wait(lambda: self.cluster.aru(fresh) >= reached, told, f"server {fresh} was added, and falls behind")
        self.cluster.run(self.rng.choice((0.0, self.times.longest(PROMOTION_SECONDS))))
        require(not self.cluster.is_voter(fresh), f"server {fresh} was added as one that never votes, and votes")
        asked = self._any_voter()
        others = [i for i in before if i not in (asked, self.cluster.required_leader())]
        if len(before) > 2 and self.rng.random() < 0.5:
            away = self.rng.choice(others)
            del before[away]
            self.cluster.pause(away)
            self.cluster.run(self.rng.choice((0.0, 1.0)))
        gone = self._change(asked, "remove", fresh)
        self._require_done(gone, f"server {fresh} is removed, which never votes")
        heal_all(self.cluster)
        self._require_quiet(before, f"server {fresh}, which never votes, was added and removed")

    def replacement(self) -> None:
        """A new server takes the place of another one by one command, whether that one runs on or is down."""
        former, before = self._any_server(), expiries(self.cluster)
        is_down = len(self.cluster.ids) > 2 and former != self.cluster.required_leader() and self.rng.random() < 0.5
        if is_down:
            self.cluster.crash(former)
        heir = self._begin_addition(instead_of=former)
        self._await_promotion(heir)
        longest = self.times.longest(PROMOTION_SECONDS) + 10 * self.times.alive
        why = f"server {heir} votes, and server {former}, which it replaces, is not removed"
        self._wait(lambda: former in self.cluster.checks.electorate.latest.retired, longest, why)
        self._require_quiet(before, f"server {heir} has taken the place of server {former}")

    def two_at_once(self) -> None:
        """Two servers are asked for changes at the same moment: one of them is made, or both one after the other."""
        epoch, before = self._epoch(), expiries(self.cluster)
        first, second = self.rng.sample(self.cluster.ids, 2)
        changes = [self._move(i, at=i) for i in (first, second)]
        for change in changes:
            self._wait(lambda: bool(change.results), self._patience, f"{change.text} waits")  # noqa: B023
        done = sum(isinstance(change.results[0], Done) for change in changes)
        require(done > 0, f"two changes were asked for, and none is made: {changes}")
        require(self._epoch() == epoch + done, f"{done} changes are done, and epoch {epoch} is {self._epoch()} now")
        addresses = self.cluster.checks.electorate.latest.addresses
        for change in changes:
            is_undone = isinstance(change.results[0], Done) and change.address not in addresses.values()
            require(not is_undone, f"{change.text} is done, and the next change, asked for meanwhile, has undone it")
        self._require_quiet(before, "two servers were asked for changes")

    def change_in_hand_over(self) -> None:
        """The leader hands over while a change is asked for, under load: both are over soon."""
        leader, target = self.cluster.required_leader(), self._follower()
        others = [i for i in self.cluster.ids if i != target]
        gone = self.rng.choice(others) if len(self.cluster.ids) > 2 and self.rng.random() < 0.5 else None
        ends, change = list[list[str | None]](), list[Change]()
        steps: list[Callable[[], None]] = [
            lambda: ends.append(self._begin_if_possible(leader, target)),
            lambda: change.append(
                self._move(self._any_server()) if gone is None else self._change(self._any_server(), "remove", gone)
            ),
        ]
        requests = [self._ask(i) for i in self.cluster.ids if i != gone]
        for step in self.rng.sample(steps, 2):
            step()
            self.cluster.run(self.rng.choice((0.0, 0.001, 0.002, 0.003, 0.005, 0.01)))
        why = f"server {leader} hands over to server {target}, and a change is asked for"
        self._require_decided(change[0], why)
        self._wait(lambda: bool(ends[0]), 2 * self._patience, f"{why}: the hand-over does not end")
        for request in requests:
            self._require_answer(request, 2 * self._patience, why)
        self._wait(lambda: self.cluster.has_leader() and all_follow(self.cluster), self._patience, why)

    def change_and_retire(self) -> None:
        """The leader is asked to stop while a change is asked for at another server."""
        leader = self.cluster.required_leader()
        others = [i for i in self.cluster.ids if i != leader]
        at = self.rng.choice(others)
        steps: list[Callable[[], object]] = [lambda: self.cluster.retire(leader)]
        changes = list[Change]()
        steps.append(lambda: changes.append(self._move(self.rng.choice(others), at=at)))
        for step in self.rng.sample(steps, 2):
            step()
            self.cluster.run(self.rng.choice((0.0, 0.001, 0.003, 0.01)))
        why = f"server {leader} is asked to stop, and a change is asked for"
        self._require_decided(changes[0], why)
        longest = self._patience + self.times.alive + self.times.longest(1.0)
        self._wait(lambda: not self.cluster.is_running(leader), longest, why)
        self.cluster.restart(leader)

    # ------------------------------------------------------------------ changes

    @property
    def _fresh(self) -> int | None:
        """A server that was never started; None: there is none left."""
        return next((i for i in self.cluster.machines if not self.cluster.servers[i].incarnations), None)

    def _epoch(self) -> int:
        return self.cluster.checks.electorate.latest.epoch

    def _change(self, at: int, verb: str, about: int, *words: object, **how: bool) -> Change:
        change = Change(f"SERVERS {verb.upper()} {about} at server {at}", at, words[-1] if words else None)
        getattr(self.cluster.process(at).server.changes, verb)(about, *words, change.results.append, **how)
        return change

    def _any_voter(self) -> int:
        return self.rng.choice([i for i in self.cluster.ids if self.cluster.is_voter(i)])

    def _begin_if_possible(self, leader: int, target: int) -> list[str | None]:
        """Let the leader hand over, as `_begin` does, unless a change has ended its view already."""
        if self.cluster.replica(leader).hand_over.why_not(target) is None:
            return self._begin(leader, target)
        return ["the leader cannot hand over any more"]

    def _move(self, server_id: int, at: int | None = None) -> Change:
        self._addresses += 1
        return self._change(self._any_server() if at is None else at, "move", server_id, address(self._addresses))

    def _begin_addition(self, *, permanent: bool = False, instead_of: int | None = None) -> int:
        """Start a server and add it: as one that never votes, or `instead_of` another one, which it is to replace."""
        fresh = self._fresh
        assert fresh is not None, "the drill is possible"
        heal_some(self.cluster, [fresh])  # this starts it, with a disk as quick as those of the others
        self.cluster.run(self.rng.choice((0.0, 0.01, 0.5)))
        self._addresses += 1
        where, at = (
            address(self._addresses),
            self.rng.choice([i for i in self.cluster.running_ids if self._is_there(i)]),
        )
        if instead_of is not None:
            change = self._change(at, "replace", instead_of, fresh, where)
        else:
            change = self._change(at, "add", fresh, where, **({"permanent": True} if permanent else {}))
        self._require_done(change, f"server {fresh} is added")
        return fresh

    def _is_there(self, server_id: int) -> bool:
        return server_id in self.cluster.ids and self.cluster.is_running(server_id)

    def _await_promotion(self, fresh: int) -> None:
        longest = self.times.longest(PROMOTION_SECONDS) + 3 * self.times.catching_up + 10 * self.times.alive
        self._wait(lambda: self.cluster.is_voter(fresh), longest, f"server {fresh} learns, and does not come to vote")

    # ------------------------------------------------------------------ requirements

    @property
    def _patience(self) -> float:
        """Maximum time of a hand-over or a change."""
        return self._longest + (2 * self.times.update if self._has_short_queues else 0.0)

    @property
    def _has_short_queues(self) -> bool:
        """Whether the leader's queue has no room for an update of each server. One that is dropped there waits for its
        Update_Timer, and the Progress_Timer of its server may be shorter."""
        return self.cluster.settings.queue_updates_max < len(self.cluster.machines)

    def _require_done(self, change: Change, why: str) -> None:
        """Require that a change is made in time, and is in force: a majority has begun its epoch on disk."""
        self._require_decided(change, why)
        (result,) = change.results
        if not isinstance(result, Done):
            raise Violation(
                f"{change.text} is refused, though {why}, and all is well: {result}\n{self.cluster.picture()}"
            )
        electorate = self.cluster.checks.electorate
        members = electorate.of(int(dict(result.fields)["epoch"]))
        begun = [i for i in members.voters if electorate.epoch_on_disk(i) >= members.epoch]
        if change.server_id in members.voters and len(begun) < members.quorum:
            raise Violation(f"{change.text} is answered, and only servers {begun} are in the new epoch")

    def _require_decided(self, change: Change, why: str) -> None:
        """Require that a change is answered in time. A server that it removes hears by an ALIVE, in answer to one of
        its own, that the others go on."""
        longest = self._patience
        if not self.cluster.is_voter(change.server_id) or f"REMOVE {change.server_id} " in change.text:
            longest += self._removed_hears
        self._wait(lambda: bool(change.results), longest, f"{why}: {change.text} waits for an answer")

    def _require_quiet(self, before: dict[int, int], why: str) -> None:
        """Require that all follow one leader soon, and that no Progress_Timer has expired, unless queues are
        short."""
        self._wait(lambda: self.cluster.has_leader() and all_follow(self.cluster), self._patience, why)
        if self._has_short_queues:
            return
        now = expiries(self.cluster)
        both = before.keys() & now.keys()
        self._require_same({i: now[i] for i in both}, {i: before[i] for i in both}, why)

    def _require_same(self, now: dict[int, int], before: dict[int, int], why: str) -> None:
        if now != before:
            raise Violation(f"{why}: Progress_Timers have expired, {before} and now {now}\n{self.cluster.picture()}")
