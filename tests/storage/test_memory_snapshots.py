"""Tests of `pfsb.storage.memory_snapshots`: the steps of a disk, and a crash between any two of them."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import IFetchedSnapshot, ISnapshotFile, StorageRefused
from pfsb.paxos.records import Accepted, AruRecord, OrderedRecord, ProposalRecord, Record, SnapshotRecord
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from pfsb.storage.memory_snapshots import OPEN_MAX
from tests.storage.support import batch, ordered_to, slot_records

CLUSTER = b"cluster!"


def pieces(seq: int) -> list[Piece]:
    return [Piece("kv", bytes([seq, number]) * 20) for number in range(3)]


def snapshot_of(seq: int) -> tuple[SnapshotName, bytes]:
    """The snapshot of this slot, as every server has it."""
    encoder = SnapshotEncoder(seq, CLUSTER)
    parts = [encoder.head(), *map(encoder.piece, pieces(seq)), encoder.end()]
    return encoder.name, b"".join(parts)


class MemorySnapshotTestCase(SynchronousTestCase):
    """A disk each of whose steps takes 0.1 s."""

    kept_slots = 0
    is_transient = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.disk = MemoryDisk()
        self.told: list[object] = []
        self.failures: list[Failure] = []
        self.start()

    def start(self) -> None:
        self.storage = MemoryStorage(
            self.disk,
            self.clock,
            lambda: 0.1,
            random.Random(7).randbytes,
            self.failures.append,
            is_transient=self.is_transient,
            kept_slots=self.kept_slots,
        )
        self.recovered = self.storage.recover()

    def restart(self, **kept: int) -> None:
        self.storage.crash(**kept)
        self.start()

    def write(self, *records: Record) -> None:
        """Write the records, and wait until they are on the disk; what they make superfluous may be deleted later."""
        for record in records:
            self.storage.append(record)
        self.storage.sync(lambda: self.told.append("written"))
        self.clock.advance(0.1)
        self.assertEqual(self.told.pop(), "written")

    def begin(self, seq: int) -> ISnapshotFile:
        file = self.storage.write_snapshot(seq, CLUSTER)
        for piece in pieces(seq):
            file.write(piece)
        return file

    def make(self, seq: int) -> SnapshotName:
        names: list[SnapshotName] = []
        self.begin(seq).finish(names.append)
        self.run_until(names)
        return names[0]

    def run_until(self, told: list[Any]) -> None:
        """Let time pass until `told` has an entry, and fail if none comes."""
        for _ in range(10):
            if not told:
                self.clock.advance(0.1)
        self.assertEqual(len(told), 1)

    def fetch(self, seq: int) -> SnapshotName:
        name, data = snapshot_of(seq)
        fetched = self.storage.fetch_snapshot(name)
        fetched.write(data)
        told: list[bool] = []
        fetched.finish(told.append)
        self.run_until(told)
        self.assertEqual(told, [True])
        return name

    def read(self, name: SnapshotName, offset: int = 0, bytes_max: int = 10**6) -> bytes:
        answers: list[bytes] = []
        self.storage.read_snapshot(name, offset, bytes_max, answers.append)
        self.assertEqual(answers, [])
        self.clock.advance(0)
        return answers[0]

    def read_history(self, first: int, last: int) -> list[int]:
        answers: list[list[int]] = []
        self.storage.read_history(first, last, 10**6, lambda found: answers.append([seq for seq, _ in found]))
        self.clock.advance(0)
        return answers[0]


class MakingTests(MemorySnapshotTestCase):
    """Snapshots that this server makes."""

    def test_interfaces_are_provided(self) -> None:
        """Memory storage provides the interfaces for snapshots."""
        verifyObject(ISnapshotFile, self.storage.write_snapshot(1, CLUSTER))
        verifyObject(IFetchedSnapshot, self.storage.fetch_snapshot(snapshot_of(2)[0]))

    def test_each_step_takes_the_time_of_a_write(self) -> None:
        """The pieces that wait are written together; then the file gets its name; then its maker is told. Each step
        takes the time of a write."""
        file = self.begin(3)
        file.finish(self.told.append)
        self.assertEqual(file.waiting_bytes, 120)
        self.clock.advance(0.1)
        self.assertEqual((file.waiting_bytes, self.disk.snapshots), (0, {}))
        self.clock.advance(0.09)
        self.assertEqual(self.disk.snapshots, {})
        self.clock.advance(0.02)
        name, data = snapshot_of(3)
        self.assertEqual(self.disk.snapshots, {name: data})
        self.assertEqual(self.told, [])
        self.clock.advance(0.1)
        self.assertEqual(self.told, [name])
        self.assertEqual(self.storage.counters.snapshot_bytes, len(data))

    def test_crash_leaves_nothing_of_an_unfinished_file(self) -> None:
        """A crash leaves nothing of an unfinished file; a finished one is left, though its maker was not told."""
        self.begin(3).finish(self.told.append)
        self.clock.advance(0.1)
        self.storage.crash()
        self.clock.advance(1)
        self.assertEqual((self.disk.snapshots, self.told), ({}, []))
        self.start()
        self.begin(3).finish(self.told.append)
        self.clock.advance(0.1)
        self.clock.advance(0.1)
        self.storage.crash()
        self.clock.advance(1)
        self.assertEqual((list(self.disk.snapshots), self.told), ([snapshot_of(3)[0]], []))
        self.start()
        self.assertEqual(self.disk.snapshots, {}, "no record names it")

    def test_abandoned_and_replaced_files(self) -> None:
        """The callback `finished` is not called for files that were abandoned or replaced."""
        first = self.begin(3)
        first.finish(self.told.append)
        second = self.begin(4)
        second.finish(self.told.append)
        second.abandon()
        self.clock.pump([0.1] * 6)
        self.assertEqual((self.told, self.disk.snapshots), ([], {}))
        self.assertEqual((first.has_failed, second.has_failed), (False, False))

    def test_full_disk(self) -> None:
        """On a full disk the snapshot is given up, and groups are written until the reserve is used up."""
        self.disk.free_records, self.disk.reserve_records = 5, 5
        file = self.begin(3)
        file.finish(self.told.append)
        self.clock.pump([0.1] * 4)
        self.assertEqual((file.has_failed, file.waiting_bytes, self.told), (True, 0, []))
        self.write(*slot_records([1]))
        self.assertEqual(self.failures, [])

    def test_hanging_disk(self) -> None:
        """On a disk that hangs, no step ends until the disk goes on."""
        self.begin(3).finish(self.told.append)
        self.storage.hang()
        self.clock.advance(5)
        self.assertEqual(self.disk.snapshots, {})
        self.storage.go_on()
        self.clock.pump([0, 0.1, 0.1])
        self.assertEqual(self.told, [snapshot_of(3)[0]])

    def test_failing_disk(self) -> None:
        """An error in a step of a snapshot stops the storage, as an error in a group does."""
        self.begin(3).finish(self.told.append)
        self.storage.fail_next(OSError("input/output error"))
        self.clock.pump([0.1] * 4)
        self.assertEqual([failure.type for failure in self.failures], [OSError])
        self.assertEqual((self.told, self.disk.snapshots, self.storage.running), ([], {}, False))

    def test_another_snapshot_of_the_named_slot_is_given_up(self) -> None:
        """A second, different snapshot of a slot is given up if a record names the first: that one must stay."""
        self.write(*ordered_to(3))
        self.write(SnapshotRecord(self.make(3)))
        file = self.storage.write_snapshot(3, CLUSTER)
        file.finish(self.told.append)
        self.clock.pump([0.1] * 4)
        self.assertEqual((file.has_failed, self.told), (True, []))


class NamingTests(MemorySnapshotTestCase):
    """Records that name a snapshot."""

    kept_slots = 2

    def test_start_begins_with_the_snapshot(self) -> None:
        """A start recovers the snapshot, the slots behind it, and those above Local_Aru."""
        self.write(*ordered_to(7), *slot_records([8]))
        name = self.make(6)
        self.assertIsNone(self.storage.snapshot)
        self.write(SnapshotRecord(name))
        self.assertEqual((self.storage.snapshot, self.storage.compacted), (name, 4))
        self.restart()
        found = self.recovered
        self.assertEqual((found.snapshot, found.local_aru), (name, 7))
        self.assertEqual(b"".join(found.snapshot_bytes), snapshot_of(6)[1])
        self.assertEqual([seq for seq, _ in found.ordered], [7])
        self.assertEqual([each.seq for each in found.accepted], [8])
        self.assertEqual(self.storage.compacted, 4)

    def test_slots_and_older_snapshots_are_deleted_later(self) -> None:
        """Slots and older snapshots are deleted some time after the record; a crash before leaves them, and the next
        start deletes them."""
        for is_crashed in (False, True):
            self.disk = MemoryDisk()
            self.storage.crash()
            self.start()
            self.write(*ordered_to(9))
            self.write(SnapshotRecord(self.make(3)))
            self.clock.advance(0.1)
            name = self.make(8)
            self.write(SnapshotRecord(name))
            self.assertEqual(
                (self.storage.compacted, min(self.disk.contents.slots), len(self.disk.snapshots)), (6, 2, 2)
            )
            self.assertEqual((self.read_history(6, 9), self.read_history(7, 9)), ([], [7, 8, 9]))
            if is_crashed:
                self.restart()
            else:
                self.clock.advance(0.1)
            self.assertEqual((min(self.disk.contents.slots), list(self.disk.snapshots)), (7, [name]))
            self.assertEqual([self.disk.has(seq) for seq in (1, 6, 9, 10)], [True, True, True, False])

    def test_record_that_is_lost_in_a_crash_changes_nothing(self) -> None:
        """When a crash loses the record that names a snapshot, that snapshot is deleted, and the slots are all
        there."""
        self.write(*ordered_to(9))
        self.make(8)
        self.storage.append(SnapshotRecord(snapshot_of(8)[0]))
        self.storage.sync(lambda: None)
        self.restart()
        self.assertEqual(
            (self.recovered.snapshot, self.storage.compacted, len(list(self.recovered.ordered))), (None, 0, 9)
        )

    def test_record_that_a_crash_has_kept(self) -> None:
        """When a crash keeps the record that names a snapshot, the next start uses the snapshot, though the server was
        not told."""
        for kept in ({"groups_kept": 1}, {"records_torn": 1}):
            self.disk = MemoryDisk()
            self.storage.crash()
            self.start()
            self.write(*ordered_to(9))
            name = self.make(8)
            self.storage.append(SnapshotRecord(name))
            self.storage.sync(lambda: None)
            self.restart(**kept)
            self.assertEqual((self.recovered.snapshot, self.storage.compacted), (name, 6))

    def test_slots_above_an_earlier_snapshot_are_kept_for_a_server_that_fetches_it(self) -> None:
        self.write(*ordered_to(9))
        self.storage.kept_above = 4
        self.write(SnapshotRecord(self.make(8)))
        self.assertEqual((self.storage.compacted, self.read_history(5, 9)), (4, [5, 6, 7, 8, 9]))
        self.storage.kept_above = None
        self.write(SnapshotRecord(self.make(9)))
        self.assertEqual(self.storage.compacted, 7)

    def test_snapshot_of_another_server_hides_all_slots_up_to_its_own(self) -> None:
        """A snapshot that was fetched hides all slots up to its own: a slot below may hold a proposal that was never
        ordered."""
        self.write(*ordered_to(3), ProposalRecord(4, 1, batch("not ordered")), OrderedRecord(9, batch("nine")))
        name = self.fetch(8)
        self.write(SnapshotRecord(name))
        self.assertEqual((self.storage.compacted, self.read_history(4, 4), self.read_history(3, 4)), (8, [], []))
        self.restart()
        self.assertEqual((self.recovered.local_aru, list(self.recovered.ordered)), (8, []))
        self.assertEqual(self.recovered.accepted, [Accepted(9, 0, batch("nine"))])
        self.write(AruRecord(9))
        self.assertEqual(self.read_history(9, 9), [9])

    def test_snapshot_that_is_lost_or_damaged(self) -> None:
        """Without the snapshot, or with a damaged one, a start recovers all but the state, also in later incarnations,
        until a snapshot takes its place (Departure 58)."""
        self.write(*ordered_to(9), ProposalRecord(10, 1, batch("ten")))
        name = self.make(8)
        self.write(SnapshotRecord(name))
        self.storage.close()
        data = self.disk.snapshots[name]
        self.disk.snapshots[name] = data[:-1] + b"?"
        for _ in range(2):
            self.start()
            found = self.recovered
            self.assertEqual((found.lost, found.snapshot, self.storage.snapshot), (name, None, None))
            self.assertEqual((found.local_aru, list(found.ordered), list(found.snapshot_bytes)), (9, [], []))
            self.assertEqual([seq for seq, _ in found.ordered_after(8)], [9])
            self.assertEqual(found.accepted, [Accepted(10, 1, batch("ten"))])
            self.storage.fetch_snapshot(name).write(data[:20])
            self.clock.pump([0.1] * 3)
            self.storage.close()
        self.start()
        fetched = self.storage.fetch_snapshot(name)
        self.assertEqual(fetched.size, 40)
        self.storage.close()
        self.disk.parts.clear()
        self.start()
        self.assertEqual(self.fetch(8), name)
        self.write(SnapshotRecord(name))
        self.restart()
        self.assertEqual((self.recovered.lost, self.recovered.snapshot), (None, name))
        self.assertEqual([seq for seq, _ in self.recovered.ordered], [9])

    def test_gap_behind_the_snapshot_is_refused(self) -> None:
        """A gap behind the snapshot is refused, as a gap in a history without a snapshot is."""
        self.write(*ordered_to(9))
        self.write(SnapshotRecord(self.make(8)))
        self.storage.close()
        del self.disk.contents.slots[9]
        error = self.assertRaises(StorageRefused, self.start)
        self.assertIn("slot 9 is missing from the history, which should hold every slot from 7 to 9", str(error))

    def test_copy_of_a_disk_has_its_snapshots(self) -> None:
        """A copy of a disk has its snapshots; later changes of either disk do not change the other."""
        self.write(*ordered_to(9))
        name = self.make(8)
        self.write(SnapshotRecord(name))
        wanted = snapshot_of(20)[0]
        self.storage.fetch_snapshot(wanted).write(b"a part")
        self.clock.pump([0.1] * 3)
        copy = self.disk.copy()
        self.write(OrderedRecord(10, batch("10")), AruRecord(10))
        self.write(SnapshotRecord(self.make(10)))
        self.clock.pump([0.1] * 3)
        self.storage.crash()
        self.assertEqual((list(self.disk.snapshots), self.disk.parts), ([snapshot_of(10)[0]], {wanted: b"a part"}))
        self.disk = copy
        self.start()
        self.assertEqual((self.recovered.snapshot, self.storage.compacted), (name, 6))
        self.assertEqual((list(self.disk.snapshots), self.disk.parts), ([name], {wanted: b"a part"}))


class FetchingTests(MemorySnapshotTestCase):
    """Snapshots that come from another server."""

    def setUp(self) -> None:
        super().setUp()
        self.wanted, self.data = snapshot_of(9)
        self.storage.fetch_snapshot(self.wanted).write(self.data[:50])
        self.clock.advance(0.1)

    def finish(self) -> bool:
        told: list[bool] = []
        self.storage.fetch_snapshot(self.wanted).finish(told.append)
        self.run_until(told)
        return told[0]

    def test_fetch_goes_on_after_a_crash(self) -> None:
        """After a crash a fetch goes on with the bytes of all whole steps, and perhaps the first bytes of the next
        one."""
        for kept in (0, 10):
            self.storage.fetch_snapshot(self.wanted).write(self.data[50:90])
            self.assertEqual(self.storage.fetch_snapshot(self.wanted).size, 90)
            self.restart(bytes_kept=kept)
            self.assertEqual(self.storage.fetch_snapshot(self.wanted).size, 50 + kept)
        self.storage.fetch_snapshot(self.wanted).write(self.data[60:])
        self.assertTrue(self.finish())
        self.assertEqual((self.disk.parts, self.read(self.wanted)), ({}, self.data))

    def test_wrong_bytes_are_found_at_the_end(self) -> None:
        """Wrong bytes are found at the end of a fetch, and the next fetch begins anew."""
        for change in (self.data[50:-1], b"?" + self.data[51:], self.data[50:] + b"?"):
            self.storage.fetch_snapshot(self.wanted).write(change)
            self.assertFalse(self.finish())
            self.assertEqual(self.storage.fetch_snapshot(self.wanted).size, 0)
            self.storage.fetch_snapshot(self.wanted).write(self.data[:50])

    def test_fetch_of_another_snapshot_keeps_the_longest_of_the_former_ones(self) -> None:
        """When a fetch of another snapshot begins, only the longest of the unfinished files stays, as on a real
        disk."""
        for seq in (12, 13):
            name = snapshot_of(seq)[0]
            self.storage.fetch_snapshot(name).write(b"a part")
            self.clock.pump([0.1] * 3)
            self.assertEqual({*self.disk.parts}, {self.wanted, name})
            self.assertEqual(self.storage.fetch_snapshot(self.wanted).size, 50)
        self.restart()
        self.storage.fetch_snapshot(self.wanted).write(self.data[50:])
        self.assertTrue(self.finish())

    def test_later_snapshot_of_its_own_ends_the_fetch(self) -> None:
        """A fetch ends when the server has made a later snapshot itself."""
        fetched = self.storage.fetch_snapshot(self.wanted)
        self.write(*ordered_to(10))
        self.write(SnapshotRecord(self.make(10)))
        self.assertEqual((fetched.has_failed, self.disk.parts), (True, {}))

    def test_full_disk(self) -> None:
        """On a full disk the fetched file is given up and deleted."""
        fetched = self.storage.fetch_snapshot(self.wanted)
        self.disk.free_records = self.disk.reserve_records = 3
        fetched.write(self.data[50:])
        self.clock.advance(0.1)
        self.assertEqual((fetched.has_failed, self.disk.parts), (True, {}))

    def test_snapshot_that_is_there_already(self) -> None:
        """A fetch of a snapshot that is there already is finished at once."""
        self.restart()
        self.wanted = self.make(9)
        self.assertEqual(self.storage.fetch_snapshot(self.wanted).size, self.wanted.size)
        self.assertTrue(self.finish())

    def test_snapshot_that_is_being_read_outlives_its_successor(self) -> None:
        """A snapshot that is being read can be read to its end when a later one has replaced it, like an open file."""
        self.write(*ordered_to(9))
        name = self.make(5)
        self.write(SnapshotRecord(name))
        data = snapshot_of(5)[1]
        self.assertEqual(self.read(name, 0, 30), data[:30])
        later = self.make(9)
        self.write(SnapshotRecord(later))
        self.clock.advance(0.1)
        self.assertEqual(list(self.disk.snapshots), [later])
        self.assertEqual(self.read(name, 30), data[30:])
        for seq in range(9, 9 + OPEN_MAX):
            self.assertEqual(self.read(self.make(seq), 0, 30), snapshot_of(seq)[1][:30])
        self.assertEqual(self.read(name, 30), b"")


class TransientTests(MemorySnapshotTestCase):
    """A storage that ends with its server may keep snapshots, too."""

    is_transient = True
    kept_slots = 3

    def test_forgetting_and_compacting_go_side_by_side(self) -> None:
        """Slots are dropped both when all servers have them and when a snapshot of this server holds them; neither
        disturbs the other."""
        self.write(*ordered_to(9))
        self.storage.forget_history(2)
        self.write(SnapshotRecord(self.make(8)))
        self.clock.advance(0.1)
        self.assertEqual((self.disk.forgotten, self.storage.compacted), (2, 5))
        self.assertEqual(sorted(self.disk.contents.slots), [6, 7, 8, 9])
        self.assertTrue(self.storage.forget_history(7))
        self.assertEqual((self.disk.forgotten, self.storage.compacted), (7, 5))
        self.assertEqual((self.read_history(6, 9), self.read_history(8, 9)), ([], [8, 9]))
        self.assertEqual([self.disk.has(seq) for seq in (1, 5, 7, 8, 10)], [True, True, True, True, False])

    def test_start_needs_a_snapshot_of_all_that_is_forgotten(self) -> None:
        """A start needs a snapshot of all slots that were forgotten: without one the server would have another state
        than the others."""
        self.write(*ordered_to(9))
        self.write(SnapshotRecord(self.make(6)))
        self.storage.forget_history(6)
        self.storage.close()
        self.start()
        self.assertEqual([seq for seq, _ in self.recovered.ordered], [7, 8, 9])
        self.storage.forget_history(7)
        self.storage.close()
        self.assertIn("up to slot 7 is forgotten", str(self.assertRaises(StorageRefused, self.start)))


class CrashTests(MemorySnapshotTestCase):
    """A crash after each of many small delays: the next start finds everything that was acknowledged, or a later
    state."""

    def test_crash_between_any_two_steps(self) -> None:
        """Slots that were durable before a crash are there, or a snapshot that holds them is."""
        seen = set()
        for tenths in range(60):
            self.storage.crash()
            self.disk, self.told, self.kept_slots = MemoryDisk(), [], 1
            self.start()
            self.live()
            self.clock.pump([0.05] * tenths)
            durable = max((seq for seq in self.told if isinstance(seq, int)), default=0)
            self.restart()
            found = self.recovered
            start = 0 if found.snapshot is None else found.snapshot.seq
            self.assertEqual([seq for seq, _ in found.ordered], list(range(start + 1, found.local_aru + 1)))
            self.assertGreaterEqual(found.local_aru, durable)
            if found.snapshot is not None:
                self.assertEqual(b"".join(found.snapshot_bytes), snapshot_of(found.snapshot.seq)[1])
            seen.add((start, len(self.disk.snapshots), self.storage.compacted))
        self.assertEqual(seen, {(0, 0, 0), (4, 1, 3), (8, 1, 7)})

    def live(self) -> None:
        """Order slots, and make a snapshot of every fourth."""
        self.next = 1
        self.order()

    def order(self) -> None:
        seq = self.next
        self.next += 1
        self.storage.append(OrderedRecord(seq, batch(f"slot {seq}")))
        self.storage.append(AruRecord(seq))
        self.storage.sync(lambda: self.ordered(seq))

    def ordered(self, seq: int) -> None:
        self.told.append(seq)
        if seq % 4 == 0:
            self.begin(seq).finish(self.name)
        if seq < 11:
            self.order()

    def name(self, name: SnapshotName) -> None:
        self.storage.append(SnapshotRecord(name))
        self.storage.sync(lambda: None)
