"""Relaying of updates, and their binding to slots, seen in the messages that leave the servers.

Neither concerns safety: an update that is bound twice is filtered when it is executed (G15). The checkers keep a defect
from hiding behind that filter, or behind a network that can carry any number of messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import define, field, frozen

from pfsb.paxos.messages import ClientUpdate, Proposal

Identity = tuple[str, int]
"""(client_id, timestamp)"""

COPIES_OF_A_FRAME_MAX = 4
"""Maximum number of copies of a frame: the simulated network delivers it twice, and each of these may have an echo."""


@frozen
class Binding:
    """The slot to which a leader has bound an update."""

    seq: int
    fresh: bool
    """Whether the leader has chosen the slot itself: no earlier view had proposed that batch there."""


@define
class BindingChecker:
    """G15 (ii): in its view, a leader binds an update to one slot.

    Two earlier leaders may have bound an update to two slots, and a later one must propose both again, since either may
    be chosen. Two slots are therefore wrong only if at least one of them is the leader's own choice. An update beyond
    its horizon counts as another one (Departure 7).
    """

    horizon_slots: int
    _seen: set[tuple[int, int]] = field(factory=set)
    """(view, seq) of the proposals that were checked; a further proposal for such a pair is a repetition."""
    _offered: dict[int, set[bytes]] = field(factory=dict)
    """Seq -> the batches that some view has proposed there."""
    _bound: dict[tuple[int, Identity], Binding] = field(factory=dict)
    """(view, update) -> its latest binding."""

    def proposed(self, message: Proposal) -> str:
        """Check a proposal; the text of a violation, or ""."""
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
    """Departure 17: a copy that comes from an update's own server is relayed once, to one server; no other copy is."""

    servers: Sequence[int]
    _copies: Counter[tuple[int, ClientUpdate]] = field(factory=Counter)
    """(receiver, update) -> number of copies that the update's own server has sent there."""
    _relayed: Counter[tuple[int, ClientUpdate]] = field(factory=Counter)
    """(sender, update) -> number of copies that this server has passed on."""

    def sent(self, server_id: int, to: int | None, update: ClientUpdate) -> str:
        """Check a copy of an update that leaves a server; the text of a violation, or ""."""
        receivers = [i for i in self.servers if i != server_id] if to is None else [to]
        if server_id == update.server_id:
            self._copies.update((receiver, update) for receiver in receivers)
            return ""
        key = (server_id, update)
        self._relayed[key] += len(receivers)
        allowed = COPIES_OF_A_FRAME_MAX * self._copies[key]
        if self._relayed[key] > allowed:
            name = f"({update.client_id!r}, {update.timestamp})"
            return f"server {server_id} has relayed {self._relayed[key]} copies of {allowed} at most: {name}"
        return ""
