"""Tests of `pfsb.paxos.snapshot_taking`: when a snapshot is taken, and when its record is written (Departure 56)."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.frozen_history import HISTORY
from pfsb.paxos.messages import DIGEST_BYTES, Alive, State, ViewChange
from pfsb.paxos.records import SnapshotRecord
from pfsb.paxos.snapshot import SnapshotName
from pfsb.paxos.snapshot_taking import EARLY_BYTES, NAME_PERIODS, PIECE_PAUSE_SECONDS, RETRY_SECONDS, WAITING_BYTES_MAX
from tests.paxos.case import SMALL, FakeSnapshotFile, ReplicaTestCase
from tests.paxos.messages import client_update


class TakerTestCase(ReplicaTestCase):
    settings = evolve(SMALL, snapshot_slots=3)

    def after_start(self) -> None:
        self.follow()
        self.replica.snapshot_taker.is_agreed = lambda seq: True
        self.patch(self.replica.snapshot_names, "is_agreed", lambda name, *, has_waited: True)

    def order_up_to(self, seq: int) -> None:
        for each in range(self.data.ordering.local_aru + 1, seq + 1):
            self.order(each, client_update(timestamp=each))
        self.storage.records.clear()

    def file(self) -> FakeSnapshotFile:
        return self.storage.files[-1]

    def take_all_pieces(self) -> FakeSnapshotFile:
        self.advance(20 * PIECE_PAUSE_SECONDS)
        self.assertIsNotNone(self.file().finished)
        return self.file()


class SnapshotTakerTests(TakerTestCase):
    def test_a_snapshot_begins_at_each_multiple_and_at_no_other_slot(self) -> None:
        self.order_up_to(2)
        self.assertEqual(self.storage.files, [])
        self.order_up_to(3)
        self.assertEqual([each.encoder.seq for each in self.storage.files], [3])

    def test_the_pieces_are_of_the_slot_at_which_it_began(self) -> None:
        """The pieces of a snapshot are those of the slot at which it began: slots that are executed while they are
        taken are not in them."""
        self.order_up_to(3)
        self.order_up_to(5)
        pieces = self.take_all_pieces().pieces
        restorer = self.replica.ordered_queue.restorer()
        for piece in pieces:
            restorer.take(piece)
        self.assertEqual(restorer.seq, 3)
        self.assertEqual(pieces[0].section, HISTORY)

    def test_the_record_is_written_when_the_file_is_on_disk_and_not_before(self) -> None:
        self.order_up_to(3)
        file = self.take_all_pieces()
        self.assertEqual(self.take_records(SnapshotRecord), [])
        name = file.complete()
        self.assertEqual(self.take_records(SnapshotRecord), [SnapshotRecord(name)])

    def test_who_has_asked_is_told_when_the_record_is_on_disk(self) -> None:
        told: list[SnapshotName | None] = []
        self.order_up_to(1)
        self.replica.perform(self.replica.snapshot_taker.take_now, told.append)
        file = self.take_all_pieces()
        self.hold_syncs = True
        name = file.complete()
        self.assertEqual(told, [])
        self.storage.finish_all()
        self.advance(0)
        self.assertEqual(told, [name])
        self.assertEqual(name.seq, 1)

    def test_a_request_while_one_is_taken_gets_the_next_one(self) -> None:
        told: list[SnapshotName | None] = []
        self.order_up_to(4)
        self.replica.perform(self.replica.snapshot_taker.take_now, told.append)
        self.take_all_pieces().complete()
        self._after_event()
        self.assertEqual(told, [])
        self.take_all_pieces().complete()
        self.advance(0.1)
        self.assertEqual([name and name.seq for name in told], [4])

    def test_a_snapshot_of_the_present_slot_is_not_taken_twice(self) -> None:
        told: list[SnapshotName | None] = []
        self.order_up_to(3)
        name = self.take_all_pieces().complete()
        self.storage.snapshot = name
        self.replica.perform(self.replica.snapshot_taker.take_now, told.append)
        self.advance(0)
        self.assertEqual((told, len(self.storage.files)), ([name], 1))

    def test_after_many_bytes_one_is_taken_before_the_next_multiple(self) -> None:
        """After many bytes of batches a snapshot is taken before the next multiple: ten thousand slots of busy clients
        would hold hundreds of megabytes."""
        self.order_up_to(3)
        self.take_all_pieces().complete()
        self.replica.ordered_queue.batch_bytes += EARLY_BYTES
        self.order_up_to(4)
        self.assertEqual([each.encoder.seq for each in self.storage.files], [3, 4])
        name = self.take_all_pieces().complete()
        self.storage.snapshot = evolve(name, size=2 * EARLY_BYTES)
        self.replica.ordered_queue.batch_bytes += EARLY_BYTES
        self.order_up_to(6)
        self.assertEqual(len(self.storage.files), 2)  # compared with the size of the last snapshot, little was executed

    def test_a_large_state_is_not_written_for_little_history(self) -> None:
        self.order_up_to(3)
        name = self.take_all_pieces().complete()
        self.storage.snapshot = evolve(name, size=1_000_000)
        self.order_up_to(6)
        self.assertEqual(len(self.storage.files), 1)
        self.storage.snapshot = evolve(name, size=1)
        self.order_up_to(9)
        self.assertEqual(self.file().encoder.seq, 9)

    def test_no_piece_is_made_while_much_waits_to_be_written(self) -> None:
        self.order_up_to(3)
        self.file().waiting_bytes = WAITING_BYTES_MAX + 1
        self.advance(0.2)
        self.assertEqual(self.file().pieces, [])
        self.file().waiting_bytes = 0
        self.advance(0.2)
        self.assertNotEqual(self.file().pieces, [])

    def test_a_file_without_room_is_given_up_and_the_next_multiple_tried(self) -> None:
        told: list[SnapshotName | None] = []
        self.order_up_to(1)
        self.replica.perform(self.replica.snapshot_taker.take_now, told.append)
        self.file().has_failed = True
        self.advance(0.2)
        self.assertEqual((self.file().abandoned, told), (True, [None]))
        self.order_up_to(3)
        self.assertEqual(self.file().encoder.seq, 3)

    def test_an_application_that_cannot_be_frozen_stops_nobody(self) -> None:
        """If an application cannot be frozen, the fault is logged, and the server goes on and keeps its history."""

        def fails() -> object:
            raise ValueError("no")

        self.order_up_to(2)
        self.patch(self.replica.ordered_queue, "freeze", lambda: (fails() for _ in range(1)))
        self.order_up_to(3)
        self.advance(0.2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.order_up_to(4)
        self.assertEqual(self.take_records(SnapshotRecord), [])

    def test_while_the_disk_is_in_trouble_no_record_is_forced(self) -> None:
        self.order_up_to(3)
        file = self.take_all_pieces()
        self.replica.perform(self.replica.turn.set_trouble, DiskTrouble.FULL)
        file.complete()
        self.assertEqual(self.take_records(SnapshotRecord), [])
        self.replica.perform(self.replica.turn.set_trouble, None)
        self.advance(0.2)
        self.assertEqual(len(self.take_records(SnapshotRecord)), 1)

    def test_a_server_that_stops_gives_its_snapshot_up(self) -> None:
        self.order_up_to(3)
        self.replica.stop()
        self.assertTrue(self.file().abandoned)


class WithoutSnapshotsTests(ReplicaTestCase):
    def test_with_snapshot_every_0_none_is_taken_by_itself(self) -> None:
        self.follow()
        for seq in range(1, 8):
            self.order(seq, client_update(timestamp=seq))
        self.assertEqual(self.storage.files, [])


class AgreementTests(ReplicaTestCase):
    """Departure 40: a server that alone has executed something otherwise keeps its history, and offers nothing."""

    settings = evolve(SMALL, snapshot_slots=3)

    def after_start(self) -> None:
        self.follow()

    def agree(self, *servers: int, digest: bytes = b"", snapshot: tuple[int, bytes] = (0, b"")) -> None:
        """Let these servers tell that they have executed as much as this one, with the same digest, or with the given
        one, and have made a snapshot of this slot and digest."""
        aru = self.data.ordering.local_aru
        digests = self.replica.divergence.own_digests(aru)
        for server_id in servers:
            state = State.REG_LEADER if self.replica.membership.leader_of(1) == server_id else State.REG_NONLEADER
            self.receive(Alive(server_id, 1, state, aru, True, digest + digests[len(digest) :], *snapshot))

    def complete(self) -> SnapshotName:
        """A snapshot of slot 3 is complete on disk."""
        for each in range(1, 4):
            self.order(each, client_update(timestamp=each))
        self.take_records(SnapshotRecord)
        self.advance(20 * PIECE_PAUSE_SECONDS)
        return self.storage.files[-1].complete()

    def test_the_record_waits_until_a_majority_has_executed_the_same(self) -> None:
        one, two, *_ = self.replica.membership.others
        name = self.complete()
        told = name.seq, name.digest
        self.agree(one, snapshot=told)
        self.agree(two, digest=b"x" * DIGEST_BYTES, snapshot=told)
        self.advance(0.2)
        self.assertEqual(self.take_records(SnapshotRecord), [])
        self.agree(two, snapshot=told)
        self.advance(0.1)
        self.assertEqual(self.take_records(SnapshotRecord), [SnapshotRecord(name)])

    def test_the_record_waits_until_a_majority_has_made_the_same_snapshot(self) -> None:
        one, two, three, *_ = self.replica.membership.others
        name = self.complete()
        self.agree(one, snapshot=(name.seq, b"x" * 16))
        self.agree(two, snapshot=(name.seq, name.digest))
        self.agree(three)
        self.advance(0.2)
        self.assertEqual(self.take_records(SnapshotRecord), [])
        self.assertTrue(self.replica.snapshot_taker.waits_for_majority)
        self.agree(three, snapshot=(name.seq, name.digest))
        self.advance(0.1)
        self.assertEqual(self.take_records(SnapshotRecord), [SnapshotRecord(name)])

    def test_the_record_waits_for_names_for_a_while_only(self) -> None:
        """The record of a snapshot waits for a bounded time for a majority to tell its name: others may take their
        snapshots at other slots."""
        one, two, *_ = self.replica.membership.others
        name = self.complete()
        self.agree(one, two)
        patience = NAME_PERIODS * self.settings.alive_seconds
        self.advance(patience - 0.1)
        self.assertEqual(self.take_records(SnapshotRecord), [])
        self.advance(0.2)
        self.assertEqual(self.take_records(SnapshotRecord), [SnapshotRecord(name)])
        self.take(ViewChange)

    def test_a_snapshot_that_was_asked_for_does_not_wait_for_names(self) -> None:
        """The record of a snapshot that was asked for does not wait for others to tell its name: they take none of its
        slot."""
        one, two, *_ = self.replica.membership.others
        self.order(1, client_update(timestamp=1))
        self.replica.perform(self.replica.snapshot_taker.take_now, lambda name: None)
        self.advance(20 * PIECE_PAUSE_SECONDS)
        self.take_records(SnapshotRecord)
        name = self.storage.files[-1].complete()
        self.agree(one, two)
        self.advance(0.1)
        self.assertEqual(self.take_records(SnapshotRecord), [SnapshotRecord(name)])


class LostSnapshotTests(TakerTestCase):
    """The file of the present snapshot is found missing or damaged while the server runs."""

    def lose(self) -> SnapshotName:
        self.order_up_to(3)
        name = self.take_all_pieces().complete()
        self._after_event()
        self.storage.snapshot = name
        self.order_up_to(4)
        self.assertEqual(self.replica.snapshot_taker.seq, 0)
        self.storage.snapshot = None
        self.storage.on_snapshot_lost(name, "missing")
        self._after_event()
        return name

    def test_another_one_is_taken_at_once(self) -> None:
        """When the file of the present snapshot is lost, another one is taken at once: the next multiple may be far,
        and a start before it would have no state."""
        name = self.lose()
        taker = self.replica.snapshot_taker
        self.assertEqual((self.file().encoder.seq, taker.lost), (4, name))
        self.take_all_pieces().complete()
        self._after_event()
        self.assertIsNone(taker.lost)
        self.advance(2 * RETRY_SECONDS)
        self.assertEqual(len(self.storage.files), 2)
        self.take(ViewChange)

    def test_it_is_tried_again_if_that_fails(self) -> None:
        """If the snapshot in place of a lost one cannot be taken, as when the disk has no room for a while, it is tried
        again."""
        self.lose()
        for tries in (2, 3):
            self.assertEqual([file.encoder.seq for file in self.storage.files], [3, *[4] * (tries - 1)])
            self.file().has_failed = True
            self.advance(RETRY_SECONDS)
        self.take(ViewChange)

    def test_one_that_was_begun_before_takes_its_place(self) -> None:
        self.order_up_to(3)
        name = self.take_all_pieces().complete()
        self._after_event()
        self.order_up_to(6)
        self.storage.on_snapshot_lost(name, "missing")
        self.take_all_pieces().complete()
        self._after_event()
        self.assertIsNone(self.replica.snapshot_taker.lost)
        self.assertEqual([file.encoder.seq for file in self.storage.files], [3, 6])

    def test_server_that_stops_takes_none(self) -> None:
        self.lose()
        self.replica.stop()
        self.advance(3 * RETRY_SECONDS)
        self.assertEqual(len(self.storage.files), 2)
