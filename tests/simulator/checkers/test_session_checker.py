"""The check of exactly-once: each of its rules finds the violation that it is there for
(docs/internals/sessions.rst)."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import PENDING, Done, Refused
from pfsb.paxos.messages import Batch
from pfsb.paxos.records import OrderedRecord
from pfsb.simulator.checkers.session_checker import SessionChecker, Slot
from pfsb.simulator.checkers.violation import Violation
from pfsb.storage.memory import MemoryDisk

ALICE = ("alice", 1)
PUT = ("PUT", "k", "v")
RESULT = Done((("revision", 1),))


class SessionCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disks = {i: MemoryDisk() for i in range(3)}
        self.check = SessionChecker(self.disks, horizon_slots=10, marks=Counter())

    def asked_and_run(self, seq: int = 1) -> None:
        self.check.ask(ALICE, PUT)
        self.check.settled(0, Slot(seq, [(ALICE, PUT, RESULT)]))

    def store(self, *server_ids: int, seq: int = 1) -> None:
        for server_id in server_ids:
            self.disks[server_id].contents.apply(OrderedRecord(seq, Batch.of(0, ())))

    def test_answer_that_equals_the_execution_passes(self) -> None:
        """An answer that equals the execution passes at every server, and when it is repeated."""
        self.asked_and_run()
        self.store(0, 2)
        self.check.answered(ALICE, PUT, RESULT, 0)
        self.check.settled(1, Slot(1, [(ALICE, PUT, RESULT)]))
        self.check.ask(ALICE, PUT)
        self.check.answered(ALICE, PUT, RESULT, 0)
        self.assertEqual(self.check.marks["answer given for a repetition"], 1)

    def test_other_answer_is_found(self) -> None:
        """An answer that differs from the recorded execution is found."""
        self.asked_and_run()
        self.store(0, 1)
        error = self.assertRaises(Violation, self.check.answered, ALICE, PUT, Done((("revision", 2),)), 0)
        self.assertIn("is answered", str(error))

    def test_answer_without_execution_is_found(self) -> None:
        """An answer to a command that no server has executed is found."""
        self.check.ask(ALICE, PUT)
        self.assertRaises(Violation, self.check.answered, ALICE, PUT, RESULT, 0)

    def test_answer_that_is_not_durable_is_found(self) -> None:
        """An answer that would not survive a crash of all servers is found (promise 2)."""
        self.asked_and_run()
        self.store(1)
        error = self.assertRaises(Violation, self.check.answered, ALICE, PUT, RESULT, 0)
        self.assertIn("only on the disks of [1]", str(error))

    def test_command_that_no_client_sent_is_found(self) -> None:
        """A command that no client sent is found (S2)."""
        error = self.assertRaises(Violation, self.check.settled, 0, Slot(1, [(ALICE, PUT, RESULT)]))
        self.assertIn("S2", str(error))

    def test_command_that_runs_again_is_found(self) -> None:
        """A command that runs again within the horizon is found (S3); after it a number may be forgotten."""
        self.asked_and_run()
        error = self.assertRaises(Violation, self.check.settled, 0, Slot(11, [(ALICE, PUT, RESULT)]))
        self.assertIn("S3", str(error))
        self.check.settled(0, Slot(12, [(ALICE, PUT, RESULT)]))

    def test_command_of_a_connection_that_has_lost_the_session_is_found(self) -> None:
        """A command of a connection that has lost its session is found: the HELLO of the other connection was told that
        it did not run (docs/internals/sessions.rst)."""
        self.check.ask(ALICE, PUT)
        slot = Slot(1, [(ALICE, PUT, RESULT)], fenced_off=[(ALICE, 3, 8)])
        self.assertIn("opened anew in epoch 8", str(self.assertRaises(Violation, self.check.settled, 0, slot)))

    def test_slots_with_different_results_are_found(self) -> None:
        """Servers that tell different results of one command are found (S1)."""
        self.asked_and_run()
        self.assertRaises(Violation, self.check.settled, 1, Slot(1, [(ALICE, PUT, Done())]))

    def test_command_that_runs_after_fate_none_is_found(self) -> None:
        """A command that was answered with fate=none and runs later is found (promise 4), unless its client has sent it
        again."""
        self.check.ask(ALICE, PUT)
        self.check.answered(ALICE, PUT, Refused("BUSY", "no room"), 0)
        slot = Slot(1, [(ALICE, PUT, RESULT)])
        error = self.assertRaises(Violation, self.check.settled, 0, slot)
        self.assertIn("never would", str(error))
        self.check.ask(ALICE, PUT)
        self.check.settled(0, Slot(2, [(ALICE, PUT, RESULT)]))

    def test_fate_none_of_a_command_that_ran_is_found(self) -> None:
        """The answer fate=none for a command that has run is found."""
        self.asked_and_run()
        self.assertRaises(Violation, self.check.answered, ALICE, PUT, Refused("UNAVAILABLE", "no majority"), 0)

    def test_later_completion_is_the_result(self) -> None:
        """PENDING is no result of a LOCK: its later completion is compared."""
        self.check.ask(ALICE, PUT)
        self.check.settled(0, Slot(1, [(ALICE, PUT, PENDING)]))
        self.store(0, 1, seq=2)
        self.assertRaises(Violation, self.check.answered, ALICE, PUT, RESULT, 0)
        self.check.settled(0, Slot(2, completed=[(ALICE, RESULT)]))
        self.check.answered(ALICE, PUT, RESULT, 0)

    def test_session_that_has_forgotten_is_found(self) -> None:
        """A HELLO whose answer does not cover all numbers that were answered before is found."""
        self.check.opened("alice", last=0, resumed=False, answered=1)
        self.check.opened("alice", last=1, resumed=True, answered=1)
        self.assertRaises(Violation, self.check.opened, "alice", 0, True, 1)

    def test_end_of_a_session_may_make_it_forget(self) -> None:
        """A session that was closed may forget its last number after the horizon."""
        self.asked_and_run()
        self.store(0, 1)
        self.check.answered(ALICE, PUT, RESULT, 0)
        self.assertEqual(self.check.answered_up_to("alice"), 1)
        self.check.settled(0, Slot(2, ended=["alice"]))
        self.check.ask(ALICE, PUT)
        self.check.answered(ALICE, PUT, RESULT, 0)
        self.assertEqual(self.check.answered_up_to("alice"), 0)


class ServerInErrorTests(SynchronousTestCase):
    """The results of a server whose application has gone wrong are compared, and nothing else is concluded from them.

    Departure 40: servers compare the fields of results and the codes of refusals.
    """

    def setUp(self) -> None:
        self.check = SessionChecker({}, horizon_slots=10, marks=Counter(), in_error={2})
        self.check.ask(ALICE, PUT)

    def settle(self, server_id: int, result: object, seq: int = 1) -> None:
        self.check.settled(server_id, Slot(seq, [(ALICE, PUT, result)]))

    def test_other_result_is_noted_whoever_is_first(self) -> None:
        """A different result of a server in error is noted, whether that server executes the slot before all others or
        after them."""
        for first, second in ((0, 2), (2, 0)):
            self.setUp()
            self.settle(first, RESULT if first == 0 else Done((("revision", 7),)))
            self.settle(second, RESULT if second == 0 else Done((("revision", 7),)))
            self.assertEqual(self.check.contradicting, {2: 1})
            self.assertEqual(self.check.results[ALICE], (1, RESULT))

    def test_result_that_servers_do_not_compare_is_not_noted(self) -> None:
        """Texts of refusals may differ between versions: a difference in them is not noted."""
        self.settle(0, Refused("CONFLICT", "one text"))
        self.settle(2, Refused("CONFLICT", "another text"))
        self.assertEqual(self.check.contradicting, {})

    def test_next_start_of_the_server_begins_anew(self) -> None:
        """The next start of the server executes the history anew: differences noted before count no more."""
        self.settle(0, RESULT)
        self.settle(2, PENDING)
        self.check.started(2)
        self.assertEqual(self.check.contradicting, {})

    def test_other_result_at_a_correct_server_is_found(self) -> None:
        """A different result at a server that is not in error is found."""
        self.settle(0, RESULT)
        self.assertRaises(Violation, self.settle, 1, PENDING)
