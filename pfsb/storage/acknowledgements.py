"""The order in which callers learn that their writes are on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.python.failure import Failure


@define(eq=False)
class Acknowledgements:
    """Calls back in the order of the syncs, each when its write and all earlier writes are on disk.

    Writes are numbered from 1 in the order in which they were asked for, and reach the disk in that order. A sync that
    has nothing of its own to write waits for the newest write before it: its turn may have seen what that write holds,
    so its messages must not leave earlier. This class is used in the reactor's thread only.
    """

    _failed: Callable[[Failure], None]
    _asked: deque[tuple[int, Callable[[], None]]] = field(factory=deque)
    _newest: int = 0
    _durable: int = 0

    def new_write(self) -> int:
        """The number of a write that is asked for now."""
        self._newest += 1
        return self._newest

    @property
    def all_reached(self) -> bool:
        """True if no write is under way."""
        return self._durable == self._newest

    def wait(self, durable: Callable[[], None]) -> bool:
        """Call `durable` when the newest write is on disk; True if it is on disk already, so that `release` is due."""
        self._asked.append((self._newest, durable))
        return self.all_reached

    def reached(self, write: int) -> None:
        """The write with this number, and all before it, are on disk."""
        self._durable = write
        self.release()

    def release(self) -> None:
        """Call back for all syncs whose writes are on disk.

        Syncs that the callbacks ask for wait for the next call of this method, so that a chain of empty syncs cannot
        keep the reactor busy for ever.
        """
        ready = sum(1 for write, _ in self._asked if write <= self._durable)
        while ready and self._asked:
            ready -= 1
            _, durable = self._asked.popleft()
            try:
                durable()
            except Exception:
                self._failed(Failure())

    def forget(self) -> None:
        """Drop all callbacks: the storage has stopped."""
        self._asked.clear()
