"""The HTTP door is made when somebody comes."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from pfsb.frontends.http_port import LazyHTTPSite


class Door(Factory):
    """Notes what happens to it."""

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


class LaterHTTPDoorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.made: list[Any] = []
        self.later = LazyHTTPSite(self._make)

    def _make(self) -> Any:
        self.made.append(Door())
        return self.made[-1]

    def test_no_door_is_made_while_nobody_comes(self) -> None:
        """Its code is not loaded at the start; and a server may stop before anybody came."""
        self.later.doStart()
        self.later.leave()
        self.later.doStop()
        self.assertEqual(self.made, [])

    def test_all_connections_share_one_door(self) -> None:
        """It counts them, and there may be so many and no more."""
        protocols = [self.later.buildProtocol(None) for _ in range(3)]
        (door,) = self.made
        self.assertEqual([protocol.factory for protocol in protocols], [door] * 3)

    def test_door_is_started_left_and_stopped_once(self) -> None:
        """As if it had been there from the start."""
        self.later.doStart()
        self.later.buildProtocol(None)
        self.later.buildProtocol(None)
        self.later.leave()
        self.later.doStop()
        self.assertEqual(self.made[0].notes, ["started", "left", "stopped"])
