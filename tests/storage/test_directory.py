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
    """Two processes on one directory would vote twice under one id."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.first = self.lock()
        self.first.acquire()

    def lock(self) -> DirectoryLock:
        lock = DirectoryLock(self.directory)
        self.addCleanup(lock.release)
        return lock

    def test_second_lock_is_refused_until_the_first_is_released(self) -> None:
        """The refusal names the process that holds the directory."""
        error = str(self.assertRaises(StorageRefused, self.lock().acquire))
        self.assertIn(f"in use by another server (process {os.getpid()})", error)
        self.first.release()
        self.lock().acquire()

    def test_deleted_lock_file_lets_nobody_in(self) -> None:
        """A file that looks left over is easily removed, and a new one of the same name can be locked."""
        (self.directory / "pfsb.lock").unlink()
        self.assertIn("in use by another server", str(self.assertRaises(StorageRefused, self.lock().acquire)))
        self.assertIn("in use by another server", str(self.assertRaises(StorageRefused, self.lock().acquire)))
        self.first.release()
        self.lock().acquire()


class WatchTests(SynchronousTestCase):
    """The files of a running server, and what other programs do to them."""

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
        """The next start would not find what the server goes on promising."""
        for name in (SEGMENT, "pfsb.position"):
            (self.directory / name).unlink()
            self.assertStops(name, "deleted")
            self.server.storage.lock.release()
            self.directory = Path(self.mktemp())
            self.server = Server(self.directory)
            self.addCleanup(self.server.storage.close)
            self.server.storage.recover()

    def test_replaced_file_stops_the_server(self) -> None:
        """An older copy moved into the place of a segment: the server would write to a file without a name."""
        copy = self.directory / "copy"
        copy.write_bytes((self.directory / SEGMENT).read_bytes())
        os.replace(copy, self.directory / SEGMENT)
        self.assertStops(SEGMENT, "replaced by another file")

    def test_directory_that_was_moved_away_stops_the_server(self) -> None:
        """Another server could be started on a new one of the same name."""
        self.directory.rename(self.mktemp())
        self.assertStops(SEGMENT, "deleted")

    def test_log_that_was_cut_stops_the_server(self) -> None:
        """The places of slots are kept in memory, so the writer would not notice."""
        os.truncate(self.directory / SEGMENT, 4096)
        self.assertStops(SEGMENT, "cut short")

    def test_server_at_work_is_left_alone(self) -> None:
        """Writing, new segments, and the end in order are no faults."""
        for seq in range(2, 30):
            self.server.write(*slot_records([seq]))
        self.server.clock.run_what_came(0.1)
        self.server.storage.close()
        self.server.clock.run_what_came(0.1)
        self.assertEqual(self.server.failures, [])

    def test_new_segment_is_watched(self) -> None:
        """The next segment is made while the server runs."""
        directory, second = self.directory, segment_path(self.directory / "log", 2)
        for seq in range(2, 14):
            self.server.write(ProposalRecord(seq, 1, Batch(bytes(57_000))))
        self.server.clock.run_until(second.exists)
        self.server.clock.run_what_came(0.1)
        self.assertEqual(self.server.failures, [])
        second.unlink()
        self.assertStops(str(second.relative_to(directory)), "deleted")
