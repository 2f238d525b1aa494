"""The check of fetches of snapshots whose parts do not arrive: a correct server passes, and one that waits for ever is
found."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import SnapshotPart
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot import SnapshotName
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.defects.all_defects import planted
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.runs.fetch_checker import FetchChecker

SETTINGS = Settings(history_slots_kept=0, frame_data_bytes_max=60)


class FetchCheckerTests(SynchronousTestCase):
    def fetching(self, patch: Plant | None = None) -> SimulatedCluster:
        """A cluster in which a server fetches a snapshot, and no part of it arrives."""
        cluster = SimulatedCluster(self.id(), 3, settings=SETTINGS, kept_slots=0, patch=patch)
        cluster.run_until(cluster.has_leader)
        leader = cluster.required_leader()
        self.away = next(i for i in cluster.ids if i != leader)
        cluster.isolate(self.away)
        for number in range(1, 6):
            cluster.submit(leader, "client", number)
            cluster.run_until(lambda number=number: ("client", number) in cluster.answers)
        taken: list[SnapshotName | None] = []
        others = [i for i in cluster.ids if i != self.away]
        cluster.run_until(lambda: len({cluster.aru(i) for i in others}) == 1)
        for server_id in others:
            replica = cluster.replica(server_id)
            replica.perform(replica.snapshot_taker.take_now, taken.append)
        cluster.run_until(lambda: len(taken) == 2)
        cluster.network.drop(lambda passage: isinstance(passage.message, SnapshotPart))
        cluster.heal()
        cluster.run_until(lambda: cluster.replica(self.away).snapshot_fetcher.fetch is not None)
        return cluster

    def look(self, cluster: SimulatedCluster, seconds: float) -> None:
        checker, until = FetchChecker(cluster), cluster.now + seconds
        while cluster.now < until:
            checker.look()
            cluster.run(0.5)

    def test_server_that_asks_another_one_is_right(self) -> None:
        """A server that asks one source after the other passes, although none of them sends any part."""
        self.look(self.fetching(), 30)

    def test_server_that_waits_for_ever_is_found(self) -> None:
        """A server that waits for ever for one source is found; the sentence names both servers."""
        cluster = self.fetching(planted("silent-source-kept"))
        source = cluster.replica(self.away).snapshot_fetcher.fetch.source
        said = str(self.assertRaises(Violation, self.look, cluster, 30))
        self.assertIn(f"server {self.away} waits", said)
        self.assertIn(f"from server {source}", said)

    def test_server_that_cannot_look_is_right(self) -> None:
        """A paused server passes: its time begins when it is resumed."""
        cluster = self.fetching()
        cluster.pause(self.away)
        self.look(cluster, 30)
