"""The chat as an asynchronous iterator over its lines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import ClerkError, Closed
from pfsb.client.clerks.listening import Listener

LINES_MAX: Final = 1_000
"""Maximum number of lines that a stream keeps until the program reads them. Further lines are asked for again later."""


class ChatStream:
    """An asynchronous iterator over lines of the chat, which gives each line once, in order. It ends when the clerk is
    closed, or after `aclose`."""

    def __init__(
        self, first: int | None, catch_up: Callable[[Listener], None], stop: Callable[[Listener], None]
    ) -> None:
        self.listener = Listener(first, self._deliver, self._fail, self._begin)
        self._catch_up = catch_up
        self._stop = stop
        self._lines: deque[ChatLine] = deque()
        self._error: ClerkError | None = None
        self._news = asyncio.Event()
        self._begun = asyncio.Event()

    def __aiter__(self) -> ChatStream:
        return self

    async def __anext__(self) -> ChatLine:
        while not self._lines:
            if self._error is not None:
                self._end()
            self._catch_up(self.listener)
            self._news.clear()
            await self._news.wait()
        return self._lines.popleft()

    async def begun(self) -> None:
        """Wait until a server has accepted LISTEN: no line that is added to the chat after that is missed.

        Raises the `ClerkError` that has ended the stream, if it has ended before.
        """
        await self._begun.wait()
        if isinstance(self._error, ClerkError):
            raise self._error

    async def aclose(self) -> None:
        """Stop listening."""
        self._fail(Closed("nobody listens any more", "CLOSED", "none"))
        self._stop(self.listener)

    def _end(self) -> None:
        if isinstance(self._error, Closed):
            raise StopAsyncIteration
        assert self._error is not None
        raise self._error

    def _deliver(self, line: ChatLine) -> bool:
        if len(self._lines) >= LINES_MAX:
            return False
        self._lines.append(line)
        self._news.set()
        return True

    def _fail(self, error: ClerkError) -> None:
        self._error = self._error or error
        self._news.set()
        self._begun.set()

    def _begin(self) -> None:
        self._begun.set()
