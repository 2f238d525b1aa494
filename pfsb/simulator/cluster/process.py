"""One server as the simulation runs it: the environment that it is given, and the simplest server there is.

`ServerParts` is all that a cluster gives to one incarnation of a server. The cluster calls a function that builds a
`SimulatedProcess` from these parts, so that it can run different kinds of servers: `ProtocolProcess` here is the
protocol alone, and `pfsb.simulator.cluster.server_process` has the whole server.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol

import msgpack
from attrs import define, field, frozen
from twisted.python.failure import Failure
from zope.interface import implementer

from pfsb.paxos.interfaces import IRestorer, IStableStorage, IStateMachine, ITracer, ITransport
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.replica import Replica
from pfsb.paxos.settings import Settings
from pfsb.paxos.snapshot import Piece, WrongSnapshot
from pfsb.server import DRAIN_LOOK_SECONDS
from pfsb.simulator.checkers.snapshot_checker import Facts, Models
from pfsb.simulator.checkers.update_checker import Identity
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.storage import SimulatedStorage
from pfsb.simulator.cluster.transport import SimulatedTransport
from pfsb.storage.memory import MemoryDisk

OnExecuted = Callable[[int, int, Sequence[ClientUpdate]], None]
"""Call-back with (seq, the state machine's time in ms, the updates that run in the slot).

A `WatchedStateMachine` calls it once for each slot, just before the server executes the slot.
"""


@implementer(IStateMachine)
@define(eq=False)
class WatchedStateMachine:
    """Reports each slot to the checkers, before the server's own state machine executes the slot."""

    _inner: IStateMachine
    _executed: OnExecuted

    def is_valid(self, update: ClientUpdate) -> bool:
        return self._inner.is_valid(update)

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        self._executed(seq, time_ms, updates)
        return self._inner.execute(seq, time_ms, updates)

    def freeze(self) -> Generator[Piece, None, None]:
        pieces: Generator[Piece, None, None] = self._inner.freeze()
        return pieces

    def restorer(self) -> IRestorer:
        return self._inner.restorer()

    def too_old(self, update: ClientUpdate) -> None:
        self._inner.too_old(update)


@frozen
class ServerParts:
    """All that the cluster gives to one incarnation of a server."""

    server_id: int
    servers: tuple[int, ...]
    settings: Settings
    clock: ServerClock
    rng: random.Random
    storage: IStableStorage
    transport: ITransport
    watched: Callable[[IStateMachine], IStateMachine]
    """The server passes its state machine to this function, and uses the result in its place.

    So the checkers see what the state machine executes.
    """
    on_failure: Callable[[Failure], None]
    answered: Callable[[Identity, int], None]
    """The server calls this each time that it answers an update, with the update's identity and the slot in which it
    ran."""
    introduced: Callable[[ClientUpdate], None]
    """A `ServerProcess` calls this with each update of its own clients, before it gives the update to the protocol. A
    `ProtocolProcess` does not: `SimulatedCluster.submit` tells the checkers of its updates."""
    settle: Callable[..., None]
    """`settle(check, *args)` calls `check(*args)` as soon as the execution that is under way counts (`Probe.settle`).

    That is when the durability gate lets out its effects (docs/internals/turn.rst).
    """
    tracer: ITracer | None = None


class SimulatedProcess(Protocol):
    """One incarnation of a server, which the cluster starts, drains and stops by these methods."""

    replica: Replica
    clock: ServerClock
    transport: ITransport

    def start(self) -> None: ...

    def drain(self, drained: Callable[[], None]) -> None: ...

    def retire(self, drained: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...

    def facts(self) -> Facts:
        """A copy of all that must be equal at all servers that have executed the same slots, by name."""

    def models(self) -> Models:
        """A copy of what the checkers around this server know of its state, by name."""

    def follow(self, models: Models) -> None:
        """Let the checkers around this server go on from these models, of the slot from which it was restored."""


ROWS_OF_A_PIECE: Final = 20
"""Number of executed updates in one piece of a snapshot of a `RecordingStateMachine`."""


@implementer(IStateMachine)
@define(eq=False)
class RecordingStateMachine:
    """The simplest state machine: it keeps a list of the updates that it has executed."""

    executed: list[tuple[int, str, int, bytes]] = field(factory=list)
    """(seq, client_id, timestamp, payload) of each update that was executed, in the order of execution."""
    slots: int = 0
    slot_of: dict[Identity, int] = field(factory=dict)
    expired: list[Identity] = field(factory=list)
    """The updates that were too old, as far as this incarnation was told of them."""
    on_executed: Callable[[int, ClientUpdate], None] = lambda seq, update: None
    on_restored: Callable[[], None] = lambda: None
    """Called when the state of a snapshot was put in place."""

    def is_valid(self, update: ClientUpdate) -> bool:
        return True

    def execute(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> bytes:
        self.slots = seq
        for update in updates:
            self.executed.append((seq, update.client_id, update.timestamp, update.payload))
            self.slot_of[update.client_id, update.timestamp] = seq
            self.on_executed(seq, update)
        return b""

    def freeze(self) -> Generator[Piece, None, None]:
        """The present state, piece by piece. The list of updates only grows, so its beginning is the state at this
        moment, whatever is executed while the pieces are taken."""
        return self._pieces(self.slots, len(self.executed))

    def _pieces(self, slots: int, updates: int) -> Generator[Piece, None, None]:
        yield Piece("machine", msgpack.packb((slots, updates)))
        for first in range(0, updates, ROWS_OF_A_PIECE):
            yield Piece("machine", msgpack.packb(self.executed[first : min(first + ROWS_OF_A_PIECE, updates)]))

    def restorer(self) -> RecordingRestorer:
        return RecordingRestorer(self)

    def too_old(self, update: ClientUpdate) -> None:
        self.expired.append((update.client_id, update.timestamp))


@implementer(IRestorer)
@define(eq=False)
class RecordingRestorer:
    """Builds the state of a `RecordingStateMachine` of the pieces of a snapshot."""

    _machine: RecordingStateMachine
    _head: tuple[int, int] | None = None
    """(number of the last executed slot, number of updates); None: the first piece was not taken yet."""
    _executed: list[tuple[int, str, int, bytes]] = field(factory=list)

    def take(self, piece: Piece) -> None:
        try:
            rows: Any = msgpack.unpackb(piece.data, use_list=False)
            if self._head is None:
                slots, updates = rows
                self._head = int(slots), int(updates)
            else:
                self._executed += [
                    (int(seq), str(client), int(number), bytes(data)) for seq, client, number, data in rows
                ]
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise WrongSnapshot("a piece of it holds no updates") from error

    def end(self) -> bool:
        if self._head is None or self._head[1] != len(self._executed):
            raise WrongSnapshot("updates are missing in it")
        return True

    def adopt(self) -> None:
        self.end()
        assert self._head is not None
        machine = self._machine
        machine.slots, machine.executed = self._head[0], self._executed
        machine.slot_of = {(client_id, number): seq for seq, client_id, number, _ in self._executed}
        machine.on_restored()


class ProtocolProcess:
    """A server that is the protocol over a `RecordingStateMachine`. It answers each update with the update's slot."""

    def __init__(self, parts: ServerParts) -> None:
        self.state_machine = RecordingStateMachine(on_executed=self._executed, on_restored=self._restored)
        self.clock = parts.clock
        self.transport = parts.transport
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
        """Call `drained` at once, so that the cluster stops this server: its clients can ask any other server."""
        drained()

    def retire(self, drained: Callable[[], None]) -> None:
        """Hand the view over, if this server leads, and call `drained` then (Departure 59)."""
        self.replica.perform(self.replica.hand_over.hand_over_to_stop)
        self._wait_for_hand_over(drained)

    def _wait_for_hand_over(self, drained: Callable[[], None]) -> None:
        if self.replica.hand_over.is_stopping and not self.replica.turn.stopped:
            self.clock.callLater(DRAIN_LOOK_SECONDS, self._wait_for_hand_over, drained)
        else:
            drained()

    def stop(self) -> None:
        self.replica.stop()

    def facts(self) -> Facts:
        return {**facts_of_history(self.replica), "history": list(self.state_machine.executed)}

    def models(self) -> Models:
        return {}

    def follow(self, models: Models) -> None:
        """Do nothing: no checker around this server has a model of its own."""

    def submit(self, update: ClientUpdate) -> None:
        """Take an update from a client of this server."""
        self.replica.perform(self._introduce, update)

    def _introduce(self, update: ClientUpdate) -> None:
        """Give an update of a client to the protocol.

        An update that this server has executed already is only answered again, from memory and behind the durability
        gate (G16).
        """
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

    def _restored(self) -> None:
        """Answer the updates of this server's clients that have run in slots of which a snapshot has taken the
        place."""
        slot_of = self.state_machine.slot_of
        for identity in sorted(self._waiting & slot_of.keys()):
            self._waiting.discard(identity)
            self.replica.turn.call(self._answered, identity, slot_of[identity])


def facts_of_history(replica: Replica) -> Facts:
    """The facts about the executed slots that a server has below its state machine."""
    queue = replica.ordered_queue
    return {
        "digest": queue.digests.head,
        "Last_Executed": list(queue.last_executed.timestamps.items()),
        "ordered time": queue.time.time_ms,
        "oldest valid slot": queue.oldest_valid,
    }


@define(eq=False)
class RunningServer:
    """The present incarnation of a server."""

    process: SimulatedProcess
    server_clock: ServerClock
    storage: SimulatedStorage
    transport: SimulatedTransport
    is_draining: bool = False
    """Whether the server was told to drain. It stops by itself, after `DRAIN_SECONDS` at the latest."""


@define(eq=False)
class SimulatedServer:
    """A server over all its incarnations: its disk, and how its disk and its clock behave."""

    disk: MemoryDisk = field(factory=MemoryDisk)
    incarnations: int = 0
    running: RunningServer | None = None
    sync_seconds: tuple[float, float] = (0.0005, 0.002)
    """Shortest and longest time, in seconds, that one write to the disk takes."""
    rate: float = 1.0
    """Rate of the server's clock from its next start on; 1.0 is right."""
    clock_offset: float = 0.0
    """Seconds by which the server's clock will be ahead at its next start."""
    is_disk_full: bool = False
    """Whether the server's disk is full when the server starts.

    If so, the first write of each new incarnation fails, and the server stops itself. The value has no effect on an
    incarnation that runs already.
    """

    def describe(self) -> str:
        """The state of the server in words, for its line in `SimulatedCluster.picture`."""
        if self.running is None:
            return "down"
        data = self.running.process.replica.data
        return (
            f"{data.server.state.value} attempted={data.views.last_attempted} "
            f"installed={data.views.last_installed} aru={data.ordering.local_aru} "
            f"top={data.ordering.global_history.top} pending={len(data.clients.pending_updates)} "
            f"queued={len(data.clients.update_queue)}{' paused' if self.running.server_clock.paused else ''}"
        )
