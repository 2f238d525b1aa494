"""The contents of a storage, and how records change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from attrs import define, field

from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, OrderedRecord, PeerRecord, ProposalRecord, Record, ViewRecord

ORDERED_VIEW = 0
"""Stands for the view of an OrderedRecord: no view is known, and none is needed any more."""


HistoryCallback = Callable[[list[tuple[int, Batch]]], None]
"""Takes the ordered batches that `IStableStorage.read_history` was asked for: consecutive (seq, batch)."""


class StoredSlot(NamedTuple):
    """What is stored at one sequence number."""

    view: int
    batch: Batch


@define
class Effect:
    """What a run of records amounts to: of those that name the same thing, the last one stands.

    A whole disk, or only the changes that one group makes to it: then None means "not mentioned".
    """

    views: ViewRecord | None = None
    local_aru: int | None = None
    slots: dict[int, StoredSlot] = field(factory=dict)
    peers: dict[int, bytes] = field(factory=dict)

    def apply(self, record: Record) -> None:
        # In the order of how often they are written.
        match record:
            case ProposalRecord(seq, view, batch):
                self.slots[seq] = StoredSlot(view, batch)
            case AruRecord(local_aru):
                self.local_aru = local_aru
            case ViewRecord():
                self.views = record
            case OrderedRecord(seq, batch):
                self.slots[seq] = StoredSlot(ORDERED_VIEW, batch)
            case PeerRecord(server_id, identity):
                self.peers[server_id] = identity
            case _:
                assert_never(record)

    def apply_all(self, records: Iterable[Record]) -> None:
        for record in records:
            self.apply(record)


def batch_bytes(records: Iterable[Record]) -> int:
    return sum([len(record.batch.data) for record in records if isinstance(record, (ProposalRecord, OrderedRecord))])
