"""Tests of `pfsb.paxos.snapshot_fetching`: a server that is far behind installs a snapshot (Departure 57)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from pfsb.paxos import snapshot_fetching
from pfsb.paxos.frozen_history import History
from pfsb.paxos.interfaces import StorageRefused
from pfsb.paxos.members import Members
from pfsb.paxos.messages import (
    DIGEST_BYTES,
    Batch,
    Prepare,
    PrepareOK,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
    ViewChange,
)
from pfsb.paxos.records import Accepted, AruRecord, PeerRecord, Recovered, SnapshotRecord
from pfsb.paxos.snapshot import Piece, SnapshotEncoder, SnapshotName, WrongSnapshot
from pfsb.paxos.snapshot_fetching import PAUSE_PERIODS
from pfsb.paxos.snapshot_rows import packed
from pfsb.paxos.snapshot_taking import WAITING_BYTES_MAX
from pfsb.storage.effect import Effect
from tests.paxos.case import FakeFetchedSnapshot, ReplicaTestCase, identity_of
from tests.paxos.messages import alive, client_update, ordered, proposal, vc_proof

S = 5_000
"""The slot of the snapshot: far above all that the server under test has."""
DIGEST = b"d" * DIGEST_BYTES


def snapshot(seq: int = S, filling: bytes = b"f" * 1_500, members: Members | None = None) -> tuple[SnapshotName, bytes]:
    """A snapshot that the server under test can install, of five parts and a little more."""
    history = History(seq, DIGEST, 5_000, 400, OrderedDict([("1.a", (7, seq))]), members)
    pieces = [*history.pieces(), Piece("executed", packed([(each, 5_000, []) for each in range(1, 200)]))]
    encoder = SnapshotEncoder(seq, b"cluster1")
    data = [encoder.head(), *map(encoder.piece, pieces)]
    if filling:
        data.append(encoder.piece(Piece("unknown", filling)))
    data.append(encoder.end())
    return encoder.name, b"".join(data)


class FetchTestCase(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow()
        self.name, self.data_of_snapshot = snapshot(filling=b"")
        self.part = self.settings.frame_data_bytes_max
        self.peer = self.be_behind()

    def be_behind(self) -> int:
        """Let the server hear of slots far above its own, so that it asks a peer for them. Returns that peer."""
        for peer in self.replica.membership.others:
            leads = self.replica.membership.leader_of(1) == peer
            self.receive(alive(peer, 1, State.REG_LEADER if leads else State.REG_NONLEADER, S))
        self.advance(0.1)
        (asked,) = self.take_with_destination(ReconciliationRequest)
        return asked

    def take_with_destination(self, kind: type) -> list[int]:
        """The destinations of the messages of a kind that no assertion has looked at yet."""
        found = [sent for sent in self.transport.sent if isinstance(sent.message, kind) and not sent.looked_at]
        for sent in found:
            sent.looked_at = True
        return [sent.to or 0 for sent in found]

    def offer(self, name: SnapshotName | None = None, sender: int | None = None) -> None:
        self.receive(SnapshotOffer(sender or self.peer, S, name or self.name))

    def serve(self, sender: int | None = None, *, parts: int = 1_000) -> int:
        """Answer requests for parts until none is left, or so many are answered. Returns how many were answered."""
        answered = 0
        while answered < parts and (asked := self.take(SnapshotRequest)):
            for request in asked[: parts - answered]:
                data = self.data_of_snapshot[request.offset : request.offset + request.size]
                self.receive(SnapshotPart(sender or self.peer, request.name, request.offset, data))
                answered += 1
        return answered

    @property
    def file(self) -> FakeFetchedSnapshot:
        return self.storage.fetched[-1]

    def check_and_load(self) -> None:
        self.file.check()
        self._after_event()
        self.storage.finish_snapshot_reads()
        self._after_event()


class FetchTests(FetchTestCase):
    def test_an_offer_is_fetched_part_by_part_and_installed(self) -> None:
        self.offer()
        self.assertEqual(self.serve(), -(-self.name.size // self.part))
        self.assertEqual(self.file.data, self.data_of_snapshot)
        self.storage.records.clear()
        self.check_and_load()
        self.assertEqual(self.data.ordering.local_aru, S)
        self.assertEqual(self.data.ordering.global_history.floor, S)
        self.assertEqual(self.replica.ordered_queue.digests.head, DIGEST)
        self.assertEqual(self.replica.ordered_queue.last_executed.of("1.a"), 7)
        self.assertEqual(self.storage.records, [SnapshotRecord(self.name), AruRecord(S)])

    def test_snapshot_of_a_later_epoch_is_named_before_the_epoch(self) -> None:
        """A snapshot of a later epoch is named in the log before the epoch, so that the log knows that the slots before
        it may be missing (Departure 60)."""
        self.name, self.data_of_snapshot = snapshot(filling=b"", members=Members((1, 2, 3), epoch=1, since=40))
        self.offer()
        self.serve()
        self.storage.records.clear()
        self.check_and_load()
        self.assertEqual(self.replica.membership.epoch, 1)
        effect = Effect()
        effect.apply_all(self.storage.records)
        self.assertEqual((effect.snapshot, effect.local_aru, effect.skipped), (self.name, S, S))
        self.assertEqual(effect.members, self.replica.membership.members)

    def test_nothing_is_told_before_the_records_are_on_disk(self) -> None:
        """Nothing that rests on the snapshot leaves before its records are on disk: ALIVE tells the Local_Aru on disk
        (Departure 1)."""
        self.offer()
        self.serve()
        self.hold_syncs = True
        self.check_and_load()
        self.assertEqual((self.data.ordering.local_aru, self.replica.turn.durable.local_aru), (S, 0))
        self.storage.finish_all()
        self.assertEqual(self.replica.turn.durable.local_aru, S)

    def test_slots_that_follow_the_snapshot_are_executed_with_it(self) -> None:
        self.replica.reconciliation.catch_up_to(S)
        history = self.data.ordering.global_history
        update = client_update(timestamp=1, made_at=450)
        self.receive(ordered(self.peer, S + 1, update))
        self.assertIsNotNone(history.get(S + 1))
        self.offer()
        self.serve()
        self.check_and_load()
        self.assertEqual(self.data.ordering.local_aru, S + 1)
        self.assertIn(AruRecord(S + 1), self.storage.records)

    def test_a_server_that_was_not_asked_has_nothing_to_offer(self) -> None:
        """An offer of a server that was not asked is ignored, so that one forged message begins nothing."""
        stranger = next(i for i in self.replica.membership.others if i != self.peer)
        self.offer(sender=stranger)
        self.assertEqual(self.storage.fetched, [])

    def test_an_older_snapshot_than_what_is_executed_is_not_wanted(self) -> None:
        for seq in range(1, 4):
            self.receive(ordered(self.peer, seq, client_update(timestamp=seq)))
        self.offer(snapshot(3)[0])
        self.assertEqual(self.storage.fetched, [])

    def test_a_leader_fetches_nothing(self) -> None:
        """A leader fetches no snapshot: it lacks no slot that it could not order, and repeats its own proposals."""
        self.expire_progress_timer()
        self.lead()
        self.receive(SnapshotOffer(self.peer, S, self.name))
        self.assertEqual(self.storage.fetched, [])

    def test_no_slots_are_asked_for_while_a_snapshot_is_fetched(self) -> None:
        self.offer()
        self.serve(parts=1)
        self.take(SnapshotRequest)
        self.advance(0.3)
        self.assertNotSent(ReconciliationRequest)
        self.take(SnapshotRequest)

    def test_a_lost_part_is_asked_for_again(self) -> None:
        self.offer()
        lost = self.take(SnapshotRequest)
        self.advance(0.4)
        again = self.take(SnapshotRequest)
        self.assertIn(lost[0].offset, [request.offset for request in again])

    def test_parts_may_come_in_any_order_and_twice(self) -> None:
        self.offer()
        asked = self.take(SnapshotRequest)
        for request in [*reversed(asked), *asked]:
            data = self.data_of_snapshot[request.offset : request.offset + request.size]
            self.receive(SnapshotPart(self.peer, self.name, request.offset, data))
        self.serve()
        self.assertEqual(self.file.data, self.data_of_snapshot)

    def test_parts_that_are_none_change_nothing(self) -> None:
        """Parts of another snapshot, at a wrong place, of a wrong size, or behind the end change nothing."""
        self.offer()
        asked = self.take(SnapshotRequest)
        other = snapshot(S + 1, b"")[0]
        size = asked[0].size
        for part in (
            SnapshotPart(self.peer, other, 0, b"x" * size),
            SnapshotPart(self.peer, self.name, 1, b"x" * size),
            SnapshotPart(self.peer, self.name, 0, b"x" * (size - 1)),
        ):
            self.receive(part)
        self.receive(SnapshotPart(self.peer, self.name, self.name.size - 1, b"xx"))
        self.assertDiscarded("implausible")
        self.assertEqual(self.file.data, b"")

    def test_a_fetch_goes_on_where_an_earlier_one_ended(self) -> None:
        begin = self.data_of_snapshot[: self.part + 10]
        self.storage.parts_left[self.name] = begin
        self.offer()
        self.assertEqual(self.take(SnapshotRequest)[0].offset, len(begin))
        self.advance(0.4)
        self.serve()
        self.assertEqual(self.file.data, self.data_of_snapshot)

    def test_a_file_that_an_earlier_fetch_has_completed_is_only_checked(self) -> None:
        self.storage.parts_left[self.name] = self.data_of_snapshot
        self.offer()
        self.assertEqual(self.take(SnapshotRequest), [])
        self.check_and_load()
        self.assertEqual(self.data.ordering.local_aru, S)

    def test_a_wrong_file_is_fetched_again_from_another_server(self) -> None:
        self.offer()
        self.data_of_snapshot = self.data_of_snapshot[:-1] + b"?"
        self.serve()
        self.file.check()
        self._after_event()
        self.assertEqual(self.data.ordering.local_aru, 0)
        (other,) = self.take_with_destination(ReconciliationRequest)
        self.assertNotEqual(other, self.peer)

    def test_a_file_that_the_disk_has_no_room_for_is_given_up_also_while_it_is_checked(self) -> None:
        """A file for which the disk has no room is given up also while it is checked, when the storage does not call
        back; the server asks for slots again."""
        self.offer()
        self.serve()
        self.assertTrue(self.replica.snapshot_fetcher.is_busy)
        self.file.has_failed = True
        self.advance(self.settings.reconciliation_seconds)
        self.assertIsNone(self.replica.snapshot_fetcher.loading)
        self.assertAsksAgainAfterAPause()

    def assertAsksAgainAfterAPause(self) -> None:
        """Assert that the server asks again after a pause, and not at once: there would be no room again, without
        end."""
        fetcher, period = self.replica.snapshot_fetcher, self.settings.reconciliation_seconds
        self.take(SnapshotRequest)
        self.assertEqual((fetcher.is_busy, self.take_with_destination(ReconciliationRequest)), (True, []))
        self.offer()
        self.assertEqual(self.take(SnapshotRequest), [])
        for _ in range(PAUSE_PERIODS + 1):
            self.advance(period)
            self.hear_leader(local_aru=S)
        self.assertFalse(fetcher.is_busy)
        self.assertNotEqual(self.take_with_destination(ReconciliationRequest), [])
        self.take(ViewChange)

    def test_a_file_without_room_is_given_up_while_parts_arrive(self) -> None:
        """A file for which there is no room is given up while parts still arrive, although each part puts the next look
        off."""
        self.offer()
        self.serve(parts=1)
        self.file.has_failed = True
        self.serve(parts=1)
        self.assertIsNone(self.replica.snapshot_fetcher.fetch)
        self.assertAsksAgainAfterAPause()

    def test_while_the_disk_is_slow_no_more_parts_are_asked_for(self) -> None:
        """While the disk is slow, no more parts are asked for, since they would wait in memory."""
        self.offer()
        self.file.waiting_bytes = WAITING_BYTES_MAX + 1
        self.serve(parts=1)
        self.take(SnapshotRequest)
        self.advance(0.2)
        self.assertEqual(self.take(SnapshotRequest), [])
        self.file.waiting_bytes = 0
        self.advance(0.2)
        self.assertNotEqual(self.take(SnapshotRequest), [])

    def test_a_source_without_the_snapshot_is_replaced_by_another_offer(self) -> None:
        self.offer()
        self.take(SnapshotRequest)
        self.receive(SnapshotPart(self.peer, self.name, 0, b""))
        (other,) = self.take_with_destination(ReconciliationRequest)
        self.peer = other
        self.offer()
        self.serve()
        self.check_and_load()
        self.assertEqual(self.data.ordering.local_aru, S)

    def test_a_silent_source_is_given_up(self) -> None:
        self.offer()
        self.serve(parts=1)
        for _ in range(12):
            self.advance(0.2)
            self.hear_leader(local_aru=S)
            self.take(SnapshotRequest)
        self.assertIsNone(self.replica.snapshot_fetcher.fetch)
        self.assertNotEqual(self.take_with_destination(ReconciliationRequest), [])
        self.take(ViewChange)

    def test_a_snapshot_that_cannot_be_understood_is_not_installed(self) -> None:
        """A snapshot whose bytes are right, but whose pieces this version does not understand, is not installed."""
        self.name, self.data_of_snapshot = snapshot()
        self.patch(self.replica.ordered_queue, "restorer", self._refusing_restorer)
        self.offer()
        self.serve()
        self.check_and_load()
        self.assertEqual((self.data.ordering.local_aru, self.storage.snapshot), (0, None))
        self.assertEqual(self.take_records(SnapshotRecord), [])
        self.assertFalse(self.replica.peers.is_ahead(self.peer, 0), "the same offer would follow at once")
        self.take(ReconciliationRequest)

    def _refusing_restorer(self) -> object:
        class Refusing:
            def take(self, piece: Piece) -> None:
                raise WrongSnapshot("no")

        return Refusing()

    def test_a_snapshot_that_was_overtaken_meanwhile_is_dropped(self) -> None:
        self.patch(snapshot_fetching, "ASKED_ELSEWHERE_MAX", 0)
        self.name, self.data_of_snapshot = snapshot(2, b"")
        self.receive(ordered(self.peer, 1, client_update(timestamp=1)))
        self.offer()
        self.serve()
        self.receive(ordered(self.peer, 2, client_update(timestamp=2)))
        self.check_and_load()
        self.assertEqual(self.data.ordering.local_aru, 2)
        self.assertEqual(self.take_records(SnapshotRecord), [])
        self.assertEqual(len(self.machine.executed), 2)
        self.take(ReconciliationRequest)

    def test_after_the_install_no_prepare_below_the_snapshot_is_answered(self) -> None:
        """G19: after a snapshot was installed, no PREPARE for slots below it is answered: what this server has accepted
        there is gone."""
        self.offer()
        self.serve()
        self.check_and_load()
        self.expire_progress_timer()
        self.take(ViewChange)
        self.preinstall(3)
        self.receive(Prepare(3, 3, S - 1))
        self.assertNotSent(PrepareOK)
        self.receive(Prepare(3, 3, S))
        self.assertEqual(len(self.take(PrepareOK)), 1)


class ServingTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow()
        self.name, self.data_of_snapshot = snapshot()
        self.storage.snapshot, self.storage.compacted = self.name, 400
        self.storage.complete[self.name] = self.data_of_snapshot
        self.data.ordering.global_history.forget_up_to(450)
        self.data.ordering.local_aru = S
        self.data.ordering.global_history.floor = S
        self.replica.ordered_queue.digests.begin_at(S, DIGEST)
        self.replica.snapshot_fetcher.installed += 1

    def answer_reads(self) -> None:
        while self.storage.reads:
            *_, found = self.storage.reads.pop(0)
            found([])

    def test_a_server_that_asks_for_dropped_slots_is_offered_the_snapshot(self) -> None:
        self.receive(ReconciliationRequest(4, 10, 1_000))
        self.answer_reads()
        self.assertSent(SnapshotOffer(self.server_id, S, self.name), 4)

    def test_slots_that_are_kept_below_the_snapshot_are_never_replaced_by_it(self) -> None:
        """If a slot that the storage keeps cannot be read for another reason, the snapshot is not offered in its place,
        and the answer is an empty reply."""
        self.receive(ReconciliationRequest(4, 410, 1_000))
        self.answer_reads()
        self.assertSent(ReconciliationReply(self.server_id, 410, S), 4)

    def test_a_part_is_sent_as_it_was_asked_for(self) -> None:
        self.receive(SnapshotRequest(4, self.name, 20, 100))
        self.storage.finish_snapshot_reads()
        self.assertSent(SnapshotPart(self.server_id, self.name, 20, self.data_of_snapshot[20:120]), 4)

    def test_a_part_is_no_larger_than_a_frame(self) -> None:
        self.receive(SnapshotRequest(4, self.name, 0, 1_000))
        (read,) = self.storage.snapshot_reads
        self.assertEqual(read[2], self.settings.frame_data_bytes_max)
        self.storage.snapshot_reads.clear()

    def test_a_snapshot_that_is_gone_is_answered_without_data(self) -> None:
        gone = snapshot(S - 1)[0]
        self.receive(SnapshotRequest(4, gone, 0, 100))
        self.storage.finish_snapshot_reads()
        self.assertSent(SnapshotPart(self.server_id, gone, 0, b""), 4)

    def test_a_server_that_asks_without_end_is_not_served_without_end(self) -> None:
        self.replica.reconciliation.note_served(4, 100_000_000)
        self.receive(SnapshotRequest(4, self.name, 0, 100))
        self.assertEqual(self.storage.snapshot_reads, [])

    def test_numbers_that_cannot_be_are_discarded(self) -> None:
        for message in (
            SnapshotRequest(4, self.name, self.name.size, 1),
            SnapshotOffer(4, 3, self.name),
            SnapshotPart(4, self.name, self.name.size, b"x"),
        ):
            self.receive(message)
            self.assertDiscarded("implausible")


class FewSlotsTests(FetchTestCase):
    """A server that lacks few slots, which the server that it has asked has dropped."""

    def after_start(self) -> None:
        super().after_start()
        self.few = snapshot(3)[0]

    def test_all_others_are_asked_for_the_slots_first(self) -> None:
        """If few slots are missing, all other servers are asked for them, each once and the leader last; then the
        snapshot is fetched from those that have offered it."""
        asked = [self.peer]
        while not self.storage.fetched:
            self.offer(self.few, asked[-1])
            asked += self.take_with_destination(ReconciliationRequest)
        self.assertEqual(sorted(asked), [1, 3, 4, 5])
        self.assertEqual((asked[-1], self.storage.fetched[0].name), (1, self.few))
        self.assertEqual(self.replica.snapshot_fetcher.fetch.source, 1)  # type: ignore[union-attr]
        self.take(SnapshotRequest)

    def test_slots_of_another_server_make_the_snapshot_superfluous(self) -> None:
        self.offer(self.few)
        (other,) = self.take_with_destination(ReconciliationRequest)
        rows = tuple(ordered(other, seq, client_update(timestamp=seq)) for seq in (1, 2, 3))
        self.receive(ReconciliationReply(other, 3, 3, rows))
        self.assertEqual((self.data.ordering.local_aru, self.storage.fetched), (3, []))
        self.take(ReconciliationRequest)

    def test_server_that_does_not_answer_is_not_waited_for_again(self) -> None:
        """A server that does not answer is not waited for a second time: when all were asked, the first offer that
        comes is taken."""
        self.offer(self.few)
        silent = self.take_with_destination(ReconciliationRequest)
        for _ in range(20):
            self.advance(self.replica.reconciliation.round_trip.seconds)
            for each in self.take_with_destination(ReconciliationRequest):
                if each not in silent:
                    self.offer(self.few, each)
            if self.storage.fetched:
                break
        self.assertEqual([file.name for file in self.storage.fetched], [self.few])
        self.take(ViewChange)
        self.take(SnapshotRequest)
        self.take(ReconciliationRequest)

    def test_server_that_lacks_many_slots_takes_the_snapshot_at_once(self) -> None:
        self.offer(snapshot(snapshot_fetching.ASKED_ELSEWHERE_MAX)[0])
        self.assertEqual((len(self.storage.fetched), len(self.take(ReconciliationRequest))), (0, 1))
        self.offer(snapshot(snapshot_fetching.ASKED_ELSEWHERE_MAX + 1)[0])
        self.assertEqual(len(self.storage.fetched), 1)
        self.take(SnapshotRequest)


LOST = 400
"""The slot of the snapshot that is lost. The one that takes its place is of this slot or a later one."""


class LostStateTests(FetchTestCase):
    """A server that has its promises, and has lost its snapshot (Departure 58)."""

    def setUp(self) -> None:
        self.behind: list[int] = []
        super().setUp()

    def start(self) -> None:
        lost = snapshot(LOST)[0]
        self.found = Recovered(
            identity_of(2),
            incarnation=3,
            last_attempted=1,
            last_installed=1,
            local_aru=S + 2,
            lost=lost,
            ordered_after=self.ordered_after,
            accepted=[
                Accepted(S + 3, 1, Batch.of(0, [client_update("c", 3, made_at=450)])),
                Accepted(S + 4, 0, Batch.of(0, [client_update("c", 4, made_at=450)])),
            ],
            peers={i: PeerRecord(i, identity_of(i)) for i in self.servers if i != 2},
        )
        super().start()

    def ordered_after(self, seq: int) -> Iterator[tuple[int, Batch]]:
        self.behind.append(seq)
        for each in range(seq + 1, S + 3):
            yield each, Batch.of(0, [client_update("c", each - S, made_at=450)])

    def after_start(self) -> None:
        self.name, self.data_of_snapshot = snapshot(filling=b"")
        self.part = self.settings.frame_data_bytes_max
        self.peer = 3
        self.advance(0)

    def assertAsksAll(self) -> None:
        self.assertEqual(self.take_with_destination(SnapshotRequest), [1, 3, 4, 5])

    def test_all_others_are_asked_again_and_again(self) -> None:
        """All others are asked for a snapshot again and again, by a name with the slot of the lost one and a size of
        0."""
        for sent in self.transport.sent:
            if isinstance(sent.message, SnapshotRequest):
                self.assertEqual(sent.message, SnapshotRequest(2, SnapshotName(LOST, 0, bytes(16)), 0, 0))
        self.assertAsksAll()
        self.advance(self.settings.reconciliation_seconds)
        self.assertAsksAll()

    def test_nothing_else_is_handled_or_sent(self) -> None:
        """A server without its state handles nothing else, and sends no vote, promise or slot; its ALIVE tells that
        nothing is executed."""
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.receive(vc_proof(1, 1))
        self.receive(Prepare(1, 1, S + 2))
        self.receive(proposal(1, 1, S + 3, client_update()))
        self.receive(ordered(1, 1, client_update()))
        self.receive(ReconciliationReply(1, 1, S, (ordered(1, 1, client_update()),)))
        self.receive(ReconciliationRequest(1, 1, 2))
        self.receive(alive(1, 1, State.REG_LEADER, S + 2))
        self.advance(2)
        self.take(SnapshotRequest)
        self.assertEqual((self.data.ordering.local_aru, self.machine.executed), (0, []))
        self.assertEqual(self.data.ordering.global_history.slots, {})
        self.assertEqual(self.replica.discarded, {"no state": 6})
        self.assertEqual(self.replica.turn.durable.local_aru, 0)

    def test_snapshot_of_another_server_brings_the_state_and_the_log_the_rest(self) -> None:
        """The snapshot of another server brings the state, and the own log the slots behind it. The votes in the log
        are known again before the first message that rests on them."""
        self.take(SnapshotRequest)
        self.offer()
        self.serve()
        self.storage.records.clear()
        self.check_and_load()
        self.assertEqual(self.behind, [S])
        self.assertEqual((self.data.ordering.local_aru, self.replica.snapshot_fetcher.lost), (S + 2, None))
        history = self.data.ordering.global_history
        self.assertEqual((history.floor, [*history.slots]), (S, [S + 1, S + 2, S + 3, S + 4]))
        accepted, known = history.get(S + 3), history.get(S + 4)
        assert accepted is not None and accepted.proposal is not None and known is not None
        self.assertEqual((accepted.proposal.view, accepted.ordered, known.ordered is None), (1, None, False))
        self.assertEqual(self.storage.records[:2], [SnapshotRecord(self.name), AruRecord(S + 2)])
        self.assertFalse(self.replica.storage_identity.is_newcomer)
        self.assertSent(ViewChange(2, 2))
        self.take(ReconciliationRequest)

    def test_older_snapshot_is_not_wanted(self) -> None:
        """A snapshot older than the lost one is not fetched, since the log lacks slots behind it."""
        self.take(SnapshotRequest)
        self.offer(snapshot(LOST - 1)[0])
        self.assertEqual(self.storage.fetched, [])

    def test_server_that_has_offered_what_it_has_not_is_not_believed_for_a_while(self) -> None:
        """A server that has offered a snapshot which it does not have is not believed for a while: otherwise its offer
        would come first again and again."""
        self.take(SnapshotRequest)
        self.offer()
        self.take(SnapshotRequest)
        self.receive(SnapshotPart(self.peer, self.name, 0, b""))
        self.offer()
        self.assertEqual((len(self.storage.fetched), self.replica.snapshot_fetcher.fetch), (1, None))
        self.advance(self.settings.reconciliation_seconds)
        self.assertAsksAll()
        self.offer(sender=4)
        self.assertEqual(len(self.storage.fetched), 2)
        self.take(SnapshotRequest)

    def test_server_is_not_admitted_by_the_others_alone(self) -> None:
        self.replica.perform(self.replica.storage_identity.admit_if_known)
        self.assertTrue(self.replica.storage_identity.is_newcomer)
        self.take(SnapshotRequest)

    def test_cluster_of_one_is_refused(self) -> None:
        """In a cluster of one the start is refused: no other server has a snapshot."""
        self.take(SnapshotRequest)
        self.servers = (2,)
        error = self.assertRaises(StorageRefused, self.start)
        self.assertIn("pfsb restore", str(error))


class AskedForStateTests(FetchTestCase):
    """A server that is asked by one that has lost its state."""

    def ask(self, seq: int) -> None:
        self.receive(SnapshotRequest(self.peer, SnapshotName(seq, 0, bytes(16)), 0, 0))

    def test_snapshot_of_that_slot_or_a_later_one_is_offered(self) -> None:
        self.storage.snapshot = self.name
        for seq in (1, S):
            self.ask(seq)
            self.assertSent(SnapshotOffer(2, 0, self.name), self.peer)

    def test_snapshot_is_taken_if_there_is_none_that_is_as_late(self) -> None:
        """If the asked server has no snapshot that is late enough, it takes one, once, and never of a slot that is not
        executed yet."""
        for seq in range(1, 4):
            self.receive(ordered(self.peer, seq, client_update(timestamp=seq)))
        self.ask(4)
        self.assertEqual(self.storage.files, [])
        self.ask(3)
        self.ask(3)
        self.assertEqual([file.encoder.seq for file in self.storage.files], [3])
        self.assertNotSent(SnapshotOffer)

    def test_no_server_has_snapshots_taken_one_after_the_other(self) -> None:
        """A server in error that asks for a later snapshot each time does not make this server take one after the
        other."""
        for seq in range(1, 4):
            self.receive(ordered(self.peer, seq, client_update(timestamp=seq)))
            self.ask(seq)
            self.replica.snapshot_taker.abandon()
        self.assertEqual([file.encoder.seq for file in self.storage.files], [1])
        self.clock.advance(snapshot_fetching.TAKEN_FOR_SECONDS)
        self._after_event()
        self.ask(3)
        self.assertEqual([file.encoder.seq for file in self.storage.files], [1, 3])
        self.transport.sent.clear()

    def test_slots_are_kept_for_a_server_that_fetches_the_present_snapshot(self) -> None:
        """Slots behind a snapshot are kept for a server that fetches it, also when a newer one has taken its place;
        none are kept for a snapshot that is not here."""
        self.storage.snapshot = self.name
        self.receive(SnapshotRequest(self.peer, snapshot(7)[0], 0, 10))
        self.assertIsNone(self.storage.kept_above)
        self.receive(SnapshotRequest(self.peer, self.name, 0, 10))
        self.assertEqual(self.storage.kept_above, S)
        self.storage.snapshot = snapshot(S + 100)[0]
        self.receive(SnapshotRequest(self.peer, self.name, 10, 10))
        self.assertEqual(self.storage.kept_above, S)
        self.storage.finish_snapshot_reads()
        self.transport.sent.clear()
