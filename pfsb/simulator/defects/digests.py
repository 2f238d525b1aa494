"""Defects of digests: those that votes name, and those by which servers compare what they have executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from pfsb.paxos.data_structures import Slot
from pfsb.paxos.messages import Accept, Alive, Batch, Message, Proposal
from pfsb.paxos.outbound import WaitingVotes
from pfsb.simulator.defects.defect import Defects, do_nothing, instead_of, override

DEFECTS = Defects()

DAMAGED = 1
"""Id of the server at which the defect `digests-ignored` flips bits in PROPOSALs."""


def _flipped(batch: Batch) -> Batch:
    """A copy of the batch in which one bit of the time is flipped. The copy can be decoded like any batch."""
    time_ms, updates = Batch(batch.data).open()
    return Batch.of(time_ms ^ 1, updates)


@DEFECTS.add(
    "digests-ignored",
    "Departure 39",
    "a vote counts for whatever batch is held, and at server 1 a bit flips in every tenth PROPOSAL",
)
def _digests_ignored(process: Any) -> None:
    replica = process.replica
    ordering = replica.ordering

    def ready(slot: Slot) -> bool:
        if slot.proposal is None or slot.ordered is not None:
            return False
        return bool(ordering.is_majority(slot.voters.get(slot.proposal.view, ())))

    override(ordering, "globally_ordered_ready", lambda _: ready)
    if replica.membership.server_id == DAMAGED:
        flip_bits(process)


def flip_bits(process: Any) -> None:
    """Let a bit flip in every tenth PROPOSAL that a server takes."""

    @instead_of(process.replica.proposals, "on_proposal")
    def broken(proposal: Callable[[Proposal], None], message: Proposal) -> None:
        proposal(evolve(message, batch=_flipped(message.batch)) if message.seq % 10 == 0 else message)


@DEFECTS.add(
    "old-votes-relabelled", "Departure 25", "votes that wait when an election begins are sent as votes of the new view"
)
def _old_votes_relabelled(process: Any) -> None:
    """Let votes wait on through an election, and put them into the first ACCEPT of the new view.

    If the new leader proposes the same batch again, such a vote names the right batch. It is wrong all the same: the
    server that sends it has not accepted the batch in the new view.
    """
    replica, outbound = process.replica, process.replica.outbound

    @instead_of(outbound, "take_kept")
    def leave(take: Callable[[int], list[Message]], server_id: int) -> list[Message]:
        kept = outbound.waiting_votes.get(server_id)
        if kept is None or kept.votes.view == replica.data.views.last_attempted:
            return take(server_id)
        outbound.waiting_votes[server_id] = WaitingVotes(kept.votes, process.clock.seconds())
        return []

    @instead_of(outbound, "keep_votes")
    def relabel(keep: Callable[[int, Accept], None], server_id: int, votes: Accept) -> None:
        before = outbound.waiting_votes.get(server_id)
        if before is not None and before.votes.view < votes.view:
            relabelled = evolve(before.votes, view=votes.view)
            outbound.waiting_votes[server_id] = WaitingVotes(relabelled, before.since)
        keep(server_id, votes)


@DEFECTS.add("divergence-unnoticed", "Departure 40", "the digests in ALIVEs are compared with nothing")
def _divergence_unnoticed(process: Any) -> None:
    override(process.replica.divergence, "compare", lambda _: do_nothing)


@DEFECTS.add("one-digest-is-a-majority", "Departure 40", "a server stops when one other server differs from it")
def _one_digest_is_a_majority(process: Any) -> None:
    process.replica.divergence.is_majority = lambda server_ids: bool(server_ids)


@DEFECTS.add("refusal-without-end", "Departure 40", "changes are refused for ever once a server has differed")
def _refusal_without_end(process: Any) -> None:
    divergence = process.replica.divergence

    @instead_of(divergence, "compare")
    def broken(compare: Callable[[Alive], None], message: Alive) -> None:
        refused = divergence.is_undecided
        compare(message)
        divergence.is_undecided = refused or divergence.is_undecided


@DEFECTS.add("doubt-without-refusal", "Departure 40", "changes are taken though servers differ and no majority agrees")
def _doubt_without_refusal(process: Any) -> None:
    divergence = process.replica.divergence

    @instead_of(divergence, "compare")
    def broken(compare: Callable[[Alive], None], message: Alive) -> None:
        compare(message)
        divergence.is_undecided = False


@DEFECTS.add(
    "differences-of-former-starts",
    "Departure 40",
    "a server that differed before it was started again counts as one that differs twice",
)
def _differences_of_former_starts(process: Any) -> None:
    override(process.replica.divergence, "forget_start", lambda _: do_nothing)


@DEFECTS.add("results-not-compared", "Departure 40", "the digest of the history covers the batches, and no results")
def _results_not_compared(process: Any) -> None:
    @instead_of(process.replica.ordered_queue.digests, "extend")
    def broken(extend: Callable[[bytes, bytes], None], batch: bytes, outcomes: bytes) -> None:
        extend(batch, b"")
