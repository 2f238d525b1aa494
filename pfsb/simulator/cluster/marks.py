"""Marks: one counter for each rare branch of the servers' code, which shows whether runs come through it at all.

Marks are counted from outside: from traces, from messages that leave a server, and by the checkers. The server has no
code for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field
from zope.interface import implementer

from pfsb.paxos.interfaces import ITracer
from pfsb.paxos.messages import (
    Accept,
    Message,
    Ordered,
    Prepare,
    PrepareOK,
    Proposal,
    ReconciliationReply,
    State,
)
from pfsb.simulator.cluster.cluster import SimulatedCluster

REQUIRED: Final = (
    *(f"cluster of {size} servers" for size in range(1, 10)),
    "ids with gaps",
    "hole filled with a no-op",
    "own view rejoined",
    "PREPARE tabled",
    "answer given for a repetition",
    "asked again for what had run",
    "update bound twice, filtered once",
    "two leaders at once",
    "torn group on disk",
    "crash behind a write",
    "reconciliation from disk",
    "promise in parts",
    "session expired by another server",
    "session taken over",
    "answer came in a later slot",
    "vote before its proposal",
    "vote travelled with a PROPOSAL",
    "vote sent by the timer",
    "ORDERED before its proposal",
    "ORDERED travelled with a PROPOSAL",
    "batch of several updates",
    "update of several sessions",
    "bundle ordered beyond its horizon",
    "lock granted after a wait",
    "lock not free in time",
    "UNAVAILABLE fate=unknown",
    "UNAVAILABLE fate=none",
    "BUSY fate=none",
    "REPLACED fate=unknown",
    "BADREQUEST fate=unknown",
    "read beside the log",
    "event heard",
    "fault: drain_leader",
    "fault: leave_a_hole",
    "fault: crash_in_write",
    "fault: wall_clock",
    "fault: late_kind",
    "drill: idleness",
    "drill: blackout",
    "drill: detour",
    "drill: absence",
    "drill: restart",
    "drill: failover",
    "drill: lateness",
    "blackout that costs no election",
    "discarded: 4 A4",
    "discarded: 4 A6",
    "discarded: 4 B4",
    "discarded: 4 C4",
    "discarded: 4 D4",
    "discarded: 4 E4",
    "discarded: 4 E6",
    "discarded: 4 F4",
)
"""Names of the marks that must not stay at zero over a thousand seeds of the mixed profile."""

NO_OP: Final = b"\x90"
"""The last byte of an encoded batch without updates: msgpack's empty array."""


@define
class Marks:
    """The counts of all marks, of one run or of many runs together."""

    counts: Counter[str] = field(factory=Counter)

    def fault(self, kind: str) -> None:
        self.counts[f"fault: {kind}"] += 1

    def crash(self, groups_kept: int, records_torn: int) -> None:
        self.counts["torn group on disk"] += records_torn > 0
        self.counts["crash behind a write"] += groups_kept > 0

    def missing(self) -> list[str]:
        return [name for name in REQUIRED if not self.counts[name]]


@define(eq=False)
class Watcher:
    """Finds the marks of one run in the traces of its servers and in the messages that they send."""

    marks: Marks
    cluster: SimulatedCluster | None = None
    _states: dict[int, tuple[str, int]] = field(factory=dict)
    """Server -> (its state, such as REG_LEADER; its view), as its present incarnation last traced them."""
    _last_view: dict[int, int] = field(factory=dict)
    """Server -> the view in which it last followed a leader."""
    _highest: int = 0
    """The highest slot that was proposed in any view before the latest view with a proposal."""
    _view: int = 0
    _highest_of_view: int = 0
    _executed: set[int] = field(factory=set)
    """Slots that `executed` has counted already: each slot is counted once, for the whole cluster."""

    def tracer(self, server_id: int) -> ITracer:
        """Make the tracer of one incarnation of a server."""
        self._states.pop(server_id, None)
        self.marks.counts["start from a snapshot"] += self._cluster.disk(server_id).snapshot_seq > 0
        return _Tracer(self, server_id)

    def sent(self, server_id: int, to: int | None, messages: Sequence[Message]) -> None:
        if len(messages) > 1 and isinstance(messages[0], Accept) and isinstance(messages[1], Proposal):
            self._mark("vote travelled with a PROPOSAL")
        if len(messages) > 1 and isinstance(messages[0], Ordered) and isinstance(messages[1], Proposal):
            self._mark("ORDERED travelled with a PROPOSAL")
        for message in messages:
            match message:
                case Proposal():
                    self._proposal(message)
                case PrepareOK(data_list=data_list, parts=parts) if parts > 1:
                    self._mark("promise in parts" if data_list else "part of a promise asked for")
                case ReconciliationReply(updates=updates) if updates:
                    floor = self._cluster.replica(server_id).data.ordering.global_history.floor
                    self.marks.counts["reconciliation from disk"] += updates[0].seq <= floor

    def changed(self, server_id: int, state: str, view: int) -> None:
        before = self._states.get(server_id)
        self._states[server_id] = state, view
        if state == State.REG_LEADER.value:
            others = [i for i, (other, _) in self._states.items() if other == state and i != server_id]
            if any(self._cluster.is_running(i) for i in others):
                self._mark("two leaders at once")
        if state == State.REG_NONLEADER.value:
            if before is not None and before[0] != state and self._last_view.get(server_id) == view:
                self._mark("own view rejoined")
            self._last_view[server_id] = view

    def received(self, server_id: int, message: Message) -> None:
        replica = self._cluster.replica(server_id)
        data = replica.data
        match message:
            case Accept(view=view, seqs=seqs):
                slot = data.ordering.global_history.get(seqs[0])
                if seqs[0] > data.ordering.local_aru and (slot is None or slot.proposal is None):
                    self.marks.counts["vote before its proposal"] += view == data.views.last_installed
            case Ordered(view=view, seqs=seqs):
                slot = data.ordering.global_history.get(seqs[0])
                if seqs[0] > data.ordering.local_aru and (slot is None or slot.proposal is None):
                    self.marks.counts["ORDERED before its proposal"] += view == data.views.last_installed
            case Prepare(view=view, local_aru=aru) if view == data.views.last_attempted:
                ordering = data.ordering
                oldest = max(ordering.global_history.floor, ordering.local_aru - 2 * replica.window.slots)
                self.marks.counts["PREPARE tabled"] += aru < oldest

    def executed(self, server_id: int, seq: int, fresh: int) -> None:
        """Count two marks about the batch of slot `seq`, at its first execution by any server: whether it has several
        updates, and whether some of its updates were filtered, since they had run in an earlier slot.

        `fresh` is the number of its updates that have run in this slot; the others were filtered.
        """
        if seq in self._executed:
            return
        self._executed.add(seq)
        slot = self._cluster.replica(server_id).data.ordering.global_history.get(seq)
        assert slot is not None and slot.ordered is not None, "what is executed is still there"
        updates = len(slot.ordered.open()[1])
        self.marks.counts["update bound twice, filtered once"] += fresh < updates
        self.marks.counts["batch of several updates"] += updates > 1

    def votes_timed(self) -> None:
        self._mark("vote sent by the timer")

    def discarded(self, rule: str) -> None:
        self._mark(f"discarded: {rule}")

    def counted(self, name: str) -> None:
        self._mark(name)

    @property
    def _cluster(self) -> SimulatedCluster:
        assert self.cluster is not None, "the watcher is given the cluster before the first event"
        return self.cluster

    def _proposal(self, message: Proposal) -> None:
        if message.view > self._view:
            self._view, self._highest = message.view, max(self._highest, self._highest_of_view)
            self._highest_of_view = 0
        self._highest_of_view = max(self._highest_of_view, message.seq)
        if message.batch.data.endswith(NO_OP) and len(message.batch.data) < 20 and message.seq < self._highest:
            self._mark("hole filled with a no-op")

    def _mark(self, name: str) -> None:
        self.marks.counts[name] += 1


@implementer(ITracer)
@define
class _Tracer:
    _watcher: Watcher
    _server_id: int

    def trace(self, event: str, **fields: Any) -> None:
        match event:
            case "receive":
                message = fields["message"]
                if isinstance(message, Accept | Ordered | Prepare):
                    self._watcher.received(self._server_id, message)
            case "state":
                self._watcher.changed(self._server_id, fields["to"], fields["view"])
            case "executed":
                self._watcher.executed(self._server_id, fields["seq"], fields["updates"])
            case "timer" if fields["name"] == "votes":
                self._watcher.votes_timed()
            case "snapshot" if fields["step"] == "end":
                self._watcher.counted("snapshot taken")
            case "fetch":
                self._watcher.counted("fetch of a snapshot goes on" if fields["begin"] else "fetch of a snapshot")
            case "install":
                self._watcher.counted("snapshot of another server installed")
            case "discard":
                self._watcher.discarded(fields["line"])
