"""The HTTP port, which loads the code behind it when the first client connects.

The time that a server takes to start, imports included, counts towards fail-over: so the code for HTTP is not imported
before a client needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

if TYPE_CHECKING:
    from pfsb.frontends.http.protocol import HTTPSite


class LazyHTTPSite(Factory):
    """Makes the `HTTPSite` when the first client connects, and lets it handle all connections."""

    noisy = False

    def __init__(self, make: Callable[[], HTTPSite]) -> None:
        self._make = make
        self.site: HTTPSite | None = None
        """The HTTP port's site, which handles all connections; None until the first client connects."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.site is None:
            self.site = self._make()
            self.site.doStart()
        return self.site.buildProtocol(addr)

    def stopFactory(self) -> None:
        if self.site is not None:
            self.site.doStop()

    def leave(self) -> None:
        """Called when the server stops: closes every connection."""
        if self.site is not None:
            self.site.leave()
