"""The order in which callers learn that their writes are on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.python.failure import Failure


@define(eq=False)
class Acknowledgements:
    """Calls back in the order of the syncs, each when its write and all earlier ones are on disk.

    Writes are numbered from 1 in the order in which they were asked for. Lives in the reactor's thread.
    """

    _failed: Callable[[Failure], None]
    _asked: deque[tuple[int, Callable[[], None]]] = field(factory=deque)
    _newest: int = 0
    _durable: int = 0

    def new_write(self) -> int:
        self._newest += 1
        return self._newest

    @property
    def all_reached(self) -> bool:
        """No write is under way."""
        return self._durable == self._newest

    def wait(self, durable: Callable[[], None]) -> bool:
        """Call `durable` when the newest write is on disk; True if it is already, so that `release` is due."""
        self._asked.append((self._newest, durable))
        return self.all_reached

    def reached(self, write: int) -> None:
        self._durable = write
        self.release()

    def release(self) -> None:
        """Call those whose time has come.

        What they ask for in turn waits for the next call, so that a chain of empty syncs cannot hold the reactor.
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
        """Nobody is called any more."""
        self._asked.clear()
