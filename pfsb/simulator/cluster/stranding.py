"""Servers that are brought into a later view than the one in which the others work (Departure 50)."""

from __future__ import annotations

from collections.abc import Sequence

from pfsb.paxos.messages import Alive, State, VCProof
from pfsb.simulator.cluster.cluster import SimulatedCluster

DELIVERY_SECONDS = 0.01
"""How long, in seconds, the servers have to install the later view before their links are mended."""


def strand(cluster: SimulatedCluster, away: Sequence[int], view: int) -> None:
    """Let the servers `away` install a view in which they have no leader: a VC_PROOF, such as a server in error may
    send, makes them believe that others have installed it.

    The view is the first one from `view` on whose leader is not in `away`; no server leads it. The servers `away` are
    cut off from all others until they suspect their leader; then they get the VC_PROOF, and all links of the cluster
    are mended.
    """
    wrong = next(i for i in cluster.ids if i not in away)
    for server_id in away:
        cluster.isolate(server_id)
    for server_id in away:
        server = cluster.replica(server_id).data.server
        cluster.run_until(lambda server=server: server.state is State.LEADER_ELECTION, 60)  # type: ignore[misc]
    while cluster.replica(wrong).membership.leader_of(view) in away:
        view += 1
    for server_id in away:
        cluster.hand_over(wrong, server_id, [VCProof(wrong, view)])
    cluster.run(DELIVERY_SECONDS)
    cluster.heal()


def tell_view(cluster: SimulatedCluster, wrong: int, ahead: int) -> None:
    """Give the leader, if there is one, an ALIVE in the name of server `wrong`, with a view that is too high.

    It is `ahead` views above the view that the leader has installed.
    """
    leader = cluster.leader()
    if leader is not None:
        view = cluster.replica(leader).data.views.last_installed + ahead
        cluster.hand_over(wrong, leader, [Alive(wrong, view, State.LEADER_ELECTION, 0, True)])


def all_follow(cluster: SimulatedCluster) -> bool:
    """Whether every server follows or leads the latest view that any server has installed."""
    data = [cluster.replica(i).data for i in cluster.ids]
    latest = max(one.views.last_installed for one in data)
    is_followed = all(
        one.views.last_installed == latest and one.server.state is not State.LEADER_ELECTION for one in data
    )
    return is_followed and cluster.has_leader()
