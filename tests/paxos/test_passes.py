"""Departure 38: a slot that no server can execute is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Batch, ClientUpdate
from pfsb.paxos.passes import NONE, batch_digest, list_digest
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.process import ProtocolProcess, RecordingStateMachine, ServerParts
from pfsb.simulator.defects.defect import become
from tests.paxos.case import ReplicaTestCase
from tests.paxos.messages import batch, client_update, ordered

ALICE = client_update("alice", 1)
BOB = client_update("bob", 1)


class DigestTests(SynchronousTestCase):
    def test_empty_list_has_the_digest_of_servers_that_know_of_no_pass(self) -> None:
        """The digest of an empty list is zeros, as in the header of servers that know nothing of passes."""
        self.assertEqual(list_digest({}), NONE)

    def test_order_of_the_list_makes_no_difference_and_all_else_does(self) -> None:
        """The digest of a list does not depend on its order, since two servers may have been told in another order; it
        depends on all else."""
        one, two = batch_digest(b"one"), batch_digest(b"two")
        self.assertEqual(list_digest({1: one, 2: two}), list_digest({2: two, 1: one}))
        lists: list[dict[int, bytes]] = [{}, {1: one}, {2: one}, {1: two}, {1: one, 2: two}]
        self.assertEqual(len({list_digest(each) for each in lists}), len(lists))


class Failing(RecordingStateMachine):
    """A state machine that executes nothing."""

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        raise SystemError("broken")


class PassTests(ReplicaTestCase):
    starts = False

    def start_passing(self, content: Batch) -> None:
        self.found.passes = {1: batch_digest(content.data)}
        self.start()

    def test_passed_slot_executes_nothing_and_counts_as_executed(self) -> None:
        """A passed slot executes none of its updates, which count as executed, so that a later slot does not execute
        them either."""
        self.start_passing(batch(ALICE))
        self.receive(ordered(3, 1, ALICE))
        self.receive(ordered(3, 2, ALICE, BOB))
        self.assertExecuted([], [BOB])
        self.assertEqual(self.machine.expired, [ALICE])

    def test_slot_with_another_batch_is_executed(self) -> None:
        """A passed slot that was ordered with another batch than the operator has looked at is executed."""
        self.start_passing(batch(BOB))
        self.receive(ordered(3, 1, ALICE))
        self.assertExecuted([ALICE])

    def test_server_that_cannot_execute_a_slot_names_the_command(self) -> None:
        """A server that cannot execute a slot logs one critical line with its number and digest."""
        self.start()
        told: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)

        self.patch(self.replica.ordered_queue, "state_machine", Failing())
        self.receive(ordered(3, 1, ALICE))
        self.expected_failure(SystemError)
        (line,) = [event for event in told if event["log_level"].name == "critical"]
        self.assertEqual((line["seq"], line["digest"]), (1, batch_digest(batch(ALICE).data).hex()))
        self.assertIn("`pfsb pass {seq} --digest {digest}", line["log_format"])


class Unexecutable(Exception):
    """Raised by the state machine of these tests for the payload `POISON`."""


POISON = b"poison"


class Picky(RecordingStateMachine):
    """A state machine that cannot execute `POISON`."""

    __slots__ = ()

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        if any(update.payload == POISON for update in updates):
            raise Unexecutable
        return super().execute(seq, time_ms, updates)


def build(parts: ServerParts) -> ProtocolProcess:
    process = ProtocolProcess(parts)
    become(process.state_machine, Picky)
    return process


class ClusterTests(SynchronousTestCase):
    """Three servers whose state machine fails at one slot."""

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(self.id(), 3, build=build)
        self.cluster.expected_failures = (Unexecutable,)
        self.cluster.run_until(self.cluster.has_leader)
        self.cluster.submit(1, "a", 1)
        self.cluster.run_until(lambda: all(self.cluster.aru(i) == 1 for i in self.cluster.ids))
        self.cluster.submit(1, "b", 1, POISON)
        self.cluster.run_until(lambda: len(self.cluster.running_ids) < 2)
        self.cluster.run(1.0)
        for server_id in self.cluster.running_ids:
            self.cluster.crash(server_id)
        # The first server to execute a slot may stop before the batch is on enough disks: the latest view counts.
        stored = [self.cluster.disk(i).contents.slots.get(2) for i in self.cluster.ids]
        latest = max((slot for slot in stored if slot is not None), key=lambda slot: slot.view)
        self.digest = batch_digest(latest.batch.data)

    def start(self, *servers: int) -> None:
        for server_id in servers:
            self.cluster.restart(server_id)

    def test_cluster_goes_on_when_every_server_passes_the_slot(self) -> None:
        """When every server passes the slot, the cluster goes on: the updates of the slot are not executed, and all
        others are."""
        for server_id in self.cluster.ids:
            self.cluster.disk(server_id).passes[2] = self.digest
        self.start(*self.cluster.ids)
        self.cluster.run_until(self.cluster.has_leader)
        self.cluster.submit(0, "c", 1)
        self.cluster.run_until(lambda: all("c" in [row[1] for row in self.cluster.executed(i)] for i in range(3)))
        for server_id in self.cluster.ids:
            self.assertEqual([row[1] for row in self.cluster.executed(server_id)], ["a", "c"])

    def test_servers_with_different_lists_refuse_each_other(self) -> None:
        """Servers with different lists of passed slots refuse each other's frames: their states would differ."""
        for server_id in (0, 1):
            self.cluster.disk(server_id).passes[2] = self.digest
        self.start(0, 1)
        self.cluster.run_until(self.cluster.has_leader)
        third = self.cluster.disk(2)
        third.contents.slots.pop(2, None)
        third.contents.local_aru = min(third.local_aru, 1)
        self.start(2)
        self.cluster.run(3.0)
        self.assertEqual(self.cluster.executed(2), [row for row in self.cluster.executed(2) if row[1] == "a"])
        links = self.cluster.servers[2].running.transport.links  # type: ignore[union-attr]
        self.assertGreater(links.counters.refused["passes"], 0)
