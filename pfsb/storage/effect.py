"""The contents of a storage, and how records change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from attrs import define, field

from pfsb.paxos.members import Members
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import (
    AruRecord,
    EpochRecord,
    OrderedRecord,
    PeerRecord,
    ProposalRecord,
    Record,
    SnapshotRecord,
    ViewRecord,
)
from pfsb.paxos.snapshot import SnapshotName

ORDERED_VIEW = 0
"""View number that is stored for a slot whose batch was learned as ordered.

The view in which that batch was proposed is not known then, and makes no difference for an ordered slot.
"""


HistoryCallback = Callable[[list[tuple[int, Batch]]], None]
"""Function that gets the ordered batches that `IStableStorage.read_history` was asked for: (seq, batch) of consecutive
slots. Called at most once for each reading; never after the storage has failed."""
SnapshotCallback = Callable[[bytes], None]
"""Function that gets the bytes that `IStableStorage.read_snapshot` was asked for. Called as a `HistoryCallback` is."""
KEPT_SLOTS = 10_000
"""Number of slots, up to that of a snapshot, that stay readable for servers that are a little behind."""


def ignore_lost(_name: SnapshotName, _fate: str) -> None:
    """Does nothing: stands for `IStableStorage.on_snapshot_lost` until the protocol sets it."""


class StoredSlot(NamedTuple):
    """The stored content of one slot: a batch, and the view in which it was proposed or `ORDERED_VIEW`."""

    view: int
    batch: Batch


@define
class Effect:
    """The result of applying records in order: a later record replaces an earlier one about the same slot, peer or
    value.

    An effect is either the content of a whole disk or the changes that one group of records makes to a disk. In
    changes, None means that no record of the group sets the value. Both kinds of storage use this class, so they agree
    on the meaning of records.
    """

    views: ViewRecord | None = None
    local_aru: int | None = None
    slots: dict[int, StoredSlot] = field(factory=dict)
    peers: dict[int, PeerRecord] = field(factory=dict)
    snapshot: SnapshotName | None = None
    """The snapshot from which a restart begins; of two, the one of the higher slot."""
    skipped: int = 0
    """Slots up to this one may be missing, or be there without being ordered, since a snapshot was named before
    Local_Aru had reached its slot: it came from another server. 0: there are none.

    The changes that a group makes do not hold the Local_Aru of the groups before. In them this is the highest slot of
    a snapshot that was named before the group itself had set a Local_Aru as high, and `skipped_after` tells the rest.
    """

    members: Members | None = None
    """The servers of the latest epoch; None: those of epoch 0, or, in changes, the group sets none.

    In changes, an epoch that is later than that of the groups before makes void what they hold above `members.since`.
    """

    def skipped_after(self, local_aru: int) -> int:
        """The slot `skipped` for a storage whose Local_Aru was `local_aru` before these changes."""
        return self.skipped if self.skipped > local_aru else 0

    def apply(self, record: Record) -> None:
        # The most frequent records come first.
        match record:
            case ProposalRecord(seq, view, batch):
                self.slots[seq] = StoredSlot(view, batch)
            case AruRecord(local_aru):
                self.local_aru = local_aru
            case ViewRecord():
                self.views = record
            case OrderedRecord(seq, batch):
                self.slots[seq] = StoredSlot(ORDERED_VIEW, batch)
            case PeerRecord():
                self.peers[record.server_id] = record
            case SnapshotRecord(name):
                self._apply_snapshot(name)
            case EpochRecord(members):
                self._apply_epoch(members)
            case _:
                assert_never(record)

    def _apply_epoch(self, members: Members) -> None:
        if self.members is None or members.epoch > self.members.epoch:
            self.members = members
            for seq in [seq for seq in self.slots if seq > members.since]:
                del self.slots[seq]

    def _apply_snapshot(self, name: SnapshotName) -> None:
        reached = 0 if self.snapshot is None else self.snapshot.seq
        if name.seq > max(reached, self.local_aru or 0):
            self.skipped = name.seq
        if name.seq >= reached:
            self.snapshot = name

    def apply_all(self, records: Iterable[Record]) -> None:
        for record in records:
            self.apply(record)


def batch_bytes(records: Iterable[Record]) -> int:
    """Total size, in bytes, of the batches in these records."""
    return sum([len(record.batch.data) for record in records if isinstance(record, (ProposalRecord, OrderedRecord))])
