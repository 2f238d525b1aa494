"""Figure 2 E2 and Figure 12 B: an update that is not executed in time is sent again."""

from __future__ import annotations

from attrs import evolve

from pfsb.paxos.messages import Accept, ClientUpdate, Proposal, ReconciliationRequest, ViewChange
from tests.paxos.case import SMALL, ReplicaTestCase
from tests.paxos.messages import accept, alive, client_update, ordered, proposal, reply

CAROL = client_update("carol", 1, server_id=2)
DAVE = client_update("dave", 1, server_id=2)


class FollowerTests(ReplicaTestCase):
    settings = evolve(SMALL, progress_seconds=20.0)

    def after_start(self) -> None:
        self.follow(view=1)
        self.introduce(CAROL)
        self.assertSent(CAROL, to=1)

    def hear_both(self) -> None:
        """Let ALIVEs of the leader and of server 3, whose votes count, arrive, so that their later votes do not end a
        silence of these servers. One update goes to the leader then."""
        self.hear_leader()
        self.receive(alive(3, 1))
        self.assertEqual(self.destinations(), [1])

    def destinations(self) -> list[int | None]:
        """The destinations of updates since the last call."""
        found = [s for s in self.transport.sent if not s.looked_at and isinstance(s.message, ClientUpdate)]
        for sent in found:
            sent.looked_at = True
        return [sent.to for sent in found]

    def test_first_expiry_sends_it_to_the_leader_again(self) -> None:
        """Figure 12, Block B: at the first expiry of its timer an update is sent to the leader again."""
        self.advance(0.49)
        self.assertNothingSent()
        self.advance(0.02)
        self.assertSent(CAROL, to=1)

    def test_second_expiry_sends_it_to_all(self) -> None:
        """G8.3, scenario 12: at the second expiry an update is sent to all servers: all learn that it waits, and one
        that reaches the leader relays it."""
        self.advance(0.6)
        self.assertEqual(self.destinations(), [1])
        self.advance(0.88)
        self.assertEqual(self.destinations(), [])
        self.advance(0.3)
        self.assertEqual(self.destinations(), [None])
        self.take(ViewChange)

    def test_length_doubles_while_nothing_is_executed(self) -> None:
        """Departure 49: the length doubles while nothing is executed, from 0.5 s to 1 s and 2 s and no longer, each up
        to a quarter longer at random: other servers remember an update for that time."""
        self.advance(19)
        self.assertIn(len(self.destinations()), (10, 11))

    def test_length_follows_the_time_to_the_proposal(self) -> None:
        """Departure 49: the length follows the time to the PROPOSAL: an update that is in no PROPOSAL after the usual
        time counts as lost."""
        self.hear_both()
        self.advance(0.02)
        self.order(1, CAROL)
        self.introduce(DAVE)
        self.assertSent(DAVE, to=1)
        self.advance(0.05)
        self.assertNothingSent()
        self.advance(0.02)
        self.assertSent(DAVE, to=1)

    def test_wait_stays_doubled_after_a_slow_answer_to_one_of_two_copies(self) -> None:
        """Departure 49, Karn's rule: after a slow answer to one of two copies, which took 0.1 s at least and perhaps
        0.6 s, the wait stays doubled."""
        self.advance(0.4)
        self.hear_both()
        self.advance(0.2)
        self.assertEqual(self.destinations(), [1])
        self.order(1, CAROL)
        self.introduce(DAVE)
        self.assertSent(DAVE, to=1)
        self.advance(0.55)
        self.assertNothingSent()

    def test_update_in_a_proposal_of_the_leader_is_not_sent_again(self) -> None:
        """Departure 49: an update in a PROPOSAL of the leader has arrived, and is not sent again; if its slot stays
        open, the leader is asked for the slot."""
        self.receive(proposal(1, 1, 1, CAROL))
        self.assertSent(accept(2, 1, 1))
        self.advance(0.6)
        self.assertNotSent(ClientUpdate)
        self.assertSent(ReconciliationRequest(2, 1, 1), to=1)
        self.take(ReconciliationRequest)

    def test_time_in_which_this_server_stood_still_is_not_measured(self) -> None:
        """Departure 49: time in which this server stood still is not measured: a pause of a minute does not make the
        next wait longer."""
        self.hear_both()
        self.clock.rightNow += 60.0
        self.order(1, CAROL)
        self.assertEqual(self.replica.update_timers.seconds, self.settings.update_seconds)
        self.take(ClientUpdate)

    def test_waits_do_not_grow_while_the_disk_is_in_trouble(self) -> None:
        """Departure 45: while the disk is in trouble no update is sent, so waits do not grow, and the first copy
        afterwards is not late."""
        self.hear_both()
        self.storage.is_full = True
        for _ in range(20):
            self.hear_leader()
            self.advance(0.2)
        self.assertEqual(self.destinations(), [])
        self.assertEqual(self.replica.update_timers.seconds, self.settings.update_seconds)
        self.storage.is_full = False
        self.advance(0.8)
        self.assertEqual(self.destinations(), [None])

    def test_copy_that_waits_for_the_disk_is_one_copy(self) -> None:
        """Departure 49: an update that waits for the disk is not sent a second time, since a copy that has not left
        cannot be lost."""
        self.hold_syncs = True
        self.receive(proposal(1, 1, 1, client_update("bob", 1)))
        self.introduce(DAVE)
        self.advance(0.51)
        self.assertEqual(self.destinations(), [])
        self.advance(1.2)
        self.storage.finish_all()
        self.assertEqual(self.destinations(), [1, 1])
        self.take(Accept)
        self.take(ReconciliationRequest)
        self.take(ViewChange)

    def test_executed_update_is_not_sent_again(self) -> None:
        """Figure 10 D: an executed update is not sent again, since its timer is stopped."""
        self.receive(reply(3, ordered(3, 1, CAROL)))
        self.advance(0.9)
        self.assertNothingSent()

    def test_each_update_has_its_own_time(self) -> None:
        """Figure 2 E2: each client's update has a timer of its own."""
        self.advance(0.3)
        self.introduce(DAVE)
        self.assertSent(DAVE, to=1)
        self.advance(0.25)
        self.assertEqual(self.take(ClientUpdate), [CAROL])
        self.advance(0.9)
        self.assertEqual(self.take(ClientUpdate), [DAVE])
        self.take(ViewChange)

    def test_next_update_of_a_client_starts_from_the_beginning(self) -> None:
        """The next update of a client starts with a first expiry, which sends it to the leader: those of the last
        update do not count."""
        self.advance(0.6)
        self.assertEqual(self.destinations(), [1])
        self.receive(reply(3, ordered(3, 1, CAROL)))
        again = client_update("carol", 2, server_id=2)
        self.introduce(again)
        self.assertSent(again, to=1)
        self.advance(0.51)
        self.assertEqual(self.destinations(), [1])

    def test_new_leader_at_work_gets_at_once_what_waits(self) -> None:
        """Departure 18: when a new leader is at work, pending updates are sent to it at once, before their timers
        expire."""
        self.hear_leader()
        self.assertSent(CAROL, to=1)
        self.hear_leader()
        self.assertNothingSent()

    def test_traced_with_client_and_count(self) -> None:
        """The trace has each expiry of an Update_Timer, with client and count (docs/operating.rst)."""
        self.advance(0.6)
        self.assertEqual(self.destinations(), [1])
        self.assertEqual(self.notes.of("timer"), [{"name": "update", "client": "carol", "expiries": 1}])


class ElectionTests(ReplicaTestCase):
    def test_in_an_election_only_the_second_expiry_is_heard(self) -> None:
        """In an election, which has no leader, an update is sent at the second expiry only, to all, so that none takes
        the silence for idleness."""
        self.introduce(CAROL)
        self.advance(0.6)
        self.assertNotSent(ClientUpdate)
        self.advance(0.5)
        self.assertSent(CAROL, to=None)
        self.take(ViewChange)


class LeaderTests(ReplicaTestCase):
    settings = evolve(SMALL, progress_seconds=20.0)

    def test_leader_sends_its_updates_in_proposals_only(self) -> None:
        """Figure 12, Block B: a leader sends its clients' updates in PROPOSALs only."""
        self.lead(view=2)
        self.introduce(CAROL)
        self.advance(1.8)
        self.assertNotSent(ClientUpdate)
        self.take(Proposal)
        self.take(Accept)

    def test_update_that_waits_for_the_window_is_told_to_all(self) -> None:
        """Departure 17: an update of a leader's client that waits for the window is sent to all at the second expiry,
        since a majority must know that it waits."""
        self.lead(view=2)
        for number in range(SMALL.window_slots):
            self.introduce(client_update(f"c{number}", 1, server_id=2))
        self.introduce(CAROL)
        self.advance(0.6)
        self.assertNotSent(ClientUpdate)
        self.advance(0.5)
        self.assertSent(CAROL, to=None)
        self.take(Proposal)
        self.take(Accept)


class ManyClientsTests(ReplicaTestCase):
    def test_one_delayed_call_serves_all_clients(self) -> None:
        """One delayed call serves the timers of all clients, which have the same length and so expire in the order in
        which they were started."""
        self.follow(view=1)
        before = len(self.clock.getDelayedCalls())
        self.introduce(*(client_update(f"c{n}", 1, server_id=2) for n in range(100)))
        self.assertEqual(len(self.take(ClientUpdate)), 100)
        self.assertEqual(len(self.clock.getDelayedCalls()), before + 1)
        self.advance(0.51)
        self.assertEqual(len(self.take(ClientUpdate)), 100)

    def test_stopped_server_leaves_no_call_behind(self) -> None:
        """A stopped server has no delayed call left."""
        self.follow(view=1)
        self.introduce(CAROL)
        self.assertSent(CAROL, to=1)
        self.replica.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
