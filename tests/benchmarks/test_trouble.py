"""The time of a failover, measured by clients that change servers, on a fake cluster."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.compare.system import Choices, Load, System, Trouble, Write, wait_for
from benchmarks.compare.trouble import Writers, seconds_without_leader
from pfsb.bench.client import LoadResult
from tests.long import long

DOWN_SECONDS = 0.3
SEARCH_SECONDS = 0.2
"""How long a fake looks for its processes before it kills them."""


class Fake(System):
    """Three fake servers in this process; for some time after a kill, none acknowledges a write."""

    name = "fake"

    def __init__(self) -> None:
        super().__init__(Path("unused"), 3)
        self.dead: set[int] = set()
        self.back_at = 0.0
        self.opened: list[int] = []
        self.lock = threading.Lock()

    @classmethod
    def prepare(cls, choices: Choices) -> str:
        return "0"

    def configure(self) -> None:
        """Do nothing: a fake needs no files."""

    def command(self, server: int) -> tuple[list[str], dict[str, str]]:
        raise AssertionError("it has no processes")

    def leader(self) -> int | None:
        return 1

    def wait_leader(self) -> int:
        return 1

    def load(self, load: Load) -> LoadResult | None:
        return None

    def kill(self, server: int) -> float:
        time.sleep(SEARCH_SECONDS)
        self.dead.add(server)
        killed = time.monotonic()
        self.back_at = killed + DOWN_SECONDS
        return killed

    def start_server(self, server: int) -> None:
        self.dead.remove(server)

    def running(self) -> list[int]:
        return [server for server in range(3) if server not in self.dead]

    def position(self, server: int) -> object | None:
        return 7

    def open_writer(self, server: int) -> Write:
        with self.lock:
            self.opened.append(server)
        if server in self.dead:
            raise ConnectionRefusedError("dead")

        def write() -> None:
            time.sleep(0.002)
            if server in self.dead or time.monotonic() < self.back_at:
                raise TimeoutError("no leader")

        return write


class FailoverTests(SynchronousTestCase):
    @long
    def test_failover_is_timed_from_the_kill_to_the_next_answer(self) -> None:
        """A failover is timed from the kill to the next answer, without the time in which the server's processes are
        looked for; afterwards the server is started again."""
        system = Fake()
        took = seconds_without_leader(system)
        self.assertApproximates(took, DOWN_SECONDS, 0.1)
        self.assertEqual(system.running(), [0, 1, 2])

    def test_writers_begin_at_different_servers_and_leave_a_dead_one(self) -> None:
        """Writers begin at different servers, as real clients do, and leave one that is dead: some of them are at a
        follower when the leader dies."""
        system = Fake()
        system.dead.add(2)
        writers = Writers(system)
        writers.start()
        wait_for("answers", lambda: len(writers.answered) > 50 or None, 10)
        writers.stop()
        self.assertEqual(set(system.opened), {0, 1, 2})
        self.assertIsNone(writers.first_after(time.monotonic()))

    def test_answer_to_a_write_from_before_the_kill_does_not_count(self) -> None:
        """The answer to a write from before the kill does not count as the end of the outage: it may have been on its
        way."""
        writers = Writers(Fake())
        writers.answered = [(1.0, 9.0), (3.5, 4.5), (3.1, 4.0), (0.5, 0.6)]
        self.assertEqual(writers.first_after(3.0), 4.0)
        self.assertIsNone(writers.first_after(3.5))

    def test_waiting_ends_with_an_error_after_its_time(self) -> None:
        """A wait ends with an error after its maximum time; the error says what was waited for."""
        self.assertIn(
            "a unicorn: not within 0.02 s", str(self.assertRaises(Trouble, wait_for, "a unicorn", lambda: None, 0.02))
        )
