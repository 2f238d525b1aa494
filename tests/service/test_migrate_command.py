"""Tests of `pfsb migrate`, on data directories that the version with databases has left."""

from __future__ import annotations

import io
import sys
from typing import Any
from unittest.mock import patch

import click
from twisted.internet.task import Clock

from pfsb.service.migrate_command import Options, command, run
from pfsb.storage.directory import DirectoryLock
from pfsb.storage.log import migration
from pfsb.storage.log.scan import scan
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.position_note import note_of
from pfsb.support.command_line import parse
from tests.storage.log.test_migration import OldDirectoryTestCase


class MigrateCommandTests(OldDirectoryTestCase):
    """The directory of a killed server: its history goes on in the write-ahead log of the database."""

    kind = "killed"

    def run_command(self, *words: str) -> tuple[str, str, int]:
        """Run `pfsb migrate`. Returns standard output, standard error and exit status."""
        options: Options = parse(command, words or [str(self.directory)])
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        try:
            run(Clock(), options).send(None)
        except StopIteration:
            return out.getvalue(), err.getvalue(), 0
        except SystemExit as end:
            return out.getvalue(), err.getvalue(), int(end.code or 0)
        raise AssertionError("the command waits for something")

    def assertCommandRefused(self, *parts: str) -> None:
        """Assert that the command has printed one line on standard error, and left the database as it was."""
        before = self.files()
        out, err, status = self.run_command()
        self.assertEqual((out, status, err.count("\n")), ("", 1, 1))
        for part in parts:
            self.assertIn(part, err)
        self.assertEqual(self.files(), before)
        self.assertFalse((self.directory / "log").exists())

    def test_directory_is_taken_over_and_the_command_says_so(self) -> None:
        """The directory is taken over, the command says so, and the next start goes on with what the database held."""
        out, err, status = self.run_command()
        self.assertEqual((err, status), ("", 0))
        self.assertIn('the log of server 2 of cluster "four" holds 44 slots in 1 file, at log position 14', out)
        self.assertIn("it was made of pfsb.sqlite3, and compared with it slot by slot", out)
        self.assertIn("pfsb.sqlite3 is not needed any more, and is deleted", out)
        self.assertEqual(list(self.directory.glob("*sqlite*")), [])
        recovered = self.server().storage.recover()
        self.assertEqual((recovered.incarnation, recovered.local_aru), (4, 41))

    def test_python_without_sqlite_refuses_a_database_and_needs_none_for_a_log(self) -> None:
        """With a Python without SQLite a database is refused with one line that says what is missing, also at the start
        of a server; a log needs no SQLite."""
        missing = "pfsb.sqlite3: to take over this database of an earlier version of pfsb, Python's module sqlite3 is"
        with patch.dict(sys.modules, {"sqlite3": None}):
            self.assertCommandRefused(missing)
            self.assertRefused(missing)
        self.run_command()
        with patch.dict(sys.modules, {"sqlite3": None}):
            self.assertEqual(self.server().storage.recover().local_aru, 41)

    def test_second_time_does_nothing(self) -> None:
        """A second call checks the log, does nothing, and has exit status 0."""
        self.run_command()
        before = scan(self.directory / "log").position
        out, _, status = self.run_command()
        self.assertIn("nothing had to be done", out)
        self.assertEqual((scan(self.directory / "log").position, status), (before, 0))

    def test_database_that_was_left_over_is_deleted_when_the_log_is_good(self) -> None:
        """A database that was left over beside a good log, as by a crash between the two steps, is deleted."""
        undeleted = self.patch(migration, "delete_old_files", lambda _: None)
        self.run_command()
        undeleted.restore()
        self.assertTrue(self.database.exists())
        out, _, _ = self.run_command()
        self.assertIn("pfsb.sqlite3 is not needed any more", out)
        self.assertNotIn("it was made of", out)
        self.assertFalse(self.database.exists())

    def test_directory_of_a_running_server_is_refused(self) -> None:
        """The directory of a running server is refused, since a server of the earlier version goes on writing to its
        database."""
        lock = DirectoryLock(self.directory)
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertCommandRefused("in use by another server")

    def test_log_that_does_not_hold_the_same_is_refused(self) -> None:
        """A log that does not hold the same as the database is refused, and the database stays."""
        write: Any = LogWriter.write

        def forgetful(writer: LogWriter, effect: Any) -> None:
            effect.slots.pop(7, None)
            write(writer, effect)

        self.patch(LogWriter, "write", forgetful)
        self.assertCommandRefused("does not hold the same")

    def test_damaged_database_is_refused(self) -> None:
        """A damaged database is refused in the words of a start."""
        note_of(self.database).unlink()
        self.assertCommandRefused("pfsb.position: missing")
        self.database.write_text("my shopping list\n" * 1_000)
        self.assertCommandRefused("damaged, or no storage of pfsb")

    def test_mistakes_of_the_command_line(self) -> None:
        """A mistake of the command line gives one line, which says what is needed."""
        empty = self.mktemp()
        for words, problem in (
            ([], "one data directory is needed"),
            (["/nowhere"], "/nowhere: no data directory"),
            ([empty], f"{empty}: no data directory"),
        ):
            error = self.assertRaises(click.UsageError, parse, command, words)
            self.assertIn(problem, str(error))
