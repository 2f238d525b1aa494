"""Servers that execute equal commands with different results, from the client's side (Departure 40)."""

from __future__ import annotations

import random
from typing import Any

from pfsb.applications.interfaces import Done
from pfsb.paxos.divergence import StateDiverged
from tests.sessions.support import ClusterTestCase, code, value


class DivergenceTests(ClusterTestCase):
    """Three servers, at each of which INCR can be made to give other results than at the others."""

    def setUp(self) -> None:
        self.begin(3)
        self.cluster.expected_failures = (StateDiverged,)

    def throw_dice(self, server_id: int) -> None:
        """Let INCR of a server give results that no other server gets."""
        dice = random.Random(server_id)
        self.cluster.slipped.add(server_id)
        machine = self.server(server_id).machine
        execute = machine.execute_command

        def rolled(session: Any, number: int, command: Any) -> Any:
            if command[0] != "INCR":
                return execute(session, number, command)
            return Done((("value", dice.randrange(1_000_000)), ("revision", machine.revision)))

        machine.execute_command = rolled  # type: ignore[method-assign]

    def increment(self, server_id: int = 0) -> None:
        self.do(self.connect(server_id), "INCR", "n")
        self.cluster.run(2.0)

    def test_equal_servers_agree(self) -> None:
        """While servers are equal, nothing is noticed, and the points of comparison go on."""
        self.increment()
        for server_id in self.cluster.ids:
            status: Any = self.server(server_id).status()
            self.assertFalse(status["diverged"])
            for peer in status["peers"].values():
                self.assertEqual((peer["agrees_up_to"], peer["differs_at"]), (status["aru"], None))

    def test_application_that_throws_dice_is_refused_by_all(self) -> None:
        """If INCR gives other results at every server, no two agree: changes are refused with fate=none, and questions
        are answered."""
        for server_id in self.cluster.ids:
            self.throw_dice(server_id)
        before = {server_id: self.connect(server_id) for server_id in self.cluster.ids}
        self.increment()
        self.assertEqual(self.cluster.failures, {})
        for server_id, client in before.items():
            server = self.server(server_id)
            status: Any = server.status()
            self.assertTrue(status["diverged"])
            self.assertEqual(server.differs_from, [i for i in self.cluster.ids if i != server_id])
            revision = server.machine.revision
            self.assertEqual(code(self.do(client, "PUT", "k", "v")), ("DIVERGED", "none"))
            self.assertIsNone(client.ask_all((None, ("PUT", "k", "v")), (None, ("PUT", "k", "w"))))
            self.assertEqual(code(self.answer(client.hello("alice"))), ("DIVERGED", "none"))
            self.assertEqual(code(self.do(client, "GET", "k")), ("NOTFOUND", "none"))
            self.assertEqual(server.machine.revision, revision)

    def test_command_that_was_answered_is_answered_again(self) -> None:
        """While changes are refused, a repeated command that was answered is answered again, since it changes
        nothing."""
        client = self.open("alice")
        first = self.do(client, "INCR", "m", number=1)
        for server_id in self.cluster.ids:
            self.throw_dice(server_id)
        self.increment()
        self.assertEqual(self.do(client, "INCR", "m", number=1), first)
        self.assertEqual(code(self.do(client, "INCR", "m", number=2)), ("DIVERGED", "none"))

    def test_server_that_differs_from_a_majority_stops_and_heals_at_its_next_start(self) -> None:
        """A server that differs from a majority, as after a fault of its memory, stops; at its next start it executes
        the history on disk again, and is healed."""
        self.throw_dice(1)
        self.increment()
        self.assertEqual(list(self.cluster.failures), [1])
        text = self.cluster.failures[1].getErrorMessage()
        self.assertIn("otherwise than servers 0, 2, which are a majority", text)
        self.assertEqual(value(self.do(self.connect(0), "INCR", "n")), "2")
        self.cluster.restart(1)
        self.cluster.run(2.0)
        self.assertTrue(self.cluster.is_running(1))
        self.assertEqualServers()
        for server_id in self.cluster.ids:
            self.assertEqual(self.server(server_id).facts.differing, [])

    def test_server_that_differs_again_stops_again(self) -> None:
        """A server whose application is at fault differs again after its next start, and stops again."""
        self.throw_dice(1)
        self.increment()
        self.cluster.restart(1)
        self.cluster.failures.clear()
        self.throw_dice(1)
        self.increment()
        self.assertEqual(list(self.cluster.failures), [1])

    def test_two_servers_of_three_that_differ_wait_for_the_third(self) -> None:
        """If two of three servers differ and the third is down, no majority agrees until it is back; then the server
        that is wrong stops."""
        self.cluster.crash(2)
        self.cluster.run_until(self.cluster.has_leader)
        self.throw_dice(1)
        self.increment()
        self.assertTrue(self.server(0).differs_from and self.server(1).differs_from)
        self.cluster.restart(2)
        self.cluster.run(3.0)
        self.assertEqual(list(self.cluster.failures), [1])
        self.assertEqual(self.server(0).differs_from, [])
        self.assertEqual(value(self.do(self.connect(0), "INCR", "n")), "2")
