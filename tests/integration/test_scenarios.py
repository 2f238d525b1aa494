"""The demos' scenarios with real processes, smaller: the five situations that a cluster must come through."""

from __future__ import annotations

import io
import json

from pfsb.demo.scenarios import OUTAGE_SECONDS_MAX, Scenario, Size
from pfsb.demo.tool import perform
from tests.integration.case import ClusterCase, reactor

SIZE = Size(lines=1500, clients=12, outage_seconds_max=OUTAGE_SECONDS_MAX, skip_seq=30)


class ScenarioTests(ClusterCase):
    async def play(self, name: str) -> None:
        """Every check of the scenario's verdict holds, and it has left its recording."""
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
        """Issue point 2."""
        await self.play("normal")

    async def test_death_of_the_primary_loses_and_doubles_nothing(self) -> None:
        """Issue point 3: the next in line leads, in 2.5 s at most."""
        await self.play("primary-dies")

    async def test_f_deaths_in_a_row_are_survived(self) -> None:
        """Issue point 4: five servers, two primaries."""
        await self.play("succession")

    async def test_all_servers_killed_at_once_know_everything_acknowledged(self) -> None:
        """Issue point 6; design, promise 2."""
        await self.play("recovery")

    async def test_hole_of_a_dead_primary_is_filled(self) -> None:
        """Issue point 5; defect G11: what is ordered above the hole executes, once."""
        await self.play("hole")
