"""The check of an idle hour: a correct cluster passes, and each session, wait or view that ends too early is found
(docs/testing.rst)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.arguments import absent
from pfsb.sessions.state_machine import EXPIRE
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.defects.all_defects import planted
from pfsb.simulator.defects.defect import Plant, instead_of
from pfsb.simulator.runs import idle_hour
from pfsb.simulator.runs.idle_hour import IdleHour
from pfsb.simulator.runs.population import UserPopulation
from tests.long import long
from tests.simulator.runs.test_liveness_drills import quiet_run


def waits_too_short(process: Any) -> None:
    """A defect: a LOCK waits for one second less than its client has asked for."""

    @instead_of(process.applications["lock"], "begin_wait")
    def wait(wait: Callable[..., None], name: str, lock: Any, client_id: str, number: int, deadline: int) -> None:
        wait(name, lock, client_id, number, deadline if deadline == absent else deadline - 1_000)


@long
class IdleHourTests(SynchronousTestCase):
    """Tests of the idle hour, which is shortened to a minute here."""

    def setUp(self) -> None:
        seconds = {"IDLE_SECONDS": 60.0, "SHORT_WAIT_SECONDS": 20.0, "LONG_WAIT_SECONDS": 180.0}
        for name, value in seconds.items():
            patcher = mock.patch.object(idle_hour, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)

    def hour(self, servers: int = 3, patch: Plant | None = None) -> IdleHour:
        run = quiet_run(servers, patch)
        assert isinstance(run.population, UserPopulation)
        return IdleHour(run.cluster, random.Random(self._testMethodName), run.marks, population=run.population)

    def violation(self, hour: IdleHour) -> str:
        return str(self.assertRaises(Violation, hour.run))

    def test_correct_cluster_comes_through(self) -> None:
        """A correct cluster of one to five servers passes the idle hour: nothing ends early."""
        for servers in (1, 2, 3, 4, 5):
            hour = self.hour(servers)
            hour.run()
            self.assertGreater(hour.cluster.now, 60)

    def test_election_is_found(self) -> None:
        """An election in the idle hour is found: no server may suspect its leader because clients ask for nothing."""
        hour = self.hour()
        hour.cluster.clock.callLater(30, hour.cluster.isolate, 0)
        self.assertIn("nothing has happened for an hour", self.violation(hour))

    def test_session_that_ends_is_found(self) -> None:
        """A session that ends while its client is connected is found."""
        with mock.patch.object(idle_hour, "IDLE_SECONDS", 700.0):
            self.assertIn("the session of idle-", self.violation(self.hour(patch=planted("idle-client-expired"))))

    def test_session_of_a_user_that_ends_is_found(self) -> None:
        """A session of one of the run's own users that ends is found."""
        hour = self.hour()
        user = hour.population.users[-1].session_in_use

        def end() -> None:
            server = hour.cluster.process(0).server
            server.local_clients.submission.submit_operation(
                (EXPIRE, user, server.machine.sessions[user].epoch), lambda result: None
            )

        hour.cluster.clock.callLater(30, end)
        self.assertIn(f"have ended: {{'{user}'", self.violation(hour))

    def test_wait_that_ends_early_is_found(self) -> None:
        """A wait that ends earlier than the client has asked for is found."""
        self.assertIn("was to wait for 20 s, has waited for 19", self.violation(self.hour(patch=waits_too_short)))

    def test_wait_that_does_not_end_is_found(self) -> None:
        """A wait that does not end at its time is found: the end must come although no slot is ordered (Departure
        29)."""
        text = self.violation(self.hour(patch=planted("idle-wait-not-ended")))
        self.assertIn("idle-impatient waits for a lock that is held, and is told None", text)
