"""Tests of `pfsb.storage.wal`: a torn end is cut off, damage further up is refused."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.storage.position_note import PositionNote, note_of
from pfsb.storage.wal import ROOM_BYTES
from tests.long import long
from tests.storage.support import Server, slot_records

HEADER_BYTES = 32
FRAME_BYTES = 24 + 4096


class DamagedLogTests(SynchronousTestCase):
    """Only a torn last record may be dropped; a damaged older one may be part of a majority."""

    def setUp(self) -> None:
        self.crashed = self.directory_of_a_crashed_server()
        self.log = self.crashed / "pfsb.sqlite3-wal"
        written = self.log.read_bytes().rstrip(b"\0")
        self.frames = -(-(len(written) - HEADER_BYTES) // FRAME_BYTES)

    def directory_of_a_crashed_server(self) -> Path:
        """The log after six groups of one slot each; its last frames are theirs."""
        running, crashed = Path(self.mktemp()), Path(self.mktemp())
        server = Server(running)
        self.addCleanup(server.storage.close)
        server.storage.recover()
        for seq in range(1, 7):
            server.write(*slot_records([seq]))
        shutil.copytree(running, crashed)
        return crashed

    def turn_a_bit(self, offset: int) -> None:
        with self.log.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    def set_the_note_back(self) -> None:
        """As if the server had died before the last group was acknowledged: its note does not know that group."""
        path = note_of(self.crashed / "pfsb.sqlite3")
        note = PositionNote(path, bytes.fromhex(path.read_text().split()[2]), lambda: 0.0)
        note.create(note.read() - 1)

    def recovered_slots(self) -> list[int]:
        server = Server(self.crashed)
        self.addCleanup(server.storage.close)
        return [slot.seq for slot in server.storage.recover().accepted]

    def frame(self, number_from_end: int) -> int:
        return HEADER_BYTES + (self.frames - number_from_end) * FRAME_BYTES

    def test_whole_log_is_read(self) -> None:
        """Each group is one frame, which the other tests rely on."""
        self.assertEqual(self.recovered_slots(), [1, 2, 3, 4, 5, 6])
        self.assertGreaterEqual(self.frames, 6)

    def test_commits_do_not_make_the_log_grow(self) -> None:
        """Room is made before the first one, and more than they take."""
        self.assertEqual(self.log.stat().st_size, ROOM_BYTES)
        self.assertLess(self.frames, 20)

    @long
    def test_log_that_is_read_at_the_start_keeps_its_content(self) -> None:
        """SQLite cannot empty the log then, and records acknowledged since the last checkpoint are nowhere else."""
        with closing(sqlite3.connect(self.crashed / "pfsb.sqlite3", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            self.assertEqual(reader.execute("SELECT count(*) FROM history").fetchone(), (6,))
            server = Server(self.crashed)
            self.assertEqual([slot.seq for slot in server.storage.recover().accepted], [1, 2, 3, 4, 5, 6])
            server.write(*slot_records([7]))
            after = Path(self.mktemp())
            shutil.copytree(self.crashed, after)
            server.storage.close()
        self.crashed = after
        self.assertEqual(self.recovered_slots(), [1, 2, 3, 4, 5, 6, 7])

    def test_damage_in_the_last_group_is_a_torn_end(self) -> None:
        """Power failed while the group was written, so it was not acknowledged."""
        self.turn_a_bit(self.frame(1) + 2000)
        self.set_the_note_back()
        self.assertEqual(self.recovered_slots(), [1, 2, 3, 4, 5])

    def test_cut_off_end_is_a_torn_end(self) -> None:
        """A torn end may also be a file that is too short."""
        os.truncate(self.log, self.frame(1) + 1000)
        self.set_the_note_back()
        self.assertEqual(self.recovered_slots(), [1, 2, 3, 4, 5])

    def test_damage_further_up_is_refused(self) -> None:
        """SQLite alone would silently forget groups 3 to 6, of which three at least were acknowledged."""
        self.turn_a_bit(self.frame(4) + 2000)
        error = self.assertRaises(StorageRefused, self.recovered_slots)
        self.assertIn("pfsb.sqlite3-wal: damaged before its end, where acknowledged records stand", str(error))

    def test_refusal_leaves_the_evidence(self) -> None:
        """A second start must not find a log that looks whole."""
        self.turn_a_bit(self.frame(4) + 2000)
        self.assertRaises(StorageRefused, self.recovered_slots)
        self.assertRaises(StorageRefused, self.recovered_slots)

    def test_damaged_header_is_refused(self) -> None:
        """Without its header SQLite would drop the whole log."""
        self.turn_a_bit(17)
        self.assertRaises(StorageRefused, self.recovered_slots)

    def test_log_that_was_never_begun_is_empty(self) -> None:
        """Nothing, or zeros where the header was to come: no frame was ever written."""
        for content in (b"", bytes(HEADER_BYTES + FRAME_BYTES)):
            self.crashed = self.directory_of_a_closed_server()
            (self.crashed / "pfsb.sqlite3-wal").write_bytes(content)
            self.assertEqual(self.recovered_slots(), [1])

    def directory_of_a_closed_server(self) -> Path:
        directory = Path(self.mktemp())
        server = Server(directory)
        server.storage.recover()
        server.write(*slot_records([1]))
        server.storage.close()
        return directory
