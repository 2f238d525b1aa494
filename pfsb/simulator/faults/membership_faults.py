"""Changes of the membership at random times, and faults around them (Departure 60): servers that are added, removed,
moved and replaced while others crash, also those that were removed and go on running, or come back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from attrs import define, frozen

from pfsb.applications.interfaces import Done, Result
from pfsb.paxos.records import EpochRecord
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.faults.hand_over_faults import LONGEST_SECONDS, HandOverFaults
from pfsb.simulator.faults.parameters import Parameters
from pfsb.simulator.faults.plan import LOOK_SECONDS, LOOKS_MAX, between

MEMBERS_MAX: Final = 7
"""Maximum number of members that changes bring the cluster to."""
TRIES: Final = 10
"""Maximum number of times that a change is asked for, at one server after the other, until one has made it."""
ANSWER_SECONDS: Final = 3.0
"""How long, in seconds, an operator waits for the answer to a change before asking another server."""
SHARE_OF_OUTSIDERS: Final = 0.1
"""Chance that a change is asked of any server that runs, and not of a member."""
STAGES: Final = ("asked", "writing", "begun", "begun", "alone")
"""Names of the moments at which a fault crashes servers in the middle of a change: soon after it was asked for; while a
server writes the epoch; when the first server has written it; and then all others at once."""


@frozen
class Step:
    """A change to ask for."""

    verb: str
    """The name of the method of `MembershipChanges`."""
    about: int
    """The server that is added, removed, moved or replaced."""
    heir: int | None = None
    """The server that takes the place of the one that is replaced."""
    is_permanent: bool = False
    """Whether the server that is added never votes."""

    @property
    def added(self) -> int | None:
        """The server that the change adds; None: it adds none."""
        return self.about if self.verb == "add" else self.heir

    @property
    def gone(self) -> int | None:
        """The server that is there no more when all is done; None: all stay."""
        return self.about if self.verb in ("remove", "replace") else None

    def __str__(self) -> str:
        words = [self.verb.upper(), str(self.about), *([] if self.heir is None else [str(self.heir)])]
        return " ".join(["SERVERS", *words, *["LEARNER"] * self.is_permanent])


@define(eq=False)
class Wish:
    """Changes that an operator wants, one after the other."""

    rng: random.Random
    steps: list[Step]
    tries: int = TRIES
    asked: int = 0
    """Number of times that a change was asked for."""
    server_id: int = -1
    """The server that was asked last."""


def address(number: int) -> str:
    """An address that no server has but the one that gets it as the `number`-th address of a run."""
    return f"10.9.{number // 250}.{number % 250 + 1}:7400"


class MembershipFaults(HandOverFaults):
    """Changes of the membership, and faults around them. The name of a method is the kind of the fault."""

    def __init__(self, cluster: SimulatedCluster, parameters: Parameters, marks: Marks) -> None:
        super().__init__(cluster, parameters, marks)
        self._spare = [*parameters.joiners]
        """Ids that were never used, in the order in which servers get them."""
        self._addresses = 0
        """Number of addresses that were given to servers."""
        self._known_as_retired: set[int] = set()
        self._is_wiped = False
        """Whether a removed server has come back with an empty disk in this run."""
        self._crashes_at_epoch: list[tuple[random.Random, str]] = []
        """For each fault that waits for the first server that writes an epoch: its dice and its stage."""
        self._epoch = 0
        self._asked_at = -ANSWER_SECONDS
        """Simulated time, in seconds, at which a change was asked for last."""
        if parameters.joiners:
            cluster.epoch_observers.append(self._epoch_on_disk)

    # ------------------------------------------------------------------ changes

    def add_server(self) -> None:
        """Start a server with an id that was never used, and add it."""
        self._wish_for(self._addition())

    def remove_server(self) -> None:
        """Remove a server, running or not."""
        self._wish_for(self._removal())

    def remove_leader(self) -> None:
        self._wish_for(self._removal(self._cluster.leader()))

    def replace_server(self) -> None:
        """Remove a server, and add another one as soon as that is done; or the other way round."""
        steps = [*self._removal(), *self._addition()]
        self._wish_for(steps if self._rng.random() < 0.7 else steps[::-1])

    def order_replacement(self) -> None:
        """Ask for one command by which a new server takes the place of a voter, running or not."""
        self._wish_for(self._replacement())

    def add_read_replica(self) -> None:
        """Start a server with an id that was never used, and add it as one that never votes."""
        self._wish_for(self._addition(is_permanent=True))

    def remove_read_replica(self) -> None:
        """Remove a server that never votes: that needs no majority without it."""
        permanent = self._cluster.checks.electorate.latest.permanent
        if permanent:
            self._wish_for([Step("remove", self._rng.choice(permanent))])

    def move_server(self) -> None:
        """Give a member another address. Its frames reach the others as before."""
        self._wish_for([Step("move", self._rng.choice(self._cluster.ids))])

    def two_changes(self) -> None:
        """Ask two servers for two changes at the same moment: one of them at most is made for the present epoch."""
        self._wish_for(self._removal(), tries=1)
        self._wish_for(self._addition() if self._rng.random() < 0.5 else self._removal(), tries=1)

    def add_again(self) -> None:
        """Try to add a server that was removed, with its old storage."""
        retired = self._cluster.checks.electorate.latest.retired
        if retired:
            self._wish_for([Step("add", self._rng.choice(retired))], tries=2)

    def change_in_hand_over(self) -> None:
        """Ask for a change, and let the leader hand over just before, meanwhile or soon after."""
        at = self._rng.uniform(-LONGEST_SECONDS, LONGEST_SECONDS)
        wish = self._any_change()
        self._later(max(0.0, at), self._wish, wish)
        self._later(max(0.0, -at), self.hand_over)

    def change_and_retire(self) -> None:
        """Ask for a change, and tell the leader to stop at about the same time."""
        at = self._rng.uniform(-LONGEST_SECONDS, LONGEST_SECONDS)
        wish = self._any_change()
        self._later(max(0.0, at), self._wish, wish)
        self._later(max(0.0, -at), self.retire_leader)

    def crash_in_change(self) -> None:
        """Ask for a change, and crash a server or some in the middle of it. They restart soon."""
        stage, rng = self._rng.choice(STAGES), random.Random(self._rng.random())
        wish = self._wish_for(self._any_change())
        if stage == "asked" and wish is not None:
            self._later(rng.uniform(0, LONGEST_SECONDS), self._crash_asked, wish)
        elif stage == "writing":
            self._crash_writer(LOOKS_MAX)
        else:
            self._crashes_at_epoch.append((rng, stage))

    def _any_change(self) -> list[Step]:
        kind = self._rng.random()
        if kind < 0.35:
            return self._addition(is_permanent=kind < 0.08)
        if kind < 0.5:
            return self._replacement()
        return self._removal(self._cluster.leader() if kind > 0.75 else None)

    def _addition(self, *, is_permanent: bool = False) -> list[Step]:
        if not self._spare or len(self._cluster.ids) >= MEMBERS_MAX:
            return []
        return [Step("add", self._spare.pop(0), is_permanent=is_permanent)]

    def _replacement(self) -> list[Step]:
        """The replacement of a voter by a new server; of one that has lost its disk, if there is one."""
        lost, voters = self._lost, self._cluster.checks.electorate.latest.voters
        former = self._rng.choice(lost or voters)
        if not self._spare or former not in voters:
            return []
        return [Step("replace", former, self._spare.pop(0))]

    @property
    def _lost(self) -> list[int]:
        """The members that have lost their disk or their snapshot, or execute something otherwise."""
        cluster = self._cluster
        lost = {*cluster.amnesiacs, *cluster.slipped, *cluster.dice, *cluster.checks.without_state}
        return [i for i in cluster.ids if i in lost or cluster.disk(i).lost_snapshot]

    def _removal(self, server_id: int | None = None) -> list[Step]:
        """The removal of this server, or of any if it is None. While a member has lost its disk or snapshot, or
        executes something otherwise, no other is removed: the rest might be no majority."""
        cluster, lost = self._cluster, self._lost
        voters = len(cluster.checks.electorate.latest.voters)
        if voters < (2 if self._rng.random() < 0.1 else 3) and not lost:
            return []
        if lost or server_id is None:
            server_id = self._rng.choice(lost or cluster.ids)
        return [Step("remove", server_id)]

    # ------------------------------------------------------------------ asking

    def _wish(self, steps: Sequence[Step]) -> None:
        self._wish_for(steps)

    def _wish_for(self, steps: Sequence[Step], *, tries: int = TRIES) -> Wish | None:
        if not steps:
            return None
        wish = Wish(random.Random(self._rng.random()), [*steps], tries)
        self._ask_for_change(wish)
        return wish

    def _ask_for_change(self, wish: Wish) -> None:
        """Ask a server for the next change of a wish."""
        cluster = self._cluster
        added = wish.steps[0].added
        if added is not None and not cluster.is_running(added):
            self._later(wish.rng.choice((0.0, 0.0, 0.3, 2.0)), self._restart, added)
        running = [i for i in cluster.running_ids if i not in cluster.amnesiacs]
        members = [i for i in running if i in cluster.ids]
        able = running if wish.rng.random() < SHARE_OF_OUTSIDERS else members
        wish.asked += 1
        wish.tries -= 1
        self._asked_at = cluster.now
        if able:
            wish.server_id = wish.rng.choice(able)
            clock = cluster.server_clock(wish.server_id)
            clock.callLater(wish.rng.uniform(0, 0.003), self._at_server, wish, wish.server_id, clock)
        self._later(ANSWER_SECONDS, self._ask_another, wish, wish.asked)

    def _at_server(self, wish: Wish, server_id: int, clock: ServerClock) -> None:
        """The request has come to the server. A paused server takes it when it is resumed."""
        if self._has_ceased or not wish.steps:
            return
        self._asked_at = self._cluster.now
        step, asked = wish.steps[0], wish.asked
        if step.gone is not None and self._lost and step.gone not in self._lost:
            return  # a paused server gets the request now, and a disk was lost meanwhile
        was_retired = step.added in self._known_as_retired
        words: list[object] = [step.about, *([] if step.heir is None else [step.heir])]
        if step.verb != "remove":
            words.append(address(self._addresses))
            self._addresses += 1
        how = {"permanent": True} if step.is_permanent else {}

        def answered(result: Result) -> None:
            if not clock.closed:
                self._cluster.findings.note(self._check_answer, step, result, was_retired)
                self._told_change(wish, asked, step, result)

        getattr(self._cluster.process(server_id).server.changes, step.verb)(*words, answered, **how)

    def _told_change(self, wish: Wish, asked: int, step: Step, result: Result) -> None:
        code = "done" if isinstance(result, Done) else f"{result.code} fate={result.fate}"
        self._marks.counts[f"SERVERS {step.verb.upper()}{' LEARNER' * step.is_permanent}: {code}"] += 1
        if asked != wish.asked:
            return  # another server was asked since
        if isinstance(result, Done):
            wish.steps.pop(0)
            wish.tries = TRIES
            wish.asked += 1
            if wish.steps:
                self._later(wish.rng.uniform(0, 0.5), self._ask_for_change, wish)
        else:
            self._later(wish.rng.uniform(0.05, 1), self._ask_another, wish, asked)

    def _ask_another(self, wish: Wish, asked: int) -> None:
        if asked == wish.asked and wish.steps and wish.tries:
            self._ask_for_change(wish)

    def _check_answer(self, step: Step, result: Result, was_retired: bool) -> None:
        """Check that a change which a server calls done was made, in the epoch that the answer names. `was_retired`
        says whether the server that it adds had been removed before the change was asked for."""
        if not isinstance(result, Done):
            return
        epoch = int(dict(result.fields)["epoch"])
        electorate = self._cluster.checks.electorate
        text = f"{step} is answered with epoch {epoch}"
        require(epoch <= electorate.latest.epoch, f"{text}, which no disk holds")
        members = electorate.of(epoch)
        begun = [i for i in members.voters if electorate.epoch_on_disk(i) >= members.epoch]
        require(len(begun) >= members.quorum, f"{text}, and is not in force: only servers {begun} have begun it")
        is_made = step.about in (members.retired if step.verb == "remove" else members.ids)
        require(is_made, f"{text}, and its servers are {members.ids}")
        require(not step.is_permanent or step.about in members.permanent, f"{text}, and the server may come to vote")
        heirs = (step.about, step.heir)
        require(step.heir is None or members.replacing == heirs, f"{text}, in which {members.replacing} is replaced")
        require(not was_retired, f"{text}, and the server was removed before")

    def _is_change_under_way(self) -> bool:
        """Whether a change may be under way: one was asked for just now or waits at a server, a server learns, or the
        latest epoch has not been begun by a majority of its voters and one more, which may be lost."""
        cluster, electorate = self._cluster, self._cluster.checks.electorate
        if not self._parameters.joiners:
            return False
        latest = electorate.latest
        begun = sum(electorate.epoch_on_disk(i) >= latest.epoch for i in latest.voters)
        return (
            cluster.now < self._asked_at + ANSWER_SECONDS
            or bool(latest.candidates)
            or latest.replacing is not None
            or begun <= latest.quorum
            or not all(cluster.process(i).server.local_clients.idle for i in cluster.running_ids)
        )

    # ------------------------------------------------------------------ crashes in the middle

    def _crash_asked(self, wish: Wish) -> None:
        if wish.server_id >= 0:
            self._marks.counts["crash in a change: asked"] += 1
            self._crash_if_up(wish.server_id)

    def _crash_writer(self, looks: int) -> None:
        """Wait until a server writes an epoch, and crash it before all of that is on disk."""
        for server_id in self._cluster.running_ids:
            groups = self._cluster.storage(server_id).pending()
            if any(isinstance(record, EpochRecord) for group in groups for record in group.records):
                self._marks.counts["crash in a change: writing"] += 1
                self._crash(server_id)
                return
        if looks:
            self._later(LOOK_SECONDS, self._crash_writer, looks - 1)

    def _epoch_on_disk(self, server_id: int) -> None:
        """A server has written an epoch: carry out the faults that wait for that, and decide what becomes of the
        servers that were removed."""
        members = self._cluster.checks.electorate.latest
        if members.epoch == self._epoch:
            return
        self._epoch = members.epoch
        self._marks.counts["epoch begun"] += 1
        for retired in sorted({*members.retired} - self._known_as_retired):
            self._known_as_retired.add(retired)
            self._become_of(retired)
        waiting, self._crashes_at_epoch = self._crashes_at_epoch, []
        for rng, stage in waiting:
            self._marks.counts[f"crash in a change: {stage}"] += 1
            if stage == "begun":
                self._later(rng.choice((0.0, rng.uniform(0, 0.01))), self._doom_or_crash, rng, server_id)
            else:
                for other in self._cluster.running_ids:
                    if other != server_id:
                        self._later(0.0, self._crash_if_up, other)

    def _doom_or_crash(self, rng: random.Random, server_id: int) -> None:
        if not self._cluster.is_running(server_id):
            return
        if rng.random() < 0.5:
            self._crash(server_id)
        else:
            self._cluster.doom(server_id, rng.randint(1, 6))
            self._later(1.0 + between(rng, 0.05, 4), self._restart, server_id)

    # ------------------------------------------------------------------ servers that were removed

    def _become_of(self, server_id: int) -> None:
        """Decide what becomes of a server that was removed: it goes on, stops, or comes back, with its old storage or
        with an empty one."""
        rng = random.Random(f"{self._cluster.seed}/retired/{server_id}")
        fate = rng.choice(("goes on", "goes on", "stops", "comes back", "comes back", "is wiped"))
        if fate == "goes on":
            return
        self._later(between(rng, 0.01, 2), self._end_removed, server_id, fate == "is wiped")
        if fate != "stops":
            self._later(between(rng, 2.5, 6), self._restart, server_id)

    def _end_removed(self, server_id: int, is_wiped: bool) -> None:
        """Stop a server that was removed, and wipe its disk if `is_wiped`: as an operator does, once the change is in
        force, since a majority has begun a later epoch."""
        cluster = self._cluster
        electorate = cluster.checks.electorate
        latest = electorate.latest
        if sum(electorate.epoch_on_disk(i) >= latest.epoch for i in latest.voters) < latest.quorum:
            self._later(0.2, self._end_removed, server_id, is_wiped)
            return
        if cluster.is_running(server_id):
            self._die(server_id)
        if is_wiped and not self._is_wiped and server_id not in cluster.amnesiacs:
            self._is_wiped = True
            self._marks.counts["removed server wiped"] += 1
            cluster.lose_disk(server_id)
