"""The HTTP door's code is loaded when the first visitor comes.

A server that starts has most likely missed something, and whoever waits for it waits for its imports, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

if TYPE_CHECKING:
    from pfsb.frontends.http.protocol import HTTPSite


class LazyHTTPSite(Factory):
    """Makes the door for the first connection, and leaves all of them to it."""

    noisy = False

    def __init__(self, make: Callable[[], HTTPSite]) -> None:
        self._make = make
        self.door: HTTPSite | None = None
        """None: nobody has come yet."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.door is None:
            self.door = self._make()
            self.door.doStart()
        return self.door.buildProtocol(addr)

    def stopFactory(self) -> None:
        if self.door is not None:
            self.door.doStop()

    def leave(self) -> None:
        """The server stops."""
        if self.door is not None:
            self.door.leave()
