"""Small logs for tests, and a reader of everything in a log."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, PeerRecord, ProposalRecord, Record, ViewRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.storage.durable import DurableFile, Piece
from pfsb.storage.effect import Effect
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.items import Content, StoredSnapshot
from pfsb.storage.log.reader import LogReader
from pfsb.storage.log.scan import Log, scan
from pfsb.storage.log.segments import BLOCK_BYTES, SegmentHead, make_segment
from pfsb.storage.log.writer import LogWriter
from pfsb.storage.owner import StorageOwner

OWNER = StorageOwner("four", bytes(range(8)), (0, 1, 2, 3), 2)
IDENTITY = b"disk-002"
ROOM_BYTES = BLOCK_BYTES + 3 * 512
"""The size of a segment with a head and room for a few groups."""
IN_MEMORY = Path("/dev/shm")


class Found(NamedTuple):
    """All that a log holds; each slot that is read, with its view and the digest of its batch."""

    position: int
    state: Content
    slots: dict[int, tuple[int, str]]


def content(*records: Record, incarnation: int | None = None, passes: dict[int, bytes] | None = None) -> Content:
    effect = Effect()
    effect.apply_all(records)
    return Content(incarnation, effect, passes or {})


def slot(seq: int, size: int, view: int = 1) -> ProposalRecord:
    """A proposal with a batch of this size."""
    return ProposalRecord(seq, view, Batch(random.Random(seq * 1_000 + view).randbytes(size)))


CONTENTS: Sequence[Content] = (
    content(incarnation=1),
    content(ViewRecord(5, 4), PeerRecord(0, b"disk-000"), PeerRecord(1, b"disk-001", 3, 99)),
    content(slot(1, 300), slot(2, 10)),
    content(AruRecord(2), slot(3, 700)),
    content(passes={2: b"digest-2"}),
    content(slot(4, 40), ViewRecord(7, 6)),
    content(slot(4, 41, 6), AruRecord(3)),
    content(slot(5, 2_800, 6)),
    content(slot(6, 900, 6), AruRecord(5)),
    content(incarnation=2),
    content(slot(7, 200, 6), PeerRecord(1, b"disk-001", 4, 120)),
)
"""Groups that fill several segments of `ROOM_BYTES`."""


def everything(directory: Path) -> Found:
    """All that a log holds. Raises `StorageRefused`."""
    log = scan(directory, OWNER)
    reader = LogReader(log)
    try:
        slots = [slot for seq in log.index.above(log.state.compacted) if (slot := reader.slot(seq)) is not None]
    finally:
        reader.close()
    return Found(log.position, log.state, {slot.seq: (slot.view, slot.batch.digest.hex()[:8]) for slot in slots})


Named = Callable[[StoredSnapshot, list[int]], None]


def do_nothing(stored: StoredSnapshot, dropped: list[int]) -> None:
    """In the place of a callback that deletes: leave the segments that a snapshot has made superfluous."""


def snapshot_name(seq: int) -> SnapshotName:
    """Return the name of some snapshot of this slot."""
    return SnapshotName(seq, 100 + seq, bytes([seq]) * 16)


class LogTestCase(SynchronousTestCase):
    """Tests with logs, in a file system without a disk if there is one, since each log is forced to disk many times."""

    def setUp(self) -> None:
        home = tempfile.mkdtemp(prefix="pfsb-test-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        self.home = Path(home)
        self.directory = self.home / "log"
        self.directory.mkdir()
        self.dice = random.Random(7)
        self.made = 0

    def head(self, number: int, room: int = ROOM_BYTES) -> SegmentHead:
        return SegmentHead(number, room, IDENTITY, self.dice.randbytes(16), OWNER)

    def make_segment(self, number: int, room: int = ROOM_BYTES) -> SegmentHead:
        head = self.head(number, room)
        make_segment(self.directory, head)
        return head

    def writer(self, log: Log | None = None, named: Named = do_nothing, slack: Slack | None = None) -> LogWriter:
        """A writer that has its next segment as soon as it asks for it. `named` is told of snapshots."""
        ready: list[SegmentHead] = []

        def take() -> SegmentHead | None:
            return ready.pop() if ready else None

        def want(number: int) -> None:
            ready.append(self.make_segment(number))

        if log is None:
            log = scan(self.directory, OWNER)
        ready += [log.heads[number] for number in sorted(log.heads) if number > log.segment]
        writer = LogWriter.open(log, take, want, named, slack)
        self.addCleanup(writer.close)
        return writer

    def write_all(self, contents: Sequence[Content] = CONTENTS) -> LogWriter:
        """Write a new log with these groups. Returns its writer."""
        self.make_segment(1)
        writer = self.writer()
        for each in contents:
            writer.append(each)
        return writer

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}

    def put_back(self, files: dict[str, bytes]) -> None:
        """Make the directory hold exactly these files."""
        for path in self.directory.iterdir():
            if path.name not in files:
                path.unlink()
        for name, data in files.items():
            (self.directory / name).write_bytes(data)


def watch_writes(case: SynchronousTestCase, watcher: Callable[[DurableFile, bytes, int], None]) -> None:
    """Have `watcher` called before each durable write, with the file, the bytes and the offset."""
    write = DurableFile.write

    def watched(file: DurableFile, pieces: Sequence[Piece], offset: int) -> None:
        watcher(file, b"".join(pieces), offset)
        write(file, pieces, offset)

    case.patch(DurableFile, "write", watched)
