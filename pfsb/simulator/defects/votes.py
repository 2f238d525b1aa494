"""Defects of counting votes, and of the number of votes that counts as a majority."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from pfsb.paxos.data_structures import DataStructures, Slot
from pfsb.paxos.messages import (
    Accept,
    Message,
    Proposal,
)
from pfsb.simulator.defects.defect import Defects, become, instead_of, override

DEFECTS = Defects()


def _miscount(process: Any, handler: Any, votes: Callable[[int], int]) -> None:
    """Let one handler take `votes(n)` votes for a majority, n being the number of servers."""
    membership = process.replica.membership

    def is_majority(server_ids: Iterable[int]) -> bool:
        return len({*server_ids} & {*membership.voters}) >= votes(membership.n)

    handler.is_majority = is_majority


def _one_too_many(n: int) -> int:
    return n // 2 + 2


def _one_too_few(n: int) -> int:
    return n // 2


def _half(n: int) -> int:
    return (n + 1) // 2


@DEFECTS.add("order-more-than-majority", "Figure 11 B", "a majority of ACCEPTs is not enough: > for >=")
def _order_more_than_majority(process: Any) -> None:
    _miscount(process, process.replica.ordering, _one_too_many)


@DEFECTS.add("order-less-than-majority", "Figure 11 B", "one ACCEPT less than a majority orders a slot")
def _order_less_than_majority(process: Any) -> None:
    _miscount(process, process.replica.ordering, _one_too_few)


@DEFECTS.add("prepare-more-than-majority", "Figure 8 B", "a majority of PREPARE_OKs is not enough: > for >=")
def _prepare_more_than_majority(process: Any) -> None:
    _miscount(process, process.replica.prepare, _one_too_many)


@DEFECTS.add("prepare-less-than-majority", "Figure 8 B", "one PREPARE_OK less than a majority prepares a view")
def _prepare_less_than_majority(process: Any) -> None:
    _miscount(process, process.replica.prepare, _one_too_few)


@DEFECTS.add("preinstall-more-than-majority", "Figure 6 D", "a majority of VIEW_CHANGEs is not enough: > for >=")
def _preinstall_more_than_majority(process: Any) -> None:
    _miscount(process, process.replica.election, _one_too_many)


@DEFECTS.add("followers-more-than-majority", "section 5.10", "a leader that hears a majority suspects itself: > for >=")
def _followers_more_than_majority(process: Any) -> None:
    _miscount(process, process.replica.alive, _one_too_many)


@DEFECTS.add("half-is-enough", "G27", "with an even number of servers, half of them count as a majority everywhere")
def _half_is_enough(process: Any) -> None:
    replica = process.replica
    for handler in (replica.ordering, replica.prepare, replica.election, replica.alive):
        _miscount(process, handler, _half)


@DEFECTS.add("lazy-vote-lost", "Departure 25", "a vote that waits for company is dropped instead of sent")
def _lazy_vote_lost(process: Any) -> None:
    def make(taken: Callable[[int], list[Message]]) -> Callable[[int], list[Message]]:
        def broken(server_id: int) -> list[Message]:
            taken(server_id)
            return []

        return broken

    override(process.replica.outbound, "take_kept", make)


@DEFECTS.add("lazy-vote-before-disk", "Departure 25", "a vote begins to wait for company before it is on disk")
def _lazy_vote_before_disk(process: Any) -> None:
    """Give an ACCEPT that is to wait for another frame to `Outbound` at once, and not after the durability gate.

    The ACCEPT may then leave before its proposal is on disk, with an ALIVE or a PROPOSAL that leaves early.
    """
    replica = process.replica
    lazy = replica.outbound

    def make(send: Callable[..., None]) -> Callable[..., None]:
        def broken(message: Message, to: int | None = None) -> None:
            if not isinstance(message, Accept) or to is not None:
                send(message, to)
                return
            may_wait = lazy.may_wait_for(message)
            for server_id in replica.membership.others:
                if server_id in may_wait:
                    lazy.keep_votes(server_id, message)
                else:
                    send(message, server_id)

        return broken

    override(replica.turn, "send", make)


class _CountsTwice(DataStructures):
    __slots__ = ()

    def apply_accept(self, server_id: int, view: int, slot: Slot, digest: bytes) -> bool:
        is_copy = server_id in slot.voters.get(view, ())
        is_new = super().apply_accept(server_id, view, slot, digest)
        if is_copy:
            voters = slot.voters[view]
            voters[next(voter for voter in count(server_id, 100) if voter not in voters)] = digest
        return is_new


@DEFECTS.add("vote-counted-twice", "Figure 5 E, G14", "an ACCEPT that comes twice counts as two votes")
def _vote_counted_twice(process: Any) -> None:
    """Store the second copy of an ACCEPT as the vote of a server that does not exist, and count the ids of all voters,
    also of such ones."""
    replica = process.replica
    become(replica.data, _CountsTwice)
    for handler in (replica.ordering, replica.telling):
        handler.is_majority = lambda server_ids: len({*server_ids}) >= replica.membership.quorum


@DEFECTS.add("votes-of-all-views", "Figure 11 B, G17", "votes for the proposal of one view count for that of another")
def _votes_of_all_views(process: Any) -> None:
    membership = process.replica.membership

    def ready(slot: Slot) -> bool:
        voters = {voter for of_view in slot.voters.values() for voter in of_view}
        return slot.proposal is not None and slot.ordered is None and bool(membership.is_majority(voters))

    override(process.replica.ordering, "globally_ordered_ready", lambda _: ready)


@DEFECTS.add("proposal-counts-as-vote", "Departure 2", "a PROPOSAL counts as its leader's vote, which is not on disk")
def _proposal_counts_as_vote(process: Any) -> None:
    replica = process.replica

    @instead_of(replica.proposals, "on_proposal")
    def broken(proposal: Callable[[Proposal], None], message: Proposal) -> None:
        if message.seq > replica.data.ordering.local_aru and replica.window.may_accept(message.seq):
            slot = replica.data.ordering.global_history.ensure(message.seq)
            replica.data.apply_accept(message.server_id, message.view, slot, message.batch.digest)
        proposal(message)
