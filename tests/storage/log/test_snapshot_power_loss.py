"""Power loss around snapshots: whichever steps are on disk, the next start finds all that was acknowledged.

Names of files are on disk when their directory was forced to disk; until then any subset of the changes of names since
the last such time may be. The content of a file is what was forced to disk. The tests run a log with snapshots, stop
before each call of the operating system that changes or forces something, and let a start find every such state.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.records import AruRecord, ProposalRecord, SnapshotRecord
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.storage.counters import StorageCounters
from pfsb.storage.durable import DurableFile
from pfsb.storage.durable import Piece as Bytes
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.items import Content, StoredSnapshot
from pfsb.storage.log.scan import Log, scan, scan_end
from pfsb.storage.log.segments import drop_segments
from pfsb.storage.log.snapshot_files import SnapshotFiles
from pfsb.storage.log.snapshots import SnapshotStore, SnapshotThread
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.room import Room
from tests.long import long
from tests.storage.log.support import IN_MEMORY, OWNER, Found, LogTestCase, content, everything, slot

Files = dict[str, bytes]
"""Path below the data directory -> content. The path of a directory ends with a slash."""


@define(eq=False)
class PowerLossDisk:
    """Watches a directory tree, and knows which files and contents would be there after a loss of power.

    `before_step` is called before each step, a change of names or something that is forced to disk.
    """

    root: Path
    before_step: Callable[[], None]
    names: dict[str, int] = field(factory=dict)
    """Path below the root -> number of its inode, for all names that are on disk."""
    changes: list[tuple[str, str | None, str | None, int]] = field(factory=list)
    """Changes of names that may be on disk, in order: directory, name that goes, name that comes, inode."""
    contents: dict[int, bytes | None] = field(factory=dict)
    """Inode -> content that is on disk; None: a directory."""
    _patches: list[Any] = field(factory=list, init=False)

    def watch(self, case: SynchronousTestCase) -> None:
        """Watch the system calls from now on; what exists already counts as on disk."""
        self._see_new()
        for path in self._all():
            self._force(path)
        self._sync_all()
        rename, unlink, fsync, fdatasync, write = os.rename, os.unlink, os.fsync, os.fdatasync, DurableFile.write
        link = os.link

        def watched_link(source: Any, target: Any) -> None:
            self._begin_step()
            inode = os.stat(source).st_ino
            link(source, target)
            self._note(None, self._name(target), inode)

        def watched_rename(source: Any, target: Any) -> None:
            self._begin_step()
            inode = os.stat(source).st_ino
            rename(source, target)
            self._note(self._name(source), self._name(target), inode)

        def watched_unlink(path: Any, **arguments: Any) -> None:
            self._begin_step()
            inode = os.stat(path).st_ino if os.path.exists(path) else 0
            unlink(path, **arguments)
            self._note(self._name(path), None, inode)

        def watched_fsync(sync: Callable[[int], None], descriptor: int) -> None:
            self._begin_step()
            sync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if self.root in (path, *path.parents):
                self._see_new()
                self._sync_directory(path) if path.is_dir() else self._force(path)

        def watched_write(file: DurableFile, data: Sequence[Bytes], offset: int) -> None:
            self._begin_step()
            write(file, data, offset)
            self._force(Path(os.readlink(f"/proc/self/fd/{file.descriptor}")))

        self._patches = [
            case.patch(os, "link", watched_link),
            case.patch(os, "rename", watched_rename),
            case.patch(os, "unlink", watched_unlink),
            case.patch(os, "fsync", lambda descriptor: watched_fsync(fsync, descriptor)),
            case.patch(os, "fdatasync", lambda descriptor: watched_fsync(fdatasync, descriptor)),
            case.patch(DurableFile, "write", watched_write),
        ]

    def stop(self) -> None:
        """Watch nothing any more."""
        for patch in self._patches:
            patch.restore()

    def states(self) -> Iterator[Files]:
        """Yield every state of the files that may be there if power fails now."""
        self._see_new()
        for chosen in product((False, True), repeat=len(self.changes)):
            names = dict(self.names)
            for is_there, (_, gone, come, inode) in zip(chosen, self.changes, strict=True):
                if is_there:
                    names.pop(gone or "", None)
                    if come is not None:
                        names[come] = inode
            yield self._files(names)

    def _files(self, names: dict[str, int]) -> Files:
        found: Files = {}
        for name, inode in names.items():
            directories = [f"{parent}/" for parent in Path(name.rstrip("/")).parents if str(parent) != "."]
            if all(directory in names for directory in directories):
                found[name] = self.contents.get(inode, b"") or b""
        return found

    def _begin_step(self) -> None:
        self.before_step()

    def _name(self, path: Any) -> str:
        return str(Path(path).relative_to(self.root))

    def _all(self) -> list[Path]:
        return sorted(self.root.rglob("*"))

    def _see_new(self) -> None:
        """Note the files that were made since the last time, whose names may be on disk by now."""
        known = dict(self.names)
        for _, gone, come, inode in self.changes:
            known.pop(gone or "", None)
            if come is not None:
                known[come] = inode
        for path in self._all():
            name = f"{self._name(path)}/" if path.is_dir() else self._name(path)
            found = path.stat()
            if known.get(name) != found.st_ino:
                self._note(None, name, found.st_ino)
                self.contents[found.st_ino] = b""

    def _note(self, gone: str | None, come: str | None, inode: int) -> None:
        directory = str(Path((come or gone or "").rstrip("/")).parent)
        self.changes.append((directory, gone, come, inode))

    def _force(self, path: Path) -> None:
        found = path.stat()
        self.contents[found.st_ino] = None if stat.S_ISDIR(found.st_mode) else path.read_bytes()

    def _sync_directory(self, path: Path) -> None:
        directory = str(path.relative_to(self.root)) if path != self.root else "."
        later = []
        for change in self.changes:
            if change[0] != directory:
                later.append(change)
                continue
            _, gone, come, inode = change
            self.names.pop(gone or "", None)
            if come is not None:
                self.names[come] = inode
        self.changes = later

    def _sync_all(self) -> None:
        for path in (self.root, *self._all()):
            if path.is_dir():
                self._sync_directory(path)


class ImmediateThread(SnapshotThread):
    """A thread of snapshots that does each job at once, in the thread of the caller."""

    def do(self, job: Callable[[], None]) -> None:
        job()

    def pause(self) -> None:
        pass


class SnapshotPowerLossTests(LogTestCase):
    """A log of several segments, two snapshots that the server makes, and one that it fetches."""

    refused_min = 100
    """Number of states, at least, in which a file that is missing is noticed."""

    def setUp(self) -> None:
        super().setUp()
        self.found: list[Found] = []
        """The content of the log by its position, from the first group on."""
        self.states: dict[int, tuple[int, Files]] = {}
        """State of the disk after power loss, by its hash -> the number of groups that were acknowledged, and files."""
        self.is_watched = True

    def store(self) -> SnapshotStore:
        log = scan(self.directory, OWNER)
        named = None if log.state.snapshot is None else log.state.snapshot.name
        store = SnapshotStore(
            SnapshotFiles.beside(self.directory),
            ImmediateThread(lambda failure: failure.raiseException()),
            Room(self.home, 0),
            lambda function, *args: function(*args),
            StorageCounters(),
            named,
            lambda name, fate: self.fail(f"{name}: {fate}"),
        )
        self.addCleanup(lambda: [file.close() for file in list(store.thread.open_files)])
        return store

    def lose_power(self) -> None:
        """Keep every state of the disk that may be there if power fails now."""
        if self.is_watched:
            for files in self.disk.states():
                self.states[hash(frozenset(files.items()))] = len(self.found), files

    def append(self, *records: Any, **arguments: Any) -> None:
        self.writer_.append(content(*records, **arguments))
        self.lose_power()
        self.is_watched = False
        self.found.append(everything(self.directory))
        self.is_watched = True

    def pieces(self, seq: int) -> list[Piece]:
        return [Piece("kv", bytes([seq, number]) * 700) for number in range(3)]

    def make(self, seq: int) -> SnapshotName:
        names: list[SnapshotName] = []
        file = self.store_.write(seq, b"cluster!")
        for piece in self.pieces(seq):
            file.write(piece)
        file.finish(names.append)
        return names[0]

    def fetch(self, seq: int) -> SnapshotName:
        encoder = SnapshotEncoder(seq, b"cluster!")
        data = encoder.head() + b"".join(map(encoder.piece, self.pieces(seq))) + encoder.end()
        told: list[bool] = []
        fetched = self.store_.fetch(encoder.name)
        fetched.write(data[:1_000])
        fetched.write(data[1_000:])
        fetched.finish(told.append)
        self.assertEqual(told, [True])
        return encoder.name

    def run_log(self) -> None:
        """Run the whole life of a log, and keep every state that a loss of power may leave."""
        self.make_segment(1)
        self.disk = PowerLossDisk(self.home, self.lose_power)
        self.disk.watch(self)
        self.store_ = self.store()

        def named(stored: StoredSnapshot, dropped: list[int]) -> None:
            def drop() -> None:
                if dropped:
                    drop_segments(self.directory, dropped, self.writer_.log.head, lambda: None)

            self.store_.named(stored.name, drop)

        self.writer_: LogWriter = self.writer(named=named, slack=Slack(0))
        self.live()

    def live(self) -> None:
        """Write groups, and have snapshots taken and fetched, for which segments are dropped, until the log ends."""
        self.append(incarnation=1)
        for seq in range(1, 11):
            self.append(slot(seq, 600), AruRecord(seq))
        self.append(SnapshotRecord(self.make(7)))
        for seq in range(11, 19):
            self.append(slot(seq, 600), AruRecord(seq))
        self.append(SnapshotRecord(self.make(18)), slot(19, 300), ProposalRecord(20, 2, slot(20, 100).batch))
        for seq in range(21, 23):
            self.append(slot(seq, 600))
        self.append(SnapshotRecord(self.fetch(40)))
        for seq in range(41, 45):
            self.append(slot(seq, 600), AruRecord(seq))
        self.writer_.close()
        self.lose_power()
        self.disk.stop()

    def put(self, files: Files) -> Path:
        """Make a directory with these files. Returns the directory of the log in it."""
        home = Path(tempfile.mkdtemp(prefix="pfsb-test-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        for name, data in sorted(files.items()):
            if name.endswith("/"):
                (home / name).mkdir()
            else:
                (home / name).write_bytes(data)
        return home / "log"

    def check(self, log: Log) -> None:
        """Check the log, as a start does before it changes anything."""
        log.refuse_gap()
        if log.state.snapshot is not None:
            SnapshotFiles.beside(log.directory).refuse_wrong(log.state.snapshot.name)

    def clean(self, directory: Path) -> None:
        """Delete superfluous files, as a start does after its checks."""
        log = scan(directory, OWNER)
        self.check(log)
        LogWriter.open(log).close()
        drop_segments(directory, log.leftovers, log.head, lambda: None)
        stored = log.state.snapshot
        SnapshotFiles.beside(directory).delete_leftovers(None if stored is None else stored.name)

    def assertWhole(self, directory: Path, acknowledged: int) -> Found:
        """Require that a start finds all groups that were acknowledged, at most one more, and its snapshot."""
        found = everything(directory)
        self.assertIn(found.position, (acknowledged, acknowledged + 1))
        self.assertEqual(found, self.found[found.position - 1])
        self.check(scan(directory, OWNER))
        end = scan_end(directory, OWNER)
        self.assertEqual((end.position, end.state), found[:2])
        return found

    def assertClean(self, directory: Path, found: Found) -> None:
        """Require that no file is left over of the time before the present snapshot."""
        snapshots = SnapshotFiles.beside(directory).directory
        stored = found.state.snapshot
        names = {path.name for path in snapshots.iterdir()} if snapshots.exists() else set()
        complete = {name for name in names if not name.endswith(".part")}
        self.assertEqual(complete, set() if stored is None else {f"{stored.name.seq:012d}.snapshot"})
        log = scan(directory, OWNER)
        self.assertEqual(log.leftovers, [])
        self.assertGreaterEqual(min(log.heads), found.state.first_segment)

    def test_every_step_may_be_the_last(self) -> None:
        """After a loss of power at any step, a start finds all that was acknowledged, and deletes the rest."""
        self.run_log()
        self.assertGreater(len(self.states), 100)
        self.assertGreater(self.found[-1].state.first_segment, 3)
        leftovers = 0
        for acknowledged, files in self.states.values():
            directory = self.put(files)
            if acknowledged == 0:
                continue
            found = self.assertWhole(directory, acknowledged)
            leftovers += bool(scan(directory, OWNER).leftovers)
            self.clean(directory)
            self.assertEqual(self.assertWhole(directory, acknowledged), found)
            self.assertClean(directory, found)
        self.assertGreater(leftovers, 10, "some states have segments that are not needed any more")

    @long
    def test_start_that_deletes_leftovers_may_be_cut_short_itself(self) -> None:
        """A loss of power during a start may leave any subset of the superfluous files deleted: the next start
        works."""
        self.run_log()
        tried = 0
        for acknowledged, files in self.dice.sample(list(self.states.values()), 60):
            directory = self.put(files)
            if acknowledged == 0 or not scan(directory, OWNER).leftovers:
                continue
            inner: list[Files] = []
            disk = PowerLossDisk(directory.parent, lambda inner=inner: inner.extend(disk.states()))  # noqa: B023
            disk.watch(self)
            self.clean(directory)
            inner.extend(disk.states())
            disk.stop()
            for each in {hash(frozenset(each.items())): each for each in inner}.values():
                again = self.put(each)
                self.assertWhole(again, acknowledged)
                tried += 1
        self.assertGreater(tried, 50)

    def test_unfinished_files_have_any_content(self) -> None:
        """Bytes that were not forced to disk may be missing, partly there or different after a loss of power."""
        self.run_log()
        names = {"snapshots/snapshot.new", "log/dropped.new", "log/next.new"}
        seen = set()
        for acknowledged, files in self.states.values():
            for name in files:
                if acknowledged and (name in names or name.endswith(".part")):
                    seen.add(name.rpartition(".")[2])
                    self.assertWhole(self.put(files | {name: os.urandom(700)}), acknowledged)
        self.assertEqual(seen, {"new", "part"})

    def test_segment_that_is_missing_without_the_item_is_refused(self) -> None:
        """In every state, the log is refused without a segment that it needs, and without its snapshot."""
        self.run_log()
        refused = 0
        for acknowledged, files in self.states.values():
            if acknowledged == 0:
                continue
            log = scan(self.put(files), OWNER)
            needed = [f"log/{number:010d}.log" for number in log.heads if number <= log.segment]
            if log.state.snapshot is not None:
                needed.append(f"snapshots/{log.state.snapshot.name.seq:012d}.snapshot")
            name = self.dice.choice(needed)
            directory = self.put({other: data for other, data in files.items() if other != name})
            try:
                found = scan(directory, OWNER)
                self.check(found)
            except StorageRefused as error:
                self.assertNotIn("\n", str(error))
                refused += 1
            else:
                self.assertLess(found.position, log.position, f"only the last segment can be missed so: {name}")
        self.assertGreater(refused, self.refused_min)


class ItemDamageTests(LogTestCase):
    """Changed bits in a group that names a snapshot, and in the head that remains of the first segment."""

    def setUp(self) -> None:
        super().setUp()
        self.make_segment(1)
        self.kept: list[Content] = []
        writer = self.writer(named=self.drop, slack=Slack(0))
        self.log = writer.log
        for seq in range(1, 12):
            writer.append(content(slot(seq, 600), AruRecord(seq)))
        before = everything(self.directory)
        name = SnapshotName(9, 5_000, bytes(range(16)))
        writer.append(content(SnapshotRecord(name)))
        assert writer.log.last is not None
        self.place = writer.log.last
        self.end = writer.log.end
        writer.append(content(slot(12, 100)))
        writer.close()
        self.files_ = self.files()
        self.before, self.after = before, everything(self.directory)

    def drop(self, stored: StoredSnapshot, dropped: list[int]) -> None:
        self.assertGreater(len(dropped), 1)
        drop_segments(self.directory, dropped, self.log.head, lambda: None)

    def test_every_bit_of_the_group_counts(self) -> None:
        """One changed bit in the group that names the snapshot is refused, since another group stands behind."""
        name = f"{self.place.segment:010d}.log"
        data = self.files_[name]
        for at in range(self.place.offset, self.end):
            changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            self.put_back(self.files_ | {name: changed})
            self.assertRaises(StorageRefused, scan, self.directory, OWNER)

    def test_group_of_the_snapshot_that_is_lost_is_refused(self) -> None:
        """If the last group, which names the snapshot, is lost, it looks torn; but the log is refused, since it lacks
        segments then."""
        name = f"{self.place.segment:010d}.log"
        data = self.files_[name]
        cut = data[: self.place.offset].ljust(len(data), b"\0")
        self.put_back(self.files_ | {name: cut})
        error = self.assertRaises(StorageRefused, scan, self.directory, OWNER)
        self.assertIn("missing, although other segments of this log are there", str(error))

    def test_head_in_the_place_of_the_first_segment(self) -> None:
        """Damage in the head that remains of the first segment is refused. Without that head the log is as before; an
        earlier version finds a segment missing."""
        data = self.files_["0000000001.log"]
        self.assertEqual((len(data), data[8:12]), (4_096, (5).to_bytes(4, "big")))
        for at in range(0, len(data), 7):
            changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            self.put_back(self.files_ | {"0000000001.log": changed})
            self.assertRaises(StorageRefused, scan, self.directory, OWNER)
        del self.files_["0000000001.log"]
        self.put_back(self.files_)
        self.assertEqual(everything(self.directory), self.after)

    def test_head_without_a_segment_stands_for_the_first_one_only(self) -> None:
        """The head of the first segment under the name of another segment is refused."""
        first = self.files_["0000000001.log"]
        for name in sorted(self.files_)[1:]:
            self.put_back(self.files_ | {name: first})
            self.assertRaises(StorageRefused, scan, self.directory, OWNER)
