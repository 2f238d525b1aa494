"""A client of lines for the command line: each command runs once, whichever server answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from pfsb.client.core.actions import SessionEnd
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.core.client_core import WINDOW, ClientCore, new_client_id
from pfsb.client.core.replies import EventLine, Reply
from pfsb.client.core.timeouts import RESPONSE_SECONDS, ResponseTimeout
from pfsb.client.drivers.twisted import TwistedDriver


class ClientStopped(Exception):
    """The client was stopped before the command was answered: what became of it is unknown."""


def _ignore(_what: object) -> None:
    pass


@define(eq=False)
class FailoverClient:
    """Takes lines as a person types them, and gives replies as the server writes them.

    Give it commands with `command`; begin with `start`, end with `stop`.
    """

    _reactor: Any
    _addresses: Sequence[ServerAddress]
    client_id: str = field(factory=new_client_id)
    window: int = WINDOW
    patience_seconds: float = RESPONSE_SECONDS
    on_event: Callable[[EventLine], None] = _ignore
    on_server: Callable[[ServerAddress], None] = _ignore
    """Told whenever another server has taken the connection."""
    on_session_end: Callable[[SessionEnd], None] = _ignore
    _dice: Random = field(factory=Random)
    _index: int = 0
    _core: ClientCore = field(init=False)
    _driver: TwistedDriver = field(init=False)

    @_core.default
    def _make_core(self) -> ClientCore:
        return ClientCore(
            self._addresses,
            client_id=self.client_id,
            window=self.window,
            response_timeout=ResponseTimeout(self.patience_seconds),
            on_event=lambda event: self.on_event(event),
            on_server=lambda address: self.on_server(address),
            on_session_end=lambda end: self.on_session_end(end),
            dice=self._dice,
            index=self._index,
        )

    @_driver.default
    def _make_driver(self) -> TwistedDriver:
        return TwistedDriver(self._reactor, self._core)

    @property
    def server(self) -> ServerAddress:
        """The one that it is at, or tries to be."""
        return self._core.server

    @property
    def is_connected(self) -> bool:
        return self._core.is_connected

    @property
    def retries(self) -> int:
        """Commands sent again so far."""
        return self._core.retries

    @property
    def last_trouble(self) -> str:
        """Why the last server was left, or could not be reached."""
        return self._core.last_trouble

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

        self._core.submit(line, heard, self._driver.now)
        self._driver.act()
        return answered

    def stop(self) -> Deferred[None]:
        """Close the session, if a server is there to be told, and the connection. Fires when that is done."""
        return self._driver.stop()
