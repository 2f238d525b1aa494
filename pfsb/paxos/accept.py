"""Figure 10 C1-C3: a vote for a proposal."""

from __future__ import annotations

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.flow_control import FlowControl
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.messages import Accept


class AcceptHandler:
    def __init__(self, data: DataStructures, ordering: GlobalOrderingHandler, flow_control: FlowControl) -> None:
        self._data = data
        self._ordering = ordering
        self._flow_control = flow_control

    def on_accept(self, message: Accept) -> None:
        """Figure 10, Block C: note the vote for each number, then see whether that makes a majority.

        Votes may overtake their proposal (G17). Beyond the window nobody can have proposed anything that this
        server could order now; reconciliation brings it later.
        """
        for seq in message.seqs:
            if seq <= self._data.ordering.local_aru or not self._flow_control.may_accept(seq):
                continue
            slot = self._data.ordering.global_history.get(seq)
            if slot is None or slot.ordered is None:
                self._data.apply_accept(message, seq)
                self._ordering.try_order(seq)
