"""Schedules on slow disks: how the timers take account of writes that take seconds (Departures 48 and 49)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from pfsb.paxos.messages import ClientUpdate, Message
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Scenario, Schedule

WRITES: Final = 30
"""How long a schedule looks at its cluster, as a multiple of the time that one write takes."""

WRITES_AT_FIRST: Final = 10
"""How long, in the same unit, the servers have to measure how slow their disks have become."""


def _patient(scene: Scenario) -> None:
    """Let clients never repeat an update, so that every further copy of an update was sent by a server."""
    for client in scene.clients:
        client.patience_seconds = inf
    scene.begin()


def followers_have_slow_disks(seed: int, patch: Plant | None) -> None:
    """Departure 48: the disks of all followers become slow, that of the leader does not, and there is no election.

    A follower's Progress_Timer waits for the end of each write that was under way when the timer would have expired,
    also of one that began after the timer.
    """
    scene = Scenario(seed, patch, clients=3)
    _patient(scene)
    view, seconds = scene.view(), scene.rng.choice((3.0, 5.0))
    for server_id in scene.cluster.ids:
        if server_id != scene.leader():
            scene.cluster.servers[server_id].sync_seconds = (seconds, 1.5 * seconds)
    scene.cluster.run(WRITES * seconds)
    scene.require_view(view)
    scene.everyone_is_served(10 * seconds)


def crowd_on_slow_disks(seed: int, patch: Plant | None) -> None:
    """Departure 49: many clients ask at servers whose disks are slow, and hardly an update is sent to the leader twice.

    Copies are counted when the times of the slow disks are measured: at first the servers repeat by the times of quick
    ones. Four of five servers send the updates of their clients to the leader. Without copies that makes 0.8 messages
    for each update.
    """
    scene = Scenario(seed, patch, servers=5, clients=20)
    cluster = scene.cluster
    _patient(scene)
    seconds = scene.rng.choice((0.6, 1.2))
    for server in cluster.servers.values():
        server.sync_seconds = (seconds, seconds)
    cluster.run(WRITES_AT_FIRST * seconds)
    sent = [0]

    def count(_sender: int, to: int | None, messages: Sequence[Message]) -> None:
        receivers = len(cluster.ids) - 1 if to is None else 1
        sent[0] += receivers * sum(isinstance(message, ClientUpdate) for message in messages)

    before = sum(client.timestamp for client in scene.clients)
    cluster.network.observers.append(count)
    cluster.run(WRITES * seconds)
    asked = sum(client.timestamp for client in scene.clients) - before
    if sent[0] > asked:
        raise Violation(f"{sent[0]} copies of {asked} updates were sent\n{cluster.picture()}")
    scene.everyone_is_served(20 * seconds)


SCHEDULES: Final[Sequence[Schedule]] = (followers_have_slow_disks, crowd_on_slow_disks)
