"""Schedules around ORDERED, by which the leader of five servers or more tells what is ordered (Departure 56)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfsb.paxos.messages import DIGEST_BYTES, Accept, Ordered, Proposal, ReconciliationReply
from pfsb.paxos.replica import Replica
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule

FAR_VIEWS: Final = 1_000
"""How many views a view that no server attempts is above the present one, at least."""


def ordered_is_lost(seed: int, patch: Plant | None) -> None:
    """Departure 56: a server that an ORDERED does not reach has the slot soon after, and no view changes."""
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    view, alone = scene.view(), scene.follower()
    for number in (1, 2, 3):
        lost = cluster.network.drop(lambda p: isinstance(p.message, Ordered) and p.receiver == alone)
        cluster.submit(alone, "client", number)
        cluster.run_until(lambda: cluster.aru(scene.leader()) == number, 1)  # noqa: B023 (called in this round only)
        cluster.run_until(lambda: ("client", number) in cluster.answers, 1)  # noqa: B023 (called in this round only)
        cluster.network.filters.remove(lost)
    scene.everyone_executes(3, 5)
    scene.require_view(view)


def ordered_overtakes(seed: int, patch: Plant | None) -> None:
    """Departure 56: an ORDERED that overtakes its PROPOSAL counts, also if the leader of a far view tells otherwise."""
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, alone = scene.leader(), scene.follower()
    membership = cluster.replica(alone).membership
    behind = cluster.network.hold(lambda p: isinstance(p.message, Proposal) and p.receiver == alone)
    cluster.network.drop(lambda p: isinstance(p.message, ReconciliationReply))
    cluster.submit(leader, "client", 1)
    cluster.run_until(lambda: cluster.aru(leader) == 1)
    cluster.run(0.05)
    far = scene.view() + FAR_VIEWS
    far += membership.leader_of(far) == alone
    cluster.network.inject(_untrue(membership.leader_of(far), alone, far, scene.rng.randbytes(DIGEST_BYTES)))
    cluster.run(0.05)
    behind.release()
    cluster.run_until(lambda: cluster.aru(alone) == 1, 5)


def untrue_orders(seed: int, patch: Plant | None) -> None:
    """Departure 56: an ORDERED with another digest, of a server that does not lead or of an old view orders nothing."""
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    view, leader = scene.view(), scene.leader()
    scene.lose(Accept)
    cluster.submit(leader, "client", 1)
    cluster.run(0.05)
    told, other = scene.rng.sample([i for i in cluster.ids if i != leader], 2)
    slot = cluster.replica(told).data.ordering.global_history.get(1)
    assert slot is not None and slot.proposal is not None, "the PROPOSAL has come"
    digest = slot.proposal.batch.digest
    cluster.network.inject(_untrue(leader, told, view, scene.rng.randbytes(DIGEST_BYTES)))
    cluster.network.inject(_untrue(other, told, view, digest))
    cluster.run(0.05)
    _require_nothing(scene, told, "an ORDERED that names another batch, or whose sender does not lead")
    scene.lose(Proposal)
    cluster.crash(leader)
    cluster.run_until(cluster.has_leader, 30)
    told = scene.follower()
    cluster.run_until(lambda: cluster.replica(told).data.views.last_installed > view, 5)
    cluster.replica(told).perform(_receive, cluster.replica(told), Ordered(leader, view, (1,), digest))
    _require_nothing(scene, told, "an ORDERED of a view that is over")
    cluster.network.filters.clear()
    cluster.run_until(lambda: cluster.aru(told) == 1, 30)


def _untrue(sender: int, receiver: int, view: int, digest: bytes) -> Passage:
    return Passage(sender, receiver, Ordered(sender, view, (1,), digest))


def _receive(replica: Replica, message: Ordered) -> None:
    replica.dispatch(message, message.server_id)


def _require_nothing(scene: Scenario, server_id: int, what: str) -> None:
    if scene.cluster.aru(server_id):
        raise Violation(f"{what} has ordered a slot")


SCHEDULES: Final[Sequence[Schedule]] = (ordered_is_lost, ordered_overtakes, untrue_orders)
