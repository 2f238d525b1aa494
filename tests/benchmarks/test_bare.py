"""The bare cluster: an answer leaves when a majority has written, and the processes end with the block."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.bare import LOG_BYTES, Disk, Leader, Log, Loop, cluster, datagram_pair
from tests.long import long


class Ended(Exception):
    """Raised by `Script` when it has no more steps."""


class Script(Loop):
    """A loop whose sockets are ready when a test says so, and whose writes are done when a test says so."""

    def __init__(self) -> None:
        """Make the loop without a thread and without a file."""
        self.ready: dict[int, Callable[[], None]] = {}
        self.commits: list[tuple[bytes, Callable[[], None]]] = []
        self.after: Callable[[], None] = lambda: None

    def watch(self, file: int, ready: Callable[[], None]) -> None:
        self.ready[file] = ready

    def forget(self, file: int) -> None:
        del self.ready[file]

    def commit(self, data: bytes, then: Callable[[], None]) -> None:
        self.commits.append((data, then))

    def run(self, after: Callable[[], None]) -> None:
        self.after = after


def has_data(one: socket.socket) -> bool:
    return bool(select.select([one], [], [], 0.05)[0])


class LeaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        pairs = [datagram_pair() for _ in range(2)]
        self.ours, self.theirs = zip(*pairs, strict=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.loop = Script()
        Leader(self.loop, self.ours).serve(self.listener)
        self.client = socket.create_connection(self.listener.getsockname(), 5)
        for each in (*self.ours, *self.theirs, self.listener, self.client):
            self.addCleanup(each.close)
        self.loop.ready[self.listener.fileno()]()
        self.at_leader = next(reversed(self.loop.ready))

    def ask(self, lines: bytes) -> None:
        self.client.sendall(lines)
        self.loop.ready[self.at_leader]()
        self.loop.after()

    def test_answer_waits_for_two_of_three_writes(self) -> None:
        """The leader's own write and that of one follower are a majority; the second follower adds nothing."""
        self.ask(b"PUT a b\nPUT c d\n")
        [(data, written)] = self.loop.commits
        self.assertIn(b"PUT a b\nPUT c d\n", data)
        received = [each.recv(65_536) for each in self.theirs]
        self.assertEqual(received, [data, data])
        self.theirs[0].send(data[:8])
        self.loop.ready[self.ours[0].fileno()]()
        self.assertFalse(has_data(self.client))
        written()
        self.assertEqual(self.client.recv(65_536).count(b"OK"), 2)
        self.theirs[1].send(data[:8])
        self.loop.ready[self.ours[1].fileno()]()
        self.assertFalse(has_data(self.client))

    def test_followers_alone_are_a_majority_too(self) -> None:
        """The writes of two of three followers are a majority without the leader's own disk, which may be the
        slowest."""
        self.ask(b"PUT a b\n")
        for ours, theirs in zip(self.ours, self.theirs, strict=True):
            theirs.send(theirs.recv(65_536)[:8])
            self.loop.ready[ours.fileno()]()
        self.assertEqual(self.client.recv(65_536).count(b"OK"), 1)

    def test_connection_that_is_closed_is_forgotten(self) -> None:
        """A connection that its client has closed is forgotten, and the leader waits for no more lines from it."""
        self.ask(b"PUT a b\n")
        self.client.close()
        self.loop.ready[self.at_leader]()
        self.assertNotIn(self.at_leader, self.loop.ready)


class LogTests(SynchronousTestCase):
    def test_log_keeps_its_size(self) -> None:
        """The log of a server has a fixed size: when it is full, its beginning is written again, since a file that
        grows would be slower."""
        path = Path(self.mktemp())
        log = Log(path)
        block = b"x" * (LOG_BYTES // 2 - 1)
        for _ in range(3):
            log.force(block)
        self.assertEqual(path.stat().st_size, LOG_BYTES)


class ClusterTests(SynchronousTestCase):
    timeout = 120

    @long
    def test_each_kind_answers_and_ends(self) -> None:
        """With a bare cluster of every kind, a load is answered, servers use CPU time, and no process is left."""
        for disk in Disk:
            directory = Path(self.mktemp())
            directory.mkdir()
            with cluster(disk, directory) as bare:
                result = bare.load(3, 2, 0.3)
            self.assertGreater(result.operations, 10, disk)
            self.assertEqual(result.errors, 0)
            self.assertGreater(result.ended - result.begun, 0)
            for pid in bare.pids:
                self.assertRaises(ProcessLookupError, os.kill, pid, 0)
