"""The watch over a server's memory."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.service.memory_watch import LOOK_SECONDS, MemoryWatch, found_limit_bytes, used_bytes


class MemoryWatchTests(SynchronousTestCase):
    def test_changes_are_refused_near_the_limit_until_there_is_room(self) -> None:
        clock, told, used = Clock(), [], [0]
        watch = MemoryWatch(clock, 1_000, told.append, lambda: used[0])
        watch.start()
        for used[0] in (899, 900, 1_200, 860, 849, 899, 0):
            clock.advance(LOOK_SECONDS)
        self.assertEqual(told, [True, False])
        watch.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_memory_of_this_process(self) -> None:
        self.assertGreater(used_bytes(), 1_000_000)


class LimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.groups = self.root / "groups"

    def find(self, line: str, **limits: str) -> int | None:
        """The limit that is found for a process in the groups of this line; `limits` gives folders (with _ for /) and
        their limits."""
        name = "memory.max" if line.startswith("0::") else "memory.limit_in_bytes"
        for place, limit in limits.items():
            folder = self.root / place.replace("_", "/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{limit}\n")
        self.root.mkdir(exist_ok=True)
        self.groups.write_text(f"{line}\n")
        return found_limit_bytes(self.groups, self.root)

    def test_least_limit_of_all_groups_around_counts(self) -> None:
        self.assertEqual(self.find("0::/a/b", a="500000", a_b="max"), 500_000)
        self.assertEqual(self.find("0::/a/b", a_b="400000"), 400_000)

    def test_older_groups(self) -> None:
        found = self.find("5:cpu,memory:/a", memory_a="300000", memory="9223372036854771712")
        self.assertEqual(found, 300_000)

    def test_no_limit(self) -> None:
        self.assertIsNone(self.find("0::/"))
        self.assertIsNone(self.find("3:cpu:/a"))
        self.assertIsNone(found_limit_bytes(self.root / "nothing", self.root))
