"""`pfsb simulate`: its command line, its exit status and its output (docs/operating.rst)."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pfsb.simulator.defects.expected_catches import CAUGHT, DIRECTED
from pfsb.simulator.faults.plan import Fault
from pfsb.simulator.runs import simulate_command
from pfsb.simulator.runs.diagram import draw_diagram
from pfsb.simulator.runs.run import Plan, RunOutcome
from pfsb.support.command_line import parse
from tests.long import long


def parsed(*words: str) -> simulate_command.Options:
    options: simulate_command.Options = parse(simulate_command.command, words)
    return options


def fails_with_crash(plan: Plan) -> RunOutcome:
    """A simulation in which seed 2 fails as long as fault 1 happens."""
    faults = tuple(Fault(n, float(n), "crashes", "crash") for n in range(4))
    faults = tuple(fault for fault in faults if plan.faults is None or fault.number in plan.faults)
    if "crashes" in plan.without:
        faults = ()
    failure = "S1: broken" if plan.seed == 2 and any(fault.number == 1 for fault in faults) else ""
    return RunOutcome(plan, "digest", 100, 1.0, Counter(), failure, faults, users=1)


class OptionsTests(SynchronousTestCase):
    def test_wrong_words_are_refused(self) -> None:
        """A wrong word is refused, and the error says which words are right."""
        for words, text in (
            (("--profile", "storm"), "known are mixed, calm"),
            (("--without", "luck"), "known are network"),
            (("--seed", "1", "--faults", "x"), "takes numbers"),
            (("--seeds", "3", "--for", "5"), "give one of them"),
            (("--seeds", "3", "--trace", "file"), "for one run"),
            (("--broken", "accept-erly"), 'did you mean "accept-early"?'),
            (("--profile", "dice", "--snapshots"), "before a result has shown it"),
            (("--profile", "paper", "--members"), "changes are asked of whole servers"),
        ):
            self.assertIn(text, str(self.assertRaises(click.UsageError, parsed, *words)))

    def test_command_of_a_plan_is_that_plan(self) -> None:
        """The command that a failure prints gives the same plan when it is parsed."""
        plan = Plan(7, "star", 5, 2.5, frozenset({"disks", "clocks"}), (3, 4), 2)
        self.assertEqual(parsed(*plan.command().split()[2:]).plan, plan)
        added = Plan(7, snapshots=True, members=True)
        self.assertEqual(parsed(*added.command().split()[2:]).plan, added)
        none = Plan(7, faults=())
        self.assertEqual(parsed(*none.command().split()[2:]).plan, none)

    def test_seeds_count_from_the_first(self) -> None:
        """The command line names one seed, a number of seeds from the first on, or with --for no last seed."""
        self.assertEqual(list(parsed("--seed", "7").seeds()), [7])
        self.assertEqual(list(parsed("--seed", "7", "--seeds", "3").seeds()), [7, 8, 9])
        self.assertEqual(list(parsed("--seeds", "2").seeds()), [0, 1])
        self.assertEqual(next(parsed("--seed", "7", "--for", "1").seeds()), 7)


@long
class SimulateToolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[Plan] = []

    def story(self, plan: Plan, *_: object) -> list[str]:
        self.told.append(plan)
        return ["this is why"]

    def play(self, *words: str, run_plan: Any = fails_with_crash) -> tuple[simulate_command.SimulateTool, str]:
        out, options = io.StringIO(), parsed(*words)
        played = simulate_command.SimulateTool(self.clock, options, out, run_plan)
        played.story = self.story
        done = Deferred.fromCoroutine(played.run_one() if options.is_single else played.run_many())
        self.clock.advance(0)
        self.successResultOf(done)
        return played, out.getvalue()

    def test_failing_seed_is_reported_with_its_command_and_shrunk(self) -> None:
        """A failing seed is reported with the command that repeats it, and shrunk: the smallest failing run has one
        fault."""
        played, text = self.play("--seeds", "5")
        self.assertTrue(played.has_failed)
        self.assertIn("pfsb simulate --seed 2    S1: broken\n", text)
        self.assertIn("one user; 1 crash at 1.00 s\nthis is why\n", text)
        self.assertEqual([plan.faults for plan in self.told], [(1,)])
        self.assertIn("5 seeds from 0 on, 1 failed, 500 events in 0.00 simulated hours", text)

    def test_good_seeds_do_not_fail(self) -> None:
        """The exit status of a command without failures is 0."""
        played, text = self.play("--seed", "3", "--seeds", "4")
        self.assertFalse(played.has_failed)
        self.assertIn("4 seeds from 3 on, 0 failed", text)

    def test_option_for_limits_the_time(self) -> None:
        """With --for, seeds are run until the time is over; each takes a quarter of a second here."""

        def slow(plan: Plan) -> RunOutcome:
            self.clock.rightNow += 0.25
            return fails_with_crash(plan)

        _, text = self.play("--seed", "10", "--for", "1", run_plan=slow)
        self.assertIn("4 seeds from 10 on", text)

    def test_many_seeds_must_reach_every_mark(self) -> None:
        """A thousand seeds of the mixed profile fail if a required mark is missing."""
        self.patch(simulate_command, "MARKS_SEEDS", 5)
        played, text = self.play("--seed", "10", "--seeds", "5")
        self.assertTrue(played.has_failed)
        self.assertRegex(text, r"FAILED: 5 seeds never came through: .*hole filled with a no-op")
        played, _ = self.play("--seed", "10", "--seeds", "5", "--profile", "calm")
        self.assertFalse(played.has_failed)

    def test_one_seed_can_be_traced_and_drawn_as_a_diagram(self) -> None:
        """The trace has all events, and the diagram shows the last of them (docs/operating.rst)."""
        directory = Path(self.mktemp())
        directory.mkdir()
        trace, diagram = directory / "trace", directory / "diagram"
        words = ("--seed", "1", "--servers", "3", "--seconds", "1", "--profile", "crashes")
        played, _ = self.play(
            *words, "--trace", str(trace), "--diagram", str(diagram), run_plan=simulate_command.run_plan
        )
        self.assertFalse(played.has_failed)
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        self.assertIn("executed", {line["event"] for line in lines})
        self.assertEqual(sorted(lines, key=lambda line: line["t"]), lines)
        self.assertIn("server 0", diagram.read_text())


@long
class PlantedDefectTests(SynchronousTestCase):
    """The option --broken and the list of defects."""

    def test_defect_without_a_seed_chooses_its_pinned_run(self) -> None:
        """Without a seed, --broken chooses the pinned random run of the defect, or else its pinned directed
        schedule."""
        self.assertEqual(parsed("--broken", "accept-early").plan.seed, CAUGHT["accept-early"].seed)
        self.assertEqual(parsed("--broken", "executed-twice").plan.profile, CAUGHT["executed-twice"].schedule)
        for name in set(DIRECTED) - set(CAUGHT):
            directed = parsed("--broken", name)
            self.assertEqual((directed.schedule, directed.plan.seed), (DIRECTED[name].schedule, DIRECTED[name].seed))
            self.assertIsNone(parsed("--broken", name, "--seed", "3").schedule)

    def test_defect_that_no_recorded_run_shows_needs_seeds(self) -> None:
        """A defect for which no run is recorded needs seeds on the command line; its author meets this before the first
        hunt."""
        self.patch(simulate_command, "CAUGHT", {})
        self.patch(simulate_command, "DIRECTED", {})
        error = self.assertRaises(click.UsageError, parsed, "--broken", "accept-early")
        self.assertIn("give --seed or --seeds", str(error))
        self.assertEqual(parsed("--broken", "accept-early", "--seeds", "60").plan.profile, "mixed")

    def test_directed_run_reports_the_violation(self) -> None:
        """A failing directed run prints the sentence of its schedule and the violation of the check."""
        out = io.StringIO()
        played = simulate_command.SimulateTool(Clock(), parsed("--broken", "editions-mixed"), out)
        played.run_directed("promise-of-two-lives")
        self.assertTrue(played.has_failed)
        self.assertIn("FAILED: Violation", out.getvalue())
        self.assertIn("what is broken: ", out.getvalue())
        self.assertIn("the rule: ", out.getvalue())
        self.assertIn("server 0", out.getvalue())

    def test_correct_server_passes_the_same_schedule(self) -> None:
        out = io.StringIO()
        played = simulate_command.SimulateTool(Clock(), parsed("--seed", "0"), out)
        played.run_directed("promise-of-two-lives")
        self.assertFalse(played.has_failed)

    def test_command_that_repeats_a_failure_names_the_defect(self) -> None:
        """The printed command has the option --broken, without which the run would pass."""
        out, clock = io.StringIO(), Clock()
        options = parsed("--broken", "accept-early", "--seed", "2", "--seeds", "1", "--no-shrink")
        played = simulate_command.SimulateTool(clock, options, out, fails_with_crash)
        played.story = lambda *_: []
        done = Deferred.fromCoroutine(played.run_many())
        clock.advance(0)
        self.successResultOf(done)
        self.assertIn("pfsb simulate --seed 2 --broken accept-early    S1: broken", out.getvalue())

    def test_all_defects_are_listed(self) -> None:
        out = io.StringIO()
        simulate_command.SimulateTool(Clock(), parsed("--list-broken"), out).list_broken()
        self.assertEqual(len(out.getvalue().splitlines()), len(CAUGHT))


class DiagramTests(SynchronousTestCase):
    def test_messages_are_arrows_between_the_columns(self) -> None:
        """In a diagram messages are arrows between the columns, time runs down, and a server that an event does not
        concern has a vertical bar."""
        from pfsb.paxos.messages import Accept, Alive, State, ViewChange

        events: list[dict[str, Any]] = [
            {"t": 0.0, "server": 0, "event": "start", "aru": 0},
            {"t": 0.1, "server": 2, "event": "receive", "sender": 0, "message": ViewChange(0, 1)},
            {"t": 0.2, "server": 0, "event": "receive", "sender": 1, "message": Accept(1, 1, (4, 5), bytes(32))},
            {"t": 0.3, "server": 0, "event": "receive", "sender": 1, "message": Alive(1, 1, State.REG_NONLEADER, 0)},
            {"t": 0.4, "server": None, "event": "fault", "kind": "3 crash at 0.40 s"},
            {"t": 0.4, "server": 1, "event": "crash"},
        ]
        rows = draw_diagram(events, (0, 1, 2), 10)
        self.assertEqual(
            rows,
            [
                "               server 0          server 1          server 2",
                "   0.0000   starts, aru 0           |                 |",
                "   0.1000         |-----------VIEW_CHANGE 1---------->|",
                "   0.2000         |<---ACCEPT 4,5---|                 |",
                "   0.4000 === 3 crash at 0.40 s ===",
                "   0.4000         |                 X                 |",
            ],
        )
        self.assertEqual(draw_diagram(events, (0, 1, 2), 1)[1:], rows[-1:])

    def test_sends_and_disk_writes_are_in_the_column_of_their_server(self) -> None:
        """Sends and disk writes are in the column of their server: a message that leaves too early is a send above the
        write."""
        from pfsb.paxos.messages import Accept, Alive, State

        events: list[dict[str, Any]] = [
            {"t": 0.1, "server": 0, "event": "send", "to": None, "message": Accept(0, 1, (4,), bytes(32))},
            {"t": 0.1, "server": 0, "event": "send", "to": 1, "message": Accept(0, 1, (5,), bytes(32))},
            {"t": 0.2, "server": 0, "event": "send", "to": None, "message": Alive(0, 1, State.REG_NONLEADER, 0)},
            {"t": 0.3, "server": 0, "event": "sync", "view": 1, "aru": 3},
        ]
        self.assertEqual(
            draw_diagram(events, (0, 1), 10)[1:],
            [
                "   0.1000    -> ACCEPT 4            |",
                "   0.1000    ->1 ACCEPT 5           |",
                "   0.3000   disk v1 aru 3           |",
            ],
        )

    def test_slots_that_a_server_executes_together_share_a_row(self) -> None:
        """Slots that a server executes together share a row: a start executes the whole history, which would fill the
        diagram."""
        events: list[dict[str, Any]] = [
            {"t": 0.1, "server": server, "event": "executed", "seq": seq} for server in (0, 1) for seq in (4, 5, 6)
        ]
        self.assertEqual(
            [row.split() for row in draw_diagram(events, (0, 1), 10)[1:]],
            [["0.1000", "executes", "4-6", "|"], ["0.1000", "|", "executes", "4-6"]],
        )

    def test_last_event_is_always_shown(self) -> None:
        """The last event is always shown, even an ALIVE: a check may have found wrong what it tells."""
        from pfsb.paxos.messages import Alive, State

        alive = {"t": 0.2, "server": 0, "event": "send", "to": None, "message": Alive(0, 7, State.REG_NONLEADER, 0)}
        rows = draw_diagram([alive, alive], (0, 1), 10)[1:]
        self.assertEqual(len(rows), 1)
        self.assertIn("-> ALIVE 7", rows[0])
