"""Departure 55: in a cluster of five servers or more, the leader counts the votes and tells what is ordered.

Figure 10, Block B sends each ACCEPT to all servers, which takes about N² messages for each proposal. Section 4.4 of the
paper names the variant used here: an ACCEPT goes to the leader alone, and the leader tells by ORDERED which slots a
majority has accepted.

Why safe: an ORDERED leaves when the votes of a majority are on the disks of their servers. The vote of another server
has left that server only after it was on disk. The leader's own vote counts for this when it is on the leader's disk;
if a majority of others has voted before, the ORDERED does not wait for it. So the slots are chosen, and a server that
holds one of these proposals, by view and digest, holds the chosen batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.messages import DIGEST_BYTES, Message, Ordered, Proposal, State
from pfsb.paxos.window import Window


@define
class Untold:
    """The ORDERED of a slot that this leader has ordered in memory, while it is not certain yet that a majority has the
    batch on disk.
    """

    message: Ordered
    written_at: int
    """Number of disk writes after which this leader's own vote is on its disk (`Turn.durable_position`)."""
    voters: set[int]
    """Ids of the other servers that have voted for the slot: their votes are on their disks."""


class TellingHandler(Handler):
    """Tells the followers, as leader, which slots are ordered (ORDERED); orders, as follower, the slots that the leader
    tells.
    """

    def __init__(
        self,
        core: Core,
        ordering: GlobalOrderingHandler,
        window: Window,
        on_missing: Callable[[int], None],
    ) -> None:
        super().__init__(core)
        self._ordering = ordering
        self._window = window
        self.on_missing = on_missing
        """Called with a slot that is ordered as the leader says, and whose proposal is not here."""
        self.untold: dict[int, Untold] = {}
        """Slot -> its ORDERED, which waits for this server's disk or for further votes."""

    def tell(self, held: Proposal, slot: Slot) -> None:
        """Tell all other servers, as leader, that a majority has accepted a proposal of this view.

        Called in the turn that counts the majority. If the leader's own vote is on disk already, the ORDERED leaves in
        one frame with the PROPOSALs of this turn, and waits for none of their writes. Otherwise it leaves when that
        vote is on disk, or when so many others have voted that they are a majority without the leader.
        """
        data = self._data
        own_id = data.server.server_id
        if data.server.state is not State.REG_LEADER or held.view != data.views.last_installed:
            return
        message = Ordered(own_id, held.view, (held.seq,), held.batch.digest)
        self._tell_when_safe(Untold(message, slot.written_at, self.voters_for(held, slot)))

    def voters_for(self, held: Proposal, slot: Slot) -> set[int]:
        """Ids of the other servers that have voted for this proposal, `held`, of a slot."""
        own_id, digest = self._data.server.server_id, held.batch.digest
        return {peer for peer, voted in slot.voters[held.view].items() if voted == digest and peer != own_id}

    def count_late(self, server_id: int, view: int, seq: int, digest: bytes) -> bool:
        """Count a vote of another server for slot `seq`, which is ordered here and of which no server is told yet.

        Returns whether the vote counts, and did not count before.
        """
        untold = self.untold[seq]
        if view != untold.message.view or digest != untold.message.digests or server_id in untold.voters:
            return False
        untold.voters.add(server_id)
        self._tell_when_safe(self.untold.pop(seq))
        return True

    def take_due(self) -> Sequence[Message]:
        """Remove and return the ORDEREDs that may leave now, after a disk write of this server has ended."""
        due = [seq for seq, untold in self.untold.items() if self._is_safe(untold)] if self.untold else ()
        return [self.untold.pop(seq).message for seq in due]

    def _tell_when_safe(self, untold: Untold) -> None:
        if self._is_safe(untold):
            self._turn.send_early(untold.message)
        else:
            self.untold[untold.message.seqs[0]] = untold

    def _is_safe(self, untold: Untold) -> bool:
        """Whether the votes that an ORDERED stands for are on the disks of a majority: this server's own vote is on its
        disk, or the others that have voted are a majority without it.
        """
        return untold.written_at <= self._turn.durable_position or self.is_majority(untold.voters)

    def on_ordered(self, message: Ordered) -> None:
        """Order the slots of an ORDERED whose proposals are held here, of exactly its view and with its batches.

        An ORDERED may overtake its PROPOSAL, so its content is stored while the slot holds no proposal of its view
        (`ProposalHandler.on_proposal` looks there). As the PROPOSAL may be lost, reconciliation brings the slot if it
        does not come soon. A slot beyond the window is left out, as for an ACCEPT.
        """
        at = 0
        ordering, members = self._data.ordering, self._membership.members
        for seq in message.seqs:
            digest = message.digests[at : at + DIGEST_BYTES]
            at += DIGEST_BYTES
            if seq <= ordering.local_aru or not self._window.may_accept(seq):
                continue
            slot = ordering.global_history.ensure(seq)
            if slot.ordered is not None:
                continue
            self._data.apply_ordered(message.view, slot, digest)
            self._ordering.order_if_told(seq, slot)
            if self._membership.members is not members:
                break  # Departure 60: a change was executed, so the other slots are void
            if slot.ordered is None:
                self.on_missing(seq)
