"""Departure 37: numbers that are impossible are not believed, stored, walked through, or answered without end."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from pfsb.paxos.allowance import SERVED_BYTES_AT_ONCE
from pfsb.paxos.data_structures import VOTED_VIEWS_MAX, GlobalHistory, Slot
from pfsb.paxos.demand import FOREIGN_UPDATES_MAX
from pfsb.paxos.leader_election import NoViewLeft
from pfsb.paxos.messages import (
    Accept,
    Acquainted,
    Alive,
    Confirm,
    Confirmed,
    KnownPosition,
    PrepareOK,
    Proposal,
    ReadIndex,
    ReconciliationReply,
    ReconciliationRequest,
    State,
    VCProof,
    ViewChange,
)
from pfsb.paxos.plausibility import BURST_SLOTS_MAX, HELD_BYTES_MAX, REACH_SLOTS_MAX, VIEW_STEP_MAX
from pfsb.support.limits import NUMBER_MAX, SLOT_MAX, VIEW_MAX
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import (
    accept,
    alive,
    batch,
    client_update,
    ordered,
    prepare,
    prepare_ok,
    proposal,
    reply,
    request,
    vc_proof,
    view_change,
)

FAR = 2**40


class PlausibilityTestCase(ReplicaTestCase):
    settings = evolve(SMALL, progress_seconds=20.0)

    def assertImplausible(self, *messages: Any) -> None:
        """Assert that each message is discarded as implausible, and changes neither the state nor the disk, and sends
        nothing."""
        self.transport.sent.clear()
        for message in messages:
            before = str(self.data)
            self.receive(message)
            self.assertDiscarded("implausible")
            self.assertEqual(str(self.data), before)
        self.assertNothingSent()
        self.assertEqual(self.storage.records, [])


class SlotTests(PlausibilityTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def test_ordered_update_of_the_far_future_is_not_believed(self) -> None:
        """An ordered update in a far slot is not believed: one at 2**40 once made a server walk through all slots below
        it at every start."""
        self.assertImplausible(
            ordered(3, FAR, client_update()),
            ordered(3, NUMBER_MAX),
            ordered(3, 1 + REACH_SLOTS_MAX),
            reply(3, ordered(3, FAR)),
        )

    def test_burst_that_is_longer_than_any_burst_is_not_believed(self) -> None:
        """A reply that claims a longer burst than there can be is not believed: the next request would ask for slots
        that do not exist."""
        self.assertImplausible(
            ReconciliationReply(3, FAR, 1, (ordered(3, 1),)),
            ReconciliationReply(3, NUMBER_MAX, 1),
            ReconciliationReply(3, 1, NUMBER_MAX),
            ReconciliationReply(3, BURST_SLOTS_MAX + 1, 1, (ordered(3, 1),)),
        )
        self.receive(ReconciliationReply(3, BURST_SLOTS_MAX, BURST_SLOTS_MAX, (ordered(3, 1),)))
        self.assertNotDiscarded()

    def test_proposal_of_the_far_future_is_not_a_reason_to_ask_without_end(self) -> None:
        """A PROPOSAL in a far slot does not make the server ask for slots without end: it is a hint (section 5.6,
        trigger 1), which the next ALIVE confirms or not."""
        self.receive(proposal(1, 1, SLOT_MAX + 1))
        self.assertDiscarded("implausible")
        self.receive(proposal(1, 1, FAR))
        self.advance(3.0)
        self.assertNothingSent()
        self.assertEqual(self.data.ordering.global_history.slots, {})

    def test_accept_of_many_slots_or_the_far_future_leaves_no_trace(self) -> None:
        """An ACCEPT for many slots, or for far ones, leaves no trace: votes are kept for the slots of the window
        only."""
        self.receive(Accept(3, 1, tuple(range(FAR, FAR + 10_000)), bytes(16 * 10_000)))
        self.assertEqual(self.data.ordering.global_history.slots, {})

    def test_votes_of_many_views_do_not_pile_up(self) -> None:
        """Votes of many views do not pile up in a slot, which keeps those of the lowest views, as this server can use
        these first."""
        for view in range(2, 400):
            self.receive(accept(3, view, 1))
        self.receive(accept(4, 1, 1))
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual(sorted(slot.voters), list(range(1, VOTED_VIEWS_MAX + 1)))

    def test_votes_of_views_that_are_over_make_room(self) -> None:
        """Votes of views that are over make room: otherwise a server that saw many views could not count votes of the
        present one."""
        for view in range(1, 10):
            self.receive(accept(3, view, 1))
        self.data.views.last_attempted = self.data.views.last_installed = 40
        self.receive(accept(3, 40, 1))
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual({view: set(votes) for view, votes in slot.voters.items()}, {40: {3}})
        self.data.views.last_attempted = self.data.views.last_installed = 1

    def test_ordered_updates_above_a_gap_fill_no_memory(self) -> None:
        """Ordered slots that wait above a gap are bounded in number and in bytes."""
        self.data.ordering.global_history.batch_bytes = HELD_BYTES_MAX + 1
        self.assertImplausible(ordered(3, 2), reply(3, ordered(3, 2)))
        self.receive(ordered(3, 1))
        self.assertNotDiscarded()

    def test_few_slots_far_apart_are_walked_through_at_once(self) -> None:
        """If few slots lie far apart, as a disk from an earlier time may hold them, the time to go through them depends
        on their number and not on their distance."""
        history = GlobalHistory(top=2**60, slots={2**60: Slot(), 7: Slot(), 3: Slot()})
        self.assertEqual([seq for seq, _ in history.above(3)], [7, 2**60])

    def test_read_index_of_the_far_future_is_not_waited_for(self) -> None:
        """A read index in a far slot is not waited for: the read would take its time, and then go through the log."""
        self.assertImplausible(ReadIndex(1, 1, SLOT_MAX + 1))


class ArusTests(PlausibilityTestCase):
    settings = evolve(SMALL, progress_seconds=1.0)

    def after_start(self) -> None:
        self.follow(view=1)

    def requests(self) -> int:
        return len(self.take(ReconciliationRequest))

    def test_aru_that_cannot_be_is_not_believed(self) -> None:
        """A Local_Aru that no cluster can have come to is not believed."""
        self.assertImplausible(alive(3, 1, local_aru=SLOT_MAX + 1), prepare(1, 1, SLOT_MAX + 1))

    def test_absurd_aru_is_forgotten_with_the_next_alive(self) -> None:
        """A Local_Aru that is far too high is forgotten with the sender's next ALIVE: it costs a request or two, and no
        election."""
        self.receive(alive(3, 1, local_aru=FAR))
        self.receive(alive(3, 1, local_aru=0))
        for _ in range(10):
            self.hear_leader()
            self.advance(0.2)
        self.assertEqual(self.requests(), 0)
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())

    def test_peer_that_has_nothing_to_give_is_in_doubt_whatever_it_claims(self) -> None:
        """A peer that claims slots in its ALIVE and has none to give is ignored for a while, so it neither delays a
        suspicion nor causes one."""
        self.receive(alive(3, 1, local_aru=FAR))
        self.advance(0.1)
        self.assertEqual(self.requests(), 1)
        self.receive(ReconciliationReply(3, 1, 0))
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())
        self.receive(alive(3, 1, local_aru=FAR))
        self.assertFalse(self.replica.demand.knows_of_unexecuted_update())
        self.advance(0.9)
        self.assertEqual(self.requests(), 0)
        self.take(ViewChange)

    def test_peer_that_has_claimed_nothing_is_in_no_doubt(self) -> None:
        """A peer that has claimed nothing, and has nothing to give to a server that asks at its start, is not doubted:
        it may be ahead later."""
        self.replica.turn.run(self.replica.reconciliation.ask_at_start)
        (peer,) = [sent.to for sent in self.transport.sent if isinstance(sent.message, ReconciliationRequest)]
        assert peer is not None
        self.take(ReconciliationRequest)
        self.receive(ReconciliationReply(peer, 0, 0))
        self.receive(alive(peer, 1, local_aru=2))
        self.advance(0.1)
        self.assertEqual(self.requests(), 1)

    def test_leader_is_not_suspected_over_one_peers_wrong_aru(self) -> None:
        """Departure 10: in an idle cluster the leader is not suspected because of one peer with a wrong Local_Aru."""
        for _ in range(60):
            self.receive(alive(3, 1, local_aru=FAR))
            self.hear_leader()
            self.advance(0.1)
            for _ in range(self.requests()):
                self.receive(ReconciliationReply(3, 1, 0))
        self.assertIs(self.data.server.state, State.REG_NONLEADER)
        self.assertEqual(self.data.views.last_installed, 1)

    def test_server_that_is_behind_still_catches_up(self) -> None:
        """A server that is behind catches up although one peer is in error: that peer is asked once, and the slots come
        from another one."""
        self.receive(alive(3, 1, local_aru=FAR))
        self.receive(alive(4, 1, local_aru=2))
        for _ in range(20):
            self.advance(0.1)
            for sent in [s for s in self.transport.sent if isinstance(s.message, ReconciliationRequest)]:
                self.transport.sent.remove(sent)
                answer = reply(4, ordered(4, 1), ordered(4, 2)) if sent.to == 4 else ReconciliationReply(3, 1, 0)
                self.receive(answer)
        self.assertEqual(self.data.ordering.local_aru, 2)
        self.take(ViewChange)


class ViewTests(PlausibilityTestCase):
    def test_view_far_above_the_own_is_not_followed(self) -> None:
        """A view far above this server's own is not followed: a VC_PROOF of 2**63 would leave no view to go to."""
        for view in (VIEW_STEP_MAX + 2, VIEW_MAX, VIEW_MAX + 1, NUMBER_MAX):
            self.assertImplausible(
                vc_proof(3, view),
                view_change(3, view),
                prepare(3, view),
                accept(3, view, 1),
                Confirm(3, view, 1),
                Confirmed(3, view, 1),
            )

    def test_view_that_a_long_trouble_may_have_led_to_is_followed(self) -> None:
        """A view as high as elections of several days lead to is followed, so that a server comes back after such a
        time."""
        view = VIEW_STEP_MAX
        self.receive(vc_proof(1, view))
        self.assertEqual(self.data.views.last_installed, view)
        self.storage.records.clear()

    def test_view_that_a_majority_claims_is_followed(self) -> None:
        """A view that a majority claims is followed, however high, so that a server that was away for too long can come
        back."""
        view = 5 * VIEW_STEP_MAX + 1
        for server_id in (1, 3):
            self.receive(vc_proof(server_id, view))
            self.assertDiscarded("implausible")
        self.receive(vc_proof(4, view + 10))
        self.assertEqual(self.data.views.last_installed, view + 10)
        self.storage.records.clear()

    def test_one_server_that_repeats_itself_is_no_majority(self) -> None:
        """A claim that one server repeats counts once: one server is no majority."""
        for _ in range(5):
            self.assertImplausible(vc_proof(3, VIEW_MAX))

    def test_state_that_does_not_go_with_its_view_is_not_believed(self) -> None:
        """An ALIVE whose state does not fit its view is not believed: a server leads its own views, and follows only
        others' views."""
        self.follow(view=1)
        for wrong in (
            alive(3, 2, State.REG_LEADER),
            alive(3, 0, State.REG_LEADER),
            alive(3, 0, State.REG_NONLEADER),
            alive(3, 3, State.REG_NONLEADER),
            alive(3, VIEW_MAX + 1, State.LEADER_ELECTION),
        ):
            self.assertImplausible(wrong)
        for right in (
            alive(3, 3, State.REG_LEADER),
            alive(3, 2, State.REG_NONLEADER),
            Alive(3, 1, State.LEADER_ELECTION, 0),
        ):
            self.receive(right)
            self.assertNotDiscarded()

    def test_server_stops_after_the_last_view(self) -> None:
        """A server stops after the last view of its epoch, since higher numbers belong to other epochs."""
        self.data.views.last_attempted = VIEW_MAX
        self.replica.perform(self.replica.election.suspect)
        self.assertIn(str(VIEW_MAX), str(self.expected_failure(NoViewLeft)))


class PromiseTests(PlausibilityTestCase):
    def after_start(self) -> None:
        self.begin_prepare_phase(view=2)

    def test_promise_with_a_slot_of_the_far_future_is_dropped_as_a_whole(self) -> None:
        """S1: a promise with a far slot is dropped as a whole, since a data list is complete or does not count."""
        for wrong in (proposal(1, 1, FAR), ordered(3, FAR), proposal(1, VIEW_MAX + 1, 1), proposal(1, 1, 100_000)):
            self.assertImplausible(prepare_ok(3, 2, proposal(1, 1, 1), wrong))

    def test_promise_with_the_slots_of_a_larger_window_counts(self) -> None:
        """A promise with slots of a larger window counts: the cluster's settings may have a larger one than this
        server's file."""
        self.replica.adopt(1_000, 100, bytes(8))
        slots = 16 * SMALL.window_slots + 1
        self.receive(prepare_ok(3, 2, *(proposal(1, 1, seq) for seq in range(1, slots + 1))))
        self.assertNotDiscarded()
        self.receive(prepare_ok(4, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.assertEqual({sent.seq for sent in self.take(Proposal)}, set(range(1, slots + 1)))
        self.take(Alive)
        self.take(Accept)

    def test_promise_of_view_0_is_dropped(self) -> None:
        """A promise of view 0, which no server leads, is dropped in each state. From the leader itself it would be a
        request for a part."""
        self.assertImplausible(*(prepare_ok(sender, 0, proposal(1, 1, 1)) for sender in (1, 3)))
        self.receive(prepare_ok(3, 2))
        self.receive(prepare_ok(4, 2))
        self.assertIs(self.data.server.state, State.REG_LEADER)
        self.take(Alive)
        self.assertImplausible(*(prepare_ok(sender, 0) for sender in (1, 3)))

    def test_promise_of_more_parts_than_there_can_be_slots_is_dropped(self) -> None:
        """A promise of more parts than there can be slots is dropped, since each part has at least one slot."""
        self.assertImplausible(PrepareOK(3, 2, (), 0, 100_000))

    def test_data_list_of_a_part_is_not_kept_beside_its_slots(self) -> None:
        """The data list of a part is not kept beside the slots, so that a server keeps each batch once."""
        self.receive(PrepareOK(3, 2, (proposal(1, 1, 1),), 0, 2))
        self.assertSent(PrepareOK(2, 2, (), 1, 2), to=3)
        self.assertEqual(self.data.preparing.prepare_oks[3].arrived[0].data_list, ())
        slot = self.data.ordering.global_history.get(1)
        assert slot is not None
        self.assertEqual(slot.proposal, proposal(1, 1, 1))


class ViewZeroTests(ReplicaTestCase):
    """A message of view 0, which no server leads, is discarded, whatever it says."""

    MESSAGES = (
        accept(3, 0, 1, of=[batch()]),
        view_change(3, 0),
        vc_proof(3, 0),
        prepare_ok(3, 0),
        prepare_ok(3, 0, proposal(3, 3, 1)),
        *(alive(3, 0, state) for state in State),
    )

    def receive_all(self) -> None:
        for message in self.MESSAGES:
            self.receive(message)
        for kind in (Alive, VCProof, ViewChange, PrepareOK, Acquainted, KnownPosition):
            self.take(kind)

    def test_follower_goes_on(self) -> None:
        self.receive_all()
        self.follow(view=3)
        self.receive_all()
        self.receive(proposal(3, 3, 1))
        self.assertSent(accept(2, 3, 1))

    def test_leader_goes_on(self) -> None:
        self.begin_prepare_phase(view=2)
        self.receive_all()
        self.receive(prepare_ok(3, 2))
        self.receive(prepare_ok(4, 2))
        self.receive_all()
        self.assertIs(self.data.server.state, State.REG_LEADER)


class ServingTests(PlausibilityTestCase):
    settings = evolve(SMALL, progress_seconds=20.0, frame_data_bytes_max=50_000, history_slots_kept=1_000)

    def after_start(self) -> None:
        self.follow(view=1)
        large = client_update(payload=b"x" * 45_000)
        for seq in range(1, 4):
            self.receive(ordered(3, seq, evolve(large, timestamp=seq)))
        self.storage.records.clear()

    def replies(self) -> list[ReconciliationReply]:
        return [reply for reply in self.take(ReconciliationReply) if reply.updates]

    def test_peer_that_asks_without_pause_is_served_up_to_its_allowance(self) -> None:
        """A peer that asks for slots without pause is served up to its allowance: without one, 4,900 small requests
        cost 443 MB of replies."""
        for _ in range(49):
            self.receive(*[request(3, 1, NUMBER_MAX)] * 100)
        served = sum(len(update.batch.data) for reply in self.replies() for update in reply.updates)
        self.assertLess(served, SERVED_BYTES_AT_ONCE + 200_000)
        self.assertGreater(self.replica.reconciliation.refused, 4_000)
        self.receive(request(4, 1, 3))
        self.assertEqual(len(self.replies()), 2, "the allowance of another peer is its own")
        self.advance(1.0)
        self.receive(request(3, 1, 3))
        self.assertEqual(len(self.replies()), 2)

    def test_burst_has_a_bounded_number_of_slots(self) -> None:
        """A burst has a maximum number of slots: a no-op has some ten bytes, so a burst that is bounded in bytes alone
        could be very long."""
        handler = self.replica.reconciliation
        asked: list[tuple[int, int]] = []

        def rows(first: int, last: int) -> list[Any]:
            self.data.ordering.local_aru = 3
            asked.append((first, last))
            return []

        self.patch(handler, "rows_from_memory", rows)
        self.data.ordering.local_aru = 10_000
        self.replica.perform(handler.on_reconciliation_request, request(3, 1, NUMBER_MAX))
        self.assertEqual(len(self.take(ReconciliationReply)), 1)
        self.assertEqual(asked, [(1, BURST_SLOTS_MAX)])


class QueueTests(ReplicaTestCase):
    def test_names_of_waiting_updates_do_not_pile_up(self) -> None:
        """Departure 17: a follower remembers only so many waiting updates of other servers."""
        self.follow(view=1)
        for number in range(FOREIGN_UPDATES_MAX + 100):
            self.replica.perform(self.replica.demand.note_foreign_update, client_update(f"c{number}"))
        self.assertEqual(len(self.replica.demand.foreign_updates), FOREIGN_UPDATES_MAX)

    def test_queue_is_bounded_in_bytes(self) -> None:
        """Departure 30: the queue is bounded in bytes, since 20,000 updates of 48,000 bytes would be a gigabyte."""
        self.lead(view=2)
        queue = self.replica.update_queue
        self.assertEqual(queue.payload_bytes, 0)
        self.patch(type(queue), "is_full", property(lambda self: self.payload_bytes >= 5))
        self.data.ordering.last_proposed = self.data.ordering.local_aru + 4  # the leader's window is full
        for number in range(8):
            self.receive(client_update(f"c{number}", server_id=3, payload=b"xx"), sender=3)
        self.assertEqual((len(queue), queue.payload_bytes), (3, 6))
        batch_of_two = queue.pop_batch(0)
        assert batch_of_two is not None
        self.assertEqual(queue.payload_bytes, 6 - 2 * len(batch_of_two.open()[1]))
        queue.clear()
        self.assertEqual(queue.payload_bytes, 0)
