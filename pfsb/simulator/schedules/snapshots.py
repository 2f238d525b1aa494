"""Schedules around snapshots: servers that lack slots which the others have dropped (Departures 56 and 57)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from attrs import define

from pfsb.applications.arguments import absent
from pfsb.applications.interfaces import Done, Refused, Result
from pfsb.paxos.divergence import StateDiverged
from pfsb.paxos.messages import (
    Message,
    ReconciliationReply,
    ReconciliationRequest,
    SnapshotOffer,
    SnapshotPart,
    SnapshotRequest,
    State,
)
from pfsb.paxos.reconciliation import FETCH_SECONDS
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot import SnapshotName
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.network import LinkQuality, Passage
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule, Servers

PART_BYTES: Final = 100
"""Size, in bytes, of a part of a snapshot in these schedules, so that each snapshot has many."""


def _settings(**values: Any) -> dict[str, Any]:
    """Settings with which servers keep nothing below a snapshot, and take one only when they are asked to."""
    return {"history_slots_kept": 0, "frame_data_bytes_max": PART_BYTES, **values}


def _scene(seed: int, patch: Plant | None, servers: int = 3, clients: int = 0, **values: Any) -> Scenario:
    settings = Settings(**_settings(**values))
    scene = Scenario(seed, patch, servers, clients, settings=settings, kept_slots=0)
    scene.cluster.run_until(scene.cluster.has_leader)
    return scene


def _order(cluster: SimulatedCluster, at: int, slots: int) -> None:
    """Have a client of server `at` ask for this number of updates, one after the other."""
    for _ in range(slots):
        number = cluster.aru(at) + 1
        cluster.submit(at, f"client-{at}", number, f"update {number} ".encode() * 20)
        cluster.run_until(lambda number=number: (f"client-{at}", number) in cluster.answers)  # type: ignore[misc]


def _take(cluster: SimulatedCluster, *servers: int) -> None:
    """Have these servers take snapshots, and wait until they are on disk."""
    taken: list[SnapshotName | None] = []
    for server_id in servers:
        replica = cluster.replica(server_id)
        replica.perform(replica.snapshot_taker.take_now, taken.append)
    cluster.run_until(lambda: len(taken) == len(servers))
    require(None not in taken, "a server was asked for a snapshot, and has taken none")


def _compact(cluster: SimulatedCluster, *servers: int) -> int:
    """Have these servers execute the same slots, and drop them. Returns the last of the slots."""
    cluster.run_until(lambda: len({cluster.aru(i) for i in servers}) == 1)
    _take(cluster, *servers)
    return cluster.aru(servers[0])


def _leave_behind(cluster: SimulatedCluster, leader: int, away: int, slots: int = 20) -> int:
    """Isolate server `away`, and have the others order so many slots and drop them. Returns the last of the slots."""
    cluster.isolate(away)
    _order(cluster, leader, slots)
    return _compact(cluster, *[i for i in cluster.ids if i != away])


@define(eq=False)
class _Requests:
    """The requests for parts of snapshots that servers have sent so far, and the offers."""

    cluster: SimulatedCluster
    bytes: int = 0
    offers: int = 0

    def __attrs_post_init__(self) -> None:
        self.cluster.network.observers.append(self._sent)

    def _sent(self, _sender: int, _to: int | None, messages: Sequence[Message]) -> None:
        self.bytes += sum(message.size for message in messages if isinstance(message, SnapshotRequest))
        self.offers += sum(isinstance(message, SnapshotOffer) for message in messages)


def _until_fetching(cluster: SimulatedCluster, server_id: int, parts: int) -> int:
    """Wait until a server has written this number of parts of a snapshot. Returns the server from which it fetches."""

    def fetches() -> bool:
        fetch = cluster.replica(server_id).snapshot_fetcher.fetch
        return fetch is not None and fetch.written >= parts

    cluster.run_until(fetches)
    fetch = cluster.replica(server_id).snapshot_fetcher.fetch
    assert fetch is not None
    return fetch.source


def others_have_compacted(seed: int, patch: Plant | None) -> None:
    """Departure 57: a server that was away until the others have dropped what it lacks gets a snapshot, and goes on."""
    scene = _scene(seed, patch, clients=2, snapshot_slots=5)
    cluster = scene.cluster
    for client in scene.clients:
        client.start()
    away = scene.follower()
    cluster.isolate(away)
    others = [i for i in cluster.ids if i != away]
    for client in scene.clients:
        client.servers = others
    cluster.run_until(lambda: all(cluster.storage(i).compacted > cluster.aru(away) for i in others))
    cluster.heal()
    scene.everyone_is_served(10)
    scene.everyone_executes(max(cluster.aru(i) for i in others), 10)
    require(cluster.replica(away).snapshot_fetcher.installed > 0, f"server {away} has installed no snapshot")
    cluster.crash(away)
    cluster.restart(away)
    cluster.run_until(cluster.all_equal, 10)


def source_of_a_snapshot_dies(seed: int, patch: Plant | None) -> None:
    """Departure 57: when the source of a snapshot dies, another server that has the same one goes on where it ended."""
    scene = _scene(seed, patch, servers=5)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    seq = _leave_behind(cluster, leader, away)
    requests = _Requests(cluster)
    cluster.heal()
    source = _until_fetching(cluster, away, 4)
    cluster.crash(source)
    cluster.run_until(lambda: cluster.aru(away) == seq, 20)
    size = cluster.checks.snapshots.names[seq].size
    require(requests.bytes < 1.8 * size, f"{requests.bytes} bytes of a snapshot of {size} bytes were asked for")


def receiver_of_a_snapshot_dies(seed: int, patch: Plant | None) -> None:
    """Departure 57: a server that dies while it fetches a snapshot goes on at its next start, where the file ends."""
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    seq = _leave_behind(cluster, leader, away)
    requests = _Requests(cluster)
    cluster.heal()
    for parts in (4, 3):
        _until_fetching(cluster, away, parts)
        cluster.run_until(lambda: any(cluster.disk(away).parts.values()))
        cluster.crash(away)
        cluster.restart(away)
    cluster.run_until(lambda: cluster.aru(away) == seq, 20)
    size = cluster.checks.snapshots.names[seq].size
    require(requests.bytes < 3 * size, f"{requests.bytes} bytes of a snapshot of {size} bytes were asked for")
    require(requests.offers > 2, "the server has asked for slots again after each start")


def snapshot_is_replaced_meanwhile(seed: int, patch: Plant | None) -> None:
    """Departure 57: a snapshot that its source replaces while another server fetches it does not hold that server up.

    Parts of the old snapshot that are late must not become parts of the new one.
    """
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    _leave_behind(cluster, leader, away)
    cluster.heal()
    late = cluster.network.hold(
        lambda passage: isinstance(passage.message, SnapshotPart) and bool(passage.message.data)
    )
    cluster.run_until(lambda: len(late.passages) > 2)
    _order(cluster, leader, 5)
    seq = _compact(cluster, *[i for i in cluster.ids if i != away])
    cluster.run_until(lambda: cluster.replica(away).snapshot_fetcher.fetch is None, 20)
    old = [passage for passage in late.passages if passage.message.name.seq < seq]  # type: ignore[union-attr]
    late.release()
    for passage in old * 3:
        cluster.clock.callLater(scene.rng.uniform(0, 1), cluster.network.inject, passage)
    cluster.run_until(lambda: cluster.aru(away) == seq, 20)
    require(cluster.replica(away).snapshot_fetcher.wrong == 0, f"server {away} has fetched a wrong snapshot")


def clients_wait_at_an_install(seed: int, patch: Plant | None) -> None:
    """Departure 57: clients of a server that installs a snapshot are told what their commands came to in its slots.

    The commands have left their server, and were executed while it heard nothing. One is a LOCK that waits, and is
    granted when the server is back.
    """
    servers = Servers(seed, patch, kept_slots=0, **_settings())
    cluster = servers.cluster
    leader = servers.present_leader()
    away = next(i for i in cluster.ids if i != leader)
    others = [i for i in cluster.ids if i != away]
    holder, user, waiter = servers.hello(leader, "holder"), servers.hello(away, "user"), servers.hello(away, "waiter")
    servers.wait_for(lambda told: holder.submit(1, ("LOCK", "door", absent), told))
    for other in others:
        cluster.cut(other, away, one_way=True)
    answers: list[Result] = []
    user.submit(1, ("PUT", "key", "value"), answers.append)
    granted: list[Result] = []
    waiter.submit(1, ("LOCK", "door", absent), granted.append)
    cluster.run_until(lambda: ("waiter", 1) in servers.checks.results)
    for number in range(2, 12):
        servers.wait_for(lambda told, number=number: holder.submit(number, ("INCR", "count", 1), told))  # type: ignore[misc]
    seq = _compact(cluster, *others)
    require(cluster.aru(away) < seq, f"server {away} hears nothing, and has executed all")
    cluster.heal()
    cluster.run_until(lambda: cluster.replica(away).snapshot_fetcher.installed > 0, 20)
    cluster.run_until(lambda: len(answers) == 1, 5)
    require(isinstance(answers[0], Done), f"the PUT has run, its result was kept, and its client is told {answers[0]}")
    require(not granted, f"the LOCK waits, and is answered {granted}")
    servers.wait_for(lambda told: holder.submit(20, ("UNLOCK", "door", absent), told))
    cluster.run_until(lambda: len(granted) == 1, 5)
    require(isinstance(granted[0], Done), f"the lock is free, and the client that waits is told {granted[0]}")


def commands_go_on_meanwhile(seed: int, patch: Plant | None) -> None:
    """Departure 56: a snapshot shows the state after its slot, whatever is executed while its pieces are made.

    One server of two that take a snapshot of the same slot starts again from it.
    """
    servers = Servers(seed, patch, kept_slots=0, **_settings())
    cluster = servers.cluster
    leader = servers.present_leader()
    other = next(i for i in cluster.ids if i != leader)
    users = [servers.hello(leader, f"user-{number}") for number in range(4)]
    for number in range(1, 9):
        for place, user in enumerate(users):
            key = f"key-{place}-{number % 4}"
            servers.wait_for(lambda told, u=user, n=number, k=key: u.submit(n, ("PUT", k, f"{n}"), told))  # type: ignore[misc]
    cluster.run_until(cluster.all_equal)
    taken: list[SnapshotName | None] = []
    for server_id in (leader, other):
        replica = cluster.replica(server_id)
        replica.perform(replica.snapshot_taker.take_now, taken.append)
    for number in range(9, 19):
        for place, user in enumerate(users):
            verb: tuple[Any, ...] = ("DEL",) if number % 3 == 0 else ("PUT",)
            value = () if number % 3 == 0 else (f"{number}",)
            user.submit(number, (*verb, f"key-{place}-{number % 5}", *value), lambda result: None)
        cluster.run(0.004)
    cluster.run_until(lambda: len(taken) == 2)
    require(taken[0] == taken[1] and taken[0] is not None, f"two servers take snapshots of one slot: {taken}")
    cluster.run(0.2)
    cluster.crash(other)
    cluster.restart(other)
    cluster.run_until(cluster.all_equal, 10)


def answer_is_no_longer_kept_at_an_install(seed: int, patch: Plant | None) -> None:
    """Departure 57: a client whose answer is in no kept reply of a snapshot is told that the fate is unknown.

    Its session has ended in the skipped slots, and the answer with it.
    """
    servers = Servers(seed, patch, kept_slots=0, **_settings())
    cluster = servers.cluster
    leader = servers.present_leader()
    away = next(i for i in cluster.ids if i != leader)
    others = [i for i in cluster.ids if i != away]
    user = servers.hello(away, "user")
    for other in others:
        cluster.cut(other, away, one_way=True)
    answers: list[Result] = []
    user.submit(1, ("PUT", "key", "value"), answers.append)
    cluster.run_until(lambda: ("user", 1) in servers.checks.results)
    servers.wait_for(servers.hello(leader, "user").bye)
    _compact(cluster, *others)
    cluster.heal()
    cluster.run_until(lambda: cluster.replica(away).snapshot_fetcher.installed > 0, 20)
    cluster.run_until(lambda: len(answers) == 1, 5)
    told = answers[0]
    require(isinstance(told, Refused) and told.fate == "unknown", f"the PUT has run, and its client is told {told}")


def leader_lacks_what_is_dropped(seed: int, patch: Plant | None) -> None:
    """Departures 56 and 57, G19: a server that lacks dropped slots leads only when it has installed a snapshot.

    Servers that have installed snapshots hold none of the slots below, as little as those that have taken them, and
    answer no PREPARE that reaches below.
    """
    scene = _scene(seed, patch, servers=5)
    cluster = scene.cluster
    first = scene.leader()
    a, b, c, d = (i for i in cluster.ids if i != first)
    members = cluster.replica(first).membership
    heir = members.leader_of(scene.view() + 1)
    one, two, keeps = (i for i in (a, b, c, d) if i != heir)
    for away, there in ((one, (first, two, keeps)), (two, (first, one, keeps))):
        cluster.isolate(heir, away)
        cluster.cut(heir, away)
        _order(cluster, first, 10)
        seq = _compact(cluster, *there)
        cluster.heal()
        cluster.isolate(heir)
        cluster.run_until(lambda away=away, seq=seq: cluster.aru(away) >= seq, 20)  # type: ignore[misc]
        cluster.run(FETCH_SECONDS + 1)  # until then, the source keeps the slots above the snapshot that it has sent
    installed = [cluster.replica(i).snapshot_fetcher.installed for i in (one, two)]
    require(all(installed), "two servers were away, and have installed no snapshots")
    cluster.crash(first)
    cluster.crash(keeps)
    cluster.heal()
    offers = cluster.network.drop(lambda passage: isinstance(passage.message, SnapshotOffer))
    cluster.run(10)
    require(scene.state(heir) is not State.REG_LEADER, f"server {heir} leads, and lacks slots that no server holds")
    cluster.network.filters.remove(offers)
    cluster.submit(one, "client", 1)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 60)
    cluster.restart(first)
    cluster.restart(keeps)
    cluster.run_until(cluster.all_equal, 60)


def source_falls_silent(seed: int, patch: Plant | None) -> None:
    """Departure 57: a server whose parts do not come is given up, and the snapshot is fetched from another one."""
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    seq = _leave_behind(cluster, leader, away)
    cluster.heal()
    source = _until_fetching(cluster, away, 2)

    def is_from_source(passage: Passage) -> bool:
        return passage.sender == source and isinstance(passage.message, SnapshotPart)

    cluster.network.drop(is_from_source)
    cluster.run_until(lambda: cluster.aru(away) == seq, 20)


def slots_overtake_a_snapshot(seed: int, patch: Plant | None) -> None:
    """Departure 57: a snapshot is not installed if its slots have come by themselves while it was fetched.

    The server has asked one server for the slots, whose answer is late, and then another one, which has dropped them.
    """
    scene = _scene(seed, patch, frame_data_bytes_max=50_000)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    cluster.isolate(away)
    _order(cluster, leader, 20)
    seq = _compact(cluster, leader)
    slots = cluster.network.hold(lambda passage: isinstance(passage.message, ReconciliationReply))
    parts = cluster.network.hold(lambda passage: isinstance(passage.message, SnapshotPart))
    cluster.heal()
    cluster.run_until(lambda: bool(slots.passages and parts.passages))
    slots.release()
    cluster.run_until(lambda: cluster.aru(away) == seq)
    parts.release()
    cluster.run(2)
    installed = cluster.replica(away).snapshot_fetcher.installed
    require(not installed, f"server {away} has executed all slots of a snapshot, and installs it")
    _order(cluster, leader, 2)
    scene.everyone_executes(seq + 2, 10)


def snapshots_follow_each_other_fast(seed: int, patch: Plant | None) -> None:
    """Departure 57: a server arrives although several newer snapshots are taken while it fetches one.

    It finishes the one that it has begun, and gets the slots behind it: their server keeps them for it.
    """
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    others = [i for i in cluster.ids if i != away]
    _leave_behind(cluster, leader, away, 25)
    slow = LinkQuality(delay_seconds=(0.5, 0.6))
    cluster.network.set_quality(slow, [(other, away) for other in others])
    cluster.heal()
    source = _until_fetching(cluster, away, 3)
    taken = cluster.replica(source).snapshot_taker.taken
    while cluster.replica(away).snapshot_fetcher.installed < 2 and cluster.aru(away) < cluster.aru(leader) - 4:
        _order(cluster, leader, 1)
        _compact(cluster, *others)
    fetcher = cluster.replica(away).snapshot_fetcher
    newer = cluster.replica(source).snapshot_taker.taken - taken
    require(newer > 3, f"only {newer} newer snapshots were taken meanwhile")
    require(fetcher.installed == 1, f"server {away} has needed {fetcher.installed} snapshots, one after the other")
    scene.everyone_executes(cluster.aru(leader), 20)


def few_slots_are_left_elsewhere(seed: int, patch: Plant | None) -> None:
    """Departure 57: a server that lacks few slots gets them of the one server that has them, and fetches no snapshot.

    It has asked another server first, which has dropped them.
    """
    scene = _scene(seed, patch, servers=5, frame_data_bytes_max=50_000)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    keeps, *drop = (i for i in cluster.ids if i not in (leader, away))
    cluster.isolate(away)
    _order(cluster, leader, 2)
    _compact(cluster, leader, *drop)
    cluster.run_until(lambda: cluster.aru(keeps) == cluster.aru(leader))
    requests = _Requests(cluster)
    late = cluster.network.hold(
        lambda passage: passage.receiver == keeps and isinstance(passage.message, ReconciliationRequest)
    )
    cluster.heal()
    cluster.run_until(lambda: requests.offers > 0)
    late.release()
    scene.everyone_executes(cluster.aru(leader), 10)
    installed = cluster.replica(away).snapshot_fetcher.installed
    require(not installed, f"server {away} lacks 2 slots, and installs a snapshot in place of them")


def disk_has_no_room_for_a_snapshot(seed: int, patch: Plant | None) -> None:
    """Departures 45, 57: a server whose disk becomes full while it fetches a snapshot fetches it when there is room."""
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, away = scene.leader(), scene.follower()
    seq = _leave_behind(cluster, leader, away)
    cluster.heal()
    cluster.servers[away].sync_seconds = (0.05, 0.1)
    cluster.run_until(lambda: cluster.replica(away).snapshot_fetcher.loading is not None, 20)
    cluster.disk(away).free_records = 0
    cluster.disk(away).reserve_records = 1_000
    cluster.run(2)
    cluster.disk(away).free_records = None
    cluster.run_until(lambda: cluster.aru(away) == seq, 20)


def _lose_snapshot(cluster: SimulatedCluster, server_id: int, *, damaged: bool = False) -> None:
    """Crash a server, and let the snapshot with which it should start be missing or damaged on its disk."""
    cluster.crash(server_id)
    disk = cluster.disk(server_id)
    name = disk.contents.snapshot
    assert name is not None and disk.gone > 0, "the server has a snapshot, and needs it"
    if damaged:
        data = bytearray(disk.snapshots[name])
        data[len(data) // 2] ^= 1
        disk.snapshots[name] = bytes(data)
    else:
        del disk.snapshots[name]


def _lacks_state(cluster: SimulatedCluster, server_id: int) -> bool:
    return cluster.replica(server_id).snapshot_fetcher.lost is not None


def snapshot_is_lost_at_a_start(seed: int, patch: Plant | None) -> None:
    """Departure 58: a server whose snapshot is missing or damaged at a start gets one of another server, and goes on.

    Its log has slots above the lost snapshot. At its last start, the others have no snapshot that is as late.
    """
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, loser = scene.leader(), scene.follower()
    _order(cluster, leader, 10)
    _compact(cluster, *cluster.ids)
    _order(cluster, leader, 3)
    for damaged in (False, True):
        cluster.run_until(cluster.all_equal)
        cluster.run(1)
        _lose_snapshot(cluster, loser, damaged=damaged)
        seq = cluster.disk(loser).local_aru
        require(seq > cluster.disk(loser).snapshot_seq, "the log has no slots above the snapshot")
        _order(cluster, leader, 2)
        cluster.restart(loser)
        require(_lacks_state(cluster, loser), f"server {loser} has lost its snapshot, and does not notice it")
        cluster.run_until(lambda: not _lacks_state(cluster, loser), 20)
        require(cluster.aru(loser) >= seq, f"server {loser} had executed slot {seq}, and has not after its start")
        scene.everyone_executes(cluster.aru(leader), 20)
    _order(cluster, leader, 5)
    _compact(cluster, loser)
    _lose_snapshot(cluster, loser)
    cluster.restart(loser)
    scene.everyone_executes(cluster.aru(leader), 20)
    cluster.crash(leader)
    cluster.run_until(cluster.has_leader, 60)
    _order(cluster, loser, 3)


def snapshot_is_lost_while_a_server_runs(seed: int, patch: Plant | None) -> None:
    """Departure 58: a running server whose snapshot is lost takes another one at once, also of the same slot."""
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, loser = scene.leader(), scene.follower()
    _order(cluster, leader, 10)
    _compact(cluster, *cluster.ids)
    for slots in (0, 3):
        _order(cluster, leader, slots)
        cluster.run_until(cluster.all_equal)
        cluster.storage(loser).lose_snapshot()
        require(cluster.storage(loser).snapshot is None, "the snapshot is lost, and the storage still has it")
        cluster.run_until(lambda: cluster.storage(loser).snapshot is not None, 10)
    cluster.crash(loser)
    cluster.restart(loser)
    require(not _lacks_state(cluster, loser), f"server {loser} has taken another snapshot, and lacks its state")
    scene.everyone_executes(cluster.aru(leader), 10)


def vote_outlives_a_lost_snapshot(seed: int, patch: Plant | None) -> None:
    """Departure 58: a server that has lost its snapshot still has its votes, and promises with them.

    Two of three servers order a slot, and one of them loses its snapshot. It gets that of the third one, which has not
    heard of the slot, and both go on without the other server.
    """
    scene = _scene(seed, patch)
    cluster = scene.cluster
    leader, loser = scene.leader(), scene.follower()
    third = next(i for i in cluster.ids if i not in (leader, loser))
    _order(cluster, leader, 10)
    seq = _compact(cluster, *cluster.ids)
    cluster.isolate(third)
    cluster.submit(leader, "client", 1, b"an update that is answered")
    cluster.run_until(lambda: ("client", 1) in cluster.answers)
    cluster.crash(leader)
    _lose_snapshot(cluster, loser)
    cluster.heal()
    cluster.restart(loser)
    cluster.run_until(lambda: cluster.has_leader() and not _lacks_state(cluster, loser), 60)
    cluster.submit(third, "other", 1)
    cluster.run_until(lambda: ("other", 1) in cluster.answers, 60)
    cluster.restart(leader)
    scene.everyone_executes(seq + 2, 20)


def majority_loses_its_snapshots(seed: int, patch: Plant | None) -> None:
    """Departure 58: while no majority has its state, nothing is ordered; one server that has it brings it to all."""
    scene = _scene(seed, patch)
    cluster = scene.cluster
    keeps = scene.leader()
    losers = [i for i in cluster.ids if i != keeps]
    _order(cluster, keeps, 10)
    seq = _compact(cluster, *cluster.ids)
    for loser in losers:
        _lose_snapshot(cluster, loser)
    cluster.crash(keeps)
    for loser in losers:
        cluster.restart(loser)
    cluster.submit(losers[0], "client", 1)
    cluster.run(20)
    require(all(_lacks_state(cluster, i) for i in losers), "a server has made up a state")
    require(not cluster.has_leader(), "a server leads, and no majority has its state")
    require(("client", 1) not in cluster.answers, "a command is answered, and no majority has its state")
    cluster.restart(keeps)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 60)
    scene.everyone_executes(seq + 1, 20)


def all_lose_their_snapshots(seed: int, patch: Plant | None) -> None:
    """Departure 58: if all servers have lost their snapshots, none of them acknowledges anything."""
    scene = _scene(seed, patch)
    cluster = scene.cluster
    _order(cluster, scene.leader(), 10)
    _compact(cluster, *cluster.ids)
    for loser in cluster.ids:
        _lose_snapshot(cluster, loser)
    for loser in cluster.ids:
        cluster.restart(loser)
    cluster.submit(0, "client", 1)
    cluster.run(30)
    require(not cluster.has_leader(), "a server leads, and none has its state")
    require(("client", 1) not in cluster.answers, "a command is answered, and no server has its state")
    require(all(_lacks_state(cluster, i) for i in cluster.ids), "a server has made up a state")


def state_goes_wrong_in_silence(seed: int, patch: Plant | None) -> None:
    """Departure 40: an error of memory changes an entry at one server, and no result shows it. No snapshot counts while
    two servers of three differ in it. The third server gets slots and no state, and then the wrong one stops. Its next
    start executes the entry anew.
    """
    servers = Servers(seed, patch, kept_slots=0, **_settings(snapshot_slots=20))
    cluster = servers.cluster
    cluster.expected_failures = (StateDiverged,)
    leader = servers.present_leader()
    wrong, away = (i for i in cluster.ids if i != leader)
    user, numbers = servers.hello(leader, "user"), count(1)

    def run(*command: Any) -> None:
        servers.wait_for(lambda told: user.submit(next(numbers), command, told))

    run("PUT", "key", "right")
    cluster.run_until(cluster.all_equal)
    cluster.isolate(away)
    entries = cluster.process(wrong).applications["kv"].entries
    (key,) = entries
    entries[key] = (b"wrong", *entries[key][1:])
    cluster.slipped.add(wrong)
    while cluster.aru(leader) < 25:
        run("INCR", "count", 1)
    cluster.run(10)
    require(not any(cluster.storage(i).compacted for i in (leader, wrong)), "slots are dropped, and two states differ")
    cluster.heal()
    cluster.cut(leader, away)
    cluster.run_until(lambda: wrong not in cluster.running_ids, 20)
    require(not cluster.replica(away).snapshot_fetcher.installed, "a server has installed a state that no majority has")
    cluster.heal()
    cluster.restart(wrong)
    run("INCR", "count", 1)
    cluster.run_until(cluster.all_equal, 20)
    present = cluster.process(wrong).applications["kv"].entries[key][0]
    require(present == b"right", f"a start has executed the entry anew, and it is {present!r}")
    _compact(cluster, *cluster.ids)


SCHEDULES: Final[Sequence[Schedule]] = (
    others_have_compacted,
    source_of_a_snapshot_dies,
    receiver_of_a_snapshot_dies,
    snapshot_is_replaced_meanwhile,
    source_falls_silent,
    leader_lacks_what_is_dropped,
    slots_overtake_a_snapshot,
    snapshots_follow_each_other_fast,
    few_slots_are_left_elsewhere,
    disk_has_no_room_for_a_snapshot,
    snapshot_is_lost_at_a_start,
    snapshot_is_lost_while_a_server_runs,
    vote_outlives_a_lost_snapshot,
    majority_loses_its_snapshots,
    all_lose_their_snapshots,
)
WITH_SESSIONS: Final[Sequence[Schedule]] = (
    clients_wait_at_an_install,
    answer_is_no_longer_kept_at_an_install,
    commands_go_on_meanwhile,
    state_goes_wrong_in_silence,
)
"""Schedules that run whole servers."""
