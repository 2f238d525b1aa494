"""Defects of a leader that tells what is ordered, and of followers that are told (Departure 56)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfsb.paxos.data_structures import DataStructures, Slot
from pfsb.paxos.messages import Batch, Message, Ordered, Proposal
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override
from pfsb.simulator.defects.digests import flip_bits

DEFECTS = Defects()


def _connect(process: Any) -> None:
    """Let global ordering call the changed `tell`, if the leader of this cluster tells what is ordered."""
    replica = process.replica
    if replica.membership.leader_tells:
        replica.ordering.on_majority = replica.telling.tell


Order = Callable[[int, Slot, float], None]


@DEFECTS.add("told-before-disk", "Departure 56", "the leader tells what is ordered before its own vote is on disk")
def _told_before_disk(process: Any) -> None:
    @instead_of(process.replica.telling, "tell")
    def broken(tell: Callable[[Proposal, Slot], None], held: Proposal, slot: Slot) -> None:
        slot.written_at = 0
        tell(held, slot)

    _connect(process)


@DEFECTS.add("told-never", "Departure 56", "the leader of five servers tells nobody what is ordered")
def _told_never(process: Any) -> None:
    override(process.replica.telling, "tell", lambda _: do_nothing)
    _connect(process)


@DEFECTS.add(
    "told-without-proposal", "Departure 56", "a slot that is told is ordered as a no-op if its PROPOSAL is late"
)
def _told_without_proposal(process: Any) -> None:
    @instead_of(process.replica.ordering, "order_if_told")
    def broken(order: Order, seq: int, slot: Slot, late: float = 0.0) -> None:
        if slot.proposal is None and slot.told is not None:
            view, _ = slot.told
            slot.proposal = Proposal(process.replica.membership.leader_of(view), view, seq, Batch.of(0, ()))
            slot.told = view, slot.proposal.batch.digest
        order(seq, slot, late)


@DEFECTS.add("told-of-another-view", "Departure 56", "what is told counts for a proposal that is held of another view")
def _told_of_another_view(process: Any) -> None:
    @instead_of(process.replica.ordering, "order_if_told")
    def broken(order: Order, seq: int, slot: Slot, late: float = 0.0) -> None:
        if slot.proposal is not None and slot.told is not None and slot.told[0] != slot.proposal.view:
            slot.told = slot.proposal.view, slot.proposal.batch.digest
        order(seq, slot, late)


@DEFECTS.add(
    "told-digest-ignored",
    "Departure 56",
    "what is told counts for whatever batch is held in that view; at one server a bit flips in every tenth PROPOSAL",
)
def _told_digest_ignored(process: Any) -> None:
    if process.replica.membership.ids.index(process.replica.membership.server_id) == 1:
        flip_bits(process)

    @instead_of(process.replica.ordering, "order_if_told")
    def broken(order: Order, seq: int, slot: Slot, late: float = 0.0) -> None:
        if slot.proposal is not None and slot.told is not None:
            slot.told = slot.told[0], slot.proposal.batch.digest
        order(seq, slot, late)


@DEFECTS.add("told-by-anybody", "Departure 56", "an ORDERED counts, also if its sender does not lead its view")
def _told_by_anybody(process: Any) -> None:
    replica = process.replica

    @instead_of(replica, "dispatch")
    def broken(dispatch: Callable[[Message, int], str | None], message: Message, sender: int) -> str | None:
        if isinstance(message, Ordered) and message.view == replica.data.views.last_installed:
            replica.telling.on_ordered(message)
            return None
        return dispatch(message, sender)


@DEFECTS.add("told-of-a-view-that-is-over", "Departure 56", "an ORDERED of an old view counts in a later one")
def _told_of_a_view_that_is_over(process: Any) -> None:
    replica = process.replica

    @instead_of(replica, "dispatch")
    def broken(dispatch: Callable[[Message, int], str | None], message: Message, sender: int) -> str | None:
        if isinstance(message, Ordered) and 0 < message.view < replica.data.views.last_installed:
            if replica.membership.leader_of(message.view) == sender:
                replica.telling.on_ordered(message)
            return None
        return dispatch(message, sender)


class _ForgetsWhatIsTold(DataStructures):
    __slots__ = ()

    def apply_ordered(self, view: int, slot: Slot, digest: bytes) -> None:
        if slot.proposal is not None and slot.proposal.view == view:
            super().apply_ordered(view, slot, digest)


@DEFECTS.add("told-too-early", "Departure 56", "what is told of a slot before its PROPOSAL comes is forgotten")
def _told_too_early(process: Any) -> None:
    become(process.replica.data, _ForgetsWhatIsTold)


class _KeepsTheLatest(DataStructures):
    __slots__ = ()

    def apply_ordered(self, view: int, slot: Slot, digest: bytes) -> None:
        if slot.told is None or view >= slot.told[0]:
            slot.told = view, digest


@DEFECTS.add("told-of-far-views", "Departure 37", "of what is told of a slot, that of the highest view is kept")
def _told_of_far_views(process: Any) -> None:
    become(process.replica.data, _KeepsTheLatest)
