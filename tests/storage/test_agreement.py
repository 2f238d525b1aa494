"""Tests that both kinds of storage recover the same from the same records."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import IStableStorage, StorageRefused
from pfsb.paxos.members import Members
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import (
    AruRecord,
    EpochRecord,
    OrderedRecord,
    PeerRecord,
    ProposalRecord,
    Record,
    SnapshotRecord,
    ViewRecord,
)
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from tests.examples import examples
from tests.storage.support import Server, plain

PIECE = Piece("kv", b"state")


def name_of(seq: int) -> SnapshotName:
    """The name of the snapshot of this slot, whose only piece is `PIECE`."""
    encoder = SnapshotEncoder(seq, b"cluster!")
    for _ in (encoder.head(), encoder.piece(PIECE), encoder.end()):
        pass
    return encoder.name


SEQS = st.integers(1, 6)
NUMBERS = st.integers(0, 2**40)
BATCHES = st.binary(max_size=20).map(Batch)
RECORDS = st.one_of(
    st.builds(ViewRecord, NUMBERS, NUMBERS),
    st.builds(ProposalRecord, SEQS, st.integers(1, 2**40), BATCHES),
    st.builds(OrderedRecord, SEQS, BATCHES),
    st.builds(AruRecord, st.integers(0, 4)),
    st.builds(PeerRecord, st.integers(0, 5), st.binary(min_size=8, max_size=8)),
    st.integers(1, 6).map(lambda seq: SnapshotRecord(name_of(seq))),
    st.builds(EpochRecord, st.builds(Members, st.sets(st.integers(0, 5), min_size=1))),
)
STARTS = st.lists(st.lists(st.lists(RECORDS, max_size=6), max_size=4), min_size=1, max_size=3)
"""Starts of a server; each has turns, each of which has records."""


class AgreementTests(SynchronousTestCase):
    """Memory storage, which the simulator uses, recovers what the storage on real disks recovers."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    @examples(25)
    @given(STARTS)
    def test_both_recover_the_same(self, starts: list[list[list[Record]]]) -> None:
        """Over any number of starts and any grouping into turns both storages recover the same; a gap is refused by
        both, in the same words."""
        shutil.rmtree(self.directory, ignore_errors=True)
        disk = MemoryDisk()
        self.local_aru = self.epoch = 0
        for turns in [*starts, []]:
            turns = [[self.sane(record) for record in turn] for turn in turns]
            on_file = self.run_log(turns)
            in_memory = self.run_memory(disk, turns)
            self.assertEqual(on_file, in_memory)
            if isinstance(on_file, str):
                return

    def sane(self, record: Record) -> Record:
        """Change the record into one that a server could write: Local_Aru never goes back, and epochs begin at
        Local_Aru."""
        if isinstance(record, EpochRecord):
            self.epoch += 1
            return EpochRecord(evolve(record.members, epoch=self.epoch, since=self.local_aru))
        if isinstance(record, AruRecord):
            self.local_aru = max(self.local_aru, record.local_aru)
            return AruRecord(self.local_aru)
        return record

    def make_snapshots(
        self, storage: IStableStorage, turns: list[list[Record]], wait: Callable[[list[Any]], None]
    ) -> None:
        """Make the snapshots that the records name."""
        for record in [record for turn in turns for record in turn]:
            if isinstance(record, SnapshotRecord):
                names: list[SnapshotName] = []
                file = storage.write_snapshot(record.name.seq, b"cluster!")
                file.write(PIECE)
                file.finish(names.append)
                wait(names)
                self.assertEqual(names, [record.name])

    def run_log(self, turns: list[list[Record]]) -> object:
        server = Server(self.directory)
        try:
            recovered = plain(server.storage.recover())
            history: list[object] = []
            self.make_snapshots(server.storage, turns, lambda names: server.clock.run_until(lambda: bool(names)))
            for number, turn in enumerate(turns):
                server.sync(number, *turn)
            server.clock.run_until(lambda: server.told == list(range(len(turns))))
            storage = server.storage
            history.append(server.read(1, 9))
            history.append(server.read(storage.compacted + 1, 9))
            return recovered, storage.snapshot, storage.compacted, history
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
            self.make_snapshots(storage, turns, lambda names: clock.pump([0] * 5))
            told: list[int] = []
            for number, turn in enumerate(turns):
                for record in turn:
                    storage.append(record)
                storage.sync(lambda number=number: told.append(number))
            clock.advance(0)
            self.assertEqual(told, list(range(len(turns))))
            storage.read_history(1, 9, 10**6, history.append)
            storage.read_history(storage.compacted + 1, 9, 10**6, history.append)
            clock.advance(0)
            return recovered, storage.snapshot, storage.compacted, history
        except StorageRefused as error:
            return str(error).partition(": ")[2]
        finally:
            storage.close()
