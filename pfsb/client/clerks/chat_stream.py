"""The chat as an asynchronous iterator over its lines, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Final

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import Closed
from pfsb.client.clerks.line_buffer import LineBuffer

LINES_MAX: Final = 1_000
"""Maximum number of lines that a stream keeps until the program reads them. Further lines are dropped; when the program
has read those that are kept, the clerk asks a server to repeat the dropped ones."""


class ChatStream:
    """An asynchronous iterator over lines of the chat, which gives each line once, in order.

    The iteration ends when the clerk is closed, after `aclose`, and at the end of an `async with` block. A stream that
    the program has dropped, as after a `break` out of `async for line in clerk.listen()`, stops listening, too. A task
    that is cancelled while it waits for a line loses none: the next task that asks gets the line.
    """

    def __init__(self, buffer: LineBuffer, loop: asyncio.AbstractEventLoop) -> None:
        self._buffer = buffer
        self._news = asyncio.Event()
        self._begun = asyncio.Event()
        # Methods of the events, not of this stream: otherwise the clerk would keep a dropped stream.
        buffer.on_news, buffer.on_begun = self._news.set, self._begun.set
        self._dropped = weakref.finalize(self, _close_in_loop, buffer, loop)
        self._dropped.atexit = False

    def __aiter__(self) -> ChatStream:
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

    async def __aenter__(self) -> ChatStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def begun(self) -> None:
        """Wait until a server has accepted LISTEN: no line that is added to the chat after that is missed.

        Raises the `ClerkError` that has ended the stream, if it has ended before.
        """
        await self._begun.wait()
        if self._buffer.error is not None:
            raise self._buffer.error

    async def aclose(self) -> None:
        """Stop listening."""
        if self._dropped.detach() is not None:
            self._buffer.close()


def _close_in_loop(buffer: LineBuffer, loop: asyncio.AbstractEventLoop) -> None:
    """Close the buffer in the thread of its loop, since Python may drop a stream in any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, and the clerk with it
        loop.call_soon_threadsafe(buffer.close)
