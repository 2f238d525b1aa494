"""The machine on which authors test their applications (`pfsb.applications.testing`) finds what would make two servers
differ."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.chat import Chat
from pfsb.applications.interfaces import PENDING, BadRequest, Done
from pfsb.applications.key_value import KeyValue
from pfsb.applications.lock import Lock
from pfsb.applications.testing import Machine, WrongApplication
from tests.applications.test_admission import Counter, Frozen, changed


class RightApplicationTests(SynchronousTestCase):
    def test_commands_and_questions_are_answered(self) -> None:
        machine = Machine(KeyValue)
        self.assertEqual(machine.run("alice", "PUT", "a", "limit=1"), Done((("revision", 1),)))
        self.assertEqual(machine.ask("GET", "a"), Done((("value", b"limit=1"), ("revision", 1))))
        self.assertEqual(machine.ask("GET", "b").code, "NOTFOUND")
        self.assertRaises(BadRequest, machine.run, "alice", "PUT", "a")

    def test_waits_end_with_sessions_and_time(self) -> None:
        machine = Machine(Lock)
        machine.run("alice", "LOCK", "door")
        self.assertIs(machine.run("bob", "LOCK", "door"), PENDING)
        machine.end("alice")
        ((ticket, result),) = machine.take_completed()
        self.assertEqual((ticket, dict(result.fields)["name"]), (("bob", 2), "door"))
        self.assertEqual(machine.take_completed(), [])
        machine.pass_time(1)

    def test_every_application_of_pfsb_keeps_its_state_in_its_snapshot(self) -> None:
        machine = Machine(Chat)
        for n in range(3):
            machine.run("alice", "SAY", str(n))
        self.assertEqual(dict(machine.ask("LOG").fields)["count"], 3)


class WrongApplicationTests(SynchronousTestCase):
    def found(self, make: Any, *more: str) -> str:
        machine = Machine(make)

        def count() -> None:
            for _ in range(3):
                machine.run("alice", "COUNT", "2")

        return str(self.assertRaises(WrongApplication, count))

    def test_state_beside_the_snapshot_is_found(self) -> None:
        """An application with state that is not in its snapshot is found: a server that was started again would answer
        otherwise."""

        def execute(self: Any, command: Any, context: Any) -> Any:
            self.beside = getattr(self, "beside", 0) + 1
            return Done((("count", self.beside),))

        self.assertIn("restored from a snapshot answers", self.found(changed(execute=execute)))

    def test_chance_is_found(self) -> None:
        numbers = iter(range(100))
        make = changed(execute=lambda self, command, context: Done((("count", next(numbers)),)))
        self.assertIn("answers", self.found(make))

    def test_snapshot_that_depends_on_more_than_the_state_is_found(self) -> None:
        numbers = iter(range(100))
        self.assertIn("snapshot", self.found(changed(snapshot=lambda self: str(next(numbers)).encode())))

    def test_pieces_of_another_moment_are_found(self) -> None:
        """An application whose pieces show changes after the freeze is found: servers that execute at other times would
        have other pieces."""

        def freeze(self: Any) -> Any:
            yield str(self.count).encode()
            yield b""

        self.assertIn("freeze() makes other pieces", self.found(changed(Frozen, freeze=freeze)))

    def test_state_beside_the_pieces_is_found(self) -> None:
        def pieces_end(self: Any) -> None:
            Frozen.pieces_end(self)
            self.count -= self.count > 4

        self.assertIn("take_piece() gives another state", self.found(changed(Frozen, pieces_end=pieces_end)))

    def test_wrong_result_is_found(self) -> None:
        self.assertIn("a Done or a Refused", self.found(changed(execute=lambda self, command, context: None)))

    def test_right_one_passes(self) -> None:
        for make in (Counter, Frozen):
            machine = Machine(make)
            self.assertEqual(machine.run("alice", "COUNT", "22"), Done((("count", 22),)))
            self.assertEqual(machine.ask("SHOW"), Done((("count", 22),)))
