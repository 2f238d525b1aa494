"""The storage of a simulated server, whose disk the checkers look at when a record names a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field

from pfsb.paxos.members import Members
from pfsb.paxos.records import EpochRecord, SnapshotRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.storage.memory import Group, MemoryStorage


def _ignore(*_args: object) -> None:
    """Do nothing."""


@define(eq=False)
class SimulatedStorage(MemoryStorage):
    """A `MemoryStorage` that calls `on_named` with each snapshot that a record on the disk names from now on, and
    `on_epoch` with each epoch of the membership whose record has got to the disk."""

    server_clock: ServerClock = field(kw_only=True)
    """The clock of the server."""
    on_named: Callable[[SnapshotName], None] = field(default=_ignore, kw_only=True)
    on_epoch: Callable[[Members], None] = field(default=_ignore, kw_only=True)

    def write(self, group: Group) -> bool:
        is_written = super().write(group)
        if is_written:
            for record in group.records:
                if isinstance(record, SnapshotRecord):
                    self.on_named(record.name)
            self._tell(_epochs_of([group]))
        return is_written

    def crash(self, groups_kept: int = 0, records_torn: int = 0, bytes_kept: int = 0) -> None:
        before, epochs = self.snapshot, _epochs_of(self.pending())
        super().crash(groups_kept, records_torn, bytes_kept)
        if self.snapshot is not None and self.snapshot != before:
            self.on_named(self.snapshot)
        self._tell(epochs)

    def _tell(self, epochs: Sequence[Members]) -> None:
        """Call `on_epoch` for those of these epochs whose records have got to the disk."""
        held = self.contents.members
        for members in epochs:
            if held is not None and members.epoch <= held.epoch:
                self.on_epoch(members)


def _epochs_of(groups: Iterable[Group]) -> list[Members]:
    """The epochs of the membership that the records of these groups begin: one group may begin several."""
    return [record.members for group in groups for record in group.records if isinstance(record, EpochRecord)]
