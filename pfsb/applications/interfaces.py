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
    """A value that pfsb itself has made (a state, a hash). Front ends print it bare, and quote texts of users."""

    __slots__ = ()


Value = int | str
"""A value in a reply: an int or a `Word` is printed as it is, any other str is a user's text."""

Fields = tuple[tuple[str, Value], ...]


@frozen
class Done:
    """The result of a command that ran, or of a question that was answered."""

    fields: Fields = ()
    rows: tuple[Fields, ...] = ()


@frozen
class Refused:
    """The result of a command that was refused. `fate` says what became of it: none, unknown or done."""

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
    """A request that cannot be carried out, in any state; the text says what would be right."""

    def __init__(self, text: str, code: str = "BADREQUEST") -> None:
        super().__init__(text)
        self.code = code


# ---------------------------------------------------------------------------------------------
# Applications
# ---------------------------------------------------------------------------------------------

Command = tuple[Any, ...]
"""(verb, argument, ...) as checked by the application: str and int only, so that it can be encoded."""

Ticket = tuple[str, int]
"""(client id, command number) of the command that an answer belongs to."""


@frozen
class CommandDescription:
    """One verb of an application, as HELP prints it."""

    verb: str
    usage: str
    help: str
    changes: bool = True
    """True: the command is ordered, and run once. False: it is a question, which `query` answers at any read level."""
    rest_of_line: bool = False
    """True: everything behind the verb, spaces included, is one argument (unless it is one JSON string)."""
    waits: bool = False
    """True: the answer may come much later, and out of order (LOCK)."""


@frozen
class Event:
    """A message to clients that is no reply: `* NAME name=value ...`."""

    name: str
    fields: Fields = ()


class IContext(Interface):
    """The knowledge and the abilities of an application while it executes one command."""

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
    version = Attribute("int: the version of its commands' results and of its snapshot, from 1 on")
    commands = Attribute("Sequence[CommandDescription]")

    def check(command: tuple[str, ...]) -> Command:
        """Check and normalise a command line, (VERB, argument, ...), before it is ordered.

        Raises `BadRequest` with a sentence that says what would be right.
        """

    def execute(command: Command, context: IContext) -> Any:
        """Run a command that changes something; return a `Result` or `PENDING`."""

    def query(command: Command) -> Result:
        """Answer a question, without changing anything."""

    def session_ended(client_id: str, context: IContext) -> None:
        """A session was closed or has expired: release what it held."""

    def time_passed(context: IContext) -> None:
        """The state machine's time has advanced: end the waits whose deadline has come."""

    def next_deadline() -> int | None:
        """The earliest time_ms at which `time_passed` would do something, or None."""

    def snapshot() -> bytes:
        """The whole state, the same bytes on every server."""

    def restore(data: bytes) -> None:
        """Replace the state by that of a snapshot."""


class IEventLog(Interface):
    """An application with an ordered log that clients can follow (chat)."""

    listen_verb = Attribute("str: the verb that follows the log (LISTEN); `UN` + it stops")

    def length() -> int:
        """How many events there are: they are numbered 1 to length."""

    def events(first: int, limit: int) -> Sequence[Event]:
        """Up to `limit` events, from number `first` on."""


class IApplicationMaker(Interface):
    """A plugin that names an application without importing it."""

    name = Attribute("str")
    help = Attribute("str: one sentence")
    versions = Attribute("Sequence[int]: the versions that it can make, ascending")

    def make(version: int) -> IReplicatedApplication:
        """Import that version and build it."""


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
    """Name in the module: a function without arguments, or, of several versions, with the version as its argument."""
    versions: Sequence[int] = (1,)

    def make(self, version: int) -> Any:
        from twisted.python.reflect import namedAny

        factory = namedAny(f"{self.module}.{self.factory}")
        return factory() if len(self.versions) == 1 else factory(version)
