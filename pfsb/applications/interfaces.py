"""The seam between sessions and applications: what each may ask of the other, and the values that cross."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import field, frozen
from zope.interface import Attribute, Interface

# ---------------------------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------------------------


class Word(str):
    """A value that pfsb itself made (a state, a hash): printed bare, where user text is quoted."""

    __slots__ = ()


Value = int | str
"""What stands in a reply: an int or a `Word` is printed as it is, any other str is a user's text."""

Fields = tuple[tuple[str, Value], ...]


@frozen
class Done:
    """The command ran (or the question was answered)."""

    fields: Fields = ()
    rows: tuple[Fields, ...] = ()


@frozen
class Refused:
    """The command was not carried out; `fate` says what became of it: none, unknown or done."""

    code: str
    text: str
    fate: str = "none"


Result = Done | Refused


class _Pending:
    """Returned by `execute` for a command whose answer comes later, by `IContext.complete`."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()

Answer = Callable[[Result], None]
"""Called exactly once, in the reactor, when the answer may leave the server."""


class BadRequest(ValueError):
    """What a person asked for cannot be asked; the text says what would be right."""

    def __init__(self, text: str, code: str = "BADREQUEST") -> None:
        super().__init__(text)
        self.code = code


# ---------------------------------------------------------------------------------------------
# Applications
# ---------------------------------------------------------------------------------------------

Command = tuple[Any, ...]
"""(verb, argument, ...) as checked by the application: str and int only, so that it can be encoded."""

Ticket = tuple[str, int]
"""(client id, command number): which command an answer belongs to."""


@frozen
class CommandDescription:
    """One verb of an application, as HELP prints it."""

    verb: str
    usage: str
    help: str
    changes: bool = True
    """True: ordered, run once. False: a question; `query` answers it, at any read level."""
    rest_of_line: bool = False
    """True: what follows the verb, spaces included, is one argument (unless it is one JSON string)."""
    waits: bool = False
    """True: the answer may come much later, and out of order (LOCK)."""


@frozen
class Event:
    """Something that clients are told without having asked just then: `* NAME name=value ...`."""

    name: str
    fields: Fields = ()


class IContext(Interface):
    """What an application may know and do while it executes one command."""

    revision = Attribute("int: the count of commands executed so far, this one included")
    time_ms = Attribute("int: the state machine's time, milliseconds since 1970; never goes back")
    session = Attribute("str: the client id of the session that the command belongs to")
    ticket = Attribute("Ticket of the command that is being executed")

    def complete(ticket: Ticket, result: Result) -> None:
        """Answer an earlier command that returned PENDING."""


class IReplicatedApplication(Interface):
    """A deterministic state machine: the same commands in the same order give the same state.

    No clock, no random number, no float, no set order, no input or output in `execute`.
    """

    name = Attribute("str: the name in the configuration's `apps`")
    commands = Attribute("Sequence[CommandDescription]")

    def check(command: tuple[str, ...]) -> Command:
        """Check and normalise what a person typed: (VERB, argument, ...), before it is ordered.

        Raises `BadRequest` with a sentence that says what would be right.
        """

    def execute(command: Command, context: IContext) -> Any:
        """Run a command that changes something; return a `Result` or `PENDING`."""

    def query(command: Command) -> Result:
        """Answer a question; changes nothing."""

    def session_ended(client_id: str, context: IContext) -> None:
        """A session closed or expired: let go of what it held."""

    def time_passed(context: IContext) -> None:
        """The state machine's time has moved: end the waits whose deadline has come."""

    def next_deadline() -> int | None:
        """The earliest time_ms at which `time_passed` would do something, or None."""

    def snapshot() -> bytes:
        """The whole state, the same bytes on every server."""

    def restore(data: bytes) -> None:
        """Take the state of a snapshot; the present one is forgotten."""


class IEventLog(Interface):
    """An application that keeps an ordered log which clients can follow (chat)."""

    listen_verb = Attribute("str: the verb that follows the log (LISTEN); `UN` + it stops")

    def length() -> int:
        """How many events there are: they are numbered 1 to length."""

    def events(first: int, limit: int) -> Sequence[Event]:
        """Up to `limit` events, from number `first` on."""


class IApplicationMaker(Interface):
    """A plugin: names an application without importing it."""

    name = Attribute("str")
    help = Attribute("str: one sentence")

    def make() -> IReplicatedApplication:
        """Import and build it."""


def _ascii(_instance: object, _attribute: object, value: str) -> None:
    if not value.isidentifier():
        raise ValueError(f"{value!r} is no name for an application: letters, digits and _ only")


@frozen
class ApplicationMaker:
    """An `IApplicationMaker` for `module` with the attribute `factory`; the plugin file declares it as such."""

    name: str = field(validator=_ascii)
    help: str
    module: str
    factory: str

    def make(self) -> Any:
        from twisted.python.reflect import namedAny

        return namedAny(f"{self.module}.{self.factory}")()
