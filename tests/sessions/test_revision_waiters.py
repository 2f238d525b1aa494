"""RevisionWaiters: a revision that is told is on disk, and each request that waits is called back once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.sessions.revision_waiters import RevisionWaiters


@define
class FakeTurn:
    """A turn whose durability gate opens when the test says so."""

    calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = field(factory=list)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        self.calls.append((function, args))

    def open_door(self) -> None:
        calls, self.calls = self.calls, []
        for function, args in calls:
            function(*args)


@define
class FakeMachine:
    revision: int


class RevisionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.machine, self.turn = Clock(), FakeMachine(7), FakeTurn()
        turn: Any = self.turn
        machine: Any = self.machine
        self.revisions = RevisionWaiters(machine, turn, self.clock)
        self.reached: list[bool] = []

    def test_what_was_recovered_may_be_told(self) -> None:
        """A revision that was recovered is on disk, so a client may be told it."""
        self.assertEqual(self.revisions.told, 7)

    def test_told_only_behind_the_gate(self) -> None:
        """An executed revision is told only when the records of its turn are on disk: until then it may be lost with
        this server."""
        self.revisions.wait(8, 10, self.reached.append)
        self.machine.revision = 8
        self.revisions.note()
        self.assertEqual((self.revisions.told, self.reached), (7, []))
        self.turn.open_door()
        self.assertEqual((self.revisions.told, self.reached), (8, [True]))
        self.clock.advance(10)
        self.assertEqual(self.reached, [True])

    def test_turns_that_execute_nothing_say_nothing(self) -> None:
        """Turns that execute nothing put nothing into the outbox of the server."""
        self.revisions.note()
        self.assertEqual(self.turn.calls, [])

    def test_reached_already(self) -> None:
        """A request for a revision that was told already is called back at once."""
        self.revisions.wait(7, 10, self.reached.append)
        self.assertEqual(self.reached, [True])

    def test_not_in_time(self) -> None:
        """A request that has timed out is called back with False, and not again when the revision is reached."""
        self.revisions.wait(9, 10, self.reached.append)
        self.machine.revision = 8
        self.revisions.note()
        self.turn.open_door()
        self.clock.advance(10)
        self.machine.revision = 9
        self.revisions.note()
        self.turn.open_door()
        self.assertEqual(self.reached, [False])
