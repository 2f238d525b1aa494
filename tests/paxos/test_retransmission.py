"""Section 5.9: lost messages are sent again."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos import allowance
from pfsb.paxos.messages import (
    Accept,
    Alive,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    ReconciliationRequest,
    VCProof,
    ViewChange,
)
from pfsb.paxos.records import AruRecord
from pfsb.paxos.retransmission import BURSTS
from pfsb.paxos.round_trip import SHORTEST_SECONDS
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import accept, alive, client_update, prepare_ok, proposal, view_change


class ElectionTests(ReplicaTestCase):
    def test_vote_is_repeated_until_a_view_is_installed(self) -> None:
        """Section 5.9: a VIEW_CHANGE is repeated until a view is installed."""
        self.advance(0.55)
        self.assertEqual(self.take(ViewChange), [view_change(2, 1)] * 5)
        self.follow(view=1)
        self.advance(0.5)
        self.assertNothingSent()

    def test_prepare_is_repeated_until_the_view_is_prepared(self) -> None:
        """Section 5.9: a PREPARE is repeated until the view is prepared, together with the VIEW_CHANGE for servers that
        have not heard of the election."""
        self.begin_prepare_phase(view=2)
        self.advance(0.25)
        self.assertEqual(self.take(Prepare), [Prepare(2, 2, 0)] * 2)
        self.assertEqual(self.take(ViewChange), [view_change(2, 2)] * 2)
        for other in (1, 3):
            self.receive(prepare_ok(other, 2))
        self.advance(0.5)
        self.assertNothingSent()

    def test_prepare_of_a_view_that_was_left_is_not_repeated(self) -> None:
        """G23: the PREPARE of a view that was left is not repeated."""
        self.begin_prepare_phase(view=2)
        self.expire_progress_timer()
        self.advance(0.25)
        self.assertNotSent(Prepare)
        self.assertEqual(set(self.take(ViewChange)), {view_change(2, 3)})


class FollowerTests(ReplicaTestCase):
    def test_follower_repeats_nothing_unasked(self) -> None:
        """Section 5.9: a follower repeats no ACCEPT or PREPARE_OK by itself, only as the answer to a repeated PROPOSAL
        or PREPARE."""
        self.follow(view=1)
        self.receive(proposal(1, 1, 1, client_update()))
        self.assertSent(accept(2, 1, 1))
        self.advance(0.5)
        self.assertNotSent(Accept)
        self.assertNotSent(PrepareOK)

    def test_time_of_slots_fades_while_nothing_is_under_way(self) -> None:
        """Departure 48: the measured time of slots becomes shorter while nothing is under way, since slow disks or
        links may be quick by now."""
        self.follow(view=1)
        self.replica.slot_time.answered(0.0, 0.0, 5.0)
        before = self.replica.slot_time.measured
        self.advance(0.9)
        self.assertLess(self.replica.slot_time.measured, 0.9 * before)

    def test_time_of_slots_is_kept_while_the_disk_writes(self) -> None:
        """Departure 48: the measured time of slots is kept while the disk writes: updates that this server does not
        know of may wait for other disks."""
        self.follow(view=1)
        self.replica.slot_time.answered(0.0, 0.0, 5.0)
        before = self.replica.slot_time.measured
        self.hold_syncs = True
        self.replica.turn.run(self.replica.turn.append, AruRecord(0))
        self.advance(1.0)
        self.assertEqual(self.replica.slot_time.measured, before)


class LeaderTests(ReplicaTestCase):
    settings = evolve(SMALL, frame_data_bytes_max=100)

    def after_start(self) -> None:
        self.lead(view=2)

    def propose(self, count: int, size: int = 1) -> None:
        for n in range(1, count + 1):
            self.introduce(client_update(f"c{n}", 1, server_id=2, payload=bytes(size)))
        self.assertEqual([p.seq for p in self.take(Proposal)], list(range(1, count + 1)))
        self.take(Accept)

    def test_proposal_is_repeated_with_the_leaders_vote_until_it_is_ordered(self) -> None:
        """Section 5.9: the leader repeats a PROPOSAL until it is ordered, with its ACCEPT, which may have been missed,
        too."""
        self.propose(1)
        self.advance(0.36)
        self.assertEqual([(p.view, p.seq) for p in self.take(Proposal)], [(2, 1)] * 2)
        self.assertEqual(self.take(Accept), [self.named(accept(2, 2, 1))] * 2)
        self.receive(accept(1, 2, 1))
        self.receive(accept(3, 2, 1))
        self.advance(0.2)
        self.assertNothingSent()

    def test_repeated_vote_waits_for_the_disk_like_the_first(self) -> None:
        """A repeated ACCEPT of the leader waits for the disk as the first one does."""
        self.hold_syncs = True
        self.introduce(client_update("carol", 1, server_id=2))
        self.take(Proposal)
        self.advance(0.15)
        self.assertEqual(len(self.take(Proposal)), 1)
        self.assertNotSent(Accept)
        self.storage.finish_all()
        self.assertSent(accept(2, 2, 1))

    def test_only_what_is_not_ordered_is_repeated(self) -> None:
        """Section 5.9: only PROPOSALs of slots that are not ordered are repeated."""
        self.propose(3)
        for voter in (1, 3):
            self.receive(accept(voter, 2, 2))
        self.advance(1.5 * SHORTEST_SECONDS)
        self.assertEqual([p.seq for p in self.take(Proposal)], [1, 3])
        self.assertEqual(self.take(Accept), [self.named(accept(2, 2, 1, 3))])

    def test_young_proposal_is_given_time(self) -> None:
        """A PROPOSAL that was just sent is not repeated, since answers may be on their way."""
        self.advance(0.09)
        self.propose(1)
        self.advance(0.05)
        self.assertNothingSent()

    def test_one_burst_at_a_time(self) -> None:
        """The PROPOSALs that are repeated at once are bounded in bytes, the oldest first, so that a follower that was
        away is not flooded."""
        self.propose(4, size=150)
        self.advance(0.11)
        self.assertEqual([p.seq for p in self.take(Proposal)], [1, 2, 3])
        self.take(Accept)
        self.advance(0.1 / BURSTS)
        self.assertEqual([p.seq for p in self.take(Proposal)], [4])
        self.take(Accept)

    def test_waits_double_while_nothing_is_ordered(self) -> None:
        """Departure 49: the wait until a PROPOSAL is repeated doubles while nothing is ordered, and is up to a quarter
        longer at random."""
        self.propose(1)
        self.advance(0.1 + 0.25 + 0.6)
        self.assertEqual(len(self.take(Proposal)), 3)
        self.advance(0.7)
        self.assertEqual(len(self.take(Proposal)), 0)
        self.take(Accept)

    def test_slot_after_a_slow_one_is_given_its_time(self) -> None:
        """Departure 49, RFC 6298: after a slow slot, the next one is given that time before it is repeated; the time of
        a repeated slot is not measured."""
        self.propose(1)
        self.advance(0.09)
        self.order_as_leader(1)
        self.introduce(client_update("slow", 1, server_id=2))
        self.take(Proposal)
        self.take(Accept)
        self.advance(0.2)
        self.assertNothingSent()

    def test_servers_that_have_voted_get_no_copy(self) -> None:
        """Departure 49: a PROPOSAL is repeated only to servers whose ACCEPT has not come."""
        self.propose(1)
        self.receive(accept(3, 2, 1))
        self.advance(0.11)
        self.assertEqual([s.to for s in self.transport.sent if isinstance(s.message, Proposal)][1:], [1, 4, 5])
        self.take(Proposal)
        self.take(Accept)

    def test_slot_below_one_that_is_ordered_is_repeated_early(self) -> None:
        """Departure 49: the PROPOSAL of a slot below one that is ordered is repeated early, as a TCP segment is when
        later ones are acknowledged (RFC 8985)."""
        self.propose(1)
        self.advance(0.08)
        self.order_as_leader(1)
        self.introduce(client_update("lost", 1, server_id=2))
        self.advance(0.01)
        self.introduce(client_update("next", 1, server_id=2))
        self.take(Proposal)
        self.take(Accept)
        self.advance(0.08)
        self.order_as_leader(3)
        self.advance(0.25 * 0.09)
        self.assertEqual([p.seq for p in self.take(Proposal)], [2])
        self.take(Accept)

    def test_waits_in_vain_of_a_former_view_do_not_count_in_the_next(self) -> None:
        """Departure 49: the doubled waits of a former view do not count in the next one, whose leader may have good
        links to the other servers."""
        self.propose(1)
        self.advance(0.9)
        self.take(Proposal)
        self.take(Accept)
        self.assertGreater(self.replica.slot_time.seconds, 2 * SMALL.resend_seconds)
        self.expire_progress_timer()
        self.take(ViewChange)
        self.assertEqual(self.replica.slot_time.seconds, SMALL.resend_seconds)

    def test_server_that_asks_without_pause_uses_up_its_allowance(self) -> None:
        """Departure 37: PROPOSALs that a server is sent because it asks for slots count against its allowance, as
        ordered slots do."""
        self.propose(1, size=90)
        self.receive(alive(4, 2))
        self.advance(0.1)
        self.take(Proposal)
        self.take(Accept)
        before = self.replica.reconciliation.refused
        self.patch(allowance, "SERVED_BYTES_AT_ONCE", 100)
        self.patch(allowance, "SERVED_BYTES_PER_SECOND", 0)
        for _ in range(5):
            self.receive(ReconciliationRequest(4, 1, 1))
            self.data.ordering.global_history.ensure(1).sent_at -= 1.0
        self.assertEqual(len(self.take(Proposal)), 1)
        self.take(Accept)
        self.assertEqual(self.replica.reconciliation.refused, before + 4)

    def test_server_that_asks_for_slots_that_are_not_ordered_gets_their_proposals(self) -> None:
        """Departure 49: a server that asks for slots that are not ordered is sent their PROPOSALs, except those that
        were sent just before."""
        self.propose(1)
        self.advance(0.08)
        self.order_as_leader(1)
        self.introduce(client_update("lost", 1, server_id=2))
        self.take(Proposal)
        self.take(Accept)
        self.receive(ReconciliationRequest(4, 2, 2))
        self.assertNothingSent()
        self.advance(0.1)
        self.receive(ReconciliationRequest(4, 2, 2))
        sent = [(s.to, type(s.message)) for s in self.transport.sent if s.to == 4]
        self.assertEqual(sent, [(4, Proposal), (4, Accept)])
        self.take(Proposal)
        self.take(Accept)

    def test_leader_sends_a_slot_that_is_ordered_above_a_gap_to_a_server_that_lacks_it(self) -> None:
        """Departure 49: the leader sends slots that are ordered above a gap to a server that lacks them, which may have
        the slot of the gap already."""
        self.propose(2)
        self.receive(accept(1, 2, 2))
        self.receive(accept(3, 2, 2))
        self.receive(ReconciliationRequest(4, 2, 2))
        (answer,) = self.take(ReconciliationReply)
        self.assertEqual([update.seq for update in answer.updates], [2])
        self.assertEqual(answer.local_aru, 0)

    def order_as_leader(self, seq: int) -> None:
        for voter in (1, 3):
            self.receive(accept(voter, 2, seq))


class HeartbeatTests(ReplicaTestCase):
    ignore_periodic = False

    def start(self) -> None:
        super().start()
        self.take(Alive)

    def test_alive_and_proof_go_out_in_every_state(self) -> None:
        """Section 5.9 and Figure 6: ALIVE and VC_PROOF are sent periodically in every state."""
        self.follow(view=1)
        self.take(Alive)
        self.advance(0.65)
        self.assertEqual(len(self.take(Alive)), 3)
        self.assertEqual(self.take(VCProof), [VCProof(2, 1)] * 3)

    def test_no_proof_without_a_view(self) -> None:
        """In view 0, a placeholder, no VC_PROOF is sent."""
        self.advance(0.65)
        self.assertEqual(len(self.take(Alive)), 3)
        self.assertEqual(self.take(VCProof), [])
        self.take(ViewChange)

    def test_heartbeat_ends_with_the_server(self) -> None:
        """A server that has failed sends no ALIVE any more."""
        self.replica.turn.run(lambda: 1 // 0)
        self.expected_failure(ZeroDivisionError)
        self.advance(1)
        self.assertNothingSent()

    def test_stopped_server_leaves_no_call_behind(self) -> None:
        """A stopped server has no delayed call left."""
        self.replica.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.transport.running)
