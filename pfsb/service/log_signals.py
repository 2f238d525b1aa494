"""SIGHUP and SIGUSR1 of a server's process: from its first moment on, long before there is a log to reopen, they do not
end it. This module imports nothing that takes time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final


def _do_nothing() -> None:
    """Stands for a function that is not known yet: during the start there is no log, and there are no tokens."""


def _end_process() -> None:
    """End the process as SIGHUP does where no program has taken the signal."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGHUP)


class LogSignals:
    """Handles the signals that programs send to this process so that it reopens its log."""

    def __init__(self) -> None:
        self.reopen: Callable[[], None] = _do_nothing
        """Called at SIGHUP."""
        self.rotate: Callable[[], None] = _do_nothing
        """Called at SIGUSR1."""
        self.hung_up: Callable[[], None] = _end_process
        """Called at a SIGHUP that tells that the terminal of this process was closed."""
        self._terminals: list[int] = []
        """File descriptors, out of 0, 1 and 2, that were a terminal when `take` was called."""

    def take(self) -> None:
        """From now on, let SIGHUP and SIGUSR1 call the functions of this object, instead of ending the process.

        A server whose terminal was closed gets SIGHUP, too, and nothing can stop it from there any more: so `hung_up`
        is called then, unless SIGHUP was ignored before, as under `nohup`.
        """
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._terminals = [number for number in range(3) if os.isatty(number)]
        signal.signal(signal.SIGHUP, self._take_hangup)
        signal.signal(signal.SIGUSR1, self._take_rotation)

    def leave_terminal(self) -> None:
        """Called when the process has gone into the background: it has no terminal that could be closed."""
        self._terminals = []

    def _take_hangup(self, *_: object) -> None:
        self.reopen()
        if any(not os.isatty(number) for number in self._terminals):
            self._terminals = []
            self.hung_up()

    def _take_rotation(self, *_: object) -> None:
        self.rotate()


LOG_SIGNALS: Final = LogSignals()
"""The signals of this process. There is one object of this class, since a process has one handler for each signal."""
