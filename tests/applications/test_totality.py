"""Departure 36: no command makes an application raise, whatever its arity and its types."""

from __future__ import annotations

import random
from typing import Any

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.catalogue import catalogue_of_plugins
from pfsb.applications.interfaces import PENDING, Command, Done, Quotas, Refused, Result, Ticket
from pfsb.sessions.cluster_settings import ClusterSettings
from pfsb.support.limits import NUMBER_MAX

NAMES = ("chat", "kv", "lock", "instances")
VALUES = (
    b"",
    b"a",
    b"b",
    b"-1",
    b"\xff",
    b"x" * 2_000,
    "",
    "a",
    "b",
    "nil",
    "-1",
    "9" * 19,
    "x" * 2_000,
    "\0",
    "é",
    0,
    1,
    2,
    -1,
    -2,
    1_000,
    NUMBER_MAX,
    -(2**63),
)
"""Arguments as a server in error may send them: all have types and ranges of a valid bundle."""
COMMANDS = 4_000
QUOTAS = ClusterSettings(members=(0,), apps=(("kv", 1),))


@define
class Call:
    """The context in which an application executes one command."""

    revision: int
    session: str
    time_ms: int
    quotas: Quotas = QUOTAS

    @property
    def ticket(self) -> Ticket:
        return self.session, self.revision

    def complete(self, ticket: Ticket, result: Result) -> None:
        assert isinstance(result, Done | Refused), result


class TotalityTests(SynchronousTestCase):
    def require_result(self, result: Any, command: Command) -> None:
        self.assertTrue(result is PENDING or isinstance(result, Done | Refused), f"{command}: {result}")

    def test_commands_of_any_arity_and_types_have_a_result(self) -> None:
        """Commands of any arity and types have a result: an exception would be answered as INTERNAL at best, and would
        stop every server at worst."""
        for name in NAMES:
            dice = random.Random(name)
            (application,) = catalogue_of_plugins([name]).applications
            verbs = [description.verb for description in application.commands] + ["NO", ""]
            for number in range(COMMANDS):
                arguments = [dice.choice(VALUES) for _ in range(dice.choice((0, 1, 1, 2, 2, 3, 3, 4, 5)))]
                command = (dice.choice(verbs), *arguments)
                call = Call(number, dice.choice(("a", "b", "~1")), number)
                self.require_result(application.execute(command, call), command)
                self.require_result(application.query(command), command)
                if number % 50 == 0:
                    application.time_passed(call)
                    application.session_ended(call.session, call)
            application.restore(application.snapshot())

    def test_done_up_to_the_largest_number_is_executed(self) -> None:
        """DONE up to the largest number is executed, although it forgets more instances than len() can tell."""
        (application,) = catalogue_of_plugins(["instances"]).applications
        call = Call(1, "a", 0)
        application.execute(("PROPOSE", 5, "eA=="), call)
        self.require_result(application.execute(("DONE", 0, 1, NUMBER_MAX), call), ("DONE",))
        self.assertEqual(application.decided, {})

    def test_done_of_a_peer_that_cannot_be_is_refused_and_holds_nothing_up(self) -> None:
        """DONE of a peer whose number is impossible is refused, and changes nothing: otherwise instances would never be
        forgotten again."""
        (application,) = catalogue_of_plugins(["instances"]).applications
        call = Call(1, "a", 0)
        for peer, peers, seq in ((0, 0, 1), (-1, 2, 1), (2, 2, 1), (0, 2**40, 1), (0, 2, -1)):
            self.assertIsInstance(application.execute(("DONE", peer, peers, seq), call), Refused)
        self.assertIsInstance(application.execute(("DONE", 0, 2, 1), call), Done)
