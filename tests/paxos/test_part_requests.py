"""Departure 47: which parts of long promises a new leader asks for, and when."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.data_structures import PrepareOKs
from pfsb.paxos.messages import PrepareOK
from pfsb.paxos.part_requests import PATIENCE_MAX, ROOM_AT_FIRST, ROOM_MAX, PartRequests

RESEND = 0.125
"""Value of `resend_seconds` in these tests: a power of two, so that sums of such times are exact."""


class PartRequestsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.requests = PartRequests(RESEND)
        self.requests.begin()
        self.promises: dict[int, PrepareOKs] = {}

    def promise(self, server_id: int, parts: int) -> None:
        """Let the first part of a promise have arrived."""
        self.promises[server_id] = PrepareOKs(2, 1, parts)
        self.arrive(server_id, 0, 0.0)

    def arrive(self, server_id: int, part: int, now: float) -> None:
        promise = self.promises[server_id]
        promise.arrived[part] = PrepareOK(server_id, 2, (), part, promise.parts, 1)
        self.requests.answered(server_id, part, now)

    def ask(self, now: float, wanted: int = 1) -> list[tuple[int, int]]:
        return self.requests.choose(self.promises, wanted, now)


class RoomTests(PartRequestsTestCase):
    def test_few_requests_are_under_way_at_first(self) -> None:
        self.promise(1, 100)
        self.assertEqual(self.ask(0.0), [(1, 1), (1, 2), (1, 3)])
        self.assertEqual(self.ask(0.01), [])

    def test_more_are_under_way_as_answers_arrive(self) -> None:
        """The number of requests under way doubles in a round trip, up to a bound, so that a long promise takes few
        rounds."""
        self.promise(1, 1_000)
        under_way, rounds = self.ask(0.0), [ROOM_AT_FIRST]
        for number in range(1, 7):
            asked: list[tuple[int, int]] = []
            for server_id, part in under_way:
                self.arrive(server_id, part, number * 0.05)
                asked += self.ask(number * 0.05)
            under_way = asked
            rounds.append(len(asked))
        self.assertEqual(rounds, [3, 6, 12, 24, 32, 32, 32])
        self.assertEqual(max(rounds), ROOM_MAX)

    def test_loss_halves_the_number_once_in_a_round(self) -> None:
        self.promise(1, 1_000)
        for server_id, part in self.ask(0.0):
            self.arrive(server_id, part, 0.01)
        self.assertEqual(len(self.ask(0.01)), 6)
        self.assertEqual(len(self.ask(0.02 + RESEND)), 4)

    def test_some_requests_are_under_way_after_any_number_of_losses(self) -> None:
        self.promise(1, 1_000)
        for tries in range(20):
            self.assertIn(len(self.ask(tries * RESEND * PATIENCE_MAX)), (3, 4))


class LossTests(PartRequestsTestCase):
    def test_part_that_does_not_come_is_asked_for_again(self) -> None:
        self.promise(1, 2)
        self.assertEqual(self.ask(0.0), [(1, 1)])
        self.assertEqual(self.ask(RESEND / 2), [])
        self.assertFalse(self.requests.is_silent(1))
        self.assertEqual(self.ask(RESEND), [(1, 1)])
        self.assertTrue(self.requests.is_silent(1))

    def test_patience_doubles_with_each_failure(self) -> None:
        """The time that an answer may take doubles with each failure, so that a slow network is not filled with
        copies."""
        self.promise(1, 2)
        asked = [now for now in range(600) if self.ask(now * RESEND)]
        gaps = [later - earlier for earlier, later in pairwise(asked)]
        self.assertEqual(gaps[:5], [1, 2, 4, 8, 8])

    def test_patience_follows_the_time_that_answers_take(self) -> None:
        """The time that an answer may take follows measured times: here answers take twice `resend_seconds`, and after
        the first of them no copy is asked for."""
        self.promise(1, 4)
        self.assertEqual(self.ask(0.0), [(1, 1), (1, 2), (1, 3)])
        self.assertEqual(self.ask(RESEND), [(1, 1), (1, 2), (1, 3)])
        self.arrive(1, 1, 2 * RESEND)
        self.assertEqual(self.requests.patience, 4 * RESEND)
        self.assertEqual(self.ask(4 * RESEND), [])
        self.assertEqual(self.ask(5 * RESEND), [(1, 2), (1, 3)])

    def test_patience_is_short_again_when_an_answer_arrives(self) -> None:
        """The time that an answer may take is short again when one arrives: requests are lost by chance, and waiting
        ever longer would not help."""
        self.promise(1, 3)
        self.assertEqual(self.ask(0.0), [(1, 1), (1, 2)])
        self.arrive(1, 1, 0.0)
        for now in (1, 3, 7):
            self.assertEqual(self.ask(now * RESEND), [(1, 2)])
        self.assertEqual(self.requests.patience, 8 * RESEND)
        self.arrive(1, 2, 8 * RESEND)
        self.assertEqual(self.requests.patience, RESEND)

    def test_part_that_later_ones_have_overtaken_is_asked_for_at_once(self) -> None:
        self.promise(1, 100)
        self.assertEqual(self.ask(0.0), [(1, 1), (1, 2), (1, 3)])
        self.arrive(1, 2, 0.01)
        self.assertNotIn((1, 1), self.ask(0.01))
        self.arrive(1, 3, 0.02)
        self.assertIn((1, 1), self.ask(0.02))

    def test_new_phase_begins_with_no_requests(self) -> None:
        self.promise(1, 2)
        self.ask(0.0)
        self.requests.begin()
        self.assertEqual(self.ask(0.01), [(1, 1)])


class ChoiceTests(PartRequestsTestCase):
    def test_no_more_promises_are_completed_than_a_majority_needs(self) -> None:
        for server_id in range(1, 9):
            self.promise(server_id, 2)
        self.assertEqual(self.ask(0.0, wanted=2), [(1, 1), (2, 1)])

    def test_promise_that_lacks_least_comes_first(self) -> None:
        self.promise(1, 9)
        self.promise(2, 3)
        self.assertEqual(self.ask(0.0), [(2, 1), (2, 2)])

    def test_server_that_does_not_answer_comes_last(self) -> None:
        """A server that does not answer is asked last: it may be down, and the promises of others make a majority as
        well."""
        self.promise(1, 2)
        self.promise(2, 9)
        now, asked = 0.0, self.ask(0.0)
        while asked and asked[0][0] == 1:
            now += PATIENCE_MAX * RESEND
            asked = self.ask(now)
        self.assertEqual(asked[0][0], 2)
        self.assertLess(now, 3 * PATIENCE_MAX * RESEND)
