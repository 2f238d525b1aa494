"""Schedules around disks: records of an earlier view or incarnation, and disks that were lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from attrs import evolve

from pfsb.paxos.log_positions import DOUBT_PERIODS, StorageWentBack
from pfsb.paxos.messages import (
    DIGEST_BYTES,
    VOTES,
    Accept,
    Acquainted,
    Alive,
    KnownPosition,
    Message,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    State,
    ViewChange,
)
from pfsb.paxos.settings import Settings
from pfsb.paxos.start_number import incarnation_of, start_number
from pfsb.paxos.storage_identity import StorageWasReplaced
from pfsb.simulator.checkers.position_checker import position_of
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.clock import SimulatedClock
from pfsb.simulator.cluster.cluster import QUICK_SECONDS_MAX, SimulatedCluster
from pfsb.simulator.cluster.names import SimulatedNames
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule


def disk_is_lost(seed: int, patch: Plant | None) -> None:
    """G20: a server that comes back with an empty disk is refused by the other servers, and stops."""
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWasReplaced,)
    cluster.run(1)
    victim = scene.follower()
    cluster.crash(victim)
    cluster.lose_disk(victim)
    cluster.restart(victim)
    cluster.run(3)
    if victim not in cluster.failures:
        raise Violation(f"server {victim} has lost its disk, and takes part all the same")


def disk_is_lost_unheard(seed: int, patch: Plant | None) -> None:
    """Departure 12: a server that has lost its disk does not vote, even if it hears no server but a stale leader.

    Servers 1 and 2 have left view 1, and ordered a slot in view 2. Then server 2 loses its disk. Server 0 still leads
    view 1 and proposes another batch for that slot: its ACCEPT and one of server 2 would be a majority. Server 2 hears
    server 0, but no server hears server 2, so none can refuse it.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWasReplaced,)
    cluster.run_until(lambda: cluster.leader() == 0 and cluster.has_leader())
    cluster.cut(0, 1, one_way=True)
    cluster.cut(0, 2, one_way=True)
    cluster.run_until(lambda: scene.state(1) is State.LEADER_ELECTION and scene.state(2) is State.LEADER_ELECTION)
    cluster.isolate(0)
    cluster.run_until(lambda: scene.state(1) is State.REG_LEADER)
    cluster.submit(1, "a", 1)
    cluster.run_until(lambda: ("a", 1) in cluster.answers)
    cluster.isolate(1)
    cluster.crash(2)
    cluster.lose_disk(2)
    cluster.restart(2)
    cluster.network.mend(0, 2)
    cluster.submit(0, "b", 1)
    cluster.run(1)
    assert scene.state(0) is State.REG_LEADER, "it has heard a majority a while ago"
    cluster.heal()
    cluster.run_until(lambda: 2 in cluster.failures)


def old_copy_is_put_back(seed: int, patch: Plant | None) -> None:
    """Departure 43: a server that comes back with an older copy of its disk is refused by the other servers, and stops.

    The others have been started anew meanwhile, one after the other. So they know only from their own disks how long
    the log of that server was.
    """
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    victim = scene.follower()
    copy = cluster.disk(victim).copy()
    cluster.run(2)
    cluster.crash(victim)
    for other in [i for i in cluster.ids if i != victim]:
        cluster.crash(other)
        cluster.restart(other)
        cluster.run(1)
    cluster.lose_disk(victim, copy)
    cluster.restart(victim)
    cluster.run(3)
    if victim not in cluster.failures:
        raise Violation(f"server {victim} was given an older copy of its disk, and takes part all the same")
    scene.finish_clients()


def old_copy_votes(seed: int, patch: Plant | None) -> None:
    """Departure 43: a server with an older copy of its disk must not vote before the others have answered.

    Servers 1 and 2 have ordered a slot without server 0. Then server 2 is started with a copy of its disk that was made
    before. Servers 0 and 2 are a majority, and would vote for another batch in that slot. Server 1 knows that server 2
    has an older copy, but its messages, which say so, are slow.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    copy = cluster.disk(2).copy()
    cluster.isolate(0)
    cluster.run_until(lambda: cluster.leader() in (1, 2) and cluster.has_leader(), 60)
    leader = scene.leader()
    for number in range(1, 5):
        cluster.submit(leader, "a", number)
        cluster.run_until(lambda number=number: ("a", number) in cluster.answers)  # type: ignore[misc]
    cluster.run(1)
    cluster.crash(2)
    cluster.run(1)
    votes: list[Message] = []
    cluster.network.observers.append(
        lambda sender, _, messages: votes.extend(m for m in messages if sender == 2 and type(m) in VOTES)
    )
    scene.late(KnownPosition, 0.5 * cluster.settings.alive_seconds)
    cluster.network.drop(lambda passage: passage.sender == 1 and not isinstance(passage.message, KnownPosition))
    cluster.heal()
    cluster.lose_disk(2, copy)
    cluster.restart(2)
    cluster.run_until(lambda: 2 in cluster.failures, 5)
    if votes:
        raise Violation(f"server 2 votes with an older copy of its disk: {votes[0]}")


def last_group_is_lost(seed: int, patch: Plant | None) -> None:
    """Departure 43: a server that comes back without the last group of its log is refused, and stops."""
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    victim = scene.follower()
    copies = [cluster.disk(victim).copy()]
    until = cluster.now + 1
    while cluster.now < until:
        cluster.step()
        if cluster.disk(victim).position > copies[-1].position:
            copies.append(cluster.disk(victim).copy())
    scene.finish_clients()
    cluster.run(3 * cluster.settings.alive_seconds)
    last = cluster.disk(victim).position
    cluster.crash(victim)
    cluster.lose_disk(victim, max((copy for copy in copies if copy.position < last), key=lambda copy: copy.position))
    cluster.restart(victim)
    cluster.run(3)
    if victim not in cluster.failures:
        raise Violation(f"server {victim} has lost the last group of its log, and takes part all the same")


def frames_of_a_former_start(seed: int, patch: Plant | None) -> None:
    """Departure 43: a frame of a peer's former incarnation is refused if it comes after one of the present incarnation.

    Late frames of a follower that has crashed are delivered while the follower starts again.
    """
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    victim = scene.follower()
    receiver = scene.leader()
    frames: list[bytes] = []
    cluster.network.frame_observers.append(lambda sender, frame: frames.append(frame) if sender == victim else None)
    cluster.run(0.5)
    late = frames[-20:]
    cluster.crash(victim)
    handled: list[int] = []
    peers = cluster.replica(receiver).peers
    note = peers.note_frame

    def noted(server_id: int, start: int, position: int) -> bool:
        is_handled = note(server_id, start, position)
        if is_handled and server_id == victim:
            handled.append(start)
        return is_handled

    peers.note_frame = noted  # type: ignore[method-assign]
    cluster.restart(victim)
    for frame in late:
        cluster.run(0.05)
        cluster.network.hand_over(receiver, frame)
    if handled != sorted(handled):
        raise Violation(f"server {receiver} handles frames of the starts {handled} of server {victim}, in this order")
    scene.finish_clients()


def start_is_written_down(seed: int, patch: Plant | None) -> None:
    """Departure 43: before a server helps to admit a new incarnation of a peer, it has that incarnation on disk.

    Server 2 starts again, and becomes admitted with the help of server 0. Server 0 crashes at that moment: its disk
    must have the new incarnation of server 2.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    cluster.crash(2)
    cluster.crash(1)
    cluster.restart(2)
    cluster.run_until(lambda: not cluster.replica(2).storage_identity.is_newcomer, 5)
    cluster.crash(0)
    if cluster.disk(0).contents.peers[2].incarnation < cluster.disk(2).start_number:
        raise Violation("server 0 has admitted a start of server 2, and its disk does not tell")


def start_number_is_repeated(seed: int, patch: Plant | None) -> None:
    """Departure 43: a server is not admitted with an older copy of its disk, even if its incarnation repeats a number.

    The disk of a server is copied, and the server is started. Later it crashes, and is started with the copy. Its
    incarnation then has the same number as the one before, so its first frames could be taken for late ones of that
    incarnation.
    """
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    victim = scene.follower()
    cluster.crash(victim)
    copy = cluster.disk(victim).copy()
    cluster.restart(victim)
    cluster.run(2)
    cluster.crash(victim)
    cluster.lose_disk(victim, copy)
    cluster.restart(victim)
    until = cluster.now + 3
    while victim not in cluster.failures and cluster.now < until:
        cluster.step()
        if cluster.is_running(victim) and not cluster.replica(victim).storage_identity.is_newcomer:
            raise Violation(f"server {victim} is admitted with an older copy of its disk")
    if victim not in cluster.failures:
        raise Violation(f"server {victim} does not notice that it has an older copy of its disk")
    scene.finish_clients()


def old_copy_is_started_again_and_again(seed: int, patch: Plant | None) -> None:
    """Departure 43: however often a server is started with an older copy of its disk, the others refuse it.

    Each start writes something, and a supervisor starts a server again whenever it stops.
    """
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    victim = scene.follower()
    copy = cluster.disk(victim).copy()
    cluster.run(0.3)
    scene.finish_clients()
    cluster.run(1)
    cluster.crash(victim)
    cluster.lose_disk(victim, copy)
    for number in range(60):
        cluster.restart(victim)
        until = cluster.now + (1 if number % 4 else 0.05)
        while cluster.is_running(victim) and cluster.now < until:
            cluster.step()
            if cluster.is_running(victim) and not cluster.replica(victim).storage_identity.is_newcomer:
                raise Violation(f"server {victim} is admitted with an older copy of its disk, at start {number}")
        if cluster.is_running(victim):
            cluster.crash(victim)


def words_arrive_late(seed: int, patch: Plant | None) -> None:
    """Departure 43: messages that would admit a server do not, if they were sent before its storage went back.

    Copies of the messages (ACQUAINTED and KNOWN_POSITION) by which the others have admitted one start of the server
    arrive once more, after it was started with a copy of its disk from that time. New messages of these kinds are lost
    for a while.
    """
    _late_words_do_not_admit(Scenario(seed, patch), copied_before_start=False)


def late_words_name_the_same_incarnation(seed: int, patch: Plant | None) -> None:
    """Departure 53: messages about another start with the same incarnation do not admit an older copy of a disk.

    The disk of a server is copied, and the server is started and admitted. Later it is started with the copy, and so
    with the same incarnation again. Then the messages ACQUAINTED and KNOWN_POSITION by which it was admitted arrive
    once more.
    """
    _late_words_do_not_admit(Scenario(seed, patch), copied_before_start=True)


def _late_words_do_not_admit(scene: Scenario, *, copied_before_start: bool) -> None:
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    victim = scene.follower()
    words: list[Passage] = []

    def note(sender: int, receiver: int | None, messages: Sequence[Message]) -> None:
        if receiver == victim:
            words.extend(Passage(sender, victim, m) for m in messages if isinstance(m, Acquainted | KnownPosition))

    cluster.network.observers.append(note)
    cluster.crash(victim)
    before = cluster.disk(victim).copy()
    cluster.restart(victim)
    cluster.run(1)
    copy, late = before if copied_before_start else cluster.disk(victim).copy(), list(words)
    if {passage.sender for passage in late} != set(cluster.ids) - {victim}:
        raise Violation(f"server {victim} comes back, and the others do not tell that they know its storage")
    cluster.run(0.5)
    cluster.crash(victim)
    lost = cluster.network.drop(lambda p: p.receiver == victim and isinstance(p.message, Acquainted | KnownPosition))
    cluster.lose_disk(victim, copy)
    cluster.restart(victim)
    for passage in late:
        cluster.network.inject(passage)
    cluster.run(3 * cluster.settings.alive_seconds)
    if cluster.is_running(victim) and not cluster.replica(victim).storage_identity.is_newcomer:
        raise Violation(f"server {victim} is admitted with an older copy of its disk, by words about a start before")
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: victim in cluster.failures, 5)
    scene.finish_clients()


def late_word_follows_a_refusal(seed: int, patch: Plant | None) -> None:
    """Departure 53: a KNOWN_POSITION about another start with the same incarnation takes no doubt back.

    A server has ordered slots with a second one while the third one was down. Then it is started with a copy of its
    disk from before its last start, and the third one runs, too. The second server says once that it knows a later
    state, and is cut off. Then a copy of the KNOWN_POSITION arrives that it has sent about the former start.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    victim, knows, away = scene.rng.sample(cluster.ids, 3)
    cluster.crash(away)
    cluster.crash(victim)
    copy = cluster.disk(victim).copy()
    heard: list[tuple[int, Message]] = []
    cluster.network.observers.append(
        lambda sender, to, messages: heard.extend((sender, m) for m in messages if to == victim)
    )
    cluster.restart(victim)
    cluster.run_until(cluster.has_leader, 20)
    words = [m for sender, m in heard if sender == knows and isinstance(m, Acquainted | KnownPosition)]
    for number in range(1, 4):
        cluster.submit(scene.leader(), "a", number)
        cluster.run_until(lambda number=number: ("a", number) in cluster.answers)  # type: ignore[misc]
    cluster.run(1)
    cluster.crash(victim)
    cluster.lose_disk(victim, copy)
    cluster.restart(victim)
    cluster.run_until(lambda: cluster.replica(victim).log_positions.is_doubted, 5)
    cluster.network.drop(lambda p: knows in (p.sender, p.receiver))
    cluster.restart(away)
    for word in words:
        cluster.network.inject(Passage(knows, victim, word))
    cluster.run(5 * cluster.settings.alive_seconds)
    if cluster.is_running(victim) and not cluster.replica(victim).storage_identity.is_newcomer:
        raise Violation(f"server {victim} is admitted with an older copy of its disk, by a word about another start")


def copy_repeats_the_last_start(seed: int, patch: Plant | None) -> None:
    """Departure 53: an older copy of a disk is refused even if the others know only that the server's last start began.

    All servers crash soon after one of them was started and admitted. So the others have that start on disk, but not
    the log positions that it has come to. Then the server is started with a copy of its disk from before that start.
    """
    _copy_repeats_the_last_start(Scenario(seed, patch, clients=0), marks_are_known=True)


def copy_repeats_a_start_without_a_mark(seed: int, patch: Plant | None) -> None:
    """Departure 53: an older copy of a disk is refused even if the others know the last start without its mark.

    All servers crash soon after one of them was started and admitted. The disks of the others tell only the incarnation
    of that start, as those of versions before start numbers do. Then the server is started with a copy of its disk from
    before that start.
    """
    _copy_repeats_the_last_start(Scenario(seed, patch, clients=0), marks_are_known=False)


def _copy_repeats_the_last_start(scene: Scenario, *, marks_are_known: bool) -> None:
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    victim = scene.follower()
    cluster.crash(victim)
    copy = cluster.disk(victim).copy()
    cluster.restart(victim)
    cluster.run_until(lambda: not cluster.replica(victim).storage_identity.is_newcomer, 5)
    for server_id in cluster.ids:
        cluster.crash(server_id)
        peers = cluster.disk(server_id).contents.peers
        if server_id != victim and not marks_are_known:
            peers[victim] = evolve(peers[victim], incarnation=incarnation_of(peers[victim].incarnation))
    cluster.lose_disk(victim, copy)
    for server_id in cluster.ids:
        cluster.restart(server_id)
    cluster.run_until(lambda: victim in cluster.failures, 5)


def _keyed(seed: int) -> Callable[[SimulatedClock, Sequence[int]], SimulatedNames]:
    """Make the parameter `names` of a `Scenario` whose servers have a secret."""
    return lambda clock, ids: SimulatedNames(clock, random.Random(f"{seed}/names"), ids, b"a secret")


def keyed_copy_is_told(seed: int, patch: Plant | None) -> None:
    """Departure 53: with a cluster secret, too, a server learns from the others that it has an older copy of its disk.

    All frames of the copy tell an earlier start than the others have heard.
    """
    scene = Scenario(seed, patch, names=_keyed(seed))
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    victim = scene.follower()
    copy = cluster.disk(victim).copy()
    for _ in range(2):
        cluster.crash(victim)
        cluster.restart(victim)
        cluster.run(1)
    cluster.crash(victim)
    cluster.lose_disk(victim, copy)
    cluster.restart(victim)
    cluster.run_until(lambda: victim in cluster.failures, 5)
    scene.finish_clients()


def right_storage_is_back(seed: int, patch: Plant | None) -> None:
    """Departure 53: with a cluster secret, too, the right storage is admitted after a copy of it was started.

    Each start of the copy had a higher number than the next one of the right storage has. Then frames of the copy come
    once more.
    """
    scene = Scenario(seed, patch, names=_keyed(seed))
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    victim = scene.follower()
    copy = cluster.disk(victim).copy()
    cluster.run(1)
    cluster.crash(victim)
    cluster.lose_disk(victim, copy)
    frames: list[bytes] = []
    cluster.network.frame_observers.append(lambda sender, frame: frames.append(frame) if sender == victim else None)
    for _ in range(3):
        cluster.failures.pop(victim, None)
        cluster.restart(victim)
        cluster.run_until(lambda: victim in cluster.failures, 5)
        cluster.run(0.01)
    late = frames[-20:]
    cluster.bring_back(victim)
    for frame in late:
        for server_id in cluster.running_ids:
            if server_id != victim:
                cluster.network.hand_over(server_id, frame)
        cluster.run(0.02)
    cluster.run_until(lambda: not cluster.replica(victim).storage_identity.is_newcomer, 5)
    scene.everyone_is_served(10)


def copy_is_started_after_loss_of_power(seed: int, patch: Plant | None) -> None:
    """Departure 54: a server that has counted a vote, and was started anew, refuses each start of an older copy.

    A server votes, one other server counts the vote, and both lose power. Then the first one comes back with a copy of
    its disk from before the start in which it has voted. The first start of the copy has the same incarnation as that
    start, the next one a higher one.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    victim, knows, away = scene.rng.sample(cluster.ids, 3)
    cluster.crash(away)
    cluster.crash(victim)
    copy = cluster.disk(victim).copy()
    cluster.crash(knows)
    cluster.restart(knows)
    cluster.restart(victim)
    cluster.run_until(cluster.has_leader, 20)
    cluster.submit(scene.leader(), "a", 1)
    cluster.run_until(lambda: ("a", 1) in cluster.answers)
    cluster.crash(victim)
    cluster.crash(knows)
    cluster.lose_disk(victim, copy)
    cluster.restart(knows)
    for number in range(1, 4):
        cluster.restart(victim)
        until = cluster.now + 3
        while cluster.is_running(victim) and cluster.now < until:
            cluster.step()
            if cluster.is_running(victim) and not cluster.replica(victim).storage_identity.is_newcomer:
                raise Violation(f"server {victim} is admitted with an older copy of its disk, at its start {number}")
        if cluster.is_running(victim):
            raise Violation(f"server {victim} does not notice that it has an older copy of its disk")


def promise_is_noted_first(seed: int, patch: Plant | None) -> None:
    """Departure 54: before a PROPOSAL leaves that rests on a server's promise, that server's log position is on disk.

    It is on the disk of the new leader. The promise is the first vote of the server's present start that the new leader
    counts.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    former, view = scene.leader(), scene.view()
    leader = cluster.replica(former).membership.leader_of(view + 1)
    (victim,) = set(cluster.ids) - {former, leader}
    cluster.crash(victim)
    cluster.restart(victim)
    cluster.run_until(lambda: scene.state(victim) is State.REG_NONLEADER, 5)

    def in_vain(passage: Passage) -> bool:
        kind = {victim: ViewChange, former: PrepareOK}.get(passage.sender)
        return kind is not None and passage.receiver == leader and isinstance(passage.message, kind)

    cluster.network.drop(in_vain)
    promised: list[int] = []
    led: list[int] = []

    def sent(sender: int, _to: int | None, messages: Sequence[Message]) -> None:
        disk = cluster.disk(victim)
        if sender == victim and any(isinstance(m, PrepareOK) for m in messages):
            promised.append(position_of(disk, victim))
        elif sender == leader and promised and any(isinstance(m, Proposal) for m in messages):
            known = cluster.disk(leader).contents.peers[victim]
            led.append(leader)
            if (known.incarnation, known.position) < (disk.start_number, promised[0]):
                raise Violation(
                    f"server {leader} proposes, and its disk does not tell how far server {victim} has come"
                )

    cluster.network.observers.append(sent)
    cluster.submit(leader, "a", 1)
    cluster.crash(former)
    cluster.restart(former)
    cluster.run_until(lambda: bool(led), 20)


def dropped_votes_tell_nothing(seed: int, patch: Plant | None) -> None:
    """Departure 54: one forged frame with a vote that is dropped, or that tells a position far away, stops no server.

    The frame names a sender that has not lost anything, and comes to all other servers. Then these start again, and so
    does the named one.
    """
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    cluster.run(0.5)
    victim = scene.follower()
    disk = cluster.disk(victim)
    others = [i for i in cluster.ids if i != victim]
    for is_dropped in (True, False):
        for server_id in others:
            replica = cluster.replica(server_id)
            slot, position = (1, disk.position + 500) if is_dropped else (cluster.aru(server_id) + 8, 2**62)
            forged = Accept(victim, replica.data.views.last_installed, (slot,), bytes(DIGEST_BYTES))
            replica.receive(victim, disk.identity, [forged], disk.start_number, position)
        cluster.run(1)
        for server_id in (*others, victim):
            cluster.crash(server_id)
            cluster.restart(server_id)
            cluster.run(3)
            if victim in cluster.failures:
                raise Violation(f"server {victim} stops, since one forged frame told a log position of it")
    scene.everyone_is_served(10)


def last_vote_is_lost(seed: int, patch: Plant | None) -> None:
    """Departure 54: a server that comes back without its last vote is refused, even if only one frame has told it.

    Another server has counted the vote in the same moment, so it still knows that log position when the server is back.
    The vote of the third server is lost: a vote that comes when the slot is ordered already counts no more.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWentBack,)
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    leader, victim = scene.leader(), scene.follower()
    copy = cluster.disk(victim).copy()
    told: list[Message] = []

    def note(sender: int, _to: int | None, messages: Sequence[Message]) -> None:
        told.extend(m for m in messages if sender == victim and isinstance(m, Accept))

    cluster.network.observers.append(note)
    cluster.network.drop(lambda p: isinstance(p.message, Accept) and p.sender not in (leader, victim))
    cluster.submit(leader, "a", 1)
    cluster.run_until(lambda: bool(told))
    cluster.network.drop(lambda p: p.sender == victim and not isinstance(p.message, Accept))
    cluster.run_until(lambda: ("a", 1) in cluster.answers)
    if cluster.disk(victim).position != copy.position + 1:
        raise Violation(f"server {victim} wrote another group than that with its vote")
    cluster.crash(victim)
    cluster.network.filters.clear()
    cluster.lose_disk(victim, copy)
    cluster.restart(victim)
    until = cluster.now + 3
    while victim not in cluster.failures and cluster.now < until:
        cluster.step()
        if cluster.is_running(victim) and not cluster.replica(victim).storage_identity.is_newcomer:
            raise Violation(f"server {victim} is admitted, and has lost a vote that server {leader} has counted")
    if victim not in cluster.failures:
        raise Violation(f"server {victim} has lost a vote, and does not notice it")


def _accuse(cluster: SimulatedCluster, accuser: int, accused: int) -> None:
    """Deliver one KNOWN_POSITION to server `accused`, in the name of server `accuser`. It says that `accuser` knows a
    later state of the storage of `accused`."""
    disk = cluster.disk(accused)
    word = KnownPosition(accuser, disk.identity, start_number(disk.incarnation + 1, 0), disk.position)
    own = cluster.disk(accuser)
    cluster.replica(accused).receive(accuser, own.identity, [word], own.start_number, own.position)


def one_word_is_wrong(seed: int, patch: Plant | None) -> None:
    """Departure 43: a single KNOWN_POSITION with a later state of its receiver's storage stops no server.

    Such a message may be forged.
    """
    scene = Scenario(seed, patch)
    scene.begin()
    cluster = scene.cluster
    accuser, accused = scene.rng.sample(cluster.ids, 2)
    _accuse(cluster, accuser, accused)
    cluster.run(1)
    if not cluster.is_running(accused):
        raise Violation(f"server {accused} stops, since one frame says that its storage went back")
    scene.everyone_is_served(10)


def doubter_is_gone(seed: int, patch: Plant | None) -> None:
    """Departure 43: a doubt that its server cannot take back, as it is down, keeps no majority from going on.

    One server gets a KNOWN_POSITION, in the name of a second one that has crashed, by which its storage was in a later
    state before. It does not take part at once, but does so after a while, so that the two servers that run have a
    leader.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    accuser, accused = scene.rng.sample(cluster.ids, 2)
    cluster.crash(accuser)
    cluster.crash(accused)
    cluster.restart(accused)
    _accuse(cluster, accuser, accused)
    cluster.run(0.5)
    if not cluster.replica(accused).storage_identity.is_newcomer:
        raise Violation(f"server {accused} is told that its storage went back, and takes part at once")
    cluster.run_until(cluster.has_leader, 2 * DOUBT_PERIODS * cluster.settings.alive_seconds)


def stranger_vouches(seed: int, patch: Plant | None) -> None:
    """Departure 43: a server that comes back is not admitted by new servers, which cannot know what it has lost.

    Of five servers, servers 0 to 3 run, and crash. Then servers 0 and 1 come back, and server 4 starts for the first
    time. Server 0 must not be admitted: besides server 1 it needs server 2 or 3, which have met it; server 4 has not.
    """
    scene = Scenario(seed, patch, servers=5, clients=0, start=False)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWasReplaced, StorageWentBack)
    for server_id in (0, 1, 2, 3):
        cluster.restart(server_id)
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    for server_id in (0, 1, 2, 3):
        cluster.crash(server_id)
    for server_id in (0, 1, 4):
        cluster.restart(server_id)
    cluster.run(3)
    if not cluster.replica(0).storage_identity.is_newcomer:
        raise Violation("server 0 came back, and was admitted by server 4, which it had never met")
    cluster.restart(2)
    cluster.run_until(cluster.has_leader)


def newcomer_joined_meanwhile(seed: int, patch: Plant | None) -> None:
    """Departure 43: a server that comes back counts one that was admitted while it was down.

    Of four servers, servers 0 to 2 run. While server 0 is down, server 3 starts for the first time, and is admitted.
    Then server 1 stops, and server 0 comes back: it is one of three that run, but had never met server 3.
    """
    scene = Scenario(seed, patch, servers=4, clients=0, start=False)
    cluster = scene.cluster
    for server_id in (0, 1, 2):
        cluster.restart(server_id)
    cluster.run_until(cluster.has_leader)
    cluster.run(1)
    cluster.crash(0)
    cluster.restart(3)
    cluster.run_until(lambda: not cluster.replica(3).storage_identity.is_newcomer)
    cluster.run(1)
    cluster.crash(1)
    cluster.restart(0)
    cluster.run_until(cluster.has_leader, 20)


def stranger_comes_first(seed: int, patch: Plant | None) -> None:
    """Departure 12: a frame in the name of a server that was not heard yet does not keep that server out."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    receiver, late = scene.rng.sample(cluster.ids, 2)
    cluster.isolate(late)
    cluster.run(0.1)
    forged = Alive(late, 0, State.LEADER_ELECTION, 0, True)
    cluster.replica(receiver).receive(late, b"stranger", [forged], 1, 1)
    cluster.heal()
    cluster.run_until(cluster.has_leader, 10)


def storage_is_replaced_unmet(seed: int, patch: Plant | None) -> None:
    """Departure 42: a new storage is admitted by a majority of the others, not by a majority with itself.

    Server 0 hears no other server at first. Servers 1 and 2 alone would be a majority. But if they ordered a slot, and
    server 2 lost its disk then, server 0 would admit the new storage of server 2, as it never met the old one. While
    server 1 is away, servers 0 and 2 would order another batch in the same slot.
    """
    scene = Scenario(seed, patch, clients=0, start=False)
    cluster = scene.cluster
    cluster.expected_failures = (StorageWasReplaced,)
    cluster.isolate(0)
    for server_id in cluster.ids:
        cluster.restart(server_id)
    cluster.run(10)
    if cluster.leader() is not None:
        _replace_unmet(scene)
    cluster.heal()
    cluster.run_until(cluster.has_leader)


def _replace_unmet(scene: Scenario) -> None:
    cluster = scene.cluster
    cluster.submit(scene.leader(), "a", 1)
    cluster.run_until(lambda: ("a", 1) in cluster.answers)
    cluster.crash(2)
    cluster.lose_disk(2)
    cluster.heal()
    cluster.isolate(1)
    cluster.restart(2)
    cluster.run_until(lambda: State.REG_LEADER in (scene.state(0), scene.state(2)), 60)
    cluster.submit(0, "b", 1)
    cluster.run_until(lambda: ("b", 1) in cluster.answers)


def torn_while_learning(seed: int, patch: Plant | None) -> None:
    """Figure 14: after a crash, a slot that is on disk without the Local_Aru that covers it is still executed."""
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, away = scene.leader(), scene.follower()
    # A quicker disk may finish its writes at once, and then no crash comes in the middle of one.
    cluster.servers[away].sync_seconds = (2 * QUICK_SECONDS_MAX, 2 * QUICK_SECONDS_MAX)
    cluster.isolate(away)
    for number in range(1, 4):
        cluster.submit(leader, "client", number)
        cluster.run_until(lambda number=number: ("client", number) in cluster.answers)  # type: ignore[misc]
    cluster.heal()
    cluster.run_until(lambda: cluster.aru(away) > 0 and cluster.storage(away).pending_groups() != [])
    cluster.crash(away, 0, 1)
    cluster.restart(away)
    cluster.run_until(cluster.all_equal)


def two_old_proposals(seed: int, patch: Plant | None) -> None:
    """Figure 5 D: a new leader that learns of two proposals for one slot must keep the one of the later view.

    Server 0 holds the older proposal, and server 2 the later one, which server 1 had ordered before it crashed.
    """
    scene = Scenario(seed, patch, clients=0)
    cluster = scene.cluster
    cluster.run_until(lambda: cluster.leader() == 0 and cluster.has_leader())
    lost = cluster.network.drop(lambda p: isinstance(p.message, Proposal))
    cluster.submit(0, "a", 1)
    cluster.run(0.02)
    cluster.crash(0)
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: cluster.leader() == 1 and cluster.has_leader())
    lost = cluster.network.drop(lambda p: p.receiver == 2 and isinstance(p.message, Accept | ReconciliationReply))
    cluster.submit(1, "b", 1)
    cluster.run_until(lambda: ("b", 1) in cluster.answers)
    cluster.crash(1)
    cluster.network.filters.remove(lost)
    cluster.restart(0)
    cluster.run_until(lambda: cluster.aru(0) > 0 and cluster.aru(2) > 0)
    cluster.restart(1)
    cluster.run_until(cluster.all_equal)


def bound_twice(seed: int, patch: Plant | None) -> None:
    """G15: an update that two leaders have bound to two slots, and that is then ordered in both, runs only once."""
    scene = Scenario(seed, patch, clients=0, settings=Settings(batch_bytes_max=1))
    cluster = scene.cluster
    cluster.run_until(lambda: cluster.leader() == 0 and cluster.has_leader())
    lost = cluster.network.drop(lambda p: isinstance(p.message, Proposal))
    cluster.submit(0, "u", 1, b"u")
    cluster.run(0.02)
    cluster.crash(0)
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: cluster.leader() == 1 and cluster.has_leader())
    cluster.restart(0)
    cluster.run_until(lambda: scene.state(0) is State.REG_NONLEADER)
    lost = cluster.network.drop(
        lambda p: (
            isinstance(p.message, Accept) or (isinstance(p.message, Proposal) and (p.message.seq, p.receiver) != (2, 0))
        )
    )
    cluster.submit(1, "w", 1, b"w")
    cluster.run(0.02)
    cluster.submit(1, "u", 1, b"u")
    cluster.run(0.02)
    cluster.crash(1)
    cluster.network.filters.remove(lost)
    cluster.run_until(lambda: cluster.aru(0) >= 2 and cluster.aru(2) >= 2)
    assert [row[1] for row in cluster.executed(0)] == ["u"], "one update stands in two slots"


def promise_of_two_lives(seed: int, patch: Plant | None) -> None:
    """Figure 5 C: parts of the PREPARE_OKs of two incarnations of a server do not make a complete promise.

    Server 0 has ordered four slots with the ACCEPTs of server 2, and crashes; server 1 knows none of the slots, and
    leads view 2. Server 2 sends its data list in two parts: slots 1 and 2, slots 3 and 4. Only the first part arrives.
    Server 1 learns slot 1, server 2 restarts, and the two parts of its new list are: slots 2 and 3, slot 4. Only the
    second part arrives, so server 1 has a first and a second part, but nothing about slot 3.
    """
    settings = Settings(batch_bytes_max=1, frame_data_bytes_max=200)
    scene = Scenario(seed, patch, clients=0, settings=settings)
    cluster, network = scene.cluster, scene.cluster.network
    cluster.run_until(lambda: cluster.leader() == 0 and cluster.has_leader())
    cluster.isolate(1)
    network.drop(lambda p: isinstance(p.message, ReconciliationReply))
    for number in range(1, 5):
        if number == 2:
            network.drop(lambda p: p.receiver == 2 and isinstance(p.message, Accept))
        cluster.submit(0, f"client-{number}", 1, bytes(20))
        cluster.run_until(lambda number=number: (f"client-{number}", 1) in cluster.answers)  # type: ignore[misc]
        cluster.run(0.01)
    cluster.crash(0)
    cluster.heal()
    network.filters.clear()
    lists: dict[int, int] = {}
    """Edition of a PREPARE_OK (the incarnation of its sender) -> number of its parts."""

    def only_some_parts(passage: Passage) -> bool:
        message = passage.message
        if isinstance(message, PrepareOK) and message.view == 2:
            lists[message.edition] = message.parts
            return (message.edition, message.part) not in ((1, 0), (2, 1))
        return isinstance(message, ReconciliationReply) and not lists

    network.drop(only_some_parts)
    cluster.run_until(lambda: 1 in lists and cluster.aru(1) == 1)
    cluster.crash(2)
    cluster.restart(2)
    cluster.run_until(lambda: 2 in lists)
    assert lists == {1: 2, 2: 2}, f"both promises have two parts: {lists}"
    cluster.run(0.3)
    network.filters.clear()
    cluster.run_until(lambda: cluster.aru(1) >= 4)


SCHEDULES: Final[Sequence[Schedule]] = (
    disk_is_lost,
    disk_is_lost_unheard,
    old_copy_is_put_back,
    old_copy_votes,
    last_group_is_lost,
    frames_of_a_former_start,
    start_is_written_down,
    start_number_is_repeated,
    old_copy_is_started_again_and_again,
    words_arrive_late,
    late_words_name_the_same_incarnation,
    late_word_follows_a_refusal,
    copy_repeats_the_last_start,
    copy_repeats_a_start_without_a_mark,
    keyed_copy_is_told,
    right_storage_is_back,
    copy_is_started_after_loss_of_power,
    promise_is_noted_first,
    last_vote_is_lost,
    dropped_votes_tell_nothing,
    one_word_is_wrong,
    doubter_is_gone,
    stranger_vouches,
    newcomer_joined_meanwhile,
    stranger_comes_first,
    storage_is_replaced_unmet,
    torn_while_learning,
    two_old_proposals,
    bound_twice,
    promise_of_two_lives,
)
