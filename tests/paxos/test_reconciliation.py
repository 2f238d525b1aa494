"""Section 5.6: a server that is behind pulls what it lacks."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos.messages import (
    GloballyOrderedUpdate,
    ReconciliationReply,
    ReconciliationRequest,
    State,
    ViewChange,
)
from pfsb.paxos.reconciliation import ALL_THERE_IS, BURST_MESSAGES, FETCH_SECONDS, LAZY_VOTES_PATIENCE
from pfsb.paxos.round_trip import JITTER, SHORTEST_SECONDS
from tests.paxos.case import SMALL, ReplicaTestCase, Sent
from tests.paxos.messages import (
    accept,
    alive,
    batch,
    client_update,
    ordered,
    proposal,
    reply,
    request,
    view_change,
)


def slot(server_id: int, seq: int) -> GloballyOrderedUpdate:
    return ordered(server_id, seq, client_update("alice", seq))


class AskingTestCase(ReplicaTestCase):
    settings = evolve(SMALL, progress_seconds=20.0)

    def after_start(self) -> None:
        self.follow(view=1)

    def requests(self) -> list[Sent]:
        """The RECONCILIATION_REQUESTs that were sent since the last call."""
        found = [s for s in self.transport.sent if not s.looked_at and isinstance(s.message, ReconciliationRequest)]
        for sent in found:
            sent.looked_at = True
        return found

    def asked(self) -> list[int | None]:
        return [sent.to for sent in self.requests()]


class TriggerTests(AskingTestCase):
    def test_higher_aru_of_a_peer_is_asked_for_after_a_little_patience(self) -> None:
        """Section 5.6, trigger 3: a higher Local_Aru of a peer is asked for only after a short wait, since the slots
        may be in the socket's buffer."""
        self.receive(alive(3, 1, local_aru=7))
        self.assertNothingSent()
        self.advance(LAZY_VOTES_PATIENCE * self.settings.lazy_seconds)
        self.assertSent(ReconciliationRequest(2, 1, 7), to=3)

    def test_what_comes_by_itself_is_not_asked_for(self) -> None:
        """Section 5.6: slots that arrive by themselves within the wait are not asked for."""
        self.receive(alive(3, 1, local_aru=1))
        self.order(1, client_update())
        self.advance(1)
        self.assertNothingSent()

    def test_proposal_beyond_the_window_shows_that_one_is_behind(self) -> None:
        """Section 5.6, trigger 1: a proposal beyond the window shows that this server is behind: a leader that proposes
        30 has executed 26."""
        self.receive(proposal(1, 1, 30, client_update()))
        self.receive(alive(3, 1, local_aru=25))
        self.advance(LAZY_VOTES_PATIENCE * self.settings.lazy_seconds)
        self.assertSent(ReconciliationRequest(2, 1, 26), to=3)

    def test_equal_or_lower_aru_asks_for_nothing(self) -> None:
        """A peer's Local_Aru that is equal to this server's, or lower, makes it ask for nothing."""
        self.order(1, client_update())
        self.receive(alive(3, 1, local_aru=1))
        self.receive(alive(4, 1, local_aru=0))
        self.advance(1)
        self.assertNothingSent()

    def test_request_at_a_late_admission_replaces_the_one_that_waits(self) -> None:
        """A request at a late admission replaces an earlier one that waits for its answer; the new answer is not
        measured, since no timer waits for it."""
        self.receive(alive(3, 1, local_aru=7))
        self.advance(LAZY_VOTES_PATIENCE * self.settings.lazy_seconds)
        self.assertEqual(self.asked(), [3])
        while 4 not in self.asked():
            self.replica.perform(self.replica.reconciliation.ask_at_start)
        self.receive(reply(4, slot(4, 1), burst_end=7, local_aru=7))
        self.assertEqual(self.data.ordering.local_aru, 1)

    def test_leader_of_a_prepared_view_never_asks(self) -> None:
        """Section 5.6: the leader of a prepared view never asks for slots; it repeats its own proposals instead."""
        self.expire_progress_timer()
        self.assertSent(view_change(2, 2))
        self.lead(view=7)
        self.receive(alive(3, 7, local_aru=7))
        self.advance(1)
        self.assertEqual(self.requests(), [])


class ChoiceTests(AskingTestCase):
    def test_leader_is_spared_while_others_can_serve(self) -> None:
        """The leader is not asked while others can serve, since reconciliation must not slow ordering."""
        for _ in range(10):
            for peer in (1, 4):
                self.receive(alive(peer, 1, State.REG_LEADER if peer == 1 else State.REG_NONLEADER, local_aru=7))
        self.advance(0.02)
        self.assertEqual(self.asked(), [4])

    def test_leader_is_asked_when_nobody_else_has_it(self) -> None:
        """Paxos-L2: the leader is asked when no other server has the slots, so that every connected server catches
        up."""
        self.hear_leader(local_aru=7)
        self.receive(alive(4, 1, local_aru=0))
        self.advance(0.02)
        self.assertEqual(self.asked(), [1])

    def test_silent_peer_is_not_asked(self) -> None:
        """Section 5.10: a peer that was not heard lately is not asked."""
        self.receive(alive(3, 1, local_aru=7))
        self.replica.peers.by_id[3].last_heard = -100.0
        self.receive(alive(4, 1, local_aru=5))
        self.advance(0.02)
        self.assertEqual(self.asked(), [4])

    def test_another_peer_is_asked_after_a_timeout(self) -> None:
        """Section 5.6: another peer is asked if one does not answer in time."""
        self.receive(alive(3, 1, local_aru=7))
        self.receive(alive(4, 1, local_aru=7))
        self.advance(0.02)
        (first,) = self.asked()
        self.advance(0.25)
        (second,) = self.asked()
        self.assertEqual({first, second}, {3, 4})

    def test_only_able_peer_is_asked_again(self) -> None:
        """The only peer that can serve is asked again: its answer may have been lost."""
        self.receive(alive(3, 1, local_aru=7))
        self.advance(0.02 + 0.25 + 0.5 * (1 + JITTER))
        self.assertEqual(self.asked(), [3, 3, 3])

    def test_peer_that_cannot_serve_is_not_asked_next(self) -> None:
        """Section 5.6: if a peer says that it cannot serve, another one is asked next, and the leader if there is no
        other."""
        self.hear_leader(local_aru=7)
        self.receive(alive(3, 1, local_aru=7))
        self.advance(0.02)
        self.assertEqual(self.asked(), [3])
        self.receive(reply(3, local_aru=7))
        self.advance(0.25)
        self.assertEqual(self.asked(), [1])

    def test_nobody_able_means_asking_later(self) -> None:
        """If no peer is able to serve, no request is sent, and the server asks later."""
        self.receive(proposal(1, 1, 30, client_update()))
        self.advance(1.0)
        self.assertEqual(self.asked(), [])
        self.receive(alive(3, 1, local_aru=7))
        self.advance(0.25)
        self.assertEqual(self.asked(), [3])


class BurstTests(AskingTestCase):
    def after_start(self) -> None:
        super().after_start()
        self.receive(alive(3, 1, local_aru=9))
        self.advance(0.02)
        self.assertEqual(self.asked(), [3])

    def test_first_part_of_a_burst_is_followed_by_the_next_request(self) -> None:
        """Departure 13: when a first part of a burst has arrived, the next burst is asked for, so that the peer reads
        it while this server executes the rest."""
        self.receive(reply(3, slot(3, 1), slot(3, 2), burst_end=3, local_aru=9))
        self.assertSent(ReconciliationRequest(2, 4, 9), to=3)
        self.receive(reply(3, slot(3, 3), burst_end=3, local_aru=9))
        self.assertNothingSent()
        self.assertEqual(self.data.ordering.local_aru, 3)

    def test_no_third_burst_is_asked_for_while_a_part_of_the_first_is_missing(self) -> None:
        """Departure 13: no third burst is asked for while a part of the first is missing, so that the slots above a gap
        are bounded."""
        self.receive(reply(3, slot(3, 1), burst_end=2, local_aru=9))
        self.assertSent(ReconciliationRequest(2, 3, 9), to=3)
        self.receive(reply(3, slot(3, 3), burst_end=4, local_aru=9))
        self.receive(reply(3, slot(3, 4), burst_end=4, local_aru=9))
        self.assertNothingSent()

    def test_late_part_lets_a_server_ask_on(self) -> None:
        """A part that arrives late, and closes the gap before a complete burst, lets the server ask on: datagrams
        overtake each other."""
        self.test_no_third_burst_is_asked_for_while_a_part_of_the_first_is_missing()
        self.receive(reply(3, slot(3, 2), burst_end=2, local_aru=9))
        self.assertEqual(self.data.ordering.local_aru, 4)
        self.assertSent(ReconciliationRequest(2, 5, 9), to=3)

    def test_part_lost_between_two_bursts_is_asked_for_after_the_timeout(self) -> None:
        """Section 5.9: a part that was lost between two bursts is asked for after the timeout, and what has arrived
        above it is not asked for again."""
        self.test_no_third_burst_is_asked_for_while_a_part_of_the_first_is_missing()
        self.advance(SHORTEST_SECONDS)
        self.assertSent(ReconciliationRequest(2, 2, 9), to=3)
        self.receive(reply(3, slot(3, 2), slot(3, 3), slot(3, 4), burst_end=4, local_aru=9))
        self.assertSent(ReconciliationRequest(2, 5, 9), to=3)

    def test_burst_up_to_the_target_is_the_last_one(self) -> None:
        """After a burst up to the target no further one is asked for, and its other parts are waited for."""
        self.receive(reply(3, slot(3, 1), burst_end=9, local_aru=9))
        self.assertNothingSent()
        self.advance(SHORTEST_SECONDS)
        self.assertSent(ReconciliationRequest(2, 2, 9), to=3)

    def test_target_grows_with_what_the_peer_has_meanwhile(self) -> None:
        """The target grows with the slots that the peer has ordered meanwhile, as in a busy cluster."""
        self.receive(reply(3, *(slot(3, seq) for seq in range(1, 10)), local_aru=12))
        self.assertSent(ReconciliationRequest(2, 10, 12), to=3)

    def test_nothing_more_is_asked_at_the_target(self) -> None:
        """At the target nothing more is asked for, and no delayed call is left."""
        self.receive(reply(3, *(slot(3, seq) for seq in range(1, 10)), local_aru=9))
        self.advance(1)
        self.assertNothingSent()

    def test_any_part_of_a_burst_is_followed_by_the_next_request(self) -> None:
        """Any part of a burst, not only the first, lets the server ask for the next burst: datagrams overtake each
        other."""
        self.receive(reply(3, slot(3, 3), burst_end=3, local_aru=9))
        self.assertSent(ReconciliationRequest(2, 4, 9), to=3)
        self.receive(reply(3, slot(3, 1), slot(3, 2), burst_end=3, local_aru=9))
        self.assertEqual(self.data.ordering.local_aru, 3)

    def test_request_that_was_lost_is_repeated_after_the_timeout(self) -> None:
        """Section 5.9: a request that was lost is repeated after the timeout."""
        self.receive(reply(3, slot(3, 1), slot(3, 2), burst_end=3, local_aru=9))
        self.receive(reply(3, slot(3, 3), burst_end=3, local_aru=9))
        self.assertEqual([sent.message for sent in self.requests()], [ReconciliationRequest(2, 4, 9)])
        self.advance(0.9 * SHORTEST_SECONDS)
        self.assertNothingSent()
        self.advance(0.2 * SHORTEST_SECONDS)
        self.assertEqual([sent.message for sent in self.requests()], [ReconciliationRequest(2, 4, 9)])

    def test_duplicated_reply_asks_for_nothing(self) -> None:
        """A duplicate of a reply does not make the server ask again: otherwise each duplicate would begin a stream of
        requests."""
        burst = reply(3, slot(3, 1), slot(3, 2), local_aru=9)
        for _ in range(5):
            self.receive(burst)
        self.assertEqual([sent.message for sent in self.requests()], [ReconciliationRequest(2, 3, 9)])

    def test_answer_of_a_peer_that_was_given_up_is_still_learned_from(self) -> None:
        """The slots in a late answer of a peer that was given up are taken; the peer that is asked now stays the one
        that is asked."""
        self.receive(alive(4, 1, local_aru=9))
        self.advance(0.25)
        self.assertEqual(self.asked(), [4])
        self.receive(reply(3, slot(3, 1), local_aru=9))
        self.assertEqual(self.data.ordering.local_aru, 1)
        self.assertNothingSent()

    def test_request_is_traced(self) -> None:
        """Each request is in the trace (docs/operating.rst)."""
        self.assertEqual(self.notes.of("reconcile"), [{"peer": 3, "first": 1, "last": 9}])

    def test_server_that_was_stopped_asks_no_more(self) -> None:
        """A server that was stopped asks no more, and has no delayed call left."""
        self.replica.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BackAgainTests(ReplicaTestCase):
    """A server that was away; its disk has slot 1, and view 1, which server 1 leads, is installed."""

    starts = False

    def setUp(self) -> None:
        super().setUp()
        self.found.incarnation, self.found.last_attempted, self.found.last_installed = 2, 1, 1
        self.found.local_aru, self.found.ordered = 1, [(1, slot(2, 1).batch)]
        self.start()
        ((_, self.peer),) = [
            (s.message, s.to) for s in self.transport.sent if isinstance(s.message, ReconciliationRequest)
        ]
        assert self.peer is not None
        self.take(ViewChange)

    def test_it_asks_a_server_other_than_the_leader_at_once(self) -> None:
        """Departure 13: a server that was away asks a server other than the leader at once, without waiting for an
        ALIVE."""
        self.assertEqual(self.asked_at_start, [ReconciliationRequest(2, 2, ALL_THERE_IS)])
        self.assertNotIn(self.peer, (1, 2))

    def test_it_asks_on_when_the_answer_comes(self) -> None:
        """A server that was away asks on when the answer comes, which says how far the other server has come."""
        self.receive(reply(self.peer, slot(self.peer, 2), burst_end=3, local_aru=9))
        self.assertEqual(self.take(ReconciliationRequest), [ReconciliationRequest(2, 4, 9)])

    def test_lost_part_of_the_first_answer_is_asked_for_after_the_timeout(self) -> None:
        """Section 5.9: a lost part of the first answer is asked for after the timeout, as of any other."""
        self.receive(reply(self.peer, slot(self.peer, 3), burst_end=3, local_aru=3))
        self.receive(alive(self.peer, 1, local_aru=3))
        self.advance(0.26)
        self.assertEqual(self.take(ReconciliationRequest), [ReconciliationRequest(2, 2, 3)])
        self.take(ViewChange)

    def test_it_asks_whoever_is_there_when_no_answer_comes(self) -> None:
        """If the peer that was asked at the start is dead, so that no answer comes, the next ALIVE of another server
        leads to another request."""
        other = next(i for i in (3, 4, 5) if i != self.peer)
        self.receive(alive(other, 1, local_aru=7))
        self.advance(LAZY_VOTES_PATIENCE * self.settings.lazy_seconds)
        self.assertSent(ReconciliationRequest(2, 2, 7), to=other)

    def test_nothing_is_asked_when_there_is_nothing_new(self) -> None:
        """If the server has missed nothing, it asks no more, and no timer is left."""
        self.receive(reply(self.peer, local_aru=1))
        self.advance(0.4)
        self.assertEqual(self.take(ReconciliationRequest), [])
        self.take(ViewChange)


class KeepingTests(AskingTestCase):
    """Slots that the storage keeps for servers that fetch a snapshot (Departure 57)."""

    def test_slots_are_kept_as_long_as_a_server_asks(self) -> None:
        """Slots are kept above the lowest one that a fetching server has, which rises as it asks for slots."""
        asking = self.replica.reconciliation
        asking.keep_for(3, 40)
        asking.keep_for(4, 50)
        self.assertEqual(self.storage.kept_above, 40)
        self.receive(ReconciliationRequest(3, 46, 60))
        self.assertEqual(self.storage.kept_above, 45)
        self.take(ReconciliationReply)
        self.receive(ReconciliationRequest(5, 2, 60))
        self.assertEqual(self.storage.kept_above, 45)
        self.take(ReconciliationReply)

    def test_server_that_asks_no_more_is_given_up(self) -> None:
        asking = self.replica.reconciliation
        asking.keep_for(3, 40)
        self.clock.advance(FETCH_SECONDS - 1)
        asking.keep_for(4, 50)
        asking.forget_what_all_have()
        self.assertEqual(self.storage.kept_above, 40)
        self.clock.advance(2)
        asking.forget_what_all_have()
        self.assertEqual(self.storage.kept_above, 50)
        self.clock.advance(FETCH_SECONDS)
        asking.forget_what_all_have()
        self.assertIsNone(self.storage.kept_above)
        self._after_event()
        self.transport.sent.clear()


class ForgettingTests(ReplicaTestCase):
    """The storage forgets slots that every server has on disk."""

    settings = evolve(SMALL, alive_seconds=0.2)

    def after_start(self) -> None:
        self.storage.forgets = True
        self.follow(view=1)
        for seq in range(1, 7):
            self.receive(reply(3, slot(3, seq)))
        self.advance(0.2)
        self.storage.finish_all()

    def told(self, *arus: int) -> int:
        """The slot up to which the storage may forget, when the other servers have told these values of Local_Aru."""
        for server_id, aru in zip(self.replica.membership.others, arus, strict=True):
            state = State.REG_LEADER if server_id == 1 else State.REG_NONLEADER
            self.receive(alive(server_id, 1, state, local_aru=aru))
        self.advance(0.2)
        return self.storage.forgotten

    def others_tell(self, aru: int) -> list[int]:
        return [aru] * len(self.replica.membership.others)

    def test_nothing_is_forgotten_before_every_server_was_heard(self) -> None:
        """No slot is forgotten before every other server was heard: one that has told nothing may lack all of them."""
        self.assertEqual(self.told(*self.others_tell(6)[1:], 0), 0)
        self.assertEqual(self.data.ordering.global_history.floor, 0)

    def test_slots_that_all_have_are_forgotten(self) -> None:
        """Slots up to the Local_Aru of the slowest server are forgotten."""
        self.assertEqual(self.told(*self.others_tell(6)[1:], 4), 4)
        self.assertEqual(self.data.ordering.global_history.floor, 4)

    def test_slots_that_this_server_lacks_are_not_forgotten(self) -> None:
        """Slots that this server lacks are not forgotten, though other servers may be ahead of it."""
        self.assertEqual(self.told(*self.others_tell(90)), 6)
        self.take(ReconciliationRequest)

    def test_slots_that_are_not_on_disk_are_not_forgotten(self) -> None:
        """Slots that are not on this server's disk are not forgotten: after a crash it would lack them."""
        self.receive(reply(3, slot(3, 7)))
        self.assertEqual(self.told(*self.others_tell(7)), 6)

    def test_storage_that_keeps_history_keeps_it_in_memory_too(self) -> None:
        """If the storage keeps its history, recent slots stay in memory, too, to serve servers that are a little behind
        without the disk."""
        self.storage.forgets = False
        self.told(*self.others_tell(6))
        self.assertEqual(self.data.ordering.global_history.floor, 0)


class FirstStartTests(ReplicaTestCase):
    def test_server_that_was_in_no_view_yet_asks_nobody(self) -> None:
        """A server that was in no view yet asks no peer at its start, since it cannot have missed anything."""
        self.assertEqual(self.asked_at_start, [])


class ServingTests(ReplicaTestCase):
    settings = evolve(SMALL, history_slots_kept=4)

    def after_start(self) -> None:
        self.follow(view=1)
        for seq in range(1, 7):
            self.receive(reply(3, slot(3, seq)))
        self.assertEqual(self.data.ordering.global_history.floor, 2)

    def test_recent_slots_are_served_from_memory(self) -> None:
        """Recent slots are served from memory, without the disk."""
        self.receive(request(5, 4, 6))
        self.assertSent(reply(2, slot(2, 4), slot(2, 5), slot(2, 6), local_aru=6), to=5)
        self.assertEqual(self.storage.reads, [])

    def test_old_slots_are_served_from_disk(self) -> None:
        """Old slots are read from disk outside of the reactor, and served in a turn of their own."""
        self.receive(request(5, 1, 6))
        self.assertNothingSent()
        ((first, last, bytes_max, found),) = self.storage.reads
        self.assertEqual((first, last), (1, 6))
        self.assertEqual(bytes_max, BURST_MESSAGES * self.settings.frame_data_bytes_max)
        found([(1, slot(2, 1).batch), (2, slot(2, 2).batch)])
        self.assertSent(reply(2, slot(2, 1), slot(2, 2), local_aru=6), to=5)

    def test_no_more_than_what_is_executed_is_served(self) -> None:
        """Only executed slots are served, though the asking server's target may be higher."""
        self.receive(request(5, 6, 100))
        self.assertSent(reply(2, slot(2, 6), local_aru=6), to=5)

    def test_server_that_has_nothing_says_so(self) -> None:
        """Section 5.6: a server that has none of the slots says so, and the asking server turns to another one."""
        self.receive(request(5, 7, 9))
        (answer,) = self.take(ReconciliationReply)
        self.assertEqual((answer.updates, answer.local_aru), ((), 6))

    def test_slots_that_the_disk_does_not_have_yet_are_not_served(self) -> None:
        """For slots that the disk does not have yet, an empty reply is sent, since `read_history` gives an empty
        list."""
        self.receive(request(5, 1, 6))
        self.storage.reads[0][3]([])
        (answer,) = self.take(ReconciliationReply)
        self.assertEqual(answer.updates, ())

    def test_server_that_stopped_meanwhile_serves_nothing(self) -> None:
        """A server that was stopped before its disk has answered a read serves nothing."""
        self.receive(request(5, 1, 6))
        self.replica.stop()
        self.storage.reads[0][3]([(1, batch())])
        self.assertNothingSent()

    def test_bytes_served_are_counted(self) -> None:
        """The bytes that are served are counted, for the metrics."""
        self.receive(request(5, 6, 6))
        self.take(ReconciliationReply)
        self.assertEqual(self.replica.reconciliation.bytes_sent, len(slot(2, 6).batch.data))


class LargeBurstTests(ReplicaTestCase):
    settings = evolve(SMALL, history_slots_kept=50)

    def after_start(self) -> None:
        self.follow(view=1)
        self.updates = [client_update("alice", seq, payload=bytes(80)) for seq in range(1, 31)]
        for seq, update in enumerate(self.updates, start=1):
            self.receive(reply(3, ordered(3, seq, update)))

    def test_burst_is_bounded_and_cut_to_fit_frames(self) -> None:
        """Departure 13: the answer to one request is a burst of a few bounded messages, each of which fits a frame."""
        self.receive(request(5, 1, 30))
        parts = self.take(ReconciliationReply)
        self.assertGreater(len(parts), 1)
        seqs = [u.seq for part in parts for u in part.updates]
        self.assertEqual(seqs, list(range(1, seqs[-1] + 1)))
        self.assertLess(seqs[-1], 30)
        self.assertEqual({part.burst_end for part in parts}, {seqs[-1]})
        for part in parts:
            self.assertLessEqual(sum(len(u.batch.data) for u in part.updates), self.settings.frame_data_bytes_max)

    def test_slot_larger_than_a_frame_is_served_alone(self) -> None:
        """A slot that is larger than a frame's share is served alone: a burst is never empty when there are slots."""
        large = client_update("alice", 31, payload=bytes(2_000))
        self.receive(reply(3, ordered(3, 31, large)))
        self.receive(request(5, 31, 31))
        self.assertSent(reply(2, ordered(2, 31, large), local_aru=31), to=5)


class PreparingTests(ReplicaTestCase):
    def test_leader_in_its_prepare_phase_reconciles(self) -> None:
        """G19: a leader in its Prepare phase reconciles, since followers do not answer its PREPARE before it has caught
        up."""
        self.begin_prepare_phase(view=2)
        self.receive(alive(3, 1, local_aru=7))
        self.advance(0.02)
        self.assertSent(ReconciliationRequest(2, 1, 7), to=3)
        self.take(ViewChange)

    def test_server_in_an_election_reconciles(self) -> None:
        """Section 5.6: a server in an election reconciles, which is safe in any state."""
        self.receive(alive(3, 1, local_aru=7))
        self.advance(0.02)
        self.assertSent(ReconciliationRequest(2, 1, 7), to=3)
        self.receive(accept(3, 1, 1))
        self.take(ViewChange)
