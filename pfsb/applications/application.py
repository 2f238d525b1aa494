"""Application: the base class of all applications, with one table of verbs.

A command is checked twice. The rule of its verb runs once, at the server that was asked. The function of its verb runs
at every server, on a command that another version may have checked, so it relies only on the types that `runner` has
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType, MappingProxyType
from typing import Any

from attrs import frozen
from zope.interface import implementer

from pfsb.applications.arguments import Arguments, counted, quoted
from pfsb.applications.interfaces import (
    BadRequest,
    Command,
    CommandDescription,
    IContext,
    IReplicatedApplication,
    Refused,
    Result,
)

Types = tuple[type | EllipsisType, ...]


@frozen
class Verb:
    """One verb: the rule that takes its arguments apart, the types of the normalised command, and its function."""

    rule: Callable[[Arguments], Command]
    """Takes the arguments of a command line, and returns the normalised command or raises `BadRequest`. `check` calls
    it once for each line with this verb, at the server that was asked."""
    types: Types = ()
    """Types of all parts of the normalised command, the verb included. A trailing `...` repeats the type before it,
    which may be `object`, for parts of all types."""
    run: Callable[..., Any] | None = None
    """The function of the verb: it takes (command, context) if the verb changes something, else (command), and returns
    the answer, or PENDING. `execute` calls it once for each command at every server, and `query` at the server that was
    asked. None for a verb that the front end runs itself (LISTEN)."""


@implementer(IReplicatedApplication)
class Application:
    """Runs each command by the function of its verb.

    A subclass has a `name`, `commands`, `snapshot` and `restore`. One that depends on sessions overrides
    `session_ended`; one that depends on time, `time_passed` and `next_deadline`.
    """

    name: str
    version = 1
    commands: Sequence[CommandDescription] = ()
    work_in_rows: Mapping[str, Callable[[Command], int]] = MappingProxyType({})
    """Verb -> function that gives how much work a normalised command is, with the present state: the number of rows in
    the answer to a question, or of rows that would take as long. By these numbers front ends recognise large requests,
    and let them take turns. A verb that is missing here has only commands that are little work."""

    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self.verbs = verbs
        """Verb -> the types of its arguments and the methods that check and run it."""
        descriptions = {description.verb: description for description in self.commands}
        assert verbs.keys() == descriptions.keys(), "every verb is described, and every description has a verb"
        self._usages = {verb: description.usage for verb, description in descriptions.items()}
        self._changes = {verb: verbs[verb] for verb, description in descriptions.items() if description.changes}
        self._runs = _functions(self._changes)
        self._questions = {verb: verbs[verb] for verb, description in descriptions.items() if not description.changes}
        self._queries = _functions(self._questions)

    def check(self, command: tuple[str, ...]) -> Command:
        """Check a command line, (VERB, argument, ...) as text, and return it in the normalised form that is ordered.

        Raises `BadRequest`, whose text says what would be right, if the line is wrong.
        """
        verb = self.verbs.get(command[0]) if command else None
        if verb is None:
            known = ", ".join(sorted(self.verbs))
            raise BadRequest(f"{quoted(''.join(command[:1]))} is no command here (there are: {known})", "UNKNOWN")
        return verb.rule(Arguments(command, self._usages[command[0]]))

    def execute(self, command: Command, context: IContext) -> Any:
        """Run a command by the function of its verb, as `runner` finds it.

        Almost every command has exactly the types of its verb. These are compared here, since the call of `runner`
        would be a tenth of the cost of a PUT.
        """
        try:
            types, run = self._runs[command[0]]
        except (LookupError, TypeError):
            return not_understood(command)
        if tuple(map(type, command)) == types:
            return run(command, context)
        found = runner(self._changes, command)
        return not_understood(command) if found is None else found(command, context)

    def query(self, command: Command) -> Result:
        """Answer a question by the function of its verb, as `runner` finds it. The types are compared here, as
        `execute` does."""
        try:
            types, run = self._queries[command[0]]
        except (LookupError, TypeError):
            return not_understood(command)
        if tuple(map(type, command)) == types:
            answer: Result = run(command)
            return answer
        found = runner(self._questions, command)
        return not_understood(command) if found is None else found(command)

    def session_ended(self, client_id: str, context: IContext) -> None:
        """Do nothing: by default an application holds nothing for a session."""

    def time_passed(self, context: IContext) -> None:
        """Do nothing: by default no command of an application waits until a deadline, so there is no wait to end."""

    def next_deadline(self) -> int | None:
        return None

    def snapshot(self) -> bytes:
        """Raise `NotImplementedError`: an application that gives snapshots has this method of its own."""
        raise NotImplementedError(f"{type(self).__name__} has no snapshot(), which gives the whole state as bytes")

    def restore(self, data: bytes) -> None:
        """Raise `NotImplementedError`: an application that gives snapshots has this method of its own."""
        raise NotImplementedError(f"{type(self).__name__} has no restore(data), which takes what snapshot() has given")


def _functions(verbs: Mapping[str, Verb]) -> dict[str, tuple[Types, Callable[..., Any]]]:
    """Verb -> (types, function), for those of `verbs` that have a function."""
    return {verb: (found.types, found.run) for verb, found in verbs.items() if found.run is not None}


def runner(verbs: Mapping[str, Verb], command: Command) -> Callable[..., Any] | None:
    """Find the function of the verb of `command`; None if this version of the server cannot run the command.

    Another version may have checked the command. If this server raised an exception and other servers ran the command,
    their states would differ from then on, so a command that cannot be run is refused.
    """
    try:
        verb = verbs[command[0]]
    except (LookupError, TypeError):
        return None
    given = tuple(map(type, command))
    if given == verb.types or (verb.types and verb.types[-1] is ... and _repeats(given, verb.types)):
        return verb.run
    return None


def not_understood(command: Command) -> Refused:
    """The answer to a command for which `runner` finds no function."""
    verb = quoted(command[0]) if command and isinstance(command[0], str) else "a command without a verb"
    given = counted(max(len(command) - 1, 0), "argument")
    return Refused("BADREQUEST", f"this version of pfsb cannot run {verb} with {given} of these types")


def _repeats(given: tuple[type, ...], types: Types) -> bool:
    *fixed, repeated, _ = types
    rest = given[len(fixed) :]
    return given[: len(fixed)] == tuple(fixed) and bool(rest) and (repeated is object or {*rest} == {repeated})


def has_snapshot(application: Any) -> bool:
    """Whether an application can give its whole state, and take it again. If it cannot, neither method is there, or
    both are those of `Application`; then its servers take no snapshots, and keep their whole history."""
    cls = type(application)
    methods = getattr(application, "snapshot", None), getattr(application, "restore", None)
    are_inherited = isinstance(application, Application) and (
        cls.snapshot is Application.snapshot and cls.restore is Application.restore
    )
    return methods != (None, None) and not are_inherited
