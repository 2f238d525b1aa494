"""Electorate: which servers vote on a slot, by the epochs of the membership that the simulated disks hold (Departure
60)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import define, field

from pfsb.paxos.members import Members
from pfsb.storage.memory import MemoryDisk
from pfsb.support.views import epoch_of


@define
class Electorate:
    """The voters of each epoch, as far as a disk has held the epoch when this object looked."""

    disks: dict[int, MemoryDisk]
    founders: Sequence[int]
    """Ids of the servers that vote in epoch 0."""
    _epochs: list[Members] = field(init=False)
    """The known epochs, the latest one first."""

    @_epochs.default
    def _begin(self) -> list[Members]:
        return [Members(self.founders)]

    @property
    def latest(self) -> Members:
        """The servers of the latest epoch that a disk has held."""
        return self._epochs[0]

    def of(self, epoch: int) -> Members:
        """The servers of this epoch, which a disk has held."""
        return next(members for members in self._epochs if members.epoch == epoch)

    def epoch_on_disk(self, server_id: int) -> int:
        """The epoch in which a server is by its disk."""
        members = self.disks[server_id].contents.members
        return 0 if members is None else members.epoch

    def hold(self, members: Members) -> None:
        """Note an epoch that has got to a disk."""
        if all(members.epoch != each.epoch for each in self._epochs):
            self._epochs.append(members)
            self._epochs.sort(key=lambda each: -each.epoch)

    def look(self) -> None:
        """Note the epochs in which the servers are by their disks."""
        for disk in self.disks.values():
            if disk.contents.members is not None:
                self.hold(disk.contents.members)

    def saw(self, view: int) -> None:
        """Take notice that a message with this view has left a server: its epoch is on disk."""
        if epoch_of(view) > self._epochs[0].epoch:
            self.look()

    def at(self, seq: int) -> Members:
        """The epoch that fills slot `seq`: what earlier ones have left there is void."""
        return next(members for members in self._epochs if members.since < seq or members.epoch == 0)

    def is_void(self, seq: int, server_id: int) -> bool:
        """Whether a server is, by its disk, in an epoch that is over for slot `seq`."""
        return self.epoch_on_disk(server_id) < self.at(seq).epoch

    def era(self, seq: int, server_id: int) -> int | None:
        """The epoch that fills slot `seq`; None if a server is, by its disk, in an earlier one, so that what it says of
        the slot is void."""
        epoch = self.at(seq).epoch
        return None if self.epoch_on_disk(server_id) < epoch else epoch

    def is_majority(self, server_ids: Collection[int], seq: int) -> bool:
        """Whether these servers are a majority of those that vote on slot `seq`."""
        voters = self.at(seq).voters
        return 2 * sum(voter in server_ids for voter in voters) > len(voters)
