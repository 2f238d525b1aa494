"""The HTTP port, which loads the code behind it when the first client connects.

A server that starts has most likely missed updates, and its start-up time, imports included, counts towards fail-over:
so the code for HTTP is not imported before a client needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

if TYPE_CHECKING:
    from pfsb.frontends.http.protocol import HTTPSite


class LazyHTTPSite(Factory):
    """Makes the site for the first connection, and leaves all connections to it."""

    noisy = False

    def __init__(self, make: Callable[[], HTTPSite]) -> None:
        self._make = make
        self.site: HTTPSite | None = None
        """None: no client has connected yet."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.site is None:
            self.site = self._make()
            self.site.doStart()
        return self.site.buildProtocol(addr)

    def stopFactory(self) -> None:
        if self.site is not None:
            self.site.doStop()

    def leave(self) -> None:
        """The server stops: close every connection."""
        if self.site is not None:
            self.site.leave()
