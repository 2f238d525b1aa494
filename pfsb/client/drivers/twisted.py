"""The driver of the client's core for a Twisted reactor."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pfsb.client.core.actions import Connect, Driven, HangUp, Send, send_together
from pfsb.client.core.addresses import ServerAddress
from pfsb.client.drivers.endpoints import client_endpoint


@define(eq=False)
class TwistedDriver:
    """Keeps one connection at a time and one timer for a core. `act` must be called after each call of the core."""

    _reactor: Any
    _core: Driven
    ended: Deferred[None] = field(init=False, factory=Deferred)
    """A Deferred that fires when the core has stopped."""
    _wire: _Wire | None = field(init=False, default=None)
    _connecting: Deferred[Any] | None = field(init=False, default=None)
    _timer: IDelayedCall | None = field(init=False, default=None)

    @property
    def now(self) -> float:
        """The time of the reactor's clock, in seconds."""
        seconds: float = self._reactor.seconds()
        return seconds

    def start(self) -> None:
        """Start the core: it connects to its first server."""
        self._core.start(self.now)
        self.act()

    def stop(self) -> Deferred[None]:
        """Stop the core: it closes the session by BYE, if a server has answered HELLO, and then closes the connection.

        The Deferred fires when the core has stopped.
        """
        self._core.stop(self.now)
        self.act()
        return self.ended

    def act(self) -> None:
        """Carry out the actions of the core, and set the timer."""
        while actions := self._core.take_actions():
            for action in send_together(actions):
                match action:
                    case Send(data):
                        self._write(data)
                    case Connect(address):
                        self._connect(address)
                    case HangUp(at_once):
                        self._hang_up(at_once)
        self._set_timer()
        if self._core.stopped and not self.ended.called:
            self.ended.callback(None)

    def received(self, wire: _Wire, data: bytes) -> None:
        """Called by a connection when bytes have arrived: passes them to the core, unless the core has left this
        connection."""
        if wire is self._wire:
            self._core.received(data, self.now)
            self.act()

    def lost(self, wire: _Wire, reason: Failure) -> None:
        """Called by a connection when it has ended: tells the core, with the reason, unless the core has left this
        connection."""
        if wire is self._wire:
            self._wire = None
            self._core.lost(reason.getErrorMessage(), self.now)
            self.act()

    def _write(self, data: bytes) -> None:
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.write(data)

    def _connect(self, address: ServerAddress) -> None:
        wire = _Wire(self)
        endpoint = client_endpoint(self._reactor, address)
        connecting = self._connecting = endpoint.connect(Factory.forProtocol(lambda: wire))
        connecting.addCallbacks(self._connected, self._cannot_connect)

    def _connected(self, wire: _Wire) -> None:
        self._connecting, self._wire = None, wire
        self._core.connected(self.now)
        self.act()

    def _cannot_connect(self, reason: Failure) -> None:
        if self._connecting is not None:
            self._connecting = None
            self._core.lost(reason.getErrorMessage(), self.now)
            self.act()

    def _hang_up(self, at_once: bool) -> None:
        connecting, self._connecting = self._connecting, None
        wire, self._wire = self._wire, None
        if connecting is not None:
            connecting.cancel()
        transport: Any = wire.transport if wire is not None else None
        if transport is not None:
            transport.loseConnection()
            if at_once:
                transport.abortConnection()

    def _set_timer(self) -> None:
        """Make the timer fire at the core's `wake_at` or earlier.

        An early call of the core's `woken` does nothing, and most deadlines are put off before they come: keeping a
        timer that fires early saves setting a new one for each command.
        """
        at, timer = self._core.wake_at, self._timer
        if timer is not None and (at is None or timer.getTime() > at):
            timer.cancel()
            self._timer = timer = None
        if at is not None and timer is None:
            self._timer = self._reactor.callLater(max(0.0, at - self.now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._core.woken(self.now)
        self.act()


@define(eq=False, slots=False)
class _Wire(Protocol):
    """Passes the events of one connection to the driver."""

    _driver: TwistedDriver

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self._driver.received(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._driver.lost(self, reason)
