"""SIGHUP and SIGUSR1 end no server, from the first moment of its process on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from pfsb.service.log_signals import LogSignals

SECONDS = 60.0

LOOK = """
import sys
from pfsb.service import log_signals, start

log_signals.LOG_SIGNALS.take = lambda: print(sorted(name for name in sys.modules if name.startswith("pfsb.")))
start.Options()
"""

RAISE = """
import os, signal, sys
from pfsb.service.log_signals import LOG_SIGNALS

terminal, end = os.openpty()
os.dup2(end, 0)
os.close(end)
LOG_SIGNALS.take()
signal.raise_signal(signal.SIGUSR1)
signal.raise_signal(signal.SIGHUP)
print("goes on", flush=True)
if sys.argv[1] == "closed":
    os.close(terminal)
if sys.argv[1] == "left":
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    LOG_SIGNALS.leave_terminal()
signal.raise_signal(signal.SIGHUP)
print("ends", flush=True)
"""


def run(program: str, *words: str) -> tuple[int, str]:
    """Run a program of Python. Returns its exit status and its output."""
    found = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return found.returncode, found.stdout


class LogSignalsTests(SynchronousTestCase):
    def test_signals_are_taken_before_the_server_is_imported(self) -> None:
        """`twistd pfsb` takes the signals before it imports the server, which takes a second on a small machine."""
        self.assertEqual(run(LOOK), (0, "['pfsb.service', 'pfsb.service.log_signals', 'pfsb.service.start']\n"))

    def test_signals_before_there_is_a_log_do_nothing(self) -> None:
        """A process that has no log yet goes on, while its terminal is there."""
        self.assertEqual(run(RAISE, "open"), (0, "goes on\nends\n"))

    def test_terminal_that_is_closed_during_the_start_ends_the_process(self) -> None:
        """If the terminal is closed before the server is there, the process ends, as without a handler."""
        self.assertEqual(run(RAISE, "closed"), (-signal.SIGHUP, "goes on\n"))

    def test_process_in_the_background_has_no_terminal_that_could_be_closed(self) -> None:
        """A process that was started at a terminal, and has left it, only reopens its log at SIGHUP."""
        self.assertEqual(run(RAISE, "left"), (0, "goes on\nends\n"))

    def test_signals_call_the_functions_that_are_given(self) -> None:
        """Once there is a log, SIGHUP reopens it, and SIGUSR1 rotates it."""
        for number in (signal.SIGHUP, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        signals, told = LogSignals(), list[str]()
        signals.take()
        signals.reopen, signals.rotate = lambda: told.append("reopen"), lambda: told.append("rotate")
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(told, ["reopen", "rotate"])
