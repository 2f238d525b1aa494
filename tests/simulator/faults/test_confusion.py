"""Faults of confusion: wrong messages and damaged frames reach a cluster, which goes on correctly."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Message
from pfsb.paxos.settings import Settings
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.faults.wrong_messages import WrongMessages
from pfsb.simulator.runs.run import Plan, Run
from pfsb.transports.wire import decode_all, encode_any, join_encoded
from tests.long import long


class WrongMessagesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cluster = SimulatedCluster(self.id(), 5, settings=Settings(priority=(0,)))
        self.cluster.run_until(self.cluster.has_leader)
        self.maker = WrongMessages(2, self.cluster.replica(0), random.Random(1))

    def test_every_kind_of_message_is_drawn_and_well_formed(self) -> None:
        """Wrong messages of every kind are drawn, and all are well-formed: no receiver refuses a frame of them before
        its protocol sees them."""
        drawn: list[Message] = [message for _ in range(2_000) for message in self.maker.draw()]
        body = join_encoded([encode_any(message) for message in drawn])
        decoded = decode_all(2, body)
        self.assertEqual(len(decoded), len(drawn))
        self.assertEqual(len({type(message) for message in drawn}), len(Message.__args__))


class ConfusedRunTests(SynchronousTestCase):
    def run_with(self, kind: str, seconds: float) -> Run:
        run = Run(Plan(7, "confused", servers=3, seconds=seconds, faults=()))
        run.begin()
        run.cluster.run_until(run.cluster.has_leader)
        getattr(run.injector, kind)()
        return run

    @long
    def test_cluster_that_is_told_wrong_messages_discards_them_and_goes_on(self) -> None:
        """A cluster that is sent wrong messages goes on; they get as far as the rules that discard them."""
        run = self.run_with("confused_peer", 5.0)
        run.injector.send_wrong(2, run.cluster.now + 3.0)
        run.cluster.run(5.0)
        counts: dict[str, int] = {}
        for server_id in run.cluster.running_ids:
            for line, count in run.cluster.replica(server_id).discarded.items():
                counts[line] = counts.get(line, 0) + count
        self.assertGreater(counts.get("implausible", 0), 20)
        self.assertGreater(counts.get("invalid", 0), 5)
        before = run.cluster.aru(0)
        run.cluster.run_until(lambda: all(run.cluster.aru(i) > before for i in run.cluster.ids), 30.0)

    def test_damaged_frames_are_refused(self) -> None:
        """Damaged frames are refused: each counts as lost, whatever is left of it."""
        run = self.run_with("damaged_frames", 5.0)
        run.cluster.network.damage = 0.5
        run.cluster.run(1.0)
        links = [run.cluster.servers[i].running.transport.links for i in run.cluster.ids]  # type: ignore[union-attr]
        refused = {reason for each in links for reason, count in each.counters.refused.items() if count}
        self.assertLessEqual({"checksum", "size"}, refused)
