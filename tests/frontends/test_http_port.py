"""The HTTP site is made for the first connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from pfsb.frontends.http_port import LazyHTTPSite


class Site(Factory):
    """A stand-in for the site, which notes the calls."""

    protocol = Protocol
    noisy = False

    def __init__(self) -> None:
        self.notes: list[str] = []

    def startFactory(self) -> None:
        self.notes.append("started")

    def stopFactory(self) -> None:
        self.notes.append("stopped")

    def leave(self) -> None:
        self.notes.append("left")


class LazyHTTPSiteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.made: list[Any] = []
        self.lazy = LazyHTTPSite(self._make)

    def _make(self) -> Any:
        self.made.append(Site())
        return self.made[-1]

    def test_no_site_is_made_before_a_client_connects(self) -> None:
        """No site is made before a client connects: the code for HTTP is not loaded at the start, and a server may stop
        before any client came."""
        self.lazy.doStart()
        self.lazy.leave()
        self.lazy.doStop()
        self.assertEqual(self.made, [])

    def test_all_connections_share_one_site(self) -> None:
        """All connections share one site, which counts them, since their number is limited."""
        protocols = [self.lazy.buildProtocol(None) for _ in range(3)]
        (site,) = self.made
        self.assertEqual([protocol.factory for protocol in protocols], [site] * 3)

    def test_site_is_started_left_and_stopped_once(self) -> None:
        """The site gets the calls at its start and at the end of the server as if it had been there from the start."""
        self.lazy.doStart()
        self.lazy.buildProtocol(None)
        self.lazy.buildProtocol(None)
        self.lazy.leave()
        self.lazy.doStop()
        self.assertEqual(self.made[0].notes, ["started", "left", "stopped"])
