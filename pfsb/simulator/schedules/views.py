"""Schedules around views: who leads, who follows, and how long that takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from pfsb.paxos.messages import Prepare, PrepareOK, State
from pfsb.simulator.defects.defect import Break
from pfsb.simulator.schedules.scenario import Scene, Schedule, size


def minority_is_down(seed: int, patch: Break | None) -> None:
    """Promise 3: a majority makes progress, whoever is missing."""
    rng = random.Random(f"{seed}/servers")
    scene = Scene(seed, patch, servers=rng.choice((3, 3, 4, 5)))
    scene.begin()
    world = scene.world
    for server_id in scene.rng.sample(world.ids, (len(world.ids) - 1) // 2):
        world.crash(server_id)
    world.run(1)
    scene.everyone_is_served(30)


def prepare_is_overtaken(seed: int, patch: Break | None) -> None:
    """G7: every PREPARE comes after a VC_PROOF has told of its view, and the view is prepared all the same."""
    scene = Scene(seed, patch)
    scene.late(Prepare, 0.5)
    scene.world.run_until(scene.world.has_leader, 20)


def leader_is_gone(seed: int, patch: Break | None) -> None:
    """G9: those who are left, each still proving the view to the others, elect another leader."""
    scene = Scene(seed, patch)
    scene.begin()
    scene.world.crash(scene.leader())
    scene.world.run(0.5)
    scene.world.run_until(scene.world.has_leader, 20)


def everyone_comes_back(seed: int, patch: Break | None) -> None:
    """G9: who was restarted, or was out of reach for a while, follows its leader again, in a cluster that works."""
    scene = Scene(seed, patch, servers=5)
    scene.begin()
    world = scene.world
    restarted = scene.follower()
    world.crash(restarted)
    world.run(0.2)
    world.restart(restarted)
    world.run_until(lambda: scene.state(restarted) is State.REG_NONLEADER, 10)
    away = scene.follower()
    world.isolate(away)
    world.run(4)
    world.heal()
    world.run_until(lambda: scene.state(away) is State.REG_NONLEADER, 10)
    away = scene.follower()
    world.isolate(away)
    world.crash(scene.leader())
    world.run(4)
    world.heal()
    world.run_until(lambda: scene.state(away) is not State.LEADER_ELECTION, 10)


def long_outage(seed: int, patch: Break | None) -> None:
    """G8: however long no view could be prepared, a dead leader is not waited for much longer than before."""
    scene = Scene(seed, patch, clients=0)
    world = scene.world
    lost = world.network.drop(lambda p: isinstance(p.message, PrepareOK))
    world.run(200)
    world.network.filters.remove(lost)
    view = max(world.replica(i).data.views.last_attempted for i in world.ids)
    world.crash(world.replica(0).membership.leader_of(view))
    world.run_until(world.has_leader, 40)


def calm_after_storm(seed: int, patch: Break | None) -> None:
    """G8: after some bad views and a good one, a dead leader is noticed as fast as ever."""
    scene = Scene(seed, patch)
    world = scene.world
    lost = world.network.drop(lambda p: isinstance(p.message, PrepareOK))
    world.run(60)
    world.network.filters.remove(lost)
    scene.begin()
    world.run(1)
    world.crash(scene.leader())
    world.run_until(world.has_leader, 5)


def nothing_happens(seed: int, patch: Break | None) -> None:
    """Departure 10: an idle cluster elects nobody."""
    scene = Scene(seed, patch, servers=size(seed), clients=0)
    world = scene.world
    world.run_until(world.has_leader)
    view = scene.view()
    world.run(60)
    scene.require_view(view)


def one_server_only_talks(seed: int, patch: Break | None) -> None:
    """Section 5.2: a server that hears nobody, and elects again and again, does not disturb the others."""
    scene = Scene(seed, patch, servers=size(seed))
    scene.begin()
    world = scene.world
    view = scene.view()
    deaf = scene.follower()
    for client in scene.clients:
        client.servers = [i for i in world.ids if i != deaf]
    for other in world.ids:
        if other != deaf:
            world.cut(other, deaf, one_way=True)
    world.run(20)
    scene.everyone_is_served(10)
    scene.require_view(view)


def leader_hears_nobody(seed: int, patch: Break | None) -> None:
    """Section 5.10: a leader that talks and hears nobody gives way, though nothing is asked of it."""
    scene = Scene(seed, patch, clients=0)
    world = scene.world
    world.run_until(world.has_leader)
    deaf = scene.leader()
    for other in world.ids:
        if other != deaf:
            world.cut(other, deaf, one_way=True)
    world.run_until(lambda: world.has_leader() and world.leader() != deaf, 30)


SCHEDULES: Final[Sequence[Schedule]] = (
    minority_is_down,
    prepare_is_overtaken,
    leader_is_gone,
    everyone_comes_back,
    long_outage,
    calm_after_storm,
    nothing_happens,
    one_server_only_talks,
    leader_hears_nobody,
)
