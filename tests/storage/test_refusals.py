"""Tests of refused data directories: each refusal is one line that names the file and says what is wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.records import AruRecord, PeerRecord, ProposalRecord, ViewRecord
from pfsb.storage.log import segments
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import SegmentHead, make_segment, segment_path
from tests.storage.support import Server, batch, ordered_to, slot_records


class RefusalTests(SynchronousTestCase):
    """A server refuses with one clear line rather than run on a damaged file."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.path = self.directory / "log"
        self.first = segment_path(self.path, 1)

    def make(self) -> None:
        """A directory of server 2 that was closed in order."""
        server = Server(self.directory)
        server.storage.recover()
        server.write(ViewRecord(5, 4), *ordered_to(3), *slot_records([4, 5]), PeerRecord(1, b"12345678"))
        server.write(*slot_records([6]))
        server.storage.close()

    def edit(self, at: int, data: bytes, path: Path | None = None) -> None:
        with (path or self.first).open("r+b") as file:
            file.seek(at)
            file.write(data)

    def head(self, **changes: object) -> SegmentHead:
        return evolve(scan(self.path).head, **changes)

    def assertRefused(self, *parts: str, directory: Path | None = None, **changes: object) -> None:
        server = Server(directory or self.directory, **changes)
        self.addCleanup(server.storage.close)
        error = self.assertRaises(StorageRefused, server.storage.recover)
        for part in parts:
            self.assertIn(part, str(error))
        self.assertNotIn("\n", str(error))

    def test_directory_of_another_cluster(self) -> None:
        """G29: the directory of another cluster, with another founding membership, is refused."""
        self.make()
        self.assertRefused(
            str(self.path),
            'made for cluster "four" with servers 0 1 2 3 (digest 00010203)',
            'not for cluster "five" with servers 0 1 2 3 4 (digest 78787878)',
            cluster_name="five",
            cluster_digest=b"x" * 16,
            members=(0, 1, 2, 3, 4),
        )

    def test_directory_of_another_server(self) -> None:
        """G20: the directory of another server is refused: this server would vote with that one's promises."""
        self.make()
        self.assertRefused(str(self.path), "made for server 2, not for server 3", server_id=3)

    def test_refused_start_is_not_counted_and_leaves_the_directory_free(self) -> None:
        """A refused start is not counted as an incarnation and releases the directory: the right server can start
        there."""
        self.make()
        self.assertRefused("made for server 2", server_id=3)
        server = Server(self.directory)
        self.addCleanup(server.storage.close)
        self.assertEqual(server.storage.recover().incarnation, 2)

    def test_refused_start_changes_nothing(self) -> None:
        """A refused start leaves a damaged log as it is: a second start must not find one that looks whole."""
        self.make()
        self.edit(4_096 + 50, b"\xff")
        before = self.first.read_bytes()
        self.assertRefused("damaged before its end")
        self.assertEqual(self.first.read_bytes(), before)
        self.assertRefused("damaged before its end")

    def test_format_of_another_version(self) -> None:
        """A directory in the format of another version is refused: a later pfsb may have written something that this
        one misunderstands."""
        self.make()
        self.edit(8, (9).to_bytes(4, "big"))
        self.assertRefused("has format 9; this version of pfsb reads format 5; start the version of pfsb that wrote it")

    def test_file_that_is_no_segment(self) -> None:
        """A file that is no segment is refused, and not overwritten."""
        self.path.mkdir(parents=True)
        self.first.write_text("my shopping list, which is longer than a header\n" * 100)
        self.assertRefused(str(self.first), "its head is missing or damaged")
        self.assertTrue(self.first.read_text().startswith("my shopping list"))

    def test_directory_without_its_segments(self) -> None:
        """G20: a directory without its segments is refused: when a server has taken part before, no data means
        amnesia."""
        self.make()
        self.first.unlink()
        self.assertRefused(f"{self.first}: missing", "must not vote again")
        self.path.rmdir()
        self.assertRefused(f"{self.path}: missing, although its position note pfsb.position is there")

    def test_segment_that_was_emptied_or_cut(self) -> None:
        """A segment that was emptied or cut, as by a copy that ran out of room, is refused: segments are never shorter
        than they were made."""
        self.make()
        size = self.first.stat().st_size
        for keep, problem in ((0, "its head is missing"), (4_095, "head"), (4_096, "cut off"), (size - 1, "cut off")):
            copy = Path(self.mktemp())
            shutil.copytree(self.directory, copy)
            os.truncate(segment_path(copy / "log", 1), keep)
            self.assertRefused(str(segment_path(copy / "log", 1)), problem, directory=copy)

    def test_every_byte_of_the_head_counts(self) -> None:
        """A change of any byte of a segment's head is refused, also in the zeros at its end."""
        self.make()
        head = self.head().encode()
        for at in [*range(150), *range(150, len(head), 97), len(head) - 1]:
            self.edit(at, bytes([head[at] ^ 1]))
            self.assertRefused(str(self.first))
            self.edit(at, head[at : at + 1])

    def test_log_of_zeros(self) -> None:
        """A log of zeros is refused: zeros are also the room behind the end, but the position note knows that groups
        were written."""
        self.make()
        self.edit(4_096, bytes(20_000))
        self.assertRefused("holds 0 groups of records, and this server had written 3", "Bring back all files")

    def test_damage_further_up(self) -> None:
        """Damage in group 2 of three is refused: that group was on disk before group 3 was begun, and may have been
        acknowledged."""
        self.make()
        at = self.first.read_bytes().index(b"slot 2")
        self.edit(at, b"slot 9")
        self.assertRefused(f"{self.first}: damaged before its end, where acknowledged records stand")

    def test_damage_in_the_last_group(self) -> None:
        """Damage in the last group is refused if the position note knows that this group was on disk; otherwise it
        could be the torn end of a write."""
        self.make()
        self.edit(self.first.read_bytes().index(b"slot 6"), b"slot 9")
        self.assertRefused("holds 2 groups of records, and this server had written 3")

    def test_gap_between_segments(self) -> None:
        """A log of three segments without the second is refused."""
        self.make_three()
        segment_path(self.path, 2).unlink()
        self.assertRefused(f"{segment_path(self.path, 2)}: missing, although other segments of this log are there")

    def test_directory_without_any_segment(self) -> None:
        """A log directory without any segment is refused: it is made under another name, so one of this name has had
        segments."""
        self.make()
        self.first.unlink()
        self.assertRefused(f"{self.first}: missing, and so are all segments of this log; a server that has lost part")

    def test_segment_that_lost_its_end(self) -> None:
        """If the last groups of segment 1 have become zeros, the log is refused: segment 2 does not go on where segment
        1 ends."""
        self.make_three()
        log = scan(self.path)
        size = self.first.stat().st_size
        begins = [place.offset for seq in log.index.above(0) if (place := log.index.get(seq)) and place.segment == 1]
        self.edit(begins[-1], bytes(size - begins[-1]))
        self.assertRefused("0000000002.log: does not go on where 0000000001.log ends, and should")
        self.edit(4_096, bytes(size - 4_096))
        self.assertRefused("0000000001.log: damaged before its end")

    def test_segment_of_another_storage(self) -> None:
        """A segment of another storage is refused: two directories were mixed."""
        self.make_three()
        other = SegmentHead(2, 5_000, b"stranger", bytes(16), self.head().owner)
        segment_path(self.path, 2).unlink()
        make_segment(self.path, other)
        self.assertRefused(
            f"{segment_path(self.path, 2)}: belongs to the storage {b'stranger'.hex()}", "bring back the files of one"
        )

    def test_segment_under_the_name_of_another(self) -> None:
        """A segment under the file name of another is refused: its head has its number."""
        self.make_three()
        shutil.copy(self.first, segment_path(self.path, 2))
        self.assertRefused("it is segment 1 under another name")

    def test_older_copy_of_the_last_segment(self) -> None:
        """An older copy of the last segment is refused: the position note knows how many groups were acknowledged."""
        self.make_three()
        last = segment_path(self.path, 3)
        older = last.read_bytes()
        server = Server(self.directory)
        server.storage.recover()
        server.write(*slot_records([900]))
        server.storage.close()
        last.write_bytes(older)
        self.assertRefused("its log is missing, emptied, cut off or older than it was")

    def make_three(self) -> None:
        """Make a log whose third segment is in use."""
        self.patch(segments, "ROOM_BYTES_MAX", segments.ROOM_BYTES_MIN)
        server = Server(self.directory)
        server.storage.recover()
        seq = 0
        third = segment_path(self.path, 3)
        while not third.exists() or len(third.read_bytes().rstrip(b"\0")) < 5_000:
            seq += 1
            server.write(ProposalRecord(seq, 1, batch("x" * 57_000)), AruRecord(seq))
        server.storage.close()

    def test_gap_in_the_history(self) -> None:
        """A slot that is missing in the history is refused: every slot up to Local_Aru was stored before Local_Aru
        was."""
        server = Server(self.directory)
        server.storage.recover()
        server.write(*slot_records([1, 3]), AruRecord(3))
        server.storage.close()
        self.assertRefused("slot 2 is missing from the history, which should hold every slot from 1 to 3")

    def test_history_that_ends_below_the_aru(self) -> None:
        """A history that ends below Local_Aru is refused as one with a gap."""
        server = Server(self.directory)
        server.storage.recover()
        server.write(*slot_records([1, 2]), AruRecord(3))
        server.storage.close()
        self.assertRefused("slot 3 is missing")

    def test_directory_in_use(self) -> None:
        """A directory in use is refused: two servers on one directory would each forget the other's promises."""
        self.make()
        first = Server(self.directory)
        self.addCleanup(first.storage.close)
        first.storage.recover()
        self.assertRefused(str(self.directory), f"in use by another server (process {os.getpid()})")
        first.storage.close()
        second = Server(self.directory)
        self.addCleanup(second.storage.close)
        self.assertEqual(second.storage.recover().local_aru, 3)

    def test_file_in_place_of_the_directory(self) -> None:
        """A file in the place of the directory is refused before anything is made."""
        self.directory.write_text("")
        self.assertRefused(str(self.directory), "the data directory must be one that this server may write to")

    def test_directory_that_may_not_be_written(self) -> None:
        """A directory that may not be written is refused before anything is made."""
        if os.geteuid() == 0:
            raise SkipTest("root may write everywhere")
        self.directory.mkdir(mode=0o500)
        self.assertRefused("Permission denied", "the data directory must be one that this server may write to")
