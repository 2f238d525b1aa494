from __future__ import annotations

import random
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.names import NameServers, SimulatedNames
from tests.long import long


class SimulatedNamesTests(SynchronousTestCase):
    def cluster(self, secret: bytes | None = None) -> SimulatedCluster:
        def make(clock: SimulatedClock, ids: Sequence[int]) -> SimulatedNames:
            return SimulatedNames(clock, random.Random(1), ids, secret)

        cluster = SimulatedCluster(1, 3, names=make)
        self.names = cluster.network.names
        cluster.run_until(cluster.has_leader)
        return cluster

    def submit(self, cluster: SimulatedCluster, server_id: int, timestamp: int) -> None:
        cluster.submit(server_id, "client", timestamp)
        cluster.run_until(lambda: ("client", timestamp) in cluster.answers)

    def test_cluster_with_names_elects_and_executes(self) -> None:
        """All names are looked up, by every server."""
        cluster = self.cluster()
        assert self.names is not None
        self.submit(cluster, 1, 1)
        self.assertGreaterEqual(self.names.lookups, 9)

    def test_moved_server_hears_nothing_before_name_servers_tell_where_it_is(self) -> None:
        """Frames go to the old address, and are lost there; its own are refused by the others."""
        cluster = self.cluster()
        assert self.names is not None
        cluster.crash(2)
        self.names.move(2)
        cluster.restart(2)
        self.submit(cluster, 0, 1)
        cluster.run(20)
        self.assertEqual(cluster.aru(2), 0)
        self.assertGreater(cluster.servers[0].running.transport.links.counters.refused["address"], 0)  # type: ignore[union-attr]
        self.names.tell(2)
        cluster.run_until(cluster.all_equal, 10)

    def test_moved_server_is_found_by_its_frames_with_a_secret(self) -> None:
        """Name servers give the old address for ever."""
        cluster = self.cluster(b"a secret")
        assert self.names is not None
        cluster.crash(2)
        self.names.move(2)
        cluster.restart(2)
        self.submit(cluster, 0, 1)
        cluster.run_until(lambda: cluster.aru(2) > 0 and cluster.all_equal(), 10)

    def test_frames_to_an_exchanged_address_come_to_the_other_server(self) -> None:
        """A frame names no receiver, so both servers must bear what was meant for the other one."""
        cluster = self.cluster(b"a secret")
        assert self.names is not None
        for server_id in (1, 2):
            cluster.crash(server_id)
        self.names.exchange(1, 2)
        for server_id in (1, 2):
            cluster.restart(server_id)
        self.submit(cluster, 1, 1)
        self.names.heal()
        self.submit(cluster, 2, 2)
        cluster.run_until(cluster.all_equal, 20)

    @long
    def test_running_cluster_bears_name_servers_that_are_down(self) -> None:
        """Failing and unanswered look-ups cut no link, for as long as nothing moves."""
        for trouble in (NameServers(failure=1.0), NameServers(silence=1.0)):
            cluster = self.cluster()
            assert self.names is not None
            self.names.name_servers = trouble
            view = cluster.replica(0).data.views.last_installed
            cluster.run(200)
            self.submit(cluster, 1, 1)
            self.assertEqual({cluster.replica(i).data.views.last_installed for i in cluster.ids}, {view})

    def test_server_that_starts_while_name_servers_are_silent_joins_afterwards(self) -> None:
        """Look-ups that are never answered do not keep later ones from being answered."""
        cluster = self.cluster()
        assert self.names is not None
        cluster.crash(2)
        self.names.name_servers = NameServers(silence=1.0)
        cluster.restart(2)
        self.submit(cluster, 0, 1)
        cluster.run(15)
        self.assertEqual(cluster.aru(2), 0)
        self.names.heal()
        cluster.run_until(lambda: cluster.aru(2) > 0 and cluster.all_equal(), 30)
