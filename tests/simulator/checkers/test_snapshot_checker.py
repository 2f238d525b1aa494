"""The checks of snapshots: each finds the violation that it is there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import IRestorer
from pfsb.paxos.messages import ClientUpdate, SnapshotOffer, SnapshotPart
from pfsb.paxos.records import AruRecord, OrderedRecord, SnapshotRecord
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.simulator.checkers.cluster_checker import ClusterChecker
from pfsb.simulator.checkers.snapshot_checker import SnapshotChecker, WatchedRestorer
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.process import ROWS_OF_A_PIECE, RecordingStateMachine
from pfsb.simulator.cluster.server_process import SimulatedApplications
from pfsb.storage.memory import MemoryDisk
from tests.simulator.checkers.test_cluster_checker import BATCH_A, A, B

CLUSTER = b"cluster!"


def made(seq: int = 7, *data: bytes) -> tuple[SnapshotName, bytes]:
    """A snapshot with a piece of each of these data."""
    encoder = SnapshotEncoder(seq, CLUSTER)
    parts = [encoder.head(), *[encoder.piece(Piece("kv", each)) for each in data or (b"one", b"two")], encoder.end()]
    return encoder.name, b"".join(parts)


class SnapshotCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.check = SnapshotChecker()
        self.check.frozen(0, 7, {"time": 5}, {"locks": 1})

    def violates(self, check: Callable[..., Any], *args: object) -> str:
        return str(self.assertRaises(Violation, check, *args))

    def test_equal_states_and_snapshots_pass(self) -> None:
        """Equal states and snapshots pass, whichever server froze, restored or noted its state first."""
        name, data = made()
        self.check.frozen(1, 7, {"time": 5}, {"locks": 2})
        self.check.named(0, name, data)
        self.check.named(1, name, data)
        self.check.part(1, name, 5, data[5:9])
        self.check.part(1, name, 5, b"")
        self.assertEqual(self.check.restored(2, 7, {"time": 5}), {"locks": 1})

    def test_server_that_freezes_another_state_is_found(self) -> None:
        """A server that freezes another state than the others is found, and the text names what differs."""
        self.assertIn("its time", self.violates(self.check.frozen, 1, 7, {"time": 6}, {}))

    def test_restored_server_that_differs_is_found(self) -> None:
        """A server whose state after a restore differs is found, and so is one that was restored from a snapshot which
        no server has made."""
        self.assertIn("its time", self.violates(self.check.restored, 1, 7, {"time": 6}))
        self.assertIn("no state was frozen", self.violates(self.check.restored, 1, 8, {"time": 5}))

    def test_snapshot_that_is_not_there_or_not_whole_is_found(self) -> None:
        """A snapshot that is noted and not on disk, or not whole, is found: a restart could not use it."""
        name, data = made()
        self.assertIn("not on its disk", self.violates(self.check.named, 0, name, None))
        self.assertIn("not whole", self.violates(self.check.named, 0, name, data[:-1]))
        self.assertIn("damaged", self.violates(self.check.named, 0, name, data.replace(b"one", b"two")))
        self.assertIn("another one", self.violates(self.check.named, 0, made(7, b"other")[0], data))

    def test_two_snapshots_of_one_slot_are_found(self) -> None:
        """Two different snapshots of one slot are found, and the text names the section in which they differ."""
        self.check.named(0, *made())
        self.assertIn("section kv", self.violates(self.check.named, 1, *made(7, b"one", b"three")))
        self.assertIn("number of pieces", self.violates(self.check.named, 1, *made(7, b"one")))
        self.check.named(1, *made(8))

    def test_part_with_other_bytes_is_found(self) -> None:
        """A part of a snapshot with other bytes than were made is found, and so is a part that no disk has."""
        name, data = made()
        self.assertIn("no server has", self.violates(self.check.part, 0, name, 0, data[:5]))
        self.check.named(0, name, data)
        self.assertIn("other bytes", self.violates(self.check.part, 0, name, 1, data[:5]))


class ClusterCheckTests(SynchronousTestCase):
    """Snapshots among the checks of the whole cluster."""

    def setUp(self) -> None:
        self.disks = {server_id: MemoryDisk() for server_id in range(3)}
        self.check = ClusterChecker(self.disks, lambda server_id, seq: None)
        for update in (A, B):
            self.check.execution.introduce(update)
        for server_id in self.disks:
            self.check.started(server_id)
        for seq, update in ((1, A), (2, B)):
            self.check.executed(0, seq, [update])
            self.check.execution.settled(0, seq, 0, [update])

    def violates(self, check: Callable[..., Any], *args: object) -> str:
        return str(self.assertRaises(Violation, check, *args))

    def test_restored_server_goes_on_with_the_next_slot(self) -> None:
        """A server that was restored executes the next slot without a violation: the slots below, which others have
        run, count as run once (S3)."""
        self.check.execution.restored(1, 2)
        self.assertIn("S3", self.violates(self.check.executed, 1, 3, [A]))
        self.check.execution.restored(2, 2)
        self.assertIn("3 is next", self.violates(self.check.executed, 2, 2, [B]))

    def test_snapshot_that_takes_a_server_back_is_found(self) -> None:
        """A snapshot of a lower slot than its server has executed is found, and so is one of slots that no server has
        run."""
        self.assertIn("goes back", self.violates(self.check.execution.restored, 0, 2))
        self.assertIn("no server ran 3", self.violates(self.check.execution.restored, 0, 3))

    def test_effects_of_a_snapshot_that_is_not_on_disk_are_found(self) -> None:
        """Messages that show the state of a snapshot which is not on disk are found: a crash would take the server
        back."""
        self.check.execution.restored(1, 2)
        self.assertIn("has that of 0 on disk", self.violates(self.check.settled_by_snapshot, 1, 2))
        self.disks[1].contents.apply(SnapshotRecord(made(2)[0]))
        self.check.settled_by_snapshot(1, 2)
        self.assertTrue(self.check.all_equal([0, 1]))

    def test_slots_that_are_missing_above_a_snapshot_are_found(self) -> None:
        """A snapshot on disk above which slots are missing on the disk is found: a restart needs all of them."""
        name, data = made(2)
        disk = self.disks[0]
        disk.snapshots[name] = data
        disk.contents.apply_all([SnapshotRecord(name), OrderedRecord(4, BATCH_A), AruRecord(4)])
        disk.compact(0)
        self.assertIn("lacks slot 3", self.violates(self.check.named, 0, name, disk))
        disk.contents.apply(OrderedRecord(3, BATCH_A))
        self.check.named(0, name, disk)

    def test_offer_of_a_snapshot_without_a_record_is_found(self) -> None:
        """An offer of a snapshot that is not recorded on disk is found: the server may not have it after a restart."""
        name, data = made(2)
        offer = SnapshotOffer(0, 2, name)
        self.assertIn("has None on disk", self.violates(self.check.sent, 0, 1, [offer]))
        self.disks[0].contents.apply(SnapshotRecord(name))
        self.check.sent(0, 1, [offer])
        self.assertIn("no server has", self.violates(self.check.sent, 0, 1, [SnapshotPart(0, name, 0, data[:3])]))


class RecordingStateMachineTests(SynchronousTestCase):
    def test_pieces_show_the_state_at_which_they_were_begun(self) -> None:
        """Pieces show the state at which they were begun: slots that are executed while they are taken are not in
        them."""
        machine, other = RecordingStateMachine(), RecordingStateMachine()
        updates = [ClientUpdate("a", 0, number, 0, b"x") for number in range(1, 4 * ROWS_OF_A_PIECE)]
        begun = 2 * ROWS_OF_A_PIECE - 1
        machine.execute(1, 0, updates[:begun])
        pieces = machine.freeze()
        taken = [next(pieces)]
        machine.execute(2, 0, updates[begun:])
        taken += pieces
        restorer = other.restorer()
        self.assertTrue(IRestorer.providedBy(restorer))
        for piece in taken:
            restorer.take(piece)
        self.assertEqual(other.executed, [])
        restorer.adopt()
        self.assertEqual((other.slots, other.executed), (1, machine.executed[:begun]))
        self.assertEqual(other.slot_of["a", begun], 1)
        self.assertEqual(len(taken), 3)


class WatchedRestorerTests(SynchronousTestCase):
    def test_watcher_is_told_when_the_state_is_in_place(self) -> None:
        """The watcher is told of a restored state when it is in place, not before."""
        machine, told = RecordingStateMachine(), []
        machine.execute(1, 0, [A])
        restorer = WatchedRestorer(machine.restorer(), lambda: told.append(machine.slots))
        for piece in machine.freeze():
            restorer.take(piece)
        restorer.end()
        self.assertEqual(told, [])
        restorer.adopt()
        self.assertEqual(told, [1])


class SimulatedApplicationsTests(SynchronousTestCase):
    def test_first_applications_serve_until_a_state_is_built_beside_them(self) -> None:
        """Commands go to the first applications, in which defects are planted, until a state has been built in
        others."""
        applications = SimulatedApplications(("lock", "kv"), has_runs=False)
        first = applications.first["kv"]
        self.assertIs(applications.make("kv", applications.versions["kv"][0]), first)
        self.assertEqual(first.run_verbs, ())
        applications.first.clear()
        other = applications.make("kv", 1)
        self.assertIsNot(other, first)
        self.assertEqual(other.run_verbs, ())


class UnsettledTests(SynchronousTestCase):
    def test_snapshot_on_disk_settles_what_its_server_did_not_live_to_hear(self) -> None:
        """A snapshot on disk settles the slots of a server that has crashed before it told of them; in a cluster of one
        no other server executes these."""
        cluster = SimulatedCluster(self.id(), 1, kept_slots=0)
        cluster.run_until(cluster.has_leader)
        for number in range(1, 4):
            cluster.submit(0, "a", number)
            cluster.run_until(lambda number=number: ("a", number) in cluster.answers)
        replica = cluster.replica(0)
        replica.perform(replica.snapshot_taker.take_now, lambda name: None)

        def record_is_under_way() -> bool:
            groups = cluster.storage(0).pending()
            return any(isinstance(record, SnapshotRecord) for group in groups for record in group.records)

        cluster.run_until(record_is_under_way)
        cluster.crash(0, groups_kept=2)
        self.assertEqual(cluster.disk(0).snapshot_seq, 3)
        cluster.restart(0)
        cluster.submit(0, "a", 4)
        cluster.run_until(lambda: ("a", 4) in cluster.answers)
