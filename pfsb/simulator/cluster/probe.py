"""The connection between one incarnation of a server and the checkers of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define

from pfsb.paxos.messages import ClientUpdate, GloballyOrderedUpdate
from pfsb.paxos.ordered_update_queue import Executed
from pfsb.paxos.replica import Replica
from pfsb.simulator.checkers.cluster_checker import ClusterChecker
from pfsb.simulator.checkers.update_checker import Identity
from pfsb.simulator.checkers.violation import Findings
from pfsb.simulator.cluster.clock import ServerClock
from pfsb.simulator.cluster.network import SimulatedNetwork


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
    _replica: Callable[[int], Replica]

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
            executed = mark_ordered(message)
            self.settle(self._checks.execution.ordered, self._server_id, message.seq, message.batch.data)
            return executed

        setattr(replica.ordered_queue, "mark_ordered", marked)  # noqa: B010 - a method, for this one object

    def settle(self, check: Callable[..., None], *args: object) -> None:
        """Call `check(*args)` as soon as the execution that is under way counts, unless the server has ended by then.

        That is at once in recovery, and otherwise when the durability gate lets out the effects of the present turn.
        """
        if self._server_clock.closed:
            return
        if self._recovers:
            self._findings.note(check, *args)
        else:
            self._replica(self._server_id).turn.call(self._settled, check, *args)

    def answered(self, identity: Identity, seq: int) -> None:
        if not self._server_clock.closed:
            self._findings.note(self._checks.answered, identity, seq)
            self._answers.setdefault(identity, seq)

    @property
    def _recovers(self) -> bool:
        return not self._network.is_attached(self._server_id)

    def _settled(self, check: Callable[..., None], *args: object) -> None:
        if not self._server_clock.closed:
            self._findings.note(check, *args)
