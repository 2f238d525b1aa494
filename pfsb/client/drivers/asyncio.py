"""The driver of the client's core for an asyncio event loop."""

from __future__ import annotations

import asyncio
import os
import ssl
import weakref
from typing import Final, cast

from attrs import define, field

from pfsb.client.core.actions import Connect, Driven, HangUp, Send, send_together
from pfsb.client.core.addresses import CONNECT_SECONDS, ServerAddress

_wires: Final[weakref.WeakSet[_Wire]] = weakref.WeakSet()
"""The connections of this process."""


@define(eq=False)
class AsyncioDriver:
    """Keeps one connection at a time and one timer for a core. `act` must be called after each call of the core."""

    _core: Driven
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Event = field(init=False, factory=asyncio.Event)
    """An event that is set when the core has stopped."""
    _wire: _Wire | None = field(init=False, default=None)
    _connecting: asyncio.Task[None] | None = field(init=False, default=None)
    _attempt: int = field(init=False, default=0)
    """A count that goes up when an attempt to connect begins, and when the core hangs up. A connection whose attempt
    began at a lower count is not wanted any more."""
    _timer: asyncio.TimerHandle | None = field(init=False, default=None)

    @property
    def now(self) -> float:
        """The time of the event loop's clock, in seconds."""
        return self.loop.time()

    def start(self) -> None:
        """Start the core: it connects to its first server."""
        self._core.start(self.now)
        self.act()

    async def stop(self) -> None:
        """Stop the core: it closes the session by BYE, if a server has answered HELLO, and then closes the connection.

        Returns when the core has stopped.
        """
        self._core.stop(self.now)
        self.act()
        await self.ended.wait()

    def act(self) -> None:
        """Carry out the actions of the core, and set the timer."""
        while actions := self._core.take_actions():
            for action in send_together(actions):
                match action:
                    case Send(data):
                        if self._wire is not None:
                            self._wire.transport.write(data)
                    case Connect(address):
                        self._connect(address)
                    case HangUp(at_once):
                        self._hang_up(at_once)
        self._set_timer()
        if self._core.stopped:
            self.ended.set()

    def made(self, wire: _Wire) -> None:
        """Called by a connection when a server has accepted it: tells the core. Aborts the connection if the core does
        not want it any more."""
        if wire.attempt != self._attempt:
            wire.transport.abort()
            return
        self._connecting, self._wire = None, wire
        self._core.connected(self.now)
        self.act()

    def received(self, wire: _Wire, data: bytes) -> None:
        """Called by a connection when bytes have arrived: passes them to the core, unless the core has left this
        connection."""
        if wire is self._wire:
            self._core.received(data, self.now)
            self.act()

    def lost(self, wire: _Wire, error: Exception | None) -> None:
        """Called by a connection when it has ended: tells the core, with the reason, unless the core has left this
        connection."""
        if wire is self._wire:
            self._wire = None
            self._core.lost(str(error or "the server has closed the connection"), self.now)
            self.act()

    def _connect(self, address: ServerAddress) -> None:
        self._attempt += 1
        self._connecting = self.loop.create_task(self._try(address, self._attempt))

    async def _try(self, address: ServerAddress, attempt: int) -> None:
        """Connect to a server. `attempt` is the count `_attempt` when this attempt began: if the count has gone up
        meanwhile, the connection is not wanted any more. A new connection calls `made`, before its first bytes
        arrive."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                match address.place:
                    case (host, port):
                        context = _context(address)
                        await self.loop.create_connection(lambda: _Wire(self, attempt), host, port, ssl=context)
                    case path:
                        await self.loop.create_unix_connection(lambda: _Wire(self, attempt), str(path))
        except (OSError, ValueError, OverflowError) as error:  # the last two: no socket takes the address
            if attempt == self._attempt and self._wire is None:
                self._connecting = None
                self._core.lost(str(error) or "it does not take the connection", self.now)
                self.act()

    def _hang_up(self, at_once: bool) -> None:
        connecting, self._connecting = self._connecting, None
        wire, self._wire = self._wire, None
        self._attempt += 1
        if connecting is not None:
            connecting.cancel()
        if wire is not None:
            if at_once:
                wire.transport.abort()
            else:
                wire.transport.close()

    def _set_timer(self) -> None:
        """Make the timer fire at the core's `wake_at` or earlier.

        An early call of the core's `woken` does nothing, and most deadlines are put off before they come: keeping a
        timer that fires early saves setting a new one for each command.
        """
        at, timer = self._core.wake_at, self._timer
        if timer is not None and (at is None or timer.when() > at):
            timer.cancel()
            self._timer = timer = None
        if at is not None and timer is None:
            self._timer = self.loop.call_at(at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._core.woken(self.now)
        self.act()


def _context(address: ServerAddress) -> ssl.SSLContext | None:
    """The TLS context for a server; None: the server does not speak TLS. Raises OSError if the file of the authority
    cannot be used."""
    if not address.tls:
        return None
    try:
        return ssl.create_default_context(cafile=address.authority)
    except OSError as error:
        raise OSError(f"{address.authority}: {error.strerror or error}") from None


@define(eq=False, slots=False)
class _Wire(asyncio.Protocol):
    """Passes the events of one connection to the driver."""

    _driver: AsyncioDriver
    attempt: int
    transport: asyncio.Transport = field(init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        _wires.add(self)
        self._driver.made(self)

    def data_received(self, data: bytes) -> None:
        self._driver.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        _wires.discard(self)
        self._driver.lost(self, exc)


def _leave_connections_to_parent() -> None:
    """Called in a child of `fork`: closes the child's copies of its parent's connections.

    A server sees a connection as long as any process has it open. So a child would keep the session, and the locks, of
    a parent that was killed. The file descriptors of the connections are not freed, but opened on the null device:
    objects of the parent that Python collects in the child close these numbers, and must not close a file of the child.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for wire in list(_wires):
        found = wire.transport.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            os.dup2(nothing, found.fileno(), inheritable=False)
    os.close(nothing)
    _wires.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
