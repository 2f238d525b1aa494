"""A pid file of the past does not keep a server from starting; that of a running one does."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.service.pid_file import PidFile, remove_stale


class PidFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def test_file_that_nobody_holds_is_removed(self) -> None:
        """A pid file that no running server holds is removed: it is empty after a loss of power, or has the number of a
        program that runs now, as in a container."""
        for content in ("", "no number", "999999999", str(os.getpid()), "1"):
            self.path.write_text(content)
            remove_stale(self.path)
            self.assertFalse(self.path.exists(), content)

    def test_file_of_a_running_server_stays(self) -> None:
        """The pid file of a running server stays; twistd then refuses the start, and says which process it is."""
        self.path.write_text("1")
        PidFile(self.path).hold()
        remove_stale(self.path)
        self.assertEqual(self.path.read_text(), "1")

    def test_file_that_is_not_there_or_cannot_be_locked_is_no_error(self) -> None:
        """If there is no pid file, or its place cannot be locked, the start goes on, and twistd says what is wrong with
        the place."""
        remove_stale(self.path)
        PidFile(self.path).hold()
        PidFile(self.path).remove()
        self.path.mkdir()
        remove_stale(self.path)
        self.assertTrue(self.path.is_dir())

    def test_a_device_in_the_place_of_the_file_is_never_removed(self) -> None:
        """A device in the place of the pid file is never removed: a server may run as root, and ``--pidfile=`` or
        ``--pidfile=/dev/null`` asks for no file."""
        os.mkfifo(self.path)
        remove_stale(self.path)
        PidFile(self.path).remove()
        self.assertTrue(self.path.is_fifo())
        PidFile(None).hold()
        PidFile(None).remove()
