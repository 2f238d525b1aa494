"""Drills with a server whose application goes wrong (Departure 40): what the servers must do, and how soon."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from attrs import define

from pfsb.applications.interfaces import Refused
from pfsb.simulator.checkers.violation import Violation, require
from pfsb.simulator.cluster.dice import Dice
from pfsb.simulator.runs.client_drills import ClientDrills, DrillClient
from pfsb.simulator.runs.liveness_drills import ROUND_SECONDS, SETTLING_SECONDS


@define(eq=False)
class DiceDrills(ClientDrills):
    """Two drills in which one command has another result at one server than at the others. Raises `Violation`."""

    def possible_drills(self) -> list[Callable[[], None]]:
        is_possible = self.times.is_steady and len(self.cluster.ids) > 2
        return [self.contradicted, self.undecided] if is_possible else []

    # ------------------------------------------------------------------ drills

    def contradicted(self) -> None:
        """A server that a majority contradicts stops. The others take changes, and a start heals that server."""
        wrong = self._any_server()
        correct = [i for i in self.cluster.ids if i != wrong]
        self._go_wrong(wrong, correct)
        self._wait(lambda: not self.cluster.is_running(wrong), self._noticing(), f"server {wrong} differs from all")
        self._take_changes(correct, f"server {wrong} was wrong, and has stopped")
        self.cluster.restart(wrong)
        self._take_changes(self.cluster.ids, f"server {wrong} has executed its history anew")

    def undecided(self) -> None:
        """While a server differs and those that agree are no majority, all refuse changes, and answer questions. When
        the other servers are back, the one that differs stops."""
        ids = self.cluster.ids
        wrong = self._any_server()
        others = self.rng.sample([i for i in ids if i != wrong], len(ids) - 1)
        down = others[: (len(ids) - 1) // 2]
        running = [i for i in ids if i not in down]
        for server_id in down:
            self.cluster.crash(server_id)
        self._wait(self.cluster.has_leader, self.times.longest(SETTLING_SECONDS), f"a majority runs: {running}")
        clients = {i: self._connect(i) for i in running}
        self._go_wrong(wrong, [i for i in running if i != wrong])
        self._wait(
            lambda: all(self.cluster.replica(i).divergence.is_undecided for i in running),
            self._noticing(),
            f"servers {running} differ, and none of them can be right for sure",
        )
        for server_id, client in clients.items():
            self._refuses_changes(server_id, client)
        for server_id in down:
            self.cluster.restart(server_id)
        self._wait(
            lambda: not self.cluster.is_running(wrong),
            self._noticing() + self.times.progress,
            f"all other servers contradict server {wrong}",
        )
        self._take_changes([i for i in ids if i != wrong], f"server {wrong} was wrong, and has stopped")

    # ------------------------------------------------------------------ steps

    def _go_wrong(self, wrong: int, correct: Sequence[int]) -> None:
        """Have a command executed, with another result at server `wrong` than at the others. A correct server is asked
        for it."""
        client = self._connect(self.rng.choice(correct))
        dice = Dice(random.Random(self.rng.random()), 1.0, is_lasting=False, ways=("told otherwise",))
        self.cluster.throw_dice(wrong, dice)
        until = self.cluster.now + self.times.longest(SETTLING_SECONDS)
        client.change()
        while wrong not in self.cluster.in_error or not client.is_served:
            if self.cluster.now > until:
                raise Violation(f"all is well, and server {client.connection.server_id} tells a client {client.result}")
            if client.is_refused:
                client.change()
            self.cluster.run(ROUND_SECONDS)
        dice.is_over = True

    def _noticing(self) -> float:
        """Maximum time, in simulated seconds, in which servers notice that their results differ.

        A server may have to learn the slot first. Then each of the others tells its digest there in two ALIVEs, after
        another one, with which its Local_Aru gets to its disk.
        """
        return 5 * self.times.alive + self.times.catching_up + 3 * ROUND_SECONDS

    def _refuses_changes(self, server_id: int, client: DrillClient) -> None:
        """Require that a server refuses a change, and answers a question unless it is in error itself."""
        client.change()
        self._wait(lambda: client.result is not None, ROUND_SECONDS, f"server {server_id} is in doubt, and is asked")
        result = client.result
        is_right = isinstance(result, Refused) and (result.code, result.fate) == ("DIVERGED", "none")
        require(is_right, f"no majority agrees with server {server_id}, and it answers a change with {result}")
        if server_id not in self.cluster.in_error:
            client.ask()
            longest = self.times.update + ROUND_SECONDS
            self._wait(lambda: client.is_served, longest, f"server {server_id} is in doubt, and is asked a question")

    def _take_changes(self, servers: Sequence[int], why: str) -> None:
        """Require that these servers soon lead and follow, and execute a change for a client of each of them."""
        self._wait(self.cluster.has_leader, self.times.longest(SETTLING_SECONDS), why)
        longest = self._noticing() + self.times.progress + 2 * self.times.update
        for server_id in servers:
            client = self._connect(server_id)
            until = self.cluster.now + longest
            client.change()
            while not client.is_served or (isinstance(client.result, Refused) and client.result.code == "DIVERGED"):
                if self.cluster.now > until:
                    raise Violation(f"{why}, and server {server_id} tells a client {client.result}")
                if client.result is not None:
                    client.change()
                self.cluster.run(ROUND_SECONDS)
