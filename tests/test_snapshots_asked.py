"""Tests of `pfsb.snapshots_asked`, and of clusters that take no snapshots since an application gives none."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.interfaces import Command, CommandDescription, Done, IContext, IReplicatedApplication, Refused
from pfsb.config.config import Config, ServerConfig
from pfsb.server import Server
from pfsb.service.assembly import GivenSurroundings, frame_identity, make_server
from pfsb.storage.memory import MemoryDisk, MemoryStorage
from pfsb.transports.faults import LinkFaults
from pfsb.transports.links import Links


@implementer(IReplicatedApplication)
class Tally:
    """An application that can give no snapshot of its state."""

    name = "tally"
    version = 1
    commands = (CommandDescription("ADD", "ADD", "Count one more."),)

    def __init__(self) -> None:
        self.count = 0

    def check(self, command: tuple[str, ...]) -> Command:
        return command

    def execute(self, command: Command, context: IContext) -> Any:
        self.count += 1
        return Done((("count", self.count),))

    def query(self, command: Command) -> Any:
        raise AssertionError("there are no questions")

    def session_ended(self, client_id: str, context: IContext) -> None: ...

    def time_passed(self, context: IContext) -> None: ...

    def next_deadline(self) -> int | None:
        return None


class WithoutSnapshotsTests(SynchronousTestCase):
    """A cluster of one server that is set to take a snapshot at each slot, and takes none, since its application gives
    none."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.clock, self.disk = Clock(), MemoryDisk()
        self.server = self.started()

    def started(self) -> Server:
        self.tally = Tally()
        dice = random.Random(0)
        servers = {0: ServerConfig(0, ("127.0.0.1", 1), "tcp:1")}
        config = Config("tally.yaml", "tally", servers, 0, apps=("tally",), snapshot_every=1)
        faults = LinkFaults(self.clock, dice)
        links = Links(frame_identity(config, 0), self.clock, faults, lambda peer, frame: None, None)
        storage = MemoryStorage(self.disk, self.clock, float, dice.randbytes)
        given = GivenSurroundings(0, self.clock, dice, storage, links, lambda failure: failure.raiseException())
        server = make_server(config, Catalogue([self.tally]), given, faults=faults)
        server.start()
        self.clock.pump([0.05] * 100)
        return server

    def add(self, times: int) -> None:
        answers: list[Any] = []
        connection = self.server.local_clients.connect(lambda code, text: None)
        for _ in range(times):
            connection.submit(None, ("ADD",), answers.append)
            self.clock.pump([0.05] * 10)
        self.assertEqual(len(answers), times)

    def told(self) -> int:
        return sum("gives no snapshots" in str(event.get("log_format")) for event in self.events)

    def test_history_is_kept_whole_and_a_start_executes_all_of_it(self) -> None:
        self.add(3)
        self.server.stop()
        self.server = self.started()
        self.assertEqual((self.tally.count, self.disk.snapshots, self.disk.compacted), (3, {}, 0))

    def test_one_line_says_so_at_each_start(self) -> None:
        self.add(3)
        self.assertEqual(self.told(), 1)
        self.server.stop()
        self.server = self.started()
        self.assertEqual(self.told(), 2)
        self.assertEqual(self.server.status()["snapshots"]["impossible_with"], ["tally"])  # type: ignore[index]
        self.assertEqual([event for event in self.events if "snapshot of slot" in str(event.get("log_format"))], [])

    def test_client_that_asks_for_a_snapshot_is_told_why_there_is_none(self) -> None:
        answers: list[Any] = []
        self.server.snapshots.answer(10.0, answers.append)
        self.clock.advance(1)
        (refused,) = answers
        assert isinstance(refused, Refused)
        self.assertEqual((refused.code, "the application tally gives none" in refused.text), ("UNAVAILABLE", True))
