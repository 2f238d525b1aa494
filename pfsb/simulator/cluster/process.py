"""One server as the simulation runs it: what the world gives to it, and the simplest one there is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.paxos.interfaces import IStableStorage, IStateMachine, ITracer, ITransport
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.simulator.checkers.update_checker import Identity
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.transport import SimulatedTransport
from pfsb.storage.memory import MemoryDisk, MemoryStorage

OnExecuted = Callable[[int, int, Sequence[ClientUpdate]], None]
"""Told (seq, time_ms, updates) of each slot that is executed."""


@implementer(IStateMachine)
@define(eq=False)
class WatchedStateMachine:
    """Tells the checks what is executed, before the state machine of the server hears of it."""

    _inner: IStateMachine
    _executed: OnExecuted

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self._executed(seq, time_ms, updates)
        self._inner.execute(seq, time_ms, updates)

    def too_old(self, update: ClientUpdate) -> None:
        self._inner.too_old(update)


@frozen
class ServerParts:
    """What the world gives to one server for one life."""

    server_id: int
    servers: tuple[int, ...]
    settings: Settings
    clock: ServerClock
    rng: random.Random
    storage: IStableStorage
    transport: ITransport
    watched: Callable[[IStateMachine], IStateMachine]
    """Wraps the state machine, so that the checks see what it executes."""
    on_failure: Callable[[Failure], None]
    answered: Callable[[Identity, int], None]
    """To be told of each update that is answered, and of its slot."""
    introduced: Callable[[ClientUpdate], None]
    """To be told of each update that a client of this server asks for."""
    settle: Callable[..., None]
    """settle(check, *args): run a check as soon as what is executed just now is out of the door (design part 3)."""
    tracer: ITracer | None = None


class SimulatedProcess(Protocol):
    """A server as the world runs it."""

    replica: Replica

    def start(self) -> None: ...

    def drain(self, drained: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...


@implementer(IStateMachine)
@define(eq=False)
class RecordingStateMachine:
    """The simplest one: keeps a list of what it was told."""

    executed: list[tuple[int, str, int, bytes]] = field(factory=list)
    """(seq, client_id, timestamp, payload) of all updates that took effect."""
    slots: int = 0
    slot_of: dict[Identity, int] = field(factory=dict)
    expired: list[Identity] = field(factory=list)
    on_executed: Callable[[int, ClientUpdate], None] = lambda seq, update: None

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self.slots = seq
        for update in updates:
            self.executed.append((seq, update.client_id, update.timestamp, update.payload))
            self.slot_of[update.client_id, update.timestamp] = seq
            self.on_executed(seq, update)

    def too_old(self, update: ClientUpdate) -> None:
        self.expired.append((update.client_id, update.timestamp))


class ProtocolProcess:
    """The protocol over a `RecordingStateMachine`; clients are answered with the slot of their update."""

    def __init__(self, parts: ServerParts) -> None:
        self.state_machine = RecordingStateMachine(on_executed=self._executed)
        self._answered = parts.answered
        self._waiting: set[Identity] = set()
        self.replica = Replica(
            server_id=parts.server_id,
            servers=parts.servers,
            settings=parts.settings,
            clock=parts.clock,
            rng=parts.rng,
            storage=parts.storage,
            transport=parts.transport,
            state_machine=parts.watched(self.state_machine),
            on_failure=parts.on_failure,
            tracer=parts.tracer,
        )

    def start(self) -> None:
        self.replica.start()

    def drain(self, drained: Callable[[], None]) -> None:
        """Its clients wait for nothing that another server could not tell them."""
        drained()

    def stop(self) -> None:
        self.replica.stop()

    def submit(self, update: ClientUpdate) -> None:
        """A client of this server asks for this."""
        self.replica.perform(self._introduce, update)

    def _introduce(self, update: ClientUpdate) -> None:
        """A repetition of what has run is answered from memory, through the door like all else (G16)."""
        identity = (update.client_id, update.timestamp)
        seq = self.state_machine.slot_of.get(identity)
        if seq is not None:
            self.replica.turn.call(self._answered, identity, seq)
            return
        self._waiting.add(identity)
        self.replica.introduce(update)

    def _executed(self, seq: int, update: ClientUpdate) -> None:
        identity = (update.client_id, update.timestamp)
        if identity in self._waiting:
            self._waiting.discard(identity)
            self.replica.turn.call(self._answered, identity, seq)


@define(eq=False)
class RunningServer:
    """A server in its present life."""

    process: Any
    """A `SimulatedProcess`, and what more it offers to those who know what the world was built of."""
    server_clock: ServerClock
    storage: MemoryStorage
    transport: SimulatedTransport
    is_draining: bool = False
    """It stops by itself, soon."""


@define(eq=False)
class SimulatedServer:
    """A server over all its lives."""

    disk: MemoryDisk = field(factory=MemoryDisk)
    incarnations: int = 0
    running: RunningServer | None = None
    sync_seconds: tuple[float, float] = (0.0005, 0.002)
    """How long one write to its disk takes: from .. to."""
    rate: float = 1.0
    """How fast its clock runs, from its next start on."""
    clock_offset: float = 0.0
    """By how many seconds its clock will be wrong when it starts again."""
    is_disk_full: bool = False
    """Every write fails, which ends the server."""

    def describe(self) -> str:
        """Half a line about it."""
        if self.running is None:
            return "down"
        data = self.running.process.replica.data
        return (
            f"{data.server.state.value} attempted={data.views.last_attempted} "
            f"installed={data.views.last_installed} aru={data.ordering.local_aru} "
            f"top={data.ordering.global_history.top} pending={len(data.clients.pending_updates)} "
            f"queued={len(data.clients.update_queue)}{' paused' if self.running.server_clock.paused else ''}"
        )
