"""Tells people how far a long command is."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, TextIO

FIRST_SECONDS: Final = 1.0
"""How long, in seconds, a command takes before it tells how far it is."""
EVERY_SECONDS: Final = 0.5
"""Time, in seconds, from one line to the next."""


class Progress:
    """Shows at a terminal how far a command is, in a line that is written anew; elsewhere nothing is shown."""

    def __init__(self, what: str, stream: TextIO, seconds: Callable[[], float]) -> None:
        """`seconds` is the clock, as that of a reactor."""
        self._what = what
        self._stream = stream
        self._seconds = seconds
        self._next = seconds() + FIRST_SECONDS
        self._is_shown = False
        self._is_terminal = stream.isatty()

    def __call__(self, done: int, of: int) -> None:
        if self._is_terminal and self._seconds() >= self._next:
            self._next = self._seconds() + EVERY_SECONDS
            self._is_shown = True
            self._stream.write(f"\r\x1b[K{done} of {of} {self._what}")
            self._stream.flush()

    def clear(self) -> None:
        """Take the line away, before something else is written."""
        if self._is_shown:
            self._is_shown = False
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
