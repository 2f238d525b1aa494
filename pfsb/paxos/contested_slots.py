"""Departure 39: slots for which promises report different batches of one view, and which of them a new leader proposes.

In one view a leader binds one batch to a slot. So two batches show that a memory, a disk or a program has failed, and
at most one of the two can have been chosen. A server does not see which: each is on the disk of a server, with a right
checksum. But a batch that was chosen was accepted by a majority, so the other promises tell the two apart. The new
leader counts for each batch the servers that may have accepted it: those that report it, and those of which nothing is
known. A batch for which they are no majority was not chosen. If that leaves one batch, the leader proposes it. If it
leaves more, the leader does not lead yet, and waits for a further promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from attrs import define, field
from twisted.logger import Logger

from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.messages import Proposal
from pfsb.support.views import shown


@define
class Contest:
    """The batches that servers hold for one slot as the proposal of one view."""

    view: int
    batches: dict[bytes, Proposal] = field(factory=dict)
    """Digest of a batch -> the proposal with it."""


class ContestedSlots(Handler):
    """The contested slots of the view that this server prepares, until it leads."""

    _log = Logger()

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._contests: dict[int, Contest] = {}
        """Slot -> the different batches that are held or reported for it."""
        self._has_told = False
        """Whether the text log already says, for this view, that this server waits for a further promise."""

    def __bool__(self) -> bool:
        return bool(self._contests)

    def clear(self) -> None:
        """Forget all contests: this server begins to prepare a view, and knows nothing of the proposals of other
        servers."""
        self._contests.clear()
        self._has_told = False

    def add(self, held: Proposal, reported: Proposal) -> None:
        """Note two proposals of one view for one slot, with different batches."""
        contest = self._contests.get(held.seq)
        if contest is None or contest.view < held.view:
            contest = self._contests[held.seq] = Contest(held.view)
        if contest.view == held.view:
            contest.batches[held.batch.digest] = held
            contest.batches[reported.batch.digest] = reported

    def settle(self) -> bool:
        """Make each contested slot hold the batch that can have been chosen; called when the view is prepared.

        Returns False if several batches of some slot can have been chosen: then a further server must promise first.
        """
        for seq, contest in list(self._contests.items()):
            slot = self._data.ordering.global_history.get(seq)
            held = None if slot is None else slot.proposal
            if slot is not None and held is not None and held.view == contest.view:
                chosen = self._batch_to_propose(seq, contest, slot)
                if chosen is None:
                    self._tell(seq, contest)
                    return False
                slot.proposal = chosen
            del self._contests[seq]
        return True

    def _batch_to_propose(self, seq: int, contest: Contest, slot: Slot) -> Proposal | None:
        """The proposal of a contest that can have been chosen; None if several can.

        If none can, no batch of this view was chosen, and the one that most servers report is proposed.
        """
        batches = contest.batches
        found = {i: self._accepted_by(i, seq, contest.view, slot) for i in self._membership.voters}
        possible = [digest for digest in batches if self._may_be_chosen(digest, found)]
        if len(possible) > 1:
            return None
        accepted_by = Counter(found.values())
        return batches[possible[0] if possible else max(batches, key=lambda digest: (accepted_by[digest], digest))]

    def _may_be_chosen(self, digest: bytes, found: Mapping[int, bytes | None]) -> bool:
        """Whether the servers that have accepted this batch, and those of which nothing is known, are a majority.

        `found` has for each server the digest of the batch that it has accepted, or None if that is not known.
        """
        return self.is_majority(server_id for server_id, accepted in found.items() if accepted in (digest, None))

    def _accepted_by(self, server_id: int, seq: int, view: int, slot: Slot) -> bytes | None:
        """The digest of the batch that a server has accepted last in a slot; b"" if it has accepted none.

        None if that is not known. A complete promise of the server tells it; the batch that is reported there counts
        also if its view is not that of the contest, since it may have been chosen in an earlier view. If the server has
        not promised, its vote in `view`, the view of the contest, may tell it. For this server itself the batch on its
        disk counts: it has not accepted what it learned from reports.
        """
        data = self._data
        if server_id == data.server.server_id:
            return b"" if slot.on_disk is None else slot.on_disk.digest
        promise = data.preparing.prepare_oks.get(server_id)
        if promise is None or promise.view != data.views.last_installed or not promise.complete:
            return slot.voters.get(view, {}).get(server_id)
        return promise.reported.get(seq, b"")

    def _tell(self, seq: int, contest: Contest) -> None:
        if not self._has_told:
            self._has_told = True
            self._log.error(
                "slot {seq}: servers hold {count} different batches of view {view}, and more than one may have been "
                "chosen, so this server does not lead before a further server has promised: start those that are down",
                seq=seq,
                count=len(contest.batches),
                view=shown(contest.view),
            )
