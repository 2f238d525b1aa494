from __future__ import annotations

import random
from collections.abc import Sequence

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import VCProof
from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.names import NameServers, SimulatedNames
from pfsb.simulator.cluster.network import PathLimits
from pfsb.simulator.faults.foreign_frames import part_of_an_impostor, require_no_change
from pfsb.transports.path_size import BASE_BYTES, ETHERNET_BYTES
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
        """In a cluster with names every server looks up all of them, elects and executes."""
        cluster = self.cluster()
        assert self.names is not None
        self.submit(cluster, 1, 1)
        self.assertGreaterEqual(self.names.lookups, 9)

    def test_moved_server_hears_nothing_before_name_servers_tell_where_it_is(self) -> None:
        """Frames to a moved server go to its old address and are lost, and its own frames are refused, until name
        servers tell the new address."""
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
        """With a secret a moved server is found by its frames, even if name servers give the old address for ever."""
        cluster = self.cluster(b"a secret")
        assert self.names is not None
        cluster.crash(2)
        self.names.move(2)
        cluster.restart(2)
        self.submit(cluster, 0, 1)
        cluster.run_until(lambda: cluster.aru(2) > 0 and cluster.all_equal(), 10)

    def test_frames_to_an_exchanged_address_come_to_the_other_server(self) -> None:
        """When two servers exchange their addresses, each gets frames that were meant for the other, since a frame
        names no receiver: both go on."""
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
        """A running cluster loses no link when look-ups fail or are not answered, as long as no server moves."""
        for trouble in (NameServers(failure=1.0), NameServers(silence=1.0)):
            cluster = self.cluster()
            assert self.names is not None
            self.names.name_servers = trouble
            view = cluster.replica(0).data.views.last_installed
            cluster.run(200)
            self.submit(cluster, 1, 1)
            self.assertEqual({cluster.replica(i).data.views.last_installed for i in cluster.ids}, {view})

    def test_server_that_starts_while_name_servers_are_silent_joins_afterwards(self) -> None:
        """A server that starts while name servers do not answer joins when they answer again: the look-ups before do
        not block later ones."""
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


class NamesAndPathsTests(SynchronousTestCase):
    """Servers that move, over links that carry no large datagrams."""

    def setUp(self) -> None:
        def make(clock: SimulatedClock, ids: Sequence[int]) -> SimulatedNames:
            return SimulatedNames(clock, random.Random(1), ids)

        self.cluster = SimulatedCluster(1, 3, names=make, start=False)
        names = self.cluster.network.names
        assert names is not None
        self.names = names
        self.cluster.network.set_limits(PathLimits())
        for server_id in self.cluster.ids:
            self.cluster.restart(server_id)
        self.cluster.run_until(self.cluster.has_leader)
        self.write(1)

    def write(self, timestamp: int) -> None:
        """Have a large update executed everywhere, and let probes find out what the links carry meanwhile."""
        self.cluster.submit(1, "client", timestamp, bytes(30_000))
        self.cluster.run_until(lambda: ("client", timestamp) in self.cluster.answers and self.cluster.all_equal(), 20)
        self.cluster.run(2)

    def size(self, sender: int, receiver: int) -> int:
        return self.cluster.links(sender).path(receiver).size

    def move(self, server_id: int) -> None:
        self.cluster.crash(server_id)
        self.names.move(server_id)
        self.names.tell(server_id)
        self.cluster.restart(server_id)

    def test_size_is_measured_anew_at_another_address(self) -> None:
        """When a server has another address, the size of datagrams is measured anew: the former path says nothing of
        the new one."""
        self.assertEqual({self.size(0, i) for i in (1, 2)}, {ETHERNET_BYTES})
        sizes = self.cluster.links(0).counters.paths.datagram_bytes
        self.move(2)
        self.cluster.run_until(lambda: sizes[2] == BASE_BYTES, 20)
        self.assertEqual(sizes[1], ETHERNET_BYTES)

    def test_large_updates_reach_a_server_that_has_moved_behind_a_narrow_link(self) -> None:
        """Large updates reach a server that has moved behind a link on which datagrams of the size that was proved
        before are lost."""
        narrow = PathLimits(path_bytes=600)
        self.cluster.network.set_limits(narrow, [pair for i in (0, 1) for pair in ((i, 2), (2, i))])
        self.move(2)
        self.write(2)
        self.assertGreater(self.cluster.network.too_large, 0)
        self.assertLessEqual(self.size(0, 2), 600)

    def test_limits_are_those_of_the_way_to_where_the_address_is_now(self) -> None:
        """A refused datagram limits the size for the peer for which it was meant, though another server has the address
        now."""
        for server_id in (1, 2):
            self.cluster.crash(server_id)
        self.names.exchange(1, 2)
        for server_id in (1, 2):
            self.cluster.restart(server_id)
        self.cluster.network.set_limits(PathLimits(interface_bytes=1_000), [(0, 2)])
        self.assertEqual(self.size(0, 1), ETHERNET_BYTES)
        self.cluster.links(0).path(1).send(bytes(ETHERNET_BYTES))
        self.assertEqual((self.size(0, 1), self.size(0, 2)), (1_000, ETHERNET_BYTES))

    def test_refused_frame_is_told_of_the_peer_that_it_was_meant_for(self) -> None:
        """A refused frame is told of the peer for which it was meant, also if the machine that has the address now runs
        no server."""
        self.cluster.network.refusals = True
        for server_id in (1, 2):
            self.cluster.crash(server_id)
        self.names.exchange(1, 2)
        self.cluster.restart(1)
        refused: list[int] = []
        self.cluster.network.attach(0, evolve(self.cluster.network.endpoint(0), refused=refused.append))
        self.cluster.links(0).send([VCProof(0, 1)], 1)
        self.cluster.run(0.01)
        self.assertIn(1, refused)

    def test_part_in_the_name_of_a_server_changes_nothing(self) -> None:
        """Without a secret a part of a large message that comes from another address than its sender's changes
        nothing."""
        rng = random.Random(1)
        for _ in range(20):
            require_no_change(self.cluster, 0, part_of_an_impostor(self.cluster, 0, rng))
        refused = self.cluster.links(0).counters.refused
        self.assertEqual(refused["address"], 20)
