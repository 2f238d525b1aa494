"""The turn: one event of the protocol runs to its end, its records go to disk, then its messages leave.

A turn runs in memory without waiting for anything. Messages and replies of the turn go into its outbox, records into
stable storage. The durability gate releases the outbox of a turn, in order, when every record that was forced up to
that turn is on disk. The gate is the only way out, so it does the work of all `**Sync to disk` lines of the paper.

Why safe (Departure 1): a server may count its own vote in the turn that makes it. All that follows from the vote passes
the gate after the vote's record. If the server crashes before that, no other server, client or disk has learned
anything of the turn, so the turn has not happened.

Two kinds of messages may leave early, without waiting at the gate. ALIVE carries only values that are on disk. The
leader's PROPOSAL is no vote (Departure 2), so it need not be on disk; only Last_Installed must be, so that no other
PROPOSAL ever has its view and sequence number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from pfsb.paxos.data_structures import DataStructures
from pfsb.paxos.interfaces import IStableStorage, ITracer
from pfsb.paxos.messages import Accept, Message, Proposal
from pfsb.paxos.outbound import Outbound
from pfsb.paxos.records import Record


@define
class Durable:
    """The latest Last_Installed and Local_Aru that are on disk: ALIVE and VC_PROOF carry these."""

    last_installed: int = 0
    local_aru: int = 0


@define
class Outbox:
    """The messages and calls of one or several turns that wait at the durability gate, in order."""

    messages: list[tuple[Message, int | None]] = field(factory=list)
    calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = field(factory=list)

    def extend(self, other: Outbox) -> None:
        self.messages += other.messages
        self.calls += other.calls


def _gathered(messages: list[tuple[Message, int | None]]) -> dict[int | None, list[Message]]:
    """Sort messages by destination (None: all other servers), and merge ACCEPTs of one view into one (section 7.3)."""
    if len(messages) == 1:
        ((message, to),) = messages
        return {to: [message]}
    by_destination: dict[int | None, list[Message]] = {}
    for message, to in messages:
        group = by_destination.setdefault(to, [])
        if isinstance(message, Accept) and group:
            last = group[-1]
            if isinstance(last, Accept) and last.view == message.view:
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
        self._at_end = at_end
        """Called at the end of every turn, inside it (`Replica.end_turn`)."""
        self.count = 0
        """Number of turns that have ended since the start."""
        self._running = False
        self._stopped = False
        self._must_sync = False
        self._lazy_waits = False
        self._outbox = Outbox()
        self._early: list[tuple[Message, int | None]] = []
        self._behind_the_gate: deque[tuple[int, Outbox]] = deque()
        self._position = 0
        """Number of `sync` calls made so far. A turn's outbox may leave when the records of as many calls are on disk
        as had been made by the end of that turn."""
        self._durable_position = 0
        self._releasing = False

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

    def send(self, message: Message, to: int | None = None) -> None:
        """Send to server `to`, or to all other servers if None, when all records forced up to this turn are on disk."""
        assert self._running, "messages are sent in a turn"
        self._outbox.messages.append((message, to))

    def send_early(self, message: Message, to: int | None = None) -> None:
        """Send at the end of this turn, without waiting for the disk: only ALIVE, or a PROPOSAL of a view on disk."""
        assert self._running, "messages are sent in a turn"
        self._early.append((message, to))

    def send_proposal_early(self, message: Proposal) -> None:
        """Send a PROPOSAL to all other servers: early if its view is on disk, else through the gate (Departure 2)."""
        if self.durable.last_installed < message.view:
            self.send(message)
        else:
            self.send_early(message)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function`, which answers a client, once: when all records forced up to this turn are on disk."""
        assert self._running, "calls are made in a turn"
        self._outbox.calls.append((function, args))

    # ------------------------------------------------------------------ running

    def run(self, event: Callable[..., None], *args: Any) -> None:
        """Run one event to its end.

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
        self._way_out.stop()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def flush_lazy(self) -> None:
        """Write the lazy records that no forced record has taken along to disk yet."""
        if self._lazy_waits and not self._stopped:
            self._sync()

    @property
    def idle(self) -> bool:
        """Whether no outbox waits at the gate, and no write is under way."""
        return not self._behind_the_gate and self._position == self._durable_position

    def _close(self) -> None:
        if self._early:
            early, self._early = self._early, []
            self._dispatch(early)
        if self._must_sync:
            self._must_sync = False
            self._sync()
        outbox = self._outbox
        if outbox.messages or outbox.calls:
            self._outbox = Outbox()
            self._behind_the_gate.append((self._position, outbox))
            self._release()

    def _sync(self) -> None:
        self._lazy_waits = False
        self._position += 1
        now_durable = Durable(self._data.views.last_installed, self._data.ordering.local_aru)
        self._storage.sync(partial(self._synced, self._position, now_durable))

    def _synced(self, position: int, durable: Durable) -> None:
        if self._stopped:
            return
        self._durable_position = position
        self.durable = durable
        if self._tracer is not None:
            self._tracer.trace("sync", view=durable.last_installed, aru=durable.local_aru)
        self._release()

    def _release(self) -> None:
        """Release the outboxes of all turns whose records are on disk, in their order."""
        if self._releasing:
            return  # a call made by the loop below has run another turn, and the loop also finds that turn's outbox
        self._releasing = True
        gate = self._behind_the_gate
        try:
            while gate and gate[0][0] <= self._durable_position:
                outbox = gate.popleft()[1]
                while gate and gate[0][0] <= self._durable_position:
                    outbox.extend(gate.popleft()[1])
                if outbox.messages:
                    self._dispatch(outbox.messages)
                self._make(outbox.calls)
        finally:
            self._releasing = False

    def _dispatch(self, messages: list[tuple[Message, int | None]]) -> None:
        for to, group in _gathered(messages).items():
            self._way_out.send(group, to)

    def _make(self, calls: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
        for function, args in calls:
            try:
                function(*args)
            except Exception:
                self._log.failure("a client could not be told what it was owed")
