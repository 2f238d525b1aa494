"""The safety of the whole cluster, judged from outside.

The checkers see each server's messages when they leave, its executions, its answers, and its disk at that moment. They
do not know how the server comes to its decisions, and they remember everything over all crashes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import define, field

from pfsb.paxos.messages import (
    VOTES,
    Accept,
    ClientUpdate,
    Confirmed,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    SnapshotPart,
    ViewChange,
)
from pfsb.paxos.snapshot import SnapshotName
from pfsb.simulator.checkers.durability_checker import DurabilityChecker
from pfsb.simulator.checkers.electorate import Electorate
from pfsb.simulator.checkers.message_checker import MessageChecker
from pfsb.simulator.checkers.position_checker import PositionChecker
from pfsb.simulator.checkers.snapshot_checker import SnapshotChecker
from pfsb.simulator.checkers.update_checker import BindingChecker, Identity, RelayChecker
from pfsb.simulator.checkers.violation import Violation, forbid, require
from pfsb.storage.memory import MemoryDisk
from pfsb.support.views import epoch_of

BINDING = VOTES | {Proposal, Prepare, Ordered}
"""Kinds of messages that a server without its state must not send."""
OF_VOTERS = (ViewChange, PrepareOK, Accept, Confirmed)
"""Kinds of messages that only a server which votes in their epoch may send."""
Value = tuple[int, tuple[tuple[str, int, bytes], ...]]
"""The effect of one slot: the state machine's time in milliseconds, and the updates that ran in the slot.

Each update is (client_id, timestamp, payload). Updates that were filtered as repetitions or too old are left out.
"""


@define
class ExecutionChecker:
    """Checks S1, S2 and S3 (section 3 of the paper), over all servers and all their incarnations.

    A server may execute a slot in memory while the record of its own ACCEPT is still on the way to its disk. If the
    server crashes then, that vote is lost, and the slot need not be chosen. An execution therefore counts only from the
    moment when the durability gate lets out its effects: then it is `settled`.
    """

    values: dict[int, Value] = field(factory=dict)
    batches: dict[tuple[int, int], bytes] = field(factory=dict)
    """(seq, epoch of the membership that fills the slot) -> the batch that the first server has ordered there."""
    digests: dict[int, bytes] = field(factory=dict)
    introduced: dict[Identity, bytes] = field(factory=dict)
    executed_up_to: dict[int, int] = field(factory=dict)
    """Server -> the last slot that it has executed in its present incarnation."""
    settled_up_to: dict[int, int] = field(factory=dict)
    epoch_at: Callable[[int], int] = lambda seq: 0
    """Function that returns the epoch that fills a slot, as far as is known."""
    _ran: dict[int, dict[Identity, int]] = field(factory=dict)
    """Server -> update -> the slot in which the update ran, in the server's present incarnation."""

    def introduce(self, update: ClientUpdate) -> None:
        known = self.introduced.setdefault((update.client_id, update.timestamp), update.payload)
        assert known == update.payload, "a client repeats what it asked for, or asks under another number"

    def started(self, server_id: int) -> None:
        self.executed_up_to[server_id] = self.settled_up_to[server_id] = 0
        self._ran[server_id] = {}

    def executed(self, server_id: int, seq: int, updates: Sequence[ClientUpdate]) -> None:
        expected = self.executed_up_to[server_id] + 1
        require(seq == expected, f"server {server_id} executes slot {seq} where {expected} is next")
        self.executed_up_to[server_id] = seq
        for update in updates:
            self._took_effect(server_id, seq, update)

    def settled(self, server_id: int, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self.settled_up_to[server_id] = seq
        value = (time_ms, tuple((u.client_id, u.timestamp, u.payload) for u in updates))
        known = self.values.setdefault(seq, value)
        require(known == value, f"S1: slot {seq} is {known} elsewhere, {value} at server {server_id}")

    def ordered(self, server_id: int, seq: int, batch: bytes, made_in: int = 0) -> None:
        """Check that no other server has ordered another batch in this slot than this server has, in the epoch
        `made_in` (S1). If a later epoch fills the slot, the batch is void.

        The slot need not be executed yet: a slot before it may still be missing.
        """
        epoch = self.epoch_at(seq)
        if made_in < epoch:
            return
        known = self.batches.setdefault((seq, epoch), batch)
        require(known == batch, f"S1: slot {seq} is ordered as {known!r} elsewhere, as {batch!r} at server {server_id}")

    def digest(self, server_id: int, seq: int, digest: bytes) -> None:
        known = self.digests.setdefault(seq, digest)
        require(known == digest, f"after slot {seq} server {server_id} has another digest than others")

    def restored(self, server_id: int, seq: int) -> None:
        """Let a server go on from a snapshot of slot `seq`: it has run what other servers have run up to there."""
        before = self.executed_up_to[server_id]
        require(seq > before, f"server {server_id} has executed up to {before}, and goes back to a snapshot of {seq}")
        self.executed_up_to[server_id] = seq
        for skipped in range(before + 1, seq + 1):
            require(
                skipped in self.values, f"server {server_id} has a snapshot of slot {seq}, and nobody ran {skipped}"
            )
            for client_id, timestamp, _ in self.values[skipped][1]:
                self._ran[server_id].setdefault((client_id, timestamp), skipped)

    def _took_effect(self, server_id: int, seq: int, update: ClientUpdate) -> None:
        identity = (update.client_id, update.timestamp)
        payload = self.introduced.get(identity)
        require(payload == update.payload, f"S2: nobody introduced {update}, executed by server {server_id} at {seq}")
        before = self._ran[server_id].setdefault(identity, seq)
        require(before == seq, f"S3: server {server_id} ran {identity} at {before} and again at {seq}")


@define
class AnswerChecker:
    """Checks that all answers to one update name the same slot, the one in which the update ran.

    `ClusterChecker.answered` checks that the slot is on the disks of a majority, so that it survives every crash
    (docs/architecture.rst).
    """

    answered: dict[Identity, int] = field(factory=dict)
    """Update -> the slot in which it ran, as the first answer said."""

    def answer(self, identity: Identity, seq: int) -> None:
        known = self.answered.setdefault(identity, seq)
        require(known == seq, f"{identity} was answered with slot {known}, and now with {seq}")


@define
class ClusterChecker:
    """All checkers of the protocol for one cluster, which reports its messages, executions and answers here.

    `digest(server_id, seq)` is called each time that a server's execution of slot `seq` is settled. It returns that
    server's digest of all slots up to `seq`, or None if the server no longer keeps this digest.
    """

    disks: dict[int, MemoryDisk]
    digest: Callable[[int, int], bytes | None]
    horizon_slots: int = 100_000
    """In one view, a leader must not bind an update to two slots that are at most this number of slots apart.

    Equal to `horizon_slots` of the servers' settings.
    """
    founders: Sequence[int] | None = None
    """Ids of the servers with which the cluster has begun; None: all that have a disk."""
    execution: ExecutionChecker = field(factory=ExecutionChecker)
    messages: MessageChecker = field(factory=MessageChecker)
    answers: AnswerChecker = field(factory=AnswerChecker)
    positions: PositionChecker = field(factory=PositionChecker)
    snapshots: SnapshotChecker = field(factory=SnapshotChecker)
    amnesiacs: Collection[int] = ()
    """Ids of the servers whose disk was lost and not given back: `disks` has their lost disks."""
    without_state: set[int] = field(factory=set)
    """Servers that have started without the snapshot which they need, until a record names another one (Departure
    58)."""
    electorate: Electorate = field(init=False)
    durability: DurabilityChecker = field(init=False)
    bindings: BindingChecker = field(init=False)
    relays: RelayChecker = field(init=False)

    @bindings.default
    def _make_bindings(self) -> BindingChecker:
        return BindingChecker(self.horizon_slots)

    @relays.default
    def _make_relays(self) -> RelayChecker:
        return RelayChecker(tuple(self.disks))

    @electorate.default
    def _make_electorate(self) -> Electorate:
        return Electorate(self.disks, tuple(self.disks) if self.founders is None else self.founders)

    @durability.default
    def _make_durability(self) -> DurabilityChecker:
        return DurabilityChecker(self.disks, self.messages, self.electorate)

    def __attrs_post_init__(self) -> None:
        self.messages.era = self.electorate.era
        self.execution.epoch_at = lambda seq: self.electorate.at(seq).epoch

    def started(self, server_id: int) -> None:
        self.execution.started(server_id)
        self.messages.started(server_id)
        self.durability.started(server_id)
        disk = self.disks[server_id]
        self.without_state.discard(server_id)
        if disk.gone and disk.lost_snapshot is not None:
            self.without_state.add(server_id)
            self.messages.arus.begins_anew(server_id)

    def sent(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        for message in messages:
            if server_id in self.without_state and type(message) in BINDING:
                raise Violation(f"server {server_id} has lost its state, and sends {message}")
            self.messages.sent(server_id, message)
            self.durability.sent(server_id, message)
            if isinstance(message, OF_VOTERS):
                self._votes(server_id, message)
            match message:
                case Proposal():
                    forbid(self.bindings.proposed(message))
                case ClientUpdate():
                    forbid(self.relays.sent(server_id, to, message))
                case SnapshotPart():
                    self.snapshots.part(server_id, message.name, message.offset, message.data)

    def _votes(self, server_id: int, message: ViewChange | PrepareOK | Accept | Confirmed) -> None:
        """Require that a server which votes or confirms is a voter of the epoch of its message, and is in that epoch or
        a later one by its disk."""
        epoch = epoch_of(message.attempted if isinstance(message, ViewChange) else message.view)
        on_disk = self.electorate.epoch_on_disk(server_id)
        require(epoch <= on_disk, f"server {server_id} is in epoch {on_disk} on disk, but votes in epoch {epoch}")
        votes = server_id in self.electorate.of(epoch).voters
        require(votes, f"server {server_id} is no voter of epoch {epoch}, and sends {type(message).__name__}")

    def executed(self, server_id: int, seq: int, updates: Sequence[ClientUpdate]) -> None:
        self.execution.executed(server_id, seq, updates)

    def settled(self, server_id: int, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self.execution.settled(server_id, seq, time_ms, updates)
        if (digest := self.digest(server_id, seq)) is not None:
            self.execution.digest(server_id, seq, digest)

    def settled_by_snapshot(self, server_id: int, seq: int) -> None:
        """Check that a snapshot is on disk from which a server goes on. Called when messages and answers may leave that
        rest on it."""
        on_disk = self.disks[server_id].snapshot_seq
        require(
            on_disk >= seq or server_id in self.amnesiacs,
            f"server {server_id} goes on from a snapshot of {seq}, and has that of {on_disk} on disk",
        )
        self.execution.settled_up_to[server_id] = seq

    def named(self, server_id: int, name: SnapshotName, disk: MemoryDisk) -> None:
        """Check a snapshot when a record on a server's disk names it. From now on a restart of the server begins with
        it, and needs the slots that follow."""
        self.snapshots.named(server_id, name, disk.snapshots.get(name))
        self.durability.named.add((server_id, name))
        self.without_state.discard(server_id)
        gap = disk.first_gap()
        require(gap is None, f"server {server_id} has a snapshot of slot {name.seq} on disk, and lacks slot {gap}")

    def answered(self, identity: Identity, seq: int) -> None:
        self.answers.answer(identity, seq)
        require(seq in self.execution.values, f"{identity} was answered with slot {seq}, which no server has executed")
        value = self.execution.values[seq][1]
        require(identity in [row[:2] for row in value], f"{identity} was answered with slot {seq}, which holds {value}")
        holders = [i for i, disk in self.disks.items() if disk.has(seq)]
        is_majority = self.electorate.is_majority(holders, seq)
        require(is_majority, f"slot {seq} is answered, and only on the disks of {holders}")

    def all_equal(self, server_ids: Sequence[int]) -> bool:
        """Whether each of these servers has executed up to one slot, the same for all, and has settled all its
        executions."""
        execution = self.execution
        arus = {up_to[i] for i in server_ids for up_to in (execution.executed_up_to, execution.settled_up_to)}
        return len(arus) == 1
