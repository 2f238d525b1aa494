"""Applications that throw dice: at one server they go wrong by chance, and so this server differs from the others.

A server cannot see that its own application is wrong. The results of commands go into the digest of its history, and
the servers compare digests (Departure 40).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from attrs import define

from pfsb.applications.interfaces import PENDING, Command, Counters, Done, IContext, Refused, Value, Word

CUT_RUN_MIN: Final = 3
"""Minimum number of commands in a run of which the last one may be left out: what is left must be a run, too."""

WAYS: Final = ("told otherwise", "another command", "nothing", "fails at once", "fails late")
"""The ways in which a command goes wrong: its result is told otherwise, another command is executed in its place,
nothing is, or the application raises an exception before or after it has executed the command."""

Execute = Callable[[Command, IContext], Any]
ExecuteRun = Callable[[Sequence[Command], IContext], bool | Counters]


class ThrewDice(Exception):
    """Raised by an application that fails at one server only."""


@define(eq=False)
class Dice:
    """The dice that the applications of one server throw before each command, and the ways in which they go wrong."""

    rng: random.Random
    chance: float
    """Chance that a command goes wrong, from 0 to 1."""
    is_lasting: bool
    """Whether the applications are wrong after each start of the server, as a wrong program is; otherwise only until
    the server stops, as after an error of memory."""
    ways: Sequence[str] = WAYS
    """The ways in which commands go wrong, of which the dice draw one each time."""
    is_over: bool = False
    """Whether the applications go wrong no more. Their wrong state of before stays."""

    def load(self, process: Any, on_error: Callable[[], None]) -> None:
        """Let the applications of a server, a `ServerProcess`, throw these dice from now on.

        `on_error` is called each time that a command goes wrong. The server does not log that an application has failed
        by the dice: an error in the log ends a run.
        """
        machine = process.server.machine
        machine.stop_unless_alike = partial(_stop_unless_alike, machine.stop_unless_alike)
        for application in process.server.catalogue.chosen:
            application.execute = partial(self._execute, application.execute, on_error)
            if hasattr(application, "execute_run"):
                application.execute_run = partial(self._execute_run, application.execute_run, on_error)
            application.session_ended = partial(self._leave_out, application.session_ended, on_error)
            application.time_passed = partial(self._leave_out, application.time_passed, on_error)

    def _falls(self) -> bool:
        return not self.is_over and self.rng.random() < self.chance

    def _execute(self, execute: Execute, on_error: Callable[[], None], command: Command, context: IContext) -> Any:
        if not self._falls():
            return execute(command, context)
        on_error()
        match self.rng.choice(self.ways):
            case "told otherwise":
                return _otherwise(execute(command, context))
            case "another command":
                return execute(self._another(command), context)
            case "nothing":
                return Done((("revision", context.revision),))
            case "fails at once":
                raise ThrewDice(f"{command[0]} has changed nothing")
        execute(command, context)
        raise ThrewDice(f"{command[0]} may have changed something")

    def _execute_run(
        self, execute_run: ExecuteRun, on_error: Callable[[], None], commands: Sequence[Command], context: IContext
    ) -> bool | Counters:
        way = self.rng.choice(self.ways) if self._falls() else ""
        if way == "told otherwise":
            on_error()
            counters = execute_run(commands, context)
            return tuple((name, first + 1) for name, first in counters) if isinstance(counters, tuple) else counters
        if way == "another command":
            on_error()
            place = self.rng.randrange(len(commands))
            return execute_run([*commands[:place], self._another(commands[place]), *commands[place + 1 :]], context)
        if way == "nothing" and len(commands) >= CUT_RUN_MIN:
            on_error()
            return execute_run(commands[:-1], context)
        return execute_run(commands, context)

    def _leave_out(self, function: Callable[..., None], on_error: Callable[[], None], *args: Any) -> None:
        """Call a method of an application that returns nothing, unless the dice fall."""
        if self._falls() and self.rng.choice(self.ways) == "nothing":
            on_error()
        else:
            function(*args)

    def _another(self, command: Command) -> Command:
        """A command of the same verb with another key, value, text or name."""
        kinds = (bytes,) if command[0] == "IF" else (bytes, str)  # the texts of an IF are verbs
        places = [place for place, word in enumerate(command) if place and type(word) in kinds]
        if not places:
            return command
        place = self.rng.choice(places)
        return (*command[:place], _other(command[place]), *command[place + 1 :])


def _stop_unless_alike(stop_unless_alike: Callable[[Exception, str], None], error: Exception, what: str) -> None:
    if not isinstance(error, ThrewDice):
        stop_unless_alike(error, what)


def _otherwise(result: Any) -> Any:
    """Another result than this one, of a kind that an application may return."""
    if result is PENDING:
        return Refused("TIMEOUT", "the lock was not free in time")
    if isinstance(result, Refused):
        return Refused("CONFLICT" if result.code == "NOTFOUND" else "NOTFOUND", result.text)
    (name, value), *others = result.fields or (("value", 0),)
    return Done(((name, _other(value)), *others), result.rows)


def _other(value: Value) -> Value:
    match value:
        case int():
            return value + 1
        case bytes():
            return value + b"!"
        case Word():
            return Word(f"{value}!")
    return f"{value}!"
