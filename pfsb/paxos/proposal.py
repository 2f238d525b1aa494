"""Figure 10, Block B and Figure 11, Block A: the leader binds batches to slots, and its followers accept them.

The leader's PROPOSAL may leave before it is on the leader's own disk, because it is no vote. The leader's vote is an
explicit ACCEPT, which waits for its disk as every vote does (Departure 2; section 4.4, synchronous variant).
"""

from __future__ import annotations

from collections.abc import Callable

from pfsb.paxos.birth import Birth
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.data_structures import Slot
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.messages import Accept, Batch, Proposal, State
from pfsb.paxos.ordered_update_queue import OrderedUpdateQueue
from pfsb.paxos.plausibility import IMPLAUSIBLE
from pfsb.paxos.records import ProposalRecord
from pfsb.paxos.update_queue import UpdateQueue
from pfsb.paxos.validity import INVALID, Validity
from pfsb.paxos.window import Window
from pfsb.support.histogram import BYTES, Histogram
from pfsb.support.limits import SLOT_MAX


class ProposalHandler(Handler):
    """Proposes batches as the leader, and accepts the proposals of the leader as a follower."""

    def __init__(
        self,
        core: Core,
        ordered_queue: OrderedUpdateQueue,
        ordering: GlobalOrderingHandler,
        update_queue: UpdateQueue,
        window: Window,
        validity: Validity,
        on_far_ahead: Callable[[int], None],
        on_hole: Callable[[int], None],
        birth: Birth | None,
    ) -> None:
        """`birth` makes the first update, with the settings of the cluster; None: the state machine needs none.

        `on_far_ahead` is called when the leader proposes a slot beyond this server's window, with a slot up to which
        the leader must have executed (section 5.6, trigger 1). `on_hole` is called when a PROPOSAL comes and that of
        the slot before has not come, with the number of the slot before (Departure 49).
        """
        super().__init__(core)
        self._ordered_queue = ordered_queue
        self._ordering = ordering
        self._update_queue = update_queue
        self._window = window
        self._validity = validity
        self._on_far_ahead = on_far_ahead
        self._on_hole = on_hole
        self.birth = birth
        """Makes the first update of the cluster (Departure 34); None: the state machine needs none."""
        self.may_begin: Callable[[], bool] = lambda: True
        """Tells whether the cluster may begin, as far as this server knows (Departure 60)."""
        self.on_sent: Callable[[float], None] = lambda now: None
        """Called with the time by the clock each time that this server, as leader, sends a new PROPOSAL."""
        self.skipped: set[int] = set()
        """Numbers of slots in which this server, as leader, proposes nothing, so that the next leader finds holes: set
        by the command FAULT SKIP, for trials."""
        self.batch_bytes = Histogram(BYTES)
        """Sizes, in bytes, of the batches that this server has proposed since its start, no-ops included."""

    def on_proposal(self, message: Proposal) -> str | None:
        """Figure 10, Block B: accept a proposal of the leader of the installed view, and vote for it by ACCEPT.

        Returns the reason by which a discarded proposal is counted, or None. Departure 37: an invalid batch is not
        accepted.
        """
        seq = message.seq
        if self.is_ordered(seq):
            if not self._contradicts_what_was_ordered(message):
                # G18: this server has ordered the slot, but the leader may still need this server's ACCEPT.
                self._accept(message)
            return None
        if not self._window.may_accept(seq):
            if seq > SLOT_MAX:
                return IMPLAUSIBLE
            self._on_far_ahead(self._window.executed_by_leader_of(seq))
            return None
        if not self.is_held(message):
            if not self._validity.of_batch(seq, message.batch):
                return INVALID
            stored = self._data.apply_proposal(message)
            if stored is not None:
                self._record(message, stored)
                stored.first_sent_at = stored.sent_at = self._clock.seconds()
                ordering = self._data.ordering
                if seq - 1 not in ordering.global_history.slots and seq - 1 > ordering.local_aru:
                    self._on_hole(seq - 1)
        slot = self._data.ordering.global_history.ensure(seq)
        held = slot.proposal
        assert held is not None and held.view == message.view, f"slot {seq} holds a proposal of a later view (G18)"
        if slot.voters or held is not message:
            self._compare(held, message, slot)
        self._accept(held)
        self.vote(held, slot)
        if slot.told is not None:
            self._ordering.order_if_told(seq, slot)
        return None

    def _compare(self, held: Proposal, message: Proposal, slot: Slot) -> None:
        """Departure 39: compare the batch that is held with that of a repeated proposal, and with earlier votes.

        Each difference is counted and logged, and changes nothing else: this server votes for the batch that it holds,
        since no other one is on its disk.
        """
        if message.batch.digest != held.batch.digest:
            self._ordering.note_contradiction(held, message.view, message.server_id)
        if held is message:
            for server_id, digest in slot.voters.get(held.view, {}).items():
                if digest != held.batch.digest:
                    self._ordering.note_contradiction(held, held.view, server_id)

    def send_proposal(self) -> None:
        """Figure 11, Block A: propose as long as the window is open and something waits (G1, G25).

        A slot that holds a proposal of an earlier view gets the same batch again. An empty slot below such a slot gets
        a no-op (G11): the promises of a majority show that nothing was chosen there. The view of a proposal is
        Last_Installed (G2). A leader whose disk is in trouble proposes nothing (Departures 44 and 45).
        """
        data = self._data
        if data.server.state is not State.REG_LEADER or self._turn.trouble is not None:
            return
        ordering = data.ordering
        ordering.last_proposed = max(ordering.last_proposed, ordering.local_aru)
        while self._window.may_propose(seq := ordering.last_proposed + 1):
            if not self.is_left_out(seq) and not self.is_ordered(seq):
                batch = self.batch_for(seq)
                if batch is None:
                    return
                self.propose(Proposal(data.server.server_id, data.views.last_installed, seq, batch))
            ordering.last_proposed = max(ordering.last_proposed, seq)

    def propose_time(self) -> bool:
        """Departure 29: propose an empty batch if nothing is under way, so that time passes in the state machine.

        The batch carries the leader's clock, by which applications end waits whose deadline has come. Returns True if
        the batch was proposed.
        """
        ordering = self._data.ordering
        if self._data.server.state is not State.REG_LEADER or ordering.last_proposed > ordering.local_aru:
            return False
        if self._turn.trouble is not None or self._window.is_closed:
            return False
        self.send_proposal()
        if ordering.last_proposed > ordering.local_aru or not self._window.is_born:
            return False
        seq = ordering.local_aru + 1
        view = self._data.views.last_installed
        self.propose(Proposal(self._data.server.server_id, view, seq, Batch.of(self.now_ms(), ())))
        ordering.last_proposed = max(ordering.last_proposed, seq)
        return True

    def now_ms(self) -> int:
        """The time that a proposal carries, in milliseconds (Departure 35).

        The proposal of slot 1 carries the time of the wall clock. Proposals that this server makes after it, while slot
        1 is not executed here, carry 0, which does not move the state machine's time: this server does not know yet
        where that time begins. Later ones go on from the time of the last executed slot (`OrderedTime.now_ms`).
        """
        if self._data.ordering.last_proposed and not self._ordered_queue.time.has_begun:
            return 0
        return self._ordered_queue.time.now_ms()

    def resend(self, seq: int, to: int | None = None) -> None:
        """Send the PROPOSAL of a slot that is not ordered yet once more, with the leader's ACCEPT (section 5.9).

        Departure 49: they go to the servers whose ACCEPT is missing here, or to server `to` alone if that is not None.
        """
        slot = self._data.ordering.global_history.get(seq)
        if slot is None or slot.proposal is None or slot.ordered is not None:
            return
        slot.sent_at = self._clock.seconds()
        voters = slot.voters.get(slot.proposal.view, {})
        silent = [peer for peer in self._membership.others if peer not in voters]
        receivers = [None] if len(silent) == len(self._membership.others) else silent
        for receiver in receivers if to is None else [to]:
            self._turn.send_proposal_early(slot.proposal, receiver)
            self._accept(slot.proposal, receiver)

    def is_left_out(self, seq: int) -> bool:
        """Whether this server, as leader, proposes nothing in slot `seq`, because FAULT SKIP names the slot.

        Three further conditions keep a cluster from standing still if all its servers leave out the same slot. First,
        the slot must lie above all slots that hold a batch. So a proposal of an older view, which may have been chosen,
        is repeated, and the next leader fills the slot as a hole (G11). Second, the window must have room for the slot
        after it. Third, other servers must vote: they suspect a leader that executes nothing, and no server suspects a
        leader that votes alone.
        """
        if seq not in self.skipped or self._membership.n == 1:
            return False
        fresh = seq > self._data.ordering.global_history.top
        return fresh and self._window.may_propose(seq + 1)

    def batch_for(self, seq: int) -> Batch | None:
        """The batch that this leader proposes in slot `seq`; None if there is nothing to propose there.

        Departure 34: as long as the settings of the cluster are not executed, the next slot gets the update that brings
        them, unless a proposal was accepted there. No slot is executed before that, so the next slot is slot 1.
        """
        ordering = self._data.ordering
        slot = ordering.global_history.get(seq)
        if slot is not None and slot.proposal is not None:
            return slot.proposal.batch
        if not self._window.is_born:
            assert self.birth is not None
            if seq > ordering.local_aru + 1 or not self.may_begin():
                return None
            return Batch.of(self.now_ms(), [self.birth.make()])
        if seq < ordering.global_history.top:
            return Batch.of(self.now_ms(), ())
        if not self._data.clients.update_queue:
            return None
        return self._update_queue.pop_batch(self.now_ms())

    def propose(self, message: Proposal) -> None:
        slot = self._data.apply_proposal(message)
        assert slot is not None, "a leader proposes once a view and slot, and only what is not ordered"
        slot.first_sent_at = slot.sent_at = now = self._clock.seconds()
        if self._membership.leader_tells:
            slot.written_at = self._turn.position + 1  # the record is appended in this turn, whose end begins a write
        self.on_sent(now)
        self.batch_bytes.observe(len(message.batch.data))
        self._turn.send_proposal_early(message)
        self._record(message, slot)
        self._accept(message)
        self.vote(message, slot)

    def _record(self, message: Proposal, slot: Slot) -> None:
        self._turn.append(ProposalRecord(message.seq, message.view, message.batch))
        slot.on_disk = message.batch

    def _accept(self, message: Proposal, to: int | None = None) -> None:
        """Send this server's vote for a proposal to all servers, or to server `to` alone if that is not None.

        Departure 55: in a cluster whose leader tells what is ordered, the vote goes to the leader of the proposal's
        view alone, and the leader sends none.
        """
        own_id = self._data.server.server_id
        if self._membership.leader_tells:
            # The proposal may come from the disk (`recover`), and then does not name its sender.
            to = self._membership.leader_of(message.view)
            if to == own_id:
                return
        self._turn.send(Accept(own_id, message.view, (message.seq,), message.batch.digest), to)

    def vote(self, message: Proposal, slot: Slot) -> None:
        self._data.apply_accept(self._data.server.server_id, message.view, slot, message.batch.digest)
        self._ordering.try_order(message.seq, slot)

    def _contradicts_what_was_ordered(self, message: Proposal) -> bool:
        """Whether a proposal contradicts the batch that is ordered in its slot, and must not be accepted.

        Only a leader whose view is over can propose such a batch: a later view has chosen another batch, which this
        server has learned. For a slot that is no longer in memory this cannot be decided, and the answer is False. A
        vote for such a proposal does no harm: the majority that has installed the later view accepts nothing of this
        view any more, so the servers that still do, this one included, are no majority.
        """
        slot = self._data.ordering.global_history.get(message.seq)
        return slot is not None and slot.ordered is not None and slot.ordered.data != message.batch.data

    def is_held(self, message: Proposal) -> bool:
        slot = self._data.ordering.global_history.get(message.seq)
        return slot is not None and slot.proposal is not None and slot.proposal.view == message.view

    def is_ordered(self, seq: int) -> bool:
        ordering = self._data.ordering
        if seq <= ordering.local_aru:
            return True
        slot = ordering.global_history.get(seq)
        return slot is not None and slot.ordered is not None
