"""A log after power loss: every group that was acknowledged is there, whichever sectors of the last write are.

A disk may write the sectors of one write in any order. So after power loss each sector that the write touches is either
new or as it was before, the sector with the end of the group before included. The tests try every combination, for
sectors of 512 and 4,096 bytes, around every write, at every moment of the making of a segment, and in the writes of a
start that comes after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import product

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.records import AruRecord, SnapshotRecord
from pfsb.storage.durable import DurableFile
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.items import Content, StoredSnapshot
from pfsb.storage.log.scan import scan, scan_end
from pfsb.storage.log.segments import UNFINISHED, drop_segments
from pfsb.storage.log.writer import LogWriter
from tests.long import long
from tests.storage.log.support import (
    CONTENTS,
    OWNER,
    ROOM_BYTES,
    Found,
    LogTestCase,
    Named,
    content,
    do_nothing,
    everything,
    slot,
    snapshot_name,
    watch_writes,
)

SECTORS = (512, 4_096)
WITH_SNAPSHOTS: Sequence[Content] = (
    *CONTENTS[:9],
    content(SnapshotRecord(snapshot_name(4))),
    content(SnapshotRecord(snapshot_name(5)), AruRecord(6), slot(8, 400, 6)),
    content(slot(9, 1_300, 6)),
    content(SnapshotRecord(snapshot_name(20)), slot(10, 900, 6)),
    content(slot(21, 600, 6), AruRecord(21)),
)
"""Groups, three of which name snapshots, the last of these one of another server."""


class Write:
    """One durable write: the name of its file, and the files of the log when it begins."""

    def __init__(self, name: str, files: dict[str, bytes], data: bytes, offset: int) -> None:
        self.name, self.files, self.data, self.offset = name, files, data, offset

    @property
    def before(self) -> bytes:
        return self.files[self.name]

    @property
    def after(self) -> bytes:
        end = self.offset + len(self.data)
        return self.before[: self.offset].ljust(self.offset, b"\0") + self.data + self.before[end:]

    def torn(self, sector: int) -> Iterator[bytes]:
        """The content of the file for every combination of sectors of this size that are on disk.

        A file that the write makes longer has its old or its new length.
        """
        starts = range(self.offset - self.offset % sector, self.offset + len(self.data), sector)
        old = self.before.ljust(len(self.after), b"\0")
        for is_new in product((False, True), repeat=len(starts)):
            mixed = bytearray(old)
            for start, new in zip(starts, is_new, strict=True):
                if new:
                    mixed[start : start + sector] = self.after[start : start + sector]
            yield bytes(mixed)
            if len(old) > len(self.before):
                yield bytes(mixed[: len(self.before)])

    def cut(self, step: int) -> Iterator[bytes]:
        """The content of the file for beginnings of the write, of 0, `step`, 2 * `step`, ... bytes."""
        for length in range(0, len(self.data), step):
            yield self.after[: self.offset + length] + self.before[self.offset + length :]


class PowerLossTests(LogTestCase):
    """Every state of the files that a crash can leave, and what a start finds in them."""

    def setUp(self) -> None:
        super().setUp()
        self.writes: list[Write] = []
        watch_writes(self, self.note)
        self.watching = True

    def note(self, file: DurableFile, data: bytes, offset: int) -> None:
        if self.watching:
            name = os.path.basename(os.readlink(f"/proc/self/fd/{file.descriptor}"))
            self.writes.append(Write(name, self.files(), data, offset))

    def found_after(self, contents: Sequence[Content], named: Named = do_nothing) -> list[Found]:
        """The content of the log after each number of groups, from none on. `named` is told of snapshots."""
        self.make_segment(1)
        writer = self.writer(named=named, slack=Slack(0))
        found = [everything(self.directory)]
        for each in contents:
            writer.append(each)
            found.append(everything(self.directory))
        writer.close()
        return found

    def each_crash(self, write: Write, torn: Callable[[Write], Iterator[bytes]]) -> Iterator[None]:
        for data in torn(write):
            self.put_back(write.files | {write.name: data})
            yield

    def test_every_combination_of_sectors_of_every_write(self) -> None:
        """For every combination of sectors of every write, a start finds all groups before it, and the group of the
        write as a whole or not at all."""
        found = self.found_after(CONTENTS)
        self.watching = False
        self.assertEqual(len(self.writes), len(CONTENTS))
        self.assertGreater(len({write.name for write in self.writes}), 2, "several segments are filled")
        crashes = 0
        for number, write in enumerate(self.writes):
            for sector in SECTORS:
                for _ in self.each_crash(write, lambda write, sector=sector: write.torn(sector)):
                    crashes += 1
                    self.assertIn(everything(self.directory), found[number : number + 2])
            self.put_back(write.files | {write.name: write.after})
            self.assertEqual(everything(self.directory), found[number + 1], "all sectors are there")
        self.assertGreater(crashes, 100)

    def test_every_combination_of_sectors_of_groups_that_name_snapshots(self) -> None:
        """For every combination of sectors of groups that name snapshots, a start finds the same as for other groups,
        whether superfluous segments are deleted by then or not."""

        def drop(stored: StoredSnapshot, dropped: list[int]) -> None:
            drop_segments(self.directory, dropped, self.head(1), lambda: None)

        for named in (do_nothing, drop):
            self.put_back({})
            self.writes = []
            self.watching = True
            found = self.found_after(WITH_SNAPSHOTS, named)
            self.watching = False
            self.assertGreater(found[-1].state.first_segment, 2)
            for number, write in enumerate(self.writes):
                for _ in self.each_crash(write, lambda write: write.torn(512)):
                    self.assertIn(everything(self.directory), found[number : number + 2])

    def test_every_beginning_of_a_write(self) -> None:
        """A write may end after any number of bytes, also if that is no multiple of a sector."""
        found = self.found_after(CONTENTS)
        self.watching = False
        for number, write in enumerate(self.writes):
            for _ in self.each_crash(write, lambda write: write.cut(13)):
                self.assertEqual(everything(self.directory), found[number])

    @long
    def test_start_after_a_crash_may_be_cut_short_itself(self) -> None:
        """A start after a crash writes the last group again, and zeros behind it: any part of that may be on disk when
        it is cut short."""
        self.found_after(CONTENTS)
        writes, self.writes = self.writes, []
        for write in writes:
            for data in list(write.torn(512))[:-1]:
                self.assertRepairCanBeCut(write, data)

    def assertRepairCanBeCut(self, write: Write, data: bytes) -> None:
        self.put_back(write.files | {write.name: data})
        found = everything(self.directory)
        self.writes = []
        LogWriter.open(scan(self.directory, OWNER)).close()
        self.assertEqual(everything(self.directory), found, "a repair changes nothing that is found")
        self.watching = False
        for repair in self.writes:
            for _ in self.each_crash(repair, lambda write: write.torn(4_096)):
                self.assertEqual(everything(self.directory), found)
        self.watching = True

    def test_groups_go_on_after_each_crash(self) -> None:
        """Groups of a later start stand behind those that were found, and nothing of the torn group comes back."""
        self.found_after(CONTENTS)
        writes = self.writes
        self.watching = False
        for write in writes:
            for data in list(write.torn(512)):
                self.put_back(write.files | {write.name: data})
                before = everything(self.directory)
                writer = self.writer()
                for seq in (50, 51):
                    writer.append(content(slot(seq, 600)))
                writer.close()
                now = everything(self.directory)
                self.assertEqual(now.position, before.position + 2)
                self.assertEqual({seq: now.slots[seq] for seq in now.slots if seq < 50}, before.slots)

    def test_second_crash_at_the_same_place(self) -> None:
        """When a group is torn where another one was torn before, sectors of three writes may be on disk: a start finds
        the right groups."""
        self.found_after(CONTENTS)
        first = self.writes[3]
        for data in list(first.torn(512))[:-1]:
            self.watching, self.writes = False, []
            self.put_back(first.files | {first.name: data})
            before = everything(self.directory)
            writer = self.writer()
            self.watching = True
            writer.append(content(slot(9, 650)))
            self.watching = False
            writer.close()
            after = everything(self.directory)
            for _ in self.each_crash(self.writes[-1], lambda write: write.torn(512)):
                self.assertIn(everything(self.directory), (before, after))

    def test_making_of_a_segment_can_be_cut_short(self) -> None:
        """When the making of a segment is cut short, its content does not matter: the file gets its name only when it
        is on disk."""
        found = self.found_after(CONTENTS)
        self.watching = False
        files = self.files()
        number = max(int(name[:10]) for name in files)
        last = max(files)
        unused = everything(self.directory)
        complete = files.get(last)
        assert complete is not None
        self.assertEqual(unused, found[-1])
        for junk in (b"", complete[:100], complete, os.urandom(5_000)):
            self.put_back(files | {UNFINISHED: junk})
            self.assertEqual(everything(self.directory), found[-1])
        self.make_segment(number + 1)
        self.assertEqual(everything(self.directory), found[-1])

    def test_growing_segment(self) -> None:
        """A file that grows because the next segment is not ready has its old or its new length."""
        self.make_segment(1)
        writer = LogWriter.open(scan(self.directory, OWNER))
        found = [everything(self.directory)]
        for each in CONTENTS:
            writer.append(each)
            found.append(everything(self.directory))
        writer.close()
        self.watching = False
        for number, write in enumerate(self.writes):
            for _ in self.each_crash(write, lambda write: write.torn(512)):
                self.assertIn(everything(self.directory), found[number : number + 2])


class DamageTests(LogTestCase):
    """Damage by changed bits and cut files is refused, or has no effect."""

    def setUp(self) -> None:
        super().setUp()
        self.make_segment(1)
        writer = self.writer()
        self.prefixes = []
        """The contents of the log, after each group."""
        for each in CONTENTS:
            writer.append(each)
            self.prefixes.append(everything(self.directory))
        assert writer.log.last is not None
        self.last = writer.log.last
        writer.close()
        self.kept = self.files()

    def assertRefusedOrOneOf(self, expected: Sequence[Found]) -> bool:
        """Returns whether the damaged log was refused."""
        try:
            found = everything(self.directory)
        except StorageRefused as error:
            self.assertNotIn("\n", str(error))
            return True
        self.assertIn(found, expected)
        end = scan_end(self.directory, OWNER)
        self.assertEqual((end.position, end.state), found[:2])
        return False

    def assertRefusedOrHarmless(self, name: str, at: int) -> bool:
        """Change a bit of the file at this place. Returns whether the log was refused."""
        is_in_last = name == f"{self.last.segment:010d}.log" and at >= self.last.offset
        return self.assertRefusedOrOneOf(self.prefixes[-2:] if is_in_last else self.prefixes[-1:])

    def flip(self, name: str, bit: int) -> None:
        data = bytearray(self.kept[name])
        data[bit // 8] ^= 1 << bit % 8
        self.put_back(self.kept | {name: bytes(data)})

    def flip_at_random(self, count: int) -> None:
        refused = 0
        for _ in range(count):
            name = self.dice.choice(sorted(self.kept))
            bit = self.dice.randrange(8 * min(len(self.kept[name].rstrip(b"\0")) + 64, len(self.kept[name])))
            self.flip(name, bit)
            refused += self.assertRefusedOrHarmless(name, bit // 8)
        self.assertGreater(refused, count // 2)

    def test_bits_that_turn(self) -> None:
        """One changed bit in acknowledged records is refused; behind the end of the log it changes nothing."""
        self.flip_at_random(400)

    @long
    def test_thousands_of_bits(self) -> None:
        """A log is refused, or harmless, if any bit of its second segment, up to some zeros behind its end, is changed,
        or one of many others."""
        self.flip_at_random(5_000)
        name = "0000000002.log"
        end = len(self.kept[name].rstrip(b"\0"))
        for bit in range(8 * min(end + 8, len(self.kept[name]))):
            self.flip(name, bit)
            self.assertTrue(self.assertRefusedOrHarmless(name, bit // 8), "there is another segment behind")

    def test_every_byte_of_the_last_group_looks_torn(self) -> None:
        """Damage in the last group may be a group torn by power loss: a start finds the groups before it, and the
        position, which is kept elsewhere, shows the loss."""
        name = f"{self.last.segment:010d}.log"
        for at in range(self.last.offset, len(self.kept[name].rstrip(b"\0"))):
            self.flip(name, 8 * at + at % 8)
            self.assertEqual(everything(self.directory), self.prefixes[-2])

    def test_files_that_are_cut(self) -> None:
        """A segment that is shorter than it was made is refused. A cut in the part by which it has grown loses groups,
        which the position shows."""
        for name, data in self.kept.items():
            for length in (0, 1, 100, 4_095, 4_096, 4_200, ROOM_BYTES - 1, len(data) - 512, len(data) - 1):
                self.put_back(self.kept | {name: data[:length]})
                is_refused = self.assertRefusedOrOneOf(self.prefixes)
                self.assertTrue(is_refused or length >= ROOM_BYTES, (name, length))

    def test_zeros_in_place_of_anything(self) -> None:
        """Sectors that have become zeros are refused, or leave the log as it was at an earlier position."""
        for name, data in self.kept.items():
            for start in range(0, len(data), 512):
                self.put_back(self.kept | {name: data[:start] + bytes(512) + data[start + 512 :]})
                self.assertRefusedOrOneOf(self.prefixes)

    def test_sectors_in_the_place_of_others(self) -> None:
        """Sectors that a disk has written to the wrong place are refused, or leave the log as it was at an earlier
        position."""
        pieces = [(name, at) for name, data in self.kept.items() for at in range(0, len(data), 512)]
        for _ in range(200):
            (name, at), (other, other_at) = self.dice.sample(pieces, 2)
            data = self.kept[name]
            changed = data[:at] + self.kept[other][other_at : other_at + 512] + data[at + 512 :]
            self.put_back(self.kept | {name: changed[: len(data)]})
            self.assertRefusedOrOneOf(self.prefixes)

    def test_segments_of_another_time(self) -> None:
        """Segments that are missing, exchanged, or from an older copy are refused, or leave the log as it was at an
        earlier position."""
        names = sorted(self.kept)
        for name in names[:-1]:
            without = {other: data for other, data in self.kept.items() if other != name}
            self.put_back(without)
            self.assertTrue(self.assertRefusedOrOneOf(self.prefixes))
            for other in names:
                if other != name:
                    self.put_back(self.kept | {name: self.kept[other]})
                    self.assertTrue(self.assertRefusedOrOneOf(self.prefixes))
