"""Data directories of format 4, which knows no snapshots: this version goes on with them.

The directories in `tests/data/storage-4` were made by pfsb before it had snapshots: `closed` by a server that was
closed in order, `segments` with segments of 5,632 bytes, the last of which has no group yet. Their segments lack the
zeros at the end, and have another suffix.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.records import Accepted, AruRecord, OrderedRecord, PeerRecord, Recovered, SnapshotRecord
from pfsb.paxos.snapshot import Piece, SnapshotName
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.groups import seal
from pfsb.storage.log.items import Content, StoredSnapshot, encode
from pfsb.storage.log.scan import scan, scan_end
from pfsb.storage.log.segments import (
    FORMAT_VERSION,
    FORMAT_WITHOUT_SNAPSHOTS,
    SegmentHead,
    make_segment,
    numbers_in,
    segment_path,
)
from tests.storage.log.support import OWNER, LogTestCase, everything
from tests.storage.support import Server, batch

DATA = Path(__file__).parents[2] / "data" / "storage-4"
SEGMENT_BYTES = {"closed": 1_048_576, "segments": 5_632}


def lay_out(name: str, directory: Path) -> None:
    """Make a data directory like the one of this name."""
    (directory / "log").mkdir(parents=True)
    (directory / "pfsb.position").write_bytes((DATA / name / "pfsb.position").read_bytes())
    for path in (DATA / name / "log").iterdir():
        data = path.read_bytes()
        (directory / "log" / f"{path.stem}.log").write_bytes(data.ljust(SEGMENT_BYTES[name], b"\0"))


class DirectoryTestCase(SynchronousTestCase):
    name = "closed"

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        lay_out(self.name, self.directory)

    def start(self) -> tuple[Server, Recovered]:
        server = Server(self.directory, slack=Slack(0), **self.owner())
        self.addCleanup(server.storage.close)
        return server, server.storage.recover()

    def owner(self) -> dict[str, object]:
        return {}

    def versions(self) -> dict[int, int]:
        """Number of each segment that is there -> its format."""
        log = self.directory / "log"
        return {number: self.version(number) for number in numbers_in(log)}

    def version(self, number: int) -> int:
        return int.from_bytes(segment_path(self.directory / "log", number).read_bytes()[8:12], "big")

    def make_snapshot(self, server: Server, seq: int) -> SnapshotName:
        names: list[SnapshotName] = []
        file = server.storage.write_snapshot(seq, b"cluster!")
        file.write(Piece("kv", b"state"))
        file.finish(names.append)
        server.clock.run_until(lambda: bool(names))
        server.write(SnapshotRecord(names[0]))
        server.clock.run_what_came()
        return names[0]


class ClosedDirectoryTests(DirectoryTestCase):
    """A directory with one segment."""

    def test_everything_is_recovered(self) -> None:
        """Everything is recovered that the earlier version has written."""
        self.assertEqual(self.versions(), {1: FORMAT_WITHOUT_SNAPSHOTS})
        _, found = self.start()
        self.assertEqual((found.incarnation, found.last_attempted, found.last_installed), (2, 9, 7))
        self.assertEqual(list(found.ordered), [(seq, batch(f"slot {seq}")) for seq in (1, 2, 3)])
        self.assertEqual(found.accepted, [Accepted(seq, 7, batch(f"slot {seq}")) for seq in (4, 5)])
        self.assertEqual(found.peers, {1: PeerRecord(1, b"12345678", 3, 99)})
        self.assertEqual((found.snapshot, list(found.snapshot_bytes)), (None, []))

    def test_start_goes_on_in_a_segment_of_the_present_format(self) -> None:
        """A start on a log of format 4 goes on in a segment of the present format, so that an earlier version meets an
        unknown format before it meets a snapshot."""
        before = segment_path(self.directory / "log", 1).read_bytes()
        server, _ = self.start()
        self.assertEqual(self.versions(), {1: FORMAT_WITHOUT_SNAPSHOTS, 2: FORMAT_VERSION})
        server.storage.close()
        self.assertEqual(segment_path(self.directory / "log", 1).read_bytes(), before, "nothing is added there")
        server, found = self.start()
        self.assertEqual((found.incarnation, found.local_aru, len(found.accepted)), (3, 3, 2))
        self.assertEqual(list(self.versions()), [1, 2])

    def test_snapshot_drops_the_segment_of_the_earlier_format(self) -> None:
        """When a snapshot drops the first segment, of format 4, its file remains as a head in the present format."""
        server, _ = self.start()
        server.write(OrderedRecord(6, batch("slot 6")), AruRecord(6))
        name = self.make_snapshot(server, 6)
        self.assertEqual(self.versions(), {1: FORMAT_VERSION, 2: FORMAT_VERSION})
        server.storage.close()
        server, found = self.start()
        self.assertEqual((found.snapshot, found.last_installed, found.local_aru), (name, 7, 6))
        self.assertEqual(found.peers, {1: PeerRecord(1, b"12345678", 3, 99)})

    def test_looking_at_it_changes_nothing(self) -> None:
        """A command that checks the directory changes nothing: an earlier version can still use it."""
        self.assertEqual(scan(self.directory / "log").position, scan_end(self.directory / "log").position)
        Server(self.directory).storage.refuse_if_unusable()
        server = Server(self.directory)
        server.storage.add_pass(4, b"digest-4", unseen=True)
        self.assertEqual(self.versions(), {1: FORMAT_WITHOUT_SNAPSHOTS})

    def test_segment_without_a_group_is_made_anew(self) -> None:
        """A segment without a group, of a directory whose first start was cut short, is made anew."""
        head = scan(self.directory / "log").head
        (self.directory / "pfsb.position").unlink()
        make_segment(self.directory / "log", head)
        _, found = self.start()
        self.assertEqual((found.identity, found.incarnation), (head.identity, 1))
        self.assertEqual(self.versions(), {1: FORMAT_VERSION})


class SegmentsTests(DirectoryTestCase):
    """A directory with several segments, whose last one has no group."""

    name = "segments"

    def owner(self) -> dict[str, object]:
        return {"cluster_digest": OWNER.cluster_digest}

    def test_start_goes_on_in_place_of_the_segment_that_has_no_group(self) -> None:
        """An unused segment is made anew, with the present format."""
        self.assertEqual(set(self.versions().values()), {FORMAT_WITHOUT_SNAPSHOTS})
        before = everything(self.directory / "log")
        server, found = self.start()
        self.assertEqual(self.versions(), {**dict.fromkeys((1, 2, 3, 4), FORMAT_WITHOUT_SNAPSHOTS), 5: FORMAT_VERSION})
        self.assertEqual([seq for seq, _ in found.ordered] + [each.seq for each in found.accepted], list(before.slots))
        self.make_snapshot(server, 5)
        self.assertEqual(self.versions(), {1: FORMAT_VERSION, 4: FORMAT_WITHOUT_SNAPSHOTS, 5: FORMAT_VERSION})
        server.storage.close()
        _, found = self.start()
        self.assertEqual((found.local_aru, [each.seq for each in found.accepted]), (5, [6, 7]))


class ItemTests(LogTestCase):
    """Snapshots in a segment whose format has none."""

    def test_item_in_a_segment_of_the_earlier_format_is_refused(self) -> None:
        """A snapshot in a segment of format 4 is refused: no version of pfsb writes one there."""
        stored = StoredSnapshot(SnapshotName(1, 100, bytes(16)), 1, 0)
        for version in (FORMAT_VERSION, FORMAT_WITHOUT_SNAPSHOTS):
            head = SegmentHead(1, 5_632, b"disk-002", self.dice.randbytes(16), OWNER, version)
            make_segment(self.directory, head)
            group = seal(head.salt, bytes(8), 1, encode(Content(1, snapshot=stored)))
            with segment_path(self.directory, 1).open("r+b") as file:
                file.seek(head.size)
                file.write(b"".join(group.pieces))
            if version == FORMAT_VERSION:
                self.assertEqual(scan(self.directory).state.snapshot, stored)
            else:
                error = self.assertRaises(StorageRefused, scan, self.directory)
                self.assertIn("segments of this format hold no snapshots", str(error))
