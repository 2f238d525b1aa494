"""Tests of `pfsb.backups.past`: the state of any revision and time, and all changes of a key, against a model."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pfsb.backups.backup_file import load
from pfsb.backups.new_cluster import begin_anew, write
from pfsb.backups.past import Before, Change, NotKept, NotReached, Past, Target, moment, target_of
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.passes import batch_digest
from pfsb.paxos.snapshot import SnapshotEncoder
from pfsb.storage.log.past import Missing
from tests.backups.past_world import KEYS, World
from tests.backups.states import FORMER, MEMBERS
from tests.examples import examples
from tests.long import long
from tests.storage.log.disks import Old
from tests.storage.log.support import IN_MEMORY, content

NOWHERE = Target()
"""A target without revision and time: the beginning, or the end, of what is kept."""


class PastCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="pfsb-test-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.made = 0

    def world(self, seed: int = 1) -> World:
        self.made += 1
        world = World(random.Random(seed), self.home / str(self.made))
        self.addCleanup(lambda: [disk.writer.close() for disk in world.disks])
        return world

    def usual(self, seed: int = 1) -> World:
        """A cluster with three servers: one has everything, one has no archive, one has fetched a snapshot."""
        world = self.world(seed)
        whole, late, lagging = world.disk(), world.disk(Old.DELETED), world.disk()
        for interval in range(4):
            world.order(15)
            world.puts(KEYS[0], 20)
            world.order(5)
            for disk in (whole, late):
                disk.order(*range(disk.aru + 1, world.seq + 1))
            if interval == 0:
                lagging.order(*range(1, world.seq - 3))
            if interval == 3:
                lagging.order(*range(lagging.aru + 1, world.seq + 1))
            world.freeze()
            whole.make_snapshot()
            late.make_snapshot()
            if interval == 2:
                lagging.propose(lagging.aru + 1)
                lagging.fetch_snapshot(world.seq)
        world.order(5)
        whole.order(*range(whole.aru + 1, world.seq + 1))
        return world

    def past(self, world: World, *places: str) -> Past:
        """The past as these places hold it; without places, as all archives and data directories hold it."""
        everywhere = [world.home / place for place in places or ("archive", "data")]
        return Past.of([place for place in everywhere if place.exists()])

    def values(self, past: Past, target: Target) -> tuple[int, dict[bytes, bytes]]:
        """Build the state at a target. Returns (revision reached, all keys and values)."""
        machine = past.state_at(target).machine
        kv = next((each for each in machine.applications if each.name == "kv"), None)
        return machine.revision, {} if kv is None else {key: entry[0] for key, entry in kv.entries.items()}


class StateTests(PastCase):
    """The state of any revision is that of the model."""

    @long
    def test_state_of_each_revision(self) -> None:
        """The state of each revision is that of the model, also in the middle of a batch, or of a run that servers
        execute together."""
        world = self.usual()
        past = self.past(world)
        within = 0
        for revision in world.dice.sample(range(world.revision + 1), 40):
            self.assertEqual(self.values(past, Target(revision)), (revision, world.values[revision]))
            replay = past.state_at(Target(revision))
            within += replay.is_within
            self.assertEqual(replay.seq, world.slots[revision] or replay.seq)
        self.assertGreater(within, 20)

    @long
    @given(st.integers(0, 2**32))
    @examples(15)
    def test_random_histories(self, seed: int) -> None:
        world = self.usual(seed)
        past = self.past(world)
        for revision in world.dice.sample(range(world.revision + 1), 10):
            self.assertEqual(self.values(past, Target(revision)), (revision, world.values[revision]))
            past.verify(past.state_at(Target(revision)))

    def test_state_at_a_time(self) -> None:
        """The state at a time is that after the last slot whose time is not later."""
        world = self.usual()
        past = self.past(world)
        for seq in (2, 30, 31, 80, world.seq):
            revision = max(r for r in range(world.revision + 1) if world.slots[r] <= seq)
            for time_ms in (world.time_of(seq), world.time_of(seq) + 999):
                self.assertEqual(self.values(past, Target(time_ms=time_ms)), (revision, world.values[revision]))
        latest = self.values(past, Target(time_ms=world.time_of(world.seq) + 10**9))
        self.assertEqual(latest, (world.revision, world.values[-1]))

    def test_files_of_one_server_may_be_enough(self) -> None:
        """The archive of one server and its data directory, in either order, may hold all that is needed."""
        world = self.usual()
        for places in (("archive/0", "data/0"), ("data/0", "archive/0")):
            past = self.past(world, *places)
            for revision in (0, 3, world.revision // 2, world.revision):
                self.assertEqual(self.values(past, Target(revision))[1], world.values[revision])

    def test_gap_is_filled_from_another_server_or_refused(self) -> None:
        """Slots that one server lacks come from another one. If none has them, the refusal names them, and the revision
        from which on states can be had again."""
        world = self.usual()
        lagging = self.past(world, "archive/2", "data/2")
        in_gap = next(r for r in range(world.revision) if world.slots[r] >= min(world.disks[2].jumped) + 3)
        error = self.assertRaises(Missing, lagging.state_at, Target(in_gap))
        self.assertIn(f"slots {min(world.disks[2].jumped)} to ", str(error))
        following = max(world.disks[2].jumped)
        revision = max(r for r in range(world.revision) if world.slots[r] <= following)
        self.assertIn(f"From revision {revision} on", str(error))
        self.assertEqual(self.values(lagging, Target(revision))[1], world.values[revision])
        self.assertEqual(self.values(self.past(world), Target(in_gap))[1], world.values[in_gap])

    def test_what_is_not_kept_is_refused(self) -> None:
        """A revision from before what is kept is refused; the refusal names the lowest revision that can be had, and
        the way to keep more."""
        world = self.usual()
        past = self.past(world, "data/1")
        lowest = past.lowest
        self.assertGreater(lowest, 10)
        error = self.assertRaises(NotKept, past.state_at, Target(lowest - 1))
        self.assertEqual(error.lowest, lowest)
        self.assertIn(f"back to revision {lowest}", str(error))
        self.assertIn("archive", str(error))
        self.assertEqual(self.values(past, Target(lowest))[1], world.values[lowest])
        self.assertRaises(NotKept, past.state_at, Target(time_ms=world.time_of(1)))

    def test_what_has_not_come_yet_is_refused(self) -> None:
        world = self.usual()
        error = self.assertRaises(NotReached, self.past(world).state_at, Target(world.revision + 1))
        self.assertEqual(error.highest, world.revision)

    @long
    def test_slots_that_servers_left_out_are_left_out(self) -> None:
        """Slots that `pfsb pass` has noted in the log are left out."""
        world = self.world()
        disk = world.disk()
        world.order(3)
        world.puts(KEYS[0], 5)
        seq = world.seq
        disk.order(*range(1, seq + 1))
        disk.writer.append(content(passes={seq: batch_digest(world.batches[seq].data)}))
        for _ in range(200):
            revision, values = self.values(self.past(world, "data"), NOWHERE)
            self.assertEqual((revision, values), (world.revision - 5, world.values[-6]))
            if disk.writer.log.segment > 1:
                break
            world.idle()
            disk.order(world.seq)
        self.assertGreater(disk.writer.log.segment, 1, "it is in the first group of a segment, too")

    def test_snapshot_that_is_damaged_is_left_out(self) -> None:
        """A damaged snapshot is not used: the one before it leads to the same state."""
        world = self.usual()
        past = self.past(world)
        path = past.snapshots[2].path
        data = path.read_bytes()
        path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
        revision = past.snapshots[2].revision + 2
        for each in past.snapshots:
            if each.seq == past.snapshots[2].seq:
                each.path.write_bytes(path.read_bytes())
        fresh = self.past(world)
        self.assertEqual(self.values(fresh, Target(revision))[1], world.values[revision])
        self.assertIn(path, fresh.faults)

    def test_rebuilt_state_is_compared_with_the_next_snapshot(self) -> None:
        """A log whose groups are all whole, but that does not lead to the next snapshot, is refused."""
        world = self.usual()
        past = self.past(world)
        facts = past.verify(past.state_at(Target(5)))
        assert facts is not None
        self.assertEqual(facts.seq, min(world.snapshots))
        self.assertIsNone(past.verify(past.state_at(Target(world.revision))))
        wrong = self.world(2)
        disk = wrong.disk()
        wrong.order(9)
        disk.order(*range(1, 11))
        encoder = SnapshotEncoder(10, FORMER)
        other = self.world(3)
        other.order(9)
        pieces = map(encoder.piece, other.replica.ordered_queue.freeze())
        wrong.snapshots[10] = encoder.head() + b"".join(pieces) + encoder.end()
        disk.make_snapshot()
        past = self.past(wrong)
        self.assertEqual(([each.seq for each in past.snapshots], past.faults), ([10], {}))
        self.assertTrue(past.history.has(1, 10))
        error = self.assertRaises(StorageRefused, past.verify, past.state_at(Target(3)))
        self.assertIn("the state after slot 10 that the slots before lead to is another one", str(error))

    def test_clusters_of_one_name_are_told_apart(self) -> None:
        """Two clusters of the same name and servers, as before and after a restore, are told apart: their slots of the
        same numbers differ."""
        world = self.usual()
        state = begin_anew(self.past(world).state_at(Target(50)).state(), MEMBERS, b"cluster2")
        file = self.home / "state"
        name = write(state, file)
        new = self.world(9)
        new.snapshots[name.seq] = file.read_bytes()
        disk = new.disk(server_id=7)
        disk.fetch_snapshot(name.seq)
        error = self.assertRaises(StorageRefused, Past.of, [world.home / "data", new.home / "data"])
        self.assertIn("several clusters", str(error))
        self.assertIn(FORMER.hex(), str(error))
        self.assertEqual(load(file).name, name)
        places = [world.home / "archive", world.home / "data", new.home / "data"]
        past = Past.of(places, [new.home / "data" / "7"])
        self.assertEqual(past.state_at(NOWHERE).machine.revision, load(file).machine.revision)
        past = Past.of(places, [world.home / "data" / "2"])
        self.assertEqual(past.state_at(NOWHERE).machine.revision, world.revision)


class HistoryTests(PastCase):
    """All changes of a key."""

    def changes(self, past: Past, key: bytes, first: Target = NOWHERE, last: Target = NOWHERE) -> list[Change]:
        found = [each for each in past.changes(key, first, last) if isinstance(each, Change)]
        return [each for each in found if each.has_changed]

    def test_each_change_is_listed_once(self) -> None:
        """Each change of a key is listed once, with verb, value, client, slot and time, as the model has them."""
        world = self.usual()
        for key in KEYS:
            found = self.changes(self.past(world), key)
            expected = [(w.revision, w.verb, w.value, w.client_id, w.slot) for w in world.writes[key]]
            self.assertGreater(len(expected), 20)
            self.assertEqual([(c.revision, c.verb, c.value, c.client_id, c.slot) for c in found], expected)
            self.assertEqual({c.time_ms - world.time_of(c.slot) for c in found}, {0})

    def test_refused_commands_are_told_with_their_codes(self) -> None:
        world = self.usual()
        for key in KEYS:
            refused = [c for c in self.past(world).changes(key, Target(), Target()) if isinstance(c, Change)]
            refused = [c for c in refused if c.refusal is not None]
            self.assertEqual([c.revision for c in refused], world.refusals[key])
            self.assertLessEqual({c.refusal.code for c in refused if c.refusal}, {"CONFLICT", "PRECONDITION"})

    def test_part_of_the_history(self) -> None:
        """The list may begin at a revision or a time, and end at one."""
        world = self.usual()
        past = self.past(world)
        key = KEYS[0]
        first, last = world.revision // 3, world.revision // 2
        found = [c.revision for c in self.changes(past, key, Target(first), Target(last)) if c.revision >= first]
        self.assertEqual(found, [w.revision for w in world.writes[key] if first <= w.revision <= last])
        seq = world.slots[last]
        found = [c.slot for c in self.changes(past, key, Target(), Target(time_ms=world.time_of(seq)))]
        self.assertEqual(found, [w.slot for w in world.writes[key] if w.slot <= seq])

    def test_value_at_the_beginning_of_what_is_kept(self) -> None:
        world = self.usual()
        past = self.past(world, "data/1")
        lowest = past.lowest
        before = next(iter(past.changes(KEYS[0], Target(), Target())))
        assert isinstance(before, Before)
        written = [w for w in world.writes[KEYS[0]] if w.revision <= lowest][-1]
        self.assertEqual((before.revision, before.value, before.at), (written.revision, written.value, lowest))

    def test_beginning_before_what_is_kept(self) -> None:
        """If the history is asked for from before what is kept, all that is kept is listed, behind the value at its
        beginning."""
        world = self.usual()
        world.disks[1].order(*range(world.disks[1].aru + 1, world.seq + 1))
        past = self.past(world, "data/1")
        key = max(KEYS, key=lambda each: world.writes[each][-1].slot)
        before, *changes = past.changes(key, Target(1), NOWHERE)
        self.assertIsInstance(before, Before)
        again = [*past.changes(key, NOWHERE, NOWHERE)][1:]
        self.assertEqual(changes, again)
        self.assertGreater(len(again), 0)

    def test_only_intervals_with_the_key_are_executed(self) -> None:
        """Only the slots between two snapshots of which one shows another value are executed, so that a key that is
        written rarely is found quickly."""
        world = self.world()
        disk = world.disk()
        for _ in range(5):
            world.order(10)
            world.freeze()
            disk.order(*range(disk.aru + 1, world.seq + 1))
            disk.make_snapshot()
        past = self.past(world)
        began: list[int] = []
        begin_with = Past.begin_with

        def watched(each: Past, facts: object) -> object:
            began.append(getattr(facts, "seq", 0))
            return begin_with(each, facts)  # type: ignore[arg-type]

        self.patch(Past, "begin_with", watched)
        self.assertEqual(list(past.changes(b"no such key", Target(), Target())), [])
        self.assertEqual(began, [0])


class MomentTests(SynchronousTestCase):
    """Texts that the option --at takes."""

    def test_revisions_and_times(self) -> None:
        for text, expected in (
            ("1234", Target(1234)),
            ("0", Target(0)),
            ("@1700000000", Target(time_ms=1_700_000_000_000)),
            ("@1700000000.123", Target(time_ms=1_700_000_000_123)),
            ("2023-11-14T22:13:20Z", Target(time_ms=1_700_000_000_000)),
            ("2023-11-14T23:13:20.5+01:00", Target(time_ms=1_700_000_000_500)),
            ("2023-11-14 22:13:20+00:00", Target(time_ms=1_700_000_000_000)),
        ):
            self.assertEqual(target_of(text), expected, text)

    def test_anything_else_is_refused_with_examples(self) -> None:
        """Any other text is refused with examples, such as a time without a zone, which would be another time on
        another machine."""
        for text in ("", "-1", "yesterday", "2023-11-14T22:13:20", "@", "@x", "12.5", "1" * 20, "@1e5"):
            error = self.assertRaises(ValueError, target_of, text)
            self.assertIn("2026-11-30T08:00:00Z", str(error))

    def test_moment_is_taken_back(self) -> None:
        for time_ms in (1_700_000_000_000, 1_700_000_000_007, 0, 253_402_300_799_999):
            self.assertEqual(target_of(moment(time_ms)), Target(time_ms=time_ms))
