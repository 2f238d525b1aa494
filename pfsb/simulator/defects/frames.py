"""Defects of frames: wrong values in headers, and frames that are taken unchecked (docs/internals/formats.rst)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfsb.paxos.interfaces import IFrameReceiver
from pfsb.simulator.cluster.storage import SimulatedStorage
from pfsb.simulator.defects.defect import Defects, become, instead_of
from pfsb.transports.frames import NOT_KNOWN, FrameCodec
from pfsb.transports.links import Links

DEFECTS = Defects()


class _TrustingCodec(FrameCodec):
    """A codec that takes frames whose tags are wrong."""

    __slots__ = ()

    def check_tag(self, *_arguments: object) -> None:
        """Check nothing, so that a frame is taken whatever its tag is."""


class _TrustingLinks(Links):
    __slots__ = ()

    def start(
        self,
        receiver: IFrameReceiver,
        identity: bytes,
        start: int,
        position: Callable[[], int],
        passes: bytes = NOT_KNOWN,
    ) -> None:
        super().start(receiver, identity, start, position, passes)
        become(self.codec, _TrustingCodec)


@DEFECTS.add("checksum-ignored", "docs/internals/formats.rst", "frames are taken whatever their tag is")
def _checksum_ignored(process: Any) -> None:
    become(process.transport.links, _TrustingLinks)


class _HastyStorage(SimulatedStorage):
    """A storage that tells its log position too early."""

    __slots__ = ()

    @property
    def position(self) -> int:
        """The log position, with groups included that are still on their way to the disk."""
        return super().position + len(self.pending_groups())


@DEFECTS.add("position-early", "docs/internals/formats.rst", "a frame tells of groups that are not on disk yet")
def _position_early(process: Any) -> None:
    become(process.replica.storage, _HastyStorage)


@DEFECTS.add("position-from-zero", "docs/internals/formats.rst", "each start counts the groups on disk from zero")
def _position_from_zero(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.log_positions, "told")
    def broken(told: Callable[[], int]) -> int:
        in_this_start: int = replica.storage.counters.groups
        return min(told(), in_this_start)
