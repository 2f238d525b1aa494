"""A log with epochs of the membership: when one begins, slots above the change are void, also for a later start."""

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
        """Run the server once, and write a group for each of the turns."""
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
        """A disk without an epoch has the servers of the configuration file."""
        self.write((proposal(1, 1),))
        self.assertIs(self.found().members, None)

    def test_slots_above_the_change_are_void(self) -> None:
        """Slots above the change are void, proposals and ordered ones alike; slots up to the change stay."""
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
        """A second epoch makes the slots void that the first has left above the second change."""
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
        """`pfsb log` shows the epoch as JSON, and in the database that it writes."""
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
        """A segment that opens with the epoch makes nothing void: the state is repeated in each segment, and only its
        first place begins the epoch."""
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
        """A record of a former epoch is refused: no server goes back."""
        self.write_all([content(slot(1, 9)), content(EpochRecord(evolve(NEXT, epoch=2))), content(EpochRecord(NEXT))])
        self.assertEpochRefused("its epoch is older")

    def test_other_servers_of_one_epoch_are_refused(self) -> None:
        """A record with other servers for the same epoch is refused: an epoch begins once."""
        self.write_all([content(slot(1, 9)), content(EpochRecord(NEXT)), content(EpochRecord(evolve(NEXT, first=1)))])
        self.assertEpochRefused("its epoch is older")

    def test_segment_of_an_earlier_version_holds_no_epoch(self) -> None:
        """An epoch in a segment of an earlier format is refused: no version of pfsb writes one there."""
        make_segment(self.directory, evolve(self.head(1), version=FORMAT_WITHOUT_SNAPSHOTS))
        writer = self.writer()
        for each in (Content(1), content(EpochRecord(NEXT))):
            writer.append(each)
        self.assertEpochRefused("hold no epochs")
