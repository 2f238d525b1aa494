"""Tests of `pfsb.backups.past_child` and `pfsb.service.past_process`: values of the past, built in another process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.backups.past_child import PastValues
from pfsb.service import past_process
from pfsb.service.past_process import PastProcess
from pfsb.storage.log.past import ClusterHistory
from tests.backups.past_world import KEYS, World
from tests.backups.test_past import PastCase
from tests.long import long

reactor: Any = _reactor


class PastValuesTests(PastCase):
    def setUp(self) -> None:
        super().setUp()
        self.world_ = self.usual()

    def values(self, *places: str) -> PastValues:
        return PastValues([self.world_.home / place for place in places or ("data/0", "archive/0")])

    def expected(self, key: bytes, revision: int) -> tuple[bytes, int] | None:
        written = [w for w in self.world_.writes[key] if w.revision <= revision]
        if not written or written[-1].value is None:
            return None
        return written[-1].value, written[-1].revision

    def assertRight(self, values: PastValues, key: bytes, revision: int) -> None:
        found = values.find(key, revision)
        if isinstance(found, Refused):
            self.assertEqual(found.code, "NOTFOUND", found)
            self.assertIsNone(self.expected(key, revision))
        else:
            self.assertEqual(found, self.expected(key, revision))

    @long
    def test_values_in_any_order(self) -> None:
        """Values at random revisions are those of the model, also within a batch, at a snapshot, and for a key that is
        absent."""
        values = self.values()
        tried = self.world_.dice.sample(range(self.world_.revision + 1), 60)
        for revision in tried:
            self.assertRight(values, self.world_.dice.choice(KEYS), revision)
        for seq in self.world_.snapshots:
            revision = max(r for r in range(self.world_.revision) if self.world_.slots[r] <= seq)
            for each in (revision - 1, revision, revision + 1):
                self.assertRight(values, KEYS[0], each)
        self.assertEqual(getattr(values.find(b"no such key", 50), "code", None), "NOTFOUND")

    @long
    def test_every_revision_of_a_key(self) -> None:
        """The values of a key at all revisions, asked in ascending order, are those of the model."""
        values = self.values()
        for revision in range(self.world_.revision + 1):
            self.assertRight(values, KEYS[3], revision)

    @long
    def test_ascending_revisions_execute_each_slot_once(self) -> None:
        """Questions about ascending revisions execute each slot once: the last state is kept, unless a snapshot is
        nearer."""
        values = self.values()
        first = 1 + max(r for r in range(self.world_.revision) if self.world_.slots[r] <= max(self.world_.snapshots))
        read: list[int] = []
        ordered = ClusterHistory.ordered

        def watched(history: ClusterHistory, first: int, last: int | None = None) -> Any:
            for seq, batch in ordered(history, first, last):
                read.append(seq)
                yield seq, batch

        self.patch(ClusterHistory, "ordered", watched)
        for revision in range(first, self.world_.revision + 1):
            self.assertRight(values, KEYS[0], revision)
        self.assertEqual(len(read), len(set(read)))
        self.assertGreater(len(read), 2)

    def test_what_is_not_kept(self) -> None:
        """A revision from before the first snapshot, in a gap, or behind the end is refused with a code and a
        reason."""
        late, lagging = self.values("data/1"), self.values("data/2")
        found = late.find(KEYS[0], 1)
        assert isinstance(found, Refused)
        self.assertEqual(found.code, "COMPACTED")
        self.assertRegex(found.text, r"goes back to revision \d+; an archive \(archive: in the configuration\)")
        slot = min(self.world_.disks[2].jumped)
        in_gap = next(r for r in range(self.world_.revision) if self.world_.slots[r] > slot)
        found = lagging.find(KEYS[0], in_gap)
        assert isinstance(found, Refused)
        self.assertEqual((found.code, f"does not have slots {slot} to " in found.text), ("COMPACTED", True))
        found = self.values().find(KEYS[0], self.world_.revision + 1)
        assert isinstance(found, Refused)
        self.assertEqual(found.code, "UNAVAILABLE")

    def test_archive_that_begins_meanwhile(self) -> None:
        """Files that have moved from the data directory into the archive since the last question are found there."""
        world = self.world(3)
        disk = world.disk()
        self.world_ = world
        world.order(40)
        disk.order(*range(1, 42))
        values = PastValues([disk.data, disk.archive])
        self.assertRight(values, KEYS[0], world.revision)
        for _ in range(2):
            world.order(40)
            disk.order(*range(disk.aru + 1, world.seq + 1))
            world.freeze()
            disk.make_snapshot()
        self.assertTrue((disk.archive / "log").is_dir())
        for revision in (world.revision // 9, world.revision // 4, world.revision):
            self.assertRight(values, KEYS[0], revision)

    def test_server_goes_on_meanwhile(self) -> None:
        """Slots that the server has executed since, and snapshots that it has taken since, are used."""
        values, world = self.values(), self.world_
        self.assertRight(values, KEYS[0], world.revision)
        for _ in range(3):
            world.order(5)
            world.disks[0].order(*range(world.disks[0].aru + 1, world.seq + 1))
            self.assertRight(values, KEYS[0], world.revision)
            world.freeze()
            world.disks[0].make_snapshot()
            self.assertRight(values, KEYS[0], world.revision - 1)
        self.assertRight(values, KEYS[0], 3)


@long
class PastProcessTests(PastCase, TestCase):  # type: ignore[misc]
    """Tests with the real process that builds states of the past."""

    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        self.world_: World = self.usual()

    def process(self, *places: str) -> PastProcess:
        directories = [self.world_.home / place for place in places or ("data/0", "archive/0")]
        process = PastProcess(reactor, lambda: directories)
        self.addCleanup(self.ended, process)
        return process

    async def ended(self, process: PastProcess) -> None:
        """Stop it, and wait until the operating system has it no more."""
        child = process.pid
        process.stop()
        while child is not None and Path(f"/proc/{child}").exists():
            await self.pause(0.01)

    def pause(self, seconds: float) -> Deferred[None]:
        waited: Deferred[None] = Deferred()
        reactor.callLater(seconds, waited.callback, None)
        return waited

    def ask(self, process: PastProcess, key: bytes, revision: int) -> Deferred[Result]:
        answered: Deferred[Result] = Deferred()
        process.ask(key, revision, answered.callback)
        return answered

    def expected(self, revision: int) -> Sequence[Any]:
        written = [w for w in self.world_.writes[KEYS[0]] if w.revision <= revision]
        return written[-1].value, written[-1].revision

    async def test_many_questions_at_once(self) -> None:
        """One process answers many questions that are asked at once, in any order."""
        process = self.process()
        revisions = [w.revision for w in self.world_.writes[KEYS[0]] if w.value is not None][::4]
        asked = [self.ask(process, KEYS[0], revision) for revision in reversed(revisions)]
        child = process.pid
        for revision, answered in zip(reversed(revisions), asked, strict=True):
            result = await answered
            assert isinstance(result, Done), result
            self.assertEqual(tuple(value for _, value in result.fields), tuple(self.expected(revision)))
        self.assertIsInstance(await self.ask(process, b"no such key", 3), Refused)
        self.assertEqual(process.pid, child)

    async def test_process_that_dies_is_started_again(self) -> None:
        """A process that has died is started again; the questions that were under way are refused."""
        process = self.process()
        asked = self.ask(process, KEYS[0], 50)
        child = process.pid
        assert child is not None
        os.kill(child, 9)
        result = await asked
        assert isinstance(result, Refused)
        self.assertEqual(result.code, "UNAVAILABLE")
        self.assertIsInstance(await self.ask(process, b"no such key", 50), Refused)
        self.assertNotEqual(process.pid, child)

    async def test_process_ends_when_nobody_asks(self) -> None:
        self.patch(past_process, "IDLE_SECONDS", 0.05)
        process = self.process()
        await self.ask(process, KEYS[0], 50)
        while process.pid is not None:
            await self.pause(0.01)

    async def test_process_that_hangs_is_ended(self) -> None:
        self.patch(past_process, "SILENT_SECONDS_MAX", 0.2)
        process = self.process()
        asked = self.ask(process, KEYS[0], 50)
        child = process.pid
        assert child is not None
        os.kill(child, 19)
        result = await asked
        assert isinstance(result, Refused)
        self.assertEqual((result.code, process.pid), ("UNAVAILABLE", None))

    async def test_files_that_cannot_be_read(self) -> None:
        """If files cannot be read, the log of the server has the reason, and the client is told that there is one."""
        process = self.process("nothing")
        result = await self.ask(process, KEYS[0], 50)
        assert isinstance(result, Refused)
        self.assertEqual(result.code, "UNAVAILABLE")

    async def test_stopped_server_asks_nothing(self) -> None:
        process = self.process()
        asked = self.ask(process, KEYS[0], 50)
        process.stop()
        self.assertIsInstance(await asked, Refused)
        result = await self.ask(process, KEYS[0], 50)
        assert isinstance(result, Refused)
        self.assertEqual((result.code, process.pid), ("SHUTDOWN", None))
