"""Data directories of format 3, databases, are taken over into logs at the first start, or refused as they are."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.log_positions import first_told
from pfsb.paxos.messages import Batch
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.records import Accepted, PeerRecord
from pfsb.storage import wal
from pfsb.storage.effect import Effect
from pfsb.storage.log import migration, segments
from pfsb.storage.log.scan import scan
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.position_note import PositionNote, note_of
from pfsb.storage.rows import row_hash
from tests.storage.support import Server, batch, plain

BEFORE = Path(__file__).parents[2] / "data" / "storage-3"
"""Data directories that a version with databases has left: `closed` in order, and `killed` with a log beside it."""
DIGEST = bytes(range(8))


class OldDirectoryTestCase(SynchronousTestCase):
    """A copy of a data directory of format 3."""

    kind: ClassVar[str] = "closed"

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        shutil.copytree(BEFORE / self.kind, self.directory)
        self.database = self.directory / "pfsb.sqlite3"

    def server(self, **changes: object) -> Server:
        server = Server(self.directory, **{"cluster_digest": DIGEST} | changes)
        self.addCleanup(server.storage.close)
        return server

    def files(self) -> dict[str, bytes]:
        """The files that hold something: SQLite makes an empty log and an index even if a database is only read."""
        found = {path.name: path.read_bytes() for path in self.directory.glob("pfsb.*") if path.suffix != ".lock"}
        return {name: data for name, data in found.items() if data and not name.endswith("-shm")}

    def edit(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(statement, parameters)

    def assertRefused(self, *parts: str, **changes: object) -> None:
        """Require that the directory is refused by a start and by the check before it, and left as it is."""
        before = self.files()
        for look in (self.server(**changes).storage.refuse_if_unusable, self.server(**changes).storage.recover):
            error = str(self.assertRaises(StorageRefused, look))
            for part in parts:
                self.assertIn(part, error)
            self.assertNotIn("\n", error)
        self.assertEqual(self.files(), before)
        self.assertFalse((self.directory / "log").exists())


class MigrationTests(OldDirectoryTestCase):
    """The first start of this version on a directory that was closed in order."""

    incarnation: ClassVar[int] = 3
    position: ClassVar[int] = 8
    local_aru: ClassVar[int] = 40
    accepted: ClassVar[list[Accepted]] = [Accepted(seq, 6, batch(f"slot {seq}")) for seq in (41, 42, 43)]
    peers: ClassVar[dict[int, PeerRecord]] = {
        0: PeerRecord(0, b"disk-000"),
        1: PeerRecord(1, b"disk-001", 3, 99),
    }
    own: ClassVar[tuple[int, int]] = 2, 3

    def assertTakenOver(self) -> None:
        server = self.server()
        recovered = server.storage.recover()
        own = recovered.peers.pop(2)
        ordered = [(seq, batch(f"slot {seq}")) for seq in range(1, self.local_aru + 1)]
        self.assertEqual(
            plain(recovered),
            (
                self.incarnation,
                7,
                6,
                self.local_aru,
                ordered,
                self.accepted,
                self.peers,
                {43: batch_digest(batch("slot 43").data)},
            ),
        )
        told = first_told(own, recovered.incarnation, server.storage.position)
        # The database's own groups, less its starts, less those that are left out: as the former version would tell.
        before = PeerRecord(2, recovered.identity, *self.own)
        self.assertEqual(told, first_told(before, self.incarnation, self.position + 1))
        self.assertEqual(self.left_over(), [])

    def left_over(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if "sqlite" in path.name or ".new" in path.name)

    def test_everything_is_taken_over(self) -> None:
        """Slots, views, peers, slots that are left out, identity and starts; frames tell the log position as before."""
        self.assertTakenOver()

    def test_next_start_is_a_usual_one(self) -> None:
        """The start after the migration is a usual one: the database is gone, and the log is the storage."""
        first = self.server()
        identity = first.storage.recover().identity
        first.storage.close()
        second = self.server()
        second.storage.refuse_if_unusable()
        recovered = second.storage.recover()
        self.assertEqual((recovered.identity, recovered.incarnation), (identity, self.incarnation + 1))

    def test_look_before_the_start_takes_nothing_over(self) -> None:
        """The check in the foreground before the start takes nothing over, since it may be followed by no start."""
        before = self.files()
        self.server().storage.refuse_if_unusable()
        self.assertEqual({name: self.files()[name] for name in before}, before)
        self.assertFalse((self.directory / "log").exists())

    def test_crash_before_the_log_has_its_name_leaves_the_database(self) -> None:
        """A crash before the log has its name leaves the database, and the next start makes everything anew."""
        for step in ("compare", "state_of", "write_log"):
            with self.assertRaises(StorageRefused):
                self.fail_at(step)
            self.assertFalse((self.directory / "log").exists())
            self.assertTrue(self.database.exists())
        self.assertTakenOver()

    def fail_at(self, step: str) -> None:
        def fail(*_: object) -> None:
            raise OSError("power failed")

        patch = self.patch(migration, step, fail)
        try:
            self.server().storage.recover()
        finally:
            patch.restore()

    def test_crash_after_the_log_has_its_name_leaves_files_over(self) -> None:
        """A crash after the log has its name leaves files of the database, which the next start deletes: the log is
        complete, and was compared."""
        patch = self.patch(migration, "delete_old_files", lambda _: None)
        first = self.server()
        first.storage.recover()
        first.storage.close()
        patch.restore()
        self.assertTrue(self.database.exists())
        self.assertEqual(self.server().storage.recover().incarnation, self.incarnation + 1)
        self.assertEqual(self.left_over(), [])

    def test_log_that_does_not_hold_the_same_is_refused(self) -> None:
        """A log that does not hold the same as the database, by a fault of disk or memory, is refused: the database is
        kept."""
        write = LogWriter.write

        def forgetful(writer: LogWriter, effect: Effect) -> None:
            effect.slots.pop(7, None)
            write(writer, effect)

        self.patch(LogWriter, "write", forgetful)
        error = str(self.assertRaises(StorageRefused, self.server().storage.recover))
        self.assertIn("does not hold the same", error)
        self.assertTrue(self.database.exists())
        self.assertFalse((self.directory / "log").exists())

    def test_pass_is_added_to_an_old_directory(self) -> None:
        """`pfsb pass` takes an old directory over into a log before it adds its record."""
        self.server().storage.add_pass(42, batch_digest(batch("slot 42").data), unseen=False)
        recovered = self.server().storage.recover()
        self.assertEqual(sorted(recovered.passes), [42, 43])

    def test_long_history_fills_several_segments(self) -> None:
        """A history with groups of a megabyte is taken over into several segments, which are made on the way."""
        self.patch(migration, "GROUP_BYTES", 300_000)
        self.patch(segments, "ROOM_BYTES_MAX", segments.ROOM_BYTES_MIN)
        rows = [(seq, 6, bytes([seq]) * 50_000) for seq in range(100, 150)]
        for row in rows:
            self.edit("INSERT INTO history VALUES (?, ?, ?, ?)", (*row, row_hash("history", *row)))
        server = self.server()
        recovered = server.storage.recover()
        added = [Accepted(seq, view, Batch(data)) for seq, view, data in rows]
        self.assertEqual([each for each in recovered.accepted if each.seq >= 100], added)
        self.assertGreaterEqual(len(scan(self.directory / "log").heads), 3)
        own = recovered.peers[2]
        told = first_told(own, recovered.incarnation, server.storage.position)
        self.assertEqual(told, first_told(PeerRecord(2, b"", *self.own), self.incarnation, self.position + 1))


class KilledMigrationTests(MigrationTests):
    """The first start on a directory of a killed server: much is in the write-ahead log of the database only."""

    kind = "killed"
    incarnation = 4
    position = 12
    local_aru = 41
    accepted: ClassVar[list[Accepted]] = [
        *(Accepted(seq, 6, batch(f"slot {seq}")) for seq in (42, 43)),
        Accepted(45, 0, batch("slot 45")),
    ]
    peers: ClassVar[dict[int, PeerRecord]] = {
        0: PeerRecord(0, b"disk-000"),
        1: PeerRecord(1, b"disk-001", 4, 120),
    }
    own = 3, 5

    def test_damaged_log_of_the_database(self) -> None:
        """A database with a damaged write-ahead log is refused: SQLite alone would silently forget acknowledged
        groups."""
        log = wal.log_of(self.database)
        data = bytearray(log.read_bytes())
        data[32 + 24 + 2_000] ^= 1
        log.write_bytes(bytes(data))
        self.assertRefused("pfsb.sqlite3-wal: damaged before its end, where acknowledged records stand")

    def test_torn_end_of_the_log_of_the_database(self) -> None:
        """A write-ahead log whose last group is torn, since power failed while it was written, is accepted: the
        position note does not have that group."""
        log = wal.log_of(self.database)
        data = bytearray(log.read_bytes())
        data[-100] ^= 1
        log.write_bytes(bytes(data))
        note = note_of(self.database)
        identity = bytes.fromhex(note.read_text().split()[2])
        PositionNote(note, identity, lambda: 0.0).create(self.position - 1)
        self.assertEqual(self.server().storage.recover().local_aru, 40)

    def test_missing_log_of_the_database(self) -> None:
        """A database whose write-ahead log is missing is refused: the position note knows that there was more."""
        wal.log_of(self.database).unlink()
        self.assertRefused("holds 8 groups of records, and this server had written 12, says pfsb.position")

    def test_log_without_its_database(self) -> None:
        """A write-ahead log without its database is refused: a new storage beside it would forget all that was
        promised."""
        self.database.unlink()
        self.assertRefused("pfsb.sqlite3: missing, although its log pfsb.sqlite3-wal is there")


class OldRefusalTests(OldDirectoryTestCase):
    """Databases that are damaged or another's are refused as they were by the version that wrote them."""

    def test_database_of_another_server_or_cluster(self) -> None:
        """G20, G29: a database of another server or of another cluster is refused."""
        self.assertRefused("pfsb.sqlite3: made for server 2, not for server 3", server_id=3)
        self.assertRefused(
            'made for cluster "four" with servers 0 1 2 3 (digest 00010203)',
            'not for cluster "five"',
            cluster_name="five",
            cluster_digest=b"x" * 8,
        )

    def test_other_formats(self) -> None:
        """Databases of the formats 1 and 2, which were not released, are refused."""
        self.edit("UPDATE identity SET format_version = 9")
        self.assertRefused("has format 9", "start the version of pfsb that wrote it")
        self.edit("UPDATE identity SET format_version = 2")
        self.assertRefused("has format 2", "give each an empty directory")

    def test_file_that_is_no_database(self) -> None:
        """A file of another program in the place of the database is refused, and not overwritten."""
        self.database.write_text("my shopping list, which is longer than a header\n" * 100)
        self.assertRefused("pfsb.sqlite3: damaged, or no storage of pfsb (file is ", "not a database)")

    def test_empty_database(self) -> None:
        """G20: an empty database is refused: when a server has taken part before, no data means amnesia."""
        os.truncate(self.database, 0)
        self.assertRefused("has no table identity", "must not vote again")

    def test_cut_and_damaged_pages(self) -> None:
        """A database that was cut, or whose pages are damaged, is refused, with the error of SQLite."""
        os.truncate(self.database, self.database.stat().st_size - 4_096)
        self.assertRefused("pfsb.sqlite3", "must not vote again")

    def test_database_without_its_note(self) -> None:
        """A database without its position note is refused: if both could be missing, a lost one would pass for a new
        one."""
        note_of(self.database).unlink()
        self.assertRefused("pfsb.position: missing")

    def test_table_without_its_row(self) -> None:
        """A database without the row of its views is refused: promises were lost, since a server always has that
        row."""
        self.edit("DELETE FROM views")
        self.assertRefused("table views has 0 rows and should have one")

    def assertStartRefused(self, *parts: str) -> None:
        error = str(self.assertRaises(StorageRefused, self.server().storage.recover))
        for part in parts:
            self.assertIn(part, error)
        self.assertFalse((self.directory / "log").exists())
        self.assertTrue(self.database.exists())

    def test_changed_rows(self) -> None:
        """A database with a changed row is refused: every row is checked by its hash before it is taken over."""
        for statement, place in (
            ("UPDATE history SET batch = x'00' WHERE seq = 5", "table history, row 5"),
            ("UPDATE history SET view = 8 WHERE seq = 42", "table history, row 42"),
            ("UPDATE views SET last_installed = 3", "table views"),
            ("UPDATE peers SET identity = '00' WHERE server_id = 1", "table peers, row 1"),
            ("UPDATE passes SET digest = '00'", "table passes, row 43"),
            ("UPDATE identity SET incarnation = 1", "table identity"),
        ):
            self.edit(statement)
            self.assertStartRefused(place, "the checksum is wrong")
            shutil.rmtree(self.directory)
            shutil.copytree(BEFORE / self.kind, self.directory)

    def test_gap_in_the_history(self) -> None:
        """A database without a slot below Local_Aru is refused: every slot up to Local_Aru was stored before."""
        self.edit("DELETE FROM history WHERE seq = 2")
        self.assertStartRefused("slot 2 is missing from the history, which should hold every slot from 1 to 40")

    def test_history_that_ends_below_the_aru(self) -> None:
        """A database whose history ends below Local_Aru is refused as one with a gap."""
        self.edit("DELETE FROM history WHERE seq >= 40")
        self.assertStartRefused("slot 40 is missing")
