"""A plugin that makes no application is refused when a server makes it, with one line that says what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pfsb.applications.admission import refuse_wrong_application
from pfsb.applications.application import Application, has_snapshot
from pfsb.applications.catalogue import catalogue_of_plugins
from pfsb.applications.interfaces import (
    PENDING,
    BadRequest,
    CommandDescription,
    Done,
    Event,
    IEventLog,
    IFrozenState,
    IPlainChecker,
    IQuotaUser,
    IRunExecutor,
    Refused,
)


class Counter:
    """An application that is right, although it does not derive from the base class `Application`."""

    name = "counter"
    commands: Any = (
        CommandDescription("COUNT", "COUNT by [as=NAME]", "Count.", example="COUNT 2"),
        CommandDescription("SHOW", "SHOW", "Show.", changes=False),
    )

    def __init__(self) -> None:
        self.count = 0

    def check(self, command: Any) -> Any:
        return command if command[0] == "SHOW" else ("COUNT", int(command[1]))

    def execute(self, command: Any, context: Any) -> Any:
        self.count += command[1]
        return Done((("count", self.count),))

    def query(self, command: Any) -> Any:
        return Done((("count", self.count),))

    def session_ended(self, client_id: str, context: Any) -> Any: ...

    def time_passed(self, context: Any) -> Any: ...

    def next_deadline(self) -> Any:
        return None

    def snapshot(self) -> Any:
        return str(self.count).encode()

    def restore(self, data: bytes) -> Any:
        self.count = int(data)


@implementer(IFrozenState)
class Frozen(Counter):
    """A `Counter` with a frozen state: a piece for each digit of the count, and an empty one at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.digits = ""
        self.is_whole = False

    def freeze(self) -> Any:
        return iter([*[digit.encode() for digit in str(self.count)], b""])

    def take_piece(self, data: bytes) -> Any:
        self.digits += data.decode()
        self.is_whole = not data

    def pieces_end(self) -> Any:
        if not self.is_whole:
            raise ValueError("no end")
        self.count = int(self.digits)


def changed(*bases: type, **members: Any) -> Callable[[], Any]:
    return type("Changed", bases if Frozen in bases else (*bases, Counter), members)


class AdmissionTests(SynchronousTestCase):
    def refusal(self, make: Callable[[], Any]) -> str:
        text = str(self.assertRaises(BadRequest, refuse_wrong_application, make(), make))
        self.assertTrue(text.startswith('the application "counter" cannot run: '), text)
        self.assertTrue(text.isprintable(), text)
        return text

    def test_right_application_is_taken(self) -> None:
        refuse_wrong_application(Counter(), Counter)

    def test_applications_of_pfsb_are_right(self) -> None:
        self.assertEqual(len(catalogue_of_plugins(["chat", "lock", "kv", "instances"]).applications), 4)

    def test_missing_method_and_other_arguments_are_told(self) -> None:
        for name in (
            "check",
            "execute",
            "query",
            "session_ended",
            "time_passed",
            "next_deadline",
            "snapshot",
            "restore",
        ):
            self.assertIn(f"it has no method {name} ", self.refusal(changed(**{name: None})))
        self.assertIn("execute must take 2 arguments", self.refusal(changed(execute=lambda self, command: None)))
        self.assertIn("snapshot must take 0 arguments", self.refusal(changed(snapshot=lambda self, more: b"")))

    def test_application_may_lack_snapshot_and_restore_together(self) -> None:
        """An application may lack both snapshot and restore: its servers take no snapshots then. One that gives its
        state in pieces needs both for a change to a new version."""
        bare = changed(snapshot=None, restore=None)
        refuse_wrong_application(bare(), bare)
        inherited = type("Inherited", (Application,), {"name": "inherited"})({})
        self.assertEqual([has_snapshot(each) for each in (Counter(), bare(), inherited)], [True, False, False])
        self.assertIn("it has no method snapshot", self.refusal(changed(Frozen, snapshot=None, restore=None)))

    def test_commands_are_descriptions(self) -> None:
        for wrong in (None, "COUNT", ["COUNT"], [("COUNT", "COUNT", "Count.")], {"COUNT": 1}):
            self.assertIn("they are CommandDescriptions", self.refusal(changed(commands=wrong)))
        self.assertIn("twice", self.refusal(changed(commands=(*Counter.commands, Counter.commands[0]))))

    def test_version_is_a_number(self) -> None:
        for wrong in (0, "1", None, True):
            self.assertIn("its version is", self.refusal(changed(version=wrong)))

    def test_results_of_wrong_types_are_told_with_the_verb(self) -> None:
        for wrong in (None, {"count": 1}, "OK", 5, Done(((1, 2),)), Done((("a b", 2),)), Done((("a", 1.5),))):  # type: ignore[arg-type]
            self.assertIn(
                "COUNT is answered with", self.refusal(changed(execute=lambda self, c, x, wrong=wrong: wrong))
            )
            self.assertIn("SHOW is answered with", self.refusal(changed(query=lambda self, c, wrong=wrong: wrong)))
        self.assertIn("a Done or a Refused", self.refusal(changed(query=lambda self, c: Refused("two words", "no"))))

    def test_only_a_verb_that_waits_may_be_answered_later(self) -> None:
        pending = changed(execute=lambda self, command, context: PENDING)
        self.assertIn("does not say waits=True", self.refusal(pending))
        waits = (CommandDescription("COUNT", "COUNT by", "Count.", waits=True, example="COUNT 2"),)
        make = changed(execute=lambda self, command, context: PENDING, commands=waits)
        refuse_wrong_application(make(), make)

    def test_command_that_cannot_be_ordered_is_told(self) -> None:
        for wrong in (None, "COUNT", ["COUNT", 1], (), ("COUNT", 1.5), ("COUNT", True), ("OTHER",), ("COUNT", 2**70)):
            self.assertIn("check has returned", self.refusal(changed(check=lambda self, c, wrong=wrong: wrong)))

    def test_state_goes_through_the_snapshot(self) -> None:
        self.assertIn("returns a str", self.refusal(changed(snapshot=lambda self: str(self.count))))
        self.assertIn("gives another state", self.refusal(changed(restore=lambda self, data: None)))

        def fail(self: Any) -> bytes:
            raise NotImplementedError("no snapshot\nhere")

        self.assertIn("NotImplementedError: no snapshot here", self.refusal(changed(snapshot=fail)))

    def test_frozen_state_is_tried(self) -> None:
        """The check takes a frozen state: it must stay as it was while a command is executed, and another application
        must be made from it."""
        refuse_wrong_application(Frozen(), Frozen)

        def live(self: Any) -> Any:
            for place in range(len(str(self.count))):
                yield str(self.count)[place].encode()
            yield b""

        def fail(self: Any) -> Any:
            raise ZeroDivisionError

        for members, told in (
            ({"freeze": None}, "it has no method freeze (pfsb.applications.interfaces.IFrozenState)"),
            ({"take_piece": lambda self: None}, "its method take_piece must take 1 argument"),
            ({"freeze": lambda self: iter(["text"])}, "a piece is bytes"),
            ({"freeze": lambda self: iter([bytes(16 * 1_048_576 + 1)])}, "a piece is bytes, 16777216 of them at most"),
            ({"freeze": live}, "freeze() makes other pieces if commands are executed while they are taken"),
            ({"freeze": fail}, "freeze() fails: ZeroDivisionError"),
            ({"take_piece": lambda self, data: None, "pieces_end": lambda self: None}, "gives another state"),
            ({"pieces_end": lambda self: setattr(self, "count", int(self.digits or 0))}, "that a piece is missing"),
            ({"pieces_end": fail}, "take_piece() or pieces_end() fails: ZeroDivisionError"),
        ):
            self.assertIn(told, self.refusal(changed(Frozen, **members)))

    def test_deadline_is_a_number_or_none(self) -> None:
        for wrong in (1.5, "1", True):
            self.assertIn("next_deadline()", self.refusal(changed(next_deadline=lambda self, wrong=wrong: wrong)))

    def test_exception_is_no_reason_to_refuse(self) -> None:
        """An application whose method raises an exception is not refused: a running cluster goes on after such an
        exception, so a server must be able to start with the application."""

        def fail(self: Any, *_: Any) -> Any:
            raise ZeroDivisionError

        for name in ("check", "execute", "query", "session_ended", "time_passed", "next_deadline"):
            make = changed(**{name: fail})
            refuse_wrong_application(make(), make)

    def test_fault_of_the_machine_is_passed_on(self) -> None:
        """A fault of the machine, such as a lack of memory, is not taken for a mistake of the application: this server
        alone would refuse a change of the setting `apps` that all others take."""

        def fail(self: Any, *_: Any) -> Any:
            raise MemoryError

        for name in ("check", "execute", "query", "session_ended", "next_deadline", "snapshot", "restore"):
            make = changed(**{name: fail})
            self.assertRaises(MemoryError, refuse_wrong_application, make(), make)

    def test_exception_after_which_no_server_goes_on_is_told(self) -> None:
        """An application whose exception in `used`, `length` or `events` is no fault of the machine is refused, with
        the text of the exception. It once passed as an exception of the check, and a change of the settings then
        stopped every server."""

        def fail(self: Any, *_: Any) -> Any:
            raise ZeroDivisionError("no\nnumber")

        verbs = [CommandDescription(verb, verb, "Follow.", changes=False) for verb in ("FOLLOW", "UNFOLLOW")]
        log = {"commands": (*Counter.commands, *verbs), "listen_verb": "FOLLOW", "length": lambda self: 0}
        for interface, members, told in (
            (IQuotaUser, {"quota": "kv_bytes", "used": fail}, "used() fails: ZeroDivisionError: no number"),
            (IEventLog, {**log, "length": fail, "events": fail}, "length() fails: ZeroDivisionError"),
            (IEventLog, {**log, "events": fail}, "events() fails: ZeroDivisionError"),
            (IEventLog, {}, "AttributeError: "),
            (IRunExecutor, {}, "AttributeError: "),
        ):
            self.assertIn(told, self.refusal(implementer(interface)(changed(**members))))

    def test_optional_interfaces_are_checked(self) -> None:
        log = implementer(IEventLog)(changed(listen_verb="FOLLOW", length=lambda self: 0, events=lambda self, a, b: ()))
        self.assertIn("does not describe its verb FOLLOW", self.refusal(log))
        verbs = [CommandDescription(verb, verb, "Follow.", changes=False) for verb in ("FOLLOW", "UNFOLLOW")]
        for members, told in (
            ({"length": lambda self: None}, "length() returns None"),
            ({"events": lambda self, a, b: ["x"]}, "each is an Event"),
            ({"events": lambda self, a, b: [Event("two words")]}, "which is no word"),
        ):
            given = {"listen_verb": "FOLLOW", "length": lambda self: 0, "events": lambda self, a, b: (), **members}
            self.assertIn(
                told, self.refusal(implementer(IEventLog)(changed(commands=(*Counter.commands, *verbs), **given)))
            )
        user = implementer(IQuotaUser)(changed(quota="kv_bytes", used=lambda self: "5"))
        self.assertIn("used() an int", self.refusal(user))
        runs = implementer(IRunExecutor)(changed(run_verbs=("OTHER",), execute_run=lambda self, c, x: False))
        self.assertIn("run_verbs has OTHER", self.refusal(runs))
        plain = implementer(IPlainChecker)(changed(plain_words={"COUNT": 0}, check_plain=lambda self, v, c: None))
        self.assertIn("plain_words has 0 for COUNT", self.refusal(plain))
