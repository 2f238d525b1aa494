"""What both kinds of stable storage agree on: what records amount to, and in which order callers hear of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from attrs import define, field
from twisted.python.failure import Failure

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, OrderedRecord, PeerRecord, ProposalRecord, Record, ViewRecord
from pfsb.support.histogram import SECONDS, Histogram

IDENTITY_BYTES = 8
"""Length of the random identity of a storage (design part 4, "A lost disk is not a new server")."""

ORDERED_VIEW = 0
"""Stands for the view of an OrderedRecord: no view is known, and none is needed any more."""


class Slot(NamedTuple):
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
    slots: dict[int, Slot] = field(factory=dict)
    peers: dict[int, bytes] = field(factory=dict)

    def apply(self, record: Record) -> None:
        # In the order of how often they are written.
        match record:
            case ProposalRecord(seq, view, batch):
                self.slots[seq] = Slot(view, batch)
            case AruRecord(local_aru):
                self.local_aru = local_aru
            case ViewRecord():
                self.views = record
            case OrderedRecord(seq, batch):
                self.slots[seq] = Slot(ORDERED_VIEW, batch)
            case PeerRecord(server_id, identity):
                self.peers[server_id] = identity
            case _:
                assert_never(record)

    def apply_all(self, records: Iterable[Record]) -> None:
        for record in records:
            self.apply(record)


def batch_bytes(records: Iterable[Record]) -> int:
    return sum([len(record.batch.data) for record in records if isinstance(record, (ProposalRecord, OrderedRecord))])


def history_gap(where: str, seq: int, local_aru: int) -> StorageRefused:
    """Every slot up to Local_Aru was stored before Local_Aru was: if one is missing, something took it away."""
    return StorageRefused(
        f"{where}: slot {seq} is missing from the history, which should hold every slot from 1 to {local_aru}; {GONE}"
    )


GONE = "a server that has lost part of its storage must not vote again: remove it from the membership and add it anew"


@define
class StorageCounters:
    """How much was written since the start; for STATUS and metrics."""

    groups: int = 0
    records: int = 0
    batch_bytes: int = 0
    slow_groups: int = 0
    """Groups that took longer than `SLOW_WRITE_SECONDS`."""
    write_seconds: Histogram = field(factory=lambda: Histogram(SECONDS))
    last_write_seconds: float = 0.0
    max_write_seconds: float = 0.0

    def count(self, records: int, batch_bytes: int, seconds: float) -> bool:
        """Note one group; True if it was a slow one."""
        slow = seconds > SLOW_WRITE_SECONDS
        self.groups += 1
        self.records += records
        self.batch_bytes += batch_bytes
        self.slow_groups += slow
        self.write_seconds.observe(seconds)
        self.last_write_seconds = seconds
        self.max_write_seconds = max(self.max_write_seconds, seconds)
        return slow


SLOW_WRITE_SECONDS = 0.1
"""A group that takes longer is logged: the outbox of every turn waits behind it."""


@define(eq=False)
class Acknowledgements:
    """Calls back in the order of the syncs, each when its write and all earlier ones are on disk.

    Writes are numbered from 1 in the order in which they were asked for. Lives in the reactor's thread.
    """

    _failed: Callable[[Failure], None]
    _asked: deque[tuple[int, Callable[[], None]]] = field(factory=deque)
    _newest: int = 0
    _durable: int = 0

    def new_write(self) -> int:
        self._newest += 1
        return self._newest

    @property
    def all_reached(self) -> bool:
        """No write is under way."""
        return self._durable == self._newest

    def wait(self, durable: Callable[[], None]) -> bool:
        """Call `durable` when the newest write is on disk; True if it is already, so that `release` is due."""
        self._asked.append((self._newest, durable))
        return self.all_reached

    def reached(self, write: int) -> None:
        self._durable = write
        self.release()

    def release(self) -> None:
        """Call those whose time has come.

        What they ask for in turn waits for the next call, so that a chain of empty syncs cannot hold the reactor.
        """
        ready = sum(1 for write, _ in self._asked if write <= self._durable)
        while ready and self._asked:
            ready -= 1
            _, durable = self._asked.popleft()
            try:
                durable()
            except Exception:
                self._failed(Failure())

    def forget(self) -> None:
        """Nobody is called any more."""
        self._asked.clear()
