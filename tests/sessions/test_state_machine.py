"""SessionStateMachine: executes each command at most once, as a function of the ordered updates only
(docs/internals/sessions.rst)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import PENDING, Command, CommandDescription, Done, IContext, IReplicatedApplication
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.bundle import Bundle
from pfsb.sessions.reply_cache import BYTES_MAX
from pfsb.sessions.state_machine import CLOSE, EXPIRE, OPEN
from tests.sessions.support import Driver, code, dump, encoded, value

INCR: Command = ("INCR", b"n", 1)
GET: Command = ("GET", b"n")
ANON = "~0.1.1"


class MachineTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.driver = Driver()
        self.machine = self.driver.machine

    def counted(self) -> int:
        """The value of the counter; 0 at the beginning."""
        result = self.machine.question(GET)
        return int(value(result)) if isinstance(result, Done) else 0


class NumberTests(MachineTestCase):
    """A command with a number above all that have run runs once; one with a lower number has its result repeated."""

    def setUp(self) -> None:
        super().setUp()
        self.epoch = self.driver.open("alice")["epoch"]

    def test_repeated_number_gets_the_same_answer_and_does_not_run(self) -> None:
        """A command with a repeated number gets the answer of the first one, and is not executed again."""
        (first,) = self.driver.run("alice", self.epoch, (1, INCR))
        (again,) = self.driver.run("alice", self.epoch, (1, INCR))
        self.assertEqual((value(again), again, self.counted()), ("1", first, 1))

    def test_repeated_number_in_one_bundle_runs_once(self) -> None:
        """A number that is repeated in one bundle runs once, since each command is compared with those before it."""
        first, again = self.driver.run("alice", self.epoch, (1, INCR), (1, INCR))
        self.assertEqual((first, self.counted()), (again, 1))

    def test_skipped_number_is_refused_as_never_used(self) -> None:
        """A skipped number, here 2, is refused with fate=none: it has not run, and never will, since numbers only
        grow."""
        self.driver.run("alice", self.epoch, (1, INCR), (3, INCR))
        (late,) = self.driver.run("alice", self.epoch, (2, INCR))
        self.assertEqual((code(late), self.counted()), (("BADREQUEST", "none"), 2))

    def test_forgotten_number_is_refused_with_unknown_fate(self) -> None:
        """Only the last `session_window` (4) results are kept: the fate of an older number is unknown."""
        self.driver.run("alice", self.epoch, *((n, INCR) for n in range(1, 6)))
        forgotten, kept = self.driver.run("alice", self.epoch, (1, INCR), (2, INCR))
        self.assertEqual((code(forgotten), value(kept)), (("BADREQUEST", "unknown"), "2"))
        self.assertEqual(self.counted(), 5)

    def test_skipped_number_below_a_forgotten_one_is_unknown(self) -> None:
        """The session cannot tell a skipped number from one whose result it has forgotten."""
        self.driver.run("alice", self.epoch, *((n, INCR) for n in range(2, 8)))
        (result,) = self.driver.run("alice", self.epoch, (1, INCR))
        self.assertEqual(code(result), ("BADREQUEST", "unknown"))

    def test_large_answers_push_out_earlier_ones(self) -> None:
        """A session keeps at most 1,048,576 bytes of results, and always its newest result."""
        text = "x" * (BYTES_MAX // 2 - 100)
        for number in (1, 3, 5):
            put, hashed = ("PUT", "k", text), ("PUTHASH", "k", "y")
            self.driver.run("alice", self.epoch, (number, put), (number + 1, hashed))
        results = self.driver.run("alice", self.epoch, (2, INCR), (4, INCR), (6, INCR))
        self.assertEqual(code(results[0]), ("BADREQUEST", "unknown"))
        self.assertEqual([value(result, "previous") for result in results[1:]], [text, text])
        self.driver.run("alice", self.epoch, (7, ("PUT", "k", 2 * text)), (8, ("PUTHASH", "k", "y")))
        results = self.driver.run("alice", self.epoch, (6, INCR), (8, INCR))
        self.assertEqual((code(results[0]), value(results[1], "previous")), (("BADREQUEST", "unknown"), 2 * text))

    def test_question_in_a_bundle_sees_what_stands_before_it(self) -> None:
        """A linearizable question in a bundle sees the effects of the commands before it, and has no number."""
        before, _, after = self.driver.run("alice", self.epoch, (0, GET), (1, INCR), (0, GET))
        self.assertEqual((code(before), value(after)), (("NOTFOUND", "none"), "1"))

    def test_question_of_another_server_is_passed_over(self) -> None:
        """A question that was asked at another server is passed over: only that server answers it."""
        asked: list[Command] = []
        self.machine.question = asked.append  # type: ignore[method-assign, assignment]
        self.driver.execute(self.driver.update(Bundle("~1.1.1", 0, True, ((0, GET),)), server_id=1))
        self.assertEqual(asked, [])

    def test_revision_counts_commands_and_operations_once(self) -> None:
        """The revision is the number of executed commands and operations; repetitions and questions do not count."""
        self.assertEqual(self.machine.revision, 1)
        self.driver.run("alice", self.epoch, (1, INCR), (2, INCR), (2, INCR), (0, GET))
        self.assertEqual(self.machine.revision, 3)
        self.driver.close("alice", self.epoch)
        self.assertEqual(self.machine.revision, 4)

    def test_unknown_command_is_answered_and_used_up(self) -> None:
        """An unknown verb is refused and its number is used: a server with other applications may send such a
        command."""
        (result,) = self.driver.run("alice", self.epoch, (1, ("DANCE",)))
        self.assertEqual((code(result), self.machine.sessions["alice"].last_number), (("UNKNOWN", "none"), 1))
        self.assertEqual(code(self.machine.question(("DANCE",))), ("UNKNOWN", "none"))


class EpochTests(MachineTestCase):
    """Opening a session again fences off the connection that had it before."""

    def test_opened_session_tells_epoch_last_and_resumed(self) -> None:
        """The answer to HELLO has the fields that docs/protocol.rst promises."""
        opened = self.driver.open("alice")
        self.assertEqual(opened, {"client": "alice", "epoch": 1, "last": 0, "resumed": "no", "opened": 1})
        self.driver.run("alice", 1, (1, INCR))
        self.assertEqual(
            self.driver.open("alice"), {"client": "alice", "epoch": 3, "last": 1, "resumed": "yes", "opened": 1}
        )

    def test_bundle_of_an_old_epoch_does_not_run(self) -> None:
        """A bundle of an old epoch is refused with REPLACED and does not run."""
        old = self.driver.open("alice")["epoch"]
        self.driver.open("alice", server_id=1)
        (result,) = self.driver.run("alice", old, (1, INCR))
        self.assertEqual((code(result), self.counted()), (("REPLACED", "none"), 0))

    def test_old_epoch_does_not_deny_what_the_new_one_did(self) -> None:
        """Promise 4: the number in the bundle may have run; repeating it in the session tells."""
        old = self.driver.open("alice")["epoch"]
        new = self.driver.open("alice")["epoch"]
        self.driver.run("alice", new, (1, INCR))
        repeated, fresh = self.driver.run("alice", old, (1, INCR), (2, INCR))
        self.assertEqual((code(repeated), code(fresh)), (("REPLACED", "unknown"), ("REPLACED", "none")))
        self.driver.close("alice", new)
        repeated, fresh = self.driver.run("alice", old, (1, INCR), (2, INCR))
        self.assertEqual((code(repeated), code(fresh)), (("NOSESSION", "unknown"), ("NOSESSION", "none")))

    def test_new_epoch_has_the_answers_of_the_old_one(self) -> None:
        """A session that is taken over keeps its results, so that a new epoch repeats the answers of the old one."""
        (first,) = self.driver.run("alice", self.driver.open("alice")["epoch"], (1, INCR))
        (again,) = self.driver.run("alice", self.driver.open("alice")["epoch"], (1, INCR))
        self.assertEqual((again, self.counted()), (first, 1))

    def test_end_of_an_old_epoch_is_void(self) -> None:
        """A CLOSE or EXPIRE that was under way when the client came back must not end the new epoch."""
        old = self.driver.open("alice")["epoch"]
        self.driver.open("alice")
        self.driver.close("alice", old)
        self.driver.expire("alice", old)
        self.assertIn("alice", self.machine.sessions)
        self.assertEqual(self.driver.observer.ends, [("alice", old, "REPLACED")])

    def test_closed_session_takes_nothing(self) -> None:
        """A command for a closed session is refused with NOSESSION and does not run."""
        epoch = self.driver.open("alice")["epoch"]
        self.driver.close("alice", epoch)
        (result,) = self.driver.run("alice", epoch, (1, INCR))
        self.assertEqual((code(result), self.counted()), (("NOSESSION", "none"), 0))

    def test_each_end_is_told_once(self) -> None:
        """The end of each epoch of a session is told to the observer once."""
        first = self.driver.open("alice")["epoch"]
        second = self.driver.open("alice")["epoch"]
        self.driver.expire("alice", second)
        self.driver.expire("alice", second)
        self.assertEqual(self.driver.observer.ends, [("alice", first, "REPLACED"), ("alice", second, "NOSESSION")])


class ClosedSessionTests(MachineTestCase):
    """The last number of a closed session is kept for as long as an old update could still come."""

    def setUp(self) -> None:
        super().setUp()
        self.driver.run("alice", self.driver.open("alice")["epoch"], (1, INCR), (2, INCR))
        self.driver.expire("alice", self.machine.sessions["alice"].epoch)

    def pass_slots(self, slots: int) -> None:
        for _ in range(slots):
            self.driver.execute()

    def test_number_of_an_expired_session_is_not_run_again(self) -> None:
        """A command without an answer may have run before its session expired: its fate is unknown; it does not run."""
        opened = self.driver.open("alice")
        self.assertEqual((opened["last"], opened["resumed"]), (2, "no"))
        (result,) = self.driver.run("alice", opened["epoch"], (2, INCR))
        self.assertEqual((code(result), self.counted()), (("BADREQUEST", "unknown"), 2))

    def test_last_number_is_kept_for_the_horizon(self) -> None:
        """The last number of a closed session is kept for the horizon, which is 10 slots here."""
        self.pass_slots(10)
        self.assertEqual(self.machine.last_number("alice"), 2)
        self.assertEqual(self.driver.open("alice")["last"], 2)

    def test_last_number_is_forgotten_after_the_horizon(self) -> None:
        """The last number of a closed session is forgotten after the horizon, so that the table of closed sessions
        stays bounded."""
        self.pass_slots(11)
        self.assertEqual(len(self.machine.closed_sessions), 0)
        self.assertEqual(self.driver.open("alice")["last"], 0)

    def test_reopened_session_is_kept_anew_when_it_closes_again(self) -> None:
        """When a reopened session closes again, its last number is kept for a horizon from the last end on."""
        self.pass_slots(9)
        self.driver.close("alice", self.driver.open("alice")["epoch"])
        self.pass_slots(9)
        self.assertEqual(self.machine.last_number("alice"), 2)

    def test_session_without_a_number_leaves_nothing(self) -> None:
        """A session that has changed nothing leaves no last number when it closes."""
        self.driver.close("bob", self.driver.open("bob")["epoch"])
        self.assertEqual(list(self.machine.closed_sessions), ["alice"])


class AnonymousTests(MachineTestCase):
    """A connection that has not said HELLO has a session of its own."""

    def test_first_bundle_opens_the_session_and_runs(self) -> None:
        """The first bundle of an anonymous session opens the session and runs, so that a new connection needs one round
        and not two."""
        (result,) = self.driver.run_anonymous(ANON, (1, INCR), opens=True)
        self.assertEqual((value(result), list(self.machine.sessions)), ("1", [ANON]))
        (result,) = self.driver.run_anonymous(ANON, (2, INCR))
        self.assertEqual(value(result), "2")

    def test_later_bundle_does_not_open_it_again(self) -> None:
        """A later bundle does not open an anonymous session again: one that was closed, or expired when its server was
        silent, stays ended."""
        self.driver.run_anonymous(ANON, (1, INCR), opens=True)
        self.driver.close(ANON, 0)
        (result,) = self.driver.run_anonymous(ANON, (2, INCR))
        self.assertEqual((code(result), self.counted()), (("NOSESSION", "none"), 1))

    def test_nothing_is_left_of_it(self) -> None:
        """When an anonymous session ends, nothing of it is kept, not even its last number, since its id is never used
        again."""
        self.driver.run_anonymous(ANON, (1, INCR), opens=True)
        self.driver.close(ANON, 0)
        self.assertEqual((self.machine.sessions, len(self.machine.closed_sessions)), ({}, 0))

    def test_it_belongs_to_the_server_that_sent_it(self) -> None:
        """An anonymous session belongs to the server that sent its first bundle: that server ends it, or the leader if
        that server is silent."""
        self.driver.execute(self.driver.update(Bundle("~2.1.1", 0, True, ((1, INCR),)), server_id=2))
        self.assertEqual(self.machine.sessions["~2.1.1"].server_id, 2)


class PendingTests(MachineTestCase):
    """A LOCK that is granted later gives the result of a command that was executed earlier."""

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.driver.open("alice")["epoch"]
        self.bob = self.driver.open("bob")["epoch"]
        self.driver.run("alice", self.alice, (1, ("LOCK", "x", -1)))

    def lock(self, number: int = 1, wait_ms: int = -1) -> Any:
        return self.driver.run("bob", self.bob, (number, ("LOCK", "x", wait_ms)))[0]

    def test_granted_lock_answers_the_waiting_command(self) -> None:
        """When a waiting LOCK is granted, its result is told to the client once, and kept."""
        self.assertIs(self.lock(), PENDING)
        self.assertEqual(self.driver.observer.completions, [])
        self.driver.run("alice", self.alice, (2, ("UNLOCK", "x", -1)))
        ((client_id, number, result),) = self.driver.observer.completions
        self.assertEqual((client_id, number, value(result, "name")), ("bob", 1, "x"))
        self.assertEqual(self.lock(), result)
        self.assertEqual(len(self.driver.observer.completions), 1)

    def test_repeated_number_of_a_waiting_command_waits_too(self) -> None:
        """A repeated number of a waiting LOCK waits for the same result: it is neither run again nor refused."""
        self.lock()
        self.assertIs(self.lock(), PENDING)

    def test_granted_in_the_bundle_of_its_own(self) -> None:
        """A LOCK that waits for a lock which a later command of its own bundle releases is granted in that bundle."""
        self.driver.run("alice", self.alice, (2, ("UNLOCK", "x", -1)))
        bob_takes = self.driver.bundle("bob", self.bob, (1, ("LOCK", "x", -1)))
        both = self.driver.bundle("alice", self.alice, (3, ("LOCK", "x", -1)), (4, ("LOCK", "y", -1)))
        bob_gives = self.driver.bundle("bob", self.bob, (2, ("UNLOCK", "x", -1)))
        results = self.driver.execute(bob_takes, both, bob_gives)
        self.assertIs(results[1][0], PENDING)
        self.assertEqual([(who, number) for who, number, _ in self.driver.observer.completions], [("alice", 3)])
        self.assertEqual(self.machine.sessions["alice"].waiting, {})

    def test_wait_ends_at_its_time(self) -> None:
        """A wait ends at its time by the state machine's clock, which is the time of the slot."""
        self.lock(wait_ms=500)
        self.assertEqual(self.machine.next_deadline(), 1_500)
        self.driver.time_ms = 1_500
        self.driver.execute()
        ((_, _, result),) = self.driver.observer.completions
        self.assertEqual((code(result), self.machine.next_deadline()), (("TIMEOUT", "none"), None))

    def test_end_of_a_session_releases_its_locks_and_its_places(self) -> None:
        """Locks of an ended session go to the next sessions, and its waiting commands are answered."""
        self.lock()
        carol = self.driver.open("carol")["epoch"]
        self.driver.run("carol", carol, (1, ("LOCK", "x", -1)))
        self.driver.expire("bob", self.bob)
        self.driver.close("alice", self.alice)
        completions = [
            (who, code(result) if who == "bob" else value(result, "name"))
            for who, _, result in self.driver.observer.completions
        ]
        self.assertEqual(completions, [("bob", ("NOSESSION", "none")), ("carol", "x")])

    def test_taken_over_session_keeps_its_place(self) -> None:
        """A waiting LOCK keeps its place in the queue when its session is taken over by another connection."""
        self.lock()
        self.driver.open("bob", server_id=1)
        self.driver.run("alice", self.alice, (2, ("UNLOCK", "x", -1)))
        self.assertEqual([who for who, _, _ in self.driver.observer.completions], ["bob"])
        self.assertIn(1, self.machine.sessions["bob"].answers.numbers)

    def test_no_more_commands_wait_than_a_session_may_have(self) -> None:
        """A session can have only so many waiting LOCKs, also over many connections; further ones are refused."""
        for number in range(1, 5):
            self.assertIs(self.lock(number), PENDING)
        self.assertEqual(code(self.lock(5)), ("BUSY", "none"))
        (result,) = self.driver.run("bob", self.bob, (6, INCR))
        self.assertEqual((value(result), len(self.machine.sessions["bob"].waiting)), ("1", 4))


@implementer(IReplicatedApplication)
class Faulty:
    """An application all of whose methods raise."""

    name = "faulty"
    commands = (CommandDescription("FAIL", "FAIL", "Fail."), CommandDescription("ASK", "ASK", "Fail.", changes=False))
    deadline: int | None = None

    def check(self, command: tuple[str, ...]) -> Command:
        return command

    def execute(self, command: Command, context: IContext) -> Any:
        raise ZeroDivisionError

    def query(self, command: Command) -> Any:
        raise ZeroDivisionError

    def session_ended(self, client_id: str, context: IContext) -> None:
        raise ZeroDivisionError

    def time_passed(self, context: IContext) -> None:
        raise ZeroDivisionError

    def next_deadline(self) -> int | None:
        return self.deadline

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None:
        raise ZeroDivisionError


class FaultyApplicationTests(SynchronousTestCase):
    """An application that raises does so on every server alike, and the servers go on."""

    def setUp(self) -> None:
        self.faulty = Faulty()
        self.driver = Driver(catalogue=Catalogue([self.faulty, KeyValue(), Lock()]))

    def assertRaisedAndLogged(self, times: int) -> None:
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), times)

    def test_command_that_raises_is_answered_once(self) -> None:
        """The command is answered with INTERNAL and its number is used: a repetition does not raise again."""
        epoch = self.driver.open("alice")["epoch"]
        first, again, then = self.driver.run("alice", epoch, (1, ("FAIL",)), (1, ("FAIL",)), (2, INCR))
        self.assertEqual((code(first), again, value(then)), (("INTERNAL", "unknown"), first, "1"))
        self.assertRaisedAndLogged(1)

    def test_question_that_raises_is_answered(self) -> None:
        """A question at which the application raises is answered with INTERNAL."""
        self.assertEqual(code(self.driver.machine.question(("ASK",))), ("INTERNAL", "none"))
        self.assertRaisedAndLogged(1)

    def test_other_applications_hear_of_the_end_of_a_session(self) -> None:
        """When one application raises at the end of a session, the others still hear of the end, so that no lock stays
        held for ever."""
        epoch = self.driver.open("alice")["epoch"]
        self.driver.run("alice", epoch, (1, ("LOCK", "x", -1)))
        self.driver.close("alice", epoch)
        self.assertEqual(self.driver.machine.question(("LOCKS", -1)).rows, ())  # type: ignore[union-attr]
        self.assertRaisedAndLogged(1)

    def test_wait_that_raises_does_not_stop_the_server(self) -> None:
        """An application that raises when waits end does not stop the server: the exception would come at the same slot
        on every server, and after each restart."""
        self.faulty.deadline = 1
        self.driver.execute()
        self.assertRaisedAndLogged(1)


class EventTests(MachineTestCase):
    def test_grown_log_is_told_once_a_slot(self) -> None:
        """Several events in one slot are told to the observer in one call: subscribers read them from the log by their
        numbers."""
        epoch = self.driver.open("alice")["epoch"]
        self.driver.run("alice", epoch, (1, ("SAY", "a")), (2, ("SAY", "b")))
        self.assertEqual(self.driver.observer.grown, ["LISTEN"])
        self.driver.run("alice", epoch, (2, ("SAY", "b")), (3, INCR))
        self.assertEqual(self.driver.observer.grown, ["LISTEN"])


class HorizonTests(MachineTestCase):
    def test_update_that_is_too_old_is_told_to_its_own_server_only(self) -> None:
        """An update beyond its horizon is run by no server, and only the server that sent it tells its clients."""
        mine = self.driver.update(Bundle("alice", 7, False, ((1, INCR),)))
        other = self.driver.update(Bundle("~1.1.1", 0, True, ((1, INCR),)), server_id=1)
        self.machine.too_old(mine)
        self.machine.too_old(other)
        self.assertEqual(self.driver.observer.expired_updates, [mine])
        self.assertEqual((self.machine.sessions, self.counted()), ({}, 0))


class DeterminismTests(SynchronousTestCase):
    def test_servers_with_different_ids_have_the_same_state(self) -> None:
        """Neither the id of a server nor its observer has an effect on the replicated state."""
        drivers = [Driver(server_id) for server_id in (0, 1, 7)]
        for driver in drivers:
            for play in self.plays():
                play(driver)
        dumps = [dump(driver.machine) for driver in drivers]
        self.assertEqual(dumps[1:], [dumps[0]] * 2)
        self.assertEqual(len(drivers[0].machine.sessions), 3)

    def plays(self) -> list[Callable[[Driver], object]]:
        """Updates that bring about sessions, waits, repetitions and ends of sessions, as functions that drive a
        machine."""
        return [
            lambda d: d.execute(d.operation(OPEN, "alice", 9), d.operation(OPEN, "bob", 9, server_id=1)),
            lambda d: d.execute(d.bundle("alice", 1, (1, INCR), (0, GET), (2, ("LOCK", "x", -1)))),
            lambda d: d.execute(d.bundle("bob", 2, (5, ("LOCK", "x", 700)), (6, ("SAY", "hello"))), d.bundle("bob", 2)),
            lambda d: d.execute(d.update(Bundle("~0.1.1", 0, True, [(n, INCR) for n in range(1, 9)]))),
            lambda d: d.execute(d.operation(OPEN, "carol", 9), d.operation(CLOSE, "carol", 11)),
            lambda d: d.execute(d.operation(OPEN, "bob", 9), d.bundle("bob", 2, (7, INCR)), d.bundle("alice", 1)),
            lambda d: d.execute(d.operation(EXPIRE, "alice", 1, server_id=1)),
        ]

    def test_plays_bring_about_every_kind_of_state(self) -> None:
        """The updates of `plays` lead to states with sessions, waits, results and closed sessions; without these,
        comparing states would show nothing."""
        driver = Driver()
        for play in self.plays():
            play(driver)
        machine = driver.machine
        self.assertEqual(sorted(machine.sessions), ["bob", "carol", "~0.1.1"])
        self.assertEqual(list(machine.closed_sessions), ["alice"])
        self.assertEqual(machine.sessions["~0.1.1"].answers.forgotten, 4)
        self.assertEqual(machine.sessions["bob"].answers.numbers, [6, 5])


class CatalogueTests(SynchronousTestCase):
    def test_changes_are_told_from_questions(self) -> None:
        """An unknown verb counts as a change, not as a question: it is ordered, and refused at its execution."""
        machine = Driver(catalogue=Catalogue([Chat(), KeyValue()])).machine
        self.assertEqual([machine.changes((verb,)) for verb in ("SAY", "LOG", "DANCE")], [True, False, True])


class ValidityTests(MachineTestCase):
    """Departure 37: the state machine can tell whether an update is valid before it is ordered, and executes invalid
    ones without an exception all the same."""

    def update(self, payload: bytes, client_id: str = "0.1.1", server_id: int = 0) -> ClientUpdate:
        return ClientUpdate(client_id, server_id, 1, 0, payload)

    def test_bundles_of_the_named_servers_paxos_client_are_valid(self) -> None:
        """Bundles are valid if the name of their Paxos client begins with the id of the server."""
        right = self.driver.update(Bundle("alice", 1, False, ((1, INCR),))).payload
        self.assertTrue(self.machine.is_valid(self.update(right)))
        self.assertTrue(self.machine.is_valid(self.update(right, "12.1.1", 12)))
        for client_id, server_id in (("1.1.1", 0), ("12.1.1", 1), ("alice", 0), ("0", 0), ("", 0)):
            self.assertFalse(self.machine.is_valid(self.update(right, client_id, server_id)))
        self.assertFalse(self.machine.is_valid(self.update(b"\xc1")))

    def test_invalid_update_that_is_ordered_changes_nothing_and_is_counted(self) -> None:
        """An invalid update that was ordered, as by a server of another version, is refused and counted by all servers,
        changes nothing and stops none."""
        self.driver.execute()
        before = dump(self.machine)
        for wrong in (b"", b"\xc1", b"\x90", encoded(Bundle("!", 0, False, ((0, ()),)))):
            self.assertEqual(self.driver.execute(self.update(wrong)), [])
        self.assertEqual((dump(self.machine), self.machine.refused), (before, 4))
        self.assertEqual(value(self.driver.open("alice") and self.driver.run("alice", 1, (1, INCR))[0]), "1")

    def test_checked_payload_is_decoded_once(self) -> None:
        """A follower checks the payload of a proposal, and executes it a little later: the payload is decoded once."""
        update = self.driver.update(Bundle("~0.1.1", 0, True, ((1, INCR),)))
        self.assertTrue(self.machine.is_valid(self.update(update.payload)))
        decoded: list[bytes] = []
        decode = bundle.decode
        self.patch(bundle, "decode", lambda payload: decoded.append(payload) or decode(payload))
        self.assertTrue(self.machine.is_valid(self.update(bytes(bytearray(update.payload)))))
        self.driver.execute(update)
        self.assertEqual((decoded, self.counted()), ([], 1))
        self.driver.execute(update)
        self.assertEqual(len(decoded), 1)

    def test_operations_with_odd_values_are_refused(self) -> None:
        """Operations of a server's own session with odd values are refused, since that server may be in error."""
        for command in (
            ("OPEN",),
            ("OPEN", "alice"),
            ("OPEN", "", 10),
            ("OPEN", "!", 10),
            ("OPEN", "~0.1.1", 10),
            ("OPEN", "alice", 0),
            ("OPEN", "alice", -(2**63)),
            ("OPEN", 7, 10),
            ("OPEN", "alice", "10"),
            ("OPEN", "alice", 10, 10),
            ("CLOSE", "alice", "7"),
            ("EXPIRE", 7, "alice"),
            ("DESTROY", "alice", 10),
        ):
            ((result,),) = self.driver.execute(self.driver.operation(*command))
            self.assertIn(code(result), (("BADREQUEST", "none"), ("UNKNOWN", "none")), command)
        for command in (("CLOSE", "", 0), ("EXPIRE", "nobody", 2**63 - 1), ("CLOSE", "!", -1)):
            ((result,),) = self.driver.execute(self.driver.operation(*command))
            self.assertEqual(result, Done())
        self.assertEqual(self.machine.sessions, {})

    def test_only_an_anonymous_session_opens_with_its_first_bundle(self) -> None:
        """A named session has an epoch that fences off its former connections, so it is opened by OPEN alone."""
        for client_id in ("alice", "!alice"):
            ((result,),) = self.driver.execute(self.driver.update(Bundle(client_id, 0, True, ((1, INCR),))))
            self.assertEqual(code(result), ("NOSESSION", "none"))
        self.assertEqual((self.machine.sessions, self.counted()), ({}, 0))
