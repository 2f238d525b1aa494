"""Exceptions of applications: those of one machine stop the server, all others are answered alike at every server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.applications.application import Application
from pfsb.applications.catalogue import Catalogue
from pfsb.applications.chat import Chat
from pfsb.applications.failures import depends_on_machine
from pfsb.applications.interfaces import (
    PENDING,
    BadRequest,
    Command,
    CommandDescription,
    Done,
    Event,
    IContext,
    IReplicatedApplication,
    Refused,
    Result,
    Word,
)
from pfsb.applications.key_value import KeyValue
from pfsb.paxos.disk_trouble import DiskTrouble
from pfsb.sessions.observer import NoObserver
from tests.sessions.support import ClusterTestCase, Driver, code, dump, value


class Full(BadRequest):
    """The refusal of an application, as an exception."""


@implementer(IReplicatedApplication)
class Counter:
    """An application that counts its commands, and raises or returns whatever the test wants after it has counted."""

    name = "counter"
    commands = (
        CommandDescription("COUNT", "COUNT", "Count."),
        CommandDescription("HOLD", "HOLD", "Wait.", waits=True),
        CommandDescription("SHOW", "SHOW", "Show.", changes=False),
    )

    def __init__(self) -> None:
        self.count = 0
        self.deadline: int | None = None
        self.raises: BaseException | None = None
        self.result: Any = Done()
        self.completes: Any = None

    def check(self, command: tuple[str, ...]) -> Command:
        return command

    def execute(self, command: Command, context: IContext) -> Any:
        if command == ("HOLD",):
            return PENDING
        self.count += 1
        if self.completes is not None:
            context.complete(*self.completes)
        self._fail()
        return self.result

    def query(self, command: Command) -> Any:
        self._fail()
        return Done((("count", self.count),))

    def session_ended(self, client_id: str, context: IContext) -> None:
        self._fail()

    def time_passed(self, context: IContext) -> None:
        self.count += 1
        self._fail()

    def next_deadline(self) -> int | None:
        if isinstance(self.raises, LookupError | OSError):
            raise self.raises
        return self.deadline

    def snapshot(self) -> bytes:
        return str(self.count).encode()

    def restore(self, data: bytes) -> None:
        self.count = int(data)

    def _fail(self) -> None:
        if self.raises is not None:
            raise self.raises


@implementer(IReplicatedApplication)
class DeadlineOfItsOwn(Application):
    """An application that sets its `next_deadline` when it is made, and notes the times that it is told."""

    name = "own"

    def __init__(self) -> None:
        super().__init__({})
        self.told: list[int] = []
        self.next_deadline = lambda: None if self.told else 3_000  # type: ignore[method-assign]

    def time_passed(self, context: IContext) -> None:
        self.told.append(context.time_ms)

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None:
        raise AssertionError("no test restores a snapshot")


class FailingChat(Chat):
    """A chat whose methods `length` and `used` raise or return whatever the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[str, Any] = {}
        """Name of a method -> the exception that it raises, or the value that it returns in place of the right one."""

    def length(self) -> int:
        return self._failed("length", super().length())

    def used(self) -> int:
        return self._failed("used", super().used())

    def _failed(self, method: str, right: int) -> int:
        wrong = self.fails.get(method, right)
        if isinstance(wrong, Exception):
            raise wrong
        return cast(int, wrong)


def raising(error: Exception) -> Callable[..., Any]:
    """A method that raises `error`."""

    def fail(*_: object) -> Any:
        raise error

    return fail


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def in_handling(error: Exception, context: BaseException) -> Exception:
    error.__context__ = context
    return error


OF_THE_MACHINE = (
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    OSError("no space left on device"),
    ConnectionResetError(),
    SystemError(),
    ImportError("cannot import name"),
    caused(KeyError("x"), MemoryError()),
    in_handling(Full("there is no room"), OSError()),
    ExceptionGroup("several", [ValueError(), MemoryError()]),
)
OF_THE_PROGRAM = (
    KeyError("x"),
    ZeroDivisionError(),
    AssertionError(),
    RuntimeError("changed size"),
    caused(ValueError(), KeyError()),
)


class NoCode(BadRequest):
    """A refusal whose constructor forgets the code."""

    def __init__(self) -> None:
        ValueError.__init__(self, "no code")


class NoText(BadRequest):
    """A refusal that cannot tell its text."""

    def __init__(self) -> None:
        super().__init__("")

    def __str__(self) -> str:
        raise KeyError("text")


NOT_PRINTABLE: tuple[Any, ...] = (
    Done((("two words", 1),)),
    Done((("line\nOK", 1),)),
    Done((("a=b", 1),)),
    Done((('"', 1),)),
    Done((("", 1),)),
    Done((("revision", 1), ("\x7f", 2))),
    Done(((7, 1),)),  # type: ignore[arg-type]
    Done((), ((("key", "a"), ("new\nline", "b")),)),
    Done((("state", Word("free\nOK")),)),
    Done((("state", Word("two words")),)),
    Done((("part", 0.5),)),  # type: ignore[arg-type]
    Done((("nothing", None),)),  # type: ignore[arg-type]
    Refused("NOT FOUND", "two words"),
    Refused("HELD\nOK", "a line"),
    Refused("", "no code"),
    Refused("HELD", "what", fate="perhaps"),
    Refused("HELD", b"bytes"),  # type: ignore[arg-type]
)
"""Answers that would be other words, or other lines, in the line protocol, or none."""


class KindsTests(SynchronousTestCase):
    def test_exceptions_of_one_machine_are_told_from_those_of_the_program(self) -> None:
        for error in (*OF_THE_MACHINE, SystemExit(), KeyboardInterrupt()):
            self.assertTrue(depends_on_machine(error), repr(error))
        for error in OF_THE_PROGRAM:
            self.assertFalse(depends_on_machine(error), repr(error))

    def test_causes_that_go_in_a_circle(self) -> None:
        first, second = ValueError(), KeyError()
        first.__cause__, second.__context__ = second, first
        self.assertFalse(depends_on_machine(first))


class CounterTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.counter = Counter()
        self.driver = Driver(catalogue=Catalogue([self.counter, KeyValue()]))
        self.epoch = self.driver.open("alice")["epoch"]
        self.numbers = iter(range(1, 1_000))

    def run_one(self, *command: Any) -> Any:
        return self.driver.run("alice", self.epoch, (next(self.numbers), command))[0]


class FailingObserver(NoObserver):
    def completed(self, client_id: str, epoch: int, number: int, result: Result) -> None:
        raise KeyError("the observer")


class CommandTests(CounterTestCase):
    def test_fault_of_the_machine_is_no_result(self) -> None:
        """After a fault of the machine the turn ends with the exception, so the server stops and tells no client."""
        for error in (*OF_THE_MACHINE, SystemExit()):
            self.counter.raises = error
            self.assertRaises(type(error), self.run_one, "COUNT")
            self.assertEqual(self.driver.observer.results, [])

    def test_fault_of_the_program_does_not_claim_that_nothing_has_changed(self) -> None:
        """After a fault of the program the command may have changed something, so its fate is unknown, and the server
        goes on."""
        for error in OF_THE_PROGRAM:
            self.counter.raises = error
            result = self.run_one("COUNT")
            self.assertEqual(code(result), ("INTERNAL", "unknown"))
            self.assertIn("may have changed", result.text)
            self.flushLoggedErrors(type(error))
        self.assertEqual(self.counter.count, len(OF_THE_PROGRAM))

    def test_application_may_refuse_by_an_exception(self) -> None:
        self.counter.raises = Full("the counter is full", "CONFLICT")
        self.assertEqual(self.run_one("COUNT"), Refused("CONFLICT", "the counter is full"))

    def test_what_is_no_result_is_a_fault_of_the_program(self) -> None:
        """If an application returns a value that is no result, that counts as a fault of its program: it could not be
        kept for repetitions, nor be told to the client."""
        for wrong in (None, "OK", PENDING, Done(fields=("revision",)), Done(fields=7), *NOT_PRINTABLE):  # type: ignore[arg-type]
            self.counter.result = wrong
            result = self.run_one("COUNT")
            self.assertEqual(code(result), ("INTERNAL", "unknown"), wrong)
            repeated = self.driver.run("alice", self.epoch, (self.driver.machine.last_number("alice"), ("COUNT",)))
            self.assertEqual(repeated, [result])
        self.flushLoggedErrors(TypeError, ValueError, AttributeError)

    def test_names_that_break_no_line_are_right(self) -> None:
        """Any word may be the name of a field; texts of users are printed in quotes, whatever is in them."""
        for right in (
            Done((("größe", 1), ("a.b-c", "two words\n"), ("state", Word("free")), ("flag", True))),
            Done((), ((("key", b"\xff"), ("value", "")),)),
            Refused("not-found", "two\nlines"),
        ):
            self.counter.result = right
            self.assertEqual(self.run_one("COUNT"), right)

    def test_refusal_that_cannot_be_made_is_a_fault_of_the_program(self) -> None:
        """A refusal that has no code, or cannot tell its text, counts as a fault of the application's program, which
        all servers meet alike."""
        for wrong in (Full("full", "two words"), Full("full", "LINE\nOK"), NoCode(), NoText()):
            self.counter.raises = wrong
            result = self.run_one("COUNT")
            self.assertEqual(code(result), ("INTERNAL", "unknown"), repr(type(wrong)))
            self.assertTrue(self.flushLoggedErrors(ValueError, AttributeError, KeyError))

    def test_waiting_command_gets_no_answer_that_cannot_be_told(self) -> None:
        """A waiting command whose result cannot be told is answered with INTERNAL, and the slot is executed; otherwise
        it would wait for ever."""
        for wrong in ("OK", None, 7, *NOT_PRINTABLE):
            held = next(self.numbers)
            self.driver.run("alice", self.epoch, (held, ("HOLD",)))
            self.counter.completes = (("alice", held), wrong)
            self.assertEqual(self.run_one("COUNT"), Done())
            client, number, result = self.driver.observer.completions.pop()
            self.assertEqual((client, number, code(result)), ("alice", held, ("INTERNAL", "unknown")))
            self.assertEqual(self.driver.run("alice", self.epoch, (held, ("HOLD",))), [result])
            self.assertTrue(self.flushLoggedErrors(TypeError, ValueError))

    def test_fault_after_completing_another_command(self) -> None:
        """If a command completes another one and then fails, the other one has its result, which is part of the state
        of every server."""
        held = next(self.numbers)
        self.driver.run("alice", self.epoch, (held, ("HOLD",)))
        self.counter.completes, self.counter.raises = (("alice", held), Done()), KeyError()
        self.assertEqual(code(self.run_one("COUNT")), ("INTERNAL", "unknown"))
        self.assertEqual(self.driver.observer.completions, [("alice", held, Done())])
        self.flushLoggedErrors(KeyError)

    def test_fault_of_the_observer_is_none_of_the_application(self) -> None:
        """An exception of the observer does not count as a fault of the application: only the server of the waiting
        client meets it, so it stops that server."""
        held = next(self.numbers)
        self.driver.run("alice", self.epoch, (held, ("HOLD",)))
        self.counter.completes = (("alice", held), Done())

        self.driver.machine.observer = FailingObserver()
        self.assertRaises(KeyError, self.run_one, "COUNT")


class OtherCallTests(CounterTestCase):
    def test_question(self) -> None:
        self.counter.raises = MemoryError()
        self.assertRaises(MemoryError, self.driver.machine.question, ("SHOW",))
        self.counter.raises = Full("not today")
        self.assertEqual(self.driver.machine.question(("SHOW",)), Refused("BADREQUEST", "not today"))

    def test_question_whose_answer_cannot_be_told(self) -> None:
        """A question whose answer cannot be told is answered with INTERNAL: the client would take the answer for
        another line. Other servers do not answer it."""
        for wrong in (None, "OK", *NOT_PRINTABLE):
            self.patch(self.counter, "query", lambda command, wrong=wrong: wrong)
            self.assertEqual(code(self.driver.machine.question(("SHOW",))), ("INTERNAL", "none"), wrong)
            self.assertTrue(self.flushLoggedErrors(TypeError, ValueError))

    def test_end_of_a_session(self) -> None:
        self.counter.raises = RecursionError()
        self.assertRaises(RecursionError, self.driver.close, "alice", self.epoch)

    def test_end_of_a_wait(self) -> None:
        self.counter.raises, self.counter.deadline = SystemError(), 1
        self.assertRaises(SystemError, self.driver.execute)

    def test_next_deadline(self) -> None:
        self.counter.raises = KeyError()
        self.assertIsNone(self.driver.machine.next_deadline())
        self.flushLoggedErrors(KeyError)
        self.counter.raises = OSError()
        self.assertRaises(OSError, self.driver.machine.next_deadline)

    def test_application_may_set_its_next_deadline_when_it_is_made(self) -> None:
        """A `next_deadline` that an application sets when it is made counts like a method of its class."""
        own = DeadlineOfItsOwn()
        driver = Driver(catalogue=Catalogue([own]))
        self.assertEqual(driver.machine.next_deadline(), 3_000)
        driver.time_ms = 3_000
        driver.execute()
        self.assertEqual(own.told, [3_000])

    def test_deadline_that_is_no_number(self) -> None:
        """A deadline that is no number is a fault of the program: the server goes on, since it would meet the fault
        again at every start."""
        for wrong in ("soon", 1.5, True, b"1"):
            self.counter.deadline = cast(Any, wrong)
            self.driver.execute()
            self.assertIsNone(self.driver.machine.next_deadline())
            self.assertTrue(self.flushLoggedErrors(TypeError))

    def test_deadline_that_is_never_dealt_with_is_not_waited_for(self) -> None:
        """A deadline that an application never deals with is not waited for: the leader would order the time for it
        every tenth of a second, for ever."""
        self.counter.raises, self.counter.deadline = ZeroDivisionError(), 900
        self.driver.execute()
        self.assertIsNone(self.driver.machine.next_deadline())
        self.driver.execute()
        self.assertEqual((self.counter.count, len(self.flushLoggedErrors(ZeroDivisionError))), (1, 1))
        self.counter.raises, self.counter.deadline = None, 2_000
        self.assertEqual(self.driver.machine.next_deadline(), 2_000)

    def test_call_whose_name_is_not_known(self) -> None:
        """If a failing method is an object without a name, the log names it as well as it can."""

        def fail(*_: object) -> None:
            raise KeyError("x")

        self.patch(self.counter, "session_ended", partial(fail))
        self.driver.close("alice", self.epoch)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class LogAndQuotaTests(SynchronousTestCase):
    """The methods of the optional interfaces for event logs and quotas, which are called again and again."""

    def setUp(self) -> None:
        self.chat = FailingChat()
        self.driver = Driver(catalogue=Catalogue([self.chat]), apps=(("chat", 1),))
        self.machine = self.driver.machine
        self.epoch = self.driver.open("alice")["epoch"]
        self.numbers = iter(range(1, 1_000))

    def say(self) -> Result:
        result: Result = self.driver.run("alice", self.epoch, (next(self.numbers), ("SAY", "hello")))[0]
        return result

    def test_length_that_cannot_be_told(self) -> None:
        """If the length of an event log cannot be told, at every server in every slot, commands run all the same, and
        clients are told no events until it can be told."""
        for wrong in (KeyError("x"), BadRequest("no"), "seven", None, -1, 1.0, True):
            with self.subTest(wrong):
                self.chat.fails["length"] = wrong
                grown = len(self.driver.observer.grown)
                for _ in range(3):
                    self.assertIsInstance(self.say(), Done)
                self.assertEqual(len(self.driver.observer.grown), grown)
                logged = self.flushLoggedErrors(type(wrong) if isinstance(wrong, Exception) else TypeError)
                self.assertEqual(len(logged), 1)
                self.chat.fails.clear()
                self.assertIsInstance(self.say(), Done)
                self.assertEqual(len(self.driver.observer.grown), grown + 1)
                self.assertEqual(self.machine.event_count(self.chat), self.chat.length())

    def test_length_that_this_machine_cannot_tell(self) -> None:
        self.chat.fails["length"] = MemoryError()
        self.assertRaises(MemoryError, self.say)

    def test_use_of_a_quota_that_cannot_be_told(self) -> None:
        """If the use of one quota cannot be told, those of others are told."""
        for wrong in (KeyError("x"), BadRequest("no"), "much", 1.5):
            with self.subTest(wrong):
                self.chat.fails["used"] = wrong
                for _ in range(3):
                    self.assertIsNone(self.machine.quotas()["chat_bytes"][0])
                self.assertEqual(self.machine.quotas()["sessions"][0], 1)
                logged = self.flushLoggedErrors(type(wrong) if isinstance(wrong, Exception) else TypeError)
                self.assertEqual(len(logged), 1)
                self.chat.fails.clear()
                self.assertEqual(self.machine.quotas()["chat_bytes"][0], self.chat.used())


class WholeServerTests(ClusterTestCase):
    """One server of three runs out of memory inside a command, after it has changed something."""

    def setUp(self) -> None:
        self.begin(3)
        self.leader = self.cluster.leader() or 0
        self.at = next(i for i in self.cluster.ids if i != self.leader)
        self.cluster.expected_failures = (MemoryError,)

    def test_server_stops_and_executes_the_command_again(self) -> None:
        client = self.open("alice", self.at)
        key_value = next(app for app in self.server(self.at).catalogue.applications if app.name == "kv")
        self.do(client, "APPEND", "k", "one")

        def execute(command: Command, context: IContext) -> Any:
            key_value.entries[b"k"] = (b"onetwo", context.revision, None)  # type: ignore[attr-defined]
            raise MemoryError

        key_value.execute = execute  # type: ignore[method-assign]
        told = client.ask("APPEND", "k", "two")
        self.cluster.run(3.0)
        self.assertFalse(self.cluster.is_running(self.at))
        self.assertFalse(told.answered, "nothing of the turn leaves")
        self.cluster.restart(self.at)
        self.cluster.run(3.0)
        again = self.open("alice", self.at)
        self.assertEqual(value(self.do(again, "GET", "k")), "onetwo")
        states = {repr(dump(self.server(i).machine)) for i in self.cluster.ids}
        self.assertEqual(len(states), 1)

    def application(self, name: str) -> Any:
        return next(app for app in self.server(self.at).catalogue.applications if app.name == name)

    def test_server_stops_that_runs_out_of_memory_outside_of_execution(self) -> None:
        """A server stops that runs out of memory outside of execution, when STATUS, timers or clients that read on ask
        for the use of a quota or the events of a log: no turn is under way that could end with the exception."""
        self.application("chat").used = raising(MemoryError())
        self.assertRaises(MemoryError, self.server(self.at).status)
        self.cluster.run(0.01)
        self.assertFalse(self.cluster.is_running(self.at))

    def test_server_stops_that_runs_out_of_memory_when_it_looks_at_quotas(self) -> None:
        self.application("chat").used = raising(MemoryError())
        self.cluster.run(3.0)
        self.assertFalse(self.cluster.is_running(self.at))

    def test_sessions_expire_although_the_use_of_a_quota_cannot_be_told(self) -> None:
        """Sessions expire although the use of a quota cannot be told: one timer looks at both."""
        for i in self.cluster.ids:
            app: Any = next(app for app in self.server(i).catalogue.applications if app.name == "chat")
            app.used = raising(KeyError("x"))
        client = self.connect(self.at)
        self.answer(client.hello("alice", ttl_seconds=1))
        client.disconnect()
        self.cluster.run(8.0)
        self.assertTrue(self.flushLoggedErrors(KeyError))
        self.assertFalse(self.server(self.at).has_session("alice"))

    def test_server_stops_that_runs_out_of_memory_in_the_events_of_a_client(self) -> None:
        heard: list[Event] = []
        failures: list[Exception] = []
        subscription = self.server(self.at).event_feed.subscribe("LISTEN", 1, heard.append, failures.append, self.fail)
        subscription.pause()
        self.do(self.open("alice", self.at), "SAY", "hello")
        self.application("chat").events = raising(MemoryError())
        subscription.resume()
        self.cluster.run(0.01)
        self.assertEqual((self.cluster.is_running(self.at), heard), (False, []))
        self.assertEqual([*map(type, failures)], [MemoryError])

    def test_server_stops_that_runs_out_of_memory_in_a_question_while_the_disk_hangs(self) -> None:
        """A server whose disk hangs stops if it runs out of memory in a question, which is answered at once then, and
        in no turn."""
        client = self.open("alice", self.at)
        self.application("kv").query = raising(MemoryError())
        server = self.server(self.at)
        server.replica.turn.run(server.replica.turn.set_trouble, DiskTrouble.HANGS)
        self.cluster.run(0.01)
        self.assertRaises(MemoryError, client.look, "GET", "k")
        self.cluster.run(0.01)
        self.assertFalse(self.cluster.is_running(self.at))
