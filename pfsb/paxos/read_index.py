"""Departure 24: linearizable reads without the log and without a disk write.

Any server may answer a read when it has executed every update that was answered, by any server, before the read was
asked. The leader knows a bound for these updates: the highest number that it has proposed or prepared. The bound holds
only if no other leader has been elected without its knowledge. The leader therefore asks all other servers, and the
bound holds if a majority, itself included, still follows it. One such round serves all reads that wait when it begins;
reads that come later wait for the next round. The departure has the proof.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall

from pfsb.paxos.alive import AliveHandler
from pfsb.paxos.core import Core, Handler
from pfsb.paxos.messages import Confirm, Confirmed, ReadIndex, ReadRequest, State
from pfsb.paxos.round_trip import RoundTrip
from pfsb.paxos.start_number import start_number

Ready = Callable[[bool], None]
"""Callback of a read, called once, in a turn: with True when this server may answer the read from its own state now,
with False when it cannot within `update_seconds`. After False the caller must put the read through the log."""


@define(eq=False)
class _Read:
    ready: Ready
    asked_at: float


@define
class _Round:
    """A round of CONFIRM, in which a leader asks whether a majority still follows it."""

    number: int
    view: int
    index: int
    """The slot up to which a server must have executed to answer a read that was asked before the round began."""
    asked_by: dict[int, int]
    """server id -> the number of the READ_REQUEST of that server which this round answers."""
    first_asked_at: float
    """Time by the clock at which the round's CONFIRM was first sent."""
    asked_at: float
    """Time by the clock at which the round's CONFIRM was last sent."""
    confirmed_by: set[int] = field(factory=set)


class ReadIndexHandler(Handler):
    """Tells when this server may answer a linearizable read from its own state, without an update in the log.

    Reads of this server's clients come in by `begin_reads`, and wait. This server asks the leader for an index
    (READ_REQUEST). The leader asks all servers whether they follow it (CONFIRM), counts the answers (CONFIRMED), and
    answers with the slot up to which a server must have executed (READ_INDEX). The call-back of each read is then
    called once: with True when this server has executed that slot, or with False when that takes too long. The paper
    has no such reads; they are Departure 24.
    """

    def __init__(self, core: Core, alive: AliveHandler, rng: random.Random) -> None:
        super().__init__(core)
        self._alive = alive
        self._wait = RoundTrip(core.settings.resend_seconds, rng, core.settings.update_seconds)
        """Tells how long to wait for an answer to READ_REQUEST or CONFIRM before it is sent again, by how long such
        answers have taken (Departure 49)."""
        self._requested_at = 0.0
        """Time by the clock at which the present READ_REQUEST was last sent."""
        self._first_requested_at = 0.0
        """Time by the clock at which the present READ_REQUEST was first sent."""
        self._looked_at = 0.0
        """Time by the clock of the last turn that has repeated messages and given up late reads."""
        self.waiting: list[_Read] = []
        """Reads that wait until the next READ_REQUEST of this server is sent."""
        self.requested: list[_Read] = []
        self._request_number = 0
        self._indexed: list[tuple[int, list[_Read]]] = []
        """(slot, reads that may be answered when this server has executed that slot), one pair for each answered
        request."""
        self._round: _Round | None = None
        self._round_number = 0
        self._next_round: dict[int, int] = {}
        """server id -> the number of its READ_REQUEST, which the round after the present one will answer."""
        self.on_other_confirmed: Callable[[int, int, int], None] = lambda server_id, view, number: None
        """Called with sender, view and number of each CONFIRMED that does not belong to the present round."""
        self._call: IDelayedCall | None = None

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    @property
    def under_way(self) -> int:
        """Number of reads of this server's clients that cannot be answered yet."""
        return len(self.waiting) + len(self.requested) + sum(len(reads) for _, reads in self._indexed)

    # ------------------------------------------------------------------ a server that a client has asked

    def begin_reads(self, reads: Iterable[Ready]) -> None:
        """Begin, in a turn, linearizable reads of clients of this server; each call-back tells when to answer its read.

        Reads that begin together wait for one READ_REQUEST. If they began one by one, the first would be requested
        alone, and the others would wait for a second request. With 8 clients that have 8 GETs under way each, a GET
        took 12 % more byte code then.
        """
        self._alive.client_asks()
        now = self._clock.seconds()
        self.waiting += [_Read(ready, now) for ready in reads]
        if not self.requested:
            self.request_index()
        self._watch()

    def on_read_index(self, message: ReadIndex) -> None:
        """Take the read index from the leader's answer to the latest READ_REQUEST, for the reads of that request.

        An answer to an earlier request is ignored: it says nothing about reads that were asked after that request.
        """
        if message.number == self._request_number and self.requested:
            self._wait.answered(self._first_requested_at, self._requested_at, self._clock.seconds())
            self._indexed.append((message.seq, self.requested))
            self.requested = []
            if self.waiting:
                self.request_index()

    def answer_ready(self) -> None:
        """At the end of each turn: answer the reads whose index this server has executed."""
        if not self._indexed:
            return
        local_aru = self._data.ordering.local_aru
        indexed, self._indexed = self._indexed, []
        for seq, reads in indexed:
            if seq > local_aru:
                self._indexed.append((seq, reads))
            else:
                for read in reads:
                    read.ready(True)

    def begin_epoch(self, reached: int) -> None:
        """Departure 60: ask anew for the indexes of all reads, but for those below `reached`, the slot of the change.

        An index below it was found before the change was proposed. A leader of the former epoch may have confirmed a
        higher one by a majority of that epoch, while the next epoch had already answered updates above it.
        """
        again = [read for seq, reads in self._indexed if seq >= reached for read in reads]
        self._indexed = [(seq, reads) for seq, reads in self._indexed if seq < reached]
        self.waiting = [*again, *self.requested, *self.waiting]
        self.requested = []
        self._round = None
        self._next_round.clear()
        if self.waiting:
            self.request_index()

    def request_index(self) -> None:
        # The number is larger than those of this server's former incarnations, to which answers may be on their way,
        # and in another range than those of a copy of its storage. Half of the mark leaves room for 2**31 requests.
        server = self._data.server
        self._request_number = max(self._request_number, start_number(server.incarnation, server.start_mark >> 1)) + 1
        self.requested, self.waiting = self.waiting, []
        self._first_requested_at = self._requested_at = self._clock.seconds()
        self._ask_leader()

    def _ask_leader(self) -> None:
        own_id, state = self._data.server.server_id, self._data.server.state
        if state is State.REG_LEADER:
            self.on_read_request(ReadRequest(own_id, self._request_number))
        elif state is State.REG_NONLEADER:
            leader = self._membership.leader_of(self._data.views.last_installed)
            self._turn.send(ReadRequest(own_id, self._request_number), leader)

    # ------------------------------------------------------------------ the leader and its followers

    def on_read_request(self, message: ReadRequest) -> None:
        """Answer a READ_REQUEST in the next round of CONFIRM, which begins at once if none is under way.

        A server that does not lead ignores the request; the sender repeats it.
        """
        if self._data.server.state is not State.REG_LEADER:
            return
        present = self.present_round()
        if present is not None and present.asked_by.get(message.server_id) == message.number:
            return  # the request is a repetition, and the round that is under way answers it
        self._next_round[message.server_id] = message.number
        if present is None:
            self._begin_round()

    def on_confirm(self, message: Confirm) -> None:
        """Answer CONFIRMED if this server follows the leader of that view.

        Why safe: the CONFIRMED is true when it is sent, so up to then this server had installed no later view. It is
        sent after the round began, and Last_Installed never goes back, so this server had installed no later view when
        the round began, either. A CONFIRMED that arrives late proves that as well.
        """
        data = self._data
        if data.server.state is State.REG_NONLEADER and data.views.last_installed == message.view:
            self._turn.send(Confirmed(data.server.server_id, message.view, message.number), message.server_id)

    def on_confirmed(self, message: Confirmed) -> None:
        """Count the sender of a CONFIRMED as a follower, if the message belongs to the present round and view."""
        present = self.present_round()
        if present is not None and (present.view, present.number) == (message.view, message.number):
            present.confirmed_by.add(message.server_id)
            self._end_round_if_confirmed(present)
        else:
            self.on_other_confirmed(message.server_id, message.view, message.number)

    def new_number(self) -> int:
        """A number for a CONFIRM that no round of reads has."""
        self._round_number += 1
        return self._round_number

    def present_round(self) -> _Round | None:
        """The round of CONFIRM under way, or None; a round is dropped when this server no longer leads its view."""
        data = self._data
        leads = data.server.state is State.REG_LEADER
        if self._round is not None and not (leads and self._round.view == data.views.last_installed):
            self._round = None
        return self._round

    def _begin_round(self) -> None:
        ordering = self._data.ordering
        self._round_number += 1
        asked_by, self._next_round = self._next_round, {}
        # No batch is chosen in a slot above the index: this leader has proposed nothing above the index in its view,
        # and the promises of a majority have told it of all that older views may have chosen (Departure 24).
        index = max(ordering.local_aru, ordering.last_proposed, ordering.global_history.top)
        now, view = self._clock.seconds(), self._data.views.last_installed
        self._round = begun = _Round(self._round_number, view, index, asked_by, now, now)
        begun.confirmed_by.add(self._data.server.server_id)
        self.ask_for_confirmation(begun)
        self._end_round_if_confirmed(begun)

    def ask_for_confirmation(self, present: _Round) -> None:
        self._turn.send(Confirm(self._data.server.server_id, present.view, present.number))
        self._watch()

    def _end_round_if_confirmed(self, present: _Round) -> None:
        if not self.is_majority(present.confirmed_by):
            return
        self._round = None
        self._wait.answered(present.first_asked_at, present.asked_at, self._clock.seconds())
        own_id = self._data.server.server_id
        for server_id, number in present.asked_by.items():
            answer = ReadIndex(own_id, number, present.index)
            if server_id == own_id:
                self.on_read_index(answer)
            else:
                self._turn.send(answer, server_id)
        if self._next_round and self._round is None:
            self._begin_round()

    # ------------------------------------------------------------------ lost messages are repeated

    def _watch(self) -> None:
        if self._call is None:
            wait = min(self._wait.seconds, self._settings.resend_seconds)
            self._call = self._clock.callLater(wait, self.ask_again)

    def ask_again(self) -> None:
        """Called by the timer: repeat READ_REQUEST and CONFIRM if they are due, and give up reads that are late."""
        self._call = None
        now = self._clock.seconds()
        if (
            self._request_is_due(now)
            or self._round_is_due(now)
            or now - self._looked_at >= self._settings.resend_seconds
        ):
            self._looked_at = now
            self._turn.run(self._repeat_requests)
        if not self._turn.stopped and (self.under_way or self._round is not None):
            self._watch()

    def _repeat_requests(self) -> None:
        now = self._clock.seconds()
        is_late, round_is_late = self._request_is_due(now), self._round_is_due(now)
        self._give_up(now - self._settings.update_seconds)
        if self.requested:
            if is_late:
                self._requested_at = now
                self._ask_leader()
        elif self.waiting:
            self.request_index()
        present = self.present_round()
        if present is not None and round_is_late:
            present.asked_at = now
            self.ask_for_confirmation(present)
        if (is_late or round_is_late) and self._data.server.state is not State.LEADER_ELECTION:
            self._wait.back_off()

    def _request_is_due(self, now: float) -> bool:
        return bool(self.requested) and now >= self._requested_at + self._wait.seconds

    def _round_is_due(self, now: float) -> bool:
        return self._round is not None and now >= self._round.asked_at + self._wait.seconds

    def _give_up(self, oldest: float) -> None:
        """Give up reads that were asked before `oldest`, by `ready(False)`; their callers put them through the log.

        An update in the log is sent to all servers if the leader cannot be reached, unlike a READ_REQUEST.
        """
        late: list[_Read] = []

        def in_time(reads: list[_Read]) -> list[_Read]:
            late.extend(read for read in reads if read.asked_at <= oldest)
            return [read for read in reads if read.asked_at > oldest]

        indexed = [(seq, in_time(reads)) for seq, reads in self._indexed]
        self._indexed = [(seq, reads) for seq, reads in indexed if reads]
        self.requested, self.waiting = in_time(self.requested), in_time(self.waiting)
        for read in late:
            read.ready(False)
