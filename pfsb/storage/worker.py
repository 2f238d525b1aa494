"""StorageThread: the part that all threads of a storage share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from threading import Thread
from typing import ClassVar

from attrs import define, field
from twisted.python.failure import Failure


@define(eq=False)
class StorageThread:
    """A thread of a storage. The first exception ends it, and is passed, in the thread, to the function that its owner
    has given for failures.

    The thread does not keep the process alive, since its disk may never answer.
    """

    thread_name: ClassVar[str]
    """The name under which the operating system's tools show the thread."""
    _failed: Callable[[Failure], None]
    _thread: Thread = field(init=False)

    def start(self) -> None:
        self._thread = Thread(target=self._run, name=self.thread_name, daemon=True)
        self._thread.start()

    def has_stopped(self, timeout_seconds: float) -> bool:
        """Wait for the end of the thread, at most `timeout_seconds`. Returns whether the thread has ended."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @abstractmethod
    def work(self) -> None:
        """Do all work of the thread, which ends when this method returns."""

    def _run(self) -> None:
        try:
            self.work()
        except Exception:
            self._failed(Failure())
