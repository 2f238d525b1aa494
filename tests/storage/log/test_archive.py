"""Tests of `pfsb.storage.log.archive`: superfluous files are moved, and nothing is lost, whatever the archive does."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pfsb.paxos.records import SnapshotRecord
from pfsb.storage.counters import ArchiveCounters
from pfsb.storage.log import archive as archive_module
from pfsb.storage.log.archive import Archive, archive_of
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.items import StoredSnapshot
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import numbers_in
from pfsb.storage.log.snapshot_files import SnapshotFiles
from pfsb.storage.log.writer import LogWriter
from tests.long import long
from tests.storage.log import test_snapshot_power_loss as power_loss
from tests.storage.log.support import IDENTITY, OWNER
from tests.storage.log.test_snapshots import SnapshotTestCase, snapshot_of
from tests.storage.support import Server

FOREIGN = b"a file of another server"


def refusing(error: int) -> Callable[..., None]:
    """A function that fails with this error in the place of a system call."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(error, os.strerror(error))

    return refuse


class ArchiveTestCase(SnapshotTestCase):
    """A server with an archive, whose segments are small."""

    def setUp(self) -> None:
        self.root = self.new_root()
        super().setUp()

    def new_root(self) -> Path:
        """Make an empty directory for an archive."""
        root = Path(self.mktemp())
        root.mkdir()
        return root

    def started(self, directory: Path | None = None) -> Server:
        server = Server(directory or self.directory, slack=self.slack, archive_directory=self.root / "2")
        self.addCleanup(server.storage.close)
        self.recovered = server.storage.recover()
        return server

    @property
    def counters(self) -> ArchiveCounters:
        counters = self.server.storage.counters.archive
        assert counters is not None
        return counters

    @property
    def archive(self) -> Path:
        return Path(self.counters.directory)

    def archived(self) -> tuple[list[int], list[str]]:
        """Numbers of the segments, and names of the snapshots, in the archive."""
        log, snapshots = self.archive / "log", self.archive / "snapshots"
        names = sorted(path.name for path in snapshots.iterdir()) if snapshots.exists() else []
        return [*numbers_in(log)] if log.exists() else [], names

    def run_history(self) -> dict[int, bytes]:
        """Make two snapshots, and have the files that are superfluous behind each archived. Returns the segments as
        they were written."""
        written: dict[int, bytes] = {}
        for first, last in ((1, 30), (31, 60)):
            self.fill(first, last)
            log = self.directory / "log"
            written |= {n: (log / f"{n:010d}.log").read_bytes() for n in self.segments()}
            self.name(self.make(last))
        return written

    def told(self) -> list[str]:
        return [str(event["line"]) for event in self.events if event.get("log_format") == "storage: {line}"]


class MovingTests(ArchiveTestCase):
    """Files that a snapshot makes superfluous go into the archive, and no others."""

    def test_segments_and_snapshots_are_moved_as_they_were(self) -> None:
        written = self.run_history()
        segments, snapshots = self.archived()
        self.assertEqual(segments, list(range(1, self.segments()[0])))
        self.assertGreater(len(segments), 3)
        for number in segments:
            self.assertEqual((self.archive / "log" / f"{number:010d}.log").read_bytes(), written[number])
        self.assertEqual(snapshots, ["000000000030.snapshot"])
        self.assertEqual((self.archive / "snapshots" / snapshots[0]).read_bytes(), snapshot_of(30)[1])
        self.assertEqual(self.files(), ["000000000060.snapshot"])
        self.assertEqual(self.told(), [])

    def test_directory_is_named_by_server_and_storage(self) -> None:
        """The archive of a storage is a directory named by server and storage, so that a server has two of them before
        and after a restore."""
        identity = self.recovered.identity
        self.assertEqual(self.archive, self.root / "2" / identity.hex())
        self.assertEqual(self.archive, archive_of(self.root / "2", identity))

    def test_figures_say_how_much_is_there(self) -> None:
        """Figures say how much is in the archive after a restart, and include files that came later."""
        self.run_history()
        size = sum(path.stat().st_size for path in self.archive.rglob("*") if path.is_file())
        figures = (size, self.server.storage.compacted, 0, None)
        self.assertEqual((self.counters.bytes, self.counters.slot, self.counters.waiting, self.counters.error), figures)
        self.restart()
        self.settle()
        self.assertEqual((self.counters.bytes, self.counters.slot, self.counters.waiting, self.counters.error), figures)

    def test_nothing_is_made_before_something_is_moved(self) -> None:
        """Nothing is made in the archive before a file is moved there: a server without a snapshot leaves no empty
        directories."""
        self.fill(1, 3)
        self.settle()
        self.assertEqual([*self.root.iterdir()], [])
        self.assertEqual((self.counters.bytes, self.counters.slot), (0, 0))

    def test_snapshot_that_no_record_names_is_not_archived(self) -> None:
        """A snapshot that no record names is not archived: no majority has told that it has the same state."""
        self.fill(1, 5)
        self.name(self.make(3))
        self.make(4)
        self.name(self.make(5))
        self.assertEqual(self.archived()[1], ["000000000003.snapshot"])
        self.assertEqual(self.files(), ["000000000005.snapshot"])

    @long
    def test_file_system_without_links_gets_copies(self) -> None:
        """An archive on another file system gets copies, too, which are forced to disk under another name first."""
        for error in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
            self.directory, self.root = Path(self.mktemp()), self.new_root()
            self.snapshots = self.directory / "snapshots"
            self.server.storage.close()
            self.server = self.started()
            self.patch(os, "link", refusing(error))
            written = self.run_history()
            segments, snapshots = self.archived()
            self.assertEqual(segments, list(range(1, self.segments()[0])))
            for number in segments:
                self.assertEqual((self.archive / "log" / f"{number:010d}.log").read_bytes(), written[number])
            self.assertEqual(snapshots, ["000000000030.snapshot"])
            self.assertEqual({path.suffix for path in self.archive.rglob("*") if path.is_file()}, {".log", ".snapshot"})


class TroubleTests(ArchiveTestCase):
    """An archive that takes no files costs room in the data directory, and nothing else."""

    @long
    def test_error_keeps_files_in_the_data_directory(self) -> None:
        """An error of the archive keeps files in the data directory: the server goes on and says why in one line; once
        the archive works again, all are moved."""
        self.patch(os, "link", refusing(errno.ENOSPC))
        written = self.run_history()
        self.assertEqual(self.server.failures, [])
        self.assertEqual(self.segments()[0], 1)
        self.assertEqual(self.files(), ["000000000030.snapshot", "000000000060.snapshot"])
        self.assertGreater(self.counters.waiting, 4)
        self.assertIn("No space left on device", self.counters.error or "")
        (line,) = self.told()
        self.assertIn("nothing is lost", line)
        self.assertEqual(self.counters.slot, 0)
        self.patch(os, "link", os.link)
        self.flushPatches()
        self.server.clock.advance(archive_module.AGAIN_SECONDS)
        self.server.clock.run_what_came(0.02)
        self.settle()
        segments, snapshots = self.archived()
        self.assertEqual(segments, list(range(1, self.segments()[0])))
        self.assertTrue(set(segments) < set(written))
        self.assertEqual((snapshots, self.files()), (["000000000030.snapshot"], ["000000000060.snapshot"]))
        self.assertEqual((self.counters.waiting, self.counters.error), (0, None))
        self.assertEqual(self.counters.slot, self.server.storage.compacted)
        self.assertIn("takes files again", self.told()[-1])

    def flushPatches(self) -> None:
        """Take back what `patch` has put in place of a system call."""
        for patch in reversed(self._link_patches):
            patch.restore()

    def patch(self, target: Any, name: str, value: Any) -> Any:
        made = super().patch(target, name, value)
        if (target, name) == (os, "link"):
            self._link_patches.append(made)
        return made

    def setUp(self) -> None:
        self._link_patches: list[Any] = []
        super().setUp()

    @long
    def test_restart_goes_on_with_what_waits(self) -> None:
        """After a restart, files that have not been archived are moved again; they do not disturb the start."""
        self.patch(os, "link", refusing(errno.EACCES))
        self.run_history()
        waiting = self.counters.waiting
        self.restart()
        self.settle()
        self.assertEqual(self.counters.waiting, waiting)
        self.assertIn("Permission denied", self.counters.error or "")
        self.flushPatches()
        self.restart()
        self.settle()
        self.assertEqual((self.counters.waiting, self.counters.error), (0, None))
        self.assertEqual(self.archived()[0], list(range(1, self.segments()[0])))

    def test_archive_that_is_not_there_is_not_made(self) -> None:
        """A missing directory of the archive is not made: its file system may not be mounted, and another one would be
        filled."""
        self.root.rmdir()
        self.run_history()
        self.assertEqual((self.server.failures, self.root.exists(), self.segments()[0]), ([], False, 1))
        self.assertIn(f"{self.root} is no directory that is there: make it, or mount", self.counters.error or "")
        self.root.mkdir()
        self.server.clock.advance(archive_module.AGAIN_SECONDS)
        self.server.clock.run_what_came(0.02)
        self.settle()
        self.assertIsNone(self.counters.error)
        self.assertEqual(self.archived()[0], list(range(1, self.segments()[0])))

    def test_archive_in_which_nothing_can_be_made(self) -> None:
        """A path on which nothing can be made, such as one with a file in the place of a directory, is an error of the
        archive."""
        (self.root / "2").write_text("no directory")
        self.run_history()
        self.assertEqual(self.server.failures, [])
        self.assertIn("Not a directory", self.counters.error or "")

    def test_copy_that_fails_leaves_nothing_behind(self) -> None:
        """A copy that fails because the disk of the archive is full leaves nothing behind, so that the disk gets its
        room back."""
        self.patch(os, "link", refusing(errno.EXDEV))
        self.patch(archive_module, "sync_data", refusing(errno.ENOSPC))
        self.run_history()
        self.assertEqual([path for path in self.archive.rglob("*") if path.is_file()], [])
        self.assertEqual(self.segments()[0], 1)
        self.assertEqual((self.counters.bytes, self.server.failures), (0, []))

    @long
    def test_file_of_another_content_is_not_overwritten(self) -> None:
        """A file in the archive with another content is not overwritten: it may be the last copy of something."""
        for error in (None, errno.EXDEV):
            if error:
                self.patch(os, "link", refusing(error))
                self.directory, self.root = Path(self.mktemp()), self.new_root()
                self.snapshots = self.directory / "snapshots"
                self.server.storage.close()
                self.server = self.started()
            target = self.archive / "log" / "0000000002.log"
            target.parent.mkdir(parents=True)
            target.write_bytes(FOREIGN)
            self.run_history()
            self.assertEqual(target.read_bytes(), FOREIGN)
            self.assertIn("another content", self.counters.error or "")
            self.assertEqual((self.archived()[0], self.segments()[0]), ([1, 2], 2))
            target.unlink()
            self.server.clock.advance(archive_module.AGAIN_SECONDS)
            self.server.clock.run_what_came(0.02)
            self.settle()
            self.assertIsNone(self.counters.error)
            self.assertEqual(self.archived()[0], list(range(1, self.segments()[0])))

    def test_equal_file_is_taken_as_moved(self) -> None:
        """An equal file in the archive is taken as moved: a crash may have come between the copy and the deletion."""
        self.patch(os, "link", refusing(errno.ENOSPC))
        self.run_history()
        log = self.archive / "log"
        log.mkdir(parents=True, exist_ok=True)
        for number in (1, 2):
            shutil.copy(self.directory / "log" / f"{number:010d}.log", log)
        self.flushPatches()
        self.restart()
        self.settle()
        self.assertEqual(self.counters.error, None)
        self.assertEqual(self.archived()[0], list(range(1, self.segments()[0])))

    def test_close_does_not_wait_for_a_copy(self) -> None:
        """Closing does not wait for a long copy: the rest is copied after the next start."""
        self.patch(os, "link", refusing(errno.EXDEV))
        self.patch(archive_module, "STEP_BYTES", 1_000)
        store = self.server.storage.snapshot_store
        assert store is not None
        self.patch(archive_module, "sync_data", lambda descriptor: store.thread.ends.set())
        self.fill(1, 30)
        self.name(self.make(30))
        self.assertTrue(self.server.storage.close())
        self.assertEqual(self.server.failures, [])
        self.assertEqual(self.segments()[0], 1)
        self.assertEqual(self.archived()[0], [])

    def test_data_directory_that_fails_stops_the_server(self) -> None:
        """An error of the data directory while files are archived stops the server: it is no error of the archive."""
        self.fill(1, 30)
        name = self.make(30)
        self.patch(archive_module, "drop_segments", refusing(errno.EIO))
        self.server.write(SnapshotRecord(name))
        self.server.clock.run_until(lambda: bool(self.server.failures))
        self.assertIn("Input/output error", str(self.server.failures[0].value))


class ArchivePowerLossTests(power_loss.SnapshotPowerLossTests):
    """After power loss at any step, each superfluous file is in the data directory, or whole in the archive."""

    copies = False
    refused_min = 60
    """Number of states, at least, in which a missing file is noticed: fewer than without an archive, since fewer names
    change at once."""

    def setUp(self) -> None:
        super().setUp()
        self.whole: dict[str, bytes] = {}
        """Path of each segment and snapshot that was ever complete -> its content at the end of its time."""

    def archive(self, home: Path) -> Archive:
        directory = archive_of(home / "archive" / "2", IDENTITY)
        counters = ArchiveCounters(str(directory))
        return Archive(directory, home / "log", self.head(1), counters, lambda: 0.0)

    def run_log(self) -> None:
        """Run the whole life of a log, and keep every state that a loss of power may leave."""
        self.make_segment(1)
        (self.home / "archive").mkdir()
        if self.copies:
            self.patch(os, "link", refusing(errno.EXDEV))
        self.disk = power_loss.PowerLossDisk(self.home, self.lose_power)
        self.disk.watch(self)
        self.store_ = self.store()
        archive = self.store_.archive = self.archive(self.home)

        def named(stored: StoredSnapshot, dropped: list[int]) -> None:
            for number in dropped:
                name = f"log/{number:010d}.log"
                self.whole[name] = (self.home / name).read_bytes()
            self.store_.named(stored.name, lambda: archive.take(dropped, (), stored.compacted))
            name = f"snapshots/{stored.name.seq:012d}.snapshot"
            self.whole[name] = (self.home / name).read_bytes()

        self.writer_: LogWriter = self.writer(named=named, slack=Slack(0))
        self.live()
        self.assertIsNone(archive.counters.error)

    def clean(self, directory: Path) -> None:
        """Delete or archive what is superfluous, as a start does after its checks."""
        log = scan(directory, OWNER)
        self.check(log)
        LogWriter.open(log).close()
        stored = log.state.snapshot
        files = SnapshotFiles.beside(directory)
        name = None if stored is None else stored.name
        older = files.older(name)
        files.delete_leftovers(name, keep=older)
        archive = self.archive(directory.parent)
        archive.take(log.leftovers, older, log.state.compacted)
        self.assertIsNone(archive.counters.error)

    def missing_of(self, home: Path, state: StoredSnapshot | None) -> Iterator[str]:
        """Yield the files that a snapshot has made superfluous and that are neither in the data directory nor in the
        archive."""
        for name, data in self.whole.items():
            is_segment = name.startswith("log/")
            number = int(Path(name).stem)
            if state is None or number >= (state.first_segment if is_segment else state.name.seq):
                continue
            here = [home / name, archive_of(home / "archive" / "2", IDENTITY) / name]
            if not any(path.exists() and path.read_bytes() == data for path in here):
                yield name

    def assertWhole(self, directory: Path, acknowledged: int) -> Any:
        found = super().assertWhole(directory, acknowledged)
        self.assertEqual([*self.missing_of(directory.parent, found.state.snapshot)], [])
        for path in (directory.parent / "archive").rglob("*"):
            name = f"{path.parent.name}/{path.name}"
            if path.is_file() and path.name != archive_module.UNFINISHED:
                self.assertEqual(path.read_bytes(), self.whole[name], "what has its name in the archive is whole")
        return found

    def test_unfinished_files_have_any_content(self) -> None:
        """Bytes that were not forced to disk may be missing, partly there or different after a loss of power, also in
        the archive."""
        self.run_log()
        tried = 0
        for acknowledged, files in self.states.values():
            for name in files:
                if acknowledged and name.endswith(f"/{archive_module.UNFINISHED}") and "archive" in name:
                    directory = self.put(files | {name: os.urandom(700)})
                    self.assertWhole(directory, acknowledged)
                    self.clean(directory)
                    self.assertWhole(directory, acknowledged)
                    tried += 1
        self.assertEqual(tried > 10, self.copies)

    @long
    def test_every_step_may_be_the_last(self) -> None:
        """After a loss of power at any step, a start finds all that was acknowledged, and archives the rest."""
        super().test_every_step_may_be_the_last()

    @long
    def test_start_that_deletes_leftovers_may_be_cut_short_itself(self) -> None:
        """A loss of power during a start may leave any subset of its moves done, or files in both places: the next
        start works."""
        super().test_start_that_deletes_leftovers_may_be_cut_short_itself()


class CopyingPowerLossTests(ArchivePowerLossTests):
    """An archive on another file system, to which files are copied."""

    copies = True
