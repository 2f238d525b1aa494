"""Five scenarios of the demos with real processes, in a smaller size."""

from __future__ import annotations

import io
import json

from pfsb.demo.scenarios import Scenario, Size
from pfsb.demo.tool import perform
from tests.integration.case import ClusterCase, reactor

SIZE = Size(lines=1500, clients=12, skip_seq=30)


class ScenarioTests(ClusterCase):
    async def play(self, name: str) -> None:
        """Run a scenario: all checks of its verdict must hold, and its recording must be there."""
        directory = self.directory()
        verdict, trouble = await perform(reactor, Scenario.known[name], SIZE, directory, io.StringIO())
        self.assertEqual(trouble, "")
        self.assertEqual([check for check in verdict.checks if not check.holds], [])
        self.assertIn("no acknowledged line is missing", [check.claim for check in verdict.checks])
        self.assertIn("All is as it should be.", (directory / "summary.md").read_text())
        times = [json.loads(line)["t"] for line in (directory / "trace.jsonl").open()]
        self.assertGreater(len(times), SIZE.lines / SIZE.clients)
        self.assertEqual(times, sorted(times))

    async def test_normal_operation_gives_every_server_every_line_once(self) -> None:
        """In normal operation all servers acknowledge and execute the same chat lines."""
        await self.play("normal")

    async def test_death_of_the_primary_loses_and_doubles_nothing(self) -> None:
        """After the death of the leader another server leads and answers later commands, and no line is lost or
        doubled."""
        await self.play("primary-dies")

    async def test_f_deaths_in_a_row_are_survived(self) -> None:
        """A cluster of five survives that two leaders are killed, one after the other."""
        await self.play("succession")

    async def test_all_servers_killed_at_once_know_everything_acknowledged(self) -> None:
        """When all servers are killed in the middle of writes and restarted, no acknowledged line is missing."""
        await self.play("recovery")

    async def test_hole_of_a_dead_primary_is_filled(self) -> None:
        """A hole that a dead leader has left is filled, and updates that were ordered above it execute once (G11)."""
        await self.play("hole")
