"""Lines of the chat that have come for one listener, until the program takes them; without an event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field

from pfsb.client.clerks.calls import ChatLine
from pfsb.client.clerks.errors import ClerkError, Closed
from pfsb.client.clerks.listening import Listener

LINES_MAX: Final = 1_000
"""Maximum number of lines that a buffer keeps until the program takes them. Further lines are refused; when the program
has taken those that are kept, the clerk asks a server to repeat the others."""


def _ignore() -> None:
    """Do nothing: the default of a callback."""


@define(eq=False)
class LineBuffer:
    """Keeps the lines of one listener, and the error that has ended its listening.

    An iterator takes the lines out of the buffer. The buffer does not refer to the iterator: so Python frees an
    iterator that the program has dropped, and the iterator ends the listening then.
    """

    first: int | None
    _catch_up: Callable[[Listener], None]
    """Function that is called with the listener when the buffer is empty: if it has refused a line, it has room
    again."""
    _stop: Callable[[Listener], None]
    """Function that is called with the listener when no more lines are wanted."""
    on_news: Callable[[], None] = _ignore
    """Called when a line has come, or the listening has ended."""
    on_begun: Callable[[], None] = _ignore
    """Called when a server has accepted LISTEN, or the listening has ended."""
    listener: Listener = field(init=False)
    error: ClerkError | None = field(init=False, default=None)
    _lines: deque[ChatLine] = field(init=False, factory=deque)

    @listener.default
    def _make_listener(self) -> Listener:
        return Listener(self.first, self._deliver, self._fail, self._begin)

    def take(self) -> ChatLine | None:
        """The next line; None if there is none at present. If no line is left and the listening has ended, raises the
        error that has ended it."""
        if self._lines:
            return self._lines.popleft()
        if self.error is not None:
            raise self.error
        self._catch_up(self.listener)
        return None

    def close(self) -> None:
        """Stop listening: lines that have come can still be taken, and then `take` raises `Closed`."""
        self._fail(Closed("this program listens no more", "CLOSED", "none"))
        self._stop(self.listener)

    def _deliver(self, line: ChatLine) -> bool:
        if len(self._lines) >= LINES_MAX:
            return False
        self._lines.append(line)
        self.on_news()
        return True

    def _fail(self, error: ClerkError) -> None:
        self.error = self.error or error
        self.on_news()
        self.on_begun()

    def _begin(self) -> None:
        self.on_begun()
