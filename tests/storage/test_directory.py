"""Tests of `pfsb.storage.directory`: one process for each directory, and files that stay where they are."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import ProposalRecord
from pfsb.storage import directory as directory_module
from pfsb.storage.directory import DirectoryLock
from pfsb.storage.log.segments import segment_path
from tests.storage.support import Server, slot_records

SEGMENT = "log/0000000001.log"


class LockTests(SynchronousTestCase):
    """The lock of a directory: two processes on one directory would vote twice under one id."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.first = self.lock()
        self.first.acquire()

    def lock(self) -> DirectoryLock:
        lock = DirectoryLock(self.directory)
        self.addCleanup(lock.release)
        return lock

    def test_second_lock_is_refused_until_the_first_is_released(self) -> None:
        """A second lock is refused with the name of the process that holds the first, until that one is released."""
        error = str(self.assertRaises(StorageRefused, self.lock().acquire))
        self.assertIn(f"in use by another server (process {os.getpid()})", error)
        self.first.release()
        self.lock().acquire()

    def test_deleted_lock_file_lets_nobody_in(self) -> None:
        """When the lock file of a running server was deleted, the directory is still refused, although a new file of
        that name can be locked."""
        (self.directory / "pfsb.lock").unlink()
        self.assertIn("in use by another server", str(self.assertRaises(StorageRefused, self.lock().acquire)))
        self.assertIn("in use by another server", str(self.assertRaises(StorageRefused, self.lock().acquire)))
        self.first.release()
        self.lock().acquire()


class WatchTests(SynchronousTestCase):
    """The watch over the files of a running server, which other programs may delete, replace or move."""

    def setUp(self) -> None:
        self.patch(directory_module, "WATCH_SECONDS", 0.01)
        self.directory = Path(self.mktemp())
        self.server = Server(self.directory)
        self.addCleanup(self.server.storage.close)
        self.server.storage.recover()
        self.server.write(*slot_records([1]))

    def assertStops(self, name: str, fate: str) -> None:
        self.server.clock.run_until(lambda: bool(self.server.failures))
        self.assertEqual(len(self.server.failures), 1)
        self.assertIsNotNone(self.server.failures[0].check(StorageRefused))
        self.assertIn(f"{name}: {fate} while the server was running", self.server.failures[0].getErrorMessage())
        self.server.sync("after", *slot_records([2]))
        self.server.clock.run_what_came(0.1)
        self.assertNotIn("after", self.server.told, "nothing is durable any more")

    def test_deleted_file_stops_the_server(self) -> None:
        """A server whose file was deleted stops: the next start would not find the promises in it."""
        for name in (SEGMENT, "pfsb.position"):
            (self.directory / name).unlink()
            self.assertStops(name, "deleted")
            self.server.storage.lock.release()
            self.directory = Path(self.mktemp())
            self.server = Server(self.directory)
            self.addCleanup(self.server.storage.close)
            self.server.storage.recover()

    def test_replaced_file_stops_the_server(self) -> None:
        """A server whose segment was replaced by an older copy stops: it would write to a file without a name."""
        copy = self.directory / "copy"
        copy.write_bytes((self.directory / SEGMENT).read_bytes())
        os.replace(copy, self.directory / SEGMENT)
        self.assertStops(SEGMENT, "replaced by another file")

    def test_directory_that_was_moved_away_stops_the_server(self) -> None:
        """A server whose directory was moved away stops: another server could be started on a new one of the same
        name."""
        self.directory.rename(self.mktemp())
        self.assertStops(SEGMENT, "deleted")

    def test_log_that_was_cut_stops_the_server(self) -> None:
        """A server whose log was cut stops: its writer has the places of slots in memory, and would not notice."""
        os.truncate(self.directory / SEGMENT, 4096)
        self.assertStops(SEGMENT, "cut short")

    def test_server_at_work_is_left_alone(self) -> None:
        """Writing, new segments and an orderly end are not taken for faults."""
        for seq in range(2, 30):
            self.server.write(*slot_records([seq]))
        self.server.clock.run_what_came(0.1)
        self.server.storage.close()
        self.server.clock.run_what_came(0.1)
        self.assertEqual(self.server.failures, [])

    def test_new_segment_is_watched(self) -> None:
        """A segment that is made while the server runs is watched, too."""
        directory, second = self.directory, segment_path(self.directory / "log", 2)
        for seq in range(2, 14):
            self.server.write(ProposalRecord(seq, 1, Batch(bytes(57_000))))
        self.server.clock.run_until(second.exists)
        self.server.clock.run_what_came(0.1)
        self.assertEqual(self.server.failures, [])
        second.unlink()
        self.assertStops(str(second.relative_to(directory)), "deleted")
