"""Log positions: frames tell how much is on a server's disk, never more than that, and never less than before."""

from __future__ import annotations

from attrs import define, field

from pfsb.paxos.log_positions import first_told
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.storage.memory import MemoryDisk
from pfsb.transports.frames import HEADER


def position_of(disk: MemoryDisk, server_id: int) -> int:
    """The log position that the frames of server `server_id` tell while its disk is `disk` (Departure 43).

    For a server that is down, this is the position that its frames will tell after its next start.
    """
    return first_told(disk.contents.peers.get(server_id), disk.incarnation, disk.position)


@define
class PositionChecker:
    """Checks the storage, start number and log position in the header of every frame that leaves a server."""

    _highest: dict[bytes, tuple[int, int]] = field(factory=dict)
    """Storage identity -> the highest (start number, position) that a frame has told of it."""

    def sent(self, server_id: int, frame: bytes, disk: MemoryDisk) -> None:
        """Check a frame that leaves the server `server_id`, whose present disk is `disk`."""
        *_, identity, start, _counter, position = HEADER.unpack_from(frame)
        # This is called for every frame, so the texts are made only when they are needed.
        if identity != disk.identity:
            raise Violation(f"server {server_id} sends a frame in the name of another storage")
        told = (start, position)
        on_disk = (disk.start_number, position_of(disk, server_id))
        if told > on_disk:
            raise Violation(f"server {server_id} has {on_disk} groups on disk, but its frame tells {told}")
        before = self._highest.get(identity, told)
        if start < before[0] or position < before[1]:
            raise Violation(f"server {server_id} tells the log position {told} after {before}")
        self._highest[identity] = told

    def voted(self, server_id: int, position: int, disk: MemoryDisk) -> None:
        """Check the log position that the next frame of server `server_id` tells, which carries a vote.

        If it told fewer groups than are on disk, the group with the vote could be lost, and no server would miss it.
        """
        on_disk = position_of(disk, server_id)
        require(position == on_disk, f"server {server_id} votes with {on_disk} groups on disk, and tells {position}")
