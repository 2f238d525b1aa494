"""The chat as an asynchronous iterator over its lines, for coroutines of Twisted."""

from __future__ import annotations

import weakref
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import Closed
from pfsb.client.clerks.line_buffer import LineBuffer

LINES_MAX: Final = 1_000
"""Maximum number of lines that an iterator keeps until the program reads them. Further lines are dropped, and repeated
by a server when the program has read those that are kept."""


@define(eq=False)
class _Waiters:
    """The Deferreds of those coroutines that wait until a line has come, or the listening has begun or ended."""

    _all: list[Deferred[None]] = field(factory=list)

    def wait(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._all.append(waiter)
        return waiter

    def fire(self) -> None:
        waiters, self._all = self._all, []
        for waiter in waiters:
            if not waiter.called:  # one that was cancelled has been called
                waiter.callback(None)


class TwistedChat:
    """An asynchronous iterator over lines of the chat, which gives each line once, in order.

    The iteration ends when the clerk is closed, after `stop`, and at the end of an `async with` block. An iterator that
    the program has dropped, as after a `break` out of `async for line in clerk.listen()`, stops listening, too. A
    coroutine whose Deferred is cancelled while it waits for a line loses none: the next coroutine that asks gets the
    line.
    """

    def __init__(self, buffer: LineBuffer, reactor: Any) -> None:
        self._buffer = buffer
        self._news = _Waiters()
        # A method of the waiters, not of this iterator: otherwise the clerk would keep a dropped iterator.
        buffer.on_news = self._news.fire
        # Python may drop an iterator in any thread.
        self._dropped = weakref.finalize(self, reactor.callFromThread, buffer.close)
        self._dropped.atexit = False

    def __aiter__(self) -> TwistedChat:
        return self

    async def __anext__(self) -> ChatLine:
        while True:
            try:
                line = self._buffer.take()
            except Closed:
                raise StopAsyncIteration from None
            if line is not None:
                return line
            await self._news.wait()

    async def __aenter__(self) -> TwistedChat:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening."""
        if self._dropped.detach() is not None:
            self._buffer.close()
