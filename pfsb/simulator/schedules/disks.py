"""Schedules around what an earlier view, or an earlier life, has left on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfsb.paxos.messages import Accept, PrepareOK, Proposal, ReconciliationReply, State
from pfsb.paxos.replica import StorageWasReplaced
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.defects.defect import Break
from pfsb.simulator.schedules.scenario import Scene, Schedule


def disk_is_lost(seed: int, patch: Break | None) -> None:
    """G20: a server that comes back with an empty disk is not let in."""
    scene = Scene(seed, patch)
    scene.begin()
    world = scene.world
    world.expected_failures = (StorageWasReplaced,)
    world.run(1)
    victim = scene.follower()
    world.crash(victim)
    world.lose_disk(victim)
    world.restart(victim)
    world.run(3)
    if victim not in world.failures:
        raise Violation(f"server {victim} has lost its disk, and takes part all the same")


def disk_is_lost_unheard(seed: int, patch: Break | None) -> None:
    """Departure 12: a server with an empty disk hears a leader of old, and nobody hears it; its vote counts nowhere.

    Servers 1 and 2 have left view 1, and ordered a slot in view 2. Server 0 still leads view 1, and would order
    something else there, if the server that was 2 voted for it.
    """
    scene = Scene(seed, patch, clients=0)
    world = scene.world
    world.expected_failures = (StorageWasReplaced,)
    world.run_until(lambda: world.leader() == 0 and world.has_leader())
    world.cut(0, 1, one_way=True)
    world.cut(0, 2, one_way=True)
    world.run_until(lambda: scene.state(1) is State.LEADER_ELECTION and scene.state(2) is State.LEADER_ELECTION)
    world.isolate(0)
    world.run_until(lambda: scene.state(1) is State.REG_LEADER)
    world.submit(1, "a", 1)
    world.run_until(lambda: ("a", 1) in world.answers)
    world.isolate(1)
    world.crash(2)
    world.lose_disk(2)
    world.restart(2)
    world.network.mend(0, 2)
    world.submit(0, "b", 1)
    world.run(1)
    assert scene.state(0) is State.REG_LEADER, "it has heard a majority a while ago"
    world.heal()
    world.run_until(lambda: 2 in world.failures)


def torn_while_learning(seed: int, patch: Break | None) -> None:
    """Figure 14: a crash tears a slot from the Local_Aru that speaks of it; it is executed all the same."""
    scene = Scene(seed, patch, clients=0)
    world = scene.world
    world.run_until(world.has_leader)
    leader, away = scene.leader(), scene.follower()
    world.isolate(away)
    for number in range(1, 4):
        world.submit(leader, "client", number)
        world.run_until(lambda number=number: ("client", number) in world.answers)  # type: ignore[misc]
    world.heal()
    world.run_until(lambda: world.aru(away) > 0 and world.storage(away).pending_groups() != [])
    world.crash(away, 0, 1)
    world.restart(away)
    world.run_until(world.all_equal)


def two_old_proposals(seed: int, patch: Break | None) -> None:
    """Figure 5 D: of two proposals for one slot that a new leader hears of, that of the later view may be chosen."""
    scene = Scene(seed, patch, clients=0)
    world = scene.world
    world.run_until(lambda: world.leader() == 0 and world.has_leader())
    lost = world.network.drop(lambda p: isinstance(p.message, Proposal))
    world.submit(0, "a", 1)
    world.run(0.02)
    world.crash(0)
    world.network.filters.remove(lost)
    world.run_until(lambda: world.leader() == 1 and world.has_leader())
    lost = world.network.drop(lambda p: p.receiver == 2 and isinstance(p.message, Accept | ReconciliationReply))
    world.submit(1, "b", 1)
    world.run_until(lambda: ("b", 1) in world.answers)
    world.crash(1)
    world.network.filters.remove(lost)
    world.restart(0)
    world.run_until(lambda: world.aru(0) > 0 and world.aru(2) > 0)
    world.restart(1)
    world.run_until(world.all_equal)


def bound_twice(seed: int, patch: Break | None) -> None:
    """G15: two leaders have bound one update to two slots, and nobody can tell that neither is chosen."""
    scene = Scene(seed, patch, clients=0, settings=Settings(batch_bytes_max=1))
    world = scene.world
    world.run_until(lambda: world.leader() == 0 and world.has_leader())
    lost = world.network.drop(lambda p: isinstance(p.message, Proposal))
    world.submit(0, "u", 1, b"u")
    world.run(0.02)
    world.crash(0)
    world.network.filters.remove(lost)
    world.run_until(lambda: world.leader() == 1 and world.has_leader())
    world.restart(0)
    world.run_until(lambda: scene.state(0) is State.REG_NONLEADER)
    lost = world.network.drop(
        lambda p: (
            isinstance(p.message, Accept) or (isinstance(p.message, Proposal) and (p.message.seq, p.receiver) != (2, 0))
        )
    )
    world.submit(1, "w", 1, b"w")
    world.run(0.02)
    world.submit(1, "u", 1, b"u")
    world.run(0.02)
    world.crash(1)
    world.network.filters.remove(lost)
    world.run_until(lambda: world.aru(0) >= 2 and world.aru(2) >= 2)
    assert [row[1] for row in world.executed(0)] == ["u"], "one update stands in two slots"


def promise_of_two_lives(seed: int, patch: Break | None) -> None:
    """Figure 5 C: some parts of a promise come from one life of a server, the others from its next; that is no promise.

    Server 0 has ordered four slots with the vote of server 2, and is gone; server 1 knows nothing, and leads view 2.
    Server 2 cuts its list before slot 3. Then it dies, server 1 has learned slot 1, and the list is cut before slot 4.
    """
    settings = Settings(batch_bytes_max=1, frame_data_bytes_max=200)
    scene = Scene(seed, patch, clients=0, settings=settings)
    world, network = scene.world, scene.world.network
    world.run_until(lambda: world.leader() == 0 and world.has_leader())
    world.isolate(1)
    network.drop(lambda p: isinstance(p.message, ReconciliationReply))
    for number in range(1, 5):
        if number == 2:
            network.drop(lambda p: p.receiver == 2 and isinstance(p.message, Accept))
        world.submit(0, f"client-{number}", 1, bytes(20))
        world.run_until(lambda number=number: (f"client-{number}", 1) in world.answers)  # type: ignore[misc]
        world.run(0.01)
    world.crash(0)
    world.heal()
    network.filters.clear()
    lists: dict[int, int] = {}
    """edition -> how many parts"""

    def only_some_parts(passage: Passage) -> bool:
        message = passage.message
        if isinstance(message, PrepareOK) and message.view == 2:
            lists[message.edition] = message.parts
            return (message.edition, message.part) not in ((1, 0), (2, 1))
        return isinstance(message, ReconciliationReply) and not lists

    network.drop(only_some_parts)
    world.run_until(lambda: 1 in lists and world.aru(1) == 1)
    world.crash(2)
    world.restart(2)
    world.run_until(lambda: 2 in lists)
    assert lists == {1: 2, 2: 2}, f"both promises have two parts: {lists}"
    world.run(0.3)
    network.filters.clear()
    world.run_until(lambda: world.aru(1) >= 4)


SCHEDULES: Final[Sequence[Schedule]] = (
    disk_is_lost,
    disk_is_lost_unheard,
    torn_while_learning,
    two_old_proposals,
    bound_twice,
    promise_of_two_lives,
)
