"""The chat of a clerk with an event loop, whichever loop it is: listeners of the program, and iterators over lines."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

from attrs import define

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.clerk_core import ClerkCore
from pfsb.client.clerks.errors import Closed
from pfsb.client.clerks.line_buffer import LineBuffer
from pfsb.client.clerks.listening import Listener


class Driver(Protocol):
    """The driver of a clerk (`pfsb.client.drivers`), as far as the chat needs it."""

    @property
    def now(self) -> float:
        """The time by the clock of the driver's event loop, in seconds."""

    def act(self) -> None:
        """Carry out the actions of the clerk's core."""


class News(Protocol):
    """An event of an event loop: tells coroutines that something has come."""

    def clear(self) -> None:
        """Forget all calls of `set` so far."""

    def set(self) -> None:
        """Wake all coroutines that wait for this event."""

    def wait(self) -> Awaitable[object]:
        """Wait for a call of `set` that comes after the last `clear`."""


@define(eq=False)
class ClerkChat:
    """The chat of one clerk: each method tells the core of the clerk, and lets its driver act."""

    _core: ClerkCore
    _driver: Callable[[], Driver]
    """Function that returns the driver of the clerk. It raises a `ClerkError` where the clerk must not be used."""

    def __len__(self) -> int:
        """How many iterators and functions get lines of the chat at present."""
        return len(self._core.listeners)

    def listen(self, listener: Listener) -> None:
        driver = self._driver()
        self._core.listen(listener, driver.now)
        driver.act()

    def unlisten(self, listener: Listener) -> None:
        driver = self._driver()
        self._core.unlisten(listener, driver.now)
        driver.act()

    def catch_up(self, listener: Listener) -> None:
        driver = self._driver()
        self._core.catch_up(listener, driver.now)
        driver.act()

    def lines(self, first: int | None) -> LineBuffer:
        """Begin to listen from line number `first` on (None: from now on); returns the buffer that gets the lines."""
        buffer = LineBuffer(first, self.catch_up, self.unlisten)
        self.listen(buffer.listener)
        return buffer


class LineIterator:
    """An asynchronous iterator over the lines of one buffer, each once and in order.

    An iterator that the program has dropped, as after a `break` out of `async for`, stops listening.
    """

    def __init__(self, buffer: LineBuffer, news: News, call_in_loop: Callable[[Callable[[], None]], object]) -> None:
        """`call_in_loop` calls a function in the thread of the event loop: Python may drop an iterator in any
        thread."""
        self._buffer = buffer
        self._news = news
        # A method of the news, not of this iterator: otherwise the clerk would keep a dropped iterator.
        buffer.on_news = news.set
        self._dropped = weakref.finalize(self, call_in_loop, buffer.close)
        self._dropped.atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatLine:
        while True:
            self._news.clear()
            try:
                line = self._buffer.take()
            except Closed:
                raise StopAsyncIteration from None
            if line is not None:
                return line
            await self._news.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._dropped.detach() is not None:
            self._buffer.close()
