"""The specifications of the applications, alone and compared with the applications themselves."""

from __future__ import annotations

import random
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import PENDING, Command, Done, Fields, Result
from pfsb.applications.key_value import KeyValue, fnv1a_32
from pfsb.applications.lock import Lock
from pfsb.simulator.linearizability.checker import check_linearizability
from pfsb.simulator.linearizability.models import all_sub_histories, key_value_sub_histories
from pfsb.simulator.linearizability.operations import Operation
from pfsb.simulator.linearizability.search import Verdict
from pfsb.simulator.linearizability.texts import ordered_form, result_in_text
from tests.applications.context import Machine
from tests.simulator.linearizability.histories import (
    QUESTIONS,
    at,
    choose_chat,
    choose_conditional,
    choose_key_value,
    choose_lock,
    done,
    lost,
    one_after_the_other,
    overlapping,
    refused,
)

OK = Done()
Row = tuple[str, Command, Result]


class ModelCase(SynchronousTestCase):
    def assertGood(self, *operations: Operation) -> None:
        outcome = check_linearizability(all_sub_histories(operations))
        self.assertIs(outcome.verdict, Verdict.OK, outcome.text)

    def assertBad(self, *operations: Operation) -> None:
        outcome = check_linearizability(all_sub_histories(operations))
        self.assertIs(outcome.verdict, Verdict.VIOLATION, outcome.text)

    def assertThen(self, before: list[Row], good: Row, *bad: Row) -> None:
        """Require that after `before` the operation `good` is right and each of `bad` is wrong."""
        self.assertGood(*one_after_the_other(*before, good))
        for row in bad:
            self.assertBad(*one_after_the_other(*before, row))


class KeyTests(ModelCase):
    """The commands of the key-value store (docs/protocol.rst)."""

    put: Row = ("a", ("PUT", "k", "5"), OK)

    def test_command_that_runs_at_one_revision(self) -> None:
        """A condition on a revision holds at that revision alone; 0 stands for an absent key, and -1 for any
        revision."""
        put: Row = ("a", ("PUT", "k", "5"), done(revision=4))
        refusal = refused("PRECONDITION")
        for revision, holds in ((4, True), (3, False), (5, False), (0, False), (-1, True)):
            ran: Row = ("a", ("IF", "k", revision, "APPEND", "k", "x"), done(value="5x", revision=7))
            other: Row = (*ran[:2], refusal)
            self.assertThen([put], *((ran, other) if holds else (other, ran)))
        for revision, holds in ((0, True), (1, False), (-1, False)):
            ran = ("a", ("IF", "k", revision, "INCR", "k", 1), done(value="1", revision=7))
            self.assertThen([], *((ran, (*ran[:2], refusal)) if holds else ((*ran[:2], refusal), ran)))
        self.assertBad(
            *one_after_the_other(put, ("a", ("IF", "k", 4, "APPEND", "k", "x"), done(value="x", revision=7)))
        )
        self.assertGood(*one_after_the_other(put, ("a", ("IF", "k", 4, "CAS", "k", 1, "6", "7"), refused("CONFLICT"))))

    def test_condition_shows_a_revision_that_no_answer_has_shown(self) -> None:
        put: Row = ("a", ("PUT", "k", "5"), OK)
        ran: Row = ("a", ("IF", "k", 4, "PUT", "k", "6"), done(revision=7))
        self.assertThen([put], ran)
        self.assertThen([put], (*ran[:2], refused("PRECONDITION")))
        self.assertThen(
            [put, ran, ("a", ("GET", "k"), done(value="6", revision=7))], ("b", ("GET", "k"), done(value="6"))
        )
        self.assertBad(*one_after_the_other(put, ("a", ("GET", "k"), done(value="5", revision=3)), ran))
        earlier: Row = ("a", ("PUT", "k", "4"), done(revision=9))
        self.assertBad(*one_after_the_other(earlier, put, ran))

    def test_absent_key_is_not_found(self) -> None:
        self.assertThen([], ("a", ("GET", "k"), refused("NOTFOUND")), ("a", ("GET", "k"), done(value="")))

    def test_delete_tells_whether_there_was_a_key(self) -> None:
        yes, no = ("a", ("DEL", "k"), done(deleted=1)), ("a", ("DEL", "k"), done(deleted=0))
        self.assertThen([], no, yes)
        self.assertThen([self.put], yes, no)
        self.assertThen([self.put, yes], ("a", ("GET", "k"), refused("NOTFOUND")), ("a", ("GET", "k"), done(value="5")))

    def test_compare_and_set_needs_the_old_value(self) -> None:
        """CAS is carried out if and only if the value is the old one."""
        for old, agrees in (("5", True), ("6", False)):
            cas = ("CAS", "k", 1, old, "7")
            rows: list[Row] = [("a", cas, OK), ("a", cas, refused("CONFLICT"))]
            right, wrong = rows if agrees else reversed(rows)
            self.assertThen([self.put], right, wrong)
            value = "7" if agrees else "5"
            self.assertGood(*one_after_the_other(self.put, right, ("a", ("GET", "k"), done(value=value))))

    def test_compare_with_nil_needs_an_absent_key(self) -> None:
        cas = ("CAS", "k", 0, "", "7")
        self.assertThen([], ("a", cas, OK), ("a", cas, refused("CONFLICT")))
        self.assertThen([self.put], ("a", cas, refused("CONFLICT")), ("a", cas, OK))

    def test_two_winners_of_one_compare_and_set_are_a_violation(self) -> None:
        """Two CAS that both found the key absent cannot both be right."""
        cas = ("CAS", "k", 0, "", "7")
        self.assertBad(*overlapping(("a", cas, OK), ("b", cas, OK)))
        self.assertGood(*overlapping(("a", cas, OK), ("b", cas, refused("CONFLICT"))))

    def test_increment_adds_its_step(self) -> None:
        incr = ("INCR", "k", 3)
        self.assertThen([], ("a", incr, done(value="3")), ("a", incr, refused("CONFLICT")))
        self.assertThen([self.put], ("a", incr, done(value="8")), ("a", incr, done(value="3")))

    def test_increment_of_no_integer_or_beyond_64_bits(self) -> None:
        for value in ("blue", str(2**63 - 3)):
            incr = ("INCR", "k", 3)
            before: list[Row] = [("a", ("PUT", "k", value), OK)]
            self.assertThen(before, ("a", incr, refused("CONFLICT")), ("a", incr, done(value="3")))

    def test_append_returns_the_longer_value(self) -> None:
        append = ("APPEND", "k", "x")
        self.assertThen([], ("a", append, done(value="x")), ("a", append, done(value="xx")))
        self.assertThen([self.put], ("a", append, done(value="5x")), ("a", append, done(value="x")))

    def test_put_hash_stores_the_hash_of_both_texts(self) -> None:
        """PUTHASH returns the old value, and stores the hash of the old value and the new text."""
        put_hash: Row = ("a", ("PUTHASH", "k", "x"), done(previous="5"))
        self.assertThen([self.put], put_hash, ("a", ("PUTHASH", "k", "x"), done(previous="")))
        stored = str(fnv1a_32(b"5x"))
        self.assertThen(
            [self.put, put_hash], ("a", ("GET", "k"), done(value=stored)), ("a", ("GET", "k"), done(value="x"))
        )

    def test_several_keys_are_taken_apart(self) -> None:
        """In MPUT a key that is given twice has the later value; in MGET an absent key has no row."""
        mput: Row = ("a", ("MPUT", "k", "1", "l", "2", "k", "3"), done(revision=1))

        def mget(*rows: Fields) -> Row:
            return ("b", ("MGET", "k", "l", "m"), Done((("count", len(rows)),), rows))

        k_row, l_row = [(("key", key), ("value", value), ("revision", 1)) for key, value in (("k", "3"), ("l", "2"))]
        earlier = (("key", "k"), ("value", "1"), ("revision", 1))
        self.assertThen([mput], mget(k_row, l_row), mget(k_row), mget(earlier, l_row))
        self.assertThen([], mget(), mget(k_row))

    def test_multi_put_of_unknown_fate_may_explain_a_value(self) -> None:
        """A value of a lost MPUT in one key is explained by the MPUT, and by nothing else."""
        seen = at(1, 2, "b", ("GET", "l"), done(value="2"))
        self.assertGood(lost(0, "a", ("MPUT", "k", "1", "l", "2")), seen)
        self.assertBad(seen)


class QuotaTests(ModelCase):
    """Refusals by a quota, whose rightness the simulator judges with the application's own sums
    (`History.answered`)."""

    def assertRefusable(self, is_right: bool, *rows: Row) -> None:
        """Require that the last command, after the others, is or is not one that a quota may refuse."""
        (client, command, _), before = rows[-1], rows[:-1]
        operations = one_after_the_other(*before, (client, command, refused("TOOLARGE")))
        judged = [evolve(operation, fate="done") for operation in operations]
        (self.assertGood if is_right else self.assertBad)(*judged)

    def test_only_what_would_grow_is_refused(self) -> None:
        put: Row = ("a", ("PUT", "k", "5\u00e9"), OK)
        for command, is_right in (
            (("PUT", "k", "1234"), True),
            (("PUT", "k", "123"), False),
            (("PUT", "k", ""), False),
            (("APPEND", "k", "x"), True),
            (("APPEND", "k", ""), False),
            (("DEL", "k"), False),
            (("GET", "k"), False),
            (("CAS", "k", 1, "5\u00e9", "1234"), True),
            (("CAS", "k", 1, "6", "1234"), False),
        ):
            self.assertRefusable(is_right, put, ("b", command, OK))
        self.assertRefusable(True, ("b", ("PUT", "k", ""), OK))

    def test_refused_command_changes_nothing(self) -> None:
        rows: list[Row] = [("a", ("PUT", "k", "5"), refused("TOOLARGE")), ("a", ("GET", "k"), refused("NOTFOUND"))]
        self.assertGood(*(evolve(operation, fate="done") for operation in one_after_the_other(*rows)))

    def test_lock_that_the_client_holds_is_not_refused(self) -> None:
        lock: Row = ("a", ("LOCK", "x", -1), done(name="x", token=1))
        self.assertRefusable(False, lock, lock)
        self.assertRefusable(True, lock, ("b", ("LOCK", "x", -1), OK))
        self.assertRefusable(True, lock)

    def test_line_of_the_chat_may_be_refused(self) -> None:
        rows: list[Row] = [("a", ("SAY", "hi"), refused("TOOLARGE")), ("a", ("SAY", "ho"), done(index=1))]
        self.assertGood(*(evolve(operation, fate="done") for operation in one_after_the_other(*rows)))


class RevisionTests(ModelCase):
    """Revisions, which the cluster counts and answers show."""

    def put(self, key: str, revision: int) -> Row:
        return ("a", ("PUT", key, "1"), done(revision=revision))

    def get(self, revision: int) -> Row:
        return ("b", ("GET", "k"), done(value="1", revision=revision))

    def test_read_tells_the_revision_of_the_write(self) -> None:
        """A read of an equal value of an older write is stale, which only the revision shows."""
        self.assertThen([self.put("k", 3), self.put("k", 5)], self.get(5), self.get(3), self.get(6))

    def test_revisions_of_a_key_grow(self) -> None:
        for revision, is_good in ((4, True), (3, False), (2, False)):
            history = one_after_the_other(self.put("k", 3), self.put("k", revision))
            self.assertEqual(check_linearizability(key_value_sub_histories(history)).ok, is_good)

    def test_revisions_grow_from_key_to_key(self) -> None:
        """Revisions grow from key to key: sub-histories of keys are independent, but the revision is one counter."""
        self.assertThen([self.put("k", 3)], self.put("other", 4), self.put("other", 2))
        self.assertBad(*overlapping(self.put("k", 3), self.put("other", 3)))
        self.assertGood(*overlapping(self.put("k", 3), self.put("other", 2)))

    def test_lost_write_has_the_revision_at_which_it_is_first_seen(self) -> None:
        first = at(0, 1, *self.put("k", 3))
        unknown = lost(2, "c", ("PUT", "k", "1"))
        self.assertGood(first, unknown, at(3, 4, *self.get(3)), at(5, 6, *self.get(7)), at(8, 9, *self.get(7)))
        self.assertBad(first, unknown, at(3, 4, *self.get(7)), at(5, 6, *self.get(8)))
        self.assertBad(first, unknown, at(3, 4, *self.get(2)))

    def test_delete_of_an_absent_key_has_a_revision_too(self) -> None:
        delete: Row = ("a", ("DEL", "k"), done(deleted=0, revision=4))
        self.assertThen([delete], self.put("k", 5), self.put("k", 3))


class LockTests(ModelCase):
    """The commands of locks (docs/protocol.rst)."""

    def lock(self, client: str, token: int, verb: str = "LOCK") -> Row:
        return (client, ("LOCK", "x", -1) if verb == "LOCK" else ("TRYLOCK", "x"), done(name="x", token=token))

    def unlock(self, client: str, token: int = -1, result: Result = OK) -> Row:
        return (client, ("UNLOCK", "x", token), result)

    def test_two_holders_are_a_violation(self) -> None:
        self.assertBad(*overlapping(self.lock("a", 1), self.lock("b", 2)))
        self.assertThen([self.lock("a", 1), self.unlock("a")], self.lock("b", 2))

    def test_holder_gets_it_again_with_the_same_token(self) -> None:
        self.assertThen([self.lock("a", 1)], self.lock("a", 1, "TRYLOCK"), self.lock("a", 2))

    def test_tokens_grow(self) -> None:
        before = [self.lock("a", 5), self.unlock("a")]
        self.assertThen(before, self.lock("b", 6), self.lock("b", 5), self.lock("b", 4))

    def test_waiting_lock_is_granted_when_the_holder_lets_go(self) -> None:
        holder, waiter = at(0, 1, *self.lock("a", 1)), at(2, 9, *self.lock("b", 4))
        self.assertGood(holder, waiter, at(5, 6, *self.unlock("a")))
        self.assertBad(holder, waiter, at(10, 11, *self.unlock("a")))

    def test_held_and_timeout_need_another_holder(self) -> None:
        held: Row = ("b", ("TRYLOCK", "x"), refused("HELD"))
        late: Row = ("b", ("LOCK", "x", 0), refused("TIMEOUT"))
        for row in (held, late):
            self.assertThen([self.lock("a", 1)], row)
            self.assertThen([self.lock("a", 1), self.unlock("a")], self.lock("b", 2), row)
            self.assertThen([self.lock("b", 1)], self.lock("b", 1), row)

    def test_only_the_holder_unlocks(self) -> None:
        no = refused("NOTHELD")
        self.assertThen([], self.unlock("a", result=no), self.unlock("a"))
        self.assertThen([self.lock("a", 1)], self.unlock("b", result=no), self.unlock("b"))
        self.assertThen([self.lock("a", 1)], self.unlock("a"), self.unlock("a", result=no))

    def test_unlock_needs_the_right_token(self) -> None:
        no = refused("NOTHELD")
        self.assertThen([self.lock("a", 7)], self.unlock("a", 7), self.unlock("a", 7, no))
        self.assertThen([self.lock("a", 7)], self.unlock("a", 6, no), self.unlock("a", 6))

    def test_end_of_a_session_releases_its_locks(self) -> None:
        """When a session is closed, or expires at an unknown time, its locks are free."""
        before, after = at(0, 1, *self.lock("a", 1)), at(10, 11, *self.lock("b", 2))
        self.assertGood(before, at(2, 3, "a", ("BYE",), OK), after)
        self.assertGood(before, lost(2, "a", ("EXPIRE",)), after)
        self.assertBad(before, after)
        self.assertBad(before, at(2, 3, "c", ("BYE",), OK), after)
        self.assertBad(before, lost(12, "a", ("EXPIRE",)), after)

    def test_lock_of_unknown_fate_may_hold_the_lock(self) -> None:
        """A LOCK of unknown fate may hold the lock, with a token that is unknown until an answer shows it."""
        unknown = lost(0, "a", ("LOCK", "x", -1))
        held = at(1, 2, "b", ("TRYLOCK", "x"), refused("HELD"))
        self.assertGood(unknown, held)
        self.assertGood(unknown, held, at(3, 4, *self.lock("a", 9)), at(5, 6, *self.unlock("a", 9)))
        self.assertGood(unknown, held, at(3, 4, *self.unlock("a", 8)), at(5, 6, *self.lock("b", 9)))
        self.assertBad(unknown, held, at(3, 4, *self.unlock("a", 8)), at(5, 6, *self.lock("b", 8)))
        self.assertGood(unknown, held, at(3, 4, *self.unlock("a", 8, refused("NOTHELD"))))
        self.assertGood(unknown, at(1, 2, *self.lock("b", 3)))

    def test_locks_are_checked_independently(self) -> None:
        other: Row = ("b", ("LOCK", "y", -1), done(name="y", token=1))
        self.assertGood(*overlapping(self.lock("a", 1), other))


class ChatTests(ModelCase):
    """The commands of the chat (docs/protocol.rst)."""

    def say(self, client: str, text: str, index: int) -> Row:
        return (client, ("SAY", text), done(index=index))

    def log(self, first: int, *lines: tuple[str, str], limit: int = -1, index: int | None = None) -> Row:
        start = first if index is None else index
        rows = [(("index", n), ("client", who), ("text", text)) for n, (who, text) in enumerate(lines, start)]
        return ("z", ("LOG", first, limit), Done((("count", len(rows)),), tuple(rows)))

    def test_indices_have_no_gap_and_no_repeat(self) -> None:
        self.assertThen([], self.say("a", "hi", 1), self.say("a", "hi", 2), self.say("a", "hi", 0))
        self.assertThen(
            [self.say("a", "hi", 1)], self.say("b", "ho", 2), self.say("b", "ho", 1), self.say("b", "ho", 3)
        )

    def test_log_shows_the_lines_that_were_said(self) -> None:
        before = [self.say("a", "hi", 1), self.say("b", "ho", 2)]
        good = self.log(1, ("a", "hi"), ("b", "ho"))
        self.assertThen(before, good, self.log(1, ("a", "hi")), self.log(1, ("b", "ho"), ("a", "hi")), self.log(1))
        self.assertThen(before, self.log(2, ("b", "ho")), self.log(2), self.log(2, ("b", "ho"), index=3))
        self.assertThen(before, self.log(3), self.log(3, ("c", "nobody said it")))

    def test_log_with_a_limit_shows_a_beginning(self) -> None:
        before = [self.say("a", "hi", 1), self.say("b", "ho", 2)]
        self.assertThen(before, self.log(1, ("a", "hi"), limit=1), self.log(1, ("a", "hi"), limit=3))

    def test_logs_are_prefixes_of_each_other(self) -> None:
        """All LOGs show two lines that were sent at once in the same order."""
        said = [lost(0, "a", ("SAY", "hi")), lost(0, "b", ("SAY", "ho"))]
        first = at(1, 2, *self.log(1, ("a", "hi")))
        self.assertGood(*said, first, at(3, 4, *self.log(1, ("a", "hi"), ("b", "ho"))))
        self.assertBad(*said, first, at(3, 4, *self.log(1, ("b", "ho"), ("a", "hi"))))

    def test_log_never_shrinks(self) -> None:
        said = at(0, 9, *self.say("a", "hi", 1))
        seen, gone = self.log(1, ("a", "hi")), self.log(1)
        self.assertGood(said, at(1, 2, *gone), at(3, 4, *seen))
        self.assertBad(said, at(1, 2, *seen), at(3, 4, *gone))

    def test_line_of_unknown_fate_fills_a_gap(self) -> None:
        """A missing line 1 is that of a lost SAY, or the one that a LOG has shown."""
        second = at(1, 2, *self.say("b", "ho", 2))
        self.assertGood(lost(0, "a", ("SAY", "hi")), second)
        self.assertBad(lost(3, "a", ("SAY", "hi")), second)
        self.assertBad(second)
        self.assertGood(lost(0, "a", ("SAY", "hi")), at(1, 2, *self.log(1, ("a", "hi"))))
        self.assertBad(lost(0, "a", ("SAY", "hi")), at(1, 2, *self.log(1, ("b", "hi"))))

    def test_line_that_was_said_twice_is_a_violation(self) -> None:
        """A line of chat that was said twice, since a repeated command ran twice, is a violation."""
        once = at(0, 1, *self.say("a", "hi", 1))
        self.assertBad(once, at(2, 3, *self.log(1, ("a", "hi"), ("a", "hi"))))


class PartsTests(ModelCase):
    def test_operation_without_a_specification_is_refused(self) -> None:
        """An operation without a specification is refused, and not left out silently."""
        ranged = at(0, 1, "a", ("RANGE", "a", "b", -1), Done())
        error = self.assertRaises(ValueError, all_sub_histories, [ranged])
        self.assertIn('there is no specification of RANGE "a" "b" -1 by a (there are: APPEND, ', str(error))

    def test_history_is_taken_apart_by_application(self) -> None:
        history = one_after_the_other(
            ("a", ("PUT", "x", "1"), done(revision=1)),
            ("a", ("LOCK", "x", -1), done(name="x", token=2)),
            ("a", ("SAY", "x"), done(index=1, revision=3)),
        )
        names = [part.name for part in all_sub_histories(history)]
        self.assertEqual(names, ['key "x"', 'lock "x"', "the chat", "revisions"])
        self.assertGood(*history)


class ApplicationTests(ModelCase):
    """The specifications and the applications, which share no code, get the same commands."""

    applications: tuple[tuple[Any, Any], ...] = (
        (KeyValue, choose_key_value(keys=2, values=2)),
        (KeyValue, choose_key_value(keys=3, verbs="MGET MPUT GET")),
        (Lock, choose_lock),
        (Chat, choose_chat),
    )

    def answers(self, application: Any, choose: Any, dice: random.Random) -> list[Operation]:
        """Run forty commands one after the other. A LOCK that waits is never answered."""
        machine, history = Machine(application), []
        for number in range(40):
            client = dice.choice("abc")
            command = choose(dice, client)
            if command[0] in QUESTIONS:
                result = machine.application.query(ordered_form(command))
            elif command[0] == "BYE":
                machine.end(client)
                result = OK
            else:
                result = machine.run_checked(client, ordered_form(command))
            if result is PENDING:
                history.append(lost(number, client, command))
            else:
                history.append(at(number, number + 0.5, client, command, result_in_text(result)))
        return history

    def test_answers_of_the_applications_are_right(self) -> None:
        for application, choose in (*self.applications, (KeyValue, choose_conditional(keys=2))):
            for seed in range(20):
                self.assertGood(*self.answers(application(), choose, random.Random(seed)))

    def test_any_other_answer_is_wrong(self) -> None:
        """One field of one answer is changed: the model calls the answer wrong. Locks are left out, since a token may
        be any larger number."""
        for application, choose in (row for row in self.applications if row[0] is not Lock):
            for seed in range(20):
                dice = random.Random(seed)
                history = self.answers(application(), choose, dice)
                told = [n for n, op in enumerate(history) if isinstance(op.result, Done) and op.result.fields]
                number = dice.choice(told)
                history[number] = _with_another_answer(history[number], dice)
                self.assertBad(*history)


def _with_another_answer(operation: Operation, dice: random.Random) -> Operation:
    """Change one value of an answer, or take its rows away."""
    result = operation.result
    assert isinstance(result, Done)
    if result.rows:
        return evolve(operation, result=evolve(result, rows=()))
    if operation.command[0] in ("MGET", "LOG"):
        row = (("index", 1), ("key", operation.command[1]), ("client", "?"), ("text", "?"), ("value", "?"))
        return evolve(operation, result=evolve(result, rows=(row,)))
    name, value = dice.choice([pair for pair in result.fields if pair[0] != "revision"] or [result.fields[0]])
    other = f"{value}?" if isinstance(value, str) else value - 1
    fields = tuple((key, other if key == name else old) for key, old in result.fields)
    return evolve(operation, result=evolve(result, fields=fields))
