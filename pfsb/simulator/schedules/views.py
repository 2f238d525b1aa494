"""Schedules around views: how servers elect a leader, enter its view and return to it, and how long that takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from pfsb.paxos.messages import (
    Alive,
    Batch,
    ClientUpdate,
    GloballyOrderedUpdate,
    KnownPosition,
    Prepare,
    PrepareOK,
    Proposal,
    State,
    ViewChange,
)
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.stranding import all_follow, strand, tell_view
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule, size


def minority_is_down(seed: int, patch: Plant | None) -> None:
    """Promise 3: a majority of servers makes progress, whichever servers are down."""
    rng = random.Random(f"{seed}/servers")
    scene = Scenario(seed, patch, servers=rng.choice((3, 3, 4, 5)))
    scene.begin()
    cluster = scene.cluster
    for server_id in scene.rng.sample(cluster.ids, (len(cluster.ids) - 1) // 2):
        cluster.crash(server_id)
    cluster.run(1)
    scene.everyone_is_served(30)


def prepare_is_overtaken(seed: int, patch: Plant | None) -> None:
    """G7: a view is prepared even if a VC_PROOF of the view arrives before every PREPARE."""
    scene = Scenario(seed, patch)
    scene.late(Prepare, 0.5)
    scene.cluster.run_until(scene.cluster.has_leader, 20)


def leader_is_gone(seed: int, patch: Plant | None) -> None:
    """G9: when a leader has crashed, the others elect a new one, though each still sends VC_PROOF for the old view."""
    scene = Scenario(seed, patch)
    scene.begin()
    scene.cluster.crash(scene.leader())
    scene.cluster.run(0.5)
    scene.cluster.run_until(scene.cluster.has_leader, 20)


def everyone_comes_back(seed: int, patch: Plant | None) -> None:
    """G9: a server that was restarted, or cut off for a while, follows the leader again when all is well."""
    scene = Scenario(seed, patch, servers=5)
    scene.begin()
    cluster = scene.cluster
    restarted = scene.follower()
    cluster.crash(restarted)
    cluster.run(0.2)
    cluster.restart(restarted)
    cluster.run_until(lambda: scene.state(restarted) is State.REG_NONLEADER, 10)
    away = scene.follower()
    cluster.isolate(away)
    cluster.run(4)
    cluster.heal()
    cluster.run_until(lambda: scene.state(away) is State.REG_NONLEADER, 10)
    away = scene.follower()
    cluster.isolate(away)
    cluster.crash(scene.leader())
    cluster.run(4)
    cluster.heal()
    cluster.run_until(lambda: scene.state(away) is not State.LEADER_ELECTION, 10)


def long_outage(seed: int, patch: Plant | None) -> None:
    """G8: after a long time without a prepared view, servers still suspect a dead leader within a bounded time."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    lost = cluster.network.drop(lambda p: isinstance(p.message, PrepareOK))
    cluster.run(200)
    cluster.network.filters.remove(lost)
    view = max(cluster.replica(i).data.views.last_attempted for i in cluster.ids)
    cluster.crash(cluster.replica(0).membership.leader_of(view))
    cluster.run_until(cluster.has_leader, 40)


def calm_after_storm(seed: int, patch: Plant | None) -> None:
    """G8: after some views that were not prepared and one that was, a dead leader is suspected as fast as ever."""
    scene = Scenario(seed, patch)
    cluster = scene.cluster
    lost = cluster.network.drop(lambda p: isinstance(p.message, PrepareOK))
    cluster.run(60)
    cluster.network.filters.remove(lost)
    scene.begin()
    cluster.run(1)
    cluster.crash(scene.leader())
    cluster.run_until(cluster.has_leader, 5)


def nothing_happens(seed: int, patch: Plant | None) -> None:
    """Departure 10: an idle cluster holds no elections."""
    scene = Scenario(seed, patch, servers=size(seed), clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    view = scene.view()
    cluster.run(60)
    scene.require_view(view)


def one_server_only_talks(seed: int, patch: Plant | None) -> None:
    """Section 5.3: a server that hears no other, and votes for view after view, does not disturb the other servers."""
    scene = Scenario(seed, patch, servers=size(seed))
    scene.begin()
    cluster = scene.cluster
    view = scene.view()
    deaf = scene.follower()
    for client in scene.clients:
        client.servers = [i for i in cluster.ids if i != deaf]
    for other in cluster.ids:
        if other != deaf:
            cluster.cut(other, deaf, one_way=True)
    cluster.run(20)
    scene.everyone_is_served(10)
    scene.require_view(view)


def leader_hears_no_server(seed: int, patch: Plant | None) -> None:
    """Section 5.10: a leader that the others hear, but that hears no other, is replaced, even if no client asks."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    deaf = scene.leader()
    for other in cluster.ids:
        if other != deaf:
            cluster.cut(other, deaf, one_way=True)
    cluster.run_until(lambda: cluster.has_leader() and cluster.leader() != deaf, 30)


def minority_in_a_later_view(seed: int, patch: Plant | None) -> None:
    """Departure 50: a minority that has installed a later view, which no server leads, follows the former leader again.

    With and without load, in clusters of three to seven servers, and twice one after the other.
    """
    rng = random.Random(f"{seed}/minority")
    servers, clients = rng.choice((3, 4, 5, 6, 7)), rng.choice((0, 0, 1, 3))
    scene = Scenario(seed, patch, servers=servers, clients=clients)
    cluster = scene.cluster
    for client in scene.clients:
        client.start()
    cluster.run_until(cluster.has_leader)
    cluster.run(0.5)
    leader = scene.leader()
    for _ in range(2):
        followers = [i for i in cluster.ids if i != leader]
        away = rng.sample(followers, rng.randint(1, (servers - 1) // 2))
        strand(cluster, away, scene.view() + rng.choice((1, 2, 7, 100, 1_000)))
        cluster.run_until(lambda: all_follow(cluster), 40)
        if scene.leader() != leader:
            raise Violation(f"server {leader} led, and now server {scene.leader()} leads\n{cluster.picture()}")
    scene.everyone_is_served(10)


def later_view_is_told_without_end(seed: int, patch: Plant | None) -> None:
    """Departure 50: a server in error that always tells a later view takes the leadership from no server.

    It causes few elections, and servers that have installed a later view in truth come back all the same.
    """
    scene = Scenario(seed, patch, servers=random.Random(f"{seed}/servers").choice((5, 6, 7)), clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    wrong, away = scene.rng.sample([i for i in cluster.ids if i != leader], 2)
    until = cluster.now + 120
    ahead = scene.rng.choice((1, 7, 2**19))

    def tell() -> None:
        if cluster.now < until:
            tell_view(cluster, wrong, ahead)
            cluster.clock.callLater(0.01, tell)

    cluster.network.drop(lambda passage: isinstance(passage.message, Alive) and passage.sender == wrong)
    tell()
    cluster.run(100)
    cluster.run_until(cluster.has_leader)
    elections = len(cluster.checks.messages.leaders) - 1
    if not 2 <= elections <= 10:
        raise Violation(f"one server tells a later view for 100 s, and there are {elections} elections")
    strand(cluster, [away], scene.view() + 1)
    cluster.run_until(lambda: all_follow(cluster), 40)
    if scene.leader() != leader:
        raise Violation(f"server {leader} led, and now server {scene.leader()} leads\n{cluster.picture()}")


def idle_follower_comes_back(seed: int, patch: Plant | None) -> None:
    """Departure 51: followers that were cut off or stood still, and suspect an idle leader, follow it again at once."""
    rng = random.Random(f"{seed}/minority")
    servers = rng.choice((3, 4, 5, 6, 7))
    scene = Scenario(seed, patch, servers=servers, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(0.5)
    view = scene.view()
    away = rng.sample([i for i in cluster.ids if i != scene.leader()], rng.randint(1, (servers - 1) // 2))
    stand_still, seconds = rng.random() < 0.5, rng.uniform(1.5, 4)
    if stand_still:
        for server_id in away:
            cluster.pause(server_id)
    else:
        cluster.isolate(*away)
    cluster.run(seconds)
    for server_id in away if stand_still else ():
        cluster.resume(server_id)
    cluster.heal()
    cluster.run_until(lambda: all_follow(cluster), 1)
    scene.require_view(view)


def restarted_server_is_not_admitted(seed: int, patch: Plant | None) -> None:
    """Departure 51: a server that was restarted hears that its view works, and follows only when it is admitted."""
    scene = Scenario(seed, patch, servers=size(seed), clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(0.5)
    view, away = scene.view(), scene.follower()
    cluster.crash(away)
    cluster.run(0.2)
    lost = cluster.network.drop(lambda passage: isinstance(passage.message, KnownPosition))
    cluster.restart(away)
    cluster.run(2)
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: all_follow(cluster), 2)
    scene.require_view(view)


def leader_only_talks(seed: int, patch: Plant | None) -> None:
    """Departure 51: a leader that sends ALIVEs and orders nothing is replaced.

    Its followers suspect it one after the other, and each of them hears that a majority is still in the view.
    """
    scene = Scenario(seed, patch, servers=5, clients=4, settings=Settings(progress_seconds=4.0))
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    lost = cluster.network.drop(
        lambda passage: isinstance(passage.message, ClientUpdate) and passage.receiver != leader
    )
    cluster.network.drop(lambda passage: isinstance(passage.message, Proposal) and passage.sender == leader)
    for client, follower in zip(scene.clients, [i for i in cluster.ids if i != leader], strict=True):
        client.servers = [follower]
        client.start()
        cluster.run(scene.rng.uniform(0.9, 1.1))
    cluster.run_until(lambda: cluster.has_leader() and cluster.leader() != leader, 15)
    cluster.network.filters.remove(lost)
    scene.everyone_is_served(20)


def leader_is_heard_again(seed: int, patch: Plant | None) -> None:
    """Departure 51: an election is not torn apart by an ALIVE of the leader whose followers have all left it.

    The votes of two servers out of three take their time, and one of the two hears the leader meanwhile. If it went
    back, the other one would prepare a view with its vote, and no server would follow.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(scene.rng.uniform(0.5, 1))
    leader = scene.leader()
    next_leader = cluster.replica(leader).membership.leader_of(scene.view() + 1)
    (other,) = (i for i in cluster.ids if i not in (leader, next_leader))
    cluster.cut(leader, next_leader, one_way=True)
    cluster.cut(leader, other, one_way=True)
    scene.late(ViewChange, 0.3)
    both_vote = (State.LEADER_ELECTION, State.LEADER_ELECTION)
    cluster.run_until(lambda: (scene.state(next_leader), scene.state(other)) == both_vote, 5)
    cluster.network.mend(leader, other)
    cluster.run(0.4)
    cluster.heal()
    cluster.run_until(lambda: all_follow(cluster), 1.5)


def leader_is_heard_once_more(seed: int, patch: Plant | None) -> None:
    """Departure 51: one late ALIVE of a dead leader keeps no server out of the election in which it is needed.

    Of five servers, one does not hear the leader, and hears that the others follow it. Then the leader and one of
    these others die, and before the last two suspect the leader, its ALIVE arrives.
    """
    scene = Scenario(seed, patch, servers=5, clients=0, settings=Settings(progress_seconds=4.0))
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(scene.rng.uniform(0.5, 1))
    leader, view = scene.leader(), scene.view()
    next_leader = cluster.replica(leader).membership.leader_of(view + 1)
    away, dies = scene.rng.sample([i for i in cluster.ids if i != leader], 2)
    if dies == next_leader:
        away, dies = dies, away
    cluster.cut(leader, away, one_way=True)
    cluster.run_until(lambda: scene.state(away) is State.LEADER_ELECTION, 10)
    cluster.run(1)
    cluster.crash(leader)
    cluster.crash(dies)
    cluster.run(scene.rng.uniform(3, 3.6))
    cluster.hand_over(leader, away, [Alive(leader, view, State.REG_LEADER, cluster.aru(away), has_clients=False)])
    cluster.run_until(cluster.has_leader, 6.5)


def dead_follower_is_remembered(seed: int, patch: Plant | None) -> None:
    """Departure 51: the ALIVE of a server that has died since keeps no other server out of an election.

    After a time without a prepared view the timers are long. Of five servers, two do not hear the leader, and vote;
    then the leader dies, and one of its two followers. Late ALIVEs of the leader reach one of the two that vote. If
    that one went back to the old view, the last follower would soon ask for its vote in vain.
    """
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    lost = cluster.network.drop(lambda p: isinstance(p.message, PrepareOK))
    cluster.run(40)
    cluster.network.filters.remove(lost)
    cluster.run_until(cluster.has_leader, 40)
    leader, view = scene.leader(), scene.view()
    next_leader = cluster.replica(leader).membership.leader_of(view + 1)
    others = [i for i in cluster.ids if i not in (leader, next_leader)]
    away, votes, dies = next_leader, *scene.rng.sample(others, 2)
    for server_id in (away, votes):
        cluster.cut(leader, server_id, one_way=True)
    both_vote = (State.LEADER_ELECTION, State.LEADER_ELECTION)
    cluster.run_until(lambda: (scene.state(away), scene.state(votes)) == both_vote, 10)
    cluster.run(1)
    cluster.crash(leader)
    cluster.crash(dies)
    cluster.run(scene.rng.uniform(5, 7))
    for _ in range(2):
        cluster.run(0.2)
        cluster.hand_over(leader, away, [Alive(leader, view, State.REG_LEADER, cluster.aru(away), has_clients=False)])
    cluster.run_until(cluster.has_leader, 4)


def leader_is_overtaken(seed: int, patch: Plant | None) -> None:
    """Departure 10: a leader that waits for a slot which its followers have executed makes way for another leader.

    The followers were told that the slot holds another batch than the leader proposes there. They and their clients go
    on without it: the window has room for all that is asked for.
    """
    scene = Scenario(seed, patch, clients=0, settings=Settings(window_slots=1_000))
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    cluster.submit(leader, "before", 1)
    scene.everyone_executes(1, 5)
    followers = [i for i in cluster.ids if i != leader]
    for told, teller in (followers, followers[::-1]):
        cluster.hand_over(teller, told, [GloballyOrderedUpdate(teller, 2, Batch.of(0, ()))])
    cluster.submit(leader, "client", 1)
    busy = scene.rng.choice(followers)
    for number in range(1, 21):
        if ("client", 1) in cluster.answers:
            break
        cluster.submit(busy, "busy", number)
        cluster.run_until(lambda: ("busy", number) in cluster.answers, 10)  # noqa: B023 (called in this round only)
        cluster.run(0.2)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 0.1)
    cluster.run_until(cluster.all_equal, 10)


def vote_is_untrue(seed: int, patch: Plant | None) -> None:
    """Departure 52: a vote in the name of a leader that goes on leading does not delay the election after its death."""
    rng = random.Random(f"{seed}/untrue")
    servers, clients = rng.choice((3, 4, 5, 6, 7)), rng.choice((0, 1, 3))
    scene = Scenario(seed, patch, servers=servers, clients=clients)
    cluster = scene.cluster
    for client in scene.clients:
        client.start()
    cluster.run_until(cluster.has_leader)
    cluster.run(0.5)
    leader = scene.leader()
    view = cluster.replica(leader).membership.next_led(scene.view() + 100)
    told = rng.sample([i for i in cluster.ids if i != leader], rng.randint(1, (servers - 1) // 2))
    for server_id in told:
        cluster.hand_over(leader, server_id, [ViewChange(leader, view)])
    cluster.run(4)
    cluster.crash(leader)
    cluster.run_until(cluster.has_leader, 2)


def vote_is_taken_back(seed: int, patch: Plant | None) -> None:
    """Departure 52: the vote of a server that has gone back to its view counts no more.

    Of five servers, one is cut off from all but two others, which are cut off from the rest one after the other. The
    first of them has gone back when the second one begins to vote.
    """
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(0.5)
    leader, view = scene.leader(), scene.view()
    alone = cluster.replica(leader).membership.leader_of(view + 1)
    first, second = scene.rng.sample([i for i in cluster.ids if i not in (leader, alone)], 2)
    cluster.isolate(alone, first)
    both_vote = (State.LEADER_ELECTION, State.LEADER_ELECTION)
    cluster.run_until(lambda: (scene.state(alone), scene.state(first)) == both_vote, 5)
    cluster.run(0.2)
    for other in cluster.ids:
        if other not in (alone, first):
            cluster.network.mend(first, other)
            cluster.network.mend(other, first)
    cluster.run_until(lambda: scene.state(first) is State.REG_NONLEADER, 2)
    cluster.run(1)
    for other in cluster.ids:
        if other not in (alone, second):
            cluster.cut(second, other)
    cluster.network.mend(alone, second)
    cluster.network.mend(second, alone)
    cluster.run_until(lambda: scene.state(second) is State.LEADER_ELECTION, 5)
    cluster.run(0.3)
    cluster.heal()
    cluster.run_until(lambda: all_follow(cluster), 1)
    scene.require_view(view)


SCHEDULES: Final[Sequence[Schedule]] = (
    minority_is_down,
    prepare_is_overtaken,
    leader_is_gone,
    everyone_comes_back,
    long_outage,
    calm_after_storm,
    nothing_happens,
    one_server_only_talks,
    leader_hears_no_server,
    minority_in_a_later_view,
    later_view_is_told_without_end,
    idle_follower_comes_back,
    restarted_server_is_not_admitted,
    leader_only_talks,
    leader_is_heard_again,
    leader_is_heard_once_more,
    dead_follower_is_remembered,
    leader_is_overtaken,
    vote_is_untrue,
    vote_is_taken_back,
)
