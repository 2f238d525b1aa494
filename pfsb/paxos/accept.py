"""Figure 10 C1-C3: a vote for a proposal."""

from __future__ import annotations

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.messages import Accept
from pfsb.paxos.window import Window


class AcceptHandler(Handler):
    def __init__(self, core: Core, ordering: GlobalOrderingHandler, window: Window) -> None:
        super().__init__(core)
        self._ordering = ordering
        self._window = window

    def on_accept(self, message: Accept) -> None:
        """Figure 10, Block C: note the vote for each number, then see whether that makes a majority.

        Votes may overtake their proposal (G17). Beyond the window nobody can have proposed anything that this
        server could order now; reconciliation brings it later.
        """
        for seq in message.seqs:
            if seq <= self._data.ordering.local_aru or not self._window.may_accept(seq):
                continue
            slot = self._data.ordering.global_history.get(seq)
            if slot is None or slot.ordered is None:
                self._data.apply_accept(message, seq)
                self._ordering.try_order(seq)
