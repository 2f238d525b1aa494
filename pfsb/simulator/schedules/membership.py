"""Schedules in which the membership changes (Departure 60)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pfsb.applications.interfaces import Done, Result
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.messages import (
    Accept,
    GloballyOrderedUpdate,
    HandOverReason,
    Ordered,
    Proposal,
    ReconciliationReply,
)
from pfsb.paxos.storage_identity import StorageWasReplaced
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.faults.membership_faults import address
from pfsb.simulator.schedules.scenario import Schedule, Servers

IN_FORCE_SECONDS: Final = 0.05
"""How long, in seconds, a change takes at most that has the votes of a majority: the slot after it, and disk writes."""


class _Members(Servers):
    """Servers 0, 1 and 2, which have founded the cluster, and some that may be added."""

    def __init__(self, seed: int, patch: Plant | None, joining: int = 1, **parameters: Any) -> None:
        super().__init__(seed, patch, joining=joining, **parameters)
        cluster = self.cluster
        machines = [cluster.process(i).server.machine for i in cluster.ids]
        cluster.run_until(lambda: all(len(machine.settings.announced) == len(machines) for machine in machines), 10)

    def ask(self, at: int, verb: str, about: int, *words: object) -> list[Result]:
        """Ask a server for a change. Returns a list to which the answer is appended."""
        told: list[Result] = []
        getattr(self.cluster.process(at).server.changes, verb)(about, *words, told.append)
        return told

    def change(self, at: int, verb: str, about: int, *words: object) -> None:
        """Ask a server for a change, and wait until it is in force."""
        told = self.ask(at, verb, about, *words)
        self.cluster.run_until(lambda: bool(told), 5)
        require(isinstance(told[0], Done), f"SERVERS {verb.upper()} {about} is answered {told}")

    def add(self, at: int, server_id: int) -> None:
        """Start a server, add it, and wait until it votes."""
        self.cluster.restart(server_id)
        self.cluster.run(0.5)
        self.change(at, "add", server_id, address(server_id))
        self.cluster.run_until(lambda: self.cluster.is_voter(server_id), 10)
        self.cluster.run(0.5)

    def remove_founders(self) -> None:
        """Remove servers 0 and 1, unless they are removed already, and stop them."""
        for gone in (0, 1):
            if gone in self.cluster.ids:
                self.change(3, "remove", gone)
                self.cluster.run(0.5)
            self.cluster.crash(gone)

    def take_snapshots(self, *servers: int) -> None:
        """Have these servers take snapshots, and drop the slots below."""
        taken = list[object]()
        for server_id in servers:
            replica = self.cluster.replica(server_id)
            replica.perform(replica.snapshot_taker.take_now, taken.append)
        self.cluster.run_until(lambda: len(taken) == len(servers) and None not in taken, 5)

    def require_return(self) -> None:
        """Start server 2 again, and require that it votes soon, and has executed what server 3 has."""
        cluster = self.cluster
        cluster.restart(2)
        admission = cluster.replica(2).storage_identity
        cluster.run_until(lambda: not admission.is_newcomer and cluster.aru(2) == cluster.aru(3), 5)


def storage_is_lost_after_changes(seed: int, patch: Plant | None) -> None:
    """Departure 60: a server that has lost its disk is not admitted by servers that came later and never heard it."""
    scene = _Members(seed, patch, joining=3)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWasReplaced,)
    scene.add(2, 3)
    cluster.cut(3, 4)
    cluster.cut(3, 5)
    scene.add(2, 4)
    scene.add(2, 5)
    for gone in (0, 1):
        scene.change(2, "remove", gone)
        cluster.run(0.5)
    cluster.crash(3)
    cluster.lose_disk(3)
    cluster.heal()
    cluster.restart(3)
    until = cluster.now + 5
    while cluster.now < until and cluster.is_running(3):
        cluster.run(0.05)
        is_admitted = cluster.is_running(3) and not cluster.replica(3).storage_identity.is_newcomer
        require(not is_admitted, "server 3 has lost its disk, and is admitted by servers that came later")


def server_comes_back_to_others(seed: int, patch: Plant | None) -> None:
    """Departure 60: a server comes back when most of those that voted with it are gone, and the slots with the changes
    are dropped: it takes a snapshot before it is admitted, and is admitted in the present epoch."""
    scene = _Members(seed, patch, joining=2, kept_slots=0, history_slots_kept=0)
    scene.add(0, 3)
    scene.cluster.crash(2)
    scene.add(0, 4)
    scene.remove_founders()
    scene.take_snapshots(3, 4)
    scene.require_return()


def server_comes_back_to_strangers(seed: int, patch: Plant | None) -> None:
    """Departure 60: a server comes back when all servers that it knows are gone. It learns of the changes from servers
    which its configuration file names, and votes again."""
    scene = _Members(seed, patch, joining=2, kept_slots=0, history_slots_kept=0)
    scene.cluster.crash(2)
    scene.add(0, 3)
    scene.change(3, "remove", 0)
    scene.add(1, 4)
    scene.remove_founders()
    if scene.rng.random() < 0.5:
        scene.take_snapshots(3, 4)
    scene.cluster.renewed_files.add(2)
    scene.require_return()


def change_overtakes_what_is_ordered_above_it(seed: int, patch: Plant | None) -> None:
    """Departure 60: a slot that was ordered above the change is void, also at the server that has it as ordered."""
    scene = _Members(seed, patch)
    cluster = scene.cluster
    leader = scene.present_leader()
    first, second = (i for i in cluster.ids if i != leader)
    slot = cluster.aru(leader) + 1
    holder = scene.rng.choice((first, second))
    # The votes for the slot of the change stay away, so that the slot above it is ordered first, at one server alone.
    late = cluster.network.hold(
        lambda p: (
            (isinstance(p.message, Accept) and (slot in p.message.seqs or p.receiver != holder))
            or isinstance(p.message, ReconciliationReply)
        )
    )
    told = scene.ask(leader, "remove", leader)
    writer = scene.connect(first)
    writer.hello("writer", 100, lambda result: None)
    cluster.run(0.05)
    above = cluster.replica(holder).data.ordering.global_history.get(slot + 1)
    is_marked = above is not None and above.ordered is not None
    require(is_marked, f"server {holder} has slot {slot + 1} not as ordered, while slot {slot} waits")
    late.release()
    cluster.run_until(lambda: bool(told), 10)
    if not isinstance(told[0], Done):
        raise Violation(f"server {leader} cannot be removed: {told}")
    writer.disconnect()
    cluster.run_until(lambda: cluster.has_leader() and cluster.all_equal(), 10)


def promise_brings_a_change_and_what_is_above_it(seed: int, patch: Plant | None) -> None:
    """Departure 60: of a promise that brings a change, the slots above it are void, though they were ordered before."""
    scene = _Members(seed, patch)
    cluster = scene.cluster
    leader = scene.present_leader()
    replica = cluster.replica(leader)
    next_leader = replica.membership.leader_of(replica.data.views.last_installed + 1)
    (other,) = (i for i in cluster.ids if i not in (leader, next_leader))
    below = cluster.aru(leader) + 1
    # The slot below the change gets to the next leader alone, the change and the slot above to the other follower
    # alone, which cannot execute them. A proposal and a vote of its own are a majority there.
    lost = cluster.network.drop(
        lambda p: (
            isinstance(p.message, Ordered | ReconciliationReply)
            or (isinstance(p.message, Accept) and p.receiver == leader)
            or (isinstance(p.message, Proposal) and (p.message.seq == below) != (p.receiver == next_leader))
        )
    )
    writers = [scene.connect(next_leader) for _ in range(2)]
    writers[0].hello("below", 100, lambda result: None)
    cluster.run(0.02)
    scene.ask(other, "remove", leader)  # the server that is asked leads the next epoch first
    cluster.run(0.02)
    writers[1].hello("above", 100, lambda result: None)
    cluster.run(0.05)
    history = cluster.replica(other).data.ordering.global_history
    marked = [
        seq for seq in (below + 1, below + 2) if (slot := history.get(seq)) is not None and slot.ordered is not None
    ]
    is_there = cluster.aru(next_leader) == below and marked == [below + 1, below + 2] and cluster.aru(other) < below
    require(is_there, f"{cluster.picture()}\nserver {other} has slots {marked} as ordered")
    cluster.crash(leader)
    cluster.run_until(lambda: cluster.replica(next_leader).membership.epoch == 1, 10)
    batch = cluster.replica(next_leader).data.ordering.global_history.ensure(below).ordered
    assert batch is not None, "it was executed"
    brought = GloballyOrderedUpdate(next_leader, below, batch)
    cluster.hand_over(next_leader, other, [ReconciliationReply(next_leader, below, below, (brought,))])
    require(cluster.replica(other).membership.epoch == 1, f"server {other} lacks nothing more, and is in epoch 0")
    cluster.network.filters.remove(lost)
    for writer in writers:
        writer.disconnect()
    cluster.run_until(lambda: cluster.has_leader() and cluster.all_equal(), 10)


def two_servers_are_asked_at_once(seed: int, patch: Plant | None) -> None:
    """Departure 60: of two changes that were made for one epoch, the second one changes nothing, and says so."""
    scene = _Members(seed, patch)
    cluster = scene.cluster
    moves = [(server_id, address(10 + server_id)) for server_id in cluster.ids]
    asked = {where: scene.ask(server_id, "move", server_id, where) for server_id, where in moves}
    cluster.run_until(lambda: all(asked.values()), 5)
    done = {where for where, told in asked.items() if isinstance(told[0], Done)}
    require(bool(done), f"servers were asked for changes at the same moment, and none is made: {asked}")
    held = set(cluster.checks.electorate.latest.addresses.values())
    require(done <= held, f"a change to {done} is done, and the next change has undone it: {held}")
    require(held <= done, f"a change to {held} was refused, and is made: {asked}")


def change_is_ordered_while_a_disk_is_full(seed: int, patch: Plant | None) -> None:
    """Departure 60: a server whose disk is full executes no change of the membership before there is room."""
    scene = _Members(seed, patch)
    cluster = scene.cluster
    leader = scene.present_leader()
    full = scene.rng.choice([i for i in cluster.ids if i != leader])
    disk, watch = cluster.disk(full), cluster.replica(full).disk_watch
    # The vote of this server takes a second to be written; its disk is full before it has a majority of votes.
    cluster.servers[full].sync_seconds = (1.0, 1.0)
    late = cluster.network.hold(
        lambda p: p.receiver == full and isinstance(p.message, Accept | Ordered | ReconciliationReply)
    )
    told = scene.ask(leader, "move", full, address(1))
    cluster.run_until(lambda: cluster.replica(full).turn.is_writing, 1)
    disk.reserve_records, disk.free_records = 1_000, 1_000
    cluster.run_until(lambda: bool(watch.begun[DiskTrouble.FULL]), 0.9)
    votes = [p for p in late.passages if isinstance(p.message, Accept)]
    for passage in votes:
        cluster.hand_over(passage.sender, full, [passage.message])
    late.release()
    cluster.run(1.0)
    require(bool(votes) and isinstance(told[0], Done), f"a change is answered {told}")
    require(cluster.replica(full).membership.epoch == 0, f"server {full}, whose disk is full, has begun an epoch")
    disk.free_records = None
    cluster.servers[full].sync_seconds = (0.0005, 0.002)
    cluster.run_until(lambda: cluster.replica(full).membership.epoch == 1 and cluster.all_equal(), 5)


def change_ends_a_hand_over(seed: int, patch: Plant | None) -> None:
    """Departure 60: a change that is executed while a leader hands over is in force at once."""
    scene = _Members(seed, patch)
    cluster = scene.cluster
    leader = scene.present_leader()
    target = scene.rng.choice([i for i in cluster.ids if i != leader])
    replica, ends = cluster.replica(leader), list[str | None]()
    cluster.run_until(lambda: replica.hand_over.why_not(target) is None and replica.turn.idle, 2)
    votes = cluster.network.hold(lambda p: isinstance(p.message, Accept))
    told = scene.ask(leader, "move", target, address(1))
    cluster.run(0.01)
    replica.perform(replica.hand_over.begin, target, HandOverReason.ASKED, ends.append)
    cluster.run_until(lambda: replica.window.is_closed, 0.1)
    votes.release()
    cluster.run_until(lambda: bool(told) and bool(ends), IN_FORCE_SECONDS)
    require(isinstance(told[0], Done), f"a change is refused, though all is well: {told}")


SCHEDULES: Final[Sequence[Schedule]] = (
    storage_is_lost_after_changes,
    server_comes_back_to_others,
    server_comes_back_to_strangers,
    change_overtakes_what_is_ordered_above_it,
    promise_brings_a_change_and_what_is_above_it,
    two_servers_are_asked_at_once,
    change_is_ordered_while_a_disk_is_full,
    change_ends_a_hand_over,
)
