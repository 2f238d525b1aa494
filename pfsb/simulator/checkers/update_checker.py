"""Checks, by the messages that leave the servers, of how updates are bound to slots and how they are relayed.

Mistakes in these do not break safety: an update that is bound twice is filtered when it is executed (G15), and an
update that is relayed too often only costs messages. Without these checkers, such a mistake would go unnoticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import define, field, frozen

from pfsb.paxos.messages import ClientUpdate, Proposal

Identity = tuple[str, int]
"""The name of an update: (client_id, timestamp)."""

COPIES_OF_A_FRAME_MAX = 4
"""Maximum number of times that a server may relay an update, for each copy that the update's own server has sent to it.

The simulated network delivers a frame at most three times: the frame, a duplicate, and an echo, which is a late copy.
The bound leaves room for one relay more. So the checker finds an update that is relayed again and again, but may miss a
single relay too many.
"""


@frozen
class Binding:
    """The slot that a leader, by a proposal in its own view, has chosen or repeated for an update."""

    seq: int
    fresh: bool
    """Whether the leader was free to put the update into this slot: the batch that holds the update had not been
    proposed for this slot before. Otherwise the leader only repeats what the leader of another view has proposed
    there."""


@define
class BindingChecker:
    """G15 (ii): in its view, a leader binds each update to one slot only.

    Two earlier leaders may have bound an update to two different slots. A later leader must propose both slots again,
    since each of them may have been chosen already. Two slots in one view are therefore a violation only if at least
    one of them is the leader's own choice. Two slots that are more than `horizon_slots` apart are no violation either:
    in the later slot the update is too old to run (Departure 7).
    """

    horizon_slots: int
    _seen: set[tuple[int, int]] = field(factory=set)
    """(view, seq) of the proposals that were checked; a further proposal for such a pair is a retransmission."""
    _offered: dict[int, set[bytes]] = field(factory=dict)
    """Seq -> the batches that were proposed in that slot, in any view."""
    _bound: dict[tuple[int, Identity], Binding] = field(factory=dict)
    """(view, update) -> the latest slot to which the leader of the view has bound the update."""

    def proposed(self, message: Proposal) -> str:
        """Check a proposal. Returns the text of the violation, or "" if there is none."""
        if (message.view, message.seq) in self._seen:
            return ""
        self._seen.add((message.view, message.seq))
        offered = self._offered.setdefault(message.seq, set())
        now = Binding(message.seq, message.batch.data not in offered)
        offered.add(message.batch.data)
        for update in message.batch.open()[1]:
            identity = (update.client_id, update.timestamp)
            before = self._bound.get((message.view, identity))
            self._bound[message.view, identity] = now
            if before is not None and self._is_twice(before, now):
                numbers = f"{before.seq} and at {now.seq}"
                return f"G15: the leader of view {message.view} proposes an update at {numbers}: {identity}"
        return ""

    def _is_twice(self, before: Binding, now: Binding) -> bool:
        return (before.fresh or now.fresh) and abs(now.seq - before.seq) <= self.horizon_slots


@define
class RelayChecker:
    """Departure 17: a server relays only copies that come from the update's own server: each once, to one server."""

    servers: Sequence[int]
    _copies: Counter[tuple[int, ClientUpdate]] = field(factory=Counter)
    """(receiver, update) -> number of copies that the update's own server has sent to the receiver, those included that
    were meant for another server."""
    _relayed: Counter[tuple[int, ClientUpdate]] = field(factory=Counter)
    """(sender, update) -> number of copies that the sender, not the update's own server, has relayed."""
    _got_parts: set[tuple[int, int]] = field(factory=set)
    """Pairs (sender, receiver): the receiver has got parts of frames of the sender that were meant for another server.

    Whole frames may come about of them, so the receiver may relay updates of the sender.
    """

    def misdirected(self, sender: int, receiver: int, update: ClientUpdate) -> None:
        """Count a copy of an update that goes to `receiver` by mistake, and that `receiver` may relay, too.

        The frame is meant for another server, but `sender` has sent it to an address that `receiver` has now.
        """
        if sender == update.server_id:
            self._copies[receiver, update] += 1

    def parts_misdirected(self, sender: int, receiver: int) -> None:
        """Note that a part of a frame goes to `receiver` by mistake. Which messages the frame has is not known here."""
        self._got_parts.add((sender, receiver))

    def sent(self, server_id: int, to: int | None, update: ClientUpdate) -> str:
        """Check an update that server `server_id` sends to server `to`, or to all others if None. Returns the text of
        the violation, or "" if there is none."""
        receivers = [i for i in self.servers if i != server_id] if to is None else [to]
        if server_id == update.server_id:
            self._copies.update((receiver, update) for receiver in receivers)
            return ""
        if (update.server_id, server_id) in self._got_parts:
            return ""
        key = (server_id, update)
        self._relayed[key] += len(receivers)
        allowed = COPIES_OF_A_FRAME_MAX * self._copies[key]
        if self._relayed[key] > allowed:
            name = f"({update.client_id!r}, {update.timestamp})"
            return f"server {server_id} has relayed {self._relayed[key]} copies of {allowed} at most: {name}"
        return ""
