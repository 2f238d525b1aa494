"""The search for an order: which histories have one, how many steps it takes, and how a violation is explained."""

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
from tests.long import long
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
        """An empty history is linearizable."""
        self.assertLinearizable()

    def test_read_after_write_sees_it(self) -> None:
        """A read that begins after a write has ended must see it."""
        self.assertLinearizable(*one_after_the_other(("a", X, OK), ("b", GET, done(value="x"))))

    def test_stale_read_is_a_violation(self) -> None:
        """A read that began after the second write had ended must not see the first write."""
        history = one_after_the_other(("a", X, OK), ("a", Y, OK), ("b", GET, done(value="x")))
        self.assertBlames(history[2], *history)

    def test_read_during_a_write_may_see_either_value(self) -> None:
        """A read during a write may see the old or the new value, since overlapping operations may come in either
        order."""
        before, write = at(0, 1, "a", X, OK), at(2, 5, "a", Y, OK)
        for value in ("x", "y"):
            self.assertLinearizable(before, write, at(3, 4, "b", GET, done(value=value)))

    def test_old_value_after_new_one_is_a_violation(self) -> None:
        """Two reads one after the other during one write: when the first has seen the write, the second must see it."""
        write = at(0, 9, "a", X, OK)
        new, old = at(1, 2, "b", GET, done(value="x")), at(3, 4, "c", GET, refused("NOTFOUND"))
        self.assertBlames(old, write, new, old)
        self.assertLinearizable(write, new, at(1.5, 4, "c", GET, refused("NOTFOUND")))

    def test_end_and_beginning_at_one_instant_may_overlap(self) -> None:
        """An operation that begins at the instant at which another ends may come before or after that one."""
        self.assertLinearizable(at(0, 1, "a", X, OK), at(1, 2, "b", GET, refused("NOTFOUND")))

    def test_lost_update_is_a_violation(self) -> None:
        """Two increments of an absent key cannot both result in 1, not even at once."""
        history = overlapping(("a", ("INCR", "k", 1), done(value="1")), ("b", ("INCR", "k", 1), done(value="1")))
        self.assertIs(checked(*history).verdict, Verdict.VIOLATION)
        self.assertLinearizable(history[0], at(0, 1, "b", ("INCR", "k", 1), done(value="2")))

    def test_duplicated_append_is_a_violation(self) -> None:
        """A history in which one APPEND took effect twice is a violation, since it was answered once."""
        history = one_after_the_other(("a", ("APPEND", "k", "x"), done(value="x")), ("b", GET, done(value="xx")))
        self.assertBlames(history[1], *history)

    def test_value_that_was_never_written_is_a_violation(self) -> None:
        history = one_after_the_other(("a", X, OK), ("b", GET, done(value="z")))
        self.assertBlames(history[1], *history)

    def test_keys_are_checked_independently(self) -> None:
        """Keys are checked independently: the violation is found in the sub-history of its key, among good ones."""
        bad = at(4, 5, "b", GET, done(value="z"))
        good = [at(0, 9, "c", ("PUT", "other", "1"), OK), at(1, 2, "d", ("GET", "other"), done(value="1"))]
        self.assertLinearizable(*good)
        self.assertTrue(self.assertBlames(bad, *good, bad).text.startswith('key "k": '))

    def test_answer_before_call_is_refused(self) -> None:
        """A history with an answer before its call is refused: it is a mistake of its recorder, not of the servers."""
        error = self.assertRaises(ValueError, at, 2, 1, "a", GET, refused("NOTFOUND"))
        self.assertIn("is answered at 1, before its call at 2", str(error))


class FateTests(HistoryCase):
    def setUp(self) -> None:
        self.written = at(0, 1, "a", X, OK)
        self.lost = lost(2, "b", Y)

    def read(self, call: float, value: str) -> Operation:
        return at(call, call + 1, "c", GET, done(value=value))

    def test_command_of_unknown_fate_may_have_run(self) -> None:
        self.assertLinearizable(self.written, self.lost, self.read(3, "y"))

    def test_command_of_unknown_fate_may_never_run(self) -> None:
        self.assertLinearizable(self.written, self.lost, self.read(3, "x"))

    def test_command_of_unknown_fate_may_run_late(self) -> None:
        """A command of unknown fate may take effect long after its client has given up."""
        self.assertLinearizable(self.written, self.lost, self.read(3, "x"), self.read(90, "x"), self.read(95, "y"))

    def test_command_of_unknown_fate_runs_at_most_once(self) -> None:
        """A lost write that was seen and then overwritten must not be seen again."""
        again = self.read(20, "y")
        overwritten = at(10, 11, "a", X, OK)
        self.assertBlames(again, self.written, self.lost, self.read(3, "y"), overwritten, again)

    def test_command_of_unknown_fate_has_no_effect_before_its_call(self) -> None:
        early = self.read(1.2, "y")
        late = evolve_call(self.lost, 3)
        self.assertBlames(early, self.written, late, early)

    def test_error_of_unknown_fate_counts_as_no_answer(self) -> None:
        """UNAVAILABLE with fate=unknown counts as no answer: the command may still run."""
        unavailable = at(2, 3, "b", Y, refused("UNAVAILABLE"))
        self.assertEqual(unavailable.fate, "none")
        unknown = Operation("b", 2, 3, Y, refused("UNAVAILABLE"), "unknown")
        self.assertLinearizable(self.written, unknown, self.read(4, "x"), self.read(6, "y"))

    def test_effect_of_fate_none_is_a_violation(self) -> None:
        """An effect of a command that was answered with fate=none is a violation, and the explanation names the
        command."""
        promised = Operation("b", 2, 3, Y, refused("BUSY"), "none")
        seen = self.read(4, "y")
        self.assertLinearizable(self.written, promised, self.read(4, "x"))
        outcome = self.assertBlames(seen, self.written, promised, seen)
        self.assertIn('It would be explained if fate=none were wrong for: PUT "k" "y" by b.', outcome.text)

    def test_refusal_by_the_application_is_an_observation(self) -> None:
        """NOTFOUND has fate=none for a client, but also shows that the key was absent."""
        wrong = at(2, 3, "b", GET, refused("NOTFOUND"))
        self.assertEqual(wrong.fate, "done")
        self.assertBlames(wrong, self.written, wrong)

    def test_many_unknown_fates_do_not_slow_the_search(self) -> None:
        """Forty lost writes that no read has seen, or of which one was seen, are searched in about forty steps, not in
        2 ** 40."""
        many = [lost(2, f"c{n}", ("PUT", "k", f"v{n}")) for n in range(40)]
        for last in (self.read(3, "x"), self.read(3, "v7")):
            self.assertTrue(checked(self.written, *many, last, steps_max=200).ok)
        outcome = checked(self.written, *many, self.read(3, "z"), steps_max=10_000)
        self.assertIs(outcome.verdict, Verdict.VIOLATION)

    def test_order_that_fails_without_a_lost_write_may_succeed_with_it(self) -> None:
        """The order with the write before the swap uses up the lost write, which is read later."""
        write, swap = at(12, 15, "c", X, OK), at(12.5, 15, "d", ("CAS", "k", 1, "y", "x"), OK)
        first, lost_write = at(10, 11, "a", Y, OK), evolve_call(self.lost, 10)
        self.assertLinearizable(first, lost_write, write, swap, self.read(16, "y"))

    def test_unknown_fates_that_are_alike_are_interchangeable(self) -> None:
        """Thirty lost increments are alike: the number of those that took effect matters, not which ones."""
        many = [lost(0, f"c{n}", ("INCR", "k", 1)) for n in range(30)]
        self.assertTrue(checked(*many, self.read(3, "30"), steps_max=2_000).ok)
        self.assertIs(checked(*many, self.read(3, "31"), steps_max=2_000).verdict, Verdict.VIOLATION)


def evolve_call(operation: Operation, call: float) -> Operation:
    return lost(call, operation.client, operation.command)


class OutcomeTests(HistoryCase):
    hard = (*[lost(0, "a", ("APPEND", "k", str(n))) for n in range(12)], at(1, 2, "b", GET, done(value="z")))
    """Twelve texts may be appended in many orders, none of which makes "z"."""

    def test_violation_is_explained(self) -> None:
        """An explanation has the first answer without an order, and an order for the answers before it."""
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

    def test_violation_by_the_first_answer_shows_the_initial_state(self) -> None:
        """If the first answer is the violation, the explanation shows the state at the start."""
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
        """The first of several answers without an explanation is blamed, although the search tries others before it."""
        history = one_after_the_other(*[("a", ("PUT", "k", str(n)), OK) for n in range(20)])
        wrong = [at(10 * n + 5, 10 * n + 6, "b", GET, done(value="z")) for n in (7, 12, 18)]
        self.assertBlames(wrong[0], *history, *wrong)

    def test_write_that_is_seen_before_its_answer_stands_in_the_prefix(self) -> None:
        """A write whose answer comes after the violation stands in the prefix with unknown fate."""
        write, seen = at(0, 9, "a", X, OK), at(1, 2, "b", GET, done(value="x"))
        wrong = at(3, 4, "c", GET, refused("NOTFOUND"))
        (first, second) = self.assertBlames(wrong, write, seen, wrong).prefix
        self.assertEqual((first.command, first.fate), (X, "unknown"))
        self.assertIs(second, seen)

    def test_search_that_takes_too_long_is_undecided(self) -> None:
        """A search that reaches the limit of steps is undecided, which is not a violation."""
        outcome = checked(*self.hard, steps_max=1_000)
        self.assertIs(outcome.verdict, Verdict.UNDECIDED)
        self.assertFalse(outcome.ok)
        self.assertEqual(outcome.text, 'undecided after 1000 steps each: key "k"')
        self.assertEqual(outcome.steps, 1_001)

    def test_violation_counts_more_than_an_undecided_sub_history(self) -> None:
        wrong = at(0, 1, "c", ("GET", "other"), done(value="1"))
        self.assertIs(checked(*self.hard, wrong, steps_max=1_000).operation, wrong)


class AgreementTests(SynchronousTestCase):
    """The search compared with one that tries every order without a short cut."""

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

    @long
    def test_agrees_with_a_search_through_all_orders(self) -> None:
        """The search agrees with one that tries all orders on 2,000 short histories of each seed, many of them
        spoilt."""
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
        """Longer histories on the real applications, with lost answers and commands that run late."""
        dice = random.Random(21)
        for application, choose in self.applications:
            for lost_share in (0.0, 0.1):
                history = Recorder(dice, application(), choose, lost_share).record(clients=4, operations=300)
                self.assertGreater(len(history), 250)
                outcome = check_linearizability(all_sub_histories(history))
                self.assertTrue(outcome.ok, outcome.text)


@long
class SizeTests(SynchronousTestCase):
    """Bounds on steps instead of seconds, since the machine may be busy. A step takes about 8 microseconds."""

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
        """For ten thousand operations on fifty keys the search hardly tries an operation in vain, with or without
        revisions."""
        history = self.record(keys=50)
        self.assertChecked(history, 20_000)
        self.assertChecked(without_revisions(history), 15_000)

    def test_ten_thousand_operations_on_one_key(self) -> None:
        """For ten thousand operations of twenty clients on one key, the revisions determine the order, and the search
        tries hardly any in vain."""
        self.assertChecked(self.record(keys=1), 30_000)

    def test_five_hundred_lost_answers(self) -> None:
        self.assertChecked(self.record(keys=50, lost_share=0.05), 60_000)

    def test_one_bad_answer_among_ten_thousand(self) -> None:
        """One bad answer among ten thousand is found and blamed with little more effort than a good history takes."""
        history = self.record(keys=50)
        reads = [n for n, operation in enumerate(history) if operation.command[0] == "GET" and n > 9_000]
        wrong = at(history[reads[0]].call, history[reads[0]].ret or 0, "c0", history[reads[0]].command, done(value="?"))
        history[reads[0]] = wrong
        outcome = check_linearizability(all_sub_histories(history))
        self.assertIs(outcome.operation, wrong)
        self.assertLess(outcome.steps, 20_000)
