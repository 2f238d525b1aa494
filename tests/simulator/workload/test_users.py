"""The users of a simulated cluster (docs/testing.rst)."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.cluster.healing import heal_some
from pfsb.simulator.runs.population import UserPopulation
from pfsb.simulator.runs.run import Plan, Run
from pfsb.simulator.workload.users import User
from tests.long import long


@long
class FinishingUserTests(SynchronousTestCase):
    """Users that only want to be served, while a minority of the servers is paused for good."""

    def setUp(self) -> None:
        self.begin(1)

    def begin(self, seed: int) -> None:
        """Let the users of a calm run send commands for a second."""
        self.run_ = Run(Plan(seed, "calm", servers=7))
        self.run_.begin()
        self.cluster = self.run_.cluster
        self.cluster.run(1)

    def visits(self, user: User, number: int) -> list[int]:
        """The servers that a user goes to, one after the other."""
        found: list[int] = []
        connection = None
        while len(found) < number:
            self.cluster.run(0.05)
            if user.connection is not None and user.connection is not connection:
                connection = user.connection
                found.append(connection.server_id)
        return found

    def test_user_goes_to_every_server_before_it_goes_to_one_again(self) -> None:
        """A user that no server answers goes round all servers, as a client of the library does."""
        for server_id in self.cluster.ids:
            self.cluster.pause(server_id)
        self.run_.population.finish()
        assert isinstance(self.run_.population, UserPopulation)
        visits = self.visits(self.run_.population.users[0], 15)[1:]
        for round_ in (visits[:7], visits[7:]):
            self.assertEqual(sorted(round_), list(self.cluster.ids))

    def test_majority_serves_all_users_while_a_large_minority_is_paused(self) -> None:
        """Three of seven servers take connections and never answer; all users find the other four within 30 seconds."""
        for seed in range(20):
            self.begin(seed)
            *well, first, second, third = random.Random(seed).sample(self.cluster.ids, 7)
            for server_id in (first, second, third):
                self.cluster.pause(server_id)
            heal_some(self.cluster, well)
            self.run_.population.finish()
            self.cluster.run_until(lambda: not list(self.run_.population.waiting()), 30)
