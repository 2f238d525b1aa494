"""One run, reproducible from its seed: random faults, then a healed majority, then a healed cluster, then drills.

Safety is checked after every event. When the faults are over, liveness is checked: a majority that is connected answers
every user, whatever the other servers do, and when all servers are healed, all of them execute the same slots.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import define, evolve, frozen
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.applications.interfaces import Result
from pfsb.paxos.divergence import StateDiverged
from pfsb.paxos.log_positions import StorageWentBack
from pfsb.paxos.snapshot import SnapshotName
from pfsb.paxos.storage_identity import StorageWasReplaced
from pfsb.server import Server
from pfsb.sessions.cluster_settings import RULES_OF_EPOCHS
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.healing import heal_all, heal_some
from pfsb.simulator.cluster.marks import Marks, Watcher
from pfsb.simulator.cluster.names import SimulatedNames
from pfsb.simulator.cluster.network import LinkQuality
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.faults.all_faults import AllFaults
from pfsb.simulator.faults.parameters import (
    Parameters,
    draw_parameters,
    families_left_out,
    with_added_members,
    with_batching,
    with_buffers,
    with_changing_settings,
    with_members,
    with_path_limits,
    with_priority,
    with_quotas,
    with_snapshots,
)
from pfsb.simulator.faults.plan import (
    CLOCKS_BEGIN_SECONDS,
    DAY_SECONDS,
    Fault,
    between,
    draw_changes,
    draw_faults,
    draw_snapshot_faults,
    draw_with_changes,
)
from pfsb.simulator.faults.profiles import ALL_FAMILIES, PROFILES
from pfsb.simulator.runs.dice_drills import DiceDrills
from pfsb.simulator.runs.disk_drills import DiskDrills
from pfsb.simulator.runs.fetch_checker import FetchChecker
from pfsb.simulator.runs.hand_over_drills import HandOverDrills
from pfsb.simulator.runs.idle_hour import IdleHour
from pfsb.simulator.runs.liveness_drills import LivenessDrills
from pfsb.simulator.runs.membership_drills import MembershipDrills
from pfsb.simulator.runs.pace_drills import PaceDrills
from pfsb.simulator.runs.population import PaperClientPopulation, Population, UserPopulation
from pfsb.simulator.runs.view_drills import ViewDrills

EQUALITY_SECONDS = 60.0
"""How long, in simulated seconds, all servers of a healed cluster may take to have executed the same slots."""
LOSSY = 0.2
"""Share of lost frames from which on a network counts as lossy."""
SHARE_OF_MEMBERSHIP_DRILLS = 0.5
"""Share of the seeds, if changes of the membership are added to a profile, whose drills are `MembershipDrills`; the
others have those of the profile."""
SHARE_OF_RENEWED_FILES = 0.5
"""Share of the founders that find servers which came later in their configuration file when they start again."""
BOUNDS_SECONDS = 0.5
"""How often, in simulated seconds, the sizes of the servers' tables in memory, and their timers, are checked."""


@frozen
class Plan:
    """The definition of a run. Values that are None are drawn from the seed."""

    seed: int
    profile: str = "mixed"
    servers: int | None = None
    seconds: float | None = None
    """How long faults happen, in simulated seconds."""
    without: frozenset[str] = frozenset()
    """Families of faults that are switched off."""
    faults: tuple[int, ...] | None = None
    """The faults that happen, by number: the faults that the seed draws are numbered from 0, in the order of their
    times. None: all of them happen."""
    users: int | None = None
    """Maximum number of users that take part; None: all users that the seed draws."""
    snapshots: bool = False
    """Whether servers take snapshots, and further faults are about these, though the profile has none. All else is
    drawn as without them. Where applications throw dice there are none all the same: a snapshot could keep a wrong
    state before a result has shown it."""
    members: bool = False
    """Whether servers are added, removed, moved and replaced, and leaders hand over, in a profile that has neither by
    itself. Other draws of the seed stay as they are without that; its faults go on for longer. In a profile that cannot
    change its members (`Profile.why_members_stay`) this has no effect."""

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["pfsb simulate", f"--seed {self.seed}"]
        if self.profile != "mixed":
            words.append(f"--profile {self.profile}")
        for name in ("servers", "seconds", "users"):
            value = getattr(self, name)
            if value is not None:
                words.append(f"--{name} {value}")
        if self.snapshots:
            words.append("--snapshots")
        if self.members:
            words.append("--members")
        if self.without:
            words.append(f"--without {','.join(sorted(self.without))}")
        if self.faults is not None:
            words.append(f"--faults {','.join(map(str, self.faults)) or 'none'}")
        return " ".join(words)


@define
class RunOutcome:
    """The result of a run."""

    plan: Plan
    digest: str
    events: int
    seconds: float
    """Length of the run, in simulated seconds."""
    marks: Counter[str]
    failure: str = ""
    """Text of the failure that has ended the run: phase, simulated time, and exception, which is a `Violation` if a
    promise was broken; "" if the run did not fail."""
    faults: tuple[Fault, ...] = ()
    users: int = 0
    picture: str = ""


class Run:
    """One run of a simulated cluster."""

    def __init__(
        self, plan: Plan, patch: Plant | None = None, trace: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.plan = plan
        rng = random.Random(f"{plan.seed}/{plan.profile}/knobs")
        self.profile = PROFILES[plan.profile]
        ids_rng = random.Random(f"{plan.seed}/{plan.profile}/ids")
        drawn = draw_parameters(rng, self.profile, plan.servers, plan.seconds, ids_rng)
        members_rng = random.Random(f"{plan.seed}/{plan.profile}/members")
        is_about_members = self.profile.has_changing_members
        if self.profile.has_changing_members:
            drawn = with_members(members_rng, _switched_off(drawn, families_left_out(members_rng, self.profile)))
        faults, families = draw_faults(rng, drawn), drawn.families
        drawn = with_batching(rng, self.profile, _switched_off(drawn, plan.without))
        drawn = with_quotas(rng, self.profile, drawn)
        drawn = with_changing_settings(self.profile, with_buffers(rng, self.profile, drawn))
        drawn = with_path_limits(random.Random(f"{plan.seed}/{plan.profile}/paths"), drawn)
        if self.profile.has_hand_overs:
            drawn = with_priority(random.Random(f"{plan.seed}/{plan.profile}/priority"), drawn)
        if (plan.snapshots and "dice" not in self.profile.families) or self.profile.has_snapshots:
            snapshots_rng = random.Random(f"{plan.seed}/{plan.profile}/snapshots")
            drawn = with_snapshots(snapshots_rng, drawn)
            faults += draw_snapshot_faults(snapshots_rng, drawn, len(faults))
        if self.profile.has_changing_members:
            faults += draw_changes(members_rng, drawn, len(faults))
        elif plan.members and self.profile.why_members_stay is None:
            until, drawn = drawn.seconds, with_added_members(members_rng, drawn)
            with_all = evolve(drawn, families=drawn.families | families)
            faults += draw_with_changes(members_rng, with_all, until, len(faults))
            drawn = _switched_off(drawn, plan.without)
            is_about_members = members_rng.random() < SHARE_OF_MEMBERSHIP_DRILLS and not drawn.settings.priority
        self._drills_are_about_members = is_about_members
        self.parameters = parameters = drawn
        self.faults = tuple(
            fault
            for fault in faults
            if fault.family not in plan.without and (plan.faults is None or fault.number in plan.faults)
        )
        self.marks = Marks()
        self._rng = random.Random(f"{plan.seed}/run")
        watcher = Watcher(self.marks)
        self.cluster = SimulatedCluster(
            plan.seed,
            parameters.machines,
            settings=parameters.settings,
            quality=parameters.quality,
            build=lambda parts: self.population.build(parts),
            patch=patch,
            trace=trace,
            tracer=watcher.tracer,
            start=False,
            names=self._make_names if "names" in parameters.families else None,
            kept_slots=parameters.kept_slots,
            founders=parameters.ids,
        )
        if parameters.joiners:
            files_rng = random.Random(f"{plan.seed}/{plan.profile}/files")
            self.cluster.renewed_files.update(i for i in parameters.ids if files_rng.random() < SHARE_OF_RENEWED_FILES)
        watcher.cluster = self.cluster
        self.cluster.network.observers.append(watcher.sent)
        self.cluster.network.set_limits(parameters.path_limits)
        self.cluster.network.refusals = parameters.refusals
        self.cluster.network.buffer = parameters.buffer
        self.cluster.network.lasting_faults.update(parameters.lasting)
        loses_disks = not parameters.families.isdisjoint(("lost_disks", "heirs", "old_copies", "copies", "members"))
        self.cluster.expected_failures = (OSError,)
        if loses_disks:
            self.cluster.expected_failures += (StorageWasReplaced, StorageWentBack)
        if "memory" in parameters.families:
            self.cluster.expected_failures += (MemoryError, RecursionError)
        if not parameters.families.isdisjoint(("slips", "dice")):
            self.cluster.expected_failures += (StateDiverged,)
        users = parameters.users if plan.users is None else min(plan.users, parameters.users)
        self.population = self._populate(users)
        self.injector = AllFaults(self.cluster, parameters, self.marks)
        """Makes the faults of this run happen."""
        self._fetches = FetchChecker(self.cluster)
        self._phase = "trouble"
        self._well: list[int] = []
        """The servers of the majority that is healed when the faults are over."""
        self._removals: list[list[Result]] = []
        """For each time that a server was asked, before the drills, to remove one that learns: a list with the answer,
        or an empty one until there is one."""

    def _make_names(self, clock: SimulatedClock, ids: Sequence[int]) -> SimulatedNames:
        rng = random.Random(f"{self.plan.seed}/names")
        return SimulatedNames(clock, rng, ids, rng.choice((None, None, b"a secret")))

    def _populate(self, users: int) -> Population:
        if self.profile.has_sessions:
            return UserPopulation(self.cluster, self.plan.seed, self.parameters, self.marks, users)
        return PaperClientPopulation(self.cluster, self.plan.seed, self.parameters, users)

    # ------------------------------------------------------------------ the run

    def run(self) -> RunOutcome:
        """Run all phases. A violation or another exception ends the run, and becomes the outcome's `failure`."""
        failure = ""
        observer = _ErrorsInLog(self.cluster)
        globalLogPublisher.addObserver(observer)
        try:
            self._go_through()
        except Exception as error:
            failure = f"{self._phase}, at {self.cluster.now:.3f} s: {type(error).__name__}: {error}"
        finally:
            globalLogPublisher.removeObserver(observer)
        self._count_what_is_left()
        clock = self.cluster.clock
        return RunOutcome(
            self.plan,
            self.cluster.network.digest,
            clock.events,
            clock.seconds(),
            self.marks.counts,
            failure,
            self.faults,
            self.population.size,
            self.cluster.picture() if failure else "",
        )

    def _go_through(self) -> None:
        self.begin()
        self.cluster.run(self.parameters.seconds)
        self.injector.cease()
        self._phase = "a majority is well"
        self.heal_a_majority()
        patience = self.profile.patience_seconds
        self._wait_for(self._amnesiacs_are_out, "a server that has lost its disk takes part all the same", patience)
        if self.parameters.quality.loss >= LOSSY:
            # A server outside the majority may lead on with a slow disk, over links that stay lossy: it is not
            # suspected as long as slots are ordered, each after several retransmissions.
            patience *= 2
        self._wait_for(self._majority_serves_all, "a client is not served", patience)
        self._phase = "all are well"
        for server_id in sorted(self.cluster.amnesiacs):
            self.cluster.bring_back(server_id)
        heal_all(self.cluster)
        if self.cluster.slipped or self.cluster.dice:
            self._wait_for(self._slips_are_noticed, "a server executed otherwise, and goes on", EQUALITY_SECONDS)
            self._cure_applications()
            heal_all(self.cluster)
        if self.parameters.joiners:
            self._wait_for(
                self._all_members_vote, "a member does not vote, or lacks the latest epoch", EQUALITY_SECONDS
            )
        self._wait_for(self._all_are_equal, "the servers are not equal", EQUALITY_SECONDS)
        self._wait_for(self._all_take_changes, "a server refuses changes, though all are equal", EQUALITY_SECONDS)
        if self.profile.clears_up:
            self._phase = "fair weather"
            if self.parameters.joiners:
                self._wait_for(self._no_member_learns, "a server that never votes is not removed", EQUALITY_SECONDS)
            slowness = self.profile.slowness
            self._drills(slowness).run_drills(self.profile.drills)
            if self.profile.has_idle_hour and isinstance(self.population, UserPopulation):
                self._phase = "an idle hour"
                IdleHour(self.cluster, self._rng, self.marks, slowness, population=self.population).run()
            self._wait_for(self._all_are_equal, "the servers are not equal any more", EQUALITY_SECONDS)
        if self.profile.has_pace_drills:
            self._phase = "pace"
            PaceDrills(self.cluster, self._rng, self.marks).run()
            self._wait_for(self._all_are_equal, "the servers are not equal any more", EQUALITY_SECONDS)
        self._phase = "looking back"
        self._check_equality()
        self.population.check_history()
        if self.parameters.settings.snapshot_slots:
            self._phase = "from snapshots"
            self._start_from_snapshots()

    def _drills(self, slowness: float) -> LivenessDrills:
        if self._drills_are_about_members and self._members_can_change():
            return MembershipDrills(self.cluster, self._rng, self.marks, slowness)
        if "disk_troubles" in self.profile.families and isinstance(self.population, UserPopulation):
            return DiskDrills(self.cluster, self._rng, self.marks, slowness, population=self.population)
        if "dice" in self.profile.families and isinstance(self.population, UserPopulation):
            return DiceDrills(self.cluster, self._rng, self.marks, slowness, population=self.population)
        if self.profile.has_hand_overs:
            return HandOverDrills(self.cluster, self._rng, self.marks, slowness)
        drills = ViewDrills if self.profile.has_later_views else LivenessDrills
        return drills(self.cluster, self._rng, self.marks, slowness)

    def _members_can_change(self) -> bool:
        """Whether the rules that the cluster follows by now know changes of the membership. In runs whose settings
        change, an operator may not have brought that about."""
        server: Server = self.cluster.process(self.cluster.ids[0]).server
        return bool(server.machine.settings.values.rules >= RULES_OF_EPOCHS)

    def begin(self) -> None:
        """Start the servers and the users, and schedule the faults."""
        for server in self.cluster.servers.values():
            server.sync_seconds = self.parameters.sync_seconds
            server.clock_offset = CLOCKS_BEGIN_SECONDS
            if "clocks" in self.parameters.families:
                server.rate = between(self._rng, 0.5, 2)
                server.clock_offset += self._rng.choice((0.0, 0.0, 0.3, -DAY_SECONDS, DAY_SECONDS))
        for server_id in self.cluster.ids:
            self.cluster.restart(server_id)
        self.population.begin()
        self.injector.schedule(self.faults)
        self._look_at_bounds()

    def _look_at_bounds(self) -> None:
        if self._phase != "pace":  # the drills have clients of their own
            self.population.check_bounds()
        if "confusion" not in self.parameters.families:
            for server_id in self.cluster.running_ids:
                wrong = self.cluster.replica(server_id).snapshot_fetcher.wrong
                require(
                    not wrong, f"server {server_id} has fetched {wrong} wrong snapshots, though no server is in error"
                )
        self._fetches.look()
        self.cluster.clock.callLater(BOUNDS_SECONDS, self._look_at_bounds)

    def heal_a_majority(self) -> None:
        """Heal a majority of the servers, drawn at random, and let the users finish (`Population.finish`).

        The other servers stay as they are, or get worse, until the whole cluster is healed. Servers that have lost
        their disk are healed as well, so that they find that out.

        No server of the majority has executed something otherwise than the others, or has wrong applications. In three
        cases the majority is replaced: by all such servers, if the profile's `leaves_broken` is off; and by all servers
        that have kept their disk, if a server of the majority was never admitted, since a new storage must meet more
        than a majority (Departure 42), or has lost its snapshot, since the next one needs a majority that has a state
        (Departure 58).
        """
        cluster = self.cluster
        voters = [i for i in cluster.ids if cluster.is_voter(i)]
        kept = [i for i in voters if i not in cluster.amnesiacs]
        whole = [i for i in kept if i not in cluster.slipped and i not in cluster.dice]
        is_enough = len(voters) // 2 + 1 if self.profile.leaves_broken else len(whole)
        well = sorted(self._rng.sample(whole, is_enough))
        if not all(self._was_admitted(i) and self._has_state(i) for i in well):
            well = kept
        self._well = well = self._with_majorities(well)
        if self.profile.ends_in_shape and len(cluster.ids) > 1:
            self.injector.cut_links(self._rng)
        heal_some(cluster, sorted({*well, *cluster.amnesiacs}))
        for server_id in whole:
            if server_id not in well and not self.profile.ends_in_shape:
                self._leave_broken(server_id)
        cluster.asks_members_only = True
        self.population.finish()

    def _with_majorities(self, well: list[int]) -> list[int]:
        """The servers `well`, and further ones that a healed majority needs while the membership changes.

        If none of them has executed the change that began the latest epoch, majorities of the epochs before it must
        order that change. Servers that learn are promoted, and count then.
        """
        electorate = self.cluster.checks.electorate
        latest = electorate.latest
        well = sorted({*well, *latest.candidates})
        known = max(electorate.epoch_on_disk(i) for i in well)
        for epoch in range(known, latest.epoch + 1):
            members = electorate.of(epoch)
            others = [i for i in members.voters if i not in well and i not in self.cluster.amnesiacs]
            lacking = members.quorum - sum(i in well for i in members.voters)
            if lacking > 0:
                well = sorted({*well, *self._rng.sample(others, lacking)})
        return well

    def _majority_serves_all(self) -> bool:
        """Whether all users are served. If the membership has changed meanwhile, by a change that was under way, more
        servers are healed first, so that the majority remains one."""
        well = self._with_majorities(self._well)
        if well != self._well:
            self._well = well
            heal_some(self.cluster, well)
        return self._all_are_served()

    def _all_members_vote(self) -> bool:
        """Whether each member runs in the latest epoch and votes, but for those that never vote, and no change is under
        way. Members that a late change has brought are healed first."""
        cluster, electorate = self.cluster, self.cluster.checks.electorate
        away = [i for i in cluster.ids if not cluster.is_running(i)]
        if away:
            heal_some(cluster, away)
        latest = electorate.latest
        goes_on = bool(latest.candidates) or latest.replacing is not None
        return not goes_on and all(
            cluster.replica(i).membership.epoch == latest.epoch and cluster.process(i).server.local_clients.idle
            for i in cluster.ids
        )

    def _no_member_learns(self) -> bool:
        """Whether all members vote, as drills need it. Servers that learn are removed first, one after the other."""
        learners = self.cluster.checks.electorate.latest.learners
        asked = self._removals
        if learners and (not asked or asked[-1]):
            asked.append([])
            voter = self._rng.choice([i for i in self.cluster.ids if self.cluster.is_voter(i)])
            self.cluster.process(voter).server.changes.remove(self._rng.choice(learners), asked[-1].append)
        return not learners and all(asked) and self._all_are_equal()

    def _was_admitted(self, server_id: int) -> bool:
        views = self.cluster.disk(server_id).contents.views
        return views is not None and views.last_installed > 0

    def _has_state(self, server_id: int) -> bool:
        return server_id not in self.cluster.checks.without_state and not self.cluster.disk(server_id).lost_snapshot

    def _leave_broken(self, server_id: int) -> None:
        fates: tuple[str, ...] = ("down", "paused", "alone", "as it is")
        if "disk_troubles" in self.parameters.families:
            fates = (*fates, "hangs", "hangs")
        fate = self._rng.choice(fates)
        if fate == "down" and self.cluster.is_running(server_id):
            self.cluster.crash(server_id)
        elif fate == "paused" and self.cluster.is_running(server_id):
            self.cluster.pause(server_id)
        elif fate == "alone":
            self.cluster.isolate(server_id)
        elif fate == "hangs" and self.cluster.is_running(server_id):
            self.cluster.storage(server_id).hang()

    def _wait_for(self, predicate: Callable[[], bool], text: str, patience: float) -> None:
        """Wait until `predicate` is true.

        Raises `Violation` with `text` if that takes more than `patience` seconds, by the slowest clock of a server. A
        profile with longer timers has a `slowness`, by which the time is multiplied.
        """
        patience *= self.profile.slowness
        seconds = patience / min(1.0, *(server.rate for server in self.cluster.servers.values()))
        until = self.cluster.now + seconds
        while not predicate():
            if self.cluster.now >= until:
                waiting = "\n".join(self.population.waiting())
                raise Violation(f"{text} within {seconds:g} s\n{waiting}".rstrip())
            self.cluster.run(0.25)

    # ------------------------------------------------------------------ conditions

    def _all_are_served(self) -> bool:
        return not any(True for _ in self.population.waiting())

    def _amnesiacs_are_out(self) -> bool:
        """Whether all voters that have lost their disk have found that out, and stopped (G20)."""
        return not any(self.cluster.is_running(i) for i in self.cluster.amnesiacs if self.cluster.is_voter(i))

    def _slips_are_noticed(self) -> bool:
        """Whether no server runs whose digest differs from the others', or that has come to other results (Departure
        40).

        A server at which an application has gone wrong may run on while no result has shown it.
        """
        cluster, contradicting = self.cluster, self.population.contradicting()
        running = [i for i in cluster.running_ids if i in cluster.slipped]
        return not any(i not in cluster.in_error or i in contradicting or cluster.has_other_digest(i) for i in running)

    def _cure_applications(self) -> None:
        """Give each server correct applications, and crash those at which one has gone wrong without being noticed, so
        that they execute their history anew."""
        for server_id in sorted(self.cluster.dice):
            self.cluster.cure(server_id)
        for server_id in sorted(self.cluster.in_error):
            if self.cluster.is_running(server_id):
                self.cluster.crash(server_id)

    def _all_take_changes(self) -> bool:
        return not any(self.cluster.replica(i).divergence.is_undecided for i in self.cluster.ids)

    def _all_are_equal(self) -> bool:
        return len({self.cluster.aru(i) for i in self.cluster.ids}) == 1 and self.cluster.all_equal()

    def _check_equality(self) -> None:
        """Require that all servers have the same state. By now they have the same Local_Aru."""
        found = {server_id: self.population.state(server_id) for server_id in self.cluster.ids}
        first_id = self.cluster.ids[0]
        first = found[first_id]
        for server_id, state in found.items():
            for name, value in state.items():
                if value != first[name]:
                    raise Violation(
                        f"server {server_id} has another {name} than server {first_id}:\n{value!r}\n{first[name]!r}"
                    )

    def _start_from_snapshots(self) -> None:
        """Have all servers take a snapshot of the state that all of them have now, and start again from it. Raises
        `Violation` if one of them does not, or comes to another state than others."""
        taken: dict[int, SnapshotName | None] = {}
        for server_id in self.cluster.ids:
            replica = self.cluster.replica(server_id)
            replica.perform(replica.snapshot_taker.take_now, partial(taken.setdefault, server_id))
        are_taken = "a server takes no snapshot, though all is well"
        self._wait_for(lambda: len(taken) == len(self.cluster.ids), are_taken, EQUALITY_SECONDS)
        require(None not in taken.values(), are_taken)
        for server_id in self.cluster.ids:
            self.cluster.crash(server_id)
            self.cluster.restart(server_id)
        self._wait_for(self.cluster.has_leader, "no server leads after a start from snapshots", EQUALITY_SECONDS)
        self._wait_for(self._all_are_equal, "the servers are not equal after a start from snapshots", EQUALITY_SECONDS)
        self._check_equality()

    def _count_what_is_left(self) -> None:
        self.population.count(self.marks)
        views = self.cluster.checks.messages.leaders
        self.marks.counts["frame damaged on its way"] += self.cluster.network.damaged
        self.marks.counts["datagram larger than its link carries"] += self.cluster.network.too_large
        names = self.cluster.network.names
        self.marks.counts["server stopped, contradicted by a majority"] += self.cluster.stopped_by_majority
        self.marks.counts["address changed"] += 0 if names is None else names.moves
        self.marks.counts["frame lost at a full socket buffer"] += self.cluster.network.overflows
        self.marks.counts["views"] += max(views, default=0)
        ids = self.parameters.ids
        self.marks.counts[f"cluster of {len(ids)} servers"] += 1
        self.marks.counts["ids with gaps"] += ids != tuple(range(len(ids)))


@implementer(ILogObserver)
@define(eq=False)
class _ErrorsInLog:
    """Observer of Twisted's log: the first error that a server logs ends the run, even if the server goes on."""

    cluster: SimulatedCluster

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            self.cluster.findings.add(failure)


def _switched_off(parameters: Parameters, families: frozenset[str]) -> Parameters:
    """The parameters, changed so that some families of faults are switched off.

    Some families act through parameters, such as the quality of links: these get harmless values. Faults that happen at
    a certain time are not parameters; `Run` leaves them out itself.
    """
    unknown = families - set(ALL_FAMILIES)
    assert not unknown, f"there are no families {unknown}"
    changed: dict[str, Any] = {"families": parameters.families - families}
    if "network" in families:
        changed["quality"] = LinkQuality()
    if "disks" in families:
        changed["sync_seconds"] = (0.0005, 0.002)
    if "clients" in families:
        changed["user_profile"] = evolve(
            parameters.user_profile, leaves=0.0, vanishes=0.0, doubles=0.0, goes_back=0.0, says_goodbye=0.0
        )
    return evolve(parameters, **changed)
