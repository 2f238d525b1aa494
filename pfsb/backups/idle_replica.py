"""A replica that is never started, and executes slots that the caller has read from disks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer

from pfsb.paxos.interfaces import ITransport
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.sessions.state_machine import SessionStateMachine
from pfsb.storage.memory import MemoryDisk, MemoryStorage


@implementer(ITransport)
class _NoNetwork:
    """A transport for a replica that is never started: it carries nothing."""

    def start(self, *args: Any) -> None: ...

    def know_cluster(self, identity: bytes) -> None: ...

    def enter_epoch(self, *args: Any) -> None: ...

    def send(self, messages: Any, to: int | None) -> None: ...

    def stop(self) -> None: ...


def make_replica(server_id: int, members: Sequence[int], machine: SessionStateMachine) -> Replica:
    """A replica that is not started: only its ordered update queue is used, to execute slots as every server does. It
    follows the settings that are executed in `machine`."""
    clock, rng = Clock(), random.Random(0)
    storage = MemoryStorage(MemoryDisk(), clock, lambda: 0.0, rng.randbytes)
    replica = Replica(
        server_id=server_id,
        servers=tuple(members),
        settings=Settings(),
        clock=clock,
        rng=rng,
        storage=storage,
        transport=_NoNetwork(),
        state_machine=machine,
        on_failure=lambda failure: failure.raiseException(),
    )

    def follow(values: ClusterSettings) -> None:
        replica.adopt(values.window, values.horizon, values.cluster_identity)

    machine.on_settings = follow
    return replica
