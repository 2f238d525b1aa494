"""Schedules around reads without the log (Departure 24).

If a write was answered at one server, a read that is asked after that, at any server, must see the write, or wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pfsb.applications.interfaces import Done, Result
from pfsb.paxos.messages import (
    Accept,
    Alive,
    Confirm,
    Confirmed,
    Proposal,
    ReadIndex,
    ReconciliationReply,
    VCProof,
    ViewChange,
)
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.network import Passage
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Schedule, Servers
from pfsb.simulator.workload.connection import SimulatedConnection

NEWS = (Proposal, Accept, ReconciliationReply)
"""Messages by which a server learns of ordered slots."""


class _Readers(Servers):
    """Three servers, at all of which the value of "key" is "old", and operations to write and read that value."""

    def __init__(self, seed: int, patch: Plant | None) -> None:
        super().__init__(seed, patch)
        leader = self.cluster.leader()
        assert leader is not None
        self.leader = leader
        self.first, self.second = (i for i in self.cluster.ids if i != leader)
        self._writer_number = 1
        self.write(self.leader, "old")
        self.cluster.run(0.5)

    def write(self, server_id: int, value: str) -> None:
        """Write to "key", and wait for the answer."""
        writer = self.hello(server_id, f"writer-{self._writer_number}")
        self._writer_number += 1
        self.wait_for(lambda told: writer.submit(1, ("PUT", "key", value), told))

    def hold(self, stop: Callable[[Passage], bool]) -> Callable[[], None]:
        """From now on, hold back the messages for which `stop` is true. Returns the function that releases them."""
        return self.cluster.network.hold(stop).release

    def keep_in_the_dark(self, server_id: int) -> None:
        """From now on, lose all messages by which this server would learn that a slot is ordered (`NEWS`)."""
        self.hold(lambda p: p.receiver == server_id and isinstance(p.message, NEWS))

    def ask(self, reader: SimulatedConnection) -> list[Result]:
        """Read "key" on this connection, and let 0.02 seconds pass.

        Returns a list that has the answer, or is empty and gets the answer later, when it comes.
        """
        answers: list[Result] = []
        reader.question(("GET", "key"), answers.append)
        self.cluster.run(0.02)
        return answers

    def require_news(self, answers: list[Result]) -> None:
        """Fail if `answers` holds the value "old" after another 0.2 seconds.

        A read that is not answered by then may still go through the log.
        """
        self.cluster.run(0.2)
        if any(isinstance(result, Done) and dict(result.fields)["value"] == "old" for result in answers):
            raise Violation("a read that was asked after a write had been answered does not see it")


def leader_is_not_heard(seed: int, patch: Plant | None) -> None:
    """A leader that no server hears any more, and that was replaced, answers no read from its old state."""
    servers = _Readers(seed, patch)
    reader = servers.hello(servers.leader, "reader")
    servers.hold(lambda p: p.sender == servers.leader)
    servers.cluster.run_until(lambda: servers.cluster.leader() not in (None, servers.leader), 5)
    servers.write(servers.cluster.leader() or 0, "new")
    servers.require_news(servers.ask(reader))


def leader_hears_only_confirmations(seed: int, patch: Plant | None) -> None:
    """A replaced leader whose CONFIRM still arrives gets no majority: the others follow the next leader."""
    servers = _Readers(seed, patch)
    reader = servers.hello(servers.leader, "reader")
    servers.hold(lambda p: p.sender == servers.leader and not isinstance(p.message, Confirm))
    later = (ViewChange, VCProof, *NEWS)
    servers.hold(lambda p: p.receiver == servers.leader and (isinstance(p.message, later) or _is_later(p)))
    servers.cluster.run_until(lambda: servers.cluster.leader() not in (None, servers.leader), 5)
    servers.write(servers.cluster.leader() or 0, "new")
    servers.require_news(servers.ask(reader))


def _is_later(passage: Passage) -> bool:
    return isinstance(passage.message, Alive) and passage.message.view > 1


def request_is_on_its_way(seed: int, patch: Plant | None) -> None:
    """A read does not use a read index that its server has requested before the read was asked."""
    servers = _Readers(seed, patch)
    early, late = (servers.hello(servers.first, name) for name in ("early", "late"))
    go_on = servers.hold(lambda p: p.receiver == servers.first and isinstance(p.message, ReadIndex))
    servers.ask(early)
    servers.keep_in_the_dark(servers.first)
    servers.write(servers.leader, "new")
    answers = servers.ask(late)
    go_on()
    servers.require_news(answers)


def round_is_under_way(seed: int, patch: Plant | None) -> None:
    """A read does not use the read index of a round of CONFIRM that began before the read was asked."""
    servers = _Readers(seed, patch)
    early, late = servers.hello(servers.first, "early"), servers.hello(servers.second, "late")
    go_on = servers.hold(lambda p: p.receiver == servers.leader and isinstance(p.message, Confirmed))
    servers.ask(early)
    servers.keep_in_the_dark(servers.second)
    servers.write(servers.leader, "new")
    answers = servers.ask(late)
    go_on()
    servers.require_news(answers)


def answer_to_a_former_life(seed: int, patch: Plant | None) -> None:
    """A read does not use a read index that a former incarnation of its server has requested."""
    servers = _Readers(seed, patch)
    cluster, reborn = servers.cluster, servers.first
    go_on = servers.hold(lambda p: p.receiver == reborn and isinstance(p.message, ReadIndex))
    servers.ask(servers.hello(reborn, "early"))
    cluster.crash(reborn)
    cluster.restart(reborn)
    cluster.run_until(lambda: cluster.aru(reborn) == cluster.aru(servers.leader), 5)
    cluster.run(0.5)
    late = servers.hello(reborn, "late")
    servers.keep_in_the_dark(reborn)
    servers.write(servers.leader, "new")
    answers = servers.ask(late)
    go_on()
    servers.require_news(answers)


SCHEDULES: Final[Sequence[Schedule]] = (
    leader_is_not_heard,
    leader_hears_only_confirmations,
    request_is_on_its_way,
    round_is_under_way,
    answer_to_a_former_life,
)
