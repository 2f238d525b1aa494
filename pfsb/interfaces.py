"""The seams of pfsb: what one layer may ask of another, and the values that cross.

Imports run downward (frontends -> sessions -> paxos), so whatever the lower layer needs from a
higher one, or from the outside world, is named here as an interface and handed to it when it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from pfsb.paxos.messages import Batch, ClientUpdate, Message
    from pfsb.paxos.records import Record, Recovered

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


# ---------------------------------------------------------------------------------------------
# Below the protocol: disk and network
# ---------------------------------------------------------------------------------------------


class IStableStorage(Interface):
    """What a server will still know after power loss."""

    def recover() -> Recovered:
        """Read what is there (an empty directory is initialised). Called once, before anything else.

        Raises `StorageRefused` with one clear line rather than return anything doubtful.
        """

    def append(record: Record) -> None:
        """Take a record into the next group. Nothing is written yet."""

    def sync(durable: Callable[[], None]) -> None:
        """Write all records appended so far, as one group with whatever else waits by then.

        `durable` is called in the reactor, in the order of the calls, when they are on disk. `sync` does not wait for a
        disk; who has none may call before it returns.
        """

    def read_history(first: int, last: int, bytes_max: int, found: Callable[[list[tuple[int, Batch]]], None]) -> None:
        """Ordered batches of the slots first..last (inclusive), at least one, then up to `bytes_max`.

        `found` is called in the reactor, later, with consecutive (seq, batch) from `first` on; with an
        empty list if `first` is not known as ordered here.
        """

    def close() -> None:
        """Write what waits and let go of the files. Idempotent."""


class StorageRefused(Exception):
    """The data directory cannot be used; the text is one line for a person."""


class IFrameReceiver(Interface):
    """What a transport tells the server above it."""

    def receive(sender: int, identity: bytes, messages: Sequence[Message]) -> None:
        """Messages of one well-formed frame of this cluster."""

    def peer_refused(server_id: int) -> None:
        """The address of that server has just refused a frame: most likely nobody is there."""


class ITransport(Interface):
    """Frames between servers: may lose, delay, duplicate and reorder them, never corrupt them."""

    def start(receiver: IFrameReceiver, identity: bytes, incarnation: int) -> None:
        """Begin to receive. `identity` and `incarnation` are those of this server's storage."""

    def send(messages: Sequence[Message], to: int | None) -> None:
        """Send to one server, or to all others (None), in as few frames as possible. Never raises, never blocks."""

    def stop() -> Any:
        """Stop; returns None or a Deferred."""


class IStateMachine(Interface):
    """What the ordered update queue drives: sessions, and the applications behind them."""

    def execute(seq: int, time_ms: int, updates: Sequence[ClientUpdate]) -> None:
        """Run, in order, the updates of slot `seq` that have not run before (Figure 11 C).

        `time_ms` is the state machine's time; it never goes back.
        """

    def outlived(update: ClientUpdate) -> None:
        """The update was ordered beyond its horizon and did not run."""


class ITracer(Interface):
    """Takes the events of interface part 6."""

    def trace(event: str, **fields: Any) -> None:
        """Note one event, now."""


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
