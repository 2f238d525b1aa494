"""Figures of hand-overs (Departure 59), for schedules and drills, and copies of HAND_OVER for them."""

from __future__ import annotations

from pfsb.paxos.messages import HandOver, State
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.network import Passage


def expiries(cluster: SimulatedCluster) -> dict[int, int]:
    """Server -> number of times that its Progress_Timer has expired since its start."""
    return {i: cluster.replica(i).progress_timer.expiries for i in cluster.ids}


def attempts(cluster: SimulatedCluster) -> dict[int, int]:
    """Server -> number of views that it has attempted since its start."""
    return {i: cluster.replica(i).shifts[State.LEADER_ELECTION] for i in cluster.ids}


def repeat(cluster: SimulatedCluster, message: HandOver) -> None:
    """Let 20 copies of a HAND_OVER arrive at each server but its sender, within a second."""
    for _ in range(20):
        for receiver in cluster.ids:
            if receiver != message.server_id:
                cluster.network.inject(Passage(message.server_id, receiver, message))
        cluster.run(0.05)
