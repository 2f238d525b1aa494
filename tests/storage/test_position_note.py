"""Tests of `pfsb.storage.position_note`: a storage that lacks a part of what was written is refused at the start."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from time import monotonic

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import BLOCK_BYTES, segment_path
from pfsb.storage.position_note import LINE_BYTES, PositionNote, note_of
from tests.storage.support import Server, slot_records


class LostLogTests(SynchronousTestCase):
    """The log of a server that was killed: each way in which the log can have lost something is refused."""

    def setUp(self) -> None:
        self.running = Path(self.mktemp())
        self.server = Server(self.running)
        self.addCleanup(self.server.storage.close)
        self.server.storage.recover()

    def write(self, *seqs: int) -> None:
        for seq in seqs:
            self.server.write(*slot_records([seq]))
            self.server.clock.run_what_came(0.01)

    def killed(self) -> Path:
        """A copy of the directory, as a kill leaves it at this moment."""
        copy = Path(self.mktemp())
        shutil.copytree(self.running, copy)
        return copy

    def recover(self, directory: Path) -> list[int]:
        server = Server(directory)
        self.addCleanup(server.storage.close)
        return [slot.seq for slot in server.storage.recover().accepted]

    def assertRefused(self, directory: Path, *parts: str) -> None:
        server = Server(directory)
        error = str(self.assertRaises(StorageRefused, server.storage.recover))
        self.assertNotIn("\n", error)
        for part in parts:
            self.assertIn(part, error)
        again = self.assertRaises(StorageRefused, Server(directory).storage.refuse_if_unusable)
        self.assertEqual(str(again), error, "the look before the start says the same")

    def log_of(self, directory: Path) -> Path:
        """Return the only segment of the log."""
        return segment_path(directory / "log", 1)

    def test_missing_log(self) -> None:
        """A missing log is refused: acknowledged records are gone, and the server would vote without them."""
        self.write(1, 2)
        killed = self.killed()
        shutil.rmtree(killed / "log")
        self.assertRefused(killed, "log: missing, although its position note pfsb.position is there")

    def test_missing_segment(self) -> None:
        """A missing segment is refused, also the only one of a server that has written nothing but its start."""
        killed = self.killed()
        self.log_of(killed).unlink()
        self.assertRefused(killed, "0000000001.log: missing")

    def test_emptied_and_zeroed_log(self) -> None:
        """A log that was emptied or filled with zeros is refused, although zeros look like the room behind its end."""
        self.write(1, 2)
        killed = self.killed()
        data = self.log_of(killed).read_bytes()
        self.log_of(killed).write_bytes(data[:BLOCK_BYTES].ljust(len(data), b"\0"))
        self.assertRefused(killed, "its log is missing, emptied, cut off or older")
        self.assertRefused(killed, "holds 0 groups of records, and this server had written 3", "Bring back all files")

    def test_log_that_ends_earlier(self) -> None:
        """A log that was cut behind any of its groups is refused, although nothing in it is wrong."""
        self.write(1, 2, 3, 4)
        data = self.log_of(self.running).read_bytes()
        log = scan(self.running / "log")
        ends = [place.offset for seq in log.index.above(0) if (place := log.index.get(seq))]
        self.assertEqual(len(ends), 4)
        for held, end in enumerate(ends, start=1):
            killed = self.killed()
            self.log_of(killed).write_bytes(data[:end].ljust(len(data), b"\0"))
            self.assertRefused(killed, f"holds {held} groups of records, and this server had written 5")

    def test_log_with_a_zeroed_tail(self) -> None:
        """A log whose tail is zeros is refused: some file systems leave this after they have noted the size of a file
        and not its content."""
        self.write(1, 2)
        before = len(self.log_of(self.running).read_bytes().rstrip(b"\0"))
        self.write(3)
        killed = self.killed()
        data = self.log_of(killed).read_bytes()
        self.log_of(killed).write_bytes(data[:before].ljust(len(data), b"\0"))
        self.assertRefused(killed, "holds 3 groups of records, and this server had written 4")

    def test_older_log(self) -> None:
        """An older log beside a newer note is refused: the directory is not of one moment."""
        self.write(1)
        older = self.killed()
        self.write(2)
        killed = self.killed()
        shutil.copy(self.log_of(older), self.log_of(killed))
        self.assertRefused(killed)

    def test_refusal_changes_nothing(self) -> None:
        """A refused start changes nothing: when the right log is back, the server starts with all that was written."""
        self.write(1)
        older = self.killed()
        self.write(2, 3)
        killed, whole = self.killed(), self.killed()
        shutil.copy(self.log_of(older), self.log_of(killed))
        self.assertRefused(killed)
        shutil.copy(self.log_of(whole), self.log_of(killed))
        self.assertEqual(self.recover(killed), [1, 2, 3])

    def test_killed_server_starts(self) -> None:
        """After a kill a server starts, since the note is never ahead of the storage."""
        for seq in (1, 2, 3):
            self.write(seq)
            self.assertEqual(self.recover(self.killed()), list(range(1, seq + 1)))

    def test_log_without_its_note(self) -> None:
        """A log without its note is refused: if both could be missing, a lost log would pass for a new one."""
        self.write(1)
        killed = self.killed()
        note_of(killed / "log").unlink()
        self.assertRefused(killed, "pfsb.position: missing", "Bring it back as it was")

    def test_start_that_was_cut_short_before_its_note(self) -> None:
        """A log whose first start was cut short before the note was made is accepted: nothing can have been lost."""
        self.server.storage.close()
        fresh = Path(self.mktemp())
        server = Server(fresh)
        server.storage.refuse_if_unusable()
        server.storage.lock.acquire()
        server.storage.make_or_find()
        server.storage.lock.release()
        self.assertFalse(note_of(fresh / "log").exists())
        server.storage.refuse_if_unusable()
        note_of(fresh / "log").unlink()
        self.assertEqual(self.recover(fresh), [])


class NoteTests(SynchronousTestCase):
    """The file of the note."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.note = PositionNote(self.path, b"identity", monotonic)
        self.note.create(5)

    def tell(self, *positions: int) -> None:
        self.note.open(positions[0])
        self.addCleanup(self.note.close)
        for position in positions[1:]:
            self.note.tell(position)

    def test_last_position_is_read(self) -> None:
        """The last position in the note is read, both when the note was just made and when it was written to again."""
        self.assertEqual(self.note.read(), 5)
        self.tell(6, 7, 8)
        self.assertEqual(PositionNote(self.path, b"identity", monotonic).read(), 8)

    def test_torn_line_leaves_the_one_before(self) -> None:
        """When the last line is torn, the line before counts: a crash in the middle of a line must not keep the server
        from starting."""
        self.tell(6, 7, 8)
        for line, left in ((0, 8), (1, 7)):
            data = bytearray(self.path.read_bytes())
            data[line * LINE_BYTES + 20 : (line + 1) * LINE_BYTES] = bytes(LINE_BYTES - 20)
            torn = Path(self.mktemp())
            torn.write_bytes(bytes(data))
            self.assertEqual(PositionNote(torn, b"identity", monotonic).read(), left)

    def test_damaged_note_is_refused(self) -> None:
        """A note with any bit of a line changed is refused."""
        data = self.path.read_bytes()
        for at in range(LINE_BYTES - 1):
            line = bytearray(data[:LINE_BYTES])
            line[at] ^= 1
            self.path.write_bytes(bytes(line) * 2)
            error = str(self.assertRaises(StorageRefused, self.note.read))
            self.assertIn("damaged", error)

    def test_note_of_another_storage_is_refused(self) -> None:
        """The note of another storage is refused: files of two directories were mixed."""
        error = str(self.assertRaises(StorageRefused, PositionNote(self.path, b"stranger", monotonic).read))
        self.assertIn("belongs to the storage " + b"identity".hex(), error)

    def test_note_is_forced_to_disk_seldom(self) -> None:
        """The note is forced to disk seldom: with each group, it would double the work of the disk."""
        forced: list[int] = []
        self.patch(os, "fdatasync", forced.append)
        self.tell(*range(6, 500))
        self.assertLess(len(forced), 10)
        self.assertGreaterEqual(len(forced), 1)

    def test_disk_without_room_leaves_the_note_behind(self) -> None:
        """On a disk without room the note may stay behind, but its last line must stay whole; a file system may need
        room to replace bytes."""
        self.tell(6, 7)
        write = os.pwrite

        def refuse(descriptor: int, data: bytes, offset: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def write_half(descriptor: int, data: bytes, offset: int) -> int:
            return write(descriptor, data[: LINE_BYTES // 2], offset)

        for without_room in (refuse, write_half, write_half):
            patch = self.patch(os, "pwrite", without_room)
            self.note.tell(8)
            patch.restore()
            self.assertEqual(PositionNote(self.path, b"identity", monotonic).read(), 7)
        self.note.tell(9)
        self.assertEqual(PositionNote(self.path, b"identity", monotonic).read(), 9)

    def test_broken_disk_is_reported(self) -> None:
        """An error of the disk is reported, and the server stops, as after a failed write of a group."""
        self.tell(6)

        def fail(descriptor: int, data: bytes, offset: int) -> int:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "pwrite", fail)
        self.assertRaises(OSError, self.note.tell, 7)
