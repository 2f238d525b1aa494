"""Planted defects of host names: servers that do not find a peer again, or take frames from anywhere
(docs/internals/frames.rst)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pfsb.simulator.defects.defect import Defects, become
from pfsb.transports.frames import FrameRefused
from pfsb.transports.links import Links
from pfsb.transports.names import AddressBook, ServerName

DEFECTS = Defects()


def _give(process: Any, kind: type[AddressBook]) -> None:
    """Give the server an address book of this kind. Runs without names have none, and stay as they are."""
    book = getattr(process.transport, "book", None)
    if book is not None:
        become(book, kind)


class _LookingOnce(AddressBook):
    """An address book that looks each name up only once."""

    __slots__ = ()

    def begin_look_up(self, name: ServerName) -> None:
        """Begin the first look-up of a name, and no other one."""
        if not name.begun:
            super().begin_look_up(name)


@DEFECTS.add("name-looked-up-once", "docs/internals/frames.rst", "a name is looked up at the start of a server only")
def _name_looked_up_once(process: Any) -> None:
    _give(process, _LookingOnce)


class _WaitingForAnswers(AddressBook):
    """An address book that waits for the answer to a look-up for ever."""

    __slots__ = ()

    def begin_unless_waiting(self, name: ServerName) -> None:
        """Begin a look-up of a name, unless an earlier look-up of the name has no answer yet, however long that
        takes."""
        if not name.waiting:
            self.begin_look_up(name)


@DEFECTS.add(
    "name-waited-for", "docs/internals/frames.rst", "a name is not looked up again while a look-up is not answered"
)
def _name_waited_for(process: Any) -> None:
    _give(process, _WaitingForAnswers)


class _Trusting(AddressBook):
    """An address book that takes frames from any source."""

    __slots__ = ()

    def accepts_source(self, name: ServerName, host: str) -> bool:
        """Take a frame from any source, but do not learn the peer's address from it: only look-ups tell addresses."""
        super().accepts_source(name, host)
        return True


@DEFECTS.add("source-unchecked", "Departure 41", "without a secret, a frame is taken wherever it comes from")
def _source_unchecked(process: Any) -> None:
    _give(process, _Trusting)


class _TakingParts(Links):
    """Links that take each part of a frame as if it came from the address of its sender."""

    __slots__ = ()
    book: AddressBook

    def frame_arrived(self, frame: bytes, source: object = "the network") -> None:
        """Take a frame; in a cluster without a secret, take a notice whatever its source is."""
        if self.codec is not None and not self.codec.secrets:
            with suppress(FrameRefused):
                opened = self.codec.open(frame)
                address = self.book.where(opened.sender)
                if opened.notice is not None and address is not None:
                    source = (address.host, 0)
        super().frame_arrived(frame, source)


@DEFECTS.add("parts-from-anywhere", "Departure 41", "without a secret, a part is taken wherever it comes from")
def _parts_from_anywhere(process: Any) -> None:
    book = getattr(process.transport, "book", None)
    if book is not None:
        become(process.transport.links, type("_Links", (_TakingParts,), {"__slots__": (), "book": book}))
