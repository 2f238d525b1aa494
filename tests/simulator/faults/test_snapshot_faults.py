"""Faults around snapshots do what their names say, and leave all other draws of a seed as they are."""

from __future__ import annotations

import random

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import SnapshotOffer, SnapshotPart, SnapshotRequest
from pfsb.paxos.settings import Settings
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.faults.all_faults import AllFaults
from pfsb.simulator.faults.parameters import with_snapshots
from pfsb.simulator.faults.plan import Fault
from pfsb.simulator.faults.profiles import PROFILES
from pfsb.simulator.faults.wrong_messages import WrongMessages
from pfsb.simulator.runs.run import Plan, Run
from pfsb.simulator.workload.paper_clients import PaperClient
from tests.long import long
from tests.simulator.faults.test_faults import drawn

SETTINGS = Settings(history_slots_kept=0, snapshot_slots=1_000, frame_data_bytes_max=60)


class ModifierTests(SynchronousTestCase):
    """Any profile can be run with snapshots."""

    def test_all_else_is_drawn_as_without_them(self) -> None:
        """With snapshots, the users, sizes and other faults of a seed are those that it has without them."""
        for profile in ("mixed", "disks", "settings"):
            without, with_them = Run(Plan(5, profile)), Run(Plan(5, profile, snapshots=True))
            self.assertEqual(with_them.faults[: len(without.faults)], without.faults)
            further = with_them.faults[len(without.faults) :]
            self.assertEqual({fault.family for fault in further}, {"snapshots"})
            before, after = without.parameters, with_them.parameters
            self.assertGreater(after.settings.snapshot_slots, 0)
            changed = evolve(
                after,
                settings=before.settings,
                families=before.families,
                faulty_kinds=before.faulty_kinds,
                kept_slots=before.kept_slots,
            )
            self.assertEqual(changed, before)

    def test_no_profile_of_before_takes_snapshots(self) -> None:
        """Profiles that existed before snapshots take none, so that their seeds mean what they meant."""
        for name, profile in PROFILES.items():
            if not profile.has_snapshots:
                run = Run(Plan(1, name))
                self.assertEqual(run.parameters.settings.snapshot_slots, 0, name)
                self.assertNotIn("snapshots", {fault.family for fault in run.faults}, name)

    def test_server_that_is_told_no_slots_is_not_brought_behind(self) -> None:
        """A run in which a server gets no ORDERED has no fault that makes servers fall behind: such a server could
        never learn the slots that others have dropped."""
        for seed in range(5):
            kinds = {fault.kind for fault in Run(Plan(seed, "overtaking", snapshots=True)).faults}
            self.assertEqual(kinds - {"take_snapshot"}, set())


class SnapshotFaultTests(SynchronousTestCase):
    """Faults in a cluster of three, with a client that asks for some updates each second."""

    def setUp(self) -> None:
        self.marks = Marks()
        self.installed = 0

    def happen(self, kind: str, number: int = 0) -> SimulatedCluster:
        """Let a fault happen in a new cluster. Returns the cluster, some seconds later."""
        cluster = SimulatedCluster(f"{self.id()}/{kind}/{number}", 3, settings=SETTINGS, kept_slots=0)
        cluster.run_until(cluster.has_leader)
        PaperClient(cluster, "client", random.Random(number), think_seconds=0.05).start()
        cluster.run(1)
        injector = AllFaults(cluster, with_snapshots(random.Random(0), drawn(0)), self.marks)
        injector.schedule([Fault(number, cluster.now, "snapshots", kind)])
        cluster.run(8)
        self.installed += sum(cluster.replica(i).snapshot_fetcher.installed for i in cluster.running_ids)
        self.assertEqual(cluster.running_ids, [0, 1, 2])
        return cluster

    @long
    def test_server_that_stays_away_fetches_a_snapshot(self) -> None:
        """A server that was away fetches a snapshot, since it lacks slots that the others have dropped."""
        self.happen("stay_away")
        self.assertEqual(self.installed, 1)

    def test_snapshot_is_taken_when_an_operator_asks(self) -> None:
        """When an operator asks one server for a snapshot, that server takes one."""
        cluster = self.happen("take_snapshot")
        self.assertEqual([cluster.disk(i).snapshot_seq > 0 for i in cluster.ids].count(True), 1)

    @long
    def test_servers_die_at_every_step(self) -> None:
        """Within some faults of each kind, servers have died at every step of a snapshot."""
        for number in range(12):
            for kind in ("crash_in_snapshot", "crash_in_fetch"):
                self.happen(kind, number)
        for step in ("begun", "finishing", "noting", "fetching", "loading"):
            self.assertGreater(self.marks.counts[f"crash while a snapshot is at: {step}"], 0, step)

    @long
    def test_disk_is_full_at_every_step_of_a_fetch(self) -> None:
        """Within some faults, the disk was full at every step of a fetch."""
        for number in range(6):
            self.happen("fill_in_fetch", number)
        for step in ("fetching", "loading"):
            self.assertGreater(self.marks.counts[f"disk full while a snapshot is at: {step}"], 0, step)

    @long
    def test_source_of_a_fetch_is_disturbed(self) -> None:
        """The source dies, alone or with its receiver, is cut off, or takes the next snapshot."""
        for kind, is_deadly in (
            ("crash_source", True),
            ("crash_both", True),
            ("cut_source", False),
            ("replace_snapshot", False),
        ):
            disturbed = self.marks.counts["snapshot disturbed while it is fetched"]
            clusters = [self.happen(kind, number) for number in range(3)]
            self.assertGreater(self.marks.counts["snapshot disturbed while it is fetched"], disturbed, kind)
            starts = sum(server.incarnations for cluster in clusters for server in cluster.servers.values())
            self.assertTrue(starts > 10 or not is_deadly, kind)


class DrawingTests(SynchronousTestCase):
    def test_disks_are_filled_only_in_runs_with_disks_in_trouble(self) -> None:
        """Disks are filled only in runs of the profile with disks in trouble, since a server of another profile stops
        when its disk is full."""
        for profile, expected in (("snapshot-disks", True), ("snapshot-crashes", False)):
            kinds = {fault.kind for seed in range(20) for fault in Run(Plan(seed, profile)).faults}
            self.assertEqual("fill_in_fetch" in kinds, expected)


class WrongSnapshotMessagesTests(SynchronousTestCase):
    def test_wrong_messages_about_snapshots_are_drawn_only_where_servers_take_any(self) -> None:
        """Wrong messages about snapshots are drawn only where servers take snapshots: other runs get the messages that
        they have always got."""
        kinds = {SnapshotOffer, SnapshotRequest, SnapshotPart}
        for slots, expected in ((0, set()), (5, kinds)):
            cluster = SimulatedCluster(self.id(), 3, settings=Settings(snapshot_slots=slots))
            cluster.run_until(cluster.has_leader)
            wrong = WrongMessages(1, cluster.replica(0), random.Random(1))
            found = {type(message) for _ in range(300) for message in wrong.draw()}
            self.assertEqual(found & kinds, expected)
