"""The simulated cluster: crashes, pauses, partitions and failures of its servers (docs/testing.rst)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import State
from pfsb.simulator.cluster.cluster import SimulatedCluster


class WorldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cluster = SimulatedCluster(self.id())
        self.cluster.run_until(self.cluster.has_leader)

    def test_update_is_answered_and_executed_everywhere(self) -> None:
        """An update of a client is answered and executed at all servers, over the real codec."""
        self.cluster.submit(2, "a", 1, b"payload")
        self.cluster.run_until(lambda: ("a", 1) in self.cluster.answers)
        self.cluster.run(0.1)
        for server_id in self.cluster.ids:
            self.assertEqual(self.cluster.executed(server_id), [(1, "a", 1, b"payload")])

    def test_ids_may_have_gaps(self) -> None:
        """The lowest id leads view 1, whatever the ids are, and all servers execute (Departure 26)."""
        cluster = SimulatedCluster(self.id(), (2, 5, 9))
        cluster.run_until(cluster.has_leader)
        self.assertEqual(cluster.leader(), 2)
        cluster.submit(9, "a", 1)
        cluster.run_until(lambda: [cluster.aru(i) for i in (2, 5, 9)] == [1, 1, 1])

    def test_crash_takes_the_memory_and_leaves_the_disk(self) -> None:
        """The next incarnation executes the slots on disk again, and nothing of the last one goes on."""
        self.cluster.submit(2, "a", 1)
        self.cluster.run_until(lambda: ("a", 1) in self.cluster.answers)
        self.cluster.run(1)
        before = self.cluster.replica(1)
        self.cluster.crash(1)
        turns = before.turn.count
        self.cluster.run(5)
        self.assertEqual(before.turn.count, turns)
        self.cluster.restart(1)
        self.assertIsNot(self.cluster.replica(1), before)
        self.assertEqual(self.cluster.executed(1), [(1, "a", 1, b"")])

    def test_crash_loses_what_was_not_on_disk(self) -> None:
        """A record that was not on disk is lost, unless the disk ends its write just before the crash."""
        for kept, found in ((0, []), (1, [1])):
            cluster = SimulatedCluster(self.id())
            cluster.run_until(cluster.has_leader)
            cluster.run(0.1)
            cluster.servers[1].sync_seconds = (10.0, 10.0)
            cluster.submit(0, "a", 1)
            cluster.run_until(lambda cluster=cluster: bool(cluster.storage(1).pending_groups()))
            cluster.crash(1, groups_kept=kept)
            self.assertEqual(list(cluster.disk(1).contents.slots), found)

    def test_stopped_server_leaves_nothing_behind(self) -> None:
        """A server that is stopped in order leaves no timer, and all its records are on disk."""
        self.cluster.submit(1, "a", 1)
        self.cluster.run_until(lambda: self.cluster.aru(1) == 1)
        running = self.cluster.servers[1].running
        assert running is not None
        running.process.replica.stop()
        running.storage.close()
        self.cluster.run(0.001)
        self.assertEqual(running.server_clock.getDelayedCalls(), [])
        self.assertIn(1, self.cluster.disk(1).contents.slots)

    def test_paused_server_is_suspected_and_comes_back(self) -> None:
        """Other servers elect a leader, and the paused server learns of it when it is resumed."""
        self.cluster.pause(0)
        self.cluster.run_until(lambda: self.cluster.replica(1).data.server.state is State.REG_LEADER)
        self.assertIs(self.cluster.replica(0).data.server.state, State.REG_LEADER)
        self.cluster.resume(0)
        self.cluster.run_until(lambda: self.cluster.replica(0).data.server.state is State.REG_NONLEADER, 10)

    def test_isolated_group_is_cut_off_both_ways_until_healing(self) -> None:
        """Links between an isolated group and the others are cut both ways until healing; links within the group are
        not."""
        self.cluster.isolate(2)
        self.cluster.run_until(lambda: self.cluster.replica(2).data.server.state is State.LEADER_ELECTION)
        self.assertTrue(self.cluster.has_leader())
        self.cluster.heal()
        self.cluster.submit(2, "a", 1)
        self.cluster.run_until(lambda: ("a", 1) in self.cluster.answers)

    def test_waiting_in_vain_says_where_everybody_stands(self) -> None:
        """A wait for a condition that does not come true fails with the state of each server."""
        error = self.assertRaises(AssertionError, self.cluster.run_until, lambda: False, 0.5)
        self.assertIn("server 0: REG_LEADER attempted=1 installed=1", str(error))

    def test_exception_in_a_turn_ends_the_simulation(self) -> None:
        """An exception in a server ends the run."""

        def fail() -> None:
            raise RuntimeError("broken")

        self.cluster.clock.callLater(0.1, self.cluster.replica(1).perform, fail)
        self.assertRaises(RuntimeError, self.cluster.run, 1)

    def test_expected_failure_ends_one_server(self) -> None:
        """A server with a failed disk is down, and the others go on."""
        self.cluster.expected_failures = (OSError,)
        self.cluster.storage(2).fail_next(OSError("no space left"))
        self.cluster.submit(0, "a", 1)
        self.cluster.run_until(lambda: ("a", 1) in self.cluster.answers)
        self.cluster.run(0.1)
        self.assertEqual(self.cluster.running_ids, [0, 1])
        self.assertEqual(list(self.cluster.failures), [2])

    def test_trace_tells_when_and_where(self) -> None:
        """Each event of a trace has its time and its server (docs/operating.rst)."""
        events: list[dict[str, object]] = []
        cluster = SimulatedCluster(self.id(), trace=events.append)
        cluster.run_until(cluster.has_leader)
        self.assertEqual(events[0], {"t": 0.0, "server": 0, "event": "start", "view": 0, "aru": 0, "incarnation": 1})
        self.assertIn("REG_LEADER", [event.get("to") for event in events])
