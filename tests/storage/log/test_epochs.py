"""A log in which epochs of the membership begin: what stood above the change is void, also for a later start."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.members import Members
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import AruRecord, EpochRecord, OrderedRecord, ProposalRecord, Record, Recovered, ViewRecord
from pfsb.storage.log.items import Content
from pfsb.storage.log.listing import plain_log, write_tables
from pfsb.storage.log.scan import scan
from pfsb.storage.log.segments import FORMAT_WITHOUT_SNAPSHOTS, make_segment
from pfsb.storage.sqlite import needed
from tests.storage.log.support import OWNER, LogTestCase, content, everything, slot
from tests.storage.support import Server

NEXT = Members((1, 2, 3), epoch=1, since=2, first=3)
VIEW = NEXT.first_view


def proposal(seq: int, view: int) -> ProposalRecord:
    return ProposalRecord(seq, view, Batch(b"slot %d, view %d" % (seq, view)))


class EpochTests(SynchronousTestCase):
    """A server's storage, over several starts."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    def write(self, *turns: tuple[Record, ...]) -> None:
        """One run of the server: a group for each of the turns."""
        server = Server(self.directory)
        server.storage.recover()
        for turn in turns:
            server.write(*turn)
        server.storage.close()

    def found(self) -> Recovered:
        server = Server(self.directory)
        found = server.storage.recover()
        found.ordered = list(found.ordered)
        server.storage.close()
        return found

    def assertSlots(self, found: Recovered, ordered: list[int], accepted: list[tuple[int, int]]) -> None:
        self.assertEqual([seq for seq, _ in found.ordered], ordered)
        self.assertEqual([(each.seq, each.view) for each in found.accepted], accepted)

    def test_disk_without_an_epoch_has_the_founding_servers(self) -> None:
        """There is nothing to go by but the configuration file."""
        self.write((proposal(1, 1),))
        self.assertIs(self.found().members, None)

    def test_slots_above_the_change_are_void(self) -> None:
        """Proposals and ordered marks alike; slots up to the change stay."""
        self.write(
            (proposal(1, 1), proposal(2, 1), proposal(3, 1)),
            (OrderedRecord(4, Batch(b"void")), AruRecord(2), EpochRecord(NEXT), ViewRecord(VIEW, VIEW)),
        )
        found = self.found()
        self.assertEqual((found.members, found.last_installed), (NEXT, VIEW))
        self.assertSlots(found, [1, 2], [])

    def test_slots_of_the_new_epoch_stay(self) -> None:
        """Slots of the group that begins the epoch and of later groups are there after each further start."""
        self.write(
            (proposal(1, 1), proposal(2, 1), proposal(3, 1), proposal(5, 1)),
            (AruRecord(2), EpochRecord(NEXT), ViewRecord(VIEW, VIEW), proposal(3, VIEW)),
            (proposal(4, VIEW),),
        )
        for _ in range(2):
            self.assertSlots(self.found(), [1, 2], [(3, VIEW), (4, VIEW)])

    def test_second_epoch_makes_the_first_void(self) -> None:
        """Each change cuts what its own epoch has left above it."""
        after = Members((2, 3, 4), epoch=2, since=3)
        self.write(
            (proposal(1, 1), proposal(2, 1), AruRecord(2), EpochRecord(NEXT)),
            (proposal(3, VIEW), proposal(4, VIEW)),
            (AruRecord(3), EpochRecord(after)),
        )
        found = self.found()
        self.assertEqual(found.members, after)
        self.assertSlots(found, [1, 2, 3], [])

    def test_log_shows_the_epoch(self) -> None:
        """As JSON, and in the database that `pfsb log` writes."""
        self.write((proposal(1, 1), proposal(2, 1), AruRecord(2), EpochRecord(NEXT)))
        log = scan(self.directory / "log")
        shown = plain_log(log)["epoch"]
        self.assertEqual((shown["number"], shown["since"], shown["voters"], shown["first"]), (1, 2, [1, 2, 3], 3))
        path = Path(self.mktemp())
        write_tables(log, path)
        connection = needed("the test").connect(path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("SELECT * FROM epoch").fetchall(), [(1, 2, "1 2 3", "", 3, "")])


class SegmentTests(LogTestCase):
    """Groups that fill several segments, each of which opens with the whole state."""

    def test_segment_that_opens_with_the_epoch_makes_nothing_void(self) -> None:
        """The state is repeated in each segment; only the first time it begins the epoch."""
        self.write_all(
            [
                content(ViewRecord(5, 4), slot(1, 300), slot(2, 10), slot(3, 700)),
                content(AruRecord(2), EpochRecord(NEXT), ViewRecord(VIEW, VIEW)),
                content(slot(3, 900, VIEW)),
                content(slot(4, 900, VIEW)),
                content(slot(5, 900, VIEW), AruRecord(4)),
                content(slot(6, 900, VIEW)),
            ]
        )
        found = everything(self.directory)
        self.assertGreater(len(self.files()), 2)
        self.assertEqual(found.state.effect.members, NEXT)
        views = {seq: view for seq, (view, _) in found.slots.items()}
        self.assertEqual(views, {1: 1, 2: 1} | dict.fromkeys(range(3, 7), VIEW))

    def test_running_log_knows_what_a_start_finds(self) -> None:
        """The index of the writer, and that of the next scan, hold the same slots in the same segments."""
        writer = self.write_all([content(slot(1, 9), slot(2, 9), slot(3, 9))])
        writer.append(content(AruRecord(2), EpochRecord(NEXT), slot(3, 9, VIEW)))
        self.assertEqual((writer.log.index.above(0), writer.log.top), ([1, 2, 3], 3))
        writer.append(content(AruRecord(2), EpochRecord(evolve(NEXT, epoch=2))))
        again = scan(self.directory, OWNER)
        for log in (writer.log, again):
            self.assertEqual((log.index.above(0), log.top), ([1, 2], 2))

    def assertEpochRefused(self, text: str) -> None:
        self.assertIn(text, str(self.assertRaises(StorageRefused, scan, self.directory, OWNER)))

    def test_former_epoch_is_refused(self) -> None:
        """No server goes back to an earlier epoch."""
        self.write_all([content(slot(1, 9)), content(EpochRecord(evolve(NEXT, epoch=2))), content(EpochRecord(NEXT))])
        self.assertEpochRefused("its epoch is older")

    def test_other_servers_of_one_epoch_are_refused(self) -> None:
        """An epoch begins once."""
        self.write_all([content(slot(1, 9)), content(EpochRecord(NEXT)), content(EpochRecord(evolve(NEXT, first=1)))])
        self.assertEpochRefused("its epoch is older")

    def test_segment_of_an_earlier_version_holds_no_epoch(self) -> None:
        """No version of pfsb writes one there."""
        make_segment(self.directory, evolve(self.head(1), version=FORMAT_WITHOUT_SNAPSHOTS))
        writer = self.writer()
        for each in (Content(1), content(EpochRecord(NEXT))):
            writer.append(each)
        self.assertEpochRefused("hold no epochs")
