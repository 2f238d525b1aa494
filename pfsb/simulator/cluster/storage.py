"""The storage of a simulated server, whose disk the checkers look at when a record names a snapshot."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from pfsb.paxos.records import EpochRecord, SnapshotRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.storage.memory import Group, MemoryStorage


def _ignore(*_args: object) -> None:
    """Do nothing."""


@define(eq=False)
class SimulatedStorage(MemoryStorage):
    """A `MemoryStorage` that calls `on_named` with each snapshot that a record on the disk names from now on, and
    `on_epoch` each time that a record of an epoch of the membership has got to the disk."""

    server_clock: ServerClock = field(kw_only=True)
    """The clock of the server."""
    on_named: Callable[[SnapshotName], None] = field(default=_ignore, kw_only=True)
    on_epoch: Callable[[], None] = field(default=_ignore, kw_only=True)

    def write(self, group: Group) -> bool:
        is_written = super().write(group)
        if is_written:
            for record in group.records:
                if isinstance(record, SnapshotRecord):
                    self.on_named(record.name)
            if any(isinstance(record, EpochRecord) for record in group.records):
                self.on_epoch()
        return is_written

    def crash(self, groups_kept: int = 0, records_torn: int = 0, bytes_kept: int = 0) -> None:
        before, epoch = self.snapshot, self.contents.members
        super().crash(groups_kept, records_torn, bytes_kept)
        if self.snapshot is not None and self.snapshot != before:
            self.on_named(self.snapshot)
        if self.contents.members is not epoch:
            self.on_epoch()
