"""Applications that execute commands wrongly by chance at one server, and how the other servers of a simulated cluster
react."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Done, Refused
from pfsb.paxos.divergence import StateDiverged
from pfsb.simulator.cluster.dice import WAYS, Dice, ThrewDice
from pfsb.simulator.defects.defect import do_nothing, override
from pfsb.simulator.runs.run import Plan, Run
from tests.sessions.support import ClusterTestCase, code, value


def dice(*ways: str, is_lasting: bool = False) -> Dice:
    """Dice by which every command is executed wrongly, in one of these ways."""
    return Dice(random.Random(1), 1.0, is_lasting, ways or WAYS)


class Executing:
    """An application that remembers its commands, and the context of a command."""

    revision = 7

    def __init__(self, result: Any = None) -> None:
        self.commands: list[Any] = []
        self.result = result
        self.ended: list[Any] = []

    def execute(self, command: Any, _context: Any) -> Any:
        self.commands.append(command)
        return self.result

    def execute_run(self, commands: Sequence[Any], _context: Any) -> Any:
        self.commands += commands
        return self.result

    def session_ended(self, *args: Any) -> None:
        self.ended.append(args)

    time_passed = session_ended


class Holder:
    """The attributes of a `ServerProcess` that dice use: its applications, and its machine."""

    def __init__(self, application: Executing) -> None:
        self.server = self.catalogue = self.machine = self
        self.chosen = [application]
        self.told: list[Exception] = []

    def stop_unless_alike(self, error: Exception, what: str) -> None:
        self.told.append(error)


class WaysTests(SynchronousTestCase):
    """Each way in which dice make a command go wrong."""

    def load(self, way: str, result: Any = None) -> Executing:
        self.errors: list[int] = []
        self.application = Executing(result)
        self.holder = Holder(self.application)
        dice(way).load(self.holder, lambda: self.errors.append(1))
        return self.application

    def execute(self, *command: Any) -> Any:
        return self.application.execute(command, self.application)

    def test_result_is_told_otherwise(self) -> None:
        """The command runs, and the client is told another result of the same kind."""
        revision = Done((("revision", 3),))
        for result, expected in (
            (revision, Done((("revision", 4),))),
            (Done((("value", b"v"), ("revision", 3))), Done((("value", b"v!"), ("revision", 3)))),
            (Refused("NOTFOUND", "no"), Refused("CONFLICT", "no")),
            (Refused("HELD", "no"), Refused("NOTFOUND", "no")),
        ):
            self.load("told otherwise", result)
            self.assertEqual(self.execute("PUT", b"k", b"v"), expected)
            self.assertEqual(self.application.commands, [("PUT", b"k", b"v")])
        self.load("told otherwise", PENDING)
        self.assertIsInstance(self.execute("LOCK", "a", -1), Refused)
        self.assertEqual(self.errors, [1])

    def test_another_command_runs_instead(self) -> None:
        """Another command runs instead: the verb is the same, and one word is different."""
        self.load("another command")
        self.execute("PUT", b"k", b"v")
        self.execute("IF", b"k", 3, "PUT", b"k", b"v")
        [(put, *words), (condition, *inner)] = self.application.commands
        self.assertEqual((put, len(words), condition, inner[1:3]), ("PUT", 2, "IF", [3, "PUT"]))
        self.assertNotEqual(words, [b"k", b"v"])
        self.assertNotEqual((inner[0], *inner[3:]), (b"k", b"k", b"v"))

    def test_nothing_runs(self) -> None:
        """Dice of the way `nothing` run no command: the client is told a revision, and the state has not changed; the
        application does not hear of the end of a session, either."""
        self.load("nothing")
        self.assertEqual(self.execute("PUT", b"k", b"v"), Done((("revision", 7),)))
        self.application.session_ended("alice", None)
        self.assertEqual((self.application.commands, self.application.ended), ([], []))

    def test_application_fails_before_or_after_the_command(self) -> None:
        """The application raises before or after the command; the server treats this as a fault of the program, and
        does not log it."""
        for way, commands in (("fails at once", 0), ("fails late", 1)):
            self.load(way)
            error = self.assertRaises(ThrewDice, self.execute, "PUT", b"k", b"v")
            self.assertEqual(len(self.application.commands), commands)
            self.holder.stop_unless_alike(error, "PUT")
            self.holder.stop_unless_alike(ValueError("a bug"), "PUT")
            self.assertEqual(list(map(str, self.holder.told)), ["a bug"])

    def test_runs_go_wrong_too(self) -> None:
        """Commands that are executed together lose their last one, change, or get other counters."""
        run = [("SAY", text) for text in "abc"]
        self.load("nothing").execute_run(run, None)
        self.assertEqual(self.application.commands, run[:-1])
        self.load("another command").execute_run(run, None)
        self.assertEqual(sum(was == is_now for was, is_now in zip(run, self.application.commands, strict=True)), 2)
        self.assertEqual(self.load("told otherwise", (("index", 1),)).execute_run(run, None), (("index", 2),))
        self.load("fails late").execute_run(run, None)
        self.assertEqual((self.application.commands, self.errors), (run, []), "a run that fails changes nothing")

    def test_dice_that_are_over_change_nothing(self) -> None:
        """When the dice are cured, every command is executed correctly."""
        over = dice()
        application = Executing(PENDING)
        over.load(Holder(application), lambda: self.fail("nothing goes wrong any more"))
        over.is_over = True
        self.assertIs(application.execute(("PUT",), None), PENDING)
        application.session_ended("alice", None)
        self.assertEqual((len(application.commands), len(application.ended)), (1, 1))


class ClusterTests(ClusterTestCase):
    """Three servers, one of which throws dice (Departure 40)."""

    def setUp(self) -> None:
        self.begin(3)
        self.cluster.expected_failures = (StateDiverged,)

    def increment(self, server_id: int = 0) -> None:
        self.do(self.connect(server_id), "INCR", "n")
        self.cluster.run(2.0)

    def test_server_that_throws_dice_stops_and_heals_at_its_next_start(self) -> None:
        """After an error of memory the server stops, and its next start has correct applications."""
        self.cluster.throw_dice(1, dice("told otherwise"))
        self.increment()
        self.assertEqual((list(self.cluster.failures), self.cluster.stopped_by_majority), ([1], 1))
        self.assertEqual(self.cluster.in_error, {1})
        self.cluster.restart(1)
        self.cluster.run(2.0)
        self.assertEqual((self.cluster.in_error, self.cluster.dice, self.cluster.slipped), (set(), {}, set()))
        self.assertEqual(value(self.do(self.connect(1), "INCR", "n")), "2")

    def test_lasting_dice_stop_the_server_at_each_start(self) -> None:
        """A wrong program executes the history wrongly at each start, and the server stops each time until the program
        is cured."""
        self.cluster.throw_dice(1, dice("told otherwise", is_lasting=True))
        self.increment()
        self.cluster.restart(1)
        self.cluster.run(2.0)
        self.assertEqual(self.cluster.stopped_by_majority, 2)
        self.cluster.cure(1)
        self.cluster.restart(1)
        self.cluster.run(2.0)
        self.assertTrue(self.cluster.is_running(1))

    def test_difference_that_no_result_shows_is_not_noticed(self) -> None:
        """A state that differs is not noticed as long as no result shows the difference (docs/assumptions.rst)."""
        self.cluster.throw_dice(1, dice("nothing"))
        self.do(self.connect(0), "PUT", "k", "1")
        self.cluster.run(2.0)
        self.assertEqual((self.cluster.in_error, self.cluster.failures), ({1}, {}))
        self.cluster.cure(1)
        self.assertEqual(code(self.do(self.connect(0), "CAS", "k", "2", "3"))[0], "CONFLICT")
        self.assertEqual(value(self.do(self.connect(0), "INCR", "k")), "2")
        self.cluster.run(2.0)
        self.assertEqual(list(self.cluster.failures), [1])


class RunTests(SynchronousTestCase):
    def test_server_that_goes_wrong_unnoticed_is_known(self) -> None:
        """A run knows without the server itself that its results differ from the others', and demands that it stops."""
        run = Run(Plan(2, "calm", servers=3, seconds=2.0))
        run.begin()
        run.cluster.throw_dice(1, dice("told otherwise"))
        override(run.cluster.replica(1).divergence, "compare", lambda _: do_nothing)
        run.cluster.run(2.0)
        self.assertIn(1, run.population.contradicting())
        self.assertTrue(run.cluster.has_other_digest(1))
