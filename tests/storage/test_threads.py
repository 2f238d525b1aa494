"""Tests of `pfsb.storage.threads`: for how long the thread of the writer has been busy."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pfsb.storage.effect import Effect
from pfsb.storage.room import Room
from pfsb.storage.threads import GroupWriter
from tests.storage.support import slot_records


class Groups:
    """A writer of groups that lets the time pass that a disk needs."""

    position = 0

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def write(self, effect: Effect) -> None:
        self.clock.advance(1)
        self.position += 1

    def close(self) -> None: ...


class BusyTests(SynchronousTestCase):
    """The end of a server waits less long for a writer whose disk has not answered for a long time
    (`LogStorage.close`)."""

    def test_what_follows_a_write_counts(self) -> None:
        """The writer counts as busy also in what follows a write, since the position note and the look at the room of
        the disk may wait for a disk that hangs."""
        clock = Clock()
        failures: list[Failure] = []
        busy: list[float] = []

        def take_a_second(*_: object) -> None:
            clock.advance(1)
            busy.append(writer.busy_seconds)

        def look(_: Path) -> tuple[int, int]:
            take_a_second()
            return 10**9, 10**9

        writer = GroupWriter(
            failures.append, Groups(clock), clock.seconds, take_a_second, Room(Path(), 0, look), lambda _: None
        )
        writer.write(1, slot_records([1]))
        writer.look()
        writer.start()
        writer.begin_stop()
        self.assertTrue(writer.has_stopped(10))
        self.assertEqual((failures, busy, writer.busy_seconds), ([], [2.0, 3.0], 0.0))
