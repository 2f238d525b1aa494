"""Tests that both kinds of storage recover the same from the same records."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, OrderedRecord, PeerRecord, ProposalRecord, Record, ViewRecord
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from tests.examples import examples
from tests.storage.support import Server, plain

SEQS = st.integers(1, 6)
NUMBERS = st.integers(0, 2**40)
BATCHES = st.binary(max_size=20).map(Batch)
RECORDS = st.one_of(
    st.builds(ViewRecord, NUMBERS, NUMBERS),
    st.builds(ProposalRecord, SEQS, st.integers(1, 2**40), BATCHES),
    st.builds(OrderedRecord, SEQS, BATCHES),
    st.builds(AruRecord, st.integers(0, 4)),
    st.builds(PeerRecord, st.integers(0, 5), st.binary(min_size=8, max_size=8)),
)
STARTS = st.lists(st.lists(st.lists(RECORDS, max_size=6), max_size=4), min_size=1, max_size=3)
"""Starts of a server; each has turns, each of which has records."""


class AgreementTests(SynchronousTestCase):
    """The simulator proves nothing about a server whose disk behaves otherwise."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    @examples(25)
    @given(STARTS)
    def test_both_recover_the_same(self, starts: list[list[list[Record]]]) -> None:
        """Over any number of starts, any grouping into turns; a gap is refused by both, in the same words."""
        shutil.rmtree(self.directory, ignore_errors=True)
        disk = MemoryDisk()
        for turns in [*starts, []]:
            on_file = self.run_log(turns)
            in_memory = self.run_memory(disk, turns)
            self.assertEqual(on_file, in_memory)
            if isinstance(on_file, str):
                return

    def run_log(self, turns: list[list[Record]]) -> object:
        server = Server(self.directory)
        try:
            recovered = plain(server.storage.recover())
            history: list[object] = []
            for number, turn in enumerate(turns):
                server.sync(number, *turn)
            server.clock.run_until(lambda: server.told == list(range(len(turns))))
            history.append(server.read(1, 9))
            return recovered, history
        except StorageRefused as error:
            return str(error).partition(": ")[2]
        finally:
            server.storage.close()

    def run_memory(self, disk: MemoryDisk, turns: list[list[Record]]) -> object:
        clock = Clock()
        storage = MemoryStorage(disk, clock, lambda: 0.0, random.Random(7).randbytes)
        try:
            recovered = plain(storage.recover())
            history: list[object] = []
            told: list[int] = []
            for number, turn in enumerate(turns):
                for record in turn:
                    storage.append(record)
                storage.sync(lambda number=number: told.append(number))
            clock.advance(0)
            self.assertEqual(told, list(range(len(turns))))
            storage.read_history(1, 9, 10**6, history.append)
            clock.advance(0)
            return recovered, history
        except StorageRefused as error:
            return str(error).partition(": ")[2]
        finally:
            storage.close()
