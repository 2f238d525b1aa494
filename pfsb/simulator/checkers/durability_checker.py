"""Durability: a message must rest on records that are on disk at the moment when it leaves its server."""

from __future__ import annotations

from attrs import define, field

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    GloballyOrderedUpdate,
    Message,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    VCProof,
)
from pfsb.simulator.checkers.message_checker import MessageChecker
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.storage.effect import ORDERED_VIEW, StoredSlot
from pfsb.storage.memory import MemoryDisk


@define
class DurabilityChecker:
    """No message leaves a server before the records that it rests on are on disk (docs/internals/turn.rst).

    The checker compares each message with the disks at the moment when it leaves.
    """

    disks: dict[int, MemoryDisk]
    messages: MessageChecker
    _asked: dict[int, int] = field(factory=dict)
    """View -> the highest Local_Aru that its leader sent in a PREPARE."""
    _promises: dict[tuple[int, int], dict[int, PrepareOK]] = field(factory=dict)
    """(server, view) -> part number -> the parts of its PREPARE_OK so far."""

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
                require(message.local_aru <= aru, f"server {server_id} has {aru} on disk, but sends {message}")
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
        """Require that a majority of disks holds this batch, as it will for ever: later records repeat the batch."""
        holders = sum(self._holds(disk, seq, batch.data) for disk in self.disks.values())
        require(2 * holders > len(self.disks), f"slot {seq}: {holders} disks hold what was chosen ({why})")

    def _installed(self, server_id: int, view: int, message: Message) -> None:
        views = self.disks[server_id].contents.views
        installed = views.last_installed if views else 0
        require(installed >= view, f"server {server_id} has view {installed} on disk, but sends {message}")

    def _accepted(self, server_id: int, view: int, seq: int) -> None:
        """Require that the vote is on disk, or that the server has voted later, or that the slot is chosen (G18).

        If the slot is chosen, the vote may even be for another value of a leader that was deposed. Such a vote is
        harmless: a majority holds the chosen value, so the other one can never get a majority.
        """
        slot = self._slot(server_id, seq)
        proposed = self.messages.proposals.get((view, seq))
        assert proposed is not None, f"server {server_id} votes for what nobody proposed: view {view}, slot {seq}"
        if slot is None or not (slot.view == ORDERED_VIEW or slot.view > view or slot.batch.data == proposed):
            require(self._is_chosen(seq), f"server {server_id} votes in view {view} at {seq}, with {slot} on disk")

    def _promised(self, server_id: int, message: PrepareOK) -> None:
        """Require that a promise is complete: its data lists hold all votes on disk of older views (G19)."""
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
                require(seq in reported, f"server {server_id} keeps quiet about its vote at {seq} in {message}")

    def _durable_aru(self, server_id: int) -> int:
        """The Local_Aru after a restart: the one on disk, and the slots on disk right above it that are ordered."""
        aru = self.disks[server_id].local_aru
        while (slot := self._slot(server_id, aru + 1)) is not None and slot.view == ORDERED_VIEW:
            aru += 1
        return aru

    def _is_chosen(self, seq: int) -> bool:
        """Whether a majority of disks holds one batch for this slot."""
        batches = [disk.contents.slots[seq].batch.data for disk in self.disks.values() if seq in disk.contents.slots]
        return any(2 * batches.count(data) > len(self.disks) for data in batches)

    def _slot(self, server_id: int, seq: int) -> StoredSlot | None:
        return self.disks[server_id].contents.slots.get(seq)

    @staticmethod
    def _holds(disk: MemoryDisk, seq: int, data: bytes) -> bool:
        slot = disk.contents.slots.get(seq)
        return slot is not None and slot.batch.data == data
