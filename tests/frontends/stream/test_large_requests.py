"""Large requests take turns."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Refused
from pfsb.frontends.stream.large_requests import ROWS_UNDER_WAY_MAX, LargeRequest, LargeRequests
from pfsb.frontends.stream.reply_queue import EndOfIteration
from tests.frontends.stream.test_slices import Iterations

SECONDS_MAX = 4.0


class LargeRequestsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.iterations = Iterations()
        end: Any = EndOfIteration(self.iterations)  # type: ignore[arg-type]
        self.requests = LargeRequests(end, self.clock, SECONDS_MAX)
        self.started: list[str] = []
        self.refused: list[str] = []

    def ask(self, name: str, rows: int) -> LargeRequest:
        def refuse(refused: Refused) -> None:
            self.assertEqual(refused.code, "BUSY")
            self.refused.append(name)

        request = LargeRequest(self.requests, rows, lambda: self.started.append(name), refuse)
        request.ask()
        return request

    def run_some(self) -> None:
        for _ in range(5):
            self.iterations.run_next()

    def test_first_one_starts_at_once(self) -> None:
        self.ask("a", ROWS_UNDER_WAY_MAX)
        self.assertEqual(self.started, ["a"])

    def test_one_starts_in_each_iteration(self) -> None:
        for name in "abc":
            self.ask(name, 100)
        self.assertEqual(self.started, ["a"])
        self.iterations.run_next()
        self.assertEqual(self.started, ["a", "b"])
        self.iterations.run_next()
        self.assertEqual(self.started, ["a", "b", "c"])

    def test_as_many_are_under_way_as_have_so_many_rows(self) -> None:
        """As many large requests are under way as fit into the maximum of rows, in the order in which they came: a
        small one does not overtake a large one."""
        first = self.ask("first", ROWS_UNDER_WAY_MAX - 100)
        self.ask("second", 101)
        self.ask("third", 100)
        self.run_some()
        self.assertEqual(self.started, ["first"])
        first.over()
        first.over()
        self.run_some()
        self.assertEqual(self.started, ["first", "second", "third"])

    def test_request_for_more_rows_than_all_may_have_runs_alone(self) -> None:
        self.ask("a", 10 * ROWS_UNDER_WAY_MAX).over()
        self.run_some()
        self.ask("b", 10 * ROWS_UNDER_WAY_MAX)
        self.assertEqual(self.started, ["a", "b"])

    def test_request_whose_turn_does_not_come_is_refused(self) -> None:
        self.ask("a", ROWS_UNDER_WAY_MAX)
        self.ask("b", 100)
        self.clock.advance(SECONDS_MAX)
        self.assertEqual((self.started, self.refused), (["a"], ["b"]))

    def test_client_that_is_gone_gives_its_place_up(self) -> None:
        first, second = self.ask("a", ROWS_UNDER_WAY_MAX), self.ask("b", 100)
        self.ask("c", 100)
        second.over()
        first.over()
        self.run_some()
        self.clock.advance(SECONDS_MAX)
        self.assertEqual((self.started, self.refused), (["a", "c"], []))
