"""The chat as an asynchronous iterator over its lines, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from pfsb.client.clerks.chat_lines import LineIterator
from pfsb.client.clerks.line_buffer import LineBuffer


class ChatStream(LineIterator):
    """An asynchronous iterator over lines of the chat, which gives each line once, in order.

    The iteration ends when the clerk is closed, after `aclose`, and at the end of an `async with` block. A stream that
    the program has dropped, as after a `break` out of `async for line in clerk.listen()`, stops listening, too. A task
    that is cancelled while it waits for a line loses none: the next task that asks gets the line.
    """

    def __init__(self, buffer: LineBuffer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(buffer, asyncio.Event(), partial(_call_in, loop))
        self._begun = asyncio.Event()
        buffer.on_begun = self._begun.set

    async def begun(self) -> None:
        """Wait until a server has accepted LISTEN: no line that is added to the chat after that is missed.

        Raises the `ClerkError` that has ended the stream, if it has ended before.
        """
        await self._begun.wait()
        if self._buffer.error is not None:
            raise self._buffer.error

    async def aclose(self) -> None:
        """Stop listening to the chat."""
        self._end()


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop is closed, and with it the clerk
        loop.call_soon_threadsafe(function)
