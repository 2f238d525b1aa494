"""Room on the disk: the reserve, and writes that are refused (Departure 45)."""

from __future__ import annotations

import errno
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pfsb.storage import threads
from pfsb.storage.durable import NoRoom
from pfsb.storage.log.storage import LOOK_SECONDS
from pfsb.storage.room import Room
from tests.storage.support import Gate, Server, slot_records


class RoomTests(SynchronousTestCase):
    free = 1_000
    total = 100_000

    def room(self, reserve: int) -> Room:
        return Room(Path("anywhere"), reserve, lambda _: (self.free, self.total))

    def test_disk_is_full_when_only_the_reserve_is_left(self) -> None:
        """A disk is full when only the reserve is left; with one byte more it has room."""
        self.assertTrue(self.room(1_000).look())
        self.assertFalse(self.room(999).look())

    def test_full_disk_has_room_again_when_there_is_some_more_than_the_reserve(self) -> None:
        """A full disk has room again when somewhat more than the reserve is free: otherwise it would change with each
        file that is made or deleted."""
        room = self.room(1_000)
        for self.free, is_full in ((1_000, True), (1_001, True), (1_250, True), (1_251, False), (1_001, False)):
            self.assertEqual(room.look(), is_full, self.free)

    def test_small_file_system_can_be_used(self) -> None:
        """On a small file system at most a tenth is reserved."""
        room = self.room(10**9)
        self.free = 10_001
        self.assertFalse(room.look())
        self.free = 10_000
        self.assertTrue(room.look())

    def test_file_system_that_cannot_be_asked_changes_nothing(self) -> None:
        """When the file system cannot tell its room, nothing changes: the next write shows what is wrong."""

        def fail(_: Path) -> tuple[int, int]:
            raise OSError("stale file handle")

        room = Room(Path("anywhere"), 1_000, fail)
        self.assertFalse(room.look())
        room.write_refused()
        self.assertTrue(room.look())

    def test_room_for_more_leaves_the_reserve(self) -> None:
        """A file that is made ahead is made only if the reserve stays free: the disk must not count as full because of
        it."""
        room = self.room(400)
        self.assertTrue(room.has(499))
        self.assertFalse(room.has(500))
        self.assertFalse(room.is_full)

    def test_real_file_system_is_asked(self) -> None:
        """The room of the real file system is asked, which has room for one byte."""
        self.assertFalse(Room(Path(), 1).look())


class FullDiskTests(SynchronousTestCase):
    """A storage whose writes are refused, since the disk has no room."""

    def setUp(self) -> None:
        self.gate = Gate()
        self.gate.guard(self)
        self.patch(threads, "FULL_SECONDS", 0.01)
        self.server = Server(Path(self.mktemp()))
        self.server.storage.recover()
        self.addCleanup(self.server.storage.close)

    def test_refused_write_is_written_when_there_is_room(self) -> None:
        """A refused write is written when there is room, and acknowledged only then; meanwhile the server is told that
        its disk is full."""
        self.gate.error = NoRoom()
        self.server.sync("one", *slot_records([1]))
        self.server.clock.run_until(lambda: self.server.storage.is_full)
        self.server.sync("two", *slot_records([2]))
        tried = self.gate.writes
        self.server.clock.run_until(lambda: self.gate.writes >= tried + 3)
        self.assertEqual((self.server.told, self.server.failures), ([], []))
        self.gate.error = None
        self.server.clock.run_until(lambda: self.server.told == ["one", "two"])
        self.server.clock.advance(LOOK_SECONDS)
        self.server.clock.run_until(lambda: not self.server.storage.is_full)
        self.server.storage.close()
        again = Server(self.server.storage.path.parent)
        self.addCleanup(again.storage.close)
        self.assertEqual([slot.seq for slot in again.storage.recover().accepted], [1, 2])

    def test_nothing_is_written_behind_a_group_that_was_given_up(self) -> None:
        """When a group was given up, no later group is written: the callbacks of a written group acknowledge all groups
        before it."""
        self.patch(threads, "GROUP_BYTES", 1)
        self.gate.open.clear()
        self.server.sync("under way", *slot_records([1]))
        self.assertTrue(self.gate.arrived.wait(10))
        self.server.sync("given up", *slot_records([2]))
        self.server.sync("behind", *slot_records([3]))
        self.patch(threads, "FULL_SECONDS", 60)
        self.gate.on_write = lambda: self.allow_all_but_one(refused=2)
        self.gate.open.set()
        self.server.clock.run_until(lambda: self.server.told == ["under way"] and self.server.storage.is_full)
        self.assertTrue(self.server.storage.close())
        self.server.clock.run_what_came()
        self.assertEqual(self.server.told, ["under way"])

    def allow_all_but_one(self, refused: int) -> None:
        self.gate.error = NoRoom() if self.gate.writes == refused else None

    def test_close_gives_the_group_up(self) -> None:
        """Closing gives up a group for which there is no room: nothing of it was acknowledged, so it may be lost."""
        self.gate.error = NoRoom()
        self.server.sync("one", *slot_records([1]))
        self.server.clock.run_until(lambda: self.server.storage.is_full)
        self.assertTrue(self.server.storage.close())

    def test_other_errors_end_the_storage(self) -> None:
        """Errors other than a full disk end the storage: a sync that failed is never repeated."""
        self.gate.error = OSError(errno.EIO, "Input/output error")
        self.server.sync("one", *slot_records([1]))
        self.server.clock.run_until(lambda: bool(self.server.failures))
        self.assertFalse(self.server.storage.is_full)

    def test_disk_is_looked_at_periodically(self) -> None:
        """The room of the disk is looked at periodically: when the reserve is larger than what is free, the disk counts
        as full."""
        directory = Path(self.mktemp())
        self.patch(threads.Room, "look", lambda room: True)
        server = Server(directory, reserve_bytes=1)
        server.storage.recover()
        self.addCleanup(server.storage.close)
        self.assertTrue(server.storage.is_full)
        self.patch(threads.Room, "look", lambda room: False)
        server.clock.advance(LOOK_SECONDS)
        server.clock.run_until(lambda: not server.storage.is_full)


class HangingCloseTests(SynchronousTestCase):
    def test_close_does_not_wait_for_a_disk_that_hangs_already(self) -> None:
        """Closing does not wait for a disk that hangs already: SIGTERM must end the process; the directory stays
        locked."""
        gate = Gate()
        gate.guard(self)
        server = Server(Path(self.mktemp()))
        server.storage.recover()
        gate.open.clear()
        gate.arrived.clear()
        server.sync("one", *slot_records([1]))
        self.assertTrue(gate.arrived.wait(10))
        server.clock.rightNow += 60
        self.assertFalse(server.storage.close())
        gate.open.set()
