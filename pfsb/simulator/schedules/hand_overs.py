"""Schedules in which a leader hands its view over to another server (Departure 59)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfsb.paxos.messages import (
    Accept,
    HandOver,
    HandOverReason,
    Prepare,
    Proposal,
    ReconciliationReply,
    ViewChange,
)
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.hand_overs import attempts, expiries, repeat
from pfsb.simulator.cluster.stranding import all_follow
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule, size

SOON: Final = 0.15
"""How long, in seconds, a hand-over takes at most when all is well."""


def leader_hands_over(seed: int, patch: Plant | None) -> None:
    """Departure 59: a leader that hands over under load is replaced at once by the server that it names, and no
    Progress_Timer expires."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    for _ in range(len(cluster.ids)):
        leader, target, before = scene.leader(), scene.follower(), expiries(scene.cluster)
        answered = len(cluster.answers)
        ends = _begin(scene, leader, target)
        cluster.run_until(lambda: ends == [None], SOON)  # noqa: B023 (called in this round only)
        cluster.run_until(lambda: all_follow(cluster) and cluster.leader() == target, SOON)  # noqa: B023
        cluster.run_until(lambda: len(cluster.answers) > answered + 2, 1)  # noqa: B023
        _require_expiries(scene, before)
        cluster.run(0.5)
    scene.everyone_is_served(5)


def slots_are_under_way(seed: int, patch: Plant | None) -> None:
    """Departure 59: a leader whose slot takes too long to be ordered leaves it to the next leader, which orders it."""
    scene = Scenario(seed, patch, servers=size(seed), clients=0)
    cluster = scene.cluster
    cluster.run_until(lambda: cluster.has_leader() and all_follow(cluster))
    leader, target = scene.leader(), scene.follower()
    cluster.run(0.5)
    ends = _begin(scene, leader, target)
    held = cluster.network.hold(lambda p: isinstance(p.message, Proposal) and p.sender == leader)
    cluster.submit(leader, "client", 1)
    cluster.run_until(lambda: ends == [None], 2)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 2)
    held.release()
    scene.everyone_executes(1, 2)


def hand_over_is_lost(seed: int, patch: Plant | None) -> None:
    """Departure 59: a server that a HAND_OVER does not reach comes along by the former leader's vote."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    leader, target = scene.leader(), scene.follower()
    missed = scene.rng.choice([i for i in cluster.ids if i != leader])
    cluster.network.drop(lambda p: isinstance(p.message, HandOver) and p.receiver == missed)
    ends = _begin(scene, leader, target)
    cluster.run_until(lambda: ends == [None], 2)
    cluster.run_until(lambda: all_follow(cluster) and cluster.leader() == target, 2)
    scene.everyone_is_served(5)


def hand_over_overtakes_nothing(seed: int, patch: Plant | None) -> None:
    """Departure 59: the votes for the next view arrive before the HAND_OVER, and it has no effect any more."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    leader, target = scene.leader(), scene.follower()
    scene.late(HandOver, 1.0)
    ends = _begin(scene, leader, target)
    cluster.run_until(lambda: ends == [None], 2)
    cluster.run_until(lambda: all_follow(cluster) and cluster.leader() == target, 2)
    view = scene.view()
    cluster.run(1.2)
    scene.require_view(view)


def former_leader_repeats_itself(seed: int, patch: Plant | None) -> None:
    """Departure 59: copies of a HAND_OVER that arrive later start no election."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    leader, target, former = scene.leader(), scene.follower(), scene.view()
    ends = _begin(scene, leader, target)
    cluster.run_until(lambda: ends == [None], SOON)
    cluster.run_until(lambda: all_follow(cluster), 1)
    view, before = scene.view(), attempts(cluster)
    repeat(cluster, HandOver(leader, former, view, HandOverReason.STOPS))
    scene.require_view(view)
    if (now := attempts(cluster)) != before:
        raise Violation(f"copies of a HAND_OVER of a former leader begin elections: {before}, and now {now} attempts")
    scene.everyone_is_served(5)


def target_lacks_a_slot(seed: int, patch: Plant | None) -> None:
    """Departure 59: a target that lacks a slot which is ordered learns it from the promises before it leads."""
    scene = Scenario(seed, patch, servers=3, clients=0)
    cluster = scene.cluster
    cluster.run_until(lambda: cluster.has_leader() and all_follow(cluster))
    cluster.run(0.5)
    leader, target = scene.leader(), scene.follower()
    kinds = (Proposal, Accept, ReconciliationReply)
    lost = cluster.network.drop(lambda p: isinstance(p.message, kinds) and p.receiver == target)
    cluster.submit(leader, "client", 1)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 1)
    ends = _begin(scene, leader, target)
    cluster.submit(target, "other", 1)
    cluster.run_until(lambda: ends == [None], SOON)
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: ("other", 1) in cluster.answers, 2)
    scene.everyone_executes(2, 2)


def target_stands_still(seed: int, patch: Plant | None) -> None:
    """Departure 59: a target that does not answer costs nothing: the leader goes on, and orders all the while."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    leader, target, view = scene.leader(), scene.follower(), scene.view()
    cluster.pause(target)
    ends = _begin(scene, leader, target)
    answered = len(cluster.answers)
    cluster.run_until(lambda: bool(ends), 0.5)
    if len(cluster.answers) < answered + 2:
        raise Violation(f"leader {leader} waits for server {target}, and orders nothing meanwhile")
    cluster.resume(target)
    scene.require_view(view)
    scene.everyone_is_served(5)


def target_dies_before_it_leads(seed: int, patch: Plant | None) -> None:
    """Departure 59: a target that dies after its answer is replaced as any leader is that dies in an election."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    leader, target = scene.leader(), scene.follower()
    cluster.network.drop(lambda p: isinstance(p.message, Prepare) and p.sender == target)
    ends = _begin(scene, leader, target)
    cluster.run_until(lambda: any(view for view in cluster.checks.messages.handed_over), SOON)
    cluster.crash(target)
    cluster.run_until(lambda: bool(ends), 3)
    cluster.run_until(cluster.has_leader, 10)
    scene.everyone_is_served(5)
    cluster.restart(target)


def leader_dies_when_it_has_left(seed: int, patch: Plant | None) -> None:
    """Departure 59: only the target hears that its leader has left, and the leader dies: the target leads."""
    scene = Scenario(seed, patch, servers=3, clients=2)
    cluster = scene.cluster
    scene.begin()
    cluster.run_until(lambda: all_follow(cluster), 5)
    cluster.run(0.5)
    leader, target = scene.leader(), scene.follower()
    view = cluster.replica(leader).membership.next_led_by(target, scene.view())
    cluster.network.drop(
        lambda p: isinstance(p.message, HandOver | ViewChange) and p.sender == leader and p.receiver != target
    )
    _begin(scene, leader, target)
    cluster.run_until(lambda: cluster.replica(target).data.views.last_attempted == view, SOON)
    cluster.crash(leader)
    cluster.run_until(cluster.has_leader, 5)
    scene.everyone_is_served(5)
    cluster.restart(leader)


def stopping_leader_hands_over(seed: int, patch: Plant | None) -> None:
    """Departure 59: a leader that is asked to stop hands over first, and no other server's Progress_Timer expires."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    leader, before = scene.leader(), expiries(scene.cluster)
    cluster.retire(leader)
    cluster.run_until(lambda: not cluster.is_running(leader), SOON + 0.1)
    if not cluster.has_leader() or cluster.leader() == leader:
        raise Violation(f"server {leader}, which led, was asked to stop, and has stopped before another one leads")
    cluster.run(0.5)
    cluster.restart(leader)
    cluster.run_until(lambda: all_follow(cluster), 3)
    before[leader] = 0
    _require_expiries(scene, before)
    scene.everyone_is_served(5)


def all_are_restarted(seed: int, patch: Plant | None) -> None:
    """Departure 59: servers that are stopped and started one after the other keep all others' Progress_Timers from
    expiring."""
    scene = _settled(seed, patch)
    cluster = scene.cluster
    before = expiries(scene.cluster)
    for server_id in scene.rng.sample(cluster.ids, len(cluster.ids)):
        cluster.retire(server_id)
        cluster.run_until(lambda: not cluster.is_running(server_id), SOON + 0.1)  # noqa: B023 (in this round only)
        cluster.run(0.2)
        cluster.restart(server_id)
        cluster.run_until(lambda: cluster.has_leader() and all_follow(cluster), 3)
        before[server_id] = 0
        _require_expiries(scene, before)
        cluster.run(0.5)
    scene.everyone_is_served(5)


def preferred_server_comes_and_goes(seed: int, patch: Plant | None) -> None:
    """Departure 59: a preferred server leads when it is there for a while; the more often it fails, the longer the
    others wait."""
    ids = (0, 1, 2)
    first = ids[seed % 3]
    scene = Scenario(seed, patch, servers=3, clients=0, settings=Settings(priority=(first,)))
    cluster = scene.cluster
    cluster.run_until(lambda: cluster.leader() == first, 10)
    until, led = cluster.now + 120, 0
    while cluster.now < until:
        if cluster.leader() == first:
            led += 1
            cluster.crash(first)
            cluster.run(1.5)
            cluster.restart(first)
        cluster.run(0.1)
    if led > 6:
        raise Violation(f"server {first} has died {led} times in two minutes as soon as it led, and leads again")
    cluster.run_until(lambda: cluster.leader() == first, 300)
    view = scene.view()
    cluster.run(5.0)
    scene.require_view(view)
    cluster.submit(first, "client", 1)
    scene.everyone_executes(1, 2)


def _settled(seed: int, patch: Plant | None) -> Scenario:
    """A cluster with clients, in which all follow one leader, and all have told so."""
    scene = Scenario(seed, patch, servers=size(seed), clients=2)
    scene.begin()
    scene.cluster.run_until(lambda: all_follow(scene.cluster), 5)
    scene.cluster.run(0.5)
    return scene


def _begin(scene: Scenario, leader: int, target: int) -> list[str | None]:
    """Let the leader hand over. Returns a list to which the end of the hand-over is appended."""
    replica, ends = scene.cluster.replica(leader), list[str | None]()
    why_not = replica.hand_over.why_not(target)
    if why_not is not None:
        raise Violation(f"all is well, and server {leader} hands over to no server: {why_not}")
    replica.perform(replica.hand_over.begin, target, HandOverReason.ASKED, ends.append)
    return ends


def _require_expiries(scene: Scenario, before: dict[int, int]) -> None:
    if (now := expiries(scene.cluster)) != before:
        raise Violation(f"a view was handed over, and Progress_Timers have expired: {before}, and now {now}")


SCHEDULES: Final[Sequence[Schedule]] = (
    leader_hands_over,
    slots_are_under_way,
    hand_over_is_lost,
    hand_over_overtakes_nothing,
    former_leader_repeats_itself,
    target_lacks_a_slot,
    target_stands_still,
    target_dies_before_it_leads,
    leader_dies_when_it_has_left,
    stopping_leader_hands_over,
    all_are_restarted,
    preferred_server_comes_and_goes,
)
