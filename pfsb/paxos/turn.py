"""Design part 3: one event, run to its end; then disk; then out.

A turn runs in memory without waiting for anything. What it wants to say goes into the outbox, what it
must not forget to stable storage, and the outbox is released, in order, when every record that was forced
up to that turn is on disk. Nothing else leaves the server: that one door makes the paper's `**Sync to disk`
lines true. It makes speculation safe, too (Departure 1): a server may count its own vote in the turn itself, since a
crash before the release leaves no trace anywhere.

Two messages may leave early, past the door: ALIVE, which tells only what is on disk, and the leader's
PROPOSAL, which nobody counts as a vote (paper.md 6.2, explicit-accept variant) and which needs only
Last_Installed on disk.
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
    """What of this server's state is on disk: all that ALIVE and VC_PROOF may tell (paper.md 6.3)."""

    last_installed: int = 0
    local_aru: int = 0


@define
class Outbox:
    """What one or several turns want to say: calls in order, messages by destination."""

    messages: list[tuple[Message, int | None]] = field(factory=list)
    calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = field(factory=list)

    def __bool__(self) -> bool:
        return bool(self.messages or self.calls)

    def extend(self, other: Outbox) -> None:
        self.messages += other.messages
        self.calls += other.calls


def _gathered(messages: list[tuple[Message, int | None]]) -> dict[int | None, list[Message]]:
    """By destination, with the ACCEPTs of one view in one message (section 7.3: one ACCEPT, many proposals)."""
    by_destination: dict[int | None, list[Message]] = {}
    for message, to in messages:
        group = by_destination.setdefault(to, [])
        if isinstance(message, Accept) and group:
            last = group[-1]
            if isinstance(last, Accept) and last.view == message.view:
                group[-1] = Accept(last.server_id, last.view, tuple(dict.fromkeys(last.seqs + message.seqs)))
                continue
        group.append(message)
    return by_destination


class Turn:
    """Runs events one after the other, and keeps the door."""

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
        """Turns so far."""
        self._running = False
        self._stopped = False
        self._must_sync = False
        self._lazy_waits = False
        self._outbox = Outbox()
        self._early: list[tuple[Message, int | None]] = []
        self._behind_the_door: deque[tuple[int, Outbox]] = deque()
        self._position = 0
        """How many groups of forced records were handed to storage."""
        self._durable_position = 0
        self._releasing = False

    # ------------------------------------------------------------------ what a handler may do in a turn

    def append(self, record: Record, *, lazy: bool = False) -> None:
        """Put a record on disk before anything leaves that this or a later turn says.

        `lazy`: nothing rests on it; it travels with the next group, or is flushed on a timer.
        """
        assert self._running, "records are appended in a turn"
        self._storage.append(record)
        if lazy:
            self._lazy_waits = True
        else:
            self._must_sync = True

    def send(self, message: Message, to: int | None = None) -> None:
        """Send to one server, or to all others, when what this rests on is on disk."""
        assert self._running, "messages are sent in a turn"
        self._outbox.messages.append((message, to))

    def send_early(self, message: Message, to: int | None = None) -> None:
        """Send at the end of this turn, past the gate: only ALIVE, and a PROPOSAL whose view is on disk."""
        assert self._running, "messages are sent in a turn"
        self._early.append((message, to))

    def send_proposal_early(self, message: Proposal) -> None:
        """Send a PROPOSAL to all: past the gate if its view is on disk, else behind the gate (Departure 2)."""
        if self.durable.last_installed < message.view:
            self.send(message)
        else:
            self.send_early(message)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function` when what this rests on is on disk: replies and events for clients."""
        assert self._running, "calls are made in a turn"
        self._outbox.calls.append((function, args))

    # ------------------------------------------------------------------ running

    def run(self, event: Callable[..., None], *args: Any) -> None:
        """One event to its end. An exception stops this server: Paxos tolerates a crashed one, not a confused one."""
        if self._stopped:
            return
        assert not self._running, "turns never nest"
        self._running = True
        try:
            event(*args)
            self._at_end()
        except Exception:
            self.fail(Failure())
            return
        finally:
            self._running = False
        self.count += 1
        self._close()

    def fail(self, failure: Failure) -> None:
        """Nothing more is said, ever."""
        if self._stopped:
            return
        self.stop()
        self._on_failure(failure)

    def stop(self) -> None:
        """Drop what waits and refuse further turns."""
        self._stopped = True
        self._behind_the_door.clear()
        self._outbox = Outbox()
        self._early = []
        self._way_out.stop()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def flush_lazy(self) -> None:
        """Give lazy records their own group if none has taken them along."""
        if self._lazy_waits and not self._stopped:
            self._sync()

    @property
    def idle(self) -> bool:
        """Nothing waits at the door."""
        return not self._behind_the_door and self._position == self._durable_position

    def _close(self) -> None:
        if self._early:
            early, self._early = self._early, []
            self._dispatch(early)
        if self._must_sync:
            self._must_sync = False
            self._sync()
        if self._outbox:
            outbox, self._outbox = self._outbox, Outbox()
            self._behind_the_door.append((self._position, outbox))
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
        """Open the door for all turns whose records are on disk, in their order."""
        if self._releasing:
            return  # a call below ran a turn of its own; the loop below sees what it left
        self._releasing = True
        try:
            while self._behind_the_door and self._behind_the_door[0][0] <= self._durable_position:
                outbox = self._behind_the_door.popleft()[1]
                while self._behind_the_door and self._behind_the_door[0][0] <= self._durable_position:
                    outbox.extend(self._behind_the_door.popleft()[1])
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
