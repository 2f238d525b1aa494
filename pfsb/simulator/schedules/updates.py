"""Schedules around updates: ACCEPTs, proposals and updates that are lost, arrive late or arrive twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve

from pfsb.paxos.divergence import StateDiverged
from pfsb.paxos.messages import Accept, Batch, ClientUpdate, Proposal, ReconciliationReply
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule


def votes_overtake(seed: int, patch: Plant | None) -> None:
    """G14, G17: a follower orders a slot by ACCEPTs that came before the PROPOSAL, and by its own ACCEPT."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    alone = scene.follower()
    behind = cluster.network.hold(lambda p: isinstance(p.message, Proposal) and p.receiver == alone)
    cluster.network.drop(lambda p: isinstance(p.message, ReconciliationReply))
    cluster.submit(leader, "client", 1)
    cluster.run_until(lambda: cluster.aru(leader) == 1)
    cluster.run(0.05)
    behind.release()
    cluster.run_until(lambda: cluster.aru(alone) == 1, 5)


def proposal_is_lost(seed: int, patch: Plant | None) -> None:
    """Section 5.9: a PROPOSAL or ACCEPT that is lost in a view that works is sent again, and costs no election."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    view = scene.view()
    for number, kind in enumerate((Proposal, Accept), 1):
        scene.lose(kind)
        cluster.submit(leader, "client", number)
        cluster.run(0.01)
        cluster.network.filters.clear()
        scene.everyone_executes(number, 10)
    scene.require_view(view)


def update_is_lost(seed: int, patch: Plant | None) -> None:
    """Figure 12 B: an update that is lost on the way to the leader is sent again, and costs no election."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    view = scene.view()
    lost = cluster.network.drop(lambda p: isinstance(p.message, ClientUpdate))
    cluster.submit(scene.follower(), "client", 1)
    cluster.run(0.1)
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 10)
    scene.require_view(view)


def path_to_leader_is_cut(seed: int, patch: Plant | None) -> None:
    """G8.3: an update of a server that cannot reach the leader gets to the leader by way of the other servers."""
    scene = Scenario(seed, patch, servers=5, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, cut_off = scene.leader(), scene.follower()
    view = scene.view()
    cluster.cut(cut_off, leader, one_way=True)
    cluster.submit(cut_off, "client", 1)
    cluster.run_until(lambda: ("client", 1) in cluster.answers, 10)
    scene.require_view(view)


def hole_without_clients(seed: int, patch: Plant | None) -> None:
    """G11: a proposal above an empty slot is ordered by the next leader, even if no client sends another update."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, other = scene.leader(), scene.follower()
    cluster.replica(leader).proposals.skipped.add(1)
    cluster.submit(other, "client", 1)
    cluster.run(0.2)
    cluster.crash(leader)
    cluster.run_until(lambda: cluster.executed(other) != [], 20)


def bound_and_sent_again(seed: int, patch: Plant | None) -> None:
    """G15 (ii): a bound update (one that a slot holds) that its server sends again gets no second slot in the view."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    old_leader = scene.leader()
    origin = scene.follower()
    cluster.network.drop(lambda p: isinstance(p.message, Accept))
    slots: dict[int, set[int]] = {}

    def watch(_sender: int, _to: int | None, messages: object) -> None:
        for message in messages:  # type: ignore[attr-defined]
            if isinstance(message, Proposal) and message.batch.open()[1]:
                slots.setdefault(message.view, set()).add(message.seq)

    cluster.network.observers.append(watch)
    cluster.submit(origin, "client", 1)
    cluster.run(0.1)
    cluster.crash(old_leader)
    cluster.run(6)
    views = {view: seqs for view, seqs in slots.items() if len(seqs) > 1}
    if views:
        raise Violation(f"one update is proposed at several numbers: {views} (view: numbers)")
    assert len(slots) > 1, "there was a second view"


def update_without_leader(seed: int, patch: Plant | None) -> None:
    """Departure 17: while the leader does not answer, an update is not relayed in circles among the other servers."""
    settings = Settings(progress_seconds=20.0, update_seconds=0.1)
    scene = Scenario(seed, patch, servers=5, clients=0, settings=settings)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader, 60)
    origin = scene.follower()
    cluster.pause(scene.leader())
    seen = 0

    def watch(_sender: int, _to: int | None, messages: object) -> None:
        nonlocal seen
        seen += sum(isinstance(message, ClientUpdate) for message in messages)  # type: ignore[attr-defined]
        if seen > 200:
            raise Violation("one update of one client was sent more than 200 times in two seconds")

    cluster.network.observers.append(watch)
    cluster.submit(origin, "client", 1)
    cluster.run(2)


def late_duplicate(seed: int, patch: Plant | None) -> None:
    """Departure 7: a late copy of an update does not run again, even if its Last_Executed entry is dropped."""
    settings = Settings(horizon_slots=10)
    scene = Scenario(seed, patch, clients=0, settings=settings)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, other = scene.leader(), scene.follower()
    copies: list[Passage] = []

    def copy(passage: Passage) -> bool:
        if isinstance(passage.message, ClientUpdate) and passage.message.client_id == "late":
            copies.append(passage)
        return False

    cluster.network.drop(copy)
    cluster.submit(other, "late", 1)
    for number in range(1, 30):
        cluster.submit(leader, "busy", number)
        cluster.run_until(lambda number=number: ("busy", number) in cluster.answers, 10)  # type: ignore[misc]
    cluster.network.filters.remove(copy)
    cluster.network.inject(copies[0])
    cluster.run(2)


def bit_flips_in_a_proposal(seed: int, patch: Plant | None) -> None:
    """Departure 39: a server that got a wrong PROPOSAL does not order it, and learns the right batch from others."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, other = scene.leader(), scene.follower()

    def flip(passage: Passage) -> bool:
        message = passage.message
        if passage.receiver != other or not isinstance(message, Proposal) or message.batch in flipped:
            return False
        time_ms, updates = Batch(message.batch.data).open()
        flipped.append(Batch.of(time_ms ^ 1, updates))
        cluster.network.inject(Passage(leader, other, evolve(message, batch=flipped[-1])))
        return True

    flipped: list[Batch] = []
    cluster.network.drop(flip)
    for number in range(1, 4):
        cluster.submit(leader, "client", number)
        scene.everyone_executes(number, 5)
    if not cluster.replica(other).ordering.contradictions:
        raise Violation("no vote for another batch than is held was noticed")


def bit_flips_and_leader_is_gone(seed: int, patch: Plant | None) -> None:
    """Departure 39: the next leader holds another batch than the one that was ordered, which it learns from a promise.

    The next leader got a wrong PROPOSAL. It must not lead before the third server has told it, in a promise, which of
    the two batches was ordered.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader = scene.leader()
    membership, view = cluster.replica(leader).membership, scene.view()
    heir = membership.leader_of(view + 1)
    seq = cluster.aru(leader) + 1

    def alter(passage: Passage) -> bool:
        message = passage.message
        if passage.sender != leader:
            return False
        if passage.receiver == heir and isinstance(message, Proposal) and message.seq == seq:
            time_ms, updates = message.batch.open()
            cluster.network.inject(evolve(passage, message=evolve(message, batch=Batch.of(time_ms + 1, updates))))
            return True
        return not isinstance(message, Proposal)

    altered = cluster.network.drop(alter)
    cluster.checks.messages.altered.add((view, seq))
    cluster.submit(leader, "client", 1)
    cluster.run_until(lambda: cluster.aru(leader) == seq, 5)
    cluster.isolate(leader)
    cluster.network.filters.remove(altered)
    cluster.submit(heir, "other", 1)
    cluster.run(10)
    cluster.heal()
    scene.everyone_executes(seq + 1, 60)


def asked_server_has_nothing(seed: int, patch: Plant | None) -> None:
    """Departure 37: a peer that had nothing to give to a server that started is asked again as soon as it is ahead.

    The server may send its request at the start too early for an answer. So the schedule lets it send the request once
    more, to the peer that has nothing yet.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, asking = scene.leader(), scene.follower()
    (asked,) = (i for i in cluster.ids if i not in (leader, asking))
    cluster.submit(leader, "client", 1)
    scene.everyone_executes(1, 5)
    replica = cluster.replica(asking)
    replica.perform(replica.reconciliation.ask_at_start)
    cluster.run(0.1)
    cluster.cut(leader, asking)
    cluster.submit(leader, "client", 2)
    cluster.run_until(lambda: cluster.aru(asked) == 2)
    cluster.run_until(lambda: cluster.aru(asking) == 2, cluster.settings.progress_seconds / 2)


def server_slips(seed: int, patch: Plant | None) -> None:
    """Departure 40: servers that differ refuse changes until a third one decides, and the wrong one stops."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.expected_failures = (StateDiverged,)
    cluster.run_until(cluster.has_leader)
    leader, slips = scene.leader(), scene.follower()
    away = next(i for i in cluster.ids if i not in (leader, slips))
    cluster.submit(leader, "client", 1)
    scene.everyone_executes(1, 5)
    cluster.crash(away)
    cluster.slip(slips)
    cluster.run_until(lambda: all(cluster.replica(i).divergence.is_undecided for i in (leader, slips)), 5)
    cluster.restart(away)
    cluster.run_until(lambda: not cluster.is_running(slips), 5)
    cluster.restart(slips)
    cluster.submit(leader, "client", 2)
    scene.everyone_executes(2, 5)
    cluster.run_until(lambda: not any(cluster.replica(i).divergence.is_undecided for i in cluster.ids), 5)


SCHEDULES: Final[Sequence[Schedule]] = (
    votes_overtake,
    proposal_is_lost,
    update_is_lost,
    path_to_leader_is_cut,
    hole_without_clients,
    bound_and_sent_again,
    update_without_leader,
    late_duplicate,
    bit_flips_in_a_proposal,
    bit_flips_and_leader_is_gone,
    asked_server_has_nothing,
    server_slips,
)
