"""Healing of a simulated cluster or of some of its servers: their links become whole and good, and all of them run.

Liveness is promised only while a majority is well. Random runs therefore heal a majority, check that all clients are
served, and then heal the whole cluster.
"""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.network import LinkQuality


def heal_all(cluster: SimulatedCluster) -> None:
    """Heal all members and all links (`heal_some`), and let no server leave out a slot any more when it leads."""
    _mend_links(cluster, cluster.machines)
    heal_some(cluster, cluster.ids)
    for server_id in cluster.ids:
        cluster.replica(server_id).proposals.skipped.clear()


def heal_some(cluster: SimulatedCluster, group: Sequence[int]) -> None:
    """Mend the links between these servers, end the servers' faults, and resume or restart those that do not run.

    A server that drains is stopped and restarted. Damage of frames, and faults of kinds of messages that were to last
    for a while (`passing_faults`), end on all links of the cluster, not only between these servers; and name servers
    tell the truth about all servers.
    """
    _mend_links(cluster, group)
    cluster.network.passing_faults.clear()
    cluster.network.damage = 0.0
    if cluster.network.names is not None:
        cluster.network.names.heal()
    for server_id in group:
        _heal_server(cluster, server_id)


def _mend_links(cluster: SimulatedCluster, group: Sequence[int]) -> None:
    links = [(a, b) for a in group for b in group if a != b]
    cluster.network.set_quality(LinkQuality(), links)
    for a, b in links:
        cluster.network.mend(a, b)


def _heal_server(cluster: SimulatedCluster, server_id: int) -> None:
    server = cluster.servers[server_id]
    server.sync_seconds = (0.0005, 0.002)
    server.is_disk_full = False
    server.disk.free_records = None
    if server.running is not None:
        server.running.transport.after_frames(None)
        server.running.storage.fail_next(None)
        server.running.storage.go_on()
        if server.running.is_draining:
            cluster.stop(server_id)
    if server.running is None:
        cluster.restart(server_id)
    elif server.running.server_clock.paused:
        cluster.resume(server_id)
