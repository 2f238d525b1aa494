"""The outcomes of a slot: equal on servers that agree, different where a result differs (Departure 40)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Done, Refused, RunResults, Word
from pfsb.sessions import state_machine
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.observer import NoObserver
from pfsb.sessions.outcomes import encode_outcomes
from tests.sessions.support import Driver

PUT = ("PUT", b"n", b"1")
INCR = ("INCR", b"n", 1)


def outcomes_of(*results: Any, revision: int = 7) -> bytes:
    return encode_outcomes(revision, [(result, number) for number, result in enumerate(results)])


class OutcomesTests(SynchronousTestCase):
    def test_slot_without_results_has_its_revision(self) -> None:
        """The outcomes of a slot whose results are revisions and nothing else are its last revision."""
        self.assertEqual(outcomes_of(revision=258), bytes((0, 0, 0, 0, 0, 0, 1, 2)))

    def test_each_value_code_and_order_makes_a_difference(self) -> None:
        """Slots that differ in one value, code or order have different outcomes."""
        one, two = Done((("value", 1),)), Done((("value", 2),))
        slots = (
            (),
            (one,),
            (two,),
            (one, two),
            (two, one),
            (PENDING,),
            (Refused("HELD", ""),),
            (Refused("BUSY", ""),),
            (Done((), ((("key", "a"),),)),),
            (Done((), ((("key", b"a"),),)),),
            (Done((), ((("key", b"\xff"),),)),),
        )
        self.assertEqual(len({outcomes_of(*results) for results in slots}), len(slots))

    def test_text_of_a_refusal_makes_no_difference(self) -> None:
        """The text of a refusal makes no difference, since another version may word it otherwise."""
        self.assertEqual(outcomes_of(Refused("HELD", "by alice")), outcomes_of(Refused("HELD", "alice has it")))

    def test_values_that_cannot_be_encoded_raise_nothing(self) -> None:
        """Values that cannot be encoded raise nothing, and their outcomes are equal on every server: no address of an
        object is in them."""
        for value in (10**5000, "\ud800", b"\xff", object(), {"a": 1}, Word("yes"), 1.5, [object()]):
            with self.subTest(value=type(value)):
                alike = [outcomes_of(Done((("value", each),))) for each in (value, value)]  # type: ignore[arg-type]
                self.assertEqual(alike[0], alike[1])
        self.assertEqual(*(outcomes_of(Done((("value", object()),))) for _ in range(2)))  # type: ignore[arg-type]

    def test_run_has_the_outcomes_of_its_commands(self) -> None:
        """A run has the same outcomes as its commands one by one, so that servers that execute runs agree with those
        that do not."""
        run = RunResults.of(range(5, 8), (("index", 2),))
        other = Done((("value", b"v"),))
        single = [(result, revision) for result, revision in zip(run, run.revisions, strict=True)]
        together = encode_outcomes(9, [(other, 4), (run, 7), (PENDING, 8)])
        self.assertEqual(together, encode_outcomes(9, [(other, 4), *single, (PENDING, 8)]))
        self.assertEqual(encode_outcomes(9, [(run, 7)]), encode_outcomes(9, single))
        self.assertEqual(encode_outcomes(9, [(run[:1], 5)]), encode_outcomes(9, single[:1]))


class MachineTests(SynchronousTestCase):
    """Outcomes of equal updates at servers in different situations."""

    def slots(self, driver: Driver) -> list[bytes]:
        """The outcomes of each of several slots, which have some of every kind of command."""
        found = []

        def run(*updates: Any) -> None:
            driver.execute(*updates)
            found.append(driver.outcomes)

        run(driver.operation("OPEN", "alice", 10_000))
        run(driver.bundle("alice", 1, (1, PUT), (2, INCR), (0, ("GET", "n")), (2, INCR)))
        run(driver.bundle("alice", 1, (3, ("LOCK", "x", -1))), driver.bundle("alice", 9, (4, PUT)))
        run(driver.operation("OPEN", "bob", 10_000))
        run(driver.bundle("bob", driver.machine.sessions["bob"].epoch, (1, ("LOCK", "x", 5_000))))
        run(driver.operation("CLOSE", "alice", 1))
        run(driver.update(Bundle("~0.1.1", 0, True, ((1, INCR),))))
        return found

    def test_outcomes_do_not_depend_on_who_asks_or_listens(self) -> None:
        """The outcomes do not depend on which server answers questions or has an observer, as in recovery."""
        here, there, recovering = Driver(server_id=0), Driver(server_id=1), Driver(server_id=0)
        recovering.machine.observer = NoObserver()
        recovering.observer.results = [()]
        slots = self.slots(here)
        self.assertEqual(self.slots(there), slots)
        self.assertEqual(self.slots(recovering), slots)
        self.assertEqual(len(set(slots)), len(slots))

    def test_outcomes_of_one_slot_are_not_in_the_next(self) -> None:
        """The outcomes of one slot are not in those of the next."""
        driver = Driver()
        driver.open("alice")
        driver.execute()
        self.assertEqual(driver.outcomes, encode_outcomes(1, []))

    def test_command_that_comes_to_something_else_is_seen(self) -> None:
        """If a command has another value, refusal or wait at one server, the outcomes of that server differ."""
        whole = self.slots(Driver())
        for result in (Done((("value", 3), ("revision", 3))), Refused("OVERFLOW", ""), PENDING):
            driver = Driver()
            execute = driver.machine.execute_command

            def otherwise(*args: Any, execute: Any = execute, result: Any = result) -> Any:
                return result if args[2] == INCR else execute(*args)

            driver.machine.execute_command = otherwise  # type: ignore[method-assign]
            self.assertNotEqual(self.slots(driver)[1], whole[1])
        self.assertTrue(self.flushLoggedErrors(TypeError), "PENDING is no result of a verb that does not wait")

    def test_revision_that_is_not_the_commands_own_is_seen(self) -> None:
        """A result that is a revision and nothing else is left out only if it is the command's own revision; any other
        one is in the outcomes."""
        right, wrong = Driver(), Driver()
        for driver, more in ((right, 0), (wrong, 1)):
            driver.open("alice")
            driver.machine.execute_command = lambda session, number, command, machine=driver.machine, more=more: Done(  # type: ignore[method-assign]
                (("revision", machine.revision + more),)
            )
            driver.run("alice", 1, (1, PUT))
        self.assertNotEqual(right.outcomes, wrong.outcomes)

    def test_other_texts_make_no_difference(self) -> None:
        """Refusals that differ in their texts alone, as of two versions, have equal outcomes."""
        whole = self.slots(Driver())
        self.patch(state_machine, "replaced", lambda client_id: Refused("REPLACED", "taken over"))
        self.assertEqual(self.slots(Driver()), whole)
