"""Sections 3, 4, 5.6 and 5.8: safety and liveness, reconciliation, and what must be on disk before what leaves."""

from __future__ import annotations

from functools import partial

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    ReconciliationRequest,
    State,
    VCProof,
    ViewChange,
)
from pfsb.paxos.settings import Settings
from pfsb.paxos.start_number import incarnation_of
from pfsb.paxos.storage_identity import StorageWasReplaced
from pfsb.simulator.cluster.network import LinkQuality
from tests.paper.scenario import ONE_UPDATE_A_SLOT, ScenarioTestCase, passing


class WhatIsOnDiskBeforeItIsSaid(ScenarioTestCase):
    """The table of section 5.8, row by row: a server whose disk does not finish a write sends only messages that need
    no disk."""

    def _stuck(self, server_id: int) -> None:
        self.cluster.servers[server_id].sync_seconds = (1000.0, 1000.0)

    def _start_and_stick(self, server_id: int) -> None:
        """Start all servers. The disk of one finishes no more writes once it holds the identities and starts of the
        others.

        Without these no server would admit the other two (Departures 42, 43).
        """
        for each in self.cluster.ids:
            self.cluster.restart(each)
        peers = self.cluster.disk(server_id).contents.peers
        others = [i for i in self.cluster.ids if i != server_id]
        self.cluster.run_until(lambda: all(i in peers and incarnation_of(peers[i].incarnation) == 1 for i in others))
        self._stuck(server_id)

    def test_vote_for_a_view_needs_no_disk(self) -> None:
        """A VIEW_CHANGE leaves without a disk write: it is no promise, and carries nothing that must outlive a
        crash."""
        cluster = self.begin()
        self._stuck(2)
        self.sent.clear()
        cluster.crash(0)
        cluster.run(2)
        self.assertIn(ViewChange(2, 2), self.sent_by(2, ViewChange))

    def test_promise_waits_for_the_view(self) -> None:
        """Figure 14: PREPARE_OK, VC_PROOF and an ALIVE of the new view wait until Last_Installed is on disk."""
        cluster = self.begin(start=False)
        self._start_and_stick(2)
        cluster.run_until(lambda: self.view(2) == 1)
        cluster.run(0.5)
        self.assertEqual(self.sent_by(2, PrepareOK) + self.sent_by(2, VCProof), [])
        self.assertEqual({m.view for m in self.sent_by(2, Alive)}, {0})

    def test_prepare_waits_for_the_view(self) -> None:
        """A PREPARE waits until the view is on disk: a leader must never lead one view twice."""
        cluster = self.begin(start=False)
        self._start_and_stick(0)
        cluster.run_until(lambda: self.view(0) == 1)
        cluster.run(0.5)
        self.assertEqual(self.sent_by(0, Prepare), [])

    def test_follower_vote_waits_for_the_proposal(self) -> None:
        """The ACCEPT of a follower waits until the proposal is on its disk, since the next leader must hear of it."""
        cluster = self.begin()
        self._stuck(2)
        cluster.submit(1, "a", 1)
        self.until_executed(["a"], 0, 1)
        cluster.run(0.5)
        self.assertEqual(self.sent_by(2, Accept), [])

    def test_leader_vote_waits_and_nobody_counts_the_proposal_for_it(self) -> None:
        """Section 4.4: the PROPOSAL leaves early, the leader's ACCEPT does not, and with N=3 two servers must vote."""
        cluster = self.begin()
        self._stuck(0)
        cluster.crash(2)
        cluster.submit(0, "a", 1)
        cluster.run(0.5)
        self.assertNotEqual(self.sent_by(0, Proposal), [])
        self.assertEqual(self.sent_by(0, Accept), [])
        self.assertEqual((cluster.aru(1), cluster.answers), (0, {}))

    def test_reply_waits_for_the_votes_that_it_rests_on(self) -> None:
        """Departure 1: a server that counts its own vote answers its client when that vote is on its disk."""
        cluster = self.begin()
        cluster.crash(2)
        cluster.servers[1].sync_seconds = (0.3, 0.3)
        cluster.submit(1, "a", 1)
        cluster.run_until(lambda: cluster.aru(1) == 1)
        self.assertEqual(cluster.answers, {})
        cluster.run_until(self.answered("a"), 0.4)

    def test_alive_tells_only_what_is_on_disk(self) -> None:
        """ALIVE tells only a Local_Aru that is on disk, since others may rely on it."""
        cluster = self.begin()
        self._stuck(1)
        cluster.submit(0, "a", 1)
        self.until_executed(["a"])
        cluster.run(1)
        self.assertEqual(self.sent_by(1, Alive)[-1].local_aru, 0)
        self.assertEqual(self.sent_by(2, Alive)[-1].local_aru, 1)


class Liveness(ScenarioTestCase):
    def test_stable_majority_is_not_disturbed_by_a_flapping_server(self) -> None:
        """Paxos-L1 (section 4): a server that comes and goes, and suspects its leader each time, costs no progress."""
        cluster = self.begin()
        for beat in range(8):
            cluster.clock.callLater(1.5 * beat, partial(cluster.isolate, 2))
            cluster.clock.callLater(1.5 * beat + 1.3, cluster.heal)
        for timestamp in range(1, 101):
            cluster.clock.callLater(timestamp / 10, partial(cluster.submit, timestamp % 2, "a", timestamp))
        cluster.run(10.2)
        self.assertEqual(len(self.clients_executed(0)), 100)
        self.assertEqual((self.view(0), self.view(1)), (1, 1))

    def test_crashed_servers_in_the_line_of_succession(self) -> None:
        """Paxos-L1: the views of dead servers are attempted, too, and passed over."""
        cluster = self.begin(5)
        cluster.crash(0)
        cluster.crash(1)
        cluster.submit(4, "a", 1)
        cluster.run_until(self.answered("a"), 10)
        self.assertEqual(cluster.leader(), 2)

    def test_majority_with_bad_links(self) -> None:
        """Paxos-L1: a majority makes progress with 30 % loss, duplicates and reordering on all links."""
        cluster = self.begin()
        cluster.network.set_quality(LinkQuality(loss=0.3, duplication=0.2, reordering=0.5))
        for timestamp in range(1, 21):
            cluster.submit(timestamp % 3, "a", timestamp)
            cluster.run_until(lambda t=timestamp: ("a", t) in cluster.answers, 20)
        cluster.run_until(cluster.all_equal, 20)

    def test_what_one_has_executed_reaches_all_connected(self) -> None:
        """Paxos-L2: if the leader that executed an update is gone, a server that is connected to one with the update
        gets it."""
        cluster = self.begin(5, settings=ONE_UPDATE_A_SLOT)
        cluster.isolate(3, 4)
        for timestamp in range(1, 6):
            cluster.submit(1, "a", timestamp)
            cluster.run(0.05)
        cluster.run(1)
        cluster.crash(0)
        cluster.crash(1)
        cluster.heal()
        self.until_executed(["a"] * 5, 2, 3, 4, seconds=10)

    def test_answered_update_survives_the_crash_of_all(self) -> None:
        """Promise 1: after an answer and a power loss everywhere, any majority that comes back has the update."""
        for majority in ((0, 1), (0, 2), (1, 2)):
            cluster = self.begin()
            cluster.submit(2, "a", 1)
            cluster.run_until(self.answered("a"))
            for server_id in cluster.ids:
                cluster.crash(server_id)
            for server_id in majority:
                cluster.restart(server_id)
            self.until_executed(["a"], *majority, seconds=20)


class Reconciliation(ScenarioTestCase):
    def _fall_behind(self, settings: Settings, slots: int = 20) -> None:
        """Let server 2 miss this number of slots, and come back."""
        cluster = self.begin(settings=settings)
        cluster.crash(2)
        for timestamp in range(1, slots + 1):
            cluster.submit(1, "a", timestamp, b"x" * 100)
            cluster.run(0.02)
        self.assertEqual(cluster.aru(1), slots)
        cluster.run(0.5)
        self.sent.clear()
        cluster.restart(2)

    def test_server_that_was_away_asks_a_follower(self) -> None:
        """Section 5.6: a server that was away asks a follower for slots; the leader is not asked when others can
        serve."""
        self._fall_behind(Settings())
        self.until_executed(["a"] * 20, 2, seconds=3)
        asked = {to for sender, to, m in self.sent if isinstance(m, ReconciliationRequest)}
        self.assertEqual(asked, {1})

    def test_what_is_no_more_in_memory_comes_from_disk(self) -> None:
        """Section 5.6: slots that are no longer in memory are served from disk."""
        self._fall_behind(Settings(history_slots_kept=0))
        self.assertEqual(self.cluster.replica(1).data.ordering.global_history.floor, 20)
        self.until_executed(["a"] * 20, 2, seconds=3)

    def test_bounded_bursts_with_losses(self) -> None:
        """Section 5.6: each burst of slots is bounded, and parts of it that are lost are asked for anew."""
        self._fall_behind(Settings(frame_data_bytes_max=300))
        lossy = LinkQuality(loss=0.4)
        self.cluster.network.set_quality(lossy, [(0, 2), (1, 2), (2, 0), (2, 1)])
        self.until_executed(["a"] * 20, 2, seconds=30)
        replies = [m for _, _, m in self.sent if isinstance(m, ReconciliationReply)]
        self.assertLessEqual(max(len(m.updates) for m in replies), 3)

    def test_peer_that_does_not_answer_is_replaced(self) -> None:
        """Section 5.6: if a peer does not answer in time another one is asked, and the leader if there is no other."""
        cluster = self.begin()
        cluster.crash(2)
        cluster.submit(0, "a", 1)
        self.until_executed(["a"])
        cluster.run(0.5)
        self.sent.clear()
        cluster.network.drop(passing(ReconciliationReply, sender=1))
        cluster.restart(2)
        self.until_executed(["a"], 2, seconds=3)
        self.assertEqual({to for _, to, m in self.sent if isinstance(m, ReconciliationRequest)}, {0, 1})


class StorageIdentity(ScenarioTestCase):
    def test_lost_disk_is_not_a_new_server(self) -> None:
        """G20: a server that comes back with an empty disk has lost its promises: it is told so, and stops."""
        cluster = self.begin()
        cluster.submit(1, "a", 1)
        self.until_executed(["a"])
        cluster.crash(2)
        cluster.lose_disk(2)
        cluster.expected_failures = (StorageWasReplaced,)
        cluster.restart(2)
        self.sent.clear()
        cluster.run(1)
        self.assertFalse(cluster.is_running(2))
        self.assertIn("with another storage", cluster.failures[2].getErrorMessage())
        self.assertEqual((self.view(0), self.state(0)), (1, State.REG_LEADER))
