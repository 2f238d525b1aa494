"""A whole cluster on one clock, from one seed: same seed, same bytes (design part 10)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.failure import Failure

from pfsb.interfaces import ITracer
from pfsb.paxos import invariants
from pfsb.paxos.messages import ClientUpdate, Message, State
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.server import DRAIN_LOOK_SECONDS, DRAIN_SECONDS
from pfsb.simulator.checks import ClusterChecks
from pfsb.simulator.clock import Lane, SimulatedClock
from pfsb.simulator.network import LinkQuality, SimulatedNetwork
from pfsb.simulator.processes import (
    BothTracers,
    Parts,
    ProtocolProcess,
    Running,
    Server,
    WatchedStateMachine,
    WorldTracer,
)
from pfsb.simulator.transport import SimulatedTransport
from pfsb.simulator.update_checks import Identity
from pfsb.simulator.violation import Violation
from pfsb.storage.memory import MemoryDisk, MemoryStorage


class World:
    """A cluster. Nothing in it happens unless `step`, `run` or `run_until` lets time go on."""

    def __init__(
        self,
        seed: int | str,
        servers: int = 3,
        *,
        settings: Settings | None = None,
        quality: LinkQuality | None = None,
        build: Callable[[Parts], Any] = ProtocolProcess,
        patch: Callable[[Any], None] | None = None,
        trace: Callable[[dict[str, Any]], None] | None = None,
        tracer: Callable[[int], ITracer] | None = None,
        start: bool = True,
    ) -> None:
        """`build` makes a `Process` for each life of each server; `patch` may change it before it starts.

        `trace` is told every event as a dict; `tracer` makes what takes the events of one server.
        """
        self.seed = seed
        self.ids = tuple(range(servers))
        self.settings = settings or Settings()
        self.clock = SimulatedClock()
        self.network = SimulatedNetwork(
            self.clock, random.Random(f"{seed}/network"), self.ids, quality or LinkQuality()
        )
        self.servers = {i: Server() for i in self.ids}
        disks = {i: server.disk for i, server in self.servers.items()}
        self.checks = ClusterChecks(disks, self._digest, self.settings.horizon_slots)
        self.amnesiacs: set[int] = set()
        """Servers that have lost their disk. What they say counts for nobody, so the checks do not listen."""
        self.network.observers.append(self._sent)
        self.answers: dict[Identity, int] = {}
        """What clients were answered: the slot of each update."""
        self.expected_failures: tuple[type[Exception], ...] = ()
        """A server that fails with one of these is down, as it should be; anything else ends the simulation."""
        self.failures: dict[int, Failure] = {}
        self._build = build
        self._patch = patch
        self._trace = trace
        self._tracer = tracer
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
        lane = self.clock.lane(name, server.rate, server.clock_offset)
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
        if self._patch is not None:
            self._patch(process)
        if server.is_disk_full:
            storage.fail_next(OSError("no space left on device"))
        invariants.install(process.replica)
        self.checks.started(server_id)
        process.start()
        self._raise_violation()

    def crash(self, server_id: int, groups_kept: int = 0, records_torn: int = 0) -> None:
        """Power loss: nothing of this life runs again. The numbers: what of the pending writes gets to the disk."""
        running = self._running(server_id)
        self.tell(server_id, "crash")
        running.storage.crash(groups_kept, records_torn)
        running.lane.close()
        self.network.detach(server_id)
        self.servers[server_id].running = None

    def doom(self, server_id: int, frames: int, groups_kept: int = 0, records_torn: int = 0) -> None:
        """Crash in the middle of a turn: right after so many frames more have left."""
        running = self._running(server_id)
        running.transport.after_frames(frames, lambda: self.crash(server_id, groups_kept, records_torn))

    def stop(self, server_id: int) -> None:
        """An orderly end, as of SIGTERM: everything appended is on disk."""
        running = self._running(server_id)
        self.tell(server_id, "stop in order")
        running.process.stop()
        running.storage.close()
        running.lane.close()
        self.servers[server_id].running = None

    def drain(self, server_id: int) -> None:
        """As SIGTERM: the server takes no more commands, and stops when those under way are answered, or in vain."""
        running = self._running(server_id)
        running.is_draining = True
        running.lane.callLater(0, self._told_to_stop, server_id, running)

    def _told_to_stop(self, server_id: int, running: Running) -> None:
        """A paused server hears of it when it goes on."""
        running.process.drain(lambda: self._drained(server_id, running))
        running.lane.callLater(DRAIN_SECONDS + 2 * DRAIN_LOOK_SECONDS, self._must_have_stopped, server_id)

    def _drained(self, server_id: int, running: Running) -> None:
        if self.servers[server_id].running is running:
            self.stop(server_id)

    def _must_have_stopped(self, server_id: int) -> None:
        raise Violation(f"server {server_id} was asked to stop, and has not after {DRAIN_SECONDS:g} s")

    def lose_disk(self, server_id: int) -> None:
        """The server, which is down, finds an empty disk at its next start. The old one is kept, for `bring_back`."""
        server = self.servers[server_id]
        assert server.running is None and server_id not in self.amnesiacs, f"server {server_id} has its disk in use"
        self.amnesiacs.add(server_id)
        server.disk = MemoryDisk()

    def bring_back(self, server_id: int) -> None:
        """The disk that was lost, as it was when it was lost; the server starts with it."""
        if self.is_running(server_id):
            self.crash(server_id)
        self.amnesiacs.discard(server_id)
        self.servers[server_id].disk = self.checks.door.disks[server_id]
        self.failures.pop(server_id, None)
        self.restart(server_id)

    def pause(self, server_id: int) -> None:
        self._running(server_id).lane.pause()

    def resume(self, server_id: int) -> None:
        self._running(server_id).lane.resume()

    def is_running(self, server_id: int) -> bool:
        return self.servers[server_id].running is not None

    def is_draining(self, server_id: int) -> bool:
        return self._running(server_id).is_draining

    @property
    def running_ids(self) -> list[int]:
        return [i for i in self.ids if self.is_running(i)]

    @property
    def serving_ids(self) -> list[int]:
        """Where clients go: not to a server that has lost its disk, and with it the numbers that it gave to others."""
        return [i for i in self.running_ids if i not in self.amnesiacs]

    def process(self, server_id: int) -> Any:
        return self._running(server_id).process

    def replica(self, server_id: int) -> Replica:
        replica: Replica = self._running(server_id).process.replica
        return replica

    def lane(self, server_id: int) -> Lane:
        return self._running(server_id).lane

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
        self.heal_some(self.ids)

    def heal_some(self, group: Sequence[int]) -> None:
        """The same for these servers and the links between them, and for nothing else."""
        links = [(a, b) for a in group for b in group if a != b]
        self.network.passing.clear()
        self.network.set_quality(LinkQuality(), links)
        for a, b in links:
            self.network.mend(a, b)
        for server_id in group:
            self._heal_server(server_id)

    def _heal_server(self, server_id: int) -> None:
        server = self.servers[server_id]
        server.sync_seconds = (0.0005, 0.002)
        server.is_disk_full = False
        if server.running is not None:
            server.running.transport.after_frames(None)
            server.running.storage.fail_next(None)
            self._end_what_was_begun(server_id, server.running)
        if server.running is None:
            self.restart(server_id)
        elif server.running.lane.paused:
            self.resume(server_id)

    def _end_what_was_begun(self, server_id: int, running: Running) -> None:
        if running.is_draining:
            self.stop(server_id)
        elif running.process.replica.proposals.skipped:
            self.crash(server_id)  # else a server that is alone leads on, and never gets past the hole

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
        def settle(check: Callable[..., None], *args: object) -> None:
            if self.network.is_attached(server_id):
                self.replica(server_id).turn.call(settled, check, *args)
            else:
                # It recovers: what it executes again is on its disk.
                self.note_violation(check, *args)

        def settled(check: Callable[..., None], *args: object) -> None:
            if not lane.closed:
                self.note_violation(check, *args)

        def executed(seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
            if not lane.closed:
                self.checks.executed(server_id, seq, updates)
                recovers = not self.network.is_attached(server_id)
                check = self.checks.execution.settled if recovers else self.checks.settled
                settle(check, server_id, seq, time_ms, updates)

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
            answered=lambda identity, seq: None if lane.closed else self._answered(identity, seq),
            introduced=self.checks.execution.introduce if server_id not in self.amnesiacs else lambda update: None,
            settle=lambda check, *args: None if lane.closed else settle(check, *args),
            tracer=self._make_tracer(server_id),
        )

    def _sent(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        if server_id not in self.amnesiacs:
            self.checks.sent(server_id, to, messages)

    def tell(self, server_id: int | None, event: str, **fields: Any) -> None:
        """Put into the trace what no server tells of itself; None: of the whole cluster."""
        if self._trace is not None:
            self._trace({"t": self.now, "server": server_id, "event": event, **fields})

    def _make_tracer(self, server_id: int) -> ITracer | None:
        tracer = None if self._tracer is None else self._tracer(server_id)
        if self._trace is None:
            return tracer
        writer = WorldTracer(server_id, self.clock, self._trace)
        return writer if tracer is None else BothTracers(tracer, writer)

    def note_violation(self, check: Callable[..., None], *args: object) -> None:
        """Run a check in a place from which an exception would not get out."""
        try:
            check(*args)
        except AssertionError:
            self.violated(Failure())

    def violated(self, failure: Failure) -> None:
        """The simulation ends with this as soon as the present event is over, unless it ends with something earlier."""
        self._violation = self._violation or failure

    def _run_until_time(self, until: float) -> None:
        while self.clock.step_until(until):
            self._raise_violation()
        self._raise_violation()

    def _running(self, server_id: int) -> Running:
        running = self.servers[server_id].running
        assert running is not None, f"server {server_id} is down"
        return running

    def _digest(self, server_id: int, seq: int) -> bytes | None:
        return self.replica(server_id).ordered_queue.digests.at(seq)

    def _answered(self, identity: Identity, seq: int) -> None:
        self.note_violation(self.checks.answered, identity, seq)
        self.answers.setdefault(identity, seq)

    def _failed(self, server_id: int, failure: Failure) -> None:
        """A server has stopped itself: its process ends, as soon as what runs now is over."""
        self.failures[server_id] = failure
        if failure.check(*self.expected_failures) is None:
            self.violated(failure)
        else:
            self.clock.callLater(0, self._end, server_id, self.servers[server_id].running)

    def _end(self, server_id: int, failed: Running | None) -> None:
        """Of the life that has failed: another one may have begun since."""
        if failed is not None and self.servers[server_id].running is failed:
            self.crash(server_id)

    def _raise_violation(self) -> None:
        if self._violation is not None:
            self._violation.raiseException()
