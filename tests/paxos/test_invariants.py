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
        """The memory that is left by a check of the server's present state."""
        memory = Memory()
        check(replica, memory)
        return memory

    def test_healthy_servers_pass(self) -> None:
        """Servers in a right state pass the check, which stores the values that the next check needs."""
        self.assertEqual(self.seen(self.leader).led, 1)
        self.assertEqual(self.seen(self.follower).local_aru, 1)

    def test_installed_check_stops_a_server_at_the_end_of_the_turn(self) -> None:
        """A check that is installed in a server stops it inside the turn that breaks an invariant, so that no message
        of that turn leaves."""
        install(self.follower)

        def confuse() -> None:
            self.follower.data.views.last_installed = 7

        self.cluster.expected_failures = (InvariantViolated,)
        self.follower.perform(confuse)
        self.assertTrue(self.follower.turn.stopped)

    def test_1_nothing_goes_back(self) -> None:
        """Invariant 1: Local_Aru, Last_Installed and the state machine's time never go back."""
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
        """Invariant 2: each slot is executed once, as the digest chain counts."""
        self.follower.ordered_queue.digests.extend(b"once more", b"")
        self.violates(2, self.follower)

    def test_2_what_is_ordered_does_not_wait(self) -> None:
        """Invariant 2, G13: if the slot after Local_Aru is ordered, it is executed."""
        self.follower.data.apply_globally_ordered_update(GloballyOrderedUpdate(0, 2, BATCH))
        self.violates(2, self.follower)

    def test_2_ordered_slot_stays(self) -> None:
        """Invariant 2, S1 at one server: an ordered slot is neither changed nor forgotten."""
        history = self.follower.data.ordering.global_history
        self.follower.data.apply_globally_ordered_update(GloballyOrderedUpdate(0, 3, BATCH))
        memory = self.seen(self.follower)
        history.slots[3].ordered = OTHER
        self.violates(2, self.follower, memory)
        del history.slots[3]
        self.violates(2, self.follower, memory)

    def test_3_attempted_and_installed(self) -> None:
        """Invariant 3: Last_Attempted and Last_Installed are equal outside an election, and Last_Attempted is never
        less."""
        self.follower.data.views.last_attempted = 2
        self.violates(3, self.follower)
        self.follower.data.server.state = State.LEADER_ELECTION
        check(self.follower, Memory())
        self.follower.data.views.last_attempted = 0
        self.violates(3, self.follower)

    def test_4_state_fits_the_view(self) -> None:
        """Invariant 4: only the leader of a view is in REG_LEADER."""
        self.follower.data.server.state = State.REG_LEADER
        self.violates(4, self.follower)
        self.leader.data.server.state = State.REG_NONLEADER
        self.violates(4, self.leader)

    def test_5_no_way_back_into_the_lead(self) -> None:
        """Invariant 5, G10: a server that has left the lead of view 1 leads another view or none."""
        memory = self.seen(self.leader)
        self.leader.data.server.state = State.LEADER_ELECTION
        check(self.leader, memory)
        self.leader.data.server.state = State.REG_LEADER
        self.violates(5, self.leader, memory)

    def test_6_progress_timer_runs(self) -> None:
        """Invariant 6, G5, G8: the Progress_Timer runs in REG_LEADER and REG_NONLEADER; otherwise the server would
        never suspect its leader."""
        for replica in (self.leader, self.follower):
            replica.progress_timer.stop()
            self.violates(6, replica)

    def test_7_queues(self) -> None:
        """Invariant 7: the Update_Queue of a server that does not lead is empty, and that of a leader bounded, not
        counting its own clients' updates."""
        self.follower.data.clients.update_queue.append(ClientUpdate("b", 1, 1, 0, b""))
        self.violates(7, self.follower)
        queue = self.leader.data.clients.update_queue
        queue.extend(ClientUpdate(f"own {i}", 0, 1, 0, b"") for i in range(5))
        queue.append(ClientUpdate("b", 1, 1, 0, b""))
        check(self.leader, Memory())
        queue.append(ClientUpdate("c", 1, 1, 0, b""))
        self.violates(7, self.leader)

    def test_8_pending_updates(self) -> None:
        """Invariant 8: pending updates are filed under their clients, and are not executed."""
        pending = self.follower.data.clients.pending_updates
        pending["a"] = ClientUpdate("a", 1, 2, 0, b"")
        check(self.follower, Memory())
        pending["a"] = ClientUpdate("a", 1, 1, 0, b"")
        self.violates(8, self.follower)
        pending["a"] = ClientUpdate("b", 1, 2, 0, b"")
        self.violates(8, self.follower)

    def test_9_last_proposed(self) -> None:
        """Invariant 9: Last_Proposed is between Local_Aru and a window above it."""
        for last_proposed in (0, 1 + WINDOW + 1):
            self.leader.data.ordering.last_proposed = last_proposed
            self.violates(9, self.leader)

    def test_9_window_that_becomes_smaller(self) -> None:
        """Invariant 9: after the window was made smaller, slots that are under way may lie beyond it, and no further
        ones may be proposed."""
        memory = self.seen(self.leader)
        self.leader.data.ordering.last_proposed = 1 + WINDOW
        check(self.leader, memory)
        self.leader.window.adopt(1)
        check(self.leader, memory)
        self.violates(9, self.leader)
        self.leader.data.ordering.last_proposed = 1 + WINDOW + 1
        self.violates(9, self.leader, memory)

    def test_10_slots_beyond_the_window(self) -> None:
        """Invariant 10: no slot that is not ordered lies far beyond the window, so that memory is bounded."""
        self.follower.data.apply_proposal(Proposal(0, 1, 1 + 4 * WINDOW, BATCH))
        check(self.follower, Memory())
        self.follower.data.apply_proposal(Proposal(0, 1, 2 + 4 * WINDOW, BATCH))
        self.violates(10, self.follower)

    def test_9_and_10_allow_for_a_window_that_was_lowered(self) -> None:
        """Invariants 9 and 10 allow for slots that were proposed under a former, larger window and are still open
        (Departure 34)."""
        self.leader.data.ordering.last_proposed = 1 + WINDOW + 2
        self.follower.data.apply_proposal(Proposal(0, 1, 1 + 4 * (WINDOW + 2), BATCH))
        for replica in (self.leader, self.follower):
            check(replica, Memory(window_max=WINDOW + 2))
        self.violates(9, self.leader, Memory(window_max=WINDOW + 1))
        self.violates(10, self.follower, Memory(window_max=WINDOW + 1))

    def test_11_durable_is_not_ahead(self) -> None:
        """Invariant 11: the values on disk are not ahead of the server's present ones."""
        self.follower.turn.durable.local_aru = 2
        self.violates(11, self.follower)
        self.follower.turn.durable.local_aru = 1
        self.follower.turn.durable.last_installed = 2
        self.violates(11, self.follower)

    def test_13_servers_that_are_not_admitted(self) -> None:
        """Invariant 13: a server that is not admitted follows no server and does not lead, since it may have lost its
        promises."""
        for replica in (self.leader, self.follower):
            replica.storage_identity.is_newcomer = True
            self.violates(13, replica)

    def test_14_slots_are_left_out_only_by_a_snapshot(self) -> None:
        """Invariant 14: slots are left out only by a snapshot above Local_Aru, with which the history begins anew, and
        whose slots are then gone."""
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
        """Invariant 14: a leader installs no snapshot, since it has the promises of a majority for all slots above its
        Local_Aru."""
        memory = self.seen(self.leader)
        memory.local_aru = 0
        digests = self.leader.ordered_queue.digests
        digests.begin_at(1, digests.head)
        self.leader.data.ordering.global_history.forget_up_to(1)
        self.leader.snapshot_fetcher.installed = 1
        self.violates(14, self.leader, memory)
