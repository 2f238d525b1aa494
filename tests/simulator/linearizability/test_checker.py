"""The search itself: which histories have an order, how long it looks, and what it says of those that have none."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import Done
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.simulator.linearizability.checker import CheckResult, check_linearizability
from pfsb.simulator.linearizability.models import all_sub_histories
from pfsb.simulator.linearizability.operations import Operation
from pfsb.simulator.linearizability.search import Verdict
from tests.simulator.linearizability.histories import (
    Recorder,
    at,
    choose_chat,
    choose_key_value,
    choose_lock,
    done,
    has_order,
    lost,
    one_after_the_other,
    overlapping,
    refused,
    spoil,
    without_revisions,
)

OK = Done()
X, Y = ("PUT", "k", "x"), ("PUT", "k", "y")
GET = ("GET", "k")


def checked(*operations: Operation, steps_max: int = 10_000) -> CheckResult:
    return check_linearizability(all_sub_histories(operations), steps_max)


class HistoryCase(SynchronousTestCase):
    def assertLinearizable(self, *operations: Operation) -> None:
        outcome = checked(*operations)
        self.assertIs(outcome.verdict, Verdict.OK, outcome.text)

    def assertBlames(self, blamed: Operation, *operations: Operation) -> CheckResult:
        outcome = checked(*operations)
        self.assertIs(outcome.verdict, Verdict.VIOLATION, outcome.text)
        self.assertIs(outcome.operation, blamed, outcome.text)
        return outcome


class RealTimeTests(HistoryCase):
    def test_empty_history_has_an_order(self) -> None:
        """No operations, no parts, nothing to explain."""
        self.assertLinearizable()

    def test_read_after_write_sees_it(self) -> None:
        """What ended first comes first."""
        self.assertLinearizable(*one_after_the_other(("a", X, OK), ("b", GET, done(value="x"))))

    def test_stale_read_is_a_violation(self) -> None:
        """A read that began when the later write had ended must not see the earlier one."""
        history = one_after_the_other(("a", X, OK), ("a", Y, OK), ("b", GET, done(value="x")))
        self.assertBlames(history[2], *history)

    def test_read_during_a_write_may_see_either_value(self) -> None:
        """Overlapping operations may come in either order."""
        before, write = at(0, 1, "a", X, OK), at(2, 5, "a", Y, OK)
        for value in ("x", "y"):
            self.assertLinearizable(before, write, at(3, 4, "b", GET, done(value=value)))

    def test_old_value_after_new_one_is_a_violation(self) -> None:
        """Two reads one after the other during one write: once seen, it stays seen."""
        write = at(0, 9, "a", X, OK)
        new, old = at(1, 2, "b", GET, done(value="x")), at(3, 4, "c", GET, refused("NOTFOUND"))
        self.assertBlames(old, write, new, old)
        self.assertLinearizable(write, new, at(1.5, 4, "c", GET, refused("NOTFOUND")))

    def test_end_and_beginning_at_one_instant_may_overlap(self) -> None:
        """The history does not say which came first, so both are possible."""
        self.assertLinearizable(at(0, 1, "a", X, OK), at(1, 2, "b", GET, refused("NOTFOUND")))

    def test_lost_update_is_a_violation(self) -> None:
        """Two increments cannot both make 1 of nothing, not even at once."""
        history = overlapping(("a", ("INCR", "k", 1), done(value="1")), ("b", ("INCR", "k", 1), done(value="1")))
        self.assertIs(checked(*history).verdict, Verdict.VIOLATION)
        self.assertLinearizable(history[0], at(0, 1, "b", ("INCR", "k", 1), done(value="2")))

    def test_duplicated_append_is_a_violation(self) -> None:
        """One command that is answered once takes effect once."""
        history = one_after_the_other(("a", ("APPEND", "k", "x"), done(value="x")), ("b", GET, done(value="xx")))
        self.assertBlames(history[1], *history)

    def test_value_that_nobody_wrote_is_a_violation(self) -> None:
        history = one_after_the_other(("a", X, OK), ("b", GET, done(value="z")))
        self.assertBlames(history[1], *history)

    def test_keys_are_judged_apart(self) -> None:
        """The violation is found in the part where it is, whatever surrounds it."""
        bad = at(4, 5, "b", GET, done(value="z"))
        good = [at(0, 9, "c", ("PUT", "other", "1"), OK), at(1, 2, "d", ("GET", "other"), done(value="1"))]
        self.assertLinearizable(*good)
        self.assertTrue(self.assertBlames(bad, *good, bad).text.startswith('key "k": '))

    def test_answer_before_call_is_refused(self) -> None:
        """A history that cannot be is a mistake of whoever wrote it down, not of the servers."""
        error = self.assertRaises(ValueError, at, 2, 1, "a", GET, refused("NOTFOUND"))
        self.assertIn("is answered at 1, before its call at 2", str(error))


class FateTests(HistoryCase):
    def setUp(self) -> None:
        self.written = at(0, 1, "a", X, OK)
        self.lost = lost(2, "b", Y)

    def read(self, call: float, value: str) -> Operation:
        return at(call, call + 1, "c", GET, done(value=value))

    def test_unknown_fate_that_happened(self) -> None:
        self.assertLinearizable(self.written, self.lost, self.read(3, "y"))

    def test_unknown_fate_that_did_not_happen(self) -> None:
        self.assertLinearizable(self.written, self.lost, self.read(3, "x"))

    def test_unknown_fate_that_happened_late(self) -> None:
        """It may take effect at any time from its call on, long after its client has given up."""
        self.assertLinearizable(self.written, self.lost, self.read(3, "x"), self.read(90, "x"), self.read(95, "y"))

    def test_unknown_fate_happens_at_most_once(self) -> None:
        """Once seen, then overwritten, it is gone."""
        again = self.read(20, "y")
        overwritten = at(10, 11, "a", X, OK)
        self.assertBlames(again, self.written, self.lost, self.read(3, "y"), overwritten, again)

    def test_unknown_fate_has_no_effect_before_its_call(self) -> None:
        early = self.read(1.2, "y")
        late = evolve_call(self.lost, 3)
        self.assertBlames(early, self.written, late, early)

    def test_error_of_unknown_fate_counts_as_no_answer(self) -> None:
        """UNAVAILABLE with fate=unknown comes back at some time; the command may still run after it."""
        unavailable = at(2, 3, "b", Y, refused("UNAVAILABLE"))
        self.assertEqual(unavailable.fate, "none")
        unknown = Operation("b", 2, 3, Y, refused("UNAVAILABLE"), "unknown")
        self.assertLinearizable(self.written, unknown, self.read(4, "x"), self.read(6, "y"))

    def test_effect_of_fate_none_is_a_violation(self) -> None:
        """fate=none is a promise; the explanation names the command that broke it."""
        promised = Operation("b", 2, 3, Y, refused("BUSY"), "none")
        seen = self.read(4, "y")
        self.assertLinearizable(self.written, promised, self.read(4, "x"))
        outcome = self.assertBlames(seen, self.written, promised, seen)
        self.assertIn('It would be explained if fate=none were wrong for: PUT "k" "y" by b.', outcome.text)

    def test_refusal_by_the_application_is_an_observation(self) -> None:
        """NOTFOUND says fate=none to a client, but it says as well that the key was absent."""
        wrong = at(2, 3, "b", GET, refused("NOTFOUND"))
        self.assertEqual(wrong.fate, "done")
        self.assertBlames(wrong, self.written, wrong)

    def test_many_unknown_fates_do_not_slow_the_search(self) -> None:
        """Forty lost writes that nobody saw, or one of which somebody saw, are forty possibilities, not 2 ** 40."""
        many = [lost(2, f"c{n}", ("PUT", "k", f"v{n}")) for n in range(40)]
        for last in (self.read(3, "x"), self.read(3, "v7")):
            self.assertTrue(checked(self.written, *many, last, steps_max=200).ok)
        outcome = checked(self.written, *many, self.read(3, "z"), steps_max=10_000)
        self.assertIs(outcome.verdict, Verdict.VIOLATION)

    def test_failure_with_a_fate_used_up_says_nothing_of_one_still_left(self) -> None:
        """The swap comes before the write; tried the other way round it uses up the lost write, which is read later."""
        write, swap = at(12, 15, "c", X, OK), at(12.5, 15, "d", ("CAS", "k", 1, "y", "x"), OK)
        first, lost_write = at(10, 11, "a", Y, OK), evolve_call(self.lost, 10)
        self.assertLinearizable(first, lost_write, write, swap, self.read(16, "y"))

    def test_unknown_fates_that_are_alike_are_interchangeable(self) -> None:
        """Thirty lost increments: it matters how many of them took effect, not which."""
        many = [lost(0, f"c{n}", ("INCR", "k", 1)) for n in range(30)]
        self.assertTrue(checked(*many, self.read(3, "30"), steps_max=2_000).ok)
        self.assertIs(checked(*many, self.read(3, "31"), steps_max=2_000).verdict, Verdict.VIOLATION)


def evolve_call(operation: Operation, call: float) -> Operation:
    return lost(call, operation.client, operation.command)


class OutcomeTests(HistoryCase):
    hard = (*[lost(0, "a", ("APPEND", "k", str(n))) for n in range(12)], at(1, 2, "b", GET, done(value="z")))
    """Twelve lines may be put together in many ways, none of which makes "z"."""

    def test_violation_is_explained(self) -> None:
        """The first answer that cannot be explained, an order for all before it, and the state after that."""
        history = one_after_the_other(
            ("alice", X, done(revision=1)),
            ("bob", Y, done(revision=2)),
            ("carol", GET, done(value="x", revision=1)),
            ("alice", X, done(revision=3)),
        )
        outcome = self.assertBlames(history[2], *history)
        self.assertEqual(
            outcome.text,
            'key "k": no order explains the answer OK value="x" revision=1 to GET "k" by carol (asked at 20, answered '
            'at 21). All answers before it are explained by the order PUT "k" "x" by alice, PUT "k" "y" by bob; '
            'after that it is "y" (revision 2).',
        )
        self.assertEqual(outcome.prefix, tuple(history[:2]))

    def test_violation_by_the_first_answer(self) -> None:
        """There is no order to show yet, only the state at the start."""
        wrong = at(0, 1, "a", GET, done(value="x"))
        self.assertTrue(self.assertBlames(wrong, wrong).text.endswith("At the start it is absent."))

    def test_long_order_is_shown_by_its_end(self) -> None:
        writes = [at(n, n + 0.5, "a", ("PUT", "k", str(n)), OK) for n in range(30)]
        wrong = at(30, 31, "b", GET, done(value="0"))
        outcome = self.assertBlames(wrong, *writes, wrong)
        self.assertEqual(len(outcome.prefix), 30)
        self.assertIn('by the order ..., PUT "k" "25" by a, PUT "k" "26" by a', outcome.text)
        self.assertNotIn('"24"', outcome.text)

    def test_later_answers_do_not_hide_the_first_violation(self) -> None:
        """Of several answers without an explanation the first one is blamed, although others are tried before it."""
        history = one_after_the_other(*[("a", ("PUT", "k", str(n)), OK) for n in range(20)])
        wrong = [at(10 * n + 5, 10 * n + 6, "b", GET, done(value="z")) for n in (7, 12, 18)]
        self.assertBlames(wrong[0], *history, *wrong)

    def test_write_that_is_seen_before_its_answer_stands_in_the_prefix(self) -> None:
        """At the moment of the violation its own answer has not come: it stands there as one of unknown fate."""
        write, seen = at(0, 9, "a", X, OK), at(1, 2, "b", GET, done(value="x"))
        wrong = at(3, 4, "c", GET, refused("NOTFOUND"))
        (first, second) = self.assertBlames(wrong, write, seen, wrong).prefix
        self.assertEqual((first.command, first.fate), (X, "unknown"))
        self.assertIs(second, seen)

    def test_search_that_takes_too_long_is_undecided(self) -> None:
        """No hang and no false alarm: the limit has an outcome of its own."""
        outcome = checked(*self.hard, steps_max=1_000)
        self.assertIs(outcome.verdict, Verdict.UNDECIDED)
        self.assertFalse(outcome.ok)
        self.assertEqual(outcome.text, 'undecided after 1000 steps each: key "k"')
        self.assertEqual(outcome.steps, 1_001)

    def test_violation_counts_more_than_an_undecided_part(self) -> None:
        wrong = at(0, 1, "c", ("GET", "other"), done(value="1"))
        self.assertIs(checked(*self.hard, wrong, steps_max=1_000).operation, wrong)


class AgreementTests(SynchronousTestCase):
    """Against a search that tries every order and knows no short cut."""

    applications = (
        (KeyValue, choose_key_value(keys=1, values=2)),
        (KeyValue, choose_key_value(keys=2, values=2, verbs="GET MGET MPUT CAS INCR")),
        (Lock, choose_lock),
        (Chat, choose_chat),
    )

    def history(self, dice: random.Random) -> list[Operation]:
        application, choose = dice.choice(self.applications)
        recorder = Recorder(dice, application(), choose, lost_share=dice.choice([0, 0.2, 0.5]))
        history = recorder.record(clients=3, operations=dice.randrange(2, 8))
        return without_revisions(history) if dice.random() < 0.5 else history

    def test_agrees_with_a_search_through_all_orders(self) -> None:
        """Short histories that went well, many of them spoilt after that: 2,000 of each seed."""
        dice = random.Random(20)
        violations = 0
        for number in range(2_000):
            history = self.history(dice)
            for _ in range(dice.randrange(3)):
                history = spoil(dice, history)
            for part in all_sub_histories(history):
                outcome = check_linearizability([part])
                self.assertIs(outcome.ok, has_order(part), f"history {number}: {outcome.text}\n{part}")
                violations += not outcome.ok
        self.assertGreater(violations, 300)

    def test_histories_that_went_well_are_linearizable(self) -> None:
        """Longer ones, on the real applications, with answers lost and commands run late."""
        dice = random.Random(21)
        for application, choose in self.applications:
            for lost_share in (0.0, 0.1):
                history = Recorder(dice, application(), choose, lost_share).record(clients=4, operations=300)
                self.assertGreater(len(history), 250)
                outcome = check_linearizability(all_sub_histories(history))
                self.assertTrue(outcome.ok, outcome.text)


class SizeTests(SynchronousTestCase):
    """Steps, not seconds: the machine may have other work. A step takes about 8 microseconds."""

    operations = 10_000

    def record(self, keys: int, lost_share: float = 0.0) -> list[Operation]:
        recorder = Recorder(random.Random(22), KeyValue(), choose_key_value(keys), lost_share)
        return recorder.record(clients=20, operations=self.operations)

    def assertChecked(self, history: list[Operation], steps_max: int) -> None:
        self.assertEqual(len(history), self.operations)
        outcome = check_linearizability(all_sub_histories(history))
        self.assertTrue(outcome.ok, outcome.text)
        self.assertLess(outcome.steps, steps_max)

    def test_ten_thousand_operations_on_fifty_keys(self) -> None:
        """Hardly a step is taken in vain, with or without revisions."""
        history = self.record(keys=50)
        self.assertChecked(history, 20_000)
        self.assertChecked(without_revisions(history), 15_000)

    def test_ten_thousand_operations_on_one_key(self) -> None:
        """Twenty clients at the same key all the time: the revisions show the way."""
        self.assertChecked(self.record(keys=1), 30_000)

    def test_five_hundred_lost_answers(self) -> None:
        self.assertChecked(self.record(keys=50, lost_share=0.05), 60_000)

    def test_one_bad_answer_among_ten_thousand(self) -> None:
        """A violation is found and blamed with little more effort."""
        history = self.record(keys=50)
        reads = [n for n, operation in enumerate(history) if operation.command[0] == "GET" and n > 9_000]
        wrong = at(history[reads[0]].call, history[reads[0]].ret or 0, "c0", history[reads[0]].command, done(value="?"))
        history[reads[0]] = wrong
        outcome = check_linearizability(all_sub_histories(history))
        self.assertIs(outcome.operation, wrong)
        self.assertLess(outcome.steps, 20_000)
