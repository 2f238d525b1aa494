"""Tests of `pfsb.storage.log.snapshots`: files that are made, fetched, named and read, and which files are deleted
then."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, current_thread

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pfsb.paxos.interfaces import IFetchedSnapshot, ISnapshotFile, StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import Accepted, AruRecord, OrderedRecord, ProposalRecord, SnapshotRecord, ViewRecord
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.storage import directory as directory_module
from pfsb.storage.log import maker as maker_module
from pfsb.storage.log import snapshot_files
from pfsb.storage.log import snapshots as snapshots_module
from pfsb.storage.log import storage as storage_module
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import segment_path
from pfsb.storage.log.snapshot_files import fault_of
from pfsb.storage.room import Room
from tests.storage.support import Gate, Server, batch, ordered_to, slot_records

CLUSTER = b"cluster!"
ROOM_BYTES = 65_536
"""Size of the segments in these tests."""
BATCH_BYTES = 6_000


def pieces(seq: int, count: int = 3, size: int = 40_000) -> list[Piece]:
    """The pieces of the snapshot of slot `seq`."""
    return [Piece("kv", bytes([seq % 256, number % 256]) * (size // 2)) for number in range(count)]


def snapshot_of(seq: int, count: int = 3, size: int = 40_000) -> tuple[SnapshotName, bytes]:
    """The snapshot of slot `seq` that `SnapshotTestCase.make` makes, as another server has it."""
    encoder = SnapshotEncoder(seq, CLUSTER)
    parts = [encoder.head(), *map(encoder.piece, pieces(seq, count, size)), encoder.end()]
    return encoder.name, b"".join(parts)


def large(seqs: Sequence[int]) -> list[OrderedRecord]:
    return [OrderedRecord(seq, Batch(bytes([seq]) * BATCH_BYTES)) for seq in seqs]


class SnapshotTestCase(SynchronousTestCase):
    """A server with small segments, whose history of large slots goes over several of them."""

    slack = Slack(0)

    def setUp(self) -> None:
        self.patch(storage_module, "room_of", lambda number: ROOM_BYTES)
        self.patch(maker_module, "room_of", lambda number: ROOM_BYTES)
        self.patch(directory_module, "WATCH_SECONDS", 0.01)
        self.directory = Path(self.mktemp())
        self.snapshots = self.directory / "snapshots"
        self.events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.server = self.started()

    def started(self, directory: Path | None = None) -> Server:
        server = Server(directory or self.directory, slack=self.slack)
        self.addCleanup(server.storage.close)
        self.recovered = server.storage.recover()
        return server

    def restart(self) -> None:
        self.server.storage.close()
        self.server = self.started()

    def copy(self) -> Path:
        """The directory as a crash of the process would leave it now."""
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        return copy

    def fill(self, first: int, last: int) -> None:
        """Order and execute these slots."""
        for seq in range(first, last + 1):
            self.server.write(*large([seq]), AruRecord(seq))
            self.server.clock.run_until(lambda: self.is_segment_ready())

    def is_segment_ready(self) -> bool:
        """Whether the next segment is there if it was asked for: then the log never grows beyond its segments."""
        log = self.directory / "log"
        return not (log / "next.new").exists()

    def make(self, seq: int, count: int = 3, size: int = 40_000) -> SnapshotName:
        """Make the snapshot of this slot. It is not named by a record yet."""
        names: list[SnapshotName] = []
        file = self.server.storage.write_snapshot(seq, CLUSTER)
        for piece in pieces(seq, count, size):
            file.write(piece)
        file.finish(names.append)
        self.server.clock.run_until(lambda: bool(names))
        return names[0]

    def name(self, name: SnapshotName) -> None:
        """Have a record name the snapshot, and wait until everything older is deleted."""
        self.server.write(SnapshotRecord(name))
        self.settle()

    def settle(self) -> None:
        """Wait until the thread of snapshots has done all its jobs."""
        self.server.clock.run_what_came(0.02)
        store = self.server.storage.snapshot_store
        assert store is not None
        done = Event()
        store.thread.do(done.set)
        self.assertTrue(done.wait(10))
        self.server.clock.run_what_came(0.02)

    def read(self, name: SnapshotName, offset: int = 0, bytes_max: int = 10**9) -> bytes:
        answers: list[bytes] = []
        self.server.storage.read_snapshot(name, offset, bytes_max, answers.append)
        assert not answers, "answered before read_snapshot returned"
        self.server.clock.run_until(lambda: bool(answers))
        return answers[0]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.snapshots.iterdir()) if self.snapshots.exists() else []

    def segments(self) -> list[int]:
        """Numbers of the segments that are there; the head that stands in the place of the first one does not count."""
        return [int(path.stem) for path in sorted((self.directory / "log").glob("*.log")) if path.stat().st_size > 4096]

    def warnings(self) -> list[str]:
        return [str(event["reason"]) for event in self.events if "is given up" in str(event.get("log_format"))]


class MakingTests(SnapshotTestCase):
    """Snapshots that this server makes."""

    def test_interfaces_are_provided(self) -> None:
        """The storage provides the interfaces for snapshots."""
        verifyObject(ISnapshotFile, self.server.storage.write_snapshot(1, CLUSTER))
        verifyObject(IFetchedSnapshot, self.server.storage.fetch_snapshot(snapshot_of(2)[0]))

    def test_file_has_the_bytes_of_the_encoder_and_is_named_by_its_slot(self) -> None:
        """The file of a snapshot has the bytes of the encoder, and is named by its slot: every server has the same
        bytes under the same name."""
        name = self.make(7)
        expected, data = snapshot_of(7)
        self.assertEqual(name, expected)
        self.assertEqual((self.snapshots / "000000000007.snapshot").read_bytes(), data)
        self.assertEqual(self.files(), ["000000000007.snapshot"])
        counters = self.server.storage.counters
        self.assertEqual(counters.snapshot_bytes, len(data))

    def test_large_snapshot_is_forced_to_disk_in_small_steps(self) -> None:
        """A large snapshot is forced to disk in small steps: one large sync would hold up groups that wait for the same
        disk."""
        forced: list[int] = []
        unforced = [0]
        write, sync = os.pwrite, os.fdatasync

        def watch_write(descriptor: int, data: bytes, offset: int) -> int:
            if current_thread().name == "pfsb storage snapshots":
                unforced[0] += len(data)
            return write(descriptor, data, offset)

        def watch_sync(descriptor: int) -> None:
            if current_thread().name == "pfsb storage snapshots":
                forced.append(unforced[0])
                unforced[0] = 0
            sync(descriptor)

        self.patch(os, "pwrite", watch_write)
        self.patch(os, "fdatasync", watch_sync)
        name = self.make(1, count=30, size=100_000)
        self.assertEqual(len(forced), name.size // snapshots_module.STEP_BYTES)
        self.assertEqual(set(forced), {snapshots_module.STEP_BYTES})

    def test_caller_hears_how_much_waits(self) -> None:
        """The caller is told how many bytes wait for the disk, so that it can wait and the pieces do not pile up in
        memory."""
        held = Event()
        self.addCleanup(held.set)
        store = self.server.storage.snapshot_store
        assert store is not None
        store.thread.do(lambda: held.wait(10))
        file = self.server.storage.write_snapshot(1, CLUSTER)
        for number, piece in enumerate(pieces(1), start=1):
            file.write(piece)
            self.assertEqual(file.waiting_bytes, number * 40_000)
        held.set()
        self.server.clock.run_until(lambda: file.waiting_bytes == 0)
        self.assertFalse(file.has_failed)

    def test_unfinished_file_is_deleted_by_the_next_start(self) -> None:
        """An unfinished file is deleted by the next start: the next snapshot is made from its first piece on."""
        file = self.server.storage.write_snapshot(1, CLUSTER)
        for piece in pieces(1):
            file.write(piece)
        self.settle()
        self.assertEqual(self.files(), ["snapshot.new"])
        self.restart()
        self.assertEqual((self.files(), self.recovered.snapshot), ([], None))

    def test_abandoned_file_is_deleted(self) -> None:
        """An abandoned file is deleted, and its callback `finished` is not called."""
        told: list[object] = []
        file = self.server.storage.write_snapshot(1, CLUSTER)
        file.write(pieces(1)[0])
        file.finish(told.append)
        file.abandon()
        self.settle()
        self.assertEqual(told, [])
        self.assertNotIn("snapshot.new", self.files())

    def test_new_file_replaces_one_that_is_not_finished(self) -> None:
        """A new file replaces one that is not finished: the bytes of the first do not get into the second."""
        told: list[object] = []
        first = self.server.storage.write_snapshot(1, CLUSTER)
        for piece in pieces(1, count=9):
            first.write(piece)
        name = self.make(2)
        first.finish(told.append)
        self.settle()
        self.assertEqual((told, self.files()), ([], ["000000000002.snapshot"]))
        self.assertIsNone(fault_of(self.snapshots / self.files()[0], name))

    def assertGivenUp(self) -> None:
        """Require that the snapshot is given up and deleted, which is logged once, and that groups are written as
        before."""
        told: list[object] = []
        file = self.server.storage.write_snapshot(1, CLUSTER)
        for piece in pieces(1, count=9):
            file.write(piece)
        file.finish(told.append)
        self.server.clock.run_until(lambda: file.has_failed)
        self.settle()
        self.assertEqual((told, self.files(), file.waiting_bytes), ([], [], 0))
        self.assertEqual(len(self.warnings()), 1)
        file.write(pieces(1)[0])
        self.settle()
        self.assertEqual((self.files(), file.waiting_bytes), ([], 0))
        self.server.write(*slot_records([1]))
        self.assertEqual(self.server.failures, [])

    def test_snapshot_leaves_the_reserve_of_the_disk(self) -> None:
        """A snapshot leaves the reserve of the disk free for the log."""
        self.patch(Room, "has", lambda room, size: False)
        self.assertGivenUp()
        self.assertIn("no more room than its reserve", self.warnings()[0])

    def test_disk_without_room_ends_the_snapshot_and_not_the_server(self) -> None:
        """A disk without room ends the snapshot and not the server."""
        write = os.pwrite

        def refuse(descriptor: int, data: bytes, offset: int) -> int:
            if current_thread().name == "pfsb storage snapshots" and offset > 100_000:
                raise OSError(errno.ENOSPC, "no space left on device")
            return write(descriptor, data, offset)

        self.patch(os, "pwrite", refuse)
        self.assertGivenUp()

    def test_other_error_of_the_disk_stops_the_server(self) -> None:
        """Any other error of the disk in a snapshot stops the server."""
        write = os.pwrite

        def fail(descriptor: int, data: bytes, offset: int) -> int:
            if current_thread().name == "pfsb storage snapshots":
                raise OSError(errno.EIO, "input/output error")
            return write(descriptor, data, offset)

        self.patch(os, "pwrite", fail)
        self.server.storage.write_snapshot(1, CLUSTER)
        self.server.clock.run_until(lambda: bool(self.server.failures))
        self.assertEqual([failure.type for failure in self.server.failures], [OSError])

    def test_another_snapshot_of_the_named_slot_is_given_up(self) -> None:
        """Another snapshot of a slot is given up if a record names the first: a later version of pfsb may make other
        bytes of the same state."""
        name = self.make(2)
        self.name(name)
        told: list[object] = []
        file = self.server.storage.write_snapshot(2, CLUSTER)
        file.write(Piece("kv", b"other bytes"))
        file.finish(told.append)
        self.server.clock.run_until(lambda: file.has_failed)
        self.assertEqual(self.warnings(), ["there is another one of this slot already"])
        self.restart()
        self.assertEqual((self.recovered.snapshot, told), (name, []))

    def test_same_snapshot_may_be_made_again(self) -> None:
        """A snapshot may be made again, since equal bytes have one name."""
        name = self.make(2)
        self.name(name)
        self.assertEqual(self.make(2), name)
        self.restart()
        self.assertEqual(self.recovered.snapshot, name)


class NamingTests(SnapshotTestCase):
    """Records that name a snapshot."""

    def test_start_begins_with_the_snapshot(self) -> None:
        """A start recovers the snapshot, the slots behind it, and those above Local_Aru."""
        self.server.write(ViewRecord(5, 4), *ordered_to(4))
        name = self.make(3)
        self.assertIsNone(self.server.storage.snapshot, "no record names it")
        self.name(name)
        self.assertEqual(self.server.storage.snapshot, name)
        self.server.write(*slot_records([5, 6]), AruRecord(5))
        self.restart()
        found = self.recovered
        self.assertEqual((found.snapshot, found.local_aru, found.last_installed), (name, 5, 4))
        self.assertEqual(b"".join(found.snapshot_bytes), snapshot_of(3)[1])
        self.assertEqual([seq for seq, _ in found.ordered], [4, 5])
        self.assertEqual([accepted.seq for accepted in found.accepted], [6])
        self.assertEqual((self.server.storage.snapshot, self.server.storage.compacted), (name, 0))

    def test_old_segments_and_snapshots_are_deleted(self) -> None:
        """Old segments and snapshots are deleted: after a restart all that is needed is there, and the head of the
        first segment."""
        self.fill(1, 40)
        before = self.segments()
        self.assertGreater(len(before), 4)
        first = self.make(20)
        self.name(first)
        compacted = self.server.storage.compacted
        self.assertTrue(0 < compacted <= 20, compacted)
        self.assertEqual(self.segments(), [number for number in before if number >= self.segments()[0]])
        self.assertLess(len(self.segments()), len(before))
        self.name(self.make(38))
        self.assertEqual(self.files(), ["000000000038.snapshot"])
        log = scan(self.directory / "log")
        self.assertEqual(self.segments(), list(log.heads))
        self.assertGreater(log.state.first_segment, 2)
        self.assertEqual((self.directory / "log" / "0000000001.log").stat().st_size, 4_096)
        self.assertEqual(self.server.storage.counters.log_bytes, 4_096 + ROOM_BYTES * len(self.segments()))
        self.restart()
        self.assertEqual((self.recovered.local_aru, [seq for seq, _ in self.recovered.ordered]), (40, [39, 40]))
        self.fill(41, 45)
        self.assertEqual(self.server.failures, [])

    def test_slots_that_are_gone_are_not_read(self) -> None:
        """Slots that were deleted are not read: `compacted` tells the last of them, and the next slot is read."""
        self.fill(1, 40)
        self.name(self.make(30))
        compacted = self.server.storage.compacted
        self.assertEqual(self.server.read(compacted, 40), [])
        self.assertEqual(self.server.read(1, 40), [])
        self.assertEqual([seq for seq, _ in self.server.read(compacted + 1, 40)], list(range(compacted + 1, 41)))
        self.restart()
        self.assertEqual(self.server.storage.compacted, compacted)
        self.assertEqual([seq for seq, _ in self.server.read(compacted + 1, 40)], list(range(compacted + 1, 41)))

    def test_slots_of_a_snapshot_that_came_from_another_server_are_not_read(self) -> None:
        """Slots of a snapshot that came from another server are not read: a slot below it may hold a proposal that was
        never ordered."""
        self.server.write(*ordered_to(3), ProposalRecord(4, 1, batch("not ordered")), OrderedRecord(9, batch("nine")))
        self.fetch_all(8)
        self.name(snapshot_of(8)[0])
        storage = self.server.storage
        self.assertEqual((storage.compacted, self.server.read(4, 4), self.server.read(3, 3)), (8, [], []))
        self.restart()
        self.assertEqual((self.recovered.local_aru, list(self.recovered.ordered)), (8, []))
        self.assertEqual([accepted.seq for accepted in self.recovered.accepted], [9])
        self.assertEqual((self.server.storage.compacted, self.server.read(4, 4)), (8, []))
        self.server.write(AruRecord(9))
        self.assertEqual(self.server.read(9, 9), [(9, batch("nine"))])

    def fetch_all(self, seq: int) -> None:
        name, data = snapshot_of(seq)
        told: list[bool] = []
        fetched = self.server.storage.fetch_snapshot(name)
        fetched.write(data)
        fetched.finish(told.append)
        self.server.clock.run_until(lambda: told == [True])

    def test_older_record_changes_nothing(self) -> None:
        """The record of an older snapshot changes nothing: one that was being made may be finished after a later one
        has come from another server."""
        self.server.write(*ordered_to(3))
        older = self.make(2)
        self.fetch_all(8)
        self.name(snapshot_of(8)[0])
        self.name(older)
        self.assertEqual((self.server.storage.snapshot, self.server.storage.compacted), (snapshot_of(8)[0], 8))
        self.restart()
        self.assertEqual((self.recovered.snapshot, self.files()), (snapshot_of(8)[0], ["000000000008.snapshot"]))

    def test_complete_snapshot_without_a_record_is_deleted_by_the_next_start(self) -> None:
        """A complete snapshot without a record is deleted by the next start, which begins with the one that a record
        names."""
        self.server.write(*ordered_to(5))
        name = self.make(2)
        self.name(name)
        self.make(4)
        self.assertEqual(len(self.files()), 2)
        self.restart()
        self.assertEqual((self.recovered.snapshot, self.files()), (name, ["000000000002.snapshot"]))

    def test_nothing_is_deleted_before_the_record_is_on_disk(self) -> None:
        """Nothing is deleted before the record is on disk: until then a restart needs everything older."""
        self.fill(1, 40)
        self.name(self.make(10))
        before = (self.segments(), self.server.storage.compacted)
        name = self.make(38)
        gate = Gate()
        gate.guard(self)
        gate.open.clear()
        self.addCleanup(gate.open.set)
        self.server.sync("named", SnapshotRecord(name))
        self.assertTrue(gate.arrived.wait(10))
        self.settle()
        self.assertEqual((self.segments(), self.server.storage.compacted), before)
        self.assertEqual(self.files(), ["000000000010.snapshot", "000000000038.snapshot"])
        gate.open.set()
        self.server.clock.run_until(lambda: self.server.told == ["named"])
        self.settle()
        self.assertEqual(self.files(), ["000000000038.snapshot"])

    def test_crash_before_anything_is_deleted(self) -> None:
        """After a crash between the record and the deletion, the next start deletes the old segments and snapshots."""
        self.fill(1, 40)
        self.name(self.make(10))
        store = self.server.storage.snapshot_store
        assert store is not None
        name = self.make(38)
        held = Event()
        self.addCleanup(held.set)
        store.thread.do(lambda: held.wait(10))
        self.server.write(SnapshotRecord(name))
        self.server.clock.run_what_came(0.02)
        copy = self.copy()
        self.assertGreater(len(scan(copy / "log").leftovers), 1)
        self.assertEqual(len(list((copy / "snapshots").iterdir())), 2)
        self.directory, self.snapshots = copy, copy / "snapshots"
        held.set()
        server = self.started(copy)
        log = scan(copy / "log")
        self.assertEqual((self.segments(), log.leftovers), (list(log.heads), []))
        self.assertEqual((self.recovered.snapshot, self.files()), (name, ["000000000038.snapshot"]))
        self.assertEqual([seq for seq, _ in self.recovered.ordered], [39, 40])
        self.assertEqual(server.storage.counters.snapshot_bytes, name.size)

    def test_slack_keeps_slots_readable(self) -> None:
        """The slack keeps some slots before the snapshot readable, so that a server that is a little behind need not
        fetch the snapshot."""
        self.server.storage.close()
        self.slack = Slack(15)
        self.server = self.started()
        self.fill(1, 40)
        self.name(self.make(38))
        compacted = self.server.storage.compacted
        self.assertTrue(0 < compacted <= 38 - 15)
        self.assertEqual(len(self.server.read(compacted + 1, 40, 10**9)), 40 - compacted)

    def test_slots_above_an_earlier_snapshot_are_kept_for_a_server_that_fetches_it(self) -> None:
        """Slots above the previous snapshot are kept for a server that is fetching it, if they take no more room than
        the present snapshot or the slack may."""
        self.server.storage.close()
        self.slack = Slack(0, 0)
        self.server = self.started()
        self.fill(1, 40)
        self.server.storage.kept_above = 11
        self.name(self.make(30, 10))
        kept = self.server.storage.compacted
        self.assertTrue(0 < kept <= 11, kept)
        self.fill(41, 60)
        self.name(self.make(60, 1))
        self.assertGreater(self.server.storage.compacted, 40)
        self.server.storage.kept_above = None
        self.fill(61, 62)
        self.name(self.make(62))
        self.assertGreater(self.server.storage.compacted, 50)

    def test_slack_has_a_maximum_in_bytes(self) -> None:
        """The slack has a maximum in bytes, since large slots could fill the disk otherwise."""
        self.server.storage.close()
        self.slack = Slack(1_000, 2 * ROOM_BYTES)
        self.server = self.started()
        self.fill(1, 60)
        before = self.segments()
        self.name(self.make(60))
        # Kept are two segments for the slack, that into which the record goes, and perhaps one that is made ahead.
        self.assertIn(len(self.segments()), (3, 4))
        self.assertLess(len(self.segments()), len(before) - 2)
        self.assertEqual(self.segments()[-1], before[-1])

    def test_watch_takes_no_alarm(self) -> None:
        """The watch over files raises no alarm for segments that are deleted because of a snapshot; for others it still
        does."""
        self.fill(1, 40)
        self.name(self.make(38))
        self.server.clock.run_what_came(0.1)
        self.assertEqual(self.server.failures, [])
        segment_path(self.directory / "log", self.segments()[0]).unlink()
        self.server.clock.run_until(lambda: bool(self.server.failures))
        self.assertIn("deleted while the server was running", self.server.failures[0].getErrorMessage())

    def test_slot_below_the_snapshot_cannot_be_left_out(self) -> None:
        """A slot below the snapshot cannot be left out by the operator: it was executed, and the snapshot holds its
        effect."""
        self.server.write(*ordered_to(5))
        self.name(self.make(3))
        self.server.storage.close()
        error = self.assertRaises(StorageRefused, self.server.storage.add_pass, 3, bytes(8), unseen=True)
        self.assertIn("slot 3 is executed: this server starts with the snapshot of slot 3", str(error))

    def test_slot_behind_the_snapshot_can_be_left_out(self) -> None:
        """A slot behind the snapshot can be left out: a log without its first segments is read and written like any
        other."""
        self.fill(1, 40)
        self.name(self.make(38))
        self.server.storage.close()
        self.server.storage.add_pass(41, b"digest41", unseen=True)
        self.server = self.started()
        self.assertEqual((self.recovered.passes, self.recovered.snapshot), ({41: b"digest41"}, snapshot_of(38)[0]))


class FetchingTests(SnapshotTestCase):
    """Snapshots that come from another server."""

    def setUp(self) -> None:
        super().setUp()
        self.wanted, self.data = snapshot_of(9)

    def finish(self) -> bool:
        told: list[bool] = []
        self.server.storage.fetch_snapshot(self.wanted).finish(told.append)
        self.server.clock.run_until(lambda: bool(told))
        return told[0]

    def test_complete_file_is_checked_and_named(self) -> None:
        """A fetched file that is complete is checked and gets its name; it can be read before a record names it."""
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        for at in range(0, len(self.data), 10_000):
            self.assertEqual(fetched.size, at)
            fetched.write(self.data[at : at + 10_000])
        self.assertEqual(self.read(self.wanted), b"")
        self.assertTrue(self.finish())
        self.assertEqual(self.files(), ["000000000009.snapshot"])
        self.assertEqual(self.read(self.wanted), self.data)

    def test_fetch_goes_on_after_a_restart(self) -> None:
        """After a restart a fetch goes on from the size of the file."""
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        fetched.write(self.data[:50_000])
        self.settle()
        self.restart()
        self.assertEqual(len(self.files()), 1)
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        self.assertEqual(fetched.size, 50_000)
        fetched.write(self.data[50_000:])
        self.assertTrue(self.finish())
        self.assertEqual((self.snapshots / "000000000009.snapshot").read_bytes(), self.data)

    def test_wrong_bytes_are_found_at_the_end(self) -> None:
        """Wrong bytes are found at the end of a fetch: the file is deleted, and the next fetch begins anew."""
        for changed in (self.data[:-1], b"\1" + self.data[1:], self.data[:70_000] + bytes(100) + self.data[70_100:]):
            fetched = self.server.storage.fetch_snapshot(self.wanted)
            self.assertEqual(fetched.size, 0)
            fetched.write(changed)
            self.assertFalse(self.finish())
            self.assertEqual(self.files(), [])

    def test_complete_snapshot_of_another_name_is_wrong(self) -> None:
        """A complete fetched file with another digest than was asked for is refused."""
        other, data = snapshot_of(9, count=2)
        self.wanted = SnapshotName(other.seq, other.size, self.wanted.digest)
        self.server.storage.fetch_snapshot(self.wanted).write(data)
        self.assertFalse(self.finish())

    def test_tail_that_a_power_loss_has_spoilt_is_found(self) -> None:
        """A tail of zeros is found at the end of a fetch: after a power loss the size of a file may be on disk without
        its bytes."""
        self.server.storage.fetch_snapshot(self.wanted).write(self.data[:60_000])
        self.settle()
        self.server.storage.close()
        [path] = self.snapshots.iterdir()
        path.write_bytes(self.data[:50_000] + bytes(10_000))
        self.server = self.started()
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        fetched.write(self.data[fetched.size :])
        self.assertFalse(self.finish())

    def test_fetch_of_another_snapshot_keeps_the_longest_of_the_former_ones(self) -> None:
        """When a fetch of another snapshot begins, the longest of the unfinished files stays: of fetches from two
        servers in turn one comes to its end."""
        storage = self.server.storage
        storage.fetch_snapshot(self.wanted).write(self.data[:50_000])
        for seq in (12, 13):
            other = storage.fetch_snapshot(snapshot_of(seq)[0])
            other.write(b"a part")
            self.settle()
            self.assertEqual([name[:12] for name in self.files()], ["000000000009", f"{seq:012}"])
            self.assertEqual((storage.fetch_snapshot(self.wanted).size, other.has_failed), (50_000, False))
        self.restart()
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        self.assertEqual(fetched.size, 50_000)
        fetched.write(self.data[50_000:])
        self.assertTrue(self.finish())

    def test_fetch_that_was_put_aside_while_it_was_checked_tells_nobody(self) -> None:
        """If a fetch is replaced while its file is being checked, the callback is not called: the server waits for
        another snapshot; the file is complete all the same."""
        storage, told = self.server.storage, list[bool]()
        fetched = storage.fetch_snapshot(self.wanted)
        fetched.write(self.data)
        fetched.finish(told.append)
        storage.fetch_snapshot(snapshot_of(12)[0]).write(b"a part")
        self.settle()
        self.assertEqual(told, [])
        self.assertEqual(storage.fetch_snapshot(self.wanted).size, len(self.data))

    def test_file_that_is_longer_than_its_name_says_is_begun_anew(self) -> None:
        """A fetched file that is longer than the snapshot's name says is begun anew."""
        self.server.storage.fetch_snapshot(self.wanted).write(self.data + b"x")
        self.settle()
        self.restart()
        self.assertEqual(self.server.storage.fetch_snapshot(self.wanted).size, 0)
        self.server.storage.fetch_snapshot(self.wanted).write(self.data)
        self.assertTrue(self.finish())

    def test_later_snapshot_of_its_own_ends_the_fetch(self) -> None:
        """A fetch ends when the server has made a later snapshot itself."""
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        fetched.write(self.data[:10_000])
        self.server.write(*ordered_to(10))
        self.name(self.make(10))
        self.assertEqual((fetched.has_failed, self.files()), (True, ["000000000010.snapshot"]))

    def test_disk_without_room(self) -> None:
        """On a disk without room the fetched file is given up and deleted; a later attempt begins anew."""
        has = Room.has
        self.patch(Room, "has", lambda room, size: False)
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        fetched.write(self.data)
        self.server.clock.run_until(lambda: fetched.has_failed)
        self.settle()
        self.assertEqual((self.files(), len(self.warnings())), ([], 1))
        self.patch(Room, "has", has)
        again = self.server.storage.fetch_snapshot(self.wanted)
        self.assertEqual((again.size, again.has_failed), (0, False))
        again.write(self.data)
        self.assertTrue(self.finish())

    def test_snapshot_that_is_there_already(self) -> None:
        """A fetch of a snapshot that is there already is finished at once."""
        self.wanted = self.make(9)
        self.assertEqual(self.server.storage.fetch_snapshot(self.wanted).size, self.wanted.size)
        self.assertTrue(self.finish())
        self.assertEqual(self.files(), ["000000000009.snapshot"])


class ReadingTests(SnapshotTestCase):
    """Bytes of snapshots, for other servers."""

    def test_bytes_are_read_from_any_place(self) -> None:
        """Bytes of a snapshot are read from any place, and none behind its end."""
        name = self.make(5)
        data = snapshot_of(5)[1]
        self.assertEqual(self.read(name, 10, 1_000), data[10:1_010])
        self.assertEqual(self.read(name, name.size - 5), data[-5:])
        self.assertEqual(self.read(name, name.size), b"")

    def test_other_names_have_no_bytes(self) -> None:
        """A read for another name of the same slot gets no bytes: it is another snapshot."""
        name = self.make(5)
        self.assertEqual(self.read(SnapshotName(5, name.size, bytes(16))), b"")
        self.assertEqual(self.read(snapshot_of(6)[0]), b"")

    def test_snapshot_that_is_being_read_outlives_its_successor(self) -> None:
        """A snapshot that is being read can be read on for a while after a later one has replaced it; then its bytes
        leave the disk."""
        self.server.write(*ordered_to(9))
        name = self.make(5)
        self.name(name)
        data = snapshot_of(5)[1]
        self.assertEqual(self.read(name, 0, 100), data[:100])
        self.name(self.make(9))
        self.assertEqual(self.files(), ["000000000009.snapshot"])
        self.assertEqual(self.read(name, 100), data[100:])
        for _ in range(2):
            self.server.clock.advance(storage_module.SNAPSHOT_OPEN_SECONDS)
            self.server.clock.run_what_came(0.02)
        self.assertEqual(self.read(name, 100), b"")
        self.assertEqual(self.read(snapshot_of(9)[0], 0, 100), snapshot_of(9)[1][:100])

    def test_many_reads_wait_for_each_other(self) -> None:
        """Many reads are answered one after the other: an answer without bytes would mean that the snapshot is gone."""
        name = self.make(5)
        answers: list[bytes] = []
        for _ in range(200):
            self.server.storage.read_snapshot(name, 0, 10, answers.append)

        def answered() -> bool:
            self.server.clock.advance(storage_module.READ_AGAIN_SECONDS)
            return len(answers) == 200

        self.server.clock.run_until(answered)
        self.assertEqual(set(answers), {snapshot_of(5)[1][:10]})

    def test_reader_does_not_fail_when_segments_go(self) -> None:
        """A reader does not fail when a segment is deleted between the look at the index and the reading of the
        group."""
        self.fill(1, 40)
        found: list[object] = []
        name = self.make(38)
        self.server.sync("named", SnapshotRecord(name))
        for _ in range(50):
            for first in range(1, 40, 13):
                self.server.storage.read_history(first, first, 10**6, found.append)
            self.server.clock.run_what_came(0.002)
        self.assertEqual(self.server.failures, [])


class RefusalTests(SnapshotTestCase):
    """A start whose snapshot has changed since it was checked, or lacks segments beside it, is refused."""

    def setUp(self) -> None:
        super().setUp()
        self.fill(1, 40)
        self.name(self.make(38))
        self.server.storage.close()
        self.path = self.snapshots / "000000000038.snapshot"
        self.data = self.path.read_bytes()

    def assertRefused(self, *parts: str) -> None:
        server = Server(self.directory)
        error = self.assertRaises(StorageRefused, server.storage.recover)
        self.assertNotIn("\n", str(error))
        for part in parts:
            self.assertIn(part, str(error))

    def test_snapshot_that_changes_after_the_check_is_refused_when_it_is_read(self) -> None:
        """A snapshot that changes after the check is refused while it is read, which a restart does in portions."""
        server = Server(self.directory)
        self.addCleanup(server.storage.close)
        found = server.storage.recover()
        self.path.write_bytes(self.data[:500] + b"\0" + self.data[501:])
        self.assertRaises(StorageRefused, list, found.snapshot_bytes)

    def test_segment_that_the_snapshot_does_not_stand_for(self) -> None:
        """A missing segment is refused if the snapshot does not stand for it: only segments below the lowest one that
        the log names may be missing."""
        numbers = self.segments()
        for number in numbers[:-1]:
            path = segment_path(self.directory / "log", number)
            data = path.read_bytes()
            path.unlink()
            self.assertRefused(f"{path.name}: missing, although other segments of this log are there")
            path.write_bytes(data)
        for number in numbers:
            segment_path(self.directory / "log", number).unlink()
        self.assertRefused("missing, although other segments of this log are there")


class LostTests(SnapshotTestCase):
    """A start whose snapshot is missing or damaged, while the log beside it is whole (Departure 58)."""

    def setUp(self) -> None:
        super().setUp()
        self.fill(1, 38)
        self.wanted = self.make(38)
        self.name(self.wanted)
        self.server.write(*large([39, 40]), AruRecord(40), ProposalRecord(41, 1, Batch(b"accepted")))
        self.server.storage.close()
        self.path = self.snapshots / "000000000038.snapshot"
        self.data = self.path.read_bytes()

    def assertLost(self, fate: str) -> None:
        """Start the server, and require that it has recovered everything but its state."""
        Server(self.directory).storage.refuse_if_unusable()
        self.server = self.started()
        found, storage = self.recovered, self.server.storage
        self.assertEqual((found.lost, found.snapshot, storage.snapshot), (self.wanted, None, None))
        self.assertEqual((found.local_aru, [*found.ordered], [*found.snapshot_bytes]), (40, [], []))
        self.assertEqual([seq for seq, _ in found.ordered_after(38)], [39, 40])
        self.assertEqual(found.accepted, [Accepted(41, 1, Batch(b"accepted"))])
        told = [event for event in self.events if str(event.get("path", "")).endswith("38.snapshot")]
        self.assertIn(fate, str(told[-1].get("fate")))
        storage.close()

    def test_snapshot_that_is_missing(self) -> None:
        """A start without the snapshot has no state; when the file is back, the state is, too."""
        self.path.unlink()
        self.assertLost("missing")
        self.path.write_bytes(self.data)
        self.started()
        self.assertEqual((self.recovered.lost, self.recovered.snapshot), (None, self.wanted))

    def test_snapshot_that_was_cut_or_grew(self) -> None:
        """A snapshot that was cut or has grown counts as lost: its size is a part of its name in the log."""
        for changed, fate in (
            (self.data[:-1], f"cut off at {len(self.data) - 1} bytes of {len(self.data)}"),
            (b"", "cut off at 0 bytes"),
            (self.data + b"x", "damaged"),
        ):
            self.path.write_bytes(changed)
            self.assertLost(fate)
            self.assertEqual(self.path.read_bytes(), changed)

    def test_every_bit_counts(self) -> None:
        """A snapshot with any changed bit counts as lost."""
        for at in range(0, len(self.data), 9_973):
            self.path.write_bytes(self.data[:at] + bytes([self.data[at] ^ 1 << at % 8]) + self.data[at + 1 :])
            self.assertLost("damaged")

    def test_whole_snapshot_of_another_state(self) -> None:
        """A whole snapshot of another state counts as lost: its digest is not the one in the log."""
        other = snapshot_of(39)[1]
        self.assertEqual(len(other), len(self.data))
        self.path.write_bytes(other)
        self.assertLost("it is another snapshot")

    def test_file_that_the_disk_cannot_read(self) -> None:
        """A snapshot that the disk cannot read counts as lost; one that the server has no right to read is refused."""

        def failing(number: int) -> Callable[[Path], Iterator[bytes]]:
            def portions_of(path: Path) -> Iterator[bytes]:
                raise OSError(number, "cannot be read")
                yield b""

            return portions_of

        self.patch(snapshot_files, "portions_of", failing(errno.EIO))
        self.assertLost("cannot be read")
        self.patch(snapshot_files, "portions_of", failing(errno.EACCES))
        self.assertRaises(StorageRefused, self.started)

    def test_same_snapshot_of_another_server_takes_its_place(self) -> None:
        """A damaged snapshot is replaced by the same one from another server; what has come of it is kept over a
        restart, and the damaged file stays until then."""
        self.path.write_bytes(self.data[:-1])
        self.server = self.started()
        self.server.storage.fetch_snapshot(self.wanted).write(self.data[:50_000])
        self.settle()
        self.restart()
        self.assertEqual(self.recovered.lost, self.wanted)
        fetched = self.server.storage.fetch_snapshot(self.wanted)
        self.assertEqual(fetched.size, 50_000)
        fetched.write(self.data[50_000:])
        told: list[bool] = []
        fetched.finish(told.append)
        self.server.clock.run_until(lambda: bool(told))
        self.name(self.wanted)
        self.restart()
        self.assertEqual((told, self.recovered.lost, self.recovered.snapshot), ([True], None, self.wanted))
        self.assertEqual([seq for seq, _ in self.recovered.ordered], [39, 40])
        self.assertEqual(self.recovered.accepted, [Accepted(41, 1, Batch(b"accepted"))])

    def test_later_snapshot_takes_its_place(self) -> None:
        """A later snapshot from another server takes the place of a damaged one: slots of this log up to its slot need
        not be ordered."""
        self.path.unlink()
        self.server = self.started()
        name, data = snapshot_of(50)
        fetched = self.server.storage.fetch_snapshot(name)
        fetched.write(data)
        told: list[bool] = []
        fetched.finish(told.append)
        self.server.clock.run_until(lambda: bool(told))
        self.name(name)
        self.restart()
        self.assertEqual((self.recovered.lost, self.recovered.snapshot, self.recovered.local_aru), (None, name, 50))
        self.assertEqual(self.recovered.accepted, [])
        self.assertEqual(self.files(), ["000000000050.snapshot"])


class RunningTests(SnapshotTestCase):
    """The file of the present snapshot, while the server runs."""

    def setUp(self) -> None:
        super().setUp()
        self.fill(1, 3)
        self.present = self.make(2)
        self.name(self.present)
        self.path = self.snapshots / "000000000002.snapshot"
        self.data = self.path.read_bytes()
        self.lost: list[tuple[SnapshotName, str]] = []
        self.server.storage.on_snapshot_lost = lambda name, fate: self.lost.append((name, fate))

    def look(self) -> None:
        self.server.clock.advance(storage_module.LOOK_SECONDS)
        self.settle()

    def assertLost(self, fate: str) -> None:
        self.look()
        ((name, told),) = self.lost
        self.assertEqual((name, self.server.storage.snapshot), (self.present, None))
        self.assertIn(fate, told)
        self.look()
        self.assertEqual((len(self.lost), self.server.failures), (1, []))

    def test_file_that_is_deleted(self) -> None:
        self.look()
        self.assertEqual(self.lost, [])
        self.path.unlink()
        self.assertLost("missing")

    def test_file_that_is_cut(self) -> None:
        os.truncate(self.path, 100)
        self.assertLost("cut off at 100 bytes")

    def test_file_that_is_replaced(self) -> None:
        """A file that is replaced by one with the same bytes is accepted, and one with other bytes is found."""
        self.look()
        for data, lost in ((self.data, False), (self.data[:-1] + bytes([self.data[-1] ^ 1]), True)):
            other = self.directory / "other"
            other.write_bytes(data)
            other.rename(self.path)
            if not lost:
                self.look()
                self.assertEqual((self.lost, self.server.storage.snapshot), ([], self.present))
        self.assertLost("damaged")

    def test_damage_is_found_when_the_file_is_read(self) -> None:
        """Damage is found when the file is read, although the time of the file is unchanged: a sector has gone bad."""
        self.look()
        found = self.path.stat()
        with self.path.open("r+b") as file:
            file.seek(500)
            file.write(b"??")
        os.utime(self.path, ns=(found.st_atime_ns, found.st_mtime_ns))
        self.look()
        self.assertEqual(self.lost, [])
        self.read(self.present, 0, 10)
        self.assertLost("damaged")
        self.assertEqual(self.read(self.present, 0, 10), b"")

    def test_new_snapshot_of_the_same_slot_takes_its_place(self) -> None:
        self.path.write_bytes(self.data[:-1])
        self.assertLost("cut off")
        self.name(self.make(2))
        self.look()
        self.assertEqual((self.server.storage.snapshot, self.path.read_bytes()), (self.present, self.data))
        self.restart()
        self.assertEqual((self.recovered.snapshot, self.recovered.lost), (self.present, None))

    def test_older_snapshot_that_goes_is_not_missed(self) -> None:
        for seq in (3, 4, 5):
            self.fill(seq + 1, seq + 1)
            self.server.storage.snapshot_store.look()  # type: ignore[union-attr]
            self.name(self.make(seq))
            self.look()
        self.assertEqual((self.lost, self.files()), ([], ["000000000005.snapshot"]))


class WholeHistoryTests(SnapshotTestCase):
    slack = Slack()

    def test_whole_history_is_executed_again_if_no_slot_was_dropped(self) -> None:
        """If no slot was dropped, a server without its snapshot executes the whole history again, and needs no other
        server."""
        self.fill(1, 5)
        self.name(self.make(3))
        self.server.storage.close()
        (self.snapshots / "000000000003.snapshot").unlink()
        self.server = self.started()
        found = self.recovered
        self.assertEqual((found.lost, found.snapshot, found.local_aru), (None, None, 5))
        self.assertEqual([seq for seq, _ in found.ordered], [1, 2, 3, 4, 5])
        name = self.make(5)
        self.name(name)
        self.restart()
        self.assertEqual((self.recovered.snapshot, [*self.recovered.ordered]), (name, []))


class CloseTests(SnapshotTestCase):
    """The end of a server in the middle of a snapshot."""

    def test_close_does_not_wait_for_a_snapshot(self) -> None:
        """Closing does not wait for a snapshot: the rest of it is not written, and no callback is called."""
        told: list[object] = []
        file = self.server.storage.write_snapshot(1, CLUSTER)
        for _ in range(100):
            for piece in pieces(1):
                file.write(piece)
        file.finish(told.append)
        self.assertTrue(self.server.storage.close())
        self.server.clock.run_what_came(0.02)
        self.assertEqual(told, [])
        self.assertNotIn("000000000001.snapshot", self.files())

    def test_calls_after_the_end_do_nothing(self) -> None:
        """Calls after the end do nothing: a turn that is under way may still ask for something."""
        self.server.storage.close()
        told: list[object] = []
        storage = self.server.storage
        file = storage.write_snapshot(1, CLUSTER)
        file.write(pieces(1)[0])
        file.finish(told.append)
        fetched = storage.fetch_snapshot(snapshot_of(2)[0])
        fetched.write(b"x")
        fetched.finish(told.append)
        storage.read_snapshot(snapshot_of(2)[0], 0, 10, told.append)
        self.server.clock.run_what_came(0.02)
        self.assertEqual((told, self.files()), ([], []))

    def test_open_files_are_closed(self) -> None:
        """All open files are closed at the end; a process that starts many servers would run out of descriptors."""
        before = len(os.listdir("/proc/self/fd"))
        server = Server(Path(self.mktemp()))
        server.storage.recover()
        server.storage.write_snapshot(1, CLUSTER).write(pieces(1)[0])
        server.storage.fetch_snapshot(snapshot_of(2)[0]).write(b"x")
        server.storage.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
