from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pfsb.transports.secret_watch import LOOK_SECONDS, SecretWatch


class SecretWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.file = Path(self.mktemp())
        self.write(b"old")
        self.taken: list[Sequence[bytes]] = []
        self.watch = SecretWatch(self.clock, str(self.file), self.read, self.taken.append, [b"old"])
        self.watch.start()
        self.addCleanup(self.watch.stop)

    def write(self, content: bytes) -> None:
        """Put another file in the place of the former one, as `pfsb secret` does."""
        beside = Path(self.mktemp())
        beside.write_bytes(content)
        os.replace(beside, self.file)

    def read(self) -> Sequence[bytes] | str:
        try:
            return self.file.read_bytes().split() or "it is empty"
        except OSError as error:
            return str(error)

    def test_changed_file_is_taken_once(self) -> None:
        """A changed secret file is taken once; an unchanged one is not read again."""
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.taken, [])
        for content in (b"old new", b"new old", b"new"):
            self.write(content)
            for _ in range(3):
                self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.taken, [[b"old", b"new"], [b"new", b"old"], [b"new"]])

    def test_file_that_cannot_be_used_changes_nothing_and_is_told_once(self) -> None:
        """A file that cannot be used, such as a half-finished copy, changes nothing and is reported once; when it is
        whole, it is taken."""
        with capturedLogs() as events:
            self.write(b"")
            for _ in range(3):
                self.clock.advance(LOOK_SECONDS)
        said = [formatEvent(event) for event in events]
        self.assertEqual(said, ["it is empty; the secrets that were read before stay in use"])
        self.write(b"old new")
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.taken, [[b"old", b"new"]])

    def test_nothing_is_looked_at_after_the_end(self) -> None:
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
