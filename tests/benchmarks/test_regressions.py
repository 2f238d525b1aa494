"""`make bench`: counts are the same at each run, and slower cases are reported."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.in_memory import CASES, Run, instructions
from benchmarks.regressions import Change, changes, table

COMMANDS = 48


class CountTests(SynchronousTestCase):
    def counted(self, name: str) -> int:
        run = Run(next(case for case in CASES if case.name == name))
        run.commands(COMMANDS)
        return instructions(lambda: run.commands(COMMANDS))

    def test_same_commands_take_the_same_instructions(self) -> None:
        """Counts differ by at most one in a thousand, because of sizes of integers and caches of the interpreter."""
        first, second = self.counted("put 8 x 32"), self.counted("put 8 x 32")
        self.assertGreater(first, 100 * COMMANDS)
        self.assertApproximates(first, second, first / 1_000)

    def test_instructions_are_those_of_python_s_byte_code(self) -> None:
        """Instructions of Python's byte code are counted: a loop with ten times as many rounds takes about ten times as
        many."""

        def loop(rounds: int) -> None:
            total = 0
            for number in range(rounds):
                total += number

        short, long = (instructions(lambda rounds=rounds: loop(rounds)) for rounds in (1_000, 10_000))
        self.assertApproximates(long / short, 10, 0.3)

    def test_cluster_in_memory_executes_every_command_on_every_server(self) -> None:
        """The cluster in memory executes every command on every server: one that skipped work would have low counts,
        which look good."""
        run = Run(next(case for case in CASES if case.name == "put 1 x 1"))
        before = run.cluster.leader.machine.revision
        run.commands(10)
        run.cluster.clock.run_until(run.cluster.clock.seconds() + 1.0)
        self.assertEqual({server.machine.revision for server in run.cluster.servers}, {before + 10})


RECORDED = {"python": "3.11", "figures": {"put": {"instructions": 100.0, "cpu": 10.0}}}


class CompareTests(SynchronousTestCase):
    def test_more_than_a_quarter_is_a_regression(self) -> None:
        """A figure that is more than a quarter higher than recorded is a regression; a quarter or less is none."""
        found = changes(RECORDED, {"put": {"instructions": 126.0, "cpu": 12.4}}, "3.11")
        self.assertEqual(
            [(change.figure, change.is_regression) for change in found], [("instructions", True), ("cpu", False)]
        )
        self.assertEqual([line.endswith("SLOWER") for line in table(found).splitlines()], [False, True, False])

    def test_incomparable_figures_are_left_out(self) -> None:
        """Another version of Python has different byte code; a new case has no recorded figures."""
        found = {"put": {"instructions": 500.0, "cpu": 10.0}, "new": {"instructions": 1.0, "cpu": 1.0}}
        self.assertEqual(changes(RECORDED, found, "3.12"), [Change("put", "cpu", 10.0, 10.0)])
