"""Background: a thread that writes files for the reactor, so that the reactor never waits for their disk.

The text log and `chat.log` may be on the disk of the data. When that disk hangs, a write in the reactor's thread would
stop the server: it could tell neither its clients nor the other servers that its disk hangs (Departure 44).
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from attrs import define, field


@define(eq=False)
class Background:
    """Makes calls one after the other, in a thread of its own, which the first call starts."""

    _name: str
    """The name of the thread, for those who debug."""
    _calls: SimpleQueue[Callable[[], None] | None] = field(factory=SimpleQueue, init=False)
    _thread: Thread | None = field(default=None, init=False)

    def call(self, function: Callable[[], None]) -> None:
        """Have `function`, which must not raise, called in the thread, behind all earlier calls."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(function)

    def finish(self, timeout_seconds: float) -> bool:
        """Wait until all calls so far are made, but no longer than `timeout_seconds`, and end the thread.

        Returns False if a call is still under way then, as it is while its disk hangs.
        """
        if self._thread is None:
            return True
        self._calls.put(None)
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            function()
