"""The peers of a teaching lab, all in one simulated cluster, with links that are cut as the lab cuts them."""

from __future__ import annotations

from attrs import evolve

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.instances import Instances
from pfsb.config.config import Limits
from pfsb.instances import Peer
from pfsb.paxos.settings import Settings
from pfsb.service.assembly import make_server
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.network import LinkQuality
from pfsb.simulator.cluster.process import ServerParts
from pfsb.simulator.cluster.server_process import configuration, watch_introductions

WAIT_SECONDS = 60.0
"""How long a test waits, in simulated time; the lab gives up after about as long."""


class PeerProcess:
    """One incarnation of a peer; the simulator's checkers see every slot that it executes."""

    def __init__(self, parts: ServerParts) -> None:
        config = evolve(configuration(parts.servers, parts.settings, Limits()), apps=("instances",))
        self.application = Instances()
        self.server = make_server(config, Catalogue([self.application]), parts)
        self.replica = self.server.replica
        self.replica.ordered_queue.state_machine = parts.watched(self.server.machine)
        watch_introductions(self.replica, parts)
        self.peer = Peer(self.server, self.application, parts.clock)

    def start(self) -> None:
        self.server.start()
        self.peer.attach()


class Lab:
    """A cluster of `peers`, with links that lose frames with probability `loss` in each direction.

    With `has_disks` a peer that has crashed can be restarted; without, the peers have no storage.
    """

    def __init__(self, seed: int | str, peers: int = 5, loss: float = 0.0, *, has_disks: bool = True) -> None:
        self.cluster = SimulatedCluster(
            seed,
            peers,
            settings=Settings(),
            quality=LinkQuality(loss=loss),
            build=lambda parts: PeerProcess(parts),
            has_disks=has_disks,
        )

    def meet(self) -> None:
        """Let all peers meet: a new storage takes part when a majority of the others know it (Departure 42)."""
        replicas = [self.cluster.replica(i) for i in self.cluster.ids]
        self.cluster.run_until(lambda: not any(replica.storage_identity.is_newcomer for replica in replicas))

    def __getitem__(self, peer: int) -> Peer:
        found: Peer = self.cluster.process(peer).peer
        return found

    @property
    def peers(self) -> list[Peer]:
        return [self[i] for i in self.cluster.running_ids]

    def decided(self, seq: int) -> int:
        """Number of peers that know the decision; two decisions must never differ."""
        values = [value for is_decided, value in (peer.status(seq) for peer in self.peers) if is_decided]
        assert len(set(values)) <= 1, f"instance {seq} is decided to be each of {set(values)}"
        return len(values)

    def wait(self, seq: int, wanted: int) -> None:
        self.cluster.run_until(lambda: self.decided(seq) >= wanted, WAIT_SECONDS)

    def wait_for_all(self, *seqs: int) -> None:
        for seq in seqs:
            self.wait(seq, len(self.peers))

    def wait_for_majority(self, seq: int) -> None:
        self.wait(seq, len(self.cluster.ids) // 2 + 1)

    def wait_for_min(self, least: int) -> None:
        """Wait until all peers know that all are done with the instances below `least`."""
        self.cluster.run_until(lambda: all(peer.min() == least for peer in self.peers), WAIT_SECONDS)

    def wait_for_unfinished(self, peer: int, values: int) -> None:
        """Wait until this number of values has come to a peer in parts, and not as a whole yet."""
        unfinished = self[peer].application.unfinished
        self.cluster.run_until(lambda: len(unfinished) == values, WAIT_SECONDS)

    def part(self, *groups: tuple[int, ...]) -> None:
        """Cut all links but those within each of these groups of peers."""
        self.cluster.heal()
        for group in groups:
            self.cluster.isolate(*group)

    def deafen(self, peer: int) -> None:
        """Cut all links to a peer, but none from it."""
        for other in self.cluster.ids:
            if other != peer:
                self.cluster.cut(other, peer, one_way=True)
