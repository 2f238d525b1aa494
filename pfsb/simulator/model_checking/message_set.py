"""All messages and claims of an exploration, one bit each, and the claims that contradict each other.

A claim is a statement such as "slot 3 executes update a1", which follows from a message, an execution or a leadership.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import define, field, frozen

from pfsb.paxos.messages import (
    GloballyOrderedUpdate,
    Message,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    ViewChange,
)
from pfsb.simulator.model_checking.steps import Executed, Led, StepOutcome, in_words


@frozen
class Post:
    """A message, its sender and its only receiver."""

    sender: int
    receiver: int
    message: Message


@frozen
class Claim:
    """A statement such as "view 2 is led by server 1", in words and as (key, value).

    Two claims with the same key and different values contradict each other, which breaks a promise of the protocol.
    """

    key: tuple[Any, ...]
    value: Any
    words: str = field(eq=False)

    def __str__(self) -> str:
        return self.words


def claims_of(statement: Message | Executed | Led) -> Iterator[Claim]:
    """The claims that a message or fact makes.

    If no two claims contradict each other, then all servers execute the same in each slot (S1 of the paper), each
    update takes effect in one slot only (S3), each view has one leader, and each slot at most one proposal per view.
    """
    match statement:
        case Executed(seq, value):
            updates = value[1]
            names = ", ".join(f"{client_id}{timestamp}" for client_id, timestamp, _ in updates) or "no update"
            yield Claim(("executed", seq), value, f"S1: slot {seq} executes {names}")
            for client_id, timestamp, _ in updates:
                yield Claim(("ran", client_id, timestamp), seq, f"S3: {client_id}{timestamp} takes effect at {seq}")
        case Led(view, server_id, incarnation):
            yield Claim(
                ("led", view),
                (server_id, incarnation),
                f"view {view} is led by server {server_id} in life {incarnation}",
            )
        case Proposal(_, view, seq, batch):
            yield Claim(("proposed", view, seq), batch, f"one proposal a view and slot: {in_words(statement)}")
        case GloballyOrderedUpdate(_, seq, batch):
            yield Claim(("ordered", seq), batch, f"S1: {in_words(statement)}")
        case PrepareOK():
            for entry in statement.data_list:
                yield from claims_of(entry)
        case ReconciliationReply():
            for update in statement.updates:
                yield from claims_of(update)


@define(eq=False)
class MessageSet:
    """Table of all messages and claims that the exploration has met, each with a number.

    A set of messages and claims is stored as an integer, in which bit n stands for the item with number n.
    """

    servers: int
    inbox: list[int] = field(init=False)
    """For each server: the set of all messages to that server, as an integer."""
    items: list[Post | Claim] = field(factory=list)
    _numbers: dict[Post | Claim, int] = field(factory=dict)
    _conflicts: list[int] = field(factory=list)
    """For each item, by number: the set of the claims that contradict it, as an integer; 0 for a message."""
    _claims: dict[tuple[Any, ...], int] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.inbox = [0] * self.servers

    def add(self, item: Post | Claim) -> int:
        """Enter a message or claim in the table, unless it is there.

        Returns the set that holds only this item: an integer with one bit.
        """
        number = self._numbers.get(item)
        if number is None:
            number = self._numbers[item] = len(self.items)
            self.items.append(item)
            self._conflicts.append(0)
            if isinstance(item, Post):
                self.inbox[item.receiver] |= 1 << number
            else:
                self._note_conflicts(item, number)
        return 1 << number

    def post(self, number: int) -> Post:
        item = self.items[number]
        assert isinstance(item, Post), f"{item} is no message"
        return item

    def all_of(self, sender: int, outcome: StepOutcome, views: int) -> int:
        """Enter the messages and claims of one step of the server `sender` in the table. Returns their set, an integer.

        VIEW_CHANGE messages for views above `views` are left out.
        """
        messages = 0
        for message, receiver in outcome.sent:
            if not (isinstance(message, ViewChange) and message.attempted > views):
                messages |= self.add(Post(sender, receiver, message))
            for claim in claims_of(message):
                messages |= self.add(claim)
        for fact in outcome.facts:
            for claim in claims_of(fact):
                messages |= self.add(claim)
        return messages

    def contradiction(self, new: int, everything: int) -> str | None:
        """A sentence about a claim in the set `new` that contradicts one in the set `everything`; None if none does.

        Both sets are integers.
        """
        for number in bits(new):
            against = self._conflicts[number] & everything
            if against:
                other = self.items[next(bits(against))]
                return f"{self.items[number]}; but before: {other}"
        return None

    def _note_conflicts(self, claim: Claim, number: int) -> None:
        rivals = self._claims.get(claim.key, 0)
        self._conflicts[number] = rivals
        for rival in bits(rivals):
            self._conflicts[rival] |= 1 << number
        self._claims[claim.key] = rivals | 1 << number


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits of `mask` that are 1, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
