"""Schedules around ORDERED, by which the leader of five servers or more tells what is ordered (Departure 55)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfsb.paxos.messages import DIGEST_BYTES, Accept, Alive, Message, Ordered, Proposal, ReconciliationReply, State
from pfsb.paxos.replica import Replica
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule

FAR_VIEWS: Final = 1_000
"""How many views a view that no server attempts is above the present one, at least."""


def ordered_is_lost(seed: int, patch: Plant | None) -> None:
    """Departure 55: a server that an ORDERED does not reach has the slot soon after, and no view changes."""
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
    """Departure 55: an ORDERED that overtakes its PROPOSAL counts, also if the leader of a far view tells otherwise."""
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
    """Departure 55: an ORDERED with another digest, of a server that does not lead or of an old view orders nothing."""
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


def restarted_follower_votes(seed: int, patch: Plant | None) -> None:
    """Departure 55: a follower whose vote was lost votes again after its restart, and no view changes.

    Two of five servers are down, so that nothing is ordered without that vote.
    """
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    view, leader = scene.view(), scene.leader()
    again, *gone = scene.rng.sample([i for i in cluster.ids if i != leader], 3)
    for server_id in gone:
        cluster.crash(server_id)
    lost = cluster.network.drop(lambda p: isinstance(p.message, Accept) and p.sender == again)
    cluster.submit(leader, "client", 1)
    cluster.run_until(lambda: 1 in cluster.disk(again).contents.slots, 1)
    cluster.crash(again)
    cluster.restart(again)
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 5)
    scene.require_view(view)


def leader_has_slow_disk(seed: int, patch: Plant | None) -> None:
    """Departure 55: a leader whose disk takes seconds for a write slows no clients of other servers, and leads on.

    The disk becomes slow when a vote of each other server has counted, since the first one needs a write at the leader
    (Departure 54).
    """
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    view, leader = scene.view(), scene.leader()
    followers = [i for i in cluster.ids if i != leader]
    peers = cluster.replica(leader).peers.by_id.values()
    number = 0
    while any(peer.voted_in != peer.start for peer in peers):
        number += 1
        cluster.submit(leader, "first", number)
        cluster.run_until(lambda: ("first", number) in cluster.answers, 5)  # noqa: B023 (called in this round only)
        cluster.run(0.01)
    cluster.run(0.1)
    seconds = scene.rng.choice((0.5, 2.0, 5.0))
    cluster.servers[leader].sync_seconds = (seconds, seconds)
    for number in range(1, 10):
        cluster.submit(followers[number % len(followers)], "client", number)
        cluster.run_until(lambda: ("client", number) in cluster.answers, 0.2)  # noqa: B023 (called in this round only)
        cluster.run(0.1)
    scene.require_view(view)


def told_with_own_vote(seed: int, patch: Plant | None) -> None:
    """Departure 55: an ORDERED that waits for the leader's own vote leaves with it, before a later, slow write ends."""
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    asker, other, *gone = scene.rng.sample([i for i in cluster.ids if i != leader], 4)
    for server_id in gone:
        cluster.crash(server_id)
    cluster.submit(asker, "client", 1)  # so that the first votes of the others are noted (Departure 54)
    cluster.run_until(lambda: cluster.aru(asker) == 1, 1)
    cluster.servers[leader].sync_seconds = (0.3, 0.3)
    cluster.submit(asker, "client", 2)
    cluster.run_until(lambda: cluster.aru(leader) == 2, 0.2)
    cluster.servers[leader].sync_seconds = (5.0, 5.0)
    cluster.submit(other, "other", 1)
    cluster.run_until(lambda: ("client", 2) in cluster.answers, 0.5)


def told_slot_is_asked_for(seed: int, patch: Plant | None) -> None:
    """Departure 55: a server that hears that a slot is ordered, and has not got its PROPOSAL, asks for the slot soon.

    No ALIVE tells the server that another one has the slot.
    """
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    alone = scene.follower()
    cluster.run_until(lambda: cluster.replica(alone).data.server.state is State.REG_NONLEADER, 5)
    cluster.network.drop(lambda p: isinstance(p.message, Proposal | Alive) and p.receiver == alone)
    cluster.submit(scene.leader(), "client", 1)
    cluster.run_until(lambda: cluster.aru(alone) == 1, 0.5)


def incarnation_is_noted_first(seed: int, patch: Plant | None) -> None:
    """Departure 43: the ORDERED that rests on a vote of a restarted server waits until its sender's disk has the start.

    The leader's disk is slow, and has its own vote already. The others have admitted the restarted server before the
    leader hears of it.
    """
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    again, voter, *silent = scene.rng.sample([i for i in cluster.ids if i != leader], 4)
    cluster.network.drop(lambda p: isinstance(p.message, Accept) and p.sender in silent)
    cluster.crash(again)
    cluster.submit(leader, "client", 1)
    cluster.run_until(lambda: all(1 in cluster.disk(i).contents.slots for i in (leader, voter)), 1)
    cluster.cut(again, leader, one_way=True)
    cluster.restart(again)
    cluster.run_until(lambda: 1 in cluster.disk(again).contents.slots, 10)
    cluster.servers[leader].sync_seconds = (1.0, 1.0)

    def look(sender: int, _to: int | None, messages: Sequence[Message]) -> None:
        if sender == leader and any(isinstance(message, Ordered) for message in messages):
            noted = cluster.disk(leader).contents.peers[again].incarnation
            if noted != cluster.disk(again).start_number:
                raise Violation(f"leader {leader} tells what rests on a start of server {again} that its disk lacks")

    cluster.network.observers.append(look)
    cluster.heal()
    cluster.run_until(lambda: cluster.aru(voter) == 1, 10)


def _untrue(sender: int, receiver: int, view: int, digest: bytes) -> Passage:
    return Passage(sender, receiver, Ordered(sender, view, (1,), digest))


def _receive(replica: Replica, message: Ordered) -> None:
    replica.dispatch(message, message.server_id)


def _require_nothing(scene: Scenario, server_id: int, what: str) -> None:
    if scene.cluster.aru(server_id):
        raise Violation(f"{what} has ordered a slot")


SCHEDULES: Final[Sequence[Schedule]] = (
    ordered_is_lost,
    ordered_overtakes,
    untrue_orders,
    restarted_follower_votes,
    leader_has_slow_disk,
    told_with_own_vote,
    told_slot_is_asked_for,
    incarnation_is_noted_first,
)
