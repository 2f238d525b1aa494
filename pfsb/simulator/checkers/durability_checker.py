"""Durability: when a message leaves a server, the records that the message relies on must be on disk."""

from __future__ import annotations

from attrs import define, field

from pfsb.paxos.messages import (
    Accept,
    Alive,
    Batch,
    GloballyOrderedUpdate,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    SnapshotOffer,
    VCProof,
)
from pfsb.paxos.snapshot import SnapshotName
from pfsb.simulator.checkers.electorate import Electorate
from pfsb.simulator.checkers.message_checker import MessageChecker
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.storage.effect import ORDERED_VIEW, StoredSlot
from pfsb.storage.memory import MemoryDisk


@define
class DurabilityChecker:
    """Checks that no message leaves before the records that it relies on are on disk (docs/internals/turn.rst).

    The checker compares each message with the simulated disks at the moment when the message leaves its server.
    """

    disks: dict[int, MemoryDisk]
    messages: MessageChecker
    electorate: Electorate
    named: set[tuple[int, SnapshotName]] = field(factory=set)
    """(server, name) of each snapshot that a record on the disk of the server has named."""
    _asked: dict[int, int] = field(factory=dict)
    """View -> the highest Local_Aru that its leader sent in a PREPARE."""
    _promises: dict[tuple[int, int], dict[int, PrepareOK]] = field(factory=dict)
    """(server, view) -> part number -> that part of the PREPARE_OK that the server has sent in the view."""

    _voters: dict[tuple[int, int, bytes], set[int]] = field(factory=dict)
    """(view, slot, digest of the batch) -> the servers that have sent an ACCEPT for that."""

    def started(self, server_id: int) -> None:
        for key in [key for key in self._promises if key[0] == server_id]:
            del self._promises[key]

    def sent(self, server_id: int, message: Message) -> None:
        match message:
            case Accept():
                self._installed(server_id, message.view, message)
                for seq, digest in message.votes():
                    self._accepted(server_id, message.view, seq, digest)
                    self._voters.setdefault((message.view, seq, digest), set()).add(server_id)
            case Ordered():
                self._installed(server_id, message.view, message)
                for seq, digest in message.votes():
                    self._told(server_id, message.view, seq, digest)
            case Alive():
                self.electorate.saw(message.view)
                self._installed(server_id, message.view, message)
                aru = self._durable_aru(server_id)
                require(message.local_aru <= aru, f"server {server_id} has {aru} on disk, but sends {message}")
            case VCProof():
                self._installed(server_id, message.installed, message)
            case Proposal():
                self.electorate.saw(message.view)
                self._installed(server_id, message.view, message)
            case Prepare():
                self._installed(server_id, message.view, message)
                self._asked[message.view] = max(self._asked.get(message.view, 0), message.local_aru)
            case PrepareOK():
                self._installed(server_id, message.view, message)
                self._promised(server_id, message)
            case ReconciliationReply():
                for update in message.updates:
                    self.chosen(server_id, update.seq, update.batch, "calls it ordered")
            case SnapshotOffer():
                # A server may still offer a snapshot before the one on its disk: it has not been told yet that the
                # record of the latter is on disk, or the offer has waited for a slow write.
                disk, name = self.disks[server_id], message.name
                named = disk.contents.snapshot
                was_named = (server_id, name) in self.named
                is_there = named is not None and (name == named or (name.seq < named.seq and was_named))
                require(is_there, f"server {server_id} has {named} on disk, but sends {message}")

    def chosen(self, server_id: int, seq: int, batch: Batch, why: str) -> None:
        """Require that a majority of the servers that vote on this slot has this batch in it on disk, as server
        `server_id` says; `why` tells, in the text of a violation, how.

        The check can be made at any time after the batch was chosen, since every later record of the slot holds the
        same batch. Nothing is required if the server is in an epoch that is over for the slot: its batch is void.
        """
        holders = [i for i, disk in self.disks.items() if self._holds(disk, seq, batch.data)]
        if not self.electorate.is_majority(holders, seq) and not self.electorate.is_void(seq, server_id):
            raise Violation(f"slot {seq}: {len(holders)} disks hold what was chosen (server {server_id} {why})")

    def _installed(self, server_id: int, view: int, message: Message) -> None:
        contents = self.disks[server_id].contents
        installed = contents.views.last_installed if contents.views else 0
        if contents.members is not None:
            # A server that starts is in a view of its epoch, also if a crash has cut the group behind the epoch.
            installed = max(installed, contents.members.first_view)
        if installed < view:  # the text may have a hundred thousand characters: it is made only for a violation
            raise Violation(f"server {server_id} has view {installed} on disk, but sends {message}")

    def _accepted(self, server_id: int, view: int, seq: int, digest: bytes) -> None:
        """Require that the disk of a server holds the record that an ACCEPT which it sends relies on, if one is needed
        (G18).

        The disk must hold the slot as ordered, with the batch that the ACCEPT names and this view (Departure 39), or
        with a proposal of a later view. The same batch with an earlier view is not enough for a vote in this view:
        after a crash the server would promise too little. Otherwise the slot must be chosen: a
        majority of disks must hold one batch for it. If the slot is chosen, the ACCEPT may even be for a different
        batch, of a leader that was deposed. Such an ACCEPT is harmless: a majority holds the chosen batch, so the
        different batch can never get a majority.
        """
        is_proposed = (view, seq) in self.messages.proposals
        require(is_proposed, f"server {server_id} votes for what nobody proposed: view {view}, slot {seq}")
        if not self._has_voted(server_id, view, seq, digest):
            slot = self._slot(server_id, seq)
            require(self._is_chosen(seq), f"server {server_id} votes in view {view} at {seq}, with {slot} on disk")

    def _has_voted(self, server_id: int, view: int, seq: int, digest: bytes) -> bool:
        """Whether the disk of a server holds its vote for this batch in this view, or something later in the slot, or a
        snapshot that stands for the slot."""
        if seq <= self.disks[server_id].gone:
            return True
        slot = self._slot(server_id, seq)
        if slot is None:
            return False
        return slot.view == ORDERED_VIEW or slot.view > view or (slot.view == view and slot.batch.digest == digest)

    def _told(self, server_id: int, view: int, seq: int, digest: bytes) -> None:
        """Require that a majority has voted for the batch that an ORDERED names for this slot, and has it on disk
        (Departure 55).

        Another server counts if its ACCEPT has left it. The sender, the leader of the view, counts if its disk has its
        vote in this view. If it has not, the others must be a majority without the sender.
        """
        is_proposed = (view, seq) in self.messages.proposals
        require(is_proposed, f"server {server_id} tells of what nobody proposed: view {view}, slot {seq}")
        others = self._voters.get((view, seq, digest), set()) - {server_id}
        holders = [other for other in others if self._holds_named(self.disks[other], seq, digest)]
        if self._has_voted(server_id, view, seq, digest):
            holders.append(server_id)
        if not self.electorate.is_majority(holders, seq) and not self.electorate.is_void(seq, server_id):
            raise Violation(f"slot {seq}: {len(holders)} disks hold what server {server_id} tells as ordered")

    def _promised(self, server_id: int, message: PrepareOK) -> None:
        """Require, when all parts of a PREPARE_OK have been sent, that its data list leaves nothing out (G19).

        The data list must report each slot above the Local_Aru of the leader and of this server for which the server's
        disk holds a proposal that was accepted in an older view.
        """
        if self.messages.leads(server_id, message.view):
            # A PREPARE_OK of the leader itself only asks for a part of another promise (Departure 47); its own
            # promise is never sent.
            return
        for entry in message.data_list:
            if isinstance(entry, GloballyOrderedUpdate):
                self.chosen(server_id, entry.seq, entry.batch, "reports it as ordered")
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
            if seq > asked and 0 < slot.view < message.view and seq not in reported:
                raise Violation(f"server {server_id} keeps quiet about its vote at {seq} in {message}")

    def _durable_aru(self, server_id: int) -> int:
        """The Local_Aru that the server would have after a restart.

        This is the Local_Aru on disk, raised by the ordered slots on disk that follow it without a gap.
        """
        aru = self.disks[server_id].local_aru
        while (slot := self._slot(server_id, aru + 1)) is not None and slot.view == ORDERED_VIEW:
            aru += 1
        return aru

    def _is_chosen(self, seq: int) -> bool:
        """Whether a majority of the servers that vote on this slot has the same batch for it on disk.

        A slot that a disk need not hold any more counts as chosen: a server forgets a slot only when all servers have
        it, and a snapshot stands only for slots that were executed.
        """
        if any(seq <= disk.gone for disk in self.disks.values()):
            return True
        voters = self.electorate.at(seq).voters
        slots = [slot for i in voters if (slot := self._slot(i, seq)) is not None]
        batches = [slot.batch.data for slot in slots]
        return any(2 * batches.count(data) > len(voters) for data in batches)

    def _slot(self, server_id: int, seq: int) -> StoredSlot | None:
        return self.disks[server_id].contents.slots.get(seq)

    @staticmethod
    def _holds_named(disk: MemoryDisk, seq: int, digest: bytes) -> bool:
        slot = disk.contents.slots.get(seq)
        return seq <= disk.gone or (slot is not None and slot.batch.digest == digest)

    @staticmethod
    def _holds(disk: MemoryDisk, seq: int, data: bytes) -> bool:
        slot = disk.contents.slots.get(seq)
        return seq <= disk.gone or (slot is not None and slot.batch.data == data)
