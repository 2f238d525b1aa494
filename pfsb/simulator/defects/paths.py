"""Defects of paths: large datagrams, frames in parts, and the probes of a path (docs/internals/frames.rst)."""

from __future__ import annotations

from typing import Any

from pfsb.simulator.defects.defect import Defects, become, do_nothing
from pfsb.transports.frames import FRAME_BYTES_MAX
from pfsb.transports.links import Links
from pfsb.transports.outgoing_parts import OutgoingParts
from pfsb.transports.path import Path
from pfsb.transports.path_size import PathSize
from pfsb.transports.reassembly import Assembly, Reassembly

DEFECTS = Defects()
_PAGE = "docs/internals/frames.rst"


def _change(process: Any, changed: type) -> None:
    """Let `changed`, a defective subclass, take the place of its base class in each path of a server that is measured.

    The base class is `Path`, or the class of an object that a path consists of, such as `PathSize`.
    """
    become(process.transport.links, type("_Links", (_DefectiveLinks,), {"__slots__": (), "changed": changed}))


class _DefectiveLinks(Links):
    __slots__ = ()
    changed: type

    def measure(self, peer: int, most: int = FRAME_BYTES_MAX) -> None:
        super().measure(peer, most)
        path = self.path(peer)
        for part in (path, path.path_size, path.outgoing, path.reassembly):
            if issubclass(self.changed, type(part)):
                become(part, self.changed)


class _LinksWithFragments(Links):
    """Links that measure no path, and let IP fragments carry large frames."""

    __slots__ = ()

    def measure(self, peer: int, most: int = FRAME_BYTES_MAX) -> None:
        """Measure nothing: every frame is one datagram, which travels in IP fragments if it is too large."""


@DEFECTS.add("fragments", _PAGE, "large frames are sent as one datagram each, in IP fragments")
def _fragments(process: Any) -> None:
    become(process.transport.links, _LinksWithFragments)


class _HopefulSize(PathSize):
    """A size of datagrams that becomes the largest one without a probe."""

    __slots__ = ()

    def larger_wanted(self) -> None:
        """Take the largest size without a probe."""
        self.set_size(self.ceiling)


@DEFECTS.add("size-unproved", _PAGE, "datagrams become as large as the own interface takes, without a probe")
def _size_unproved(process: Any) -> None:
    _change(process, _HopefulSize)


class _TrustingSize(PathSize):
    __slots__ = ()

    used = doubt = do_nothing


@DEFECTS.add("black-hole-unnoticed", _PAGE, "a path that carries large datagrams no more is never asked again")
def _black_hole_unnoticed(process: Any) -> None:
    _change(process, _TrustingSize)


class _RashSize(PathSize):
    """A size of datagrams that is never proved anew when its proof is old."""

    __slots__ = ()

    def used(self) -> None:
        """Do nothing, however long ago it was proved that the path carries datagrams of the present size."""


@DEFECTS.add("proof-never-renewed", _PAGE, "datagrams that are no parts may be lost for ever when a path gets narrower")
def _proof_never_renewed(process: Any) -> None:
    _change(process, _RashSize)


class _SilentReassembly(Reassembly):
    """A reassembly that never asks for missing parts."""

    __slots__ = ()

    def ask(self, tag: bytes, assembly: Assembly, now: float) -> None:
        """Ask for nothing, so that a frame of which one part was lost stays incomplete."""
        assembly.due = now + 10


@DEFECTS.add("lost-bytes-not-asked-for", _PAGE, "parts that are lost are not asked for")
def _lost_bytes_not_asked_for(process: Any) -> None:
    _change(process, _SilentReassembly)


class _GreedyReassembly(Reassembly):
    __slots__ = ()

    make_room = do_nothing


@DEFECTS.add("parts-unbounded", _PAGE, "incomplete frames are kept in any number")
def _parts_unbounded(process: Any) -> None:
    _change(process, _GreedyReassembly)


class _Copies(OutgoingParts):
    __slots__ = ()

    def is_on_way(self, frame: bytes) -> bool:
        return False


@DEFECTS.add("copies-in-parts", "Departure 46", "a message is sent again though its parts are still on their way")
def _copies_in_parts(process: Any) -> None:
    _change(process, _Copies)


class _OneQueue(Path):
    """A path on which small frames wait for the parts of large ones."""

    __slots__ = ()

    def send(self, frame: bytes) -> None:
        """Send a frame behind all frames that are on their way in parts, one frame at a time; as usual if there are
        none."""
        if self.outgoing.is_idle:
            super().send(frame)
        else:
            self.outgoing.window = 0
            self.send_in_parts(frame)


@DEFECTS.add("small-behind-large", "Departure 46", "small frames wait for the parts of large ones")
def _small_behind_large(process: Any) -> None:
    _change(process, _OneQueue)
