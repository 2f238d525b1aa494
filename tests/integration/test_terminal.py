"""`pfsb client` in a real pseudo-terminal, whose settings it changes and must restore."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path
from random import SystemRandom

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pfsb.demo.processes import write_config
from tests.long import long

SECONDS = 20.0


@long
class SettingsTests(TestCase):
    """The settings of the terminal while no server runs: the client tries to reach one, and its prompt says so."""

    timeout = 60

    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        write_config(directory / "pfsb.yaml", 3, SystemRandom())
        self.terminal, end = os.openpty()
        self.addCleanup(os.close, self.terminal)
        self.settings = termios.tcgetattr(end)
        self.addCleanup(os.close, end)
        self.end = end
        program = [sys.executable, str(Path(sys.executable).with_name("pfsb")), "client"]
        home = {**os.environ, "HOME": str(directory), "TERM": "xterm-256color"}
        self.client = subprocess.Popen(program, cwd=directory, stdin=end, stdout=end, stderr=end, env=home)
        self.addCleanup(self.client.wait)
        self.addCleanup(self.client.kill)
        os.set_blocking(self.terminal, False)
        self.said = bytearray()

    async def says(self, text: bytes) -> None:
        while text not in self.said:
            with contextlib.suppress(BlockingIOError):
                self.said.extend(os.read(self.terminal, 65_536))
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def test_sigterm_restores_the_settings(self) -> None:
        """SIGTERM restores the settings of the terminal; otherwise the shell would show nothing of what is typed
        next."""
        await self.says(b"no server>")
        self.assertNotEqual(termios.tcgetattr(self.end), self.settings)
        self.client.send_signal(signal.SIGTERM)
        await deferToThread(self.client.wait, SECONDS)
        self.assertEqual(termios.tcgetattr(self.end), self.settings)

    async def test_ctrl_c_and_end_of_input(self) -> None:
        """Ctrl-C drops a line, and only the end of the input ends the program, with exit status 0."""
        await self.says(b"no server>")
        self.assertIn(b"no server can be reached: servers 0 (", self.said)
        del self.said[:]
        os.write(self.terminal, b"x")
        await self.says(b"x")
        del self.said[:]
        os.write(self.terminal, b"\x03")
        await self.says(b"no server>")
        os.write(self.terminal, b"\x04")
        self.assertEqual(await deferToThread(self.client.wait, SECONDS), 0)
        self.assertEqual(termios.tcgetattr(self.end), self.settings)
