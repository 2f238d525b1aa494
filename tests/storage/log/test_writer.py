"""Tests of `pfsb.storage.log.writer`, `reader` and `maker`: one group after the other, and segments made ahead."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from threading import Event
from time import monotonic, sleep
from unittest import mock

from twisted.python.failure import Failure

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, ProposalRecord
from pfsb.storage.durable import DurableFile, NoRoom
from pfsb.storage.log import maker as maker_module
from pfsb.storage.log import segments
from pfsb.storage.log.items import Content
from pfsb.storage.log.maker import SegmentMaker
from pfsb.storage.log.reader import LogReader
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import UNFINISHED, segment_path
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.room import Room
from tests.storage.log.support import CONTENTS, OWNER, LogTestCase, content, everything, slot, watch_writes


class WriterTests(LogTestCase):
    """Groups that are written."""

    def test_each_group_is_one_write_behind_the_one_before(self) -> None:
        """Each group is one write behind the previous one; only the last group is written again, by the next start."""
        writes: list[tuple[int, int]] = []
        self.make_segment(1)
        writer = self.writer()
        watch_writes(self, lambda file, data, offset: writes.append((offset, len(data))))
        begins = [writer.log.end]
        for seq in range(1, 4):
            writer.append(content(slot(seq, 100)))
            begins.append(writer.log.end)
        self.assertEqual([offset for offset, _ in writes], begins[:3])
        self.assertEqual([offset + size for offset, size in writes], begins[1:])

    def test_group_that_does_not_fit_goes_into_the_next_segment(self) -> None:
        """A group that does not fit goes into the next segment, and the present one keeps its size."""
        writer = self.write_all()
        self.assertGreater(writer.log.segment, 2)
        self.assertEqual(everything(self.directory).position, len(CONTENTS))
        for number in range(1, writer.log.segment):
            self.assertEqual(scan(self.directory).heads[number].number, number)

    def test_segment_grows_until_the_next_one_is_ready(self) -> None:
        """A segment grows until the next one is ready: the writer never waits for the thread that makes segments."""
        self.make_segment(1)
        ready: list[segments.SegmentHead] = []
        wanted: list[int] = []
        writer = LogWriter.open(scan(self.directory, OWNER), lambda: ready.pop() if ready else None, wanted.append)
        self.addCleanup(writer.close)
        for seq in range(1, 8):
            writer.append(content(slot(seq, 700)))
        self.assertEqual((wanted, writer.log.segment), ([2], 1))
        self.assertGreater(segment_path(self.directory, 1).stat().st_size, 7 * 700)
        ready.append(self.make_segment(2))
        writer.append(content(slot(8, 700)))
        self.assertEqual((writer.log.segment, wanted), (2, [2, 3]))
        self.assertEqual(len(everything(self.directory).slots), 8)

    def refuse(self, writer: LogWriter, refused: Content) -> None:
        """Let a writer write a part of a group, until the disk has no more room, and require that it says so."""

        def write(file: DurableFile, pieces: object, offset: int) -> None:
            os.pwrite(file.descriptor, b"".join(pieces)[:90], offset)  # type: ignore[call-overload]
            raise NoRoom

        with mock.patch.object(DurableFile, "write", write):
            self.assertRaises(NoRoom, writer.append, refused)

    def test_group_that_was_refused_for_want_of_room_is_written_at_the_same_place(self) -> None:
        """A group that was refused for want of room is written at the same place later; until then readers and the
        position see nothing of it."""
        self.make_segment(1)
        writer = self.writer()
        writer.append(content(slot(1, 100)))
        before = everything(self.directory)
        self.refuse(writer, content(slot(2, 100)))
        self.assertEqual((writer.position, writer.log.index.get(2)), (1, None))
        self.assertEqual(everything(self.directory), before)
        writer.append(content(slot(2, 100)))
        self.assertEqual(everything(self.directory).position, 2)

    def test_refused_group_stays_in_its_segment_though_the_next_one_is_ready_by_then(self) -> None:
        """A refused group is written in its own segment, though the next one is ready: its first bytes in this segment
        would look like damage otherwise."""
        self.make_segment(1)
        ready: list[segments.SegmentHead] = []
        writer = LogWriter.open(scan(self.directory, OWNER), lambda: ready.pop() if ready else None)
        self.addCleanup(writer.close)
        for seq in range(1, 8):
            writer.append(content(slot(seq, 700)))
        self.refuse(writer, content(slot(8, 700)))
        ready.append(self.make_segment(2))
        writer.append(content(slot(8, 700)))
        self.assertEqual(writer.log.segment, 1)
        writer.append(content(slot(9, 700)))
        self.assertEqual(writer.log.segment, 2)
        self.assertEqual(len(everything(self.directory).slots), 9)

    def test_start_writes_the_last_group_again(self) -> None:
        """A start writes the last group again: the process that wrote it may have died before it was on disk."""
        self.write_all(CONTENTS[:3]).close()
        log = scan(self.directory, OWNER)
        assert log.last is not None
        writes: list[tuple[bytes, int]] = []
        watch_writes(self, lambda file, data, offset: writes.append((data, offset)))
        LogWriter.open(log).close()
        data = log.path(1).read_bytes()
        self.assertEqual(writes, [(data[log.last.offset : log.end], log.last.offset)])

    def test_last_group_that_has_changed_since_it_was_read_is_refused(self) -> None:
        """If the last group has changed since a start has read it, the start is refused: writing it again would make
        the damage lasting."""
        self.write_all(CONTENTS[:3]).close()
        log = scan(self.directory, OWNER)
        path, data = log.path(1), log.path(1).read_bytes()
        assert log.last is not None
        for changed in (
            *(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(log.last.offset, log.end)),
            data[: log.last.offset].ljust(len(data), b"\0"),
            data[: log.end - 1],
        ):
            path.write_bytes(changed)
            error = self.assertRaises(StorageRefused, LogWriter.open, log)
            self.assertIn("group 3 is not what it was a moment ago", str(error))
            self.assertEqual(path.read_bytes(), changed)
        path.write_bytes(data)
        LogWriter.open(log).close()


class ReaderTests(LogTestCase):
    """Slots that are read while groups are written."""

    def test_reader_sees_each_group_when_it_is_written(self) -> None:
        """A reader sees each group when it is written, across segments, and also a slot that is written anew."""
        self.make_segment(1)
        writer = self.writer()
        reader = LogReader(writer.log)
        self.addCleanup(reader.close)
        for seq in range(1, 30):
            writer.append(content(slot(seq, 400), AruRecord(seq)))
            self.assertEqual([each for each, _ in reader.read(max(1, seq - 3), seq, 10**6)][-1], seq)
        writer.append(content(slot(3, 50, view=9)))
        self.assertEqual(reader.slot(3), LogReader(writer.log).slot(3))
        found = reader.slot(3)
        assert found is not None
        self.assertEqual((found.view, len(found.batch.data)), (9, 50))

    def test_group_that_is_larger_than_what_is_read_at_once(self) -> None:
        """A group that is larger than one read of the reader is read whole."""
        self.make_segment(1)
        writer = self.writer()
        batches = {seq: Batch(bytes([seq]) * 50_000) for seq in range(1, 9)}
        writer.append(content(*(ProposalRecord(seq, 1, batch) for seq, batch in batches.items()), AruRecord(8)))
        self.assertEqual(dict(LogReader(writer.log).read(1, 8, 10**6)), batches)
        self.assertEqual(dict(LogReader(writer.log).ordered(8)), batches)


class MakerTests(LogTestCase):
    """The thread that makes segments ahead."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(maker_module, "AGAIN_SECONDS", 0.01)
        self.patch(segments, "ROOM_BYTES_MAX", segments.ROOM_BYTES_MIN)
        self.room = Room(self.home, 0)
        self.made: list[object] = []
        self.failures: list[Failure] = []
        self.maker = SegmentMaker(
            self.failures.append,
            self.directory,
            self.make_segment(1),
            self.dice.randbytes,
            self.room,
            self.made.append,
        )
        self.maker.start()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.maker.begin_stop()
        self.assertTrue(self.maker.has_stopped(10))

    def wait(self, condition: Callable[[], object]) -> None:
        end = monotonic() + 10
        while not condition():
            self.assertLess(monotonic(), end)
            sleep(0.005)

    def test_segment_is_made_and_taken_once(self) -> None:
        """A new segment is made and taken once; it belongs to the log, and has a salt of its own."""
        self.assertIsNone(self.maker.take())
        self.maker.want(2)
        self.wait(lambda: self.made)
        taken = []
        self.wait(lambda: taken.append(self.maker.take()) or taken[-1] is not None)
        self.assertIsNone(self.maker.take())
        heads = scan(self.directory, OWNER).heads
        self.assertEqual(heads[2], taken[-1])
        self.assertNotEqual(heads[2].salt, heads[1].salt)
        self.assertEqual(self.made, [segment_path(self.directory, 2)])
        self.assertEqual(set(segment_path(self.directory, 2).read_bytes()[heads[2].size :]), {0})

    def test_nothing_is_made_on_a_full_disk(self) -> None:
        """No segment is made on a full disk: the reserve is for groups (Departure 45)."""
        self.room.write_refused()
        self.maker.want(2)
        sleep(0.05)
        self.assertEqual(self.made, [])
        self.room.is_full = False
        self.wait(lambda: self.made)

    def test_segment_that_would_fill_the_disk_is_not_begun(self) -> None:
        """A segment that would fill the disk is not begun: its zeros alone would make the server read-only."""
        self.patch(Room, "has", lambda room, size: False)
        self.maker.want(2)
        sleep(0.05)
        self.assertFalse((self.directory / UNFINISHED).exists())
        self.patch(Room, "has", lambda room, size: True)
        self.wait(lambda: self.made)

    def test_disk_without_room_is_tried_again(self) -> None:
        """On a disk without room the making of a segment is tried again, and the part that was made is deleted."""
        refused = Event()

        def refuse(*_: object) -> None:
            (self.directory / UNFINISHED).write_bytes(b"half")
            refused.set()
            raise OSError(errno.ENOSPC, "No space left on device")

        patch = self.patch(maker_module, "make_segment", refuse)
        self.maker.want(2)
        self.assertTrue(refused.wait(10))
        self.wait(lambda: not (self.directory / UNFINISHED).exists())
        patch.restore()
        self.wait(lambda: self.made)
        self.assertEqual(self.failures, [])

    def test_broken_disk_is_reported(self) -> None:
        """An error of the disk in the making of a segment is reported, and the storage fails as a whole."""

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(maker_module, "make_segment", fail)
        self.maker.want(2)
        self.wait(lambda: self.failures)
        self.assertEqual([failure.value.errno for failure in self.failures], [errno.EIO])

    def test_thread_ends_in_the_middle_of_its_work(self) -> None:
        """The thread ends in the middle of making a segment: a server that is asked to stop does not wait for 16
        megabytes."""
        self.patch(maker_module, "PAUSE_SECONDS", 60)
        self.maker.want(2)
        sleep(0.02)
        self.stop()
        self.assertEqual((self.made, self.failures), ([], []))
