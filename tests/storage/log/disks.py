"""Storages with an archive and small segments, which tests write as servers do."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from attrs import define, evolve, field

from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, OrderedRecord, ProposalRecord, Record, SnapshotRecord, ViewRecord
from pfsb.paxos.snapshot import Piece, SnapshotDecoder, SnapshotEncoder, SnapshotName
from pfsb.storage.counters import ArchiveCounters
from pfsb.storage.log.archive import Archive, archive_of
from pfsb.storage.log.compaction import Slack
from pfsb.storage.log.items import StoredSnapshot
from pfsb.storage.log.past import StorageHistory
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import SegmentHead, drop_segments, make_segment
from pfsb.storage.log.snapshot_files import SnapshotFiles
from pfsb.storage.log.writer import LogWriter
from tests.storage.log.support import OWNER, ROOM_BYTES, content

CLUSTER = b"cluster!"


def truth(seq: int) -> Batch:
    """Return the batch that is ordered in a slot."""
    return Batch(random.Random(seq).randbytes(150 + seq % 200))


def other(seq: int) -> Batch:
    """Return a batch that was proposed in the slot, and not ordered."""
    return Batch(b"not ordered" + bytes([seq % 256]) * 100)


def small_snapshot(seq: int) -> bytes:
    """Return the bytes of a snapshot of this slot."""
    encoder = SnapshotEncoder(seq, CLUSTER)
    return encoder.head() + encoder.piece(Piece("kv", b"%d" % seq * 20)) + encoder.end()


class Old(Enum):
    """Fate of the files that a snapshot makes superfluous."""

    ARCHIVED = "archived"
    LEFT = "left where they are, as while the archive fails"
    DELETED = "deleted"


@define(eq=False)
class Disk:
    """The storage of one server, with an archive, whose segments are small."""

    home: Path
    server_id: int
    old: Old = Old.ARCHIVED
    batch_of: Callable[[int], Batch] = truth
    """Function that gives the batch that is ordered in a slot."""
    snapshot_of: Callable[[int], bytes] = small_snapshot
    """Function that gives the bytes of the snapshot of a slot."""
    room: int = ROOM_BYTES
    aru: int = 0
    snapshot: int = 0
    jumped: set[int] = field(factory=set)
    """Slots over which Local_Aru has jumped, by a snapshot that was fetched."""
    dice: random.Random = field(init=False)
    writer: LogWriter = field(init=False)
    _ready: list[SegmentHead] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.dice = random.Random(self.server_id)
        self.log.mkdir(parents=True)
        (self.home / "archive").mkdir(exist_ok=True)
        (self.data / "pfsb.lock").touch()
        self._make(1)
        self._ready.clear()
        owner = evolve(OWNER, server_id=self.server_id)
        self.writer = LogWriter.open(scan(self.log, owner), self._take, self._make, self._named, Slack(0))
        self.writer.append(content(incarnation=1))

    @property
    def data(self) -> Path:
        return self.home / "data" / str(self.server_id)

    @property
    def log(self) -> Path:
        return self.data / "log"

    @property
    def identity(self) -> bytes:
        return b"disk-%03d" % self.server_id

    @property
    def archive(self) -> Path:
        return archive_of(self.home / "archive" / str(self.server_id), self.identity)

    def _make(self, number: int) -> None:
        owner = evolve(OWNER, server_id=self.server_id)
        head = SegmentHead(number, self.room, self.identity, self.dice.randbytes(16), owner)
        make_segment(self.log, head)
        self._ready.append(head)

    def _take(self) -> SegmentHead | None:
        return self._ready.pop() if self._ready else None

    def _named(self, stored: StoredSnapshot, dropped: list[int]) -> None:
        if self.old is Old.DELETED:
            drop_segments(self.log, dropped, self.writer.log.head, lambda: None)
            SnapshotFiles.beside(self.log).delete_leftovers(stored.name)
        if self.old is Old.ARCHIVED:
            counters = ArchiveCounters(str(self.archive))
            archive = Archive(self.archive, self.log, self.writer.log.head, counters, lambda: 0.0)
            archive.take(dropped, SnapshotFiles.beside(self.log).older(stored.name), stored.compacted)
            assert counters.error is None, counters.error

    def write(self, *records: Record) -> None:
        self.writer.append(content(*records))

    def order(self, *seqs: int) -> None:
        """Have slots ordered here, in one of the ways in which a server learns that."""
        for seq in seqs:
            if self.dice.random() < 0.3:
                self.write(ProposalRecord(seq, 3, other(seq)))
            if self.dice.random() < 0.7:
                self.write(ProposalRecord(seq, 4, self.batch_of(seq)))
                self.write(AruRecord(seq))
            else:
                self.write(OrderedRecord(seq, self.batch_of(seq)), AruRecord(seq))
            self.aru = seq

    def propose(self, seq: int) -> None:
        """Accept a proposal that will not be ordered, unless a later one takes its place."""
        self.write(ProposalRecord(seq, 3, other(seq)))

    def file_of(self, seq: int) -> SnapshotName:
        data, decoder = self.snapshot_of(seq), SnapshotDecoder()
        for _ in decoder.feed(data):
            pass
        SnapshotFiles.beside(self.log).write(decoder.name, [data])
        return decoder.name

    def make_snapshot(self) -> None:
        self.write(ViewRecord(5, 5))  # the record of Local_Aru has come before
        self.write(SnapshotRecord(self.file_of(self.aru)))
        self.snapshot = self.aru

    def fetch_snapshot(self, seq: int) -> None:
        self.jumped.update(range(self.aru + 1, seq + 1))
        self.write(SnapshotRecord(self.file_of(seq)), AruRecord(seq))
        self.aru = self.snapshot = seq

    def history(self) -> StorageHistory:
        history = StorageHistory(self.identity, evolve(OWNER, server_id=self.server_id), [self.archive, self.data])
        history.look()
        return history
