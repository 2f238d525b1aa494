"""Defects of a leader that tells what is ordered, and of followers that are told (Departure 55)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pfsb.paxos.data_structures import DataStructures, Slot
from pfsb.paxos.messages import Accept, Batch, Message, Ordered, Proposal, State
from pfsb.simulator.defects.defect import Defects, become, do_nothing, instead_of, override
from pfsb.simulator.defects.digests import flip_bits

DEFECTS = Defects()


def _connect(process: Any) -> None:
    """Let the ordering of slots call `TellingHandler.tell` as a defect has changed it, if the leader of this cluster
    tells what is ordered.
    """
    replica = process.replica
    if replica.membership.leader_tells:
        replica.ordering.on_majority = replica.telling.tell


Order = Callable[[int, Slot], None]


@DEFECTS.add("told-before-disk", "Departure 55", "the leader tells what is ordered before its own vote is on disk")
def _told_before_disk(process: Any) -> None:
    @instead_of(process.replica.telling, "tell")
    def broken(tell: Callable[[Proposal, Slot], None], held: Proposal, slot: Slot) -> None:
        slot.written_at = 0
        tell(held, slot)

    _connect(process)


@DEFECTS.add(
    "told-with-unwritten-vote",
    "Departure 55",
    "a leader's own vote that is not on disk counts as one of the majority for which the leader's disk is not needed",
)
def _told_with_unwritten_vote(process: Any) -> None:
    @instead_of(process.replica.telling, "voters_for")
    def broken(voters_for: Callable[[Proposal, Slot], set[int]], held: Proposal, slot: Slot) -> set[int]:
        return voters_for(held, slot) | {process.replica.membership.server_id}


@DEFECTS.add(
    "told-with-own-disk-only", "Departure 55", "votes that come when a slot is ordered do not replace the leader's own"
)
def _told_with_own_disk_only(process: Any) -> None:
    process.replica.telling.count_late = lambda *_: False


@DEFECTS.add(
    "told-after-all-writes", "Departure 55", "the leader tells nothing while a later write than that of its vote runs"
)
def _told_after_all_writes(process: Any) -> None:
    @instead_of(process.replica.turn, "due_messages")
    def broken(due_messages: Callable[[], Sequence[Message]]) -> Sequence[Message]:
        return () if process.replica.turn.is_writing else due_messages()


@DEFECTS.add(
    "told-before-incarnation",
    "Departure 43",
    "the leader tells what rests on a later incarnation of another server before that is noted on disk",
)
def _told_before_incarnation(process: Any) -> None:
    @instead_of(process.replica.turn, "hold_ordered")
    def broken(hold_ordered: Callable[[], None]) -> None:
        if process.replica.data.server.state is not State.REG_LEADER:
            hold_ordered()


@DEFECTS.add(
    "told-slot-not-missed",
    "Departure 55",
    "a told slot whose PROPOSAL is lost is not asked of the leader",
)
def _told_slot_not_missed(process: Any) -> None:
    process.replica.telling.on_missing = process.replica.reconciliation.catch_up_to


@DEFECTS.add("told-never", "Departure 55", "the leader of five servers tells no server what is ordered")
def _told_never(process: Any) -> None:
    override(process.replica.telling, "tell", lambda _: do_nothing)
    _connect(process)


@DEFECTS.add(
    "told-without-proposal", "Departure 55", "a slot that is told is ordered as a no-op if its PROPOSAL is late"
)
def _told_without_proposal(process: Any) -> None:
    @instead_of(process.replica.ordering, "order_if_told")
    def broken(order: Order, seq: int, slot: Slot) -> None:
        if slot.proposal is None and slot.told is not None:
            view, _ = slot.told
            slot.proposal = Proposal(process.replica.membership.leader_of(view), view, seq, Batch.of(0, ()))
            slot.told = view, slot.proposal.batch.digest
        order(seq, slot)


@DEFECTS.add("told-of-another-view", "Departure 55", "what is told counts for a proposal that is held of another view")
def _told_of_another_view(process: Any) -> None:
    @instead_of(process.replica.ordering, "order_if_told")
    def broken(order: Order, seq: int, slot: Slot) -> None:
        if slot.proposal is not None and slot.told is not None and slot.told[0] != slot.proposal.view:
            slot.told = slot.proposal.view, slot.proposal.batch.digest
        order(seq, slot)


@DEFECTS.add(
    "told-digest-ignored",
    "Departure 55",
    "what is told counts for whatever batch is held in that view; at one server a bit flips in every tenth PROPOSAL",
)
def _told_digest_ignored(process: Any) -> None:
    if process.replica.membership.ids.index(process.replica.membership.server_id) == 1:
        flip_bits(process)

    @instead_of(process.replica.ordering, "order_if_told")
    def broken(order: Order, seq: int, slot: Slot) -> None:
        if slot.proposal is not None and slot.told is not None:
            slot.told = slot.told[0], slot.proposal.batch.digest
        order(seq, slot)


@DEFECTS.add("told-by-anybody", "Departure 55", "an ORDERED counts, also if its sender does not lead its view")
def _told_by_anybody(process: Any) -> None:
    replica = process.replica

    @instead_of(replica, "dispatch")
    def broken(dispatch: Callable[..., str | None], message: Message, *told: int) -> str | None:
        if isinstance(message, Ordered) and message.view == replica.data.views.last_installed:
            replica.telling.on_ordered(message)
            return None
        return dispatch(message, *told)


@DEFECTS.add("told-of-a-view-that-is-over", "Departure 55", "an ORDERED of an old view counts in a later one")
def _told_of_a_view_that_is_over(process: Any) -> None:
    replica = process.replica

    @instead_of(replica, "dispatch")
    def broken(dispatch: Callable[..., str | None], message: Message, *told: int) -> str | None:
        if isinstance(message, Ordered) and 0 < message.view < replica.data.views.last_installed:
            if replica.membership.leader_of(message.view) == message.server_id:
                replica.telling.on_ordered(message)
            return None
        return dispatch(message, *told)


class _ForgetsWhatIsTold(DataStructures):
    __slots__ = ()

    def apply_ordered(self, view: int, slot: Slot, digest: bytes) -> None:
        if slot.proposal is not None and slot.proposal.view == view:
            super().apply_ordered(view, slot, digest)


@DEFECTS.add("told-too-early", "Departure 55", "what is told of a slot before its PROPOSAL comes is forgotten")
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


@DEFECTS.add(
    "restarted-votes-for-nobody",
    "Departure 55",
    "a follower that was started again sends no votes for the proposals that were on its disk",
)
def _restarted_votes_for_nobody(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.turn, "send")
    def broken(send: Callable[[Message, int | None], None], message: Message, to: int | None = None) -> None:
        if isinstance(message, Accept) and to is not None:
            slot = replica.data.ordering.global_history.get(message.seqs[0])
            if slot is not None and slot.proposal is not None and slot.proposal.server_id == message.server_id:
                return  # a proposal that was read from disk has this server's own id in it
        send(message, to)
