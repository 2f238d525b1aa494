"""Departure 37: what is ordered is valid. A server enqueues, proposes and accepts only updates that it can execute.

An update that no server can execute would stop all of them, and again at every start, because it is on their disks by
then. So an update is checked before it is enqueued or relayed, and again, because its batch may come from a server that
is in error, before a PROPOSAL is accepted and before an ordered batch is believed. Executing is total all the same: an
invalid update that is ordered nevertheless is refused when it is executed, in the same way by all servers.

Why safe: a refused message is the same as a lost one. The rule depends on the update and its slot alone, so all servers
agree on it, and no server with this rule ever holds an accepted or ordered batch that another would refuse. A message
that is refused for one of its batches is refused as a whole: a PREPARE_OK whose data list lacks a slot would be a wrong
promise (S1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pfsb.paxos.birth import Birth
from pfsb.paxos.interfaces import IStateMachine
from pfsb.paxos.membership import Membership
from pfsb.paxos.messages import Batch, ClientUpdate, DataEntry, GloballyOrderedUpdate
from pfsb.support.limits import BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX

INVALID: Final = "invalid"
"""Reason, given in place of a line of Figure 4, for which a message is discarded if an update or batch in it is not
valid."""
NOT_OURS: Final = "not ours"
"""Reason, given in place of a line of Figure 4, for which an update is discarded if it names this server as its own,
but this server does not have it under way."""


class Validity:
    """Decides which updates and batches this server takes from other servers."""

    def __init__(self, membership: Membership, state_machine: IStateMachine, birth: Birth | None) -> None:
        self._membership = membership
        self._state_machine = state_machine
        self._birth = birth

    def of_update(self, update: ClientUpdate) -> bool:
        """Whether the update may be ordered: it is of a server of the cluster, not too large for a PROPOSAL, and the
        state machine can execute it."""
        return (
            update.server_id in self._membership.ids
            and len(update.payload) <= PAYLOAD_BYTES_MAX
            and self._state_machine.is_valid(update)
        )

    def of_batch(self, seq: int, batch: Batch, *, is_ordered: bool = False) -> bool:
        """Whether the batch may be ordered in slot `seq`.

        If the batch `is_ordered`, it may have updates of servers that are of other epochs (Departure 60).

        An update is made before its slot can be executed anywhere, so a `made_at` that is not below the slot is wrong;
        it would keep the update valid for longer than its horizon (Departure 7). A batch that is too large may fit the
        message that has brought it, but not the one in which this server has to pass it on.
        """
        if len(batch.data) > BATCH_BYTES_MAX:
            return False
        if seq == 1 and self._birth is not None and not self._is_birth(batch, self._birth):
            return False
        ids, is_valid = self._membership.ids, self._state_machine.is_valid
        for update in batch.updates():
            if update.made_at >= seq or not (is_ordered or update.server_id in ids) or not is_valid(update):
                return False
        return True

    @staticmethod
    def _is_birth(batch: Batch, birth: Birth) -> bool:
        """Whether the batch brings the settings of the cluster, which stand in slot 1 and come alone (Departure 34)."""
        updates = batch.updates()
        return len(updates) == 1 and birth.is_birth(updates[0])

    def of_entries(self, entries: Iterable[DataEntry]) -> bool:
        """Whether all batches of a data list, or of a reply of reconciliation, are valid in their slots."""
        return all(
            self.of_batch(entry.seq, entry.batch, is_ordered=isinstance(entry, GloballyOrderedUpdate))
            for entry in entries
        )
