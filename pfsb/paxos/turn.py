"""The turn: one event of the protocol runs to its end, its records go to disk, then its messages leave.

A turn runs in memory without waiting for anything. Messages and replies of the turn go into its outbox, records into
stable storage. The durability gate releases the outbox of a turn, in order, when every record that was forced up to
that turn is on disk. The gate is the only way out, so it does the work of all `**Sync to disk` lines of the paper.

Why safe (Departure 1): a server may count its own vote in the turn that makes it. All that follows from the vote passes
the gate after the vote's record. If the server crashes before that, no other server, client or disk has learned
anything of the turn, so the turn has not happened.

Three kinds of messages may leave early, without waiting at the gate. ALIVE carries only values that are on disk. An
ORDERED leaves as soon as the votes that it stands for are on the disks of a majority (Departure 55). The leader's
PROPOSAL is no vote (Departure 2), so it need not be on disk; only Last_Installed must be, so that no other PROPOSAL
ever has its view and sequence number. A record that notes the incarnation or log position of the sender of a vote must
be on disk, too, before an ORDERED leaves that rests on the vote (`hold_ordered`); and if the vote is a promise, before
a PROPOSAL leaves that rests on it (`hold_proposals`).

While the disk hangs (`set_trouble`, Departure 44) nothing new waits at the gate: messages are dropped, and answers
become refusals, which rest on no record and so need not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.paxos.interfaces import IStableStorage, ITracer
from pfsb.paxos.messages import Message, NamedBatches, Ordered, Proposal
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.records import Record

SYNCS_PER_NOTE = 16
"""Number of `sync` calls of which one takes along the records of `Turn.due_records`, which note the states of the other
servers' storages. If each call took them along, a tenth more would be written."""


@define
class Durable:
    """The latest Last_Installed and Local_Aru that are on disk: ALIVE and VC_PROOF carry these."""

    last_installed: int = 0
    local_aru: int = 0


Call = tuple[Callable[..., None], tuple[Any, ...], Any]
"""(function, its arguments, refusal): a call that waits at the durability gate.

If the call is an answer to a client, `refusal` stands for each of its results if the disk hangs. None: the call is no
answer, and waits for the disk.
"""


@define
class Outbox:
    """The messages and calls of one or several turns that wait at the durability gate, in order."""

    messages: list[tuple[Message, int | None]] = field(factory=list)
    calls: list[Call] = field(factory=list)
    has_executed: bool = False
    """Whether one of the turns has executed a slot."""
    first: tuple[Callable[[], None], ...] = ()
    """Functions that are called before the messages leave."""

    def extend(self, other: Outbox) -> None:
        self.first += other.first
        self.messages += other.messages
        self.calls += other.calls


def _gathered(messages: list[tuple[Message, int | None]]) -> dict[int | None, list[Message]]:
    """Sort messages by destination (None: all other servers), and merge ACCEPTs of one view into one (section 7.3), as
    well as ORDEREDs."""
    if len(messages) == 1:
        ((message, to),) = messages
        return {to: [message]}
    by_destination: dict[int | None, list[Message]] = {}
    for message, to in messages:
        group = by_destination.setdefault(to, [])
        if isinstance(message, NamedBatches) and group:
            last = group[-1]
            if type(last) is type(message) and last.view == message.view:
                group[-1] = last.joined(message)
                continue
        group.append(message)
    return by_destination


class Turn:
    """Runs events one after the other, and keeps the durability gate."""

    _log = Logger()

    def __init__(
        self,
        data: DataStructures,
        storage: IStableStorage,
        way_out: Outbound,
        on_failure: Callable[[Failure], None],
        at_end: Callable[[], None],
        tracer: ITracer | None = None,
    ) -> None:
        self._data = data
        self._storage = storage
        self._way_out = way_out
        self._on_failure = on_failure
        self._tracer = tracer
        self.durable = Durable()
        self.trouble: DiskTrouble | None = None
        """Why nothing can be written at present; None: the disk works. Set by `DiskWatch`."""
        self.lacks_state = False
        """Whether this server has lost its state, and has not got it back yet (Departure 58). Set by
        `SnapshotFetcher`."""
        self._at_end = at_end
        """Function that is called inside of every turn, at its end: `Replica.end_turn`."""
        self.count = 0
        """Number of turns that have ended since the start."""
        self._running = False
        self._stopped = False
        self._must_sync = False
        self._lazy_waits = False
        self._outbox = Outbox()
        self._early: list[tuple[Message, int | None]] = []
        self._refusals: list[Call] = []
        self._refusing = False
        self._behind_the_gate: deque[tuple[int, Outbox]] = deque()
        self._position = 0
        """Number of `sync` calls made so far. A turn's outbox may leave when the records of as many calls are on disk
        as had been made by the end of that turn."""
        self.durable_position = 0
        """Number of `sync` calls whose records are on disk."""
        self._releasing = False
        self.due_records: Callable[[], Iterable[Record]] = tuple
        """Function that returns records to be written along with those of the next `sync`; no message waits for them
        (`pfsb.paxos.log_positions`). Called before one `sync` in `SYNCS_PER_NOTE`, and before lazy records are written
        without a forced one."""
        self.due_messages: Callable[[], Sequence[Message]] = tuple
        """Function that returns the messages, to all other servers, which have waited for the write that has ended now.
        They need not wait for later writes that were asked for meanwhile (`TellingHandler`). Called when a write has
        ended, unless `hold_ordered` keeps messages back."""
        self._position_in_trouble = 0
        """Number of `sync` calls that had been made when the present trouble began."""
        self._ordered_held_until = 0
        """Number of `sync` calls whose records must be on disk before an ORDERED leaves early (`hold_ordered`)."""
        self._proposals_held_until = 0
        """Number of `sync` calls whose records must be on disk before a PROPOSAL leaves early (`hold_proposals`); never
        more than the number for ORDERED."""

        self._early_held_until = 0
        """Number of `sync` calls whose records must be on disk before anything leaves early (`begin_epoch`)."""

    # ------------------------------------------------------------------ what a handler may do in a turn

    def append(self, record: Record, *, lazy: bool = False) -> None:
        """Give a record to the storage: it is on disk before anything of this or a later turn leaves through the gate.

        With `lazy`, no message waits for the record: it is written with the next forced record, or on a timer.
        """
        assert self._running, "records are appended in a turn"
        self._storage.append(record)
        if lazy:
            self._lazy_waits = True
        else:
            self._must_sync = True

    def hold_ordered(self) -> None:
        """Let no ORDERED leave early, of this turn or a later one, until all records forced so far are on disk.

        Called when a record notes the incarnation or log position of the sender of a vote (`pfsb.paxos.log_positions`),
        since an ORDERED rests on votes (Departure 54).
        """
        self._ordered_held_until = self._position + self._must_sync

    def hold_proposals(self) -> None:
        """Let no PROPOSAL leave early, of this turn or a later one, until the records are on disk for which ORDEREDs
        wait now (`hold_ordered`).

        Called when a promise counts, since a PROPOSAL rests on promises, and so on the records about their senders
        (Departure 54), and on no other vote.
        """
        self._proposals_held_until = self._ordered_held_until

    def begin_epoch(self) -> None:
        """Drop all messages that have not left, since they are of an epoch that is over, and let nothing leave, early
        or not, until the records of this turn are on disk (Departure 60). Answers to clients stay."""
        self._early.clear()
        self._outbox.messages.clear()
        for _, outbox in self._behind_the_gate:
            outbox.messages.clear()
        self._early_held_until = self._position + 1

    def send(self, message: Message, to: int | None = None) -> None:
        """Send to server `to`, or to all other servers if None, when all records forced up to this turn are on disk."""
        assert self._running, "messages are sent in a turn"
        self._outbox.messages.append((message, to))

    def send_early(self, message: Message, to: int | None = None) -> None:
        """Send to server `to`, or to all other servers if None, at the end of this turn, without waiting for the disk:
        only ALIVE, a PROPOSAL of a view on disk, an ORDERED of slots on the disks of a majority, or in a turn that
        begins an epoch, where all of these wait for the disk, the slot of the change."""
        assert self._running, "messages are sent in a turn"
        self._early.append((message, to))

    def send_proposal_early(self, message: Proposal, to: int | None = None) -> None:
        """Send a PROPOSAL, to all other servers if `to` is None: early if its view is on disk, else through the gate
        (Departure 2)."""
        # While PREPARE passes the gate, this test finds the view on disk: a leader has promises only because its
        # PREPARE has left. Should a PREPARE ever leave early, (view, seq) names one proposal only by this test (breaks
        # EarlyProposal and NeitherWaits in docs/spec/index.rst).
        if self.durable.last_installed < message.view:
            self.send(message, to)
        else:
            self.send_early(message, to)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Let `function`, which answers a client, be called when all records forced up to this turn are on disk."""
        assert self._running, "calls are made in a turn"
        self._outbox.calls.append((function, args, None))

    def call_first(self, function: Callable[[], None]) -> None:
        """Let `function` be called when all records forced up to this turn are on disk, before the messages of this
        turn leave."""
        assert self._running, "calls are made in a turn"
        self._outbox.first += (function,)

    def answer(self, function: Callable[..., None], results: Sequence[Any], refusal: Any) -> None:
        """Call `function(results)`, which answers a client, once: when all records forced up to this turn are on disk.

        If the disk hangs, each of the results becomes `refusal`, and the call is made at once (Departure 44).
        """
        assert self._running, "answers are given in a turn"
        self._outbox.calls.append((function, (results,), refusal))

    def refuse(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function`, which refuses a client, once, at the end of this turn: a refusal rests on no record, and so
        never waits for the disk."""
        assert self._running, "refusals are given in a turn"
        self._refusals.append((function, args, None))

    def note_execution(self) -> None:
        """Record that this turn has executed a slot, whose results rest on the records forced up to this turn."""
        self._outbox.has_executed = True

    # ------------------------------------------------------------------ running

    def run(self, event: Callable[..., None], *args: Any) -> None:
        """Run one event, the call `event(*args)`, to its end.

        An exception stops this server: Paxos tolerates a server that stops, but not one whose state is wrong.
        """
        if self._stopped:
            return
        assert not self._running, "turns never nest"
        self._running = True
        try:
            event(*args)
            self._at_end()
        except BaseException:  # SystemExit, too, leaves a turn in its middle
            self.fail(Failure())
            return
        finally:
            self._running = False
        self.count += 1
        self._close()

    def fail(self, failure: Failure) -> None:
        """Stop this server, drop its outboxes, and report the failure by `on_failure`."""
        if self._stopped:
            return
        self.stop()
        self._on_failure(failure)

    def stop(self) -> None:
        """Drop the outboxes that wait at the gate, and refuse further turns."""
        self._stopped = True
        self._behind_the_gate.clear()
        self._outbox = Outbox()
        self._early = []
        self._refusals = []
        self._way_out.stop()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def flush_lazy(self) -> None:
        """Write the lazy records that no forced record has taken along to disk yet, unless the disk is in trouble."""
        if self._lazy_waits and not self._stopped and self.trouble is None:
            self._append_due()
            self._sync()

    def set_trouble(self, trouble: DiskTrouble | None) -> None:
        """Take notice, in a turn, that the disk hangs or is full, or works again (None).

        If the disk hangs, the answers that wait at the gate become refusals, and leave at the end of this turn.
        """
        assert self._running, "trouble begins and ends in a turn"
        self.trouble = trouble
        self._position_in_trouble = self._position
        if trouble is DiskTrouble.HANGS:
            for _, outbox in self._behind_the_gate:
                self.refuse_answers(outbox)

    @property
    def is_writing(self) -> bool:
        """Whether a write is under way."""
        return self._position != self.durable_position

    @property
    def writes_under_way(self) -> int:
        """Number of writes that were asked for, and are not on disk yet."""
        return self._position - self.durable_position

    @property
    def writes_in_trouble(self) -> int:
        """Number of writes that this server has begun since its disk got into the present trouble; 0 if there is no
        trouble.

        Always 0, unless there is a mistake in this class (Invariant 12).
        """
        return 0 if self.trouble is None else self._position - self._position_in_trouble

    @property
    def messages_in_wait(self) -> int:
        """Number of messages that wait at the gate."""
        return sum(len(outbox.messages) for _, outbox in self._behind_the_gate)

    @property
    def answers_in_wait(self) -> int:
        """Number of calls that wait at the gate to answer a client, each of them one or several commands."""
        return sum(len(outbox.calls) for _, outbox in self._behind_the_gate)

    @property
    def shows_only_what_is_durable(self) -> bool:
        """Whether no turn that has executed a slot waits at the gate: the results of executing rest on no record that
        is not on disk."""
        return not any(outbox.has_executed for _, outbox in self._behind_the_gate)

    @property
    def position(self) -> int:
        """Number of disk writes asked for so far. A message that is sent through the gate now leaves when this number
        of writes is done.
        """
        return self._position

    @property
    def idle(self) -> bool:
        """Whether no outbox waits at the gate, and no write is under way."""
        return not self._behind_the_gate and self._position == self.durable_position

    def renumber_writes(self) -> int:
        """Number the writes anew, so that the last one that is on disk now has number 0, and put messages that wait for
        one write into one outbox.

        The model checker does so, since states that differ in these numbers alone are one state. Returns by how much
        the number of each write under way went down; its callback must be told the lower number.
        """
        behind = self.durable_position
        if behind or len(self._behind_the_gate) > 1:
            self._position -= behind
            self.durable_position = 0
            self._ordered_held_until = max(0, self._ordered_held_until - behind)
            self._proposals_held_until = max(0, self._proposals_held_until - behind)
            gate: dict[int, Outbox] = {}
            for position, outbox in self._behind_the_gate:
                gate.setdefault(position - behind, Outbox()).extend(outbox)
            self._behind_the_gate = deque(gate.items())
        return behind

    def _close(self) -> None:
        if self._early:
            early, self._early = self._early, []
            if self._early_held_until > self.durable_position:
                self._outbox.messages[:0] = early
                early = []
            elif self._ordered_held_until > self.durable_position:
                early = self._hold_back(early)
            self._dispatch(early)
        if self._must_sync:
            self._must_sync = False
            self._sync()
        if self.trouble is not None:
            self._let_nothing_wait(self.trouble)
        if self._refusals and not self._refusing:
            self._refuse()
        outbox = self._outbox
        if outbox.messages or outbox.calls or outbox.has_executed or outbox.first:
            self._outbox = Outbox()
            self._behind_the_gate.append((self._position, outbox))
            self._release()

    def _refuse(self) -> None:
        """Make the refusals of this turn, and those of all turns that they lead to.

        A client that is refused may have sent further requests, which are handled at once, in turns of their own. The
        refusals of such a turn are made by this loop, not inside of that turn: with many clients that wait behind each
        other, the calls would be nested deeper than Python allows.
        """
        self._refusing = True
        try:
            while self._refusals:
                refusals, self._refusals = self._refusals, []
                self._make(refusals)
        finally:
            self._refusing = False

    def _hold_back(self, early: list[tuple[Message, int | None]]) -> list[tuple[Message, int | None]]:
        """Put those messages of `early` into the outbox of this turn that must wait for the disk: ORDERED, and PROPOSAL
        if `hold_proposals` says so. Returns the others, which may leave now.

        They wait because a record which notes the log position or the incarnation of a peer, on whose vote they rest,
        is not on disk yet. Each pair is (message, the server that it goes to; None: all other servers).
        """
        held = Ordered if self._proposals_held_until <= self.durable_position else (Ordered, Proposal)
        self._outbox.messages[:0] = [each for each in early if isinstance(each[0], held)]
        return [each for each in early if not isinstance(each[0], held)]

    def _sync(self) -> None:
        self._lazy_waits = False
        self._position += 1
        if not self._position % SYNCS_PER_NOTE:
            self._append_due()
        now_durable = Durable(self._data.views.last_installed, self._data.ordering.local_aru)
        self._storage.sync(partial(self._synced, self._position, now_durable))

    def _append_due(self) -> None:
        for record in self.due_records():
            self._storage.append(record)

    def _synced(self, position: int, durable: Durable) -> None:
        if self._stopped:
            return
        self.durable_position = position
        self.durable = durable
        if self._tracer is not None:
            self._tracer.trace("sync", view=durable.last_installed, aru=durable.local_aru)
        if self._ordered_held_until <= self.durable_position:
            due = self.due_messages()
            if due:
                self._dispatch([(message, None) for message in due])
        self._release()

    def _release(self) -> None:
        """Release the outboxes of all turns whose records are on disk, in their order."""
        if self._releasing:
            return  # a call made by the loop below has run another turn, and the loop also finds that turn's outbox
        self._releasing = True
        gate = self._behind_the_gate
        try:
            while gate and gate[0][0] <= self.durable_position:
                outbox = gate.popleft()[1]
                while gate and gate[0][0] <= self.durable_position:
                    outbox.extend(gate.popleft()[1])
                for function in outbox.first:
                    function()
                if outbox.messages:
                    self._dispatch(outbox.messages)
                self._make(outbox.calls)
        finally:
            self._releasing = False

    def _dispatch(self, messages: list[tuple[Message, int | None]]) -> None:
        for to, group in _gathered(messages).items():
            self._way_out.send(group, to)

    def _let_nothing_wait(self, trouble: DiskTrouble) -> None:
        """If the disk hangs (`trouble`), drop the messages of this turn, since a network may lose messages, too; and
        give clients refusals in place of the answers of this turn."""
        if trouble is DiskTrouble.HANGS:
            self.drop_messages(self._outbox)
            self.refuse_answers(self._outbox)

    def drop_messages(self, outbox: Outbox) -> None:
        """Discard the messages of an outbox that would wait for a disk that hangs; its calls stay in it."""
        outbox.messages.clear()

    def refuse_answers(self, outbox: Outbox) -> None:
        """Take out of `outbox` the answers to clients, because the disk hangs and so would hold them up at the gate. At
        the end of this turn each of these clients gets, in place of each result, the refusal that was given to
        `answer`."""
        kept = []
        for call in outbox.calls:
            function, args, refusal = call
            if refusal is None:
                kept.append(call)
            else:
                self._refusals.append((function, ([refusal] * len(args[0]),), None))
        outbox.calls = kept

    def _make(self, calls: list[Call]) -> None:
        for function, args, _ in calls:
            try:
                function(*args)
            except Exception:
                self._log.failure("a client could not be told what it was owed")
