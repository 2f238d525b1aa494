"""Figure 10 A and Figure 12 A: a client's update finds its way to the leader."""

from __future__ import annotations

from pfsb.paxos.messages import Accept, ClientUpdate, Proposal
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import accept, client_update, ordered, proposal, reply

FOREIGN = client_update("alice", 1, server_id=3)
OWN = client_update("carol", 1, server_id=2)


class ElectionTests(ReplicaTestCase):
    def test_own_update_is_queued_and_pending(self) -> None:
        """Figure 12 A: in an election an update of this server's own client is queued here, and is pending."""
        self.introduce(OWN)
        self.assertEqual(list(self.data.clients.update_queue), [OWN])
        self.assertEqual(self.data.clients.pending_updates, {"carol": OWN})

    def test_foreign_update_is_not_queued(self) -> None:
        """Figure 12 A: in an election an update of another server is not queued: that server answers for it, and will
        send it again."""
        self.receive(FOREIGN, sender=3)
        self.assertEqual(len(self.replica.update_queue), 0)
        self.assertEqual(self.data.clients.pending_updates, {})


class FollowerTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.follow(view=1)

    def test_own_update_goes_to_the_leader(self) -> None:
        """Figure 12 A: a follower sends an update of its own client to the leader, and keeps it as pending; nothing is
        forced to disk (Departure 3)."""
        self.hold_syncs = True
        self.introduce(OWN)
        self.assertSent(OWN, to=1)
        self.assertEqual(self.data.clients.pending_updates, {"carol": OWN})
        self.assertEqual(self.storage.records, [])

    def test_foreign_update_is_relayed_once_to_the_leader(self) -> None:
        """G8.3: an update of another server, which cannot reach the leader, is relayed to the leader once."""
        self.receive(FOREIGN, sender=3)
        self.assertSent(FOREIGN, to=1)
        self.assertEqual(self.data.clients.pending_updates, {})

    def test_relayed_update_is_not_relayed_on(self) -> None:
        """G8.3: an update that was relayed is not relayed again: only copies from the update's own server are, so that
        none goes round in circles."""
        self.receive(FOREIGN, sender=4)
        self.assertNothingSent()

    def test_leaders_own_update_is_not_sent_back_to_it(self) -> None:
        """G8.3: an update of the leader's own client, by which other servers learn that it waits, is not sent back to
        the leader, which has it."""
        self.receive(client_update("alice", 1, server_id=1), sender=1)
        self.assertNothingSent()
        self.assertTrue(self.replica.demand.knows_of_unexecuted_update())

    def test_executed_update_is_left_alone(self) -> None:
        """G16: an update is compared with Last_Executed first, in every state, so that an executed one never becomes
        pending."""
        self.receive(reply(3, ordered(3, 1, OWN)))
        self.introduce(OWN)
        self.assertNothingSent()
        self.assertEqual(self.data.clients.pending_updates, {})

    def test_pending_update_ends_even_when_another_servers_copy_ran(self) -> None:
        """G16: the pending entry is dropped, whichever server the executed copy names."""
        self.introduce(OWN)
        self.assertSent(OWN, to=1)
        self.receive(reply(3, ordered(3, 1, client_update("carol", 1, server_id=5))))
        self.assertEqual(self.data.clients.pending_updates, {})

    def test_newer_pending_update_outlives_the_execution_of_an_older_one(self) -> None:
        """Figure 10 D: when an older update of a client is executed, a newer one stays pending."""
        newer = client_update("carol", 2, server_id=2)
        self.introduce(newer)
        self.assertSent(newer, to=1)
        self.receive(reply(3, ordered(3, 1, OWN)))
        self.assertEqual(self.data.clients.pending_updates, {"carol": newer})


class LeaderTests(ReplicaTestCase):
    def after_start(self) -> None:
        self.lead(view=2)

    def test_own_update_is_proposed_and_pending(self) -> None:
        """Figure 12 A: a leader proposes an update of its own client, and keeps it as pending."""
        self.introduce(OWN)
        self.assertSent(proposal(2, 2, 1, OWN))
        self.assertSent(accept(2, 2, 1))
        self.assertEqual(self.data.clients.pending_updates, {"carol": OWN})

    def test_foreign_update_is_proposed_and_not_pending(self) -> None:
        """Figure 12 A: a leader proposes an update of another server's client; that server stays responsible for it."""
        self.receive(FOREIGN, sender=3)
        self.assertSent(proposal(2, 2, 1, FOREIGN))
        self.assertSent(accept(2, 2, 1))
        self.assertEqual(self.data.clients.pending_updates, {})

    def test_repeated_update_is_proposed_once(self) -> None:
        """Figure 13 A: an update that is repeated is proposed once, as Last_Enqueued has it."""
        self.receive(FOREIGN, sender=3)
        self.receive(FOREIGN, sender=4)
        self.assertEqual(len(self.take(Proposal)), 1)
        self.take(Accept)

    def test_executed_update_is_not_proposed_again(self) -> None:
        """G16: a leader does not propose again an update that was executed."""
        self.receive(reply(3, ordered(3, 1, FOREIGN)))
        self.receive(FOREIGN, sender=4)
        self.assertNotSent(Proposal)
        self.assertNotSent(ClientUpdate)

    def test_executed_update_that_its_server_repeats_is_answered_with_its_slot(self) -> None:
        """Departure 49: a server that repeats an executed update has not executed its slot, and is sent the slot; a
        server that relays the update is not."""
        self.receive(reply(3, ordered(3, 1, FOREIGN)))
        self.receive(FOREIGN, sender=4)
        self.assertNothingSent()
        self.receive(FOREIGN, sender=3)
        self.assertSent(reply(2, ordered(2, 1, FOREIGN), local_aru=1), to=3)
