"""The interfaces between sessions and applications, and the values that cross them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import field, frozen
from zope.interface import Attribute, Interface

# ---------------------------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------------------------


class Word(str):
    """A text in a reply that pfsb itself has made (a state, a hash): front ends print it without quotes."""

    __slots__ = ()


Value = int | str
"""A value in a reply: an int or a `Word` is printed as it is, any other str is a user's text and printed in quotes."""

Fields = tuple[tuple[str, Value], ...]


@frozen
class Done:
    """The result of a command that ran, or of a question that was answered."""

    fields: Fields = ()
    rows: tuple[Fields, ...] = ()


@frozen
class Refused:
    """The result of a command that was refused.

    `fate` says whether the command took effect: "none" (it did not, and will not), "unknown", or "done" (it did, and
    only its result is missing).
    """

    code: str
    text: str
    fate: str = "none"


Result = Done | Refused


class _Pending:
    """The type of `PENDING`: what `execute` returns for a command whose answer comes later, by `IContext.complete`."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()

Answer = Callable[[Result], None]
"""Call-back of a front end that takes the result of one command or question.

The sessions, or the front end where it answers by itself, call it once, in the thread of the reactor, when the client
may be told of the result. They do not call it if the client's connection ends before.
"""


class BadRequest(ValueError):
    """A request that is wrong in every state of the server; the text says what would be right."""

    def __init__(self, text: str, code: str = "BADREQUEST") -> None:
        super().__init__(text)
        self.code = code


# ---------------------------------------------------------------------------------------------
# Applications
# ---------------------------------------------------------------------------------------------

Command = tuple[Any, ...]
"""(verb, argument, ...) as the application's `check` has normalised it: str and int only, so that it can be encoded."""

Ticket = tuple[str, int]
"""(client id, command number) of the command that an answer belongs to."""


@frozen
class CommandDescription:
    """One verb of an application, as HELP prints it."""

    verb: str
    usage: str
    help: str
    changes: bool = True
    """True for a command that is ordered and run once; False for a question, which `query` answers."""
    rest_of_line: bool = False
    """True if all that follows the verb, spaces included, is one argument (unless it is one JSON string)."""
    waits: bool = False
    """True if the answer may come much later, after answers to later commands (LOCK)."""


@frozen
class Event:
    """A message to a client that answers no request; the line protocol prints it as `* NAME name=value ...`."""

    name: str
    fields: Fields = ()


class IContext(Interface):
    """The facts that an application may use in one call that changes its state, and the way to answer earlier commands.

    The call executes one command, ends a session, or tells of the time that has passed.
    """

    revision = Attribute("int: the count of commands executed so far, this one included")
    time_ms = Attribute("int: the state machine's time, milliseconds since 1970; never goes back")
    session = Attribute("str: the client id of the session that the command belongs to")
    ticket = Attribute("Ticket of the command that is being executed")

    def complete(ticket: Ticket, result: Result) -> None:
        """Answer the command with this ticket, which returned PENDING when it was executed."""


class IReplicatedApplication(Interface):
    """A deterministic state machine: the same commands in the same order give the same state and the same results.

    So `execute` may use no clock, random number or float, may not rely on the order of a set, and may do no input or
    output.
    """

    name = Attribute("str: the name in the configuration's `apps`")
    commands = Attribute("Sequence[CommandDescription]")

    def check(command: tuple[str, ...]) -> Command:
        """Check and normalise a command line, (VERB, argument, ...), before it is ordered.

        Raises `BadRequest` with a sentence that says what would be right.
        """

    def execute(command: Command, context: IContext) -> Any:
        """Run a command that changes something; return a `Result` or `PENDING`."""

    def query(command: Command) -> Result:
        """Answer a question from the present state, which stays as it is."""

    def session_ended(client_id: str, context: IContext) -> None:
        """Release all that session `client_id` held: called when the session was closed or has expired."""

    def time_passed(context: IContext) -> None:
        """Give the PENDING commands whose time limit has passed their results: called once the state machine's time has
        reached `next_deadline`."""

    def next_deadline() -> int | None:
        """The earliest time at which the time limit of a PENDING command passes, in milliseconds of the state machine's
        time; None if no PENDING command has a time limit."""

    def snapshot() -> bytes:
        """The whole state, encoded: equal bytes on all servers that have executed the same commands."""

    def restore(data: bytes) -> None:
        """Replace the state by that of a snapshot, which `snapshot` has made."""


class IEventLog(Interface):
    """An application with an ordered log that clients can follow (chat)."""

    listen_verb = Attribute("str: the verb that follows the log (LISTEN); `UN` + it stops")

    def length() -> int:
        """Number of events so far: they are numbered from 1 to this number."""

    def events(first: int, limit: int) -> Sequence[Event]:
        """At most `limit` events, in order, from number `first` on."""


class IApplicationMaker(Interface):
    """A plugin of Twisted that names one application, without importing the module of that application."""

    name = Attribute("str")
    help = Attribute("str: one sentence")

    def make() -> IReplicatedApplication:
        """Import the application's module, and build the application."""


def _ascii(_instance: object, _attribute: object, value: str) -> None:
    if not value.isidentifier():
        raise ValueError(f"{value!r} is no name for an application: letters, digits and _ only")


@frozen
class ApplicationMaker:
    """An `IApplicationMaker` that calls the attribute `factory` of `module`; the plugin file declares the interface."""

    name: str = field(validator=_ascii)
    help: str
    module: str
    factory: str

    def make(self) -> Any:
        from twisted.python.reflect import namedAny

        return namedAny(f"{self.module}.{self.factory}")()
