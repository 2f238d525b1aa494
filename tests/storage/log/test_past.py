"""Tests of `pfsb.storage.log.past`: which slots count as ordered, and how archives fill each other's gaps."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, ProposalRecord
from pfsb.storage.log import past as past_module
from pfsb.storage.log.past import ClusterHistory, Missing, StorageHistory
from pfsb.storage.log.segments import SegmentHead, make_segment
from pfsb.storage.log.snapshot_files import SnapshotFiles
from tests.examples import examples
from tests.long import long
from tests.storage.log.disks import CLUSTER, Disk, Old, truth
from tests.storage.log.support import IN_MEMORY, OWNER, ROOM_BYTES


class PastTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="pfsb-test-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.disks: list[Disk] = []

    def disk(self, old: Old = Old.ARCHIVED) -> Disk:
        disk = Disk(self.home, len(self.disks), old)
        self.addCleanup(lambda: disk.writer.close())
        self.disks.append(disk)
        return disk

    def batches(self, history: StorageHistory, first: int, last: int) -> dict[int, Batch]:
        found = {}
        for seq, (path, offset, length) in history.find(first, last).items():
            found[seq] = Batch(path.read_bytes()[offset : offset + length])
        return found

    def cluster(self, *places: Path) -> ClusterHistory:
        """Return the history in these places, or by default in all archives and data directories of the test."""
        everywhere = (self.home / name for name in ("archive", "data"))
        return ClusterHistory.of(places or [place for place in everywhere if place.exists()])


class OrderedTests(PastTestCase):
    """Which slots a storage shows as ordered."""

    def test_slots_that_local_aru_has_passed_are_ordered(self) -> None:
        """Slots up to Local_Aru are ordered, with the batch that each had last; slots above are not."""
        disk = self.disk()
        disk.order(*range(1, 40))
        disk.propose(40)
        found = self.batches(disk.history(), 1, 50)
        self.assertEqual(found, {seq: truth(seq) for seq in range(1, 40)})
        self.assertEqual(disk.history().aru, 39)

    def test_slots_that_local_aru_jumps_over_are_not(self) -> None:
        """Slots over which Local_Aru has jumped hold proposals that may never have been ordered, so they do not count;
        those before and behind do."""
        disk = self.disk()
        disk.order(*range(1, 20))
        for seq in range(20, 35):
            disk.propose(seq)
        disk.fetch_snapshot(60)
        disk.order(*range(61, 90))
        expected = [*range(1, 20), *range(61, 90)]
        self.assertEqual(self.batches(disk.history(), 1, 100), {seq: truth(seq) for seq in expected})

    def test_jump_in_the_first_group_of_a_segment(self) -> None:
        """A jump is seen when the snapshot is named in the first group of a segment, which names the present snapshot
        in any case."""
        for filled in range(1, 40):
            disk = self.disk()
            disk.order(*range(1, filled))
            disk.propose(filled)
            disk.fetch_snapshot(filled + 5)
            disk.order(*range(filled + 6, filled + 12))
            history = disk.history()
            expected = [*range(1, filled), *range(filled + 6, filled + 12)]
            self.assertEqual(sorted(history.find(1, 100)), expected)
            for seq in (1, filled - 1, filled, filled + 6):
                self.assertEqual(seq in history.find(seq, seq), seq in expected, seq)

    def test_slots_are_found_in_whichever_segment(self) -> None:
        """A slot is found in whichever segment it stands: a server that is behind holds proposals for slots far above
        its Local_Aru."""
        disk = self.disk()
        disk.write(*[ProposalRecord(seq, 4, truth(seq)) for seq in (150, 151)])
        disk.order(*range(1, 150))
        disk.write(AruRecord(151))
        self.assertEqual(self.batches(disk.history(), 148, 160), {seq: truth(seq) for seq in range(148, 152)})

    def test_segments_that_are_missing_may_have_held_a_jump(self) -> None:
        """Missing segments may have held a jump: the slots that Local_Aru has passed meanwhile are not taken as
        ordered."""
        disk = self.disk()
        disk.order(*range(1, 60))
        history = disk.history()
        places = history.find(1, 59)
        (disk.log / "0000000003.log").unlink()
        gone = {seq for seq, place in places.items() if place.path.name == "0000000003.log"}
        found = disk.history().find(1, 59)
        self.assertGreater(len(gone), 1)
        self.assertFalse(gone & found.keys())
        self.assertLessEqual(min(set(places) - set(found)), min(gone))
        for seq in found:
            self.assertEqual(found[seq], places[seq])

    @long
    @given(st.integers(0, 2**32))
    @examples(150)
    def test_random_histories(self, seed: int) -> None:
        """In random histories, each slot that is found was ordered, and each slot is found over which Local_Aru has not
        jumped."""
        dice = random.Random(seed)
        disk = self.disk(dice.choice([Old.ARCHIVED, Old.ARCHIVED, Old.LEFT]))
        for _ in range(dice.randrange(3, 25)):
            kind = dice.random()
            if kind < 0.55:
                disk.order(*range(disk.aru + 1, disk.aru + dice.randrange(2, 12)))
            elif kind < 0.75:
                for seq in dice.sample(range(disk.aru + 1, disk.aru + 30), 4):
                    disk.propose(seq)
            elif kind < 0.9 and disk.aru > disk.snapshot:
                disk.make_snapshot()
            else:
                disk.fetch_snapshot(disk.aru + dice.randrange(1, 15))
        history = disk.history()
        is_there = range(1, disk.aru + 1)
        found = self.batches(history, 1, disk.aru)
        self.assertEqual(found, {seq: truth(seq) for seq in found})
        self.assertEqual(set(is_there) - disk.jumped - set(found), set())
        first = dice.randrange(1, disk.aru + 2)
        last = dice.randrange(first, disk.aru + 3)
        self.assertEqual(set(history.find(first, last)), {seq for seq in found if first <= seq <= last})


class SnapshotTests(PastTestCase):
    """Which snapshots may be used."""

    def test_named_snapshots_are_found_in_both_places(self) -> None:
        disk = self.disk()
        for _ in range(3):
            disk.order(*range(disk.aru + 1, disk.aru + 20))
            disk.make_snapshot()
        found = self.cluster().snapshots()
        self.assertEqual([each.seq for each in found], [19, 38, 57])
        self.assertEqual([each.path.parent.parent for each in found], [disk.archive, disk.archive, disk.data])
        self.assertTrue(all(each.name is not None and each.cluster_identity == CLUSTER for each in found))

    def test_snapshot_that_was_never_named_is_none(self) -> None:
        """A snapshot that no record has named is not used: no majority may have come to the same state."""
        disk = self.disk()
        disk.order(*range(1, 30))
        disk.file_of(25)
        disk.make_snapshot()
        self.assertEqual([each.seq for each in self.cluster().snapshots()], [29])

    def test_snapshot_whose_naming_is_not_there_counts(self) -> None:
        """A snapshot is used though the segment with the record that named it is missing: an operator may keep
        snapshots longer than segments."""
        disk = self.disk()
        for _ in range(2):
            disk.order(*range(disk.aru + 1, disk.aru + 50))
            disk.make_snapshot()
        for path in (disk.archive / "log").iterdir():
            path.unlink()
        first, second = self.cluster().snapshots()
        self.assertEqual((first.seq, second.seq), (49, 98))
        disk.order(*range(99, 120))
        for path in disk.log.iterdir():
            if path.name != f"{disk.writer.log.segment:010d}.log":
                path.unlink()
        first, second = self.cluster().snapshots()
        self.assertEqual((first.seq, first.name, second.seq), (49, None, 98))

    def test_cut_or_wrong_file_is_left_out(self) -> None:
        disk = self.disk()
        disk.order(*range(1, 30))
        disk.make_snapshot()
        path = SnapshotFiles.beside(disk.log).path(29)
        data = path.read_bytes()
        for wrong in (data[:-1], data[:20], b"?" + data[1:]):
            path.write_bytes(wrong)
            history = self.cluster()
            self.assertEqual(history.snapshots(), [])
            self.assertIn(path, history.storages[0].faults)


class ClusterTests(PastTestCase):
    """The history that several storages hold together."""

    def lagging(self) -> tuple[Disk, Disk]:
        """Make a server that has all slots, and one that has fetched a snapshot and so lacks some."""
        whole, lagging = self.disk(), self.disk()
        whole.order(*range(1, 81))
        whole.make_snapshot()
        whole.order(*range(81, 121))
        lagging.order(*range(1, 30))
        for seq in range(30, 40):
            lagging.propose(seq)
        lagging.fetch_snapshot(80)
        lagging.order(*range(81, 111))
        return whole, lagging

    def test_gap_of_one_is_filled_from_another(self) -> None:
        self.lagging()
        self.assertEqual(dict(self.cluster().ordered(1)), {seq: truth(seq) for seq in range(1, 121)})

    def test_gap_that_nobody_fills_is_named(self) -> None:
        """A gap that no storage fills raises an error with its slots and the reason, after all slots before it."""
        _, lagging = self.lagging()
        history = self.cluster(lagging.archive, lagging.data)
        found = []

        def read() -> None:
            found.extend(history.ordered(1))

        error = self.assertRaises(Missing, read)
        self.assertEqual((error.first, error.last), (30, 80))
        self.assertIn("holds slots 30 to 80 as ordered", str(error))
        self.assertEqual([seq for seq, _ in found], [*range(1, 30)])
        self.assertEqual(dict(history.ordered(81)), {seq: truth(seq) for seq in range(81, 111)})
        self.assertEqual(history.first_gap(1, 110), 30)
        self.assertTrue(history.has(81, 110))

    def test_damaged_or_cut_segment_is_named(self) -> None:
        """A damaged or cut segment is named in the error; if another server has its slots, these are used."""
        whole, lagging = self.lagging()
        name = "0000000003.log"
        path = whole.archive / "log" / name
        data = path.read_bytes()
        places = whole.history().find(1, 80)
        for wrong, why in (
            (data[:2_000] + b"?" + data[2_001:], "0000000003.log"),
            (data[:-600], "0000000003.log: cut off at"),
            (data[:3_500].ljust(len(data), b"\0"), "0000000003.log"),
            (b"", "0000000003.log"),
            (b"?" * 5_000, "0000000003.log"),
        ):
            path.write_bytes(wrong)
            error = self.assertRaises(Missing, list, self.cluster(whole.archive, whole.data).ordered(1))
            self.assertIn(why, str(error))
            self.assertIn(name, places[error.first].path.name)
            self.assertNotIn("\n", str(error))
            filled = self.cluster(whole.archive, whole.data, lagging.archive)
            if places[29].path.name > name:
                self.assertEqual(next(iter(filled.ordered(29)))[1], truth(29))

    def test_damage_in_one_copy_of_a_segment_does_no_harm(self) -> None:
        """Damage in one of two copies of a segment does no harm: a crash may have left it in the archive and in the
        data directory."""
        whole, _ = self.lagging()
        path = whole.archive / "log" / "0000000003.log"
        shutil.copy(path, whole.log)
        path.write_bytes(path.read_bytes()[:2_000] + b"?" * 100)
        for places in ((whole.archive, whole.data), (whole.data, whole.archive)):
            self.assertEqual(len(dict(self.cluster(*places).ordered(1))), 120)

    def test_torn_group_at_the_end_of_a_data_directory_is_no_damage(self) -> None:
        """A torn group at the end of a data directory is no damage, since a server may be writing it."""
        disk = self.disk()
        disk.order(*range(1, 11))
        path = disk.writer.log.path(disk.writer.log.segment)
        with path.open("r+b") as file:
            file.seek(disk.writer.log.end)
            file.write(disk.writer.log.head.salt[:8] + b"torn")
        history = self.cluster()
        self.assertEqual(len(dict(history.ordered(1))), 10)
        self.assertEqual(history.storages[0].faults, {})

    def test_server_goes_on_and_moves_files_meanwhile(self) -> None:
        """While a server goes on, a segment that was found in its data directory can be read in the archive; new slots
        are found by a new look."""
        disk = self.disk()
        disk.order(*range(1, 61))
        history = self.cluster(disk.data)
        reading = history.ordered(1)
        self.assertEqual(next(reading)[0], 1)
        disk.make_snapshot()
        disk.order(*range(61, 91))
        both = self.cluster(disk.archive, disk.data)
        places = both.storages[0].find(61, 90)
        self.assertEqual(sorted(places), [*range(61, 91)])
        disk.make_snapshot()
        self.assertEqual(len(dict(both.ordered(1))), 90)
        disk.order(*range(91, 95))
        both.look()
        self.assertEqual(len(dict(both.ordered(1))), 94)

    def test_files_that_move_while_they_are_read(self) -> None:
        """A segment that is moved to the archive while it is being read is read on there."""
        self.patch(past_module, "TOGETHER", 7)
        for pause in range(1, 60, 6):
            disk = self.disk()
            disk.order(*range(1, 21))
            disk.make_snapshot()
            disk.order(*range(21, 61))
            history = self.cluster(disk.archive, disk.data)
            reading = history.ordered(1)
            found = [next(reading) for _ in range(pause)]
            disk.make_snapshot()
            found.extend(reading)
            self.assertEqual(found, [(seq, truth(seq)) for seq in range(1, 61)], pause)

    def test_storages_of_two_clusters_are_refused(self) -> None:
        one = self.disk()
        one.order(1)
        foreign = self.home / "foreign" / "log"
        foreign.mkdir(parents=True)
        owner = evolve(OWNER, cluster_digest=b"another!")
        make_segment(foreign, SegmentHead(1, ROOM_BYTES, b"disk-009", bytes(16), owner))
        error = self.assertRaises(StorageRefused, self.cluster, one.data, foreign.parent)
        self.assertIn("of another cluster", str(error))

    def test_place_without_storages_is_refused(self) -> None:
        """A place that does not exist is refused; an archive may be empty, if there is something elsewhere."""
        disk = self.disk()
        disk.order(1)
        missing, empty = self.home / "nothing", self.home / "empty"
        empty.mkdir()
        error = self.assertRaises(StorageRefused, self.cluster, disk.data, missing)
        self.assertIn(f"{missing}: no directory that is there", str(error))
        error = self.assertRaises(StorageRefused, self.cluster, empty)
        self.assertIn(f"{empty}: neither a data directory nor an archive is there", str(error))
        self.assertEqual(len(dict(self.cluster(empty, disk.data).ordered(1))), 1)

    def test_files_are_only_read(self) -> None:
        """Files are only read, and no lock is taken: servers go on meanwhile."""
        self.lagging()
        before = {path: path.stat().st_mtime_ns for path in self.home.rglob("*")}
        list(self.cluster().ordered(1))
        self.cluster().snapshots()
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.home.rglob("*")}, before)

    def test_few_segments_are_read_for_few_slots(self) -> None:
        """For few slots few segments are read: to ask for the end of a long history is cheap."""
        disk = self.disk()
        disk.order(*range(1, 200))
        history = self.cluster()
        read: list[str] = []
        opened = Path.read_bytes

        def watched(path: Path) -> bytes:
            read.append(path.name)
            return opened(path)

        self.patch(Path, "read_bytes", watched)
        self.assertEqual(len(dict(history.ordered(190))), 10)
        self.assertLess(len(read), 6)
        self.assertGreater(len(os.listdir(disk.log)), 15)
