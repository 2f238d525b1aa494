"""Figures 1, 10 and 11, sections 5.5, 5.9, 5.10 and 7.6: how updates get their numbers."""

from __future__ import annotations

from functools import partial

from pfsb.paxos.messages import Accept, ClientUpdate, Ordered, Prepare, PrepareOK, Proposal, State, ViewChange
from pfsb.paxos.settings import Settings
from tests.paper.scenario import ONE_UPDATE_A_SLOT, ScenarioTestCase, passing


class NormalCase(ScenarioTestCase):
    def test_one_update_from_client_to_reply(self) -> None:
        """Figure 1: the client's server sends the update to the leader, which proposes it; all servers accept and
        execute it, and the client's server replies."""
        cluster = self.begin(4)
        self.sent.clear()
        cluster.submit(3, "a", 1)
        cluster.run_until(self.answered("a"), 0.1)
        self.until_executed(["a"], seconds=0.1)
        cluster.run(0.05)  # a server may execute the update while its own vote waits for its disk
        self.assertEqual([to for _, to, m in self.sent if isinstance(m, ClientUpdate)], [0])
        self.assertEqual([(s, to) for s, to, m in self.sent if isinstance(m, Proposal)], [(0, None)])
        votes = [(sender, to) for sender, to, m in self.sent if isinstance(m, Accept)]
        self.assertEqual(sorted(votes), [(i, None) for i in cluster.ids])

    def test_leader_of_five_tells_what_is_ordered(self) -> None:
        """Section 4.4, Departure 55: among five servers all vote to the leader, which tells the others what a majority
        has accepted."""
        cluster = self.begin(5)
        self.sent.clear()
        cluster.submit(3, "a", 1)
        cluster.run_until(self.answered("a"), 0.1)
        self.until_executed(["a"], seconds=0.1)
        cluster.run(0.05)
        votes = [(sender, to) for sender, to, m in self.sent if isinstance(m, Accept)]
        self.assertEqual(sorted(votes), [(i, 0) for i in cluster.ids if i != 0])
        self.assertEqual({sender for sender, _, m in self.sent if isinstance(m, Ordered)}, {0})

    def test_many_updates_share_a_proposal(self) -> None:
        """Section 7.3: updates that wait while the window is closed go into few proposals when it opens."""
        cluster = self.begin(settings=Settings(window_slots=1))
        for i in range(50):
            cluster.submit(i % 3, f"c{i}", 1)
        cluster.run_until(lambda: len(cluster.answers) == 50)
        self.assertLess(cluster.aru(0), 10)

    def test_leader_votes_when_its_own_disk_has_it(self) -> None:
        """Section 4.4 and Departure 2: the leader's PROPOSAL leaves before it is on the leader's disk, and its explicit
        ACCEPT afterwards."""
        cluster = self.begin()
        cluster.servers[0].sync_seconds = (0.05, 0.05)
        cluster.submit(0, "a", 1)
        cluster.run_until(self.answered("a"))
        mine = [m for m in self.sent if m[0] == 0 and isinstance(m[2], Proposal | Accept)]
        theirs = [m for m in self.sent if m[0] == 1 and isinstance(m[2], Accept)]
        self.assertIsInstance(mine[0][2], Proposal)
        self.assertLess(self.sent.index(theirs[0]), self.sent.index(mine[1]))

    def test_leader_proposes_no_further_than_its_window(self) -> None:
        """Section 5.10: with a window of W, slot i is proposed only when slot i - W is executed."""
        cluster = self.begin(settings=Settings(window_slots=3, batch_bytes_max=1))
        blocked = cluster.network.drop(passing(Accept))
        for i in range(9):
            cluster.submit(0, f"c{i}", 1)
        cluster.run(0.3)
        self.assertEqual(sorted(self.proposed(1)), [1, 2, 3])
        cluster.network.filters.remove(blocked)
        cluster.run_until(lambda: len(cluster.answers) == 9)

    def test_accept_overtakes_its_proposal(self) -> None:
        """G17: ACCEPTs that overtake their PROPOSAL are kept, by view; when the PROPOSAL comes, the slot is ordered
        without another message."""
        cluster = self.begin()
        late = cluster.network.hold(passing(Proposal, receiver=2))
        cluster.submit(1, "a", 1)
        self.until_executed(["a"], 0, 1)
        cluster.run(0.01)
        cluster.network.drop(lambda passage: passage.receiver == 2 and not isinstance(passage.message, Proposal))
        late.release()
        self.until_executed(["a"], 2, seconds=0.1)

    def test_vote_of_one_view_does_not_count_for_a_proposal_of_another(self) -> None:
        """G17: a server that missed the PROPOSAL of view 1 does not order that of view 2 with the votes of view 1."""
        cluster = self.begin(settings=ONE_UPDATE_A_SLOT)
        cluster.network.drop(passing(Proposal, receiver=2))
        cluster.network.drop(passing(Accept, receiver=0))
        cluster.network.drop(passing(Accept, receiver=1))
        cluster.submit(0, "a", 1)
        self.until_on_disk(1, 1, "a")
        cluster.run(0.01)
        voters = cluster.replica(2).data.ordering.global_history.slots[1].voters
        self.assertEqual({view: set(votes) for view, votes in voters.items()}, {1: {0, 1}})
        cluster.network.filters.clear()
        cluster.network.drop(passing(Accept))
        cluster.crash(0)
        self.until_led_by(1)
        self.until_on_disk(2, 1, "a")
        self.assertEqual(cluster.aru(2), 0)
        self.no_more_filters()
        self.until_executed(["a"], 1, 2)

    def test_stale_leader_is_not_followed(self) -> None:
        """Figure 4 E6 (G26): a PROPOSAL of the leader of an older view is discarded because of its view."""
        cluster = self.begin(5, settings=ONE_UPDATE_A_SLOT)
        cluster.isolate(0, 1)
        for client in ("x", "y", "z"):
            cluster.submit(0, client, 1)
        self.until_on_disk(1, 3, "z")
        cluster.run_until(lambda: [self.state(i) for i in (3, 4)] == [State.REG_NONLEADER] * 2 and self.view(3) > 1)
        self.assertEqual(self.proposed(1), {1: ["x"], 2: ["y"], 3: ["z"]})
        for receiver in (3, 4):
            self.hand_over(0, receiver, self.sent_by(0, Proposal)[:3])
            self.assertEqual(cluster.replica(receiver).data.ordering.global_history.slots, {})
            self.assertEqual(cluster.replica(receiver).discarded["4 E6"], 3)


class Retransmission(ScenarioTestCase):
    def test_every_kind_of_message_may_be_lost_at_first(self) -> None:
        """Section 5.9: if the first message of each kind between any two servers is lost, all goes on as if none had
        been."""
        for kind in (ViewChange, Prepare, PrepareOK, Proposal, Accept, ClientUpdate):
            cluster = self.begin(start=False)
            lost: set[tuple[int, int]] = set()

            def loses_first(passage, kind=kind, lost=lost) -> bool:
                pair = (passage.sender, passage.receiver)
                if not isinstance(passage.message, kind) or pair in lost:
                    return False
                lost.add(pair)
                return True

            cluster.network.drop(loses_first)
            for server_id in cluster.ids:
                cluster.restart(server_id)
            cluster.run(0.5)
            cluster.submit(1, "a", 1)
            cluster.submit(2, "b", 1)
            cluster.run_until(self.answered("a", "b"), 3)
            self.assertNotEqual(lost, set(), kind)
            cluster.run_until(cluster.all_equal, 3)
            self.assertEqual(self.view(0), 1, kind)

    def test_prepare_is_repeated_until_the_view_is_prepared(self) -> None:
        """Section 5.9: the leader repeats its PREPARE until the view is prepared, and no longer."""
        cluster = self.begin(start=False)
        lost = cluster.network.drop(passing(PrepareOK))
        for server_id in cluster.ids:
            cluster.restart(server_id)
        cluster.run(0.55)
        self.assertGreaterEqual(len(self.sent_by(0, Prepare)), 5)
        cluster.network.filters.remove(lost)
        self.until_led_by(0)
        self.sent.clear()
        cluster.run(1)
        self.assertEqual(self.sent_by(0, Prepare), [])


class ClientHandling(ScenarioTestCase):
    """Section 5.6 of the paper: clients' updates in each case of a view change (Figures 12 and 13)."""

    def test_election_to_nonleader(self) -> None:
        """Case 1, from an election to REG_NONLEADER: the queue is emptied; updates of the server's own clients are
        pending, and are sent to the new leader."""
        cluster = self.begin()
        cluster.crash(0)
        cluster.run_until(lambda: self.state(2) is State.LEADER_ELECTION)
        cluster.submit(2, "a", 1)
        cluster.run_until(lambda: "a" in cluster.replica(2).data.clients.pending_updates)
        self.until_led_by(1)
        cluster.run_until(self.answered("a"), 0.3)
        self.assertEqual(cluster.answers["a", 1], 1)

    def test_election_to_leader(self) -> None:
        """Case 2, from an election to REG_LEADER: the new leader itself proposes its pending updates that are not
        bound."""
        cluster = self.begin()
        cluster.network.drop(passing(ClientUpdate))
        cluster.submit(1, "a", 1)
        cluster.run(0.05)
        cluster.crash(0)
        self.until_led_by(1)
        cluster.run_until(self.answered("a"), 0.1)

    def test_leader_to_election(self) -> None:
        """Case 4, from REG_LEADER to an election: the updates of the old leader's own clients are pending, and another
        leader binds them."""
        cluster = self.begin()
        cluster.network.drop(passing(Proposal, view=1))
        cluster.network.drop(passing(Accept, view=1))
        cluster.submit(0, "a", 1)
        cluster.run(0.1)
        cluster.isolate(0)
        self.until_led_by(1)
        cluster.heal()
        cluster.run_until(self.answered("a"), 10)
        self.assertEqual(self.proposed(self.view(1)), {1: ["a"]})

    def test_repetition_at_another_server_runs_once(self) -> None:
        """S3, G15, G16: an update with the same number that comes to every server, at once and later, takes one slot
        and has one answer."""
        cluster = self.begin(settings=ONE_UPDATE_A_SLOT)
        for seconds in (0.0, 0.0, 0.001, 0.002, 1.0):
            for server_id in cluster.ids:
                cluster.clock.callLater(seconds, partial(cluster.submit, server_id, "a", 1))
        cluster.run(3)
        self.assertEqual([self.clients_executed(i) for i in cluster.ids], [["a"]] * 3)
        self.assertEqual([len(cluster.replica(i).data.clients.pending_updates) for i in cluster.ids], [0, 0, 0])

    def test_update_names_another_server_than_the_one_that_waits(self) -> None:
        """G16: a pending update is dropped when any copy of it is executed, whichever server the copy names."""
        cluster = self.begin()
        stuck = cluster.network.hold(passing(ClientUpdate, sender=2))
        cluster.submit(2, "a", 1)
        cluster.run(0.05)
        cluster.submit(1, "a", 1)
        self.until_executed(["a"])
        self.assertEqual(cluster.replica(2).data.clients.pending_updates, {})
        stuck.release()
        cluster.run(1)
        self.assertEqual(self.clients_executed(0), ["a"])

    def test_repetition_at_the_leader_while_the_first_copy_waits_there(self) -> None:
        """Paxos-L1: the leader answers for a client's repetition, too, although the copy in its queue names another
        server.

        That other server crashes, and the leader steps down: the update must go to the next leader all the same.
        """
        cluster = self.begin(settings=Settings(window_slots=1, batch_bytes_max=1))
        cluster.network.drop(passing(Accept))
        cluster.submit(1, "first", 1)
        self.until_on_disk(0, 1, "first")
        queue = cluster.replica(0).data.clients.update_queue
        cluster.submit(2, "a", 1)
        cluster.run_until(lambda: [update.client_id for update in queue] == ["a"])
        cluster.submit(0, "a", 1)
        cluster.run(0.01)
        cluster.crash(2)
        cluster.isolate(0)
        cluster.restart(2)
        self.no_more_filters()
        self.until_led_by(1)
        cluster.run_until(lambda: self.state(0) is State.LEADER_ELECTION)
        cluster.heal()
        cluster.run_until(self.answered("a"), 20)
