"""Tests of refused data directories: each refusal is one line that names the file and says what is wrong."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.records import PeerRecord, ViewRecord
from tests.storage.support import Server, ordered_to, slot_records


class RefusalTests(SynchronousTestCase):
    """A server refuses with one clear line rather than run on a damaged file."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.path = self.directory / "pfsb.sqlite3"

    def make(self) -> None:
        """A directory of server 2 that was closed in order."""
        server = Server(self.directory)
        server.storage.recover()
        server.write(ViewRecord(5, 4), *ordered_to(3), *slot_records([4, 5]), PeerRecord(1, b"12345678"))
        server.storage.close()

    def edit(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute(statement, parameters)
        connection.close()

    def assertRefused(self, *parts: str, directory: Path | None = None, **changes: object) -> None:
        server = Server(directory or self.directory, **changes)
        self.addCleanup(server.storage.close)
        error = self.assertRaises(StorageRefused, server.storage.recover)
        for part in parts:
            self.assertIn(part, str(error))
        self.assertNotIn("\n", str(error))

    def test_directory_of_another_cluster(self) -> None:
        """G29: another founding membership is another cluster."""
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
        """G20: the server would vote with the promises of another."""
        self.make()
        self.assertRefused(str(self.path), "made for server 2, not for server 3", server_id=3)

    def test_refused_start_is_not_counted_and_leaves_the_directory_free(self) -> None:
        """The right server starts there as if nothing had happened."""
        self.make()
        self.assertRefused("made for server 2", server_id=3)
        server = Server(self.directory)
        self.addCleanup(server.storage.close)
        self.assertEqual(server.storage.recover().incarnation, 2)

    def test_format_of_another_version(self) -> None:
        """A later pfsb may have written what this one would misunderstand."""
        self.make()
        self.edit("UPDATE identity SET format_version = 9")
        self.assertRefused("has format 9; this version of pfsb reads format 3; start the version of pfsb that wrote it")

    def test_format_of_a_version_that_was_not_released(self) -> None:
        """Nothing reads formats 1 and 2: one line says what to do, and that it concerns all servers."""
        for version in (1, 2):
            self.make()
            self.edit(f"UPDATE identity SET format_version = {version}")
            self.assertRefused(
                f"has format {version}; this version of pfsb reads format 3",
                "to begin anew, stop all servers of this cluster and give each an empty directory",
            )
            shutil.rmtree(self.directory)

    def test_file_that_is_no_database(self) -> None:
        """A file of another program is not overwritten."""
        self.directory.mkdir()
        self.path.write_text("my shopping list, which is longer than a header\n" * 100)
        self.assertRefused(str(self.path), "no storage of pfsb", "file is not a database")
        self.assertTrue(self.path.read_text().startswith("my shopping list"))

    def test_database_of_something_else(self) -> None:
        """The database of another program has no table `identity`."""
        self.directory.mkdir()
        self.edit("CREATE TABLE cakes (name TEXT)")
        self.assertRefused("has no table identity")

    def test_empty_file_is_not_a_new_storage(self) -> None:
        """G20: no data on disk after the server once took part is amnesia, not initialisation."""
        self.make()
        os.truncate(self.path, 0)
        self.assertRefused("has no table identity", "must not vote again")

    def test_truncated_file(self) -> None:
        """Cut in the middle, as a copy that ran out of space."""
        self.make()
        size = self.path.stat().st_size
        for keep in (100, size // 2, size - 4096, size - 100):
            copy = Path(self.mktemp())
            shutil.copytree(self.directory, copy)
            os.truncate(copy / "pfsb.sqlite3", keep)
            self.assertRefused(str(copy / "pfsb.sqlite3"), directory=copy)

    def test_log_without_its_database(self) -> None:
        """A new file beside an old log would forget what the log belongs to."""
        self.make()
        self.path.rename(self.directory / "pfsb.sqlite3-wal")
        self.assertRefused(str(self.path), "missing, although its log pfsb.sqlite3-wal is there")

    def test_gap_in_the_history(self) -> None:
        """Every slot up to Local_Aru was stored before Local_Aru was."""
        self.make()
        self.edit("DELETE FROM history WHERE seq = 2")
        self.assertRefused("slot 2 is missing from the history, which should hold every slot from 1 to 3")

    def test_history_that_ends_below_the_aru(self) -> None:
        """A missing end is a gap as well."""
        self.make()
        self.edit("DELETE FROM history WHERE seq >= 3")
        self.assertRefused("slot 3 is missing")

    def test_changed_rows(self) -> None:
        """A bit that turned in any table, found by the row's checksum."""
        for statement, place in (
            ("UPDATE history SET batch = x'00' WHERE seq = 5", "table history, row 5"),
            ("UPDATE history SET view = 8 WHERE seq = 4", "table history, row 4"),
            ("UPDATE views SET last_installed = 3", "table views"),
            ("UPDATE peers SET identity = '00'", "table peers, row 1"),
            ("UPDATE identity SET incarnation = 0", "table identity"),
        ):
            self.make()
            self.edit(statement)
            self.assertRefused(place, "the checksum is wrong")
            shutil.rmtree(self.directory)

    def test_content_of_one_slot_in_the_place_of_another(self) -> None:
        """The hash covers the key: a whole row under the wrong number is refused, though no bit of it has turned."""
        for seq, other in ((4, 5), (5, 4)):
            self.make()
            self.edit(
                "UPDATE history SET (view, batch, hash) = (SELECT view, batch, hash FROM history WHERE seq = ?)"
                " WHERE seq = ?",
                (other, seq),
            )
            self.assertRefused(f"table history, row {seq}: the checksum is wrong")
            shutil.rmtree(self.directory)

    def test_every_column_of_every_row_counts(self) -> None:
        """A column that the hash left out would be believed whatever it says."""
        for table in ("identity", "views", "history", "peers"):
            self.make()
            for column in self.columns(table):
                if (table, column) != ("identity", "format_version"):
                    self.assertColumnCounts(table, column)
            shutil.rmtree(self.directory)

    def columns(self, table: str) -> list[str]:
        connection = sqlite3.connect(self.path)
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        connection.close()
        return names

    def assertColumnCounts(self, table: str, column: str) -> None:
        copy = Path(self.mktemp())
        shutil.copytree(self.directory, copy)
        connection = sqlite3.connect(copy / "pfsb.sqlite3")
        with connection:
            # The last row: of the history, one above Local_Aru, since those below are read as they are executed.
            last = f"(SELECT max(rowid) FROM {table})"
            kind = connection.execute(f"SELECT typeof({column}) FROM {table}").fetchone()[0]
            changed = {"integer": f"{column} + 1", "text": f"{column} || 'x'", "blob": "x'00'"}[kind]
            connection.execute(f"UPDATE {table} SET {column} = {changed} WHERE rowid = {last}")
        connection.close()
        self.assertRefused(f"table {table}", "the checksum is wrong", directory=copy)

    def test_table_without_its_row(self) -> None:
        """No views means that promises were lost, not that none were made."""
        self.make()
        self.edit("DELETE FROM views")
        self.assertRefused("table views has 0 rows and should have one")

    def test_damaged_page(self) -> None:
        """SQLite itself finds a page that holds nonsense."""
        self.make()
        with self.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xee" * 4096)
        self.assertRefused(str(self.path), "must not vote again")

    def test_directory_in_use(self) -> None:
        """Two servers on one directory would each forget the other's promises."""
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
        """The refusal comes before anything is made."""
        self.directory.write_text("")
        self.assertRefused(str(self.directory), "the data directory must be one that this server may write to")

    def test_directory_that_may_not_be_written(self) -> None:
        """The refusal comes before anything is made."""
        if os.geteuid() == 0:
            raise SkipTest("root may write everywhere")
        self.directory.mkdir(mode=0o500)
        self.assertRefused("Permission denied", "the data directory must be one that this server may write to")
