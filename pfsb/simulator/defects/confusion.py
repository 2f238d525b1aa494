"""Defects of a server that believes what it is told (Departures 12, 37 and 38)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pfsb.paxos.messages import Message
from pfsb.simulator.defects.defect import Defects, instead_of, override

DEFECTS = Defects(needs_sessions=True)


@DEFECTS.add("invalid-batch-accepted", "Departure 37", "a batch that no server can execute is accepted like any other")
def _invalid_batch_accepted(process: Any) -> None:
    override(process.replica.validity, "of_batch", lambda _: lambda seq, batch, is_ordered=False: True)


@DEFECTS.add("invalid-update-queued", "Departure 37", "an update of a server in error is queued, whatever is in it")
def _invalid_update_queued(process: Any) -> None:
    override(process.replica.validity, "of_update", lambda _: lambda update: True)


@DEFECTS.add("future-update-proposed", "Departure 37", "a leader proposes an update that was made after its slot")
def _future_update_proposed(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.update_queue, "pop_batch")
    def broken(pop: Callable[[int], Any], time_ms: int) -> Any:
        ordering = replica.data.ordering
        last_proposed, ordering.last_proposed = ordering.last_proposed, 2**62
        try:
            return pop(time_ms)
        finally:
            ordering.last_proposed = last_proposed


@DEFECTS.add("far-slots-believed", "Departure 37", "a slot counts as ordered, however far away, if a server says so")
def _far_slots_believed(process: Any) -> None:
    override(process.replica.plausibility, "line_against", lambda _: lambda message, sender: None)


@DEFECTS.add("votes-pile-up", "Departure 37", "a slot keeps the votes of any number of views")
def _votes_pile_up(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.accepts, "on_accept")
    def broken(accept: Callable[[Any], None], message: Any) -> None:
        accept(message)
        for seq, digest in message.votes():
            slot = replica.data.ordering.global_history.get(seq)
            if slot is not None and slot.ordered is None:
                slot.voters.setdefault(message.view, {})[message.server_id] = digest


@DEFECTS.add("wrong-aru-for-ever", "Departure 37", "the highest Local_Aru that a server ever claimed counts")
def _wrong_aru_for_ever(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.alive, "on_alive")
    def broken(take: Callable[[Any], None], message: Any) -> None:
        peer = replica.peers.by_id[message.server_id]
        highest = max(peer.local_aru, message.local_aru)
        take(message)
        peer.local_aru = highest


@DEFECTS.add(
    "empty-reply-doubted", "Departure 37", "a peer that has nothing to give is in doubt, though it claimed nothing"
)
def _empty_reply_doubted(process: Any) -> None:
    override(process.replica.reconciliation, "was_asked_in_vain", lambda asked: lambda message: True)


@DEFECTS.add("first-frame-binds", "Departure 12", "the first frame in the name of a server binds its id to a storage")
def _first_frame_binds(process: Any) -> None:
    identities = process.replica.membership.identities

    @instead_of(process.replica.storage_identity, "is_who_it_says")
    def broken(
        check: Callable[[int, bytes, Sequence[Message]], bool],
        sender: int,
        identity: bytes,
        messages: Sequence[Message],
    ) -> bool:
        identities.setdefault(sender, identity)
        return check(sender, identity, messages)


@DEFECTS.add("known-holes-skipped", "G11", "a leader that is told to skip a slot leaves it out in every view")
def _known_holes_skipped(process: Any) -> None:
    proposals = process.replica.proposals
    history = process.replica.data.ordering.global_history

    def broken(seq: int) -> bool:
        slot = history.get(seq)
        return seq in proposals.skipped and (slot is None or slot.proposal is None)

    override(proposals, "is_left_out", lambda _: broken)
