"""A client of lines for the command line: each command runs once, whichever server answers."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.replies import Reply
from pfsb.client.drivers.twisted import TwistedDriver


class ClientStopped(Exception):
    """The client was stopped before the command was answered: whether the command runs is unknown."""


@define(eq=False)
class LineClient:
    """A client core with a reactor that drives it, and replies as Deferreds.

    Commands are lines as a person types them, replies are as the server writes them. Begin with `start`, end with
    `stop`.
    """

    _reactor: Any
    core: ClientCore
    """Tells which server the client is at, and calls back for events and for the end of the session."""
    _driver: TwistedDriver = field(init=False)

    @_driver.default
    def _make_driver(self) -> TwistedDriver:
        return TwistedDriver(self._reactor, self.core)

    def start(self) -> None:
        """Connect to the first server that can be reached."""
        self._driver.start()

    def command(self, line: str) -> Deferred[Reply]:
        """Send a line without number; fires with its reply, OK or not. Fails with `ClientStopped`."""
        answered: Deferred[Reply] = Deferred()

        def heard(reply: Reply) -> None:
            if reply.code == "CLOSED":
                answered.errback(ClientStopped(line))
            else:
                answered.callback(reply)

        self.core.submit(line, heard, self._driver.now)
        self._driver.act()
        return answered

    def stop(self) -> Deferred[None]:
        """Close the session, if a server is there to be told, and the connection. Fires when that is done."""
        return self._driver.stop()
