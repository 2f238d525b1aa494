"""A whole cluster on one clock, from one seed: same seed, same bytes (design part 10)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.interfaces import IStableStorage, IStateMachine, ITracer, ITransport
from pfsb.paxos import invariants
from pfsb.paxos.messages import ClientUpdate, State
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.simulator.checks import ClusterChecks, Identity
from pfsb.simulator.clock import Lane, SimulatedClock
from pfsb.simulator.network import LinkQuality, SimulatedNetwork, SimulatedTransport
from pfsb.storage.memory import MemoryDisk, MemoryStorage

Executed = Callable[[int, int, Sequence[ClientUpdate]], None]
"""Told (seq, time_ms, updates) of each slot that is executed."""


# ---------------------------------------------------------------------------------------------
# One server
# ---------------------------------------------------------------------------------------------


@implementer(IStateMachine)
@define(eq=False)
class WatchedStateMachine:
    """Tells the checks what is executed, before the state machine of the server hears of it."""

    _inner: IStateMachine
    _executed: Executed

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self._executed(seq, time_ms, updates)
        self._inner.execute(seq, time_ms, updates)

    def outlived(self, update: ClientUpdate) -> None:
        self._inner.outlived(update)


@frozen
class Parts:
    """What the world gives to one server for one life."""

    server_id: int
    servers: tuple[int, ...]
    settings: Settings
    clock: Lane
    rng: random.Random
    storage: IStableStorage
    transport: ITransport
    watched: Callable[[IStateMachine], IStateMachine]
    """Wraps the state machine, so that the checks see what it executes."""
    on_failure: Callable[[Failure], None]
    answered: Callable[[Identity, int], None]
    """To be told of each update that is answered, and of its slot."""
    tracer: ITracer | None = None


class Process(Protocol):
    """A server as the world runs it."""

    replica: Replica

    def start(self) -> None: ...

    def submit(self, update: ClientUpdate) -> None:
        """A client of this server asks for this."""


@implementer(IStateMachine)
@define(eq=False)
class RecordingStateMachine:
    """The simplest one: keeps a list of what it was told."""

    executed: list[tuple[int, str, int, bytes]] = field(factory=list)
    """(seq, client_id, timestamp, payload) of all updates that took effect."""
    slots: int = 0
    slot_of: dict[Identity, int] = field(factory=dict)
    too_old: list[Identity] = field(factory=list)
    on_executed: Callable[[int, ClientUpdate], None] = lambda seq, update: None

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self.slots = seq
        for update in updates:
            self.executed.append((seq, update.client_id, update.timestamp, update.payload))
            self.slot_of[update.client_id, update.timestamp] = seq
            self.on_executed(seq, update)

    def outlived(self, update: ClientUpdate) -> None:
        self.too_old.append((update.client_id, update.timestamp))


class ProtocolProcess:
    """The protocol over a `RecordingStateMachine`; clients are answered with the slot of their update."""

    def __init__(self, parts: Parts) -> None:
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

    def submit(self, update: ClientUpdate) -> None:
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


@implementer(ITracer)
@define
class WorldTracer:
    """Adds when and where to each event (interface part 6)."""

    _server_id: int
    _clock: SimulatedClock
    _note: Callable[[dict[str, Any]], None]

    def trace(self, event: str, **fields: Any) -> None:
        self._note({"t": self._clock.seconds(), "server": self._server_id, "event": event, **fields})


# ---------------------------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------------------------


@define(eq=False)
class Running:
    """A server in its present life."""

    process: Process
    lane: Lane
    storage: MemoryStorage
    transport: SimulatedTransport


@define(eq=False)
class Server:
    """A server over all its lives."""

    disk: MemoryDisk = field(factory=MemoryDisk)
    lives: int = 0
    running: Running | None = None
    sync_seconds: tuple[float, float] = (0.0005, 0.002)
    """How long one write to its disk takes: from .. to."""


class World:
    """A cluster. Nothing in it happens unless `step`, `run` or `run_until` lets time go on."""

    def __init__(
        self,
        seed: int | str,
        servers: int = 3,
        *,
        settings: Settings | None = None,
        quality: LinkQuality | None = None,
        build: Callable[[Parts], Process] = ProtocolProcess,
        trace: Callable[[dict[str, Any]], None] | None = None,
        start: bool = True,
    ) -> None:
        self.seed = seed
        self.ids = tuple(range(servers))
        self.settings = settings or Settings()
        self.clock = SimulatedClock()
        self.network = SimulatedNetwork(
            self.clock, random.Random(f"{seed}/network"), self.ids, quality or LinkQuality()
        )
        self.servers = {i: Server() for i in self.ids}
        self.checks = ClusterChecks({i: server.disk for i, server in self.servers.items()}, self._digest)
        self.network.observers.append(self.checks.sent)
        self.answers: dict[Identity, int] = {}
        """What clients were answered: the slot of each update."""
        self.expected_failures: tuple[type[Exception], ...] = ()
        """A server that fails with one of these is down, as it should be; anything else ends the simulation."""
        self.failures: dict[int, Failure] = {}
        self._build = build
        self._trace = trace
        self._violation: Failure | None = None
        if start:
            for server_id in self.ids:
                self.restart(server_id)

    # ------------------------------------------------------------------ servers

    def restart(self, server_id: int) -> None:
        """Start a server that is not running, with what is on its disk."""
        server = self.servers[server_id]
        assert server.running is None, f"server {server_id} is running"
        server.lives += 1
        name = f"{self.seed}/{server_id}/{server.lives}"
        rng = random.Random(name)
        lane = self.clock.lane(name)
        disk_rng = random.Random(f"{name}/disk")
        storage = MemoryStorage(
            server.disk,
            lane,
            lambda: disk_rng.uniform(*server.sync_seconds),
            disk_rng.randbytes,
            lambda failure: self._failed(server_id, failure),
        )
        transport = SimulatedTransport(self.network, server_id, lane, rng)
        process = self._build(self._parts(server_id, lane, rng, storage, transport))
        server.running = Running(process, lane, storage, transport)
        invariants.install(process.replica)
        self.checks.started(server_id)
        process.start()
        self._raise_violation()

    def crash(self, server_id: int, groups_kept: int = 0, records_torn: int = 0) -> None:
        """Power loss: nothing of this life runs again. The numbers: what of the pending writes gets to the disk."""
        running = self._running(server_id)
        running.storage.crash(groups_kept, records_torn)
        running.lane.close()
        self.network.detach(server_id)
        self.servers[server_id].running = None

    def stop(self, server_id: int) -> None:
        """An orderly end, as of SIGTERM: everything appended is on disk."""
        running = self._running(server_id)
        running.process.replica.stop()
        running.storage.close()
        running.lane.close()
        self.servers[server_id].running = None

    def pause(self, server_id: int) -> None:
        self._running(server_id).lane.pause()

    def resume(self, server_id: int) -> None:
        self._running(server_id).lane.resume()

    def is_running(self, server_id: int) -> bool:
        return self.servers[server_id].running is not None

    @property
    def running_ids(self) -> list[int]:
        return [i for i in self.ids if self.is_running(i)]

    def process(self, server_id: int) -> Any:
        return self._running(server_id).process

    def replica(self, server_id: int) -> Replica:
        return self._running(server_id).process.replica

    def storage(self, server_id: int) -> MemoryStorage:
        return self._running(server_id).storage

    def disk(self, server_id: int) -> MemoryDisk:
        return self.servers[server_id].disk

    # ------------------------------------------------------------------ links

    def cut(self, a: int, b: int, *, one_way: bool = False) -> None:
        """Nothing gets from `a` to `b` any more, nor back unless `one_way`."""
        self.network.cut(a, b)
        if not one_way:
            self.network.cut(b, a)

    def isolate(self, *group: int) -> None:
        """Cut these servers off from all others."""
        for a in group:
            for b in set(self.ids) - set(group):
                self.cut(a, b)

    def heal(self) -> None:
        """All links carry again, as well as their quality lets them."""
        self.network.mend_all()

    def become_quiet(self) -> None:
        """Everything heals: links are whole and good, paused servers resume, crashed ones start again."""
        self.network.set_quality(LinkQuality())
        self.heal()
        for server_id, server in self.servers.items():
            server.sync_seconds = (0.0005, 0.002)
            if server.running is None:
                self.restart(server_id)
            elif server.running.lane.paused:
                self.resume(server_id)

    # ------------------------------------------------------------------ clients

    def submit(self, server_id: int, client_id: str, timestamp: int, payload: bytes = b"") -> None:
        """A client asks this server, which hears of it as soon as it runs."""
        running = self._running(server_id)
        made_at = running.process.replica.data.ordering.local_aru
        update = ClientUpdate(client_id, server_id, timestamp, made_at, payload)
        self.checks.execution.introduce(update)
        running.lane.callLater(0, running.process.submit, update)

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def step(self) -> bool:
        """One event. False if nothing will ever happen again."""
        happened = self.clock.step()
        self._raise_violation()
        return happened

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self._run_until_time(self.now + seconds)

    def run_until(self, predicate: Callable[[], bool], seconds: float = 30.0) -> None:
        """Let time pass until `predicate` holds. Raises AssertionError if that takes longer than `seconds`."""
        until = self.now + seconds
        while not predicate():
            if not self.clock.step_until(until):
                raise AssertionError(f"in vain for {seconds} s; now it is {self.now:.3f} s\n{self.picture()}")
            self._raise_violation()

    # ------------------------------------------------------------------ looking

    def leader(self) -> int | None:
        """Who leads the highest view that is led."""
        leaders = [i for i in self.running_ids if self.replica(i).data.server.state is State.REG_LEADER]
        return max(leaders, key=lambda i: self.replica(i).data.views.last_installed, default=None)

    def has_leader(self) -> bool:
        """Somebody leads, and a majority follows."""
        leader = self.leader()
        if leader is None:
            return False
        view = self.replica(leader).data.views.last_installed
        followers = sum(
            self.replica(i).data.views.last_installed == view
            and self.replica(i).data.server.state is not State.LEADER_ELECTION
            for i in self.running_ids
        )
        return 2 * followers > len(self.ids)

    def executed(self, server_id: int) -> list[tuple[int, str, int, bytes]]:
        """What took effect at this server in its present life."""
        return list(self.process(server_id).state_machine.executed)

    def aru(self, server_id: int) -> int:
        return self.replica(server_id).data.ordering.local_aru

    def all_equal(self) -> bool:
        """All running servers have executed the same."""
        return self.checks.all_equal(self.running_ids)

    def picture(self) -> str:
        """A line for each server."""
        return "\n".join(self._line(server_id) for server_id in self.ids)

    def _line(self, server_id: int) -> str:
        running = self.servers[server_id].running
        if running is None:
            return f"server {server_id}: down"
        data = running.process.replica.data
        return (
            f"server {server_id}: {data.server.state.value} attempted={data.views.last_attempted} "
            f"installed={data.views.last_installed} aru={data.ordering.local_aru} "
            f"top={data.ordering.global_history.top} pending={len(data.clients.pending_updates)} "
            f"queued={len(data.clients.update_queue)}{' paused' if running.lane.paused else ''}"
        )

    # ------------------------------------------------------------------ inside

    def _parts(
        self, server_id: int, lane: Lane, rng: random.Random, storage: MemoryStorage, transport: SimulatedTransport
    ) -> Parts:
        def executed(seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
            self.checks.executed(server_id, seq, updates)
            self._settle(server_id, seq, time_ms, updates)

        return Parts(
            server_id=server_id,
            servers=self.ids,
            settings=self.settings,
            clock=lane,
            rng=rng,
            storage=storage,
            transport=transport,
            watched=lambda inner: WatchedStateMachine(inner, executed),
            on_failure=lambda failure: self._failed(server_id, failure),
            answered=self._answered,
            tracer=None if self._trace is None else WorldTracer(server_id, self.clock, self._trace),
        )

    def _settle(self, server_id: int, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        """Tell the checks when what was just executed is out of the door."""
        if self.network.is_attached(server_id):
            self.replica(server_id).turn.call(self._settled, server_id, seq, time_ms, updates)
        else:
            # It recovers: what it executes again is on its disk.
            self._note_violation(self.checks.execution.settled, server_id, seq, time_ms, updates)

    def _settled(self, server_id: int, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self._note_violation(self.checks.settled, server_id, seq, time_ms, updates)

    def _note_violation(self, check: Callable[..., None], *args: object) -> None:
        """Run a check in a place from which an exception would not get out."""
        try:
            check(*args)
        except AssertionError:
            self._violation = self._violation or Failure()

    def _run_until_time(self, until: float) -> None:
        while self.clock.step_until(until):
            self._raise_violation()
        self._raise_violation()

    def _running(self, server_id: int) -> Running:
        running = self.servers[server_id].running
        assert running is not None, f"server {server_id} is down"
        return running

    def _digest(self, server_id: int, seq: int) -> bytes | None:
        return self._running(server_id).process.replica.ordered_queue.digests.at(seq)

    def _answered(self, identity: Identity, seq: int) -> None:
        self._note_violation(self.checks.answered, identity, seq)
        self.answers.setdefault(identity, seq)

    def _failed(self, server_id: int, failure: Failure) -> None:
        """A server has stopped itself: its process ends, as soon as what runs now is over."""
        self.failures[server_id] = failure
        if failure.check(*self.expected_failures) is None:
            self._violation = self._violation or failure
        else:
            self.clock.callLater(0, self._end, server_id)

    def _end(self, server_id: int) -> None:
        if self.servers[server_id].running is not None:
            self.crash(server_id)

    def _raise_violation(self) -> None:
        if self._violation is not None:
            self._violation.raiseException()
