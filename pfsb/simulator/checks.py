"""What must hold for the whole cluster, for ever: judged by what is seen from outside.

These checks see what leaves a server, what it executes, what it answers and what is on its disk at that moment. They
know nothing of how the server comes to it. What they remember outlives every crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    ClientUpdate,
    GloballyOrderedUpdate,
    Message,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    State,
    VCProof,
)
from pfsb.simulator.update_checks import BindingCheck, Identity, RelayCheck
from pfsb.storage.memory import MemoryDisk
from pfsb.storage.shared import ORDERED_VIEW, Slot

Value = tuple[int, tuple[tuple[str, int, bytes], ...]]
"""What executing one slot came to: the time, and (client_id, timestamp, payload) of each update that took effect."""


class Violation(AssertionError):
    """The cluster has broken a promise; the text says which, and where."""


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise Violation(text)


def _forbid(what_is_wrong: str) -> None:
    _require(not what_is_wrong, what_is_wrong)


@define
class ExecutionCheck:
    """S1, S2 and S3 (section 3), over all servers and all their lives.

    A server may execute in memory what is chosen only if its own vote gets to its disk (design part 3). So what it
    executes counts for the others from the moment that its door lets out what comes of it: then it is `settled`.
    """

    values: dict[int, Value] = field(factory=dict)
    digests: dict[int, bytes] = field(factory=dict)
    introduced: dict[Identity, bytes] = field(factory=dict)
    executed_up_to: dict[int, int] = field(factory=dict)
    """By server, in its present life."""
    settled_up_to: dict[int, int] = field(factory=dict)
    _ran: dict[int, dict[Identity, int]] = field(factory=dict)
    """By server, in its present life: which slot each update took effect in."""

    def introduce(self, update: ClientUpdate) -> None:
        known = self.introduced.setdefault((update.client_id, update.timestamp), update.payload)
        assert known == update.payload, "a client repeats what it asked for, or asks under another number"

    def started(self, server_id: int) -> None:
        self.executed_up_to[server_id] = self.settled_up_to[server_id] = 0
        self._ran[server_id] = {}

    def executed(self, server_id: int, seq: int, updates: Sequence[ClientUpdate]) -> None:
        expected = self.executed_up_to[server_id] + 1
        _require(seq == expected, f"server {server_id} executes slot {seq} where {expected} is next")
        self.executed_up_to[server_id] = seq
        for update in updates:
            self._took_effect(server_id, seq, update)

    def settled(self, server_id: int, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self.settled_up_to[server_id] = seq
        value = (time_ms, tuple((u.client_id, u.timestamp, u.payload) for u in updates))
        known = self.values.setdefault(seq, value)
        _require(known == value, f"S1: slot {seq} is {known} elsewhere, {value} at server {server_id}")

    def digest(self, server_id: int, seq: int, digest: bytes) -> None:
        known = self.digests.setdefault(seq, digest)
        _require(known == digest, f"after slot {seq} server {server_id} has another digest than others")

    def _took_effect(self, server_id: int, seq: int, update: ClientUpdate) -> None:
        identity = (update.client_id, update.timestamp)
        payload = self.introduced.get(identity)
        _require(payload == update.payload, f"S2: nobody introduced {update}, executed by server {server_id} at {seq}")
        before = self._ran[server_id].setdefault(identity, seq)
        _require(before == seq, f"S3: server {server_id} ran {identity} at {before} and again at {seq}")


@define
class Advertised:
    """What each server tells of itself: a restart does not take it back.

    Within one life an older message may leave after a newer one, having waited behind the door.
    """

    what: str
    _highest: dict[int, int] = field(factory=dict)
    _before: dict[int, int] = field(factory=dict)
    """The highest of each server in its earlier lives."""

    def started(self, server_id: int) -> None:
        self._before[server_id] = self._highest.get(server_id, 0)

    def tell(self, server_id: int, now: int) -> None:
        before = self._before[server_id]
        _require(now >= before, f"server {server_id} told of {self.what} {before} before it crashed, and now of {now}")
        self._highest[server_id] = max(now, self._highest.get(server_id, 0))


@define
class NetworkCheck:
    """One leader a view, one proposal a view and number, one value a number; nothing advertised is forgotten."""

    leaders: dict[int, tuple[int, int]] = field(factory=dict)
    """view -> (server, life) that prepares, leads or proposes in it (G10)."""
    proposals: dict[tuple[int, int], bytes] = field(factory=dict)
    """(view, seq) -> the batch proposed."""
    ordered: dict[int, bytes] = field(factory=dict)
    """seq -> the batch that somebody called ordered."""
    views: Advertised = field(factory=lambda: Advertised("view"))
    arus: Advertised = field(factory=lambda: Advertised("Local_Aru"))
    _lives: dict[int, int] = field(factory=dict)

    def started(self, server_id: int) -> None:
        self._lives[server_id] = self._lives.get(server_id, 0) + 1
        self.views.started(server_id)
        self.arus.started(server_id)

    def sent(self, server_id: int, message: Message) -> None:
        match message:
            case Proposal():
                self._leads(server_id, message.view)
                self._proposed(message)
            case Prepare():
                self._leads(server_id, message.view)
            case Alive():
                self._advertises(server_id, message)
            case VCProof():
                self.views.tell(server_id, message.installed)
            case PrepareOK():
                for entry in message.data_list:
                    self._entry(entry)
            case ReconciliationReply():
                for entry in message.updates:
                    self._ordered(entry)

    def _entry(self, entry: Proposal | GloballyOrderedUpdate) -> None:
        if isinstance(entry, Proposal):
            self._proposed(entry)
        else:
            self._ordered(entry)

    def _leads(self, server_id: int, view: int) -> None:
        life = self._lives[server_id]
        known = self.leaders.setdefault(view, (server_id, life))
        _require(known == (server_id, life), f"view {view} is led by {known} and by {(server_id, life)} (server, life)")

    def _proposed(self, message: Proposal) -> None:
        known = self.proposals.setdefault((message.view, message.seq), message.batch.data)
        _require(known == message.batch.data, f"two proposals of view {message.view} at {message.seq}")

    def _ordered(self, message: GloballyOrderedUpdate) -> None:
        known = self.ordered.setdefault(message.seq, message.batch.data)
        _require(known == message.batch.data, f"S1: two batches are called ordered at {message.seq}")

    def _advertises(self, server_id: int, message: Alive) -> None:
        if message.state is State.REG_LEADER:
            self._leads(server_id, message.view)
        self.views.tell(server_id, message.view)
        self.arus.tell(server_id, message.local_aru)


@define
class DoorCheck:
    """Nothing leaves a server that rests on what is not on disk yet (paper.md 6.2; design part 3).

    Compares each message with the disks at the moment it leaves.
    """

    disks: dict[int, MemoryDisk]
    network: NetworkCheck
    _asked: dict[int, int] = field(factory=dict)
    """view -> the highest Local_Aru that its leader sent in a PREPARE."""
    _promises: dict[tuple[int, int], dict[int, PrepareOK]] = field(factory=dict)
    """(server, view) -> the parts of its PREPARE_OK so far."""

    def started(self, server_id: int) -> None:
        for key in [key for key in self._promises if key[0] == server_id]:
            del self._promises[key]

    def sent(self, server_id: int, message: Message) -> None:
        match message:
            case Accept():
                self._installed(server_id, message.view, message)
                for seq in message.seqs:
                    self._accepted(server_id, message.view, seq)
            case Alive():
                self._installed(server_id, message.view, message)
                aru = self._durable_aru(server_id)
                _require(message.local_aru <= aru, f"server {server_id} has {aru} on disk, but sends {message}")
            case VCProof():
                self._installed(server_id, message.installed, message)
            case Proposal():
                self._installed(server_id, message.view, message)
            case Prepare():
                self._installed(server_id, message.view, message)
                self._asked[message.view] = max(self._asked.get(message.view, 0), message.local_aru)
            case PrepareOK():
                self._installed(server_id, message.view, message)
                self._promised(server_id, message)
            case ReconciliationReply():
                for update in message.updates:
                    self.chosen(update.seq, update.batch, f"server {server_id} calls it ordered")

    def chosen(self, seq: int, batch: Batch, why: str) -> None:
        """A majority of disks holds this batch, for ever: what was chosen is only ever replaced by the same."""
        holders = sum(self._holds(disk, seq, batch.data) for disk in self.disks.values())
        _require(2 * holders > len(self.disks), f"slot {seq}: {holders} disks hold what was chosen ({why})")

    def _installed(self, server_id: int, view: int, message: Message) -> None:
        views = self.disks[server_id].contents.views
        installed = views.last_installed if views else 0
        _require(installed >= view, f"server {server_id} has view {installed} on disk, but sends {message}")

    def _accepted(self, server_id: int, view: int, seq: int) -> None:
        """Its vote is on disk, or it has voted in a later view since, or the slot is chosen anyway (G18).

        In the last case the vote may even be for another value, if the leader is a stale one: harmless, since what was
        chosen without that value keeps it from ever having a majority.
        """
        slot = self._slot(server_id, seq)
        proposed = self.network.proposals.get((view, seq))
        assert proposed is not None, f"server {server_id} votes for what nobody proposed: view {view}, slot {seq}"
        if slot is None or not (slot.view == ORDERED_VIEW or slot.view > view or slot.batch.data == proposed):
            _require(self._is_chosen(seq), f"server {server_id} votes in view {view} at {seq}, with {slot} on disk")

    def _promised(self, server_id: int, message: PrepareOK) -> None:
        """The data list of a promise is complete: all votes on disk of older views are in it (G19)."""
        for entry in message.data_list:
            if isinstance(entry, GloballyOrderedUpdate):
                self.chosen(entry.seq, entry.batch, f"server {server_id} reports it as ordered")
        parts = self._promises.setdefault((server_id, message.view), {})
        parts[message.part] = message
        if len(parts) < message.parts:
            return
        reported = {entry.seq for part in parts.values() for entry in part.data_list}
        disk = self.disks[server_id]
        if message.view not in self._asked:
            raise Violation(f"server {server_id} promises to follow in view {message.view}, as nobody asked it to")
        asked = max(self._asked[message.view], disk.local_aru)
        for seq, slot in disk.contents.slots.items():
            if seq > asked and 0 < slot.view < message.view:
                _require(seq in reported, f"server {server_id} keeps quiet about its vote at {seq} in {message}")

    def _durable_aru(self, server_id: int) -> int:
        """How far a restart would get: Local_Aru on disk, and what is known as ordered right above it."""
        aru = self.disks[server_id].local_aru
        while (slot := self._slot(server_id, aru + 1)) is not None and slot.view == ORDERED_VIEW:
            aru += 1
        return aru

    def _is_chosen(self, seq: int) -> bool:
        """Whether a majority of disks holds one batch there."""
        batches = [disk.contents.slots[seq].batch.data for disk in self.disks.values() if seq in disk.contents.slots]
        return any(2 * batches.count(data) > len(self.disks) for data in batches)

    def _slot(self, server_id: int, seq: int) -> Slot | None:
        return self.disks[server_id].contents.slots.get(seq)

    @staticmethod
    def _holds(disk: MemoryDisk, seq: int, data: bytes) -> bool:
        slot = disk.contents.slots.get(seq)
        return slot is not None and slot.batch.data == data


@define
class AnswerCheck:
    """An answered command survives every crash (design part 1): it is chosen on disk, and stays where it was."""

    answered: dict[Identity, int] = field(factory=dict)
    """Which slot it took effect in."""

    def answer(self, identity: Identity, seq: int) -> None:
        known = self.answered.setdefault(identity, seq)
        _require(known == seq, f"{identity} was answered with slot {known}, and now with {seq}")


@define
class ClusterChecks:
    """All checks, fed by the world; `digest` gives the digest of a server after a slot, if it still knows it."""

    disks: dict[int, MemoryDisk]
    digest: Callable[[int, int], bytes | None]
    horizon_slots: int = 100_000
    """For how long an update is not bound again, of the servers' settings."""
    execution: ExecutionCheck = field(factory=ExecutionCheck)
    network: NetworkCheck = field(factory=NetworkCheck)
    answers: AnswerCheck = field(factory=AnswerCheck)
    door: DoorCheck = field(init=False)
    bindings: BindingCheck = field(init=False)
    relays: RelayCheck = field(init=False)

    @bindings.default
    def _make_bindings(self) -> BindingCheck:
        return BindingCheck(self.horizon_slots)

    @relays.default
    def _make_relays(self) -> RelayCheck:
        return RelayCheck(tuple(self.disks))

    @door.default
    def _make_door(self) -> DoorCheck:
        return DoorCheck(self.disks, self.network)

    def started(self, server_id: int) -> None:
        self.execution.started(server_id)
        self.network.started(server_id)
        self.door.started(server_id)

    def sent(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        for message in messages:
            self.network.sent(server_id, message)
            self.door.sent(server_id, message)
            match message:
                case Proposal():
                    _forbid(self.bindings.proposed(message))
                case ClientUpdate():
                    _forbid(self.relays.sent(server_id, to, message))

    def executed(self, server_id: int, seq: int, updates: Sequence[ClientUpdate]) -> None:
        self.execution.executed(server_id, seq, updates)

    def settled(self, server_id: int, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        self.execution.settled(server_id, seq, time_ms, updates)
        if (digest := self.digest(server_id, seq)) is not None:
            self.execution.digest(server_id, seq, digest)

    def answered(self, identity: Identity, seq: int) -> None:
        self.answers.answer(identity, seq)
        _require(seq in self.execution.values, f"{identity} was answered with slot {seq}, which no server has executed")
        value = self.execution.values[seq][1]
        _require(
            identity in [row[:2] for row in value], f"{identity} was answered with slot {seq}, which holds {value}"
        )
        holders = [i for i, disk in self.disks.items() if seq in disk.contents.slots]
        _require(2 * len(holders) > len(self.disks), f"slot {seq} is answered, and only on the disks of {holders}")

    def all_equal(self, server_ids: Sequence[int]) -> bool:
        """Whether these servers have executed the same, and all of it is settled."""
        execution = self.execution
        arus = {up_to[i] for i in server_ids for up_to in (execution.executed_up_to, execution.settled_up_to)}
        return len(arus) == 1
