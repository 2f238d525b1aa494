"""Schedules around sessions: the protocol, the sessions and the applications together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from pfsb.applications.arguments import absent
from pfsb.config import Limits
from pfsb.interfaces import Refused, Result
from pfsb.paxos.messages import ClientUpdate
from pfsb.paxos.settings import Settings
from pfsb.simulator.breaking import Break
from pfsb.simulator.checks import Violation
from pfsb.simulator.line import Line
from pfsb.simulator.scene import Schedule
from pfsb.simulator.server_process import builder, configuration
from pfsb.simulator.session_check import SessionCheck
from pfsb.simulator.world import World


class _Servers:
    """A cluster of whole servers, and people who talk to them."""

    def __init__(self, seed: int, patch: Break | None) -> None:
        settings = Settings()
        self.rng = random.Random(f"{seed}/directed")
        self.world = World(
            seed, settings=settings, patch=patch, start=False, build=lambda parts: builder(config, self.checks)(parts)
        )
        config = configuration(self.world.ids, settings, Limits())
        self.checks = SessionCheck(self.world.checks.door.disks, settings.horizon_slots, Counter())
        for server_id in self.world.ids:
            self.world.restart(server_id)
        self.world.run_until(self.world.has_leader)

    def hello(self, server_id: int, client_id: str) -> Line:
        """A connection whose session is open."""
        line = Line(self.world, self.checks, self.rng, server_id, lambda line, code: None)
        line.connect(lambda: None)
        self.wait_for(lambda told: line.hello(client_id, 100, told))
        return line

    def wait_for(self, ask: Callable[[Callable[[Result], None]], None]) -> Result:
        """Ask, and let time pass until the answer is there."""
        answers: list[Result] = []
        ask(answers.append)
        self.world.run_until(lambda: bool(answers), 5)
        return answers[0]


def old_connection(seed: int, patch: Break | None) -> None:
    """Design part 5: what a connection asked, and what comes when its session was opened anew elsewhere, does not run.

    HELLO says which numbers have run; whoever relies on that must not be refuted by what is still on its way.
    """
    servers = _Servers(seed, patch)
    world = servers.world
    first, second = (i for i in world.ids if i != world.leader())
    old = servers.hello(first, "user")
    on_the_way = world.network.hold(lambda p: p.sender == first and isinstance(p.message, ClientUpdate))
    old.submit(1, ("PUT", "key", "late"), lambda result: None)
    world.run(0.05)
    servers.hello(second, "user")
    on_the_way.release()
    world.run(2)
    if ("user", 1) in servers.checks.results:
        raise Violation("a command ran after HELLO had said, on another connection, that it did not")


def lock_is_not_free_in_time(seed: int, patch: Break | None) -> None:
    """Design part 6: a LOCK with a time limit is answered when its time has come, though nothing else is asked."""
    servers = _Servers(seed, patch)
    holder, other = (servers.hello(server_id, f"user-{server_id}") for server_id in (0, 1))
    servers.wait_for(lambda told: holder.submit(1, ("LOCK", "door", absent), told))
    result = servers.wait_for(lambda told: other.submit(1, ("LOCK", "door", 300), told))
    assert isinstance(result, Refused) and result.code == "TIMEOUT", f"the lock was held all the time: {result}"


SCHEDULES: Final[Sequence[Schedule]] = (old_connection, lock_is_not_free_in_time)
