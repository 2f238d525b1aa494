"""Verdicts of demos judge what is right or wrong; times and views that were passed over are figures beside them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.demo.load import Acknowledged
from pfsb.demo.recording import Screen, verdict_lines
from pfsb.demo.scenarios import Size, Stage


@define
class FakeCluster:
    """A cluster of four servers in which `leader` leads `view`."""

    view: int
    leader: int
    ids: tuple[int, ...] = (0, 1, 2, 3)

    async def wait_leader(self, above: int = 0) -> tuple[int, int]:
        assert self.view > above
        return self.view, self.leader


class VerdictTests(SynchronousTestCase):
    def stage(self, view: int = 2, leader: int = 1) -> Stage:
        clock, cluster = Clock(), FakeCluster(view, leader)
        screen = Screen(StringIO(), StringIO(), clock.seconds, "a demo")
        played: Any = cluster
        return Stage(clock, Path(self.mktemp()), played, screen, Size())

    def succeeded(self, stage: Stage) -> int:
        return int(self.successResultOf(Deferred.fromCoroutine(stage.succeeded(1))))

    def test_answer_after_a_minute_is_slow_and_not_wrong(self) -> None:
        """An answer that comes after a minute, as on a busy machine, is reported as slow, and not as wrong."""
        stage = self.stage()
        stage.judge_outage([Acknowledged(1, 1, "1 1", 1, sent=20.0, answered=80.0)], killed_at=15.0)
        self.assertTrue(stage.verdict.holds)
        self.assertEqual(list(stage.verdict.figures.values()), ["65.000 s"])
        self.assertIn("All is as it should be.", verdict_lines(stage.verdict, ""))

    def test_no_answer_after_the_kill_is_wrong(self) -> None:
        """If no command that was sent after the kill was answered, the verdict is wrong. Answers to commands from
        before do not count: these may have been ordered before, too."""
        stage = self.stage()
        stage.judge_outage([Acknowledged(1, 1, "1 1", 1, sent=10.0, answered=80.0)], killed_at=15.0)
        self.assertFalse(stage.verdict.holds)

    def test_view_that_was_passed_over_is_a_figure(self) -> None:
        """A view that was passed over is a figure and no error: view 6 is led by the second server, as view 2 is."""
        for view, passed_over in ((2, "0"), (6, "4")):
            stage = self.stage(view, leader=1)
            self.assertEqual(self.succeeded(stage), view)
            self.assertTrue(stage.verdict.holds)
            self.assertEqual(list(stage.verdict.figures.values()), [passed_over])

    def test_server_that_leads_when_it_is_not_its_turn_is_wrong(self) -> None:
        """A server that leads a view whose number belongs to another server is wrong (Departure 26)."""
        stage = self.stage(2, leader=2)
        self.succeeded(stage)
        self.assertFalse(stage.verdict.holds)
