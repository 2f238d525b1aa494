"""Schedules around sessions: the protocol, the sessions and the applications together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfsb.applications.arguments import absent
from pfsb.applications.interfaces import Refused
from pfsb.paxos.messages import ClientUpdate
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.defects.defect import Plant
from pfsb.simulator.schedules.scenario import Schedule, Servers


def old_connection(seed: int, patch: Plant | None) -> None:
    """A command of an old connection does not run once its session was opened again at another server.

    The answer to HELLO tells the client which command numbers have run. A command of the old connection that is still
    on its way at that time must not make the answer wrong by running later.
    """
    servers = Servers(seed, patch)
    cluster = servers.cluster
    first, second = (i for i in cluster.ids if i != cluster.leader())
    old = servers.hello(first, "user")
    on_the_way = cluster.network.hold(lambda p: p.sender == first and isinstance(p.message, ClientUpdate))
    old.submit(1, ("PUT", "key", "late"), lambda result: None)
    cluster.run(0.05)
    servers.hello(second, "user")
    on_the_way.release()
    cluster.run(2)
    if ("user", 1) in servers.checks.results:
        raise Violation("a command ran after HELLO had said, on another connection, that it did not")


def lock_is_not_free_in_time(seed: int, patch: Plant | None) -> None:
    """A LOCK with a time limit is answered when the limit has passed, even if no other command is sent."""
    servers = Servers(seed, patch)
    holder, other = (servers.hello(server_id, f"user-{server_id}") for server_id in (0, 1))
    servers.wait_for(lambda told: holder.submit(1, ("LOCK", "door", absent), told))
    result = servers.wait_for(lambda told: other.submit(1, ("LOCK", "door", 300), told))
    assert isinstance(result, Refused) and result.code == "TIMEOUT", f"the lock was held all the time: {result}"


SCHEDULES: Final[Sequence[Schedule]] = (old_connection, lock_is_not_free_in_time)
