"""The command that starts a server in the background ends when the server is up, or has failed, and says which."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

BEGIN = "import os, sys; from pfsb.service.daemon import go_into_background; daemon = go_into_background('my.log'); "
SECONDS = 60


class DaemonTests(SynchronousTestCase):
    def run_program(self, source: str) -> tuple[int, str]:
        """Run a program that goes into the background. Returns exit status and standard error of the command."""
        found = subprocess.run(
            [sys.executable, "-c", BEGIN + source], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        return found.returncode, found.stderr

    def test_server_that_is_up_ends_the_command(self) -> None:
        """The command ends when the server in the background is up. It shows text from before that, and not later
        text."""
        source = (
            "sys.stderr.write('a warning\\n'); sys.stderr.flush(); daemon.report_up(); daemon.report_up(); "
            "sys.stderr.write('later\\n'); sys.stderr.flush(); assert os.getsid(0) != os.getpid()"
        )
        self.assertEqual(self.run_program(source), (0, "a warning\n"))

    def test_failure_is_told_in_the_terminal(self) -> None:
        """A start that fails is reported in the terminal with exit status 1, also with more text than a pipe takes at
        once."""
        self.assertEqual(self.run_program("sys.exit('pfsb: no room')"), (1, "pfsb: no room\n"))
        status, text = self.run_program("sys.exit('x' * 300_000)")
        self.assertEqual((status, len(text)), (1, 300_001))

    def test_server_that_is_killed_before_it_is_up_keeps_no_command_waiting(self) -> None:
        """If the server is killed before it is up, as by the kernel when memory is short, the command does not go on
        waiting."""
        status, text = self.run_program("os.kill(os.getpid(), 9)")
        self.assertEqual((status, text), (1, "pfsb: the server has ended before it was up; my.log may say why\n"))
