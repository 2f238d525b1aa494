"""The ways to write that the benchmarks compare: all put the same bytes on disk, and say so."""

from __future__ import annotations

import os
import select
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CalledProcessError
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.bare import Disk
from benchmarks.hanging_disks import Trouble, file_systems, outcome
from benchmarks.small_commits import CLUSTERS, MEASURED, main
from benchmarks.ways_to_write import FILE_BYTES, WAYS, Aio, AioSync, Inline, Thread, Uring, UringDirect, Way, make_file
from tests.long import long

SECONDS_MAX = 10


class WaysTests(SynchronousTestCase):
    def open(self, way: type[Way]) -> Way:
        """Open a new file for a way to write; skip the test where the kernel or the file system does not offer this
        way."""
        self.path = Path(self.mktemp())
        make_file(self.path)
        try:
            return way(self.path)
        except (OSError, KeyError) as error:
            raise SkipTest(f"{way.name}: {error}") from error

    def write(self, opened: Way, record: bytes) -> None:
        opened.begin(record)
        self.assertTrue(select.select([opened.descriptor], [], [], SECONDS_MAX)[0], "the record is on disk")
        opened.end()

    def assertWrites(self, way: type[Way]) -> None:
        opened = self.open(way)
        records = [bytes([number]) * size for number, size in ((1, 200), (2, 4_000), (3, 96), (4, 5_000), (5, 1))]
        for record in records:
            self.write(opened, record)
        written = b"".join(records)
        self.assertEqual(self.path.read_bytes(), written.ljust(FILE_BYTES, b"\0"))
        self.assertFalse(select.select([opened.descriptor], [], [], 0)[0], "each record is told once")

    def assertTellsFailure(self, way: type[Way]) -> None:
        opened = self.open(way)
        os.close(opened.file)
        with self.assertRaises(OSError):
            self.write(opened, b"record")

    def test_loop_and_thread_write_records_one_behind_the_other(self) -> None:
        self.assertWrites(Inline)
        self.assertWrites(Thread)

    def test_linux_aio_writes_records_one_behind_the_other(self) -> None:
        """Linux AIO writes records one after the other, also in whole blocks, where a record ends within a block, at
        its end, or in the next one."""
        self.assertWrites(AioSync)
        self.assertWrites(Aio)

    def test_io_uring_writes_records_one_behind_the_other(self) -> None:
        """io_uring writes records one after the other, also in whole blocks, where a record ends within a block, at its
        end, or in the next one."""
        self.assertWrites(Uring)
        self.assertWrites(UringDirect)

    def test_linux_aio_tells_a_write_that_fails(self) -> None:
        """A write with Linux AIO that fails raises an exception, in the call that begins the write or in the one that
        ends it."""
        self.assertTellsFailure(AioSync)
        self.assertTellsFailure(Aio)

    def test_io_uring_tells_a_write_that_fails(self) -> None:
        self.assertTellsFailure(Uring)
        self.assertTellsFailure(UringDirect)


class MeasurementTests(SynchronousTestCase):
    @long
    def test_commits_and_clusters_are_measured_and_reported(self) -> None:
        """The report has a line for each way, alone and in a bare cluster."""
        directory = Path(self.mktemp())
        directory.mkdir()
        out = StringIO()
        with redirect_stdout(out):
            status = main(f"--count 5 --rounds 1 --seconds 0.2 --loads 2x3 --directory {directory}".split())
        self.assertEqual(status, 0)
        names = [way.name for way in MEASURED]
        names += [disk.value if isinstance(disk, Disk) else disk.name for disk in CLUSTERS]
        for name in (*names, "2 x 3"):
            self.assertIn(name, out.getvalue())
        self.assertEqual(list(directory.iterdir()), [])


class HangingDiskTests(SynchronousTestCase):
    @long
    def test_a_frozen_file_system_holds_the_loop_but_not_the_one_that_has_a_thread(self) -> None:
        """A frozen file system stops a loop that writes by itself, and not one that writes in a thread. Needs root;
        nothing is left mounted."""
        with tempfile.TemporaryDirectory() as directory:
            try:
                with file_systems(Path(directory)) as made:
                    said = [outcome(way, Trouble.FROZEN, made) for way in (Inline, Thread)]
            except (CalledProcessError, OSError) as error:
                raise SkipTest(f"making and mounting file systems needs root: {error}") from error
        self.assertEqual(said[0], "waits")
        self.assertTrue(said[1].startswith("returns"), said[1])

    def test_all_ways_are_tried(self) -> None:
        """Each way to write that is measured is also tried on disks that hang."""
        self.assertLessEqual(set(MEASURED), set(WAYS))
