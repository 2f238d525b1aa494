"""Whole runs: a seed decides everything, promises are kept, and defective servers are found (docs/testing.rst)."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.applications.interfaces import Done
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.messages import ClientUpdate
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.healing import heal_all
from pfsb.simulator.defects.defect import instead_of, override
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.runs.run import Plan, Run, RunOutcome
from pfsb.simulator.runs.shrink import Shrinking
from pfsb.simulator.runs.simulate_command import run_plan
from tests.long import long, longest

SEED = 3
SEEDS = 2
"""Number of seeds of each profile; the mixed profile gets so many more that there are `SEEDS_OF_ALL`."""
OTHER_SEEDS = {"idle": (5,), "pace": (0,), "echoes": (0, 2), "paper": (0, 1, 2)}
"""Profile -> its seeds, if they are others than the first `SEEDS`. A run with an idle hour or with measurements takes
as long as ten others, so one is enough; these seeds have enough operations, and reach the situation of their
profile."""
SEEDS_OF_ALL = 133


def seeds_of(name: str) -> Sequence[int]:
    return OTHER_SEEDS.get(name, range(SEEDS))


def digest_of(seed: int) -> str:
    """A hash over all frames and all answers of a mixed run."""
    outcome = Run(Plan(seed, seconds=3.0)).run()
    return f"{outcome.digest} {outcome.events} {outcome.failure}"


def answers_wrongly(process: Any) -> None:
    """A defect: the answer of INCR is too high, by another number at each server."""
    desk_tell = process.server.machine.execute_command

    def execute(session: Any, number: int, command: Any) -> Any:
        result = desk_tell(session, number, command)
        if command[0] == "INCR" and isinstance(result, Done):
            shown = dict(result.fields)
            return Done((("value", str(int(shown["value"]) + session.server_id)), ("revision", shown["revision"])))
        return result

    process.server.machine.execute_command = execute


def orders_too_early(process: Any) -> None:
    """A defect: any proposal counts as accepted by a majority (Figure 11 B)."""

    @instead_of(process.replica.ordering, "globally_ordered_ready")
    def is_ready(_: object, slot: Slot) -> bool:
        return slot.proposal is not None and slot.ordered is None


def never_prepared(process: Any) -> None:
    """A defect: a leader never has enough promises (Figure 8 B)."""
    override(process.replica.prepare, "view_prepared_ready", lambda _: lambda view: False)


@long
class DeterminismTests(SynchronousTestCase):
    def test_same_seed_gives_the_same_bytes(self) -> None:
        """One seed gives the same bytes in each run, and another seed gives others."""
        self.assertEqual(digest_of(SEED), digest_of(SEED))
        self.assertNotEqual(digest_of(SEED), digest_of(SEED + 1))

    def test_same_seed_gives_the_same_bytes_under_another_hash_seed(self) -> None:
        """No run depends on the order of sets of strings, which another process hashes differently."""
        here = [digest_of(seed) for seed in (SEED, SEED + 1)]
        root = Path(pfsb.__file__).parent.parent
        program = (
            "from tests.simulator.runs.test_run import digest_of\n"
            f"for seed in ({SEED}, {SEED + 1}): print(digest_of(seed))"
        )
        for hash_seed in ("1", "2"):
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
            done = subprocess.run(
                [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
            )
            self.assertEqual(done.stdout.splitlines(), here)

    def test_trace_changes_nothing(self) -> None:
        """A run with a trace gives the same bytes as without."""
        events: list[dict[str, Any]] = []
        plan = Plan(SEED, seconds=3.0)
        self.assertEqual(Run(plan, trace=events.append).run().digest, Run(plan).run().digest)
        self.assertTrue(any(event["event"] == "executed" for event in events))


@long
class ProfileTests(SynchronousTestCase):
    """Some seeds of each profile are run; `make simulate` runs more."""

    def _outcomes(self) -> Iterator[RunOutcome]:
        plans = [Plan(seed, name) for name in PROFILES for seed in seeds_of(name)]
        plans += [Plan(seed) for seed in range(SEEDS, SEEDS_OF_ALL - len(plans) + SEEDS)]
        yield from self._made(plans)

    @staticmethod
    def _made(plans: Sequence[Plan]) -> Iterator[RunOutcome]:
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(run_plan, plans, chunksize=4)

    def test_every_profile_keeps_every_promise(self) -> None:
        """Every profile keeps every promise: all seeds pass, and each profile reaches the situations that it is there
        for."""
        marks: dict[str, Counter[str]] = {profile: Counter() for profile in PROFILES}
        seeds: Counter[str] = Counter()
        for outcome in self._outcomes():
            self.assertEqual(outcome.failure, "", f"{outcome.plan.command()}\n{outcome.picture}")
            marks[outcome.plan.profile].update(outcome.marks)
            seeds[outcome.plan.profile] += 1
        self.assertEqual(sum(seeds.values()), SEEDS_OF_ALL)
        for profile, mark in (
            ("mixed", "own view rejoined"),
            ("mixed", "answer given for a repetition"),
            ("mixed", "two leaders at once"),
            ("mixed", "read beside the log"),
            ("mixed", "event heard"),
            ("promises", "promise in parts"),
            ("lost-disks", "fault: lose_disk"),
            ("drains", "fault: drain"),
            ("hand-overs", "hand-over done"),
            ("rolling", "hand-over done"),
            ("rolling", "drill: preference"),
            ("membership", "epoch begun"),
            ("idle", "idle hour"),
            ("overtaking", "vote before its proposal"),
            ("told-once", "ORDERED before its proposal"),
            ("told", "ORDERED travelled with a PROPOSAL"),
            ("keyholes", "fault: keyhole_of_leader"),
            ("keyholes", "two leaders at once"),
            ("late-answers", "fault: crash_loop"),
            ("conditions", "condition on a revision held"),
            ("echoes", "bundle ordered beyond its horizon"),
            ("settings", "operator: SETTINGS SET OK"),
            ("settings", "operator: SETTINGS SET CONFLICT"),
            ("settings", "operator: TALLY OK"),
            ("settings", "operator: TALLY UNKNOWN"),
            ("dice", "server stopped, contradicted by a majority"),
            ("dice", "DIVERGED fate=none"),
            ("names", "address changed"),
            ("names", "fault: exchange_addresses"),
            ("moves", "address changed"),
            ("moves", "datagram larger than its link carries"),
        ):
            self.assertGreater(marks[profile][mark], 0, f"{profile}: {mark}")
        for mark in (
            "snapshot taken",
            "start from a snapshot",
            "fetch of a snapshot",
            "snapshot of another server installed",
            "snapshot disturbed while it is fetched",
        ):
            found = sum(counts[mark] for name, counts in marks.items() if PROFILES[name].has_snapshots)
            self.assertGreater(found, 0, mark)
        for mark in ("cluster of 6 servers", "cluster of 8 servers", "ids with gaps"):
            self.assertGreater(sum(counts[mark] for counts in marks.values()), 0, mark)
        for profile in PROFILES:
            self.assertGreater(marks[profile]["operations"], 5 * min(seeds[profile], SEEDS), profile)

    @longest
    def test_every_profile_keeps_every_promise_with_snapshots(self) -> None:
        """One seed of each profile that takes no snapshots by itself is run with snapshots."""
        marks: Counter[str] = Counter()
        plans = [
            Plan(0, name, snapshots=True)
            for name, profile in PROFILES.items()
            if not profile.has_snapshots and len(seeds_of(name)) == SEEDS
        ]
        for outcome in self._made(plans):
            self.assertEqual(outcome.failure, "", f"{outcome.plan.command()}\n{outcome.picture}")
            marks.update(outcome.marks)
        self.assertGreater(marks["snapshot of another server installed"], len(plans) / 2)

    @longest
    def test_every_profile_keeps_every_promise_while_servers_come_and_go(self) -> None:
        """One seed of each profile whose members do not change by themselves is run with changes."""
        marks: Counter[str] = Counter()
        plans = [
            Plan(0, name, members=True)
            for name, profile in PROFILES.items()
            if not profile.has_changing_members and profile.why_members_stay is None and len(seeds_of(name)) == SEEDS
        ]
        for outcome in self._made(plans):
            self.assertEqual(outcome.failure, "", f"{outcome.plan.command()}\n{outcome.picture}")
            marks.update(outcome.marks)
        self.assertGreater(marks["epoch begun"], len(plans))


@long
class DefectiveServerTests(SynchronousTestCase):
    """Defective servers are found by the checks of a run."""

    def _first_failure(self, patch: Any, plan: Plan) -> RunOutcome:
        for seed in range(plan.seed, plan.seed + 30):
            outcome = Run(evolve(plan, seed=seed), patch).run()
            if outcome.failure:
                return outcome
        raise AssertionError("nothing has failed")

    def test_two_values_at_one_slot_are_found(self) -> None:
        """Servers that order by less than a majority, and so break S1, are found."""
        self.assertIn("slot", self._first_failure(orders_too_early, Plan(0, "crashes")).failure)

    def test_servers_that_compute_different_results_are_found(self) -> None:
        """Servers that compute different results are found, whether a client sees them or not."""
        outcome = self._first_failure(answers_wrongly, Plan(0, "clients", servers=3))
        self.assertIn("came to", outcome.failure)

    def test_failing_run_shrinks_to_a_smaller_one_that_fails(self) -> None:
        """A failing run is shrunk to a smaller one that fails as well, and whose printed command repeats it."""
        outcome = self._first_failure(orders_too_early, Plan(0))
        shrinking = Shrinking(lambda plan: Run(plan, orders_too_early).run(), outcome)
        self.assertGreater(len(list(shrinking.steps())), 5)
        best = shrinking.best
        self.assertLess(len(best.faults) + best.users, len(outcome.faults) + outcome.users)
        self.assertTrue(best.failure)
        self.assertEqual(Run(best.plan, orders_too_early).run().failure, best.failure)
        self.assertIn("--without", best.plan.command())


@long
class LopsidedLinksTests(SynchronousTestCase):
    """Paxos-L1: a majority with links in both directions makes progress, whatever links there are to other servers."""

    def test_users_of_lopsided_profiles_are_served_within_30_seconds(self) -> None:
        """In lopsided profiles users are served within 30 seconds; a server that never leads is found by this bound."""
        for profile in ("star", "chain", "one-way"):
            failure = Run(Plan(1, profile, servers=3, seconds=1.0), never_prepared).run().failure
            self.assertIn("a majority is well", failure)
            self.assertIn("a client is not served within 30 s", failure)

    def test_links_outside_the_majority_stay_cut(self) -> None:
        """The links of the majority are whole, and some of the other links stay cut in one direction."""
        run = Run(Plan(2, "one-way", servers=5, seconds=2.0))
        run.begin()
        run.cluster.run(2)
        run.injector.cease()
        run.heal_a_majority()
        ids, network = run.cluster.ids, run.cluster.network
        cut = {(a, b) for a in ids for b in ids if a != b and network.link(a, b).cut}
        self.assertTrue(cut)
        majorities = [c for c in combinations(ids, 3) if not any((a, b) in cut for a in c for b in c)]
        self.assertTrue(majorities)


@long
class DrainTests(SynchronousTestCase):
    def test_server_that_does_not_stop_is_found(self) -> None:
        """A server that has not stopped within five seconds of a drain is found, whatever is under way."""

        def never_stops(process: Any) -> None:
            override(process.server, "drain", lambda _: lambda drained: None)

        run = Run(Plan(1, "calm", servers=3, seconds=1.0), never_stops)
        run.begin()
        run.cluster.drain(0)
        error = self.assertRaises(Violation, run.cluster.run, 10)
        self.assertIn("asked to stop", str(error))

    def test_draining_server_is_restarted_by_healing(self) -> None:
        """Healing restarts a server that drains, since no fault would."""
        run = Run(Plan(1, "calm", servers=3, seconds=1.0))
        run.begin()
        run.cluster.drain(0)
        heal_all(run.cluster)
        run.cluster.run(10)
        self.assertEqual(run.cluster.running_ids, [0, 1, 2])

    def test_disk_that_fails_at_the_stop_ends_that_incarnation_only(self) -> None:
        """A failure at the stop does not end the next incarnation, which starts in the same moment."""
        run = Run(Plan(1, "calm", servers=3, seconds=1.0))
        run.begin()
        cluster = run.cluster
        cluster.run_until(lambda: cluster.storage(0).pending_groups() != [])
        cluster.storage(0).fail_next(OSError("input/output error"))
        cluster.stop(0)
        cluster.restart(0)
        cluster.run(1)
        self.assertEqual(cluster.running_ids, [0, 1, 2])

    def test_single_server_leaves_no_slot_out(self) -> None:
        """A server that votes alone proposes in a slot that FAULT SKIP names, since no other server would lead after it
        and fill the slot."""
        run = Run(Plan(1, "calm", servers=1, seconds=1.0))
        run.begin()
        cluster = run.cluster
        cluster.run_until(cluster.has_leader)
        data = cluster.replica(0).data
        skipped = data.ordering.last_proposed + 1
        cluster.replica(0).proposals.skipped.add(skipped)
        cluster.run_until(lambda: cluster.aru(0) > skipped)


@long
class PaperClientPopulationTests(SynchronousTestCase):
    def test_updates_that_pile_up_are_found(self) -> None:
        """Updates of one client that pile up are found: each client has at most one pending update."""
        run = Run(Plan(1, "paper", servers=3, seconds=1.0))
        run.begin()
        run.population.check_bounds()
        pending = run.cluster.replica(0).data.clients.pending_updates
        pending.update((str(i), ClientUpdate(str(i), 0, 1, 0, b"")) for i in range(50))
        self.assertRaises(Violation, run.population.check_bounds)


class PlanTests(SynchronousTestCase):
    def test_command_names_what_differs_from_the_seed(self) -> None:
        """The command that repeats a run has the options that differ from the values drawn by the seed."""
        plan = Plan(7, "star", 5, 2.5, frozenset({"disks", "clocks"}), (3, 4), 2)
        options = "--profile star --servers 5 --seconds 2.5 --users 2 --without clocks,disks --faults 3,4"
        self.assertEqual(plan.command(), f"pfsb simulate --seed 7 {options}")
        self.assertEqual(Plan(7, faults=()).command(), "pfsb simulate --seed 7 --faults none")
        self.assertEqual(Plan(7, snapshots=True).command(), "pfsb simulate --seed 7 --snapshots")
        self.assertEqual(Plan(7, members=True).command(), "pfsb simulate --seed 7 --members")

    def test_left_out_faults_leave_the_others_as_they_are(self) -> None:
        """When faults are left out of a plan, the others stay as they are: each is drawn independently, which shrinking
        needs."""
        faults = Run(Plan(5, seconds=30.0)).faults
        family = faults[0].family
        fewer = Run(Plan(5, seconds=30.0, without=frozenset({family}))).faults
        self.assertEqual(fewer, tuple(fault for fault in faults if fault.family != family))
        self.assertEqual(Run(Plan(5, seconds=30.0, faults=(faults[1].number,))).faults, (faults[1],))
