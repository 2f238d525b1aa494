"""The chat as an asynchronous iterator over its lines, for coroutines of Twisted."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from pfsb.client.clerks.chat_lines import LineIterator
from pfsb.client.clerks.line_buffer import LineBuffer


@define(eq=False)
class _News:
    """The Deferreds of those coroutines that wait until a line has come, or the listening has ended."""

    _waiters: list[Deferred[None]] = field(factory=list)

    def clear(self) -> None:
        """Do nothing: each coroutine waits only for lines that come after its call of `wait`."""

    def wait(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def set(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:  # a waiter that was cancelled has been called already
                waiter.callback(None)


class TwistedChat(LineIterator):
    """An asynchronous iterator over lines of the chat, which gives each line once, in order.

    The iteration ends when the clerk is closed, after `stop`, and at the end of an `async with` block. An iterator that
    the program has dropped, as after a `break` out of `async for line in clerk.listen()`, stops listening, too. A
    coroutine whose Deferred is cancelled while it waits for a line loses none: the next coroutine that asks gets the
    line.
    """

    def __init__(self, buffer: LineBuffer, reactor: Any) -> None:
        super().__init__(buffer, _News(), reactor.callFromThread)

    def stop(self) -> None:
        """Stop listening to the chat."""
        self._end()
