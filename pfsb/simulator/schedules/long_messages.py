"""Schedules in which servers send much, over sockets and links that hold little."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from pfsb.paxos.messages import Accept, PrepareOK
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.violation import require
from pfsb.simulator.cluster.network import LinkQuality, SocketBuffer
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule

PARTS: Final = 64
UPDATE_BYTES: Final = 31_000
"""Size, in bytes, of an update of which a frame holds only one: smaller parts of a promise would share a frame."""
SIZES: Final = (3, 4, 5, 6, 7, 8, 9)


def long_promise_over_small_buffers(seed: int, patch: Plant | None) -> None:
    """A promise of 64 parts arrives at a server whose socket holds one to four frames: a leader is there soon."""
    rng = random.Random(f"{seed}/buffers")
    scene = long_promise(seed, patch, servers=SIZES[seed % len(SIZES)])
    scene.cluster.network.buffer = SocketBuffer(rng.choice((1, 2, 4)), reading_seconds=0.0003)
    scene.cluster.crash(scene.leader())
    scene.cluster.run_until(lambda: scene.cluster.leader() is not None, 15)


def long_promise_over_slow_links(seed: int, patch: Plant | None) -> None:
    """One election is enough, though the promise takes longer than the Progress_Timer: each part restarts the timer."""
    scene = long_promise(seed, patch)
    cluster = scene.cluster
    cluster.network.set_quality(LinkQuality(delay_seconds=(0.2, 0.2), frames_max=8))
    old = scene.leader()
    view = scene.view()
    cluster.crash(old)
    cluster.run_until(lambda: cluster.leader() is not None, 20)
    require(scene.view() == view + 1, f"view {scene.view()} is led, though the leader of view {view + 1} was well")


def promiser_restarts(seed: int, patch: Plant | None) -> None:
    """A server crashes while the leader fetches its promise, and restarts: its new promise makes the leader lead.

    The former leader, which is the third server, is down. So the new leader can get no other promise.
    """
    scene = long_promise(seed, patch)
    cluster = scene.cluster
    cluster.crash(scene.leader())
    sent: dict[int, int] = {}

    def watch(sender: int, _to: int | None, messages: object) -> None:
        for message in messages:  # type: ignore[attr-defined]
            if isinstance(message, PrepareOK) and message.data_list:
                sent[sender] = sent.get(sender, 0) + 1

    cluster.network.observers.append(watch)
    cluster.run_until(lambda: any(parts > PARTS // 2 for parts in sent.values()))
    (promiser,) = sent
    cluster.crash(promiser)
    cluster.run(0.05)
    cluster.restart(promiser)
    view = max(cluster.replica(i).data.views.last_installed for i in cluster.running_ids)
    cluster.run_until(lambda: cluster.leader() is not None, 10)
    require(scene.view() == view, f"view {scene.view()} is led, though the leader of view {view} was well")


def catching_up_over_a_small_buffer(seed: int, patch: Plant | None) -> None:
    """A server whose socket holds one frame learns what it has missed without waiting for a timeout at each burst."""
    settings = Settings(batch_bytes_max=1, frame_data_bytes_max=UPDATE_BYTES + 50)
    scene = Scenario(seed, patch, clients=0, settings=settings)
    cluster = scene.cluster
    cluster.run_until(cluster.has_leader)
    leader, away = scene.leader(), scene.follower()
    cluster.isolate(away)
    for number in range(60):
        cluster.submit(leader, f"client-{number}", 1, bytes(UPDATE_BYTES))
    cluster.run_until(lambda: cluster.aru(leader) == 60)
    cluster.network.buffer = SocketBuffer(1, reading_seconds=0.0003)
    cluster.heal()
    cluster.run_until(lambda: cluster.aru(away) == 60, 3)


def long_promise(seed: int, patch: Plant | None, servers: int = 3, parts: int = PARTS) -> Scenario:
    """A cluster in which every server has accepted `parts` updates, in a slot each, and none of them is ordered.

    So the PREPARE_OK of each server has `parts` parts, and each part is a frame.
    """
    settings = Settings(window_slots=parts, batch_bytes_max=1, frame_data_bytes_max=UPDATE_BYTES + 50)
    scene = Scenario(seed, patch, servers=servers, clients=0, settings=settings)
    scene.cluster.run_until(scene.cluster.has_leader)
    accept_everywhere(scene, parts)
    return scene


def accept_everywhere(scene: Scenario, parts: int) -> None:
    """Let every server accept `parts` updates, in a slot each, and let none of them be ordered."""
    cluster, leader = scene.cluster, scene.leader()
    lost = cluster.network.drop(lambda p: isinstance(p.message, Accept))
    for number in range(parts):
        cluster.submit(leader, f"client-{number}", 1, bytes(UPDATE_BYTES))
    histories = [cluster.replica(i).data.ordering.global_history for i in cluster.ids]
    cluster.run_until(lambda: all(history.top == parts and len(history.slots) == parts for history in histories))
    cluster.run(0.05)
    cluster.network.filters.remove(lost)


SCHEDULES: Final[Sequence[Schedule]] = (
    long_promise_over_small_buffers,
    long_promise_over_slow_links,
    promiser_restarts,
    catching_up_over_a_small_buffer,
)
