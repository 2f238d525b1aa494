"""How updates travel, and how leaders bind them to numbers: seen in what leaves the servers.

Neither is about safety, since an update that is bound twice is filtered when it is executed (G15). They keep a defect
from hiding behind that filter, or behind a network that carries any number of messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import define, field, frozen

from pfsb.paxos.messages import ClientUpdate, Proposal

Identity = tuple[str, int]
"""(client_id, timestamp)"""

COPIES_OF_A_FRAME_MAX = 4
"""The simulated network delivers a frame twice at most, and each of these may have an echo."""


@frozen
class Binding:
    """Where a leader has put an update."""

    seq: int
    fresh: bool
    """It chose the number itself: no earlier view had proposed that batch there."""


@define
class BindingChecker:
    """G15 (ii): in its view, a leader gives an update one number.

    Two earlier leaders may have bound the same update to two numbers, and a later one must propose both again, since
    either may be chosen. So of two numbers at least one must be of the leader's own choice to be wrong. Beyond its
    horizon an update is as good as another one (Departure 7).
    """

    horizon_slots: int
    _seen: set[tuple[int, int]] = field(factory=set)
    """(view, seq) of the proposals that were looked at: the others are repetitions."""
    _offered: dict[int, set[bytes]] = field(factory=dict)
    """seq -> the batches that some view has proposed there."""
    _bound: dict[tuple[int, Identity], Binding] = field(factory=dict)
    """By view and update: the latest."""

    def proposed(self, message: Proposal) -> str:
        """What is wrong with it, or ""."""
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
    """Departure 17: what comes from an update's own server is relayed to one other, once a copy; nothing else is."""

    servers: Sequence[int]
    _copies: Counter[tuple[int, ClientUpdate]] = field(factory=Counter)
    """(receiver, update) -> how often the update's own server sent it there."""
    _relayed: Counter[tuple[int, ClientUpdate]] = field(factory=Counter)
    """(sender, update) -> how often it was passed on."""

    def sent(self, server_id: int, to: int | None, update: ClientUpdate) -> str:
        """What is wrong with it, or ""."""
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
