"""A child process that appends to a storage, and reports on standard output what it was told is durable.

    python -m tests.storage.child DIRECTORY FIRST

Each line `N` says that slots FIRST..N and AruRecord N - 1 have been acknowledged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.python.failure import Failure

from pfsb.paxos.records import AruRecord, ProposalRecord
from pfsb.storage.log.storage import LogStorage
from tests.storage.support import DIGEST, batch

TURNS_UNDER_WAY = 4


class Appender:
    def __init__(self, directory: str, first: int) -> None:
        self.storage = LogStorage(Path(directory), DIGEST, "four", 2, reactor, os.urandom, self.failed, (0, 1, 2, 3))
        self.storage.recover()
        self.seq = first - 1

    def start(self) -> None:
        for _ in range(TURNS_UNDER_WAY):
            self.turn()

    def turn(self) -> None:
        self.seq += 1
        seq = self.seq
        self.storage.append(ProposalRecord(seq, 1, batch(f"slot {seq}")))
        self.storage.append(AruRecord(seq - 1))
        self.storage.sync(lambda: self.durable(seq))

    def durable(self, seq: int) -> None:
        os.write(1, b"%d\n" % seq)
        self.turn()

    def failed(self, failure: Failure) -> None:
        failure.printTraceback(sys.stderr)
        reactor.stop()


if __name__ == "__main__":
    appender = Appender(sys.argv[1], int(sys.argv[2]))
    reactor.callWhenRunning(appender.start)
    reactor.run()
