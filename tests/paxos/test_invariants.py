"""Each invariant of one server finds the state that violates it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.invariants import InvariantViolated, Memory, check, install
from pfsb.paxos.messages import Batch, ClientUpdate, GloballyOrderedUpdate, Proposal, State
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.simulator.cluster.cluster import SimulatedCluster

WINDOW = 2
BATCH = Batch.of(0, [])
OTHER = Batch.of(1, [])


class InvariantTests(SynchronousTestCase):
    """Servers of a cluster that has ordered one update; then one of them is tampered with."""

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(self.id(), settings=Settings(window_slots=WINDOW, queue_updates_max=1))
        self.cluster.submit(1, "a", 1)
        self.cluster.run_until(lambda: all(self.cluster.aru(i) == 1 for i in self.cluster.ids))
        self.leader, self.follower = self.cluster.replica(0), self.cluster.replica(1)

    def violates(self, sentence: int, replica: Replica, memory: Memory | None = None) -> None:
        error = self.assertRaises(InvariantViolated, check, replica, memory or Memory())
        self.assertIn(f": {sentence}: ", str(error))

    def seen(self, replica: Replica) -> Memory:
        """The memory that a check of the server's present state leaves."""
        memory = Memory()
        check(replica, memory)
        return memory

    def test_healthy_servers_pass(self) -> None:
        """And the check remembers what the next one needs."""
        self.assertEqual(self.seen(self.leader).led, 1)
        self.assertEqual(self.seen(self.follower).local_aru, 1)

    def test_installed_check_stops_a_server_at_the_end_of_the_turn(self) -> None:
        """The check runs inside the turn, so no message of a confused turn leaves the server."""
        install(self.follower)

        def confuse() -> None:
            self.follower.data.views.last_installed = 7

        self.cluster.expected_failures = (InvariantViolated,)
        self.follower.perform(confuse)
        self.assertTrue(self.follower.turn.stopped)

    def test_1_nothing_goes_back(self) -> None:
        """Local_Aru, Last_Installed and the state machine's time."""
        changes: list[Callable[[Memory], None]] = [
            lambda memory: setattr(memory, "local_aru", 2),
            lambda memory: setattr(memory, "last_installed", 2),
            lambda memory: setattr(memory, "time_ms", 10**9),
        ]
        for change in changes:
            memory = self.seen(self.follower)
            change(memory)
            self.violates(1, self.follower, memory)

    def test_2_each_slot_is_executed_once(self) -> None:
        """The digest chain counts executions."""
        self.follower.ordered_queue.digests.extend(b"once more", b"")
        self.violates(2, self.follower)

    def test_2_what_is_ordered_does_not_wait(self) -> None:
        """G13: the next slot in line."""
        self.follower.data.apply_globally_ordered_update(GloballyOrderedUpdate(0, 2, BATCH))
        self.violates(2, self.follower)

    def test_2_ordered_slot_stays(self) -> None:
        """S1, at one server: neither changed nor forgotten."""
        history = self.follower.data.ordering.global_history
        self.follower.data.apply_globally_ordered_update(GloballyOrderedUpdate(0, 3, BATCH))
        memory = self.seen(self.follower)
        history.slots[3].ordered = OTHER
        self.violates(2, self.follower, memory)
        del history.slots[3]
        self.violates(2, self.follower, memory)

    def test_3_attempted_and_installed(self) -> None:
        """Equal outside an election, never less in one."""
        self.follower.data.views.last_attempted = 2
        self.violates(3, self.follower)
        self.follower.data.server.state = State.LEADER_ELECTION
        check(self.follower, Memory())
        self.follower.data.views.last_attempted = 0
        self.violates(3, self.follower)

    def test_4_state_fits_the_view(self) -> None:
        """Only the leader of a view leads it."""
        self.follower.data.server.state = State.REG_LEADER
        self.violates(4, self.follower)
        self.leader.data.server.state = State.REG_NONLEADER
        self.violates(4, self.leader)

    def test_5_no_way_back_into_the_lead(self) -> None:
        """G10: having left the lead of view 1, it leads another or none."""
        memory = self.seen(self.leader)
        self.leader.data.server.state = State.LEADER_ELECTION
        check(self.leader, memory)
        self.leader.data.server.state = State.REG_LEADER
        self.violates(5, self.leader, memory)

    def test_6_progress_timer_runs(self) -> None:
        """G5, G8: without a running timer the server never suspects its leader."""
        for replica in (self.leader, self.follower):
            replica.progress_timer.stop()
            self.violates(6, replica)

    def test_7_queues(self) -> None:
        """A non-leader's is empty, a leader's bounded; its own clients' updates do not count."""
        self.follower.data.clients.update_queue.append(ClientUpdate("b", 1, 1, 0, b""))
        self.violates(7, self.follower)
        queue = self.leader.data.clients.update_queue
        queue.extend(ClientUpdate(f"own {i}", 0, 1, 0, b"") for i in range(5))
        queue.append(ClientUpdate("b", 1, 1, 0, b""))
        check(self.leader, Memory())
        queue.append(ClientUpdate("c", 1, 1, 0, b""))
        self.violates(7, self.leader)

    def test_8_pending_updates(self) -> None:
        """Filed under their client, and not executed."""
        pending = self.follower.data.clients.pending_updates
        pending["a"] = ClientUpdate("a", 1, 2, 0, b"")
        check(self.follower, Memory())
        pending["a"] = ClientUpdate("a", 1, 1, 0, b"")
        self.violates(8, self.follower)
        pending["a"] = ClientUpdate("b", 1, 2, 0, b"")
        self.violates(8, self.follower)

    def test_9_last_proposed(self) -> None:
        """Between Local_Aru and a window above it."""
        for last_proposed in (0, 1 + WINDOW + 1):
            self.leader.data.ordering.last_proposed = last_proposed
            self.violates(9, self.leader)

    def test_9_window_that_becomes_smaller(self) -> None:
        """Slots that are under way then are no fault, and nothing further may be proposed."""
        memory = self.seen(self.leader)
        self.leader.data.ordering.last_proposed = 1 + WINDOW
        check(self.leader, memory)
        self.leader.window.adopt(1)
        check(self.leader, memory)
        self.violates(9, self.leader)
        self.leader.data.ordering.last_proposed = 1 + WINDOW + 1
        self.violates(9, self.leader, memory)

    def test_10_slots_beyond_the_window(self) -> None:
        """Nothing that is not ordered, so that memory is bounded."""
        self.follower.data.apply_proposal(Proposal(0, 1, 1 + 4 * WINDOW, BATCH))
        check(self.follower, Memory())
        self.follower.data.apply_proposal(Proposal(0, 1, 2 + 4 * WINDOW, BATCH))
        self.violates(10, self.follower)

    def test_9_and_10_allow_for_a_window_that_was_lowered(self) -> None:
        """Slots that were proposed under the former window may be open still (Departure 34)."""
        self.leader.data.ordering.last_proposed = 1 + WINDOW + 2
        self.follower.data.apply_proposal(Proposal(0, 1, 1 + 4 * (WINDOW + 2), BATCH))
        for replica in (self.leader, self.follower):
            check(replica, Memory(window_max=WINDOW + 2))
        self.violates(9, self.leader, Memory(window_max=WINDOW + 1))
        self.violates(10, self.follower, Memory(window_max=WINDOW + 1))

    def test_11_durable_is_not_ahead(self) -> None:
        """The durable values are not ahead of the server's own."""
        self.follower.turn.durable.local_aru = 2
        self.violates(11, self.follower)
        self.follower.turn.durable.local_aru = 1
        self.follower.turn.durable.last_installed = 2
        self.violates(11, self.follower)

    def test_13_servers_that_are_not_admitted(self) -> None:
        """A server that is not admitted may have lost what it has promised."""
        for replica in (self.leader, self.follower):
            replica.storage_identity.is_newcomer = True
            self.violates(13, replica)

    def test_14_slots_are_left_out_only_by_a_snapshot(self) -> None:
        """The history begins anew when a snapshot was installed, above Local_Aru, and then its slots are gone."""
        memory = self.seen(self.follower)
        digests = self.follower.ordered_queue.digests
        digests.begin_at(1, digests.head)
        self.violates(14, self.follower, memory)
        self.follower.snapshot_fetcher.installed = 1
        self.violates(14, self.follower, memory)
        memory.local_aru = 0
        self.violates(14, self.follower, memory)
        self.follower.data.ordering.global_history.forget_up_to(1)
        check(self.follower, memory)

    def test_14_a_leader_installs_no_snapshot(self) -> None:
        """A leader has the promises of a majority for all slots above its Local_Aru."""
        memory = self.seen(self.leader)
        memory.local_aru = 0
        digests = self.leader.ordered_queue.digests
        digests.begin_at(1, digests.head)
        self.leader.data.ordering.global_history.forget_up_to(1)
        self.leader.snapshot_fetcher.installed = 1
        self.violates(14, self.leader, memory)
