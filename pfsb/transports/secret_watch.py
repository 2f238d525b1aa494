"""Takes the secrets of a file that has changed while the server runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

LOOK_SECONDS: Final = 1.0
"""Time, in seconds, between two looks at the file."""


@define(eq=False)
class SecretWatch:
    """Looks at a file of secrets once a second, and passes its secrets on when they have changed.

    A file that cannot be used changes nothing; the log says so once.
    """

    log = Logger()

    _clock: IReactorTime
    _path: str
    _read: Callable[[], Sequence[bytes] | str]
    """Reads the file: the secrets, or a text that says why they cannot be used."""
    _take: Callable[[Sequence[bytes]], object]
    """Called with the secrets of the file when they have changed."""
    _secrets: Sequence[bytes]
    """The secrets in use."""
    _seen: tuple[int, ...] = field(init=False, default=())
    _call: IDelayedCall | None = field(init=False, default=None)

    def start(self) -> None:
        """Begin to look at the file."""
        self._look()

    def stop(self) -> None:
        """Stop looking at the file."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = self._clock.callLater(LOOK_SECONDS, self._look)
        seen = _stamp(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        found = self._read()
        if isinstance(found, str):
            self.log.error("{error}; the secrets that were read before stay in use", error=found)
        elif list(found) != list(self._secrets):
            self._secrets = found
            self._take(found)
            self.log.info(
                "the secrets were read again: frames are sent by the first of {count}, and taken by each",
                count=len(found),
            )


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
