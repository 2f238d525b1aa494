"""Section 5.6: a server that is behind pulls the slots that it lacks from one peer at a time.

Departure 13: the server asks a random peer, not the leader if others can serve, for the slots above its Local_Aru; the
peer answers with a short burst of bounded messages. The server asks for the next burst as soon as a message of the
present burst has arrived and it has every slot before the present burst, so that the peer reads from its disk while
this server executes. A burst that does not come, or only in part, is asked for again after a timeout, from another
peer. Nothing here is forced to disk, because every slot that is learned is on the disks of a majority already. The
protocol needs reconciliation: after a view change the leader skips slots that it knows as ordered, and nothing else
brings them to servers that lack them (G24).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.allowance import Allowance
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.demand import Demand
from pfsb.paxos.global_ordering import GlobalOrderingHandler
from pfsb.paxos.interfaces import IStableStorage
from pfsb.paxos.messages import (
    Batch,
    GloballyOrderedUpdate,
    ReconciliationReply,
    ReconciliationRequest,
    State,
)
from pfsb.paxos.peers import Peers
from pfsb.paxos.plausibility import BURST_SLOTS_MAX
from pfsb.paxos.round_trip import RoundTrip
from pfsb.support.limits import SLOT_MAX

PATIENCE_SECONDS = 0.01
"""Minimum time, in seconds, from learning that slots are ordered elsewhere to asking for them: they may have arrived
already, and wait in the socket's buffer."""
LAZY_VOTES_PATIENCE = 2
"""How long, in units of `lazy_seconds`, this server waits for ACCEPTs that may be delayed, before it asks for the slots
(Departure 25)."""
LONGEST_WAIT = 4
"""Maximum time that a peer gets for its answer, in units of `reconciliation_seconds`."""
WRITES_IN_BETWEEN = 2
"""Number of disk writes: if a peer has finished this number of them since a request that it has not answered, the
request or its answer counts as lost, and not as late.

One write may have been under way, and an answer waits for no more than the next one.
"""
FETCH_SECONDS = 120.0
"""How long, in seconds, after its last request slots are kept for a server that fetches a snapshot, or has fetched one:
it loads the snapshot in this time, and asks for the slots that follow."""
BURST_MESSAGES = 2
"""Maximum number of replies to one request.

The next request is sent when the first reply arrives, or later, so at most three replies are under way, which fit into
a socket buffer of default size.
"""
ROW_BYTES = 16
"""Bytes that a slot takes in a reply besides its batch, about."""
ALL_THERE_IS = SLOT_MAX
"""The last slot that a server asks for while it does not know how many slots the others have: above any real one."""


class ReconciliationHandler(Handler):
    """Asks a peer for the ordered slots that this server lacks, and answers such requests of other servers."""

    def __init__(
        self,
        core: Core,
        rng: random.Random,
        storage: IStableStorage,
        ordering: GlobalOrderingHandler,
        peers: Peers,
        demand: Demand,
        slot_time: RoundTrip,
    ) -> None:
        """`slot_time` tells how long to wait for a slot to be ordered."""
        super().__init__(core)
        self._slot_time = slot_time
        default = core.settings.reconciliation_seconds
        self.round_trip = RoundTrip(default, rng, LONGEST_WAIT * default)
        """Tells how long to wait for the first reply to a request, by how long such replies have taken."""
        self.on_unordered: Callable[[int, int, int], int] = lambda server_id, first, last: 0
        """Called at a leader with a server, and the first and the last of the slots that the server lacks, none of
        which the leader has executed: sends that server their PROPOSALs. Returns the number of bytes of the batches
        that were sent."""
        self.on_dropped: Callable[[int], bool] = lambda server_id: False
        """Called with a server that asks for slots which the storage has dropped: offers it a snapshot (Departure 57).
        Returns False if there is none."""
        self.is_fetching: Callable[[], bool] = lambda: False
        """Tells whether this server fetches a snapshot (Departure 57); meanwhile it asks for no slots."""
        self._rng = rng
        self._storage = storage
        self._ordering = ordering
        self._peers = peers
        self._demand = demand
        self._target = 0
        """The highest slot that this server knows to be ordered at some server."""
        self._told = 0
        """The highest slot that the leader has told to be ordered while the proposal of that slot was not here
        (Departure 55)."""
        self._peer: int | None = None
        """The peer that was asked last; None once this server is no longer behind."""
        self._first = 0
        """The first slot that the last request asked for."""
        self._burst_end = 0
        """The last slot of the burst that answers the last request; 0 while no message of it has arrived."""
        self._asked_at = 0.0
        """Time by the clock at which the last request was sent."""
        self._asked_behind = 0
        """The running count of this server's disk writes (`Turn.position`) when the last request was made, those under
        way included: the request has left when `Turn.durable_position` has reached this count."""
        self._asked_position = 0
        """The log position of the peer that was asked last, as it was known then."""
        self._awaits_reply = False
        """Whether the last request has had no reply yet, and was not given up."""
        self._peers_asked: dict[int, float] = {}
        """Peer -> time by the clock at which it was first asked for the slots from `_first` on; without the peers that
        were asked for slots only from another one on."""
        self._asked: dict[int, tuple[int, int]] = {}
        """Peer -> (the first slot of the last request to the peer, the Local_Aru that the peer had told before that
        request)."""
        self._dropped: dict[int, int] = {}
        """Peer -> the highest slot of which the peer has said, by an offer of its snapshot, that it has dropped it."""
        self._call: IDelayedCall | None = None
        self._fetching: dict[int, tuple[int, float]] = {}
        """Server that fetches a snapshot of this server, or has fetched one and asks for the slots behind it -> (the
        slot above which it needs slots, the time by the clock of its last request)."""
        self._allowances = defaultdict(Allowance, {peer: Allowance() for peer in core.membership.others})
        self.refused = 0
        """Number of requests since this server's start that were not answered, since their senders had used up their
        allowances."""
        self.bytes_sent = 0
        self.bytes_received = 0

    # ------------------------------------------------------------------ the server that is behind

    def ask_at_start(self) -> None:
        """At the start, ask a random peer for all slots above Local_Aru, rather than wait for the first ALIVE.

        No timer waits for the answer. If it does not come, the next ALIVE shows that this server is behind, and which
        peer can serve it.
        """
        view = self._data.views.last_installed
        others = self._membership.others
        if view and others:
            leader = self._membership.leader_of(view)
            peer = self._rng.choice([i for i in others if i != leader] or others)
            self._request(peer, self._data.ordering.local_aru + 1, ALL_THERE_IS)

    def catch_up_to(self, target: int) -> None:
        """Ask for the slots up to `target`, which another server has ordered, unless they come by themselves soon."""
        self._target = max(self._target, target)
        if self._call is None and self.is_behind():
            self._arm(self._patience())

    def catch_up_to_told(self, seq: int) -> None:
        """Departure 55: ask for slot `seq`, of which the leader has told that it is ordered, and whose proposal is not
        here, unless it comes by itself soon."""
        self._told = max(self._told, seq)
        self.catch_up_to(seq)

    def ask_leader(self, seq: int) -> None:
        """Departure 49: ask the leader for the slots up to `seq`, which hold updates of this server's clients and stay
        open.

        The PROPOSALs of these slots are here, so the leader may have ordered them, and the ACCEPTs may be lost. The
        leader is not asked before the slots have had the time that slots usually take (`_first_missing`).
        """
        if self._call is None:
            self._target = max(self._target, seq)
            self.ask_a_peer()

    def _patience(self) -> float:
        """How long, in seconds, to wait before this server asks for slots that are ordered elsewhere. The wait is
        longer while no client of this server waits, because ACCEPTs to this server may then come late (Departure 25),
        but not at a server that learns for good, to which no votes come."""
        if self._demand.has_clients() or self._membership.server_id in self._membership.members.permanent:
            return PATIENCE_SECONDS
        return max(PATIENCE_SECONDS, LAZY_VOTES_PATIENCE * self._settings.lazy_seconds)

    def on_reconciliation_reply(self, message: ReconciliationReply, epoch: int = 0) -> None:
        """Take the slots of a reply, and ask for the next burst if it is time for that (`_may_ask_on`).

        Departure 60: the reply was made in this epoch of the membership. The slots that its sender has executed hold in
        all epochs, the others in its own epoch alone.
        """
        aru = self._data.ordering.local_aru
        self._measure(message)
        if not message.updates:
            self._nothing_came(message)
        self._target = max(self._target, message.local_aru)
        for update in message.updates:
            self.bytes_received += len(update.batch.data)
            if epoch != self._membership.epoch and not self._holds_here(update.seq, message, epoch):
                break
            self._ordering.on_globally_ordered_update(update)
        if not self.is_behind():
            self._stop_waiting()
            self._peer = None
            return
        self._arm(self.round_trip.seconds if self._peer is not None else self._patience())
        if message.server_id != self._peer or not message.updates:
            return  # the peer that was asked cannot serve, or another one has answered: the timeout asks again
        # A reply whose burst ends below `_first` belongs to an earlier request, and triggers no further request.
        self._burst_end = max(self._burst_end, message.burst_end)
        if self._may_ask_on():
            self._stop_waiting()
            self._ask(message.server_id, self._burst_end + 1)
        elif self._data.ordering.local_aru > aru:
            self._rearm(self.round_trip.seconds)

    def ask_stranger(self, server_id: int, local_aru: int) -> None:
        """Departure 60: ask a server of a later epoch, which is none of this one, for slots that it has executed."""
        first = self._data.ordering.local_aru + 1
        if local_aru >= first and self._turn.trouble is None and not self.is_fetching():
            self._asked[server_id] = first, local_aru
            self._turn.send(ReconciliationRequest(self._data.server.server_id, first, local_aru), server_id)

    def on_stranger_reply(self, message: ReconciliationReply, epoch: int) -> None:
        """Departure 60: take slots that a server of a later epoch, which is none of this one, has executed; and ask it
        for the next ones as long as they bring this server ahead."""
        before = self._data.ordering.local_aru
        self.on_reconciliation_reply(message, epoch)
        if self._data.ordering.local_aru > before and message.server_id not in self._peers.by_id:
            self.ask_stranger(message.server_id, message.local_aru)

    def _holds_here(self, seq: int, message: ReconciliationReply, epoch: int) -> bool:
        """Departure 60: whether a slot of a reply that was made in another epoch may be taken.

        Its sender must have executed it. If that epoch is later, the slot must be the one that is executed next here: a
        mark above a change that is not executed yet would count as ordered in the epoch which the change ends, in which
        another batch may be ordered there.
        """
        if seq > message.local_aru:
            return False
        return epoch < self._membership.epoch or seq <= self._data.ordering.local_aru + 1

    def _nothing_came(self, message: ReconciliationReply) -> None:
        """Take a reply without slots: doubt its sender if its Local_Aru said that it has them (Departure 37).

        A peer that was asked for more slots than it had told of has done nothing wrong. Then other servers have told
        this server wrongly that those slots are ordered, or the peer is as far behind as this server.
        """
        if self.was_asked_in_vain(message):
            self._peers.doubt(message.server_id, message.local_aru)
        elif message.server_id == self._peer:
            self._target = self._data.ordering.local_aru

    def _measure(self, message: ReconciliationReply) -> None:
        """Departure 49: measure how long the answer took, if this message begins the answer to the last request."""
        if message.server_id != self._peer or not message.updates or message.updates[0].seq != self._first:
            return
        if self._awaits_reply:
            self._awaits_reply = False
            self.round_trip.answered(self._peers_asked[message.server_id], self._asked_at, self._clock.seconds())

    def was_asked_in_vain(self, message: ReconciliationReply) -> bool:
        """Whether a reply without slots contradicts the Local_Aru that its sender tells, or told before it was asked.

        A sender that is not ahead has nothing to give, and is not doubted for that: at its start a server asks a peer
        that has claimed nothing (`ask_at_start`). Local_Aru never goes back, so a correct peer's reply does not tell a
        lower one than the peer had claimed before it was asked.
        """
        first, claimed = self._asked.get(message.server_id, (SLOT_MAX, 0))
        return message.local_aru < claimed or message.local_aru >= first

    def begin_epoch(self) -> None:
        """Departure 60: forget how far other servers are known to be, since what the former epoch has ordered above the
        change is void. The next ALIVEs tell it anew."""
        self._stop_waiting()
        self._target = self._told = self._data.ordering.local_aru
        self._peer = None

    def stop(self) -> None:
        self._stop_waiting()

    def was_offered(self, server_id: int) -> bool:
        """Take notice of a snapshot that a server offers in answer to a request. Returns False if that server was not
        asked for any slots."""
        if server_id == self._peer:
            self._awaits_reply = False
        asked = self._asked.get(server_id)
        if asked is not None:
            self._dropped[server_id] = max(asked[0], self._dropped.get(server_id, 0))
        return asked is not None

    def ask_elsewhere(self) -> bool:
        """Departure 57: ask for the slots above Local_Aru a peer that may have them still, since another one has
        dropped them. Returns False if each peer that is ahead has been asked for them already, or has dropped them."""
        first = self._data.ordering.local_aru + 1
        asked = self._peers_asked if self._first == first else {}
        left = [i for i in self._able_peers() if i not in asked and self._dropped.get(i, 0) < first]
        if not left or not self.is_behind():
            return False
        self._ask(self._rng.choice([i for i in left if i != self._leader()] or left), first)
        return True

    def installed(self) -> None:
        """Go on asking for slots, from the present Local_Aru on, since a snapshot was installed."""
        self._stop_waiting()
        self._peer = None
        self.ask_a_peer()

    def is_behind(self) -> bool:
        """Whether slots are missing that this server can take.

        A leader with a prepared view re-sends its own proposals and never reconciles, and a server whose disk is in
        trouble could not store the slots that it gets (Departures 44 and 45).
        """
        is_behind = self._target > self._data.ordering.local_aru and self._data.server.state is not State.REG_LEADER
        return is_behind and self._turn.trouble is None

    def forget_requests(self) -> None:
        """Forget which slots were asked for, of whom. The model checker does so when no slot is missing, since nothing
        rests on these values then, and states that differ in them are one state."""
        self._target, self._peer = 0, None
        self._first = self._burst_end = 0

    def _may_ask_on(self) -> bool:
        """Whether to ask for the next burst now, before the present burst is complete.

        That is so if at least one message of the present burst has arrived, this server has every slot before the
        present burst, and the present burst does not reach the last slot that is wanted. So at most two bursts are
        under way, which bounds the number of slots that are held while an earlier slot is missing.
        """
        is_here = self._burst_end >= self._first and self._data.ordering.local_aru >= self._first - 1
        return is_here and self._burst_end < self._target

    def ask_a_peer(self) -> None:
        if self.is_fetching():
            self._arm(self._settings.reconciliation_seconds)
        elif self.is_behind():
            peer = self._choose_peer()
            if peer is not None:
                self._ask(peer, self._data.ordering.local_aru + 1)
            elif not self.ask_own_leader():
                # Departure 37: no peer says at present that it is ahead, so an earlier message may have been wrong. A
                # peer that is ahead says so in its next ALIVE.
                self._target = self._data.ordering.local_aru

    def _ask(self, peer: int, first: int) -> None:
        if first != self._first:
            self._peers_asked.clear()
        self._asked_at, self._asked_behind = self._clock.seconds(), self._turn.position
        self._peers_asked.setdefault(peer, self._asked_at)
        self._asked_position = self._peers.by_id[peer].told_twice
        self._request(peer, first, self._target)
        self._awaits_reply = True
        self._arm(self.round_trip.seconds)

    def _request(self, peer: int, first: int, last: int) -> None:
        self._peer, self._first, self._burst_end = peer, first, 0
        self._awaits_reply = False
        self._asked[peer] = (first, self._peers.by_id[peer].local_aru)
        if self._tracer is not None:
            self._tracer.trace("reconcile", peer=peer, first=first, last=last)
        self._turn.send(ReconciliationRequest(self._data.server.server_id, first, last), peer)

    def _choose_peer(self) -> int | None:
        """A random peer that was heard lately and is ahead, if possible neither the peer asked last nor the leader;
        None: there is none.
        """
        able, leader = self._able_peers(), self._leader()
        preferred = [i for i in able if i not in (leader, self._peer)] or [i for i in able if i != self._peer] or able
        return self._rng.choice(preferred) if preferred else None

    def _able_peers(self) -> list[int]:
        """The peers that were heard lately and are ahead."""
        aru = self._data.ordering.local_aru
        return [i for i in self._peers.by_id if self._peers.is_ahead(i, aru) and self._peers.heard_lately(i)]

    def _leader(self) -> int | None:
        """The leader of the view that this server has installed last; None: it has installed none."""
        view = self._data.views.last_installed
        return self._membership.leader_of(view) if view else None

    def ask_own_leader(self) -> bool:
        """Departure 49: ask the leader for slots that it has proposed and that are missing here, though no ALIVE of it
        says that it has executed them. Returns whether the leader was asked.

        The leader answers with the slots if they are ordered, and otherwise repeats their PROPOSALs.
        """
        view = self._data.views.last_installed
        if self._data.server.state is not State.REG_NONLEADER:
            return False
        leader = self._membership.leader_of(view)
        first = self._first_missing(view)
        if not first or self._clock.seconds() < self._peers.by_id[leader].in_doubt_until:
            return False
        self._ask(leader, first)
        return True

    def _first_missing(self, view: int) -> int:
        """The lowest slot up to `_target` that is not ordered here, and has no PROPOSAL of `view` or has had one for
        longer than slots usually take; 0 if there is none."""
        ordering, waits_since = self._data.ordering, self._clock.seconds() - self._slot_time.seconds
        last = min(self._target, max(ordering.global_history.top, self._told))
        for seq in range(ordering.local_aru + 1, last + 1):
            slot = ordering.global_history.get(seq)
            if slot is None or slot.ordered is None:
                proposal = None if slot is None else slot.proposal
                if slot is None or proposal is None or proposal.view != view or slot.sent_at <= waits_since:
                    return seq
        return 0

    def _arm(self, seconds: float) -> None:
        if self._call is None:
            self._call = self._clock.callLater(seconds, self.ask_again)

    def _rearm(self, seconds: float) -> None:
        if self._call is not None:
            self._call.reset(seconds)

    def _stop_waiting(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def ask_again(self) -> None:
        self._call = None
        self._turn.run(self._ask_again)

    def _ask_again(self) -> None:
        awaits, self._awaits_reply = self._awaits_reply, False
        if awaits and self._peer is not None and self.is_behind():
            if self._turn.durable_position < self._asked_behind:
                self._awaits_reply = True
                self._arm(self.round_trip.seconds)  # the last request has not even left
                return
            if self._peers.by_id[self._peer].told_twice < self._asked_position + WRITES_IN_BETWEEN:
                self.round_trip.back_off()
        self.ask_a_peer()

    # ------------------------------------------------------------------ the server that has the slots

    def on_reconciliation_request(self, message: ReconciliationRequest) -> None:
        """Answer a request with a burst of slots: from memory if they are there, else from disk (`read_history`)."""
        if not self.may_serve(message.server_id):
            return
        if self.keeps_for(message.server_id):
            self.keep_for(message.server_id, message.first - 1)
        allowance = self._allowances[message.server_id]
        history = self._data.ordering.global_history
        last = min(message.last, self._data.ordering.local_aru, message.first + BURST_SLOTS_MAX - 1)
        if last < message.first:
            if self._data.server.state is State.REG_LEADER and message.first <= self._data.ordering.last_proposed:
                allowance.spend(self.on_unordered(message.server_id, message.first, message.last))
                self._serve_above_gap(message.server_id, message.first, message.last)
            else:
                self._serve(message.server_id, message.first, [])
        elif message.first > history.floor:
            self._serve(message.server_id, message.first, self.rows_from_memory(message.first, last))
        else:
            bytes_max = BURST_MESSAGES * self._settings.frame_data_bytes_max

            def found(rows: list[tuple[int, Batch]]) -> None:
                self._turn.run(self._serve_read, message.server_id, message.first, rows)

            self._storage.read_history(message.first, last, bytes_max, found)

    def keeps_for(self, server_id: int) -> bool:
        """Whether slots are kept for a server (`keep_for`)."""
        return server_id in self._fetching

    def keep_for(self, server_id: int, seq: int) -> None:
        """Departure 57: have the storage keep the slots above `seq` for a server that fetches the snapshot of that
        slot, or has fetched it and asks for these slots: for `FETCH_SECONDS` from now on.

        Otherwise, where new snapshots are taken faster than one is fetched, that server would never catch up: the slots
        after each snapshot that it has fetched would be gone already, and it would have to fetch the next snapshot.
        """
        self._fetching[server_id] = seq, self._clock.seconds()
        self._look_who_fetches()

    def _look_who_fetches(self) -> None:
        oldest = self._clock.seconds() - FETCH_SECONDS
        self._fetching = {i: (seq, at) for i, (seq, at) in self._fetching.items() if at >= oldest}
        self._storage.kept_above = min((seq for seq, _ in self._fetching.values()), default=None)

    def may_serve(self, server_id: int) -> bool:
        """Departure 37: whether a server may get something now. If not, that server asks again after a time, or asks
        another server."""
        if self._allowances[server_id].is_left(self._clock.seconds()):
            return True
        self.refused += 1
        return False

    def note_served(self, server_id: int, size: int) -> None:
        """Departure 37: count `size` bytes, which are sent to a server that has asked for them, against its
        allowance."""
        self._allowances[server_id].spend(size)

    def _serve_read(self, to: int, first: int, rows: list[tuple[int, Batch]]) -> None:
        """Serve ordered batches that were read from disk. If there are none, because the slots were dropped, offer a
        snapshot."""
        if rows or first > self._storage.compacted or not self.on_dropped(to):
            self._serve(to, first, rows)

    def _serve_above_gap(self, to: int, first: int, last: int) -> None:
        """Departure 49: send server `to`, as leader, those of the slots from `first` to `last` that are ordered, and
        wait here for a slot below them.

        The server that asks may have the slot below already, so that it lacks only these.
        """
        history = self._data.ordering.global_history
        room = BURST_MESSAGES * self._settings.frame_data_bytes_max
        rows: list[tuple[int, Batch]] = []
        for seq in range(first, min(last, history.top, first + BURST_SLOTS_MAX - 1) + 1):
            slot = history.get(seq)
            if slot is not None and slot.ordered is not None:
                room -= len(slot.ordered.data)
                if rows and room < 0:
                    break
                rows.append((seq, slot.ordered))
        if rows:
            self._serve(to, first, rows)

    def offer(self, seq: int, to: int) -> None:
        """Departure 49: send an executed slot to a server that has not asked for it, if the slot is in memory."""
        is_here = self._data.ordering.global_history.floor < seq <= self._data.ordering.local_aru
        if is_here and self._allowances[to].is_left(self._clock.seconds()):
            self._serve(to, seq, self.rows_from_memory(seq, seq))

    def bring(self, seq: int, arus: Mapping[int, int]) -> None:
        """Departure 60: send the slot of a change of the membership, which this turn has executed, to some servers, in
        front of all messages of the epoch that it begins: without it they would discard those.

        `arus` tells the Local_Aru of each of these servers. The slots between that and the change go with it, the
        highest ones, as many as fit a frame: this server votes for them no more, and without them the change cannot be
        executed.
        """
        own_id, floor = self._data.server.server_id, self._data.ordering.global_history.floor
        for server_id, aru in arus.items():
            rows = self._rows_from_memory(range(seq, max(aru, floor), -1), self._settings.frame_data_bytes_max)
            self.bytes_sent += sum(len(batch.data) for _, batch in rows)
            updates = tuple(GloballyOrderedUpdate(own_id, at, batch) for at, batch in reversed(rows))
            self._turn.send_early(ReconciliationReply(own_id, seq, seq, updates), server_id)

    def tell(self, server_id: int, first: int, rows: list[tuple[int, Batch]]) -> None:
        """Send a server the slots from `first` on, which are executed here and which it has not asked for."""
        self._serve(server_id, first, rows)

    def rows_from_memory(self, first: int, last: int) -> list[tuple[int, Batch]]:
        """The executed slots from `first` to `last`, which are in memory, as many as fit a burst."""
        return self._rows_from_memory(range(first, last + 1), BURST_MESSAGES * self._settings.frame_data_bytes_max)

    def _rows_from_memory(self, seqs: Iterable[int], bytes_max: int) -> list[tuple[int, Batch]]:
        rows: list[tuple[int, Batch]] = []
        for seq in seqs:
            slot = self._data.ordering.global_history.get(seq)
            assert slot is not None and slot.ordered is not None, "what is executed and above the floor is in memory"
            bytes_max -= len(slot.ordered.data) + ROW_BYTES
            if rows and bytes_max < 0:
                break
            rows.append((seq, slot.ordered))
        return rows

    def forget_what_all_have(self) -> None:
        """Tell the storage which slots no server can ask for any more; drop those that it forgets from memory, too.

        These are the slots up to the lowest Local_Aru of all servers. An ALIVE tells the Local_Aru that its sender has
        on disk, and a server that has lost its disk is refused as a stranger (Departure 12). So a server that was heard
        to have a slot never asks for it again, not after a restart either. A server that is gone for good stops the
        forgetting: it might come back.
        """
        if self._fetching:
            self._look_who_fetches()
        told = [peer.local_aru for peer in self._peers.by_id.values()]
        had_by_all = min([self._turn.durable.local_aru, *told])
        if self._storage.forget_history(had_by_all):
            self._data.ordering.global_history.forget_up_to(had_by_all)

    def _serve(self, to: int, first: int, rows: list[tuple[int, Batch]]) -> None:
        """Answer server `to`, which lacks the slots from `first` on, with `rows`: (slot, ordered batch) pairs.

        They are sent in as many replies as are needed for each to fit a frame. Without rows one empty reply is sent.
        """
        burst_end = rows[-1][0] if rows else first
        part: list[tuple[int, Batch]] = []
        size = 0
        for seq, batch in rows:
            if part and size + len(batch.data) > self._settings.frame_data_bytes_max:
                self._reply(to, burst_end, part)
                part, size = [], 0
            part.append((seq, batch))
            size += len(batch.data) + ROW_BYTES
        self._reply(to, burst_end, part)

    def _reply(self, to: int, burst_end: int, rows: list[tuple[int, Batch]]) -> None:
        me = self._data.server.server_id
        updates = tuple(GloballyOrderedUpdate(me, seq, batch) for seq, batch in rows)
        size = sum(len(batch.data) for _, batch in rows)
        self.bytes_sent += size
        self.note_served(to, size)
        self._turn.send(ReconciliationReply(me, burst_end, self._data.ordering.local_aru, updates), to)
