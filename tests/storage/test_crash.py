"""Tests with real processes that are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pfsb
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.records import Recovered
from tests.long import long
from tests.storage.support import Server, batch

ROOT = Path(pfsb.__file__).parent.parent


@long
class KillTests(SynchronousTestCase):
    """Acknowledged records survive, however the process ends."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()

    def start_child(self, first: int) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.child", str(self.directory), str(first)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(self.end, child)
        return child

    def end(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        child.wait(10)
        assert child.stdout is not None
        child.stdout.close()

    def kill_after(self, child: subprocess.Popen[bytes], lines: int) -> int:
        """Kill the child in the middle of its work; returns the last slot that it had acknowledged."""
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        self.assertNotIn(b"", said, "the child has ended by itself")
        child.kill()
        said += child.stdout.read().splitlines(keepends=True)
        child.wait(10)
        return int([line for line in said if line.endswith(b"\n")][-1])

    def recover(self) -> Recovered:
        server = Server(self.directory)
        try:
            recovered = server.storage.recover()
            recovered.ordered = list(recovered.ordered)
            return recovered
        finally:
            server.storage.close()

    def test_acknowledged_slots_survive_kill_9(self) -> None:
        """Three times, kill -9 ends the child: every acknowledged slot is there with its batch, and so is the aru of
        its turn."""
        acknowledged = 0
        for round_number in range(3):
            child = self.start_child(acknowledged + 1)
            acknowledged = self.kill_after(child, lines=40 + 37 * round_number)
            recovered = self.recover()
            stored = dict(recovered.ordered) | {slot.seq: slot.batch for slot in recovered.accepted}
            self.assertGreaterEqual(recovered.local_aru, acknowledged - 1)
            self.assertEqual(recovered.incarnation, 2 * round_number + 2)
            for seq in range(1, acknowledged + 1):
                self.assertEqual(stored.get(seq), batch(f"slot {seq}"))

    def test_directory_of_a_running_process_is_refused_until_it_is_killed(self) -> None:
        """The directory of a running process is refused until that process is killed: the lock ends with the process,
        and leaves nothing to be cleaned up."""
        child = self.start_child(1)
        assert child.stdout is not None
        child.stdout.readline()
        error = self.assertRaises(StorageRefused, self.recover)
        self.assertIn(f"in use by another server (process {child.pid})", str(error))
        self.kill_after(child, lines=1)
        self.assertEqual(self.recover().incarnation, 2)
