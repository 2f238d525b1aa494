"""The connection between one incarnation of a server and the checkers of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from attrs import define, field

from pfsb.paxos.messages import ClientUpdate, GloballyOrderedUpdate
from pfsb.paxos.ordered_update_queue import Executed
from pfsb.paxos.replica import Replica
from pfsb.paxos.snapshot import Piece
from pfsb.simulator.checkers.cluster_checker import ClusterChecker
from pfsb.simulator.checkers.snapshot_checker import WatchedRestorer
from pfsb.simulator.checkers.update_checker import Identity
from pfsb.simulator.checkers.violation import Findings
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.network import SimulatedNetwork


@define(eq=False)
class Unsettled:
    """The checks of one server that wait until an execution counts, over all its incarnations.

    A crash undoes what is only in memory, and these checks are dropped with it. A snapshot is an exception: the record
    of it may be on disk although the server has died before it heard of that. Then the slots up to that of the snapshot
    count, and their checks are made at the next start.
    """

    _checks: dict[int, tuple[int, Callable[..., None], tuple[object, ...]]] = field(factory=dict)
    """Number -> (the last slot on which the check rests, check, its arguments)."""
    _numbers: Iterator[int] = field(factory=count)

    def add(self, seq: int, check: Callable[..., None], args: tuple[object, ...]) -> int:
        number = next(self._numbers)
        self._checks[number] = seq, check, args
        return number

    def remove(self, number: int) -> None:
        self._checks.pop(number, None)

    def take_up_to(self, seq: int) -> list[tuple[Callable[..., None], tuple[object, ...]]]:
        """The checks of slots up to `seq`, in their order. All others are dropped."""
        checks, self._checks = self._checks, {}
        return [(check, args) for up_to, check, args in checks.values() if up_to <= seq]


@define(eq=False)
class Probe:
    """Reports to the checkers what one incarnation of a server executes and answers, until the incarnation ends.

    An execution counts from the moment when the durability gate lets its effects leave the server
    (docs/internals/turn.rst). A server that recovers is not on the network yet and executes only what is on its disk,
    so its executions count at once.
    """

    _server_id: int
    _server_clock: ServerClock
    _network: SimulatedNetwork
    _checks: ClusterChecker
    _findings: Findings
    _answers: dict[Identity, int]
    """Update -> the slot in the first answer to this update, whichever server gave it. Shared by the probes of all
    servers."""
    _process: Callable[[int], Any]
    """Returns the `SimulatedProcess` of the present incarnation of a server."""
    _unsettled: Unsettled
    _slipped: set[int]
    """The servers that have another digest than they should have (`SimulatedCluster.slipped`)."""

    def executed(self, seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        if not self._server_clock.closed:
            self._checks.executed(self._server_id, seq, updates)
            check = self._checks.execution.settled if self._recovers else self._checks.settled
            self.settle(check, self._server_id, seq, time_ms, updates)

    def watch(self, replica: Replica) -> None:
        """Make the replica report to the checkers each slot that it orders, in addition to the slots that it executes.

        An ordered slot above a missing one is executed much later, or never.
        """
        mark_ordered = replica.ordered_queue.mark_ordered

        def marked(message: GloballyOrderedUpdate) -> list[Executed]:
            epoch = replica.membership.epoch  # this slot may be the one that ends it, or lie above that one
            executed = mark_ordered(message)
            check = self._checks.execution.ordered
            self._settle(message.seq, check, self._server_id, message.seq, message.batch.data, epoch)
            return executed

        setattr(replica.ordered_queue, "mark_ordered", marked)  # noqa: B010 - a method, for this one object
        self._watch_snapshots(replica)

    def _watch_snapshots(self, replica: Replica) -> None:
        """Make the replica report to the checkers each state that it freezes, and each that it is restored to."""
        queue = replica.ordered_queue
        freeze, restorer = queue.freeze, queue.restorer

        def frozen() -> Iterator[Piece]:
            pieces: Iterator[Piece] = freeze()
            process, seq = self._process(self._server_id), replica.data.ordering.local_aru
            if self._server_id not in self._slipped:
                facts, models = process.facts(), process.models()
                self.settle(self._checks.snapshots.frozen, self._server_id, seq, facts, models)
            return pieces

        def begun() -> WatchedRestorer:
            return WatchedRestorer(restorer(), self._restored)

        setattr(queue, "freeze", frozen)  # noqa: B010
        setattr(queue, "restorer", begun)  # noqa: B010

    def _restored(self) -> None:
        """Check the state of a snapshot that was put in place, and let the checkers of this server go on from there.

        The slots up to that of the snapshot count as soon as the record of the snapshot is on disk.
        """
        process, server_id = self._process(self._server_id), self._server_id
        seq = process.replica.data.ordering.local_aru

        def check() -> None:
            self._checks.execution.restored(server_id, seq)
            process.follow(self._checks.snapshots.restored(server_id, seq, process.facts()))

        self._slipped.discard(server_id)
        self._findings.note(check)
        self.settle(self._checks.settled_by_snapshot, server_id, seq)

    def settle(self, check: Callable[..., None], *args: object) -> None:
        """Call `check(*args)` as soon as the execution that is under way counts, unless the server has ended by then.

        That is at once in recovery, and otherwise when the durability gate lets out the effects of the present turn.
        """
        self._settle(self._checks.execution.executed_up_to[self._server_id], check, *args)

    def _settle(self, seq: int, check: Callable[..., None], *args: object) -> None:
        """Do the same as `settle` for a check that rests on the slots up to `seq`."""
        if self._server_clock.closed:
            return
        if self._recovers:
            self._findings.note(check, *args)
        else:
            number = self._unsettled.add(seq, check, args)
            self._process(self._server_id).replica.turn.call(self._settled, number, check, *args)

    def answered(self, identity: Identity, seq: int) -> None:
        if not self._server_clock.closed:
            self._findings.note(self._checks.answered, identity, seq)
            self._answers.setdefault(identity, seq)

    @property
    def _recovers(self) -> bool:
        return not self._network.is_attached(self._server_id)

    def _settled(self, number: int, check: Callable[..., None], *args: object) -> None:
        if not self._server_clock.closed:
            self._unsettled.remove(number)
            self._findings.note(check, *args)
