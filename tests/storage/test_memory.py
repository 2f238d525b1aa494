"""Tests of `pfsb.storage.memory`: which records survive a simulated crash, and which do not."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import IStableStorage, StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, Record, Recovered, ViewRecord
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from tests.storage.support import batch, ordered_to, slot_records


class MemoryTestCase(SynchronousTestCase):
    """A disk, and a server on it whose writes take a tenth of a second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.disk = MemoryDisk()
        self.failures: list[Failure] = []
        self.told: list[object] = []
        self.sync_seconds = 0.1
        self.writes_at_once = False
        self.storage = self.start()

    def start(self) -> MemoryStorage:
        self.storage = MemoryStorage(
            self.disk,
            self.clock,
            lambda: self.sync_seconds,
            random.Random(7).randbytes,
            self.failures.append,
            lambda: self.writes_at_once,
        )
        self.recovered = self.storage.recover()
        return self.storage

    def restart(self) -> Recovered:
        self.start()
        return self.recovered

    def sync(self, name: object, *records: Record) -> None:
        for record in records:
            self.storage.append(record)
        self.storage.sync(lambda: self.told.append(name))

    def restarted_slots(self) -> list[int]:
        return [slot.seq for slot in self.restart().accepted]


class ForgettingTests(MemoryTestCase):
    def stored(self) -> list[int]:
        return list(self.disk.contents.slots)

    def fill(self, is_transient: bool) -> MemoryStorage:
        self.storage.crash()
        storage = MemoryStorage(
            self.disk, self.clock, float, random.Random(8).randbytes, lambda _: None, is_transient=is_transient
        )
        storage.recover()
        for record in [*ordered_to(6), AruRecord(5)]:
            storage.append(record)
        storage.sync(lambda: None)
        self.clock.advance(0)
        return storage

    def test_transient_storage_forgets_what_all_servers_have(self) -> None:
        """Transient storage forgets the slots that all servers have executed; slots that are not executed here stay,
        whatever the others have."""
        storage = self.fill(is_transient=True)
        self.assertTrue(storage.forget_history(3))
        self.assertEqual(self.stored(), [4, 5, 6])
        self.assertTrue(storage.forget_history(90))
        self.assertEqual(self.stored(), [6])
        self.assertEqual([self.disk.has(seq) for seq in (1, 6, 7)], [True, True, False])

    def test_forgotten_slots_are_not_read(self) -> None:
        storage = self.fill(is_transient=True)
        storage.forget_history(3)
        read: list[list[int]] = []
        for first in (3, 4):
            storage.read_history(first, 5, 10_000, lambda found: read.append([seq for seq, _ in found]))
        self.clock.advance(0)
        self.assertEqual(read, [[], [4, 5]])

    def test_server_cannot_start_from_a_memory_that_has_forgotten(self) -> None:
        """A server cannot start from a transient storage that has forgotten slots: it would have another state than the
        others."""
        storage = self.fill(is_transient=True)
        storage.forget_history(3)
        storage.close()
        error = self.assertRaises(StorageRefused, self.start)
        self.assertIn("up to slot 3 is forgotten", str(error))

    def test_storage_that_outlasts_its_server_forgets_nothing(self) -> None:
        """A storage that outlasts its server forgets nothing, since a restart executes all slots again."""
        storage = self.fill(is_transient=False)
        self.assertFalse(storage.forget_history(5))
        self.assertEqual(self.stored(), [1, 2, 3, 4, 5, 6])


class MemorySyncTests(MemoryTestCase):
    """Memory storage gives the promises of the real disk."""

    def test_interface_is_provided(self) -> None:
        """Memory storage provides the interface of a stable storage."""
        verifyObject(IStableStorage, self.storage)

    def test_position_counts_the_groups_that_are_whole_on_disk(self) -> None:
        """The position counts the groups that are whole on disk: those that a crash has kept, though the server was not
        told, count; a torn group does not."""
        self.sync("first", *slot_records([1]))
        self.assertEqual(self.storage.position, 1, "the start counts")
        self.clock.advance(0.1)
        self.assertEqual(self.storage.position, 2)
        self.sync("second", *slot_records([2]))
        self.sync("third", *slot_records([3, 4]))
        self.storage.crash(groups_kept=1, records_torn=1)
        self.restart()
        self.assertEqual((self.storage.position, sorted(self.disk.contents.slots)), (4, [1, 2, 3]))

    def test_durable_after_the_time_a_write_takes(self) -> None:
        """The callback that records are durable comes after the time of a write, and not earlier."""
        self.sync("first", *slot_records([1]))
        self.clock.advance(0.09)
        self.assertEqual((self.told, self.disk.contents.slots), ([], {}))
        self.assertAlmostEqual(self.storage.seconds_left, 0.01)
        self.clock.advance(0.02)
        self.assertEqual((self.told, list(self.disk.contents.slots)), (["first"], [1]))
        self.assertEqual(self.storage.seconds_left, 0.0)

    def test_instant_disk_is_not_synchronous(self) -> None:
        """On a disk that takes no time, callbacks still come after `sync` has returned, so that turns never nest."""
        self.sync_seconds = 0.0
        self.sync("first", *slot_records([1]))
        self.sync("empty")
        self.assertEqual(self.told, [])
        self.clock.advance(0)
        self.assertEqual(self.told, ["first", "empty"])

    def test_write_at_once_is_told_before_sync_returns(self) -> None:
        """A write that takes no time is told before `sync` returns, but not while another write is under way: records
        that come meanwhile wait, and are written together."""
        self.writes_at_once = True
        self.sync("first", *slot_records([1]))
        self.assertEqual((self.told, list(self.disk.contents.slots)), (["first"], [1]))
        self.writes_at_once = False
        self.sync("second", *slot_records([2]))
        self.writes_at_once = True
        self.sync("third", *slot_records([3]))
        self.assertEqual(self.told, ["first"])
        self.clock.pump([0.11, 0.11])
        self.assertEqual(self.told, ["first", "second", "third"])

    def test_failed_write_at_once_is_reported(self) -> None:
        """A failed write at once is reported, and no callback says that its records are durable."""
        self.writes_at_once = True
        self.storage.fail_next(OSError("no space left on device"))
        self.sync("first", *slot_records([1]))
        self.assertEqual([failure.type for failure in self.failures], [OSError])
        self.assertEqual((self.told, self.disk.contents.slots), ([], {}))

    def test_syncs_during_a_write_make_one_group(self) -> None:
        """Syncs during a write make one group after that, as on the real disk."""
        for seq in range(1, 5):
            self.sync(seq, *slot_records([seq]))
        self.clock.advance(0.1)
        self.assertEqual(self.told, [1])
        self.clock.advance(0.1)
        self.assertEqual(self.told, [1, 2, 3, 4])
        counters = self.storage.counters
        self.assertEqual((counters.groups, counters.records, counters.batch_bytes), (2, 4, 4 * len("slot 1")))

    def test_sync_without_records_waits_for_the_write_under_way(self) -> None:
        """The turn of the sync may have seen what that write holds, so its messages must wait for the write."""
        self.sync("first", *slot_records([1]))
        self.sync("empty")
        self.clock.advance(0.05)
        self.assertEqual(self.told, [])
        self.clock.advance(0.05)
        self.assertEqual((self.told, self.storage.counters.groups), (["first", "empty"], 1))

    def test_failed_write_is_reported_once_and_never_tried_again(self) -> None:
        """A failed write is reported once and never tried again: nothing of its group is on disk, no callback is
        called, and nothing more is written."""
        self.sync("first", *slot_records([1]))
        self.storage.fail_next(OSError("disk I/O error"))
        self.sync("second", *slot_records([2]))
        self.clock.advance(0.1)
        self.sync("third", *slot_records([3]))
        self.clock.advance(1)
        self.assertEqual([str(failure.value) for failure in self.failures], ["disk I/O error"])
        self.assertEqual((self.told, self.restarted_slots()), ([], []))

    def test_callback_that_raises_stops_the_storage(self) -> None:
        """A callback that raises stops the storage, as an exception in a turn stops the server."""
        self.storage.append(ViewRecord(1, 1))
        self.storage.sync(lambda: 1 // 0)
        self.sync("later", ViewRecord(2, 2))
        self.clock.advance(1)
        self.assertEqual([failure.type for failure in self.failures], [ZeroDivisionError])
        self.assertEqual(self.told, [])

    def test_close_writes_what_waits(self) -> None:
        """`close` writes at once, and the callbacks that wait are called by the clock."""
        self.sync("first", *slot_records([1]))
        self.sync("second", *slot_records([2]))
        self.storage.append(slot_records([3])[0])
        self.storage.close()
        self.storage.close()
        self.assertEqual(self.told, [])
        self.assertEqual(self.restarted_slots(), [1, 2, 3])
        self.clock.advance(0)
        self.assertEqual(self.told, ["first", "second"])


class MemoryCrashTests(MemoryTestCase):
    """Tests of crashes: records that were not synced are lost, and the last write may be torn."""

    def setUp(self) -> None:
        super().setUp()
        self.sync("durable", *slot_records([1]))
        self.clock.advance(0.1)
        self.sync("under way", *slot_records([2, 3]))
        self.sync("waiting", *slot_records([4, 5]))
        self.storage.append(slot_records([6])[0])

    def test_what_was_not_durable_is_lost(self) -> None:
        """In a crash, records that were not durable are lost, and no callback is called."""
        self.storage.crash()
        self.clock.advance(1)
        self.assertEqual((self.told, self.restarted_slots()), (["durable"], [1]))

    def test_groups_may_have_arrived_in_order(self) -> None:
        """A crash may leave the first groups that were being written, in their order; records without a sync never
        arrive."""
        self.assertEqual(self.storage.pending_groups(), [2, 2])
        self.storage.crash(groups_kept=1)
        self.assertEqual(self.restarted_slots(), [1, 2, 3])

    def test_all_groups_may_have_arrived(self) -> None:
        """A crash may leave all groups that were being written, but no record without a sync."""
        self.storage.crash(groups_kept=2, records_torn=9)
        self.assertEqual(self.restarted_slots(), [1, 2, 3, 4, 5])

    def test_last_group_may_be_torn(self) -> None:
        """The first records of a torn group are on disk, the others are not."""
        self.storage.crash(groups_kept=1, records_torn=1)
        self.assertEqual(self.restarted_slots(), [1, 2, 3, 4])

    def test_crashed_server_writes_nothing_any_more(self) -> None:
        """A crashed server writes nothing any more, also when its storage is closed."""
        self.storage.crash()
        self.sync("late", *slot_records([7]))
        self.storage.close()
        self.clock.advance(1)
        self.assertEqual((self.told, self.restarted_slots()), (["durable"], [1]))

    def test_identity_stays_and_incarnation_grows(self) -> None:
        """After a restart the storage has the same identity and a higher incarnation: both belong to the disk."""
        before = self.recovered
        self.storage.crash()
        after = self.restart()
        self.assertEqual((after.identity, after.incarnation), (before.identity, 2))
        self.assertEqual(len(after.identity), 8)


class MemoryRefusalTests(MemoryTestCase):
    """Tests of those refusals to start that are possible without files."""

    def test_disk_in_use(self) -> None:
        """A disk that a running server uses is refused: a simulated server must be dead or closed before it is started
        again."""
        error = self.assertRaises(StorageRefused, self.start)
        self.assertIn("in use by another server", str(error))

    def test_gap_in_the_history(self) -> None:
        """A history with a gap is refused: a protocol that raises Local_Aru past a hole is found this way."""
        self.sync("first", *ordered_to(1), *slot_records([3]), AruRecord(3))
        self.storage.close()
        error = self.assertRaises(StorageRefused, self.start)
        self.assertIn("slot 2 is missing from the history, which should hold every slot from 1 to 3", str(error))


class MemoryReadHistoryTests(MemoryTestCase):
    """Section 5.6: reading ordered slots, as on the real disk."""

    def read(self, first: int, last: int, bytes_max: int = 10**6) -> list[tuple[int, Batch]]:
        answers: list[list[tuple[int, Batch]]] = []
        self.storage.read_history(first, last, bytes_max, answers.append)
        self.assertEqual(answers, [])
        self.clock.advance(0)
        return answers[0]

    def test_range_is_served(self) -> None:
        """A range is served with both ends, without slots above Local_Aru, with at least one batch, and beginning with
        `first` or not at all."""
        self.sync("first", *ordered_to(5), *slot_records([6]))
        self.assertEqual(self.read(2, 4), [])
        self.clock.advance(0.1)
        self.assertEqual(self.read(2, 4), [(seq, batch(f"slot {seq}")) for seq in (2, 3, 4)])
        self.assertEqual([seq for seq, _ in self.read(4, 9)], [4, 5])
        self.assertEqual([seq for seq, _ in self.read(1, 5, bytes_max=len("slot 1") * 2)], [1, 2])
        self.assertEqual([seq for seq, _ in self.read(3, 5, bytes_max=0)], [3])
        self.assertEqual((self.read(6, 6), self.read(0, 5)), ([], []))

    def test_dead_server_is_not_answered(self) -> None:
        """When a server has crashed, its request for slots is not answered."""
        answers: list[object] = []
        self.storage.read_history(1, 1, 10, answers.append)
        self.storage.crash()
        self.clock.advance(1)
        self.assertEqual(answers, [])
