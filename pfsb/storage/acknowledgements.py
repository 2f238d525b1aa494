"""Calls the callbacks of `IStableStorage.sync` in the order of the calls, each when the records of its call are on
disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.python.failure import Failure


@define(eq=False)
class Acknowledgements:
    """The callbacks of a storage's `sync` calls, each of which waits for one numbered write.

    A write is the records that one `sync` hands to the disk. Writes are numbered from 1, in the order in which they are
    handed to the disk and reach it. Each callback is called, in the order of the syncs, when its write and all earlier
    writes are on disk. A sync without new records waits for the newest write so far: the turn that asks for the sync
    may depend on those records, so the messages of that turn must not leave before they are on disk. This class is used
    in the reactor's thread only.
    """

    _failed: Callable[[Failure], None]
    _asked: deque[tuple[int, Callable[[], None]]] = field(factory=deque)
    _newest: int = 0
    _durable: int = 0

    def new_write(self) -> int:
        """Count one more write, which is handed to the disk now; returns its number."""
        self._newest += 1
        return self._newest

    @property
    def all_reached(self) -> bool:
        """Whether all writes that were handed to the disk are on it."""
        return self._durable == self._newest

    def wait(self, durable: Callable[[], None]) -> bool:
        """Have `durable` called, once, when the newest write is on disk.

        Returns True if that write is on disk already: then the caller must see to it that `release`, which calls
        `durable`, is called soon.
        """
        self._asked.append((self._newest, durable))
        return self.all_reached

    def reached(self, write: int) -> None:
        """Called when the write with number `write` and all before it are on disk; calls the callbacks that wait for
        them."""
        self._durable = write
        self.release()

    def release(self) -> None:
        """Call the callbacks of all syncs whose writes are on disk.

        A sync that one of these callbacks asks for is left to the next call of this method, so that a chain of empty
        syncs cannot keep the reactor busy for ever.
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
        """Drop all callbacks without calling them, since the storage has stopped."""
        self._asked.clear()
