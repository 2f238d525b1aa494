"""The client of the `pfsb` command: commands are lines, and each runs once, whichever server answers."""

from __future__ import annotations

from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from pfsb.client.core.client_core import ClientCore
from pfsb.client.core.command import Command
from pfsb.client.core.replies import Reply
from pfsb.client.drivers.twisted import TwistedDriver

FATES: Final = {"none": "it did not happen", "unknown": "it may have happened, or may still happen"}
"""Fate of a command without an answer -> what that means, for a person."""


class ClientStopped(Exception):
    """Raised if the client was stopped before the command was answered: whether the command runs is unknown."""


@define(eq=False)
class LineClient:
    """A `ClientCore` that a reactor drives, with replies as Deferreds.

    Commands are lines as a person types them, replies are as the server writes them. Call `start` first and `stop`
    last.
    """

    _reactor: Any
    core: ClientCore
    """The protocol of the client, without sockets. Its callbacks report new connections, events and the session's end.
    """
    _driver: TwistedDriver = field(init=False)

    @_driver.default
    def _make_driver(self) -> TwistedDriver:
        return TwistedDriver(self._reactor, self.core)

    def start(self) -> None:
        """Connect to the first server that can be reached."""
        self._driver.start()

    def command(self, line: str) -> Deferred[Reply]:
        """Send a command, as a line without a number. The Deferred fires with the reply, which may be an error.

        Fails with `ClientStopped` if the client is stopped before the reply.
        """
        return self.send(line)[0]

    def send(self, line: str) -> tuple[Deferred[Reply], Command]:
        """Send a command as `command` does. Returns the Deferred of the reply, and the command, whose `fate` says
        whether it may have run if there is no reply."""
        answered: Deferred[Reply] = Deferred()

        def heard(reply: Reply) -> None:
            if answered.called:
                return  # the command was given up
            if reply.code == "CLOSED":
                answered.errback(ClientStopped(line))
            else:
                answered.callback(reply)

        command = self.core.submit(line, heard, self._driver.now)
        self._driver.act()
        return answered, command

    def stop(self) -> Deferred[None]:
        """Close the session, if the client is connected to a server, and the connection.

        The Deferred fires when that is done.
        """
        return self._driver.stop()
