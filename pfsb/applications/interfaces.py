"""The interfaces between sessions and applications, and the values that cross them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Final, Protocol, overload

from attrs import define, field, frozen
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface, implementer

from pfsb.applications.names import is_application_name
from pfsb.support.rights import Right
from pfsb.support.values import value

# ---------------------------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------------------------


class Word(str):
    """A text in a result that is not a user's (a state, a hash): the line front end prints it without quotes."""

    __slots__ = ()


Value = int | str | bytes
"""A value in a result: the line front end prints an int or a `Word` as it is, and a user's text (any other str) or a
user's bytes in quotes. Bytes are shown as the text that they are in UTF-8, and others by an escape
(`pfsb.applications.arguments.text_of`)."""

Fields = tuple[tuple[str, Value], ...]


@value
class Done:
    """The result of a command that ran, or of a question that was answered."""

    fields: Fields = ()
    rows: tuple[Fields, ...] = ()


@define
class GrowingBytes:
    """A value that commands only add to (APPEND), and that many answers show, each as the value was when the answer was
    made.

    An earlier state of the value is the beginning of its present one. So an answer is kept as a length, and made anew
    when a client asks for it again. If each answer were kept whole, one client that adds a few bytes at a time to a
    value of a megabyte would fill the memory of all servers.
    """

    data: bytes = b""
    """The value as it is now. It is only replaced by a longer one, which begins with it."""
    kept: int = 0
    """Number of answers kept in reply caches whose value is the beginning of this value."""
    counted: int = 0
    """Number of bytes at the beginning of this value that are counted as memory which the kept answers occupy."""
    key: bytes = b""
    """The key whose value this is, or was; the application that made this object has set it (`IGrowingValues`)."""


class DoneGrowing(Done):
    """A result whose first field is a value that may grow: the beginning of `growing`, as long as it was when the
    result was made.

    The first field is made anew whenever a caller looks at `fields`. So results that wait for a disk or for a client
    take no memory for their values, of which each of many small APPENDs to a large value has another one.
    """

    __slots__ = ("growing", "name", "others", "size")

    def __init__(self, fields: Fields, growing: GrowingBytes | None = None) -> None:
        """`fields` are the fields of the result. The value of the first one is the beginning of the value in `growing`.
        None: `growing` is made here, and has just that value."""
        (name, first), *others = fields
        assert isinstance(first, bytes), "the value that grows is the first field"
        set_once = partial(object.__setattr__, self)
        set_once("growing", GrowingBytes(first) if growing is None else growing)
        set_once("name", name)
        set_once("size", len(first))
        set_once("others", tuple(others))
        set_once("rows", ())

    growing: GrowingBytes
    name: str
    """The name of the first field."""
    size: int
    """Number of bytes of the value of the first field."""
    others: Fields
    """All fields but the first."""

    @property
    def fields(self) -> Fields:
        return ((self.name, self.growing.data[: self.size]), *self.others)


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


Counters = tuple[tuple[str, int], ...]
"""Fields of the results of a run whose values count up: the name of each, and its value for the first command."""

Columns = tuple[tuple[str, range], ...]
"""The fields of the results of a run, field by field: (name, values), with one value for each command of the run, in
order. Only results whose fields all count up by one from each command to the next, as revisions do, are told so."""


class RunResults(Sequence[Done]):
    """The results of a run, whose commands were executed together: the values of each field count up by one from each
    command to the next, and the revision is the last field.

    A single result is only made when a caller asks for it. Callers on the way of usual commands take `columns` instead,
    and so handle the results of all commands in one step.
    """

    __slots__ = ("counted", "revisions")

    def __init__(self, revisions: range, counted: Columns = ()) -> None:
        """`revisions` has the revision of each command, in order: they follow each other. `counted` has the other
        fields, in order: (name, the values of this field for the commands), where the values count up by one, too.
        """
        self.revisions = revisions
        self.counted = counted
        """The columns (`Columns`) of all fields but the revision; empty for almost every run."""

    @classmethod
    def of(cls, revisions: range, counters: Counters) -> RunResults:
        """The results of a run with these revisions, in which the fields `counters` come before the revision."""
        return cls(revisions, tuple([(name, range(first, first + len(revisions))) for name, first in counters]))

    @property
    def columns(self) -> Columns:
        """The fields of all results, field by field, the revision last: pairs (name of the field, its values: one for
        each command, in order).
        """
        return (*self.counted, ("revision", self.revisions))

    def fields(self) -> Iterator[Fields]:
        """Yield the fields of each result, in the order of the commands."""
        return zip(*[zip(repeat(name), values) for name, values in self.columns], strict=False)

    def __len__(self) -> int:
        return len(self.revisions)

    @overload
    def __getitem__(self, index: int) -> Done: ...

    @overload
    def __getitem__(self, index: slice) -> RunResults: ...

    def __getitem__(self, index: int | slice) -> Done | RunResults:
        counted = self.counted
        if isinstance(index, slice):
            return RunResults(self.revisions[index], counted and tuple([(name, each[index]) for name, each in counted]))
        revision = ("revision", self.revisions[index])
        return Done((*[(name, each[index]) for name, each in counted], revision) if counted else (revision,))

    def __iter__(self) -> Iterator[Done]:
        return map(Done, self.fields())

    def __repr__(self) -> str:
        return f"RunResults({self.columns})"


class _Pending:
    """The type of `PENDING`, the object that `execute` returns for a command whose answer comes later, by
    `IContext.complete`.
    """

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
"""(verb, argument, ...) as the application's `check` has normalised it: str, int and bytes only, so that it can be
encoded."""

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
    example: str = ""
    """A whole command, as HELP shows it; empty: HELP shows the usage without its optional parts."""
    shrinks: bool = False
    """True if the command makes the state smaller, or leaves it as large as it is (DEL): a server that is short of
    memory still takes it."""
    inner_at: int = 0
    """Index in the normalised command at which the verb of another command stands that this one runs (IF); 0: it runs
    none. If that other command `shrinks`, so does this one."""
    needs_session: bool = False
    """True if the effect of the command belongs to the session that it runs in (TRYLOCK, UNLOCK): a front end whose
    clients may have no session of their own refuses it without one. A command that waits is treated so anyway."""
    right: Right = field()
    """The right that a client needs for this command. Unless it is given: `Right.WRITE` for a command that changes
    something, and `Right.READ` for a question."""

    right_with_arguments: Right | None = None
    """The right that a client needs if anything stands behind the verb (SERVERS); None: `right`. Only for commands of
    the line protocol itself."""

    @right.default
    def _usual_right(self) -> Right:
        return Right.WRITE if self.changes else Right.READ

    def right_for(self, *, has_arguments: bool) -> Right:
        """The right that a client needs for this command, with or without anything behind the verb."""
        other = self.right_with_arguments
        return other if has_arguments and other is not None else self.right


@frozen
class Event:
    """A message to a client that answers no request; the line protocol prints it as `* NAME name=value ...`."""

    name: str
    fields: Fields = ()


class Quotas(Protocol):
    """The quotas of the replicated state: settings that all servers share, with the values in force.

    They bound what clients can make the servers keep. A command that would make the state grow beyond a quota is
    refused. A command by which the state shrinks, or keeps its size, is not refused: so a quota may be set lower than
    what is in use.
    """

    @property
    def value_bytes(self) -> int:
        """Maximum bytes of one value, or bytes of UTF-8 of one text."""

    @property
    def kv_bytes(self) -> int:
        """Maximum bytes of all keys and values of the key-value store."""

    @property
    def chat_bytes(self) -> int:
        """Maximum bytes of UTF-8 of all lines of the chat and the names of those who said them."""

    @property
    def instance_bytes(self) -> int:
        """Maximum number of bytes that all decided instances together may take, 64 for each beside its value."""

    @property
    def session_locks(self) -> int:
        """Maximum number of locks that one session holds or waits for."""


class IQuotaUser(Interface):
    """An application whose state as a whole has a quota."""

    quota = Attribute("str: the name of the quota, as the settings have it")

    def used() -> int:
        """How much of the quota is in use, in the unit of the quota. The number depends on the state alone, so it is
        equal at all servers that have executed the same commands."""


class IContext(Interface):
    """The facts that an application may use in one call that changes its state, and the way to answer earlier commands.

    The call executes one command, ends a session, or tells of the time that has passed.
    """

    revision = Attribute("int: the count of commands executed so far, this one included")
    time_ms = Attribute("int: the state machine's time in milliseconds; never goes back, and is no clock for people")
    session = Attribute("str: the client id of the session that the command belongs to")
    sessions = Attribute("Sequence[str]: in `IRunExecutor.execute_run`, the client id of each command of the run")
    ticket = Attribute("Ticket of the command that is being executed")
    quotas = Attribute("Quotas: the quotas in force, which are part of the replicated state")

    def complete(ticket: Ticket, result: Result) -> None:
        """Answer the command with this ticket, which returned PENDING when it was executed."""


class IReplicatedApplication(Interface):
    """A deterministic state machine: the same commands in the same order give the same state and the same results.

    So `execute` may use no clock, random number or float, may not rely on the order of a set, and may do no input or
    output. It refuses a command by returning `Refused` or raising `BadRequest`, before it has changed anything. For all
    other exceptions see `pfsb.applications.failures`.
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
        """Answer a question from the present state, which stays as it is."""

    def session_ended(client_id: str, context: IContext) -> None:
        """Release all that session `client_id` held: called when the session was closed or has expired."""

    def time_passed(context: IContext) -> None:
        """Answer, by `context.complete`, each PENDING command whose time limit has passed.

        Called when the state machine's time has reached `next_deadline`.
        """

    def next_deadline() -> int | None:
        """The earliest time at which the time limit of a PENDING command passes, in milliseconds of the state machine's
        time; None if no PENDING command has a time limit."""

    def snapshot() -> bytes:
        """The whole state, encoded: equal bytes on all servers that have executed the same commands.

        An application may lack this method and `restore`: then its servers take no snapshots, and keep their whole
        history (`pfsb.applications.application.has_snapshot`).
        """

    def restore(data: bytes) -> None:
        """Replace the state by that of a snapshot, which `snapshot` has made."""


class IFrozenState(Interface):
    """An application with a large state, of which it makes a snapshot while it goes on executing commands.

    An application need not provide this interface: `snapshot` is called then, and the server does nothing else
    meanwhile.
    """

    def freeze() -> Iterator[bytes]:
        """The present state, as pieces that are taken later, one by one, while further commands are executed.

        The pieces are equal on all servers that have executed the same commands, whatever is executed while they are
        taken. Making one piece takes some milliseconds at most, so most have 64 KiB at most; none has more than 16 MiB.
        At most one such iterator is in use at a time. Its method `close` ends it early. While none is in use the
        application keeps nothing of former states.
        """

    def take_piece(data: bytes) -> None:
        """Take the next piece of a snapshot, in the order in which `freeze` has made them. Called for an application
        that was made for this and has executed nothing. Raises `ValueError` if the piece cannot be understood."""

    def pieces_end() -> None:
        """Called after the last piece: the state is whole from now on. Raises `ValueError` if pieces are missing."""


class IGrowingValues(Interface):
    """An application, with `IFrozenState`, whose state and whose answers share values that grow (`GrowingBytes`).

    The bytes that reply caches count depend on which answers share a value with each other and with the state. Pieces
    of the state leave that out. So those of the reply caches say it, and `share` restores it.
    """

    def growing_at(key: bytes) -> GrowingBytes | None:
        """The object that answers share with the present entry of a key; None if there is none."""

    def growing_then(key: bytes) -> GrowingBytes | None:
        """The object that answers shared with the entry of a key at the last call of `IFrozenState.freeze`, whatever
        was executed since. Asked for before the first piece is taken."""

    def share(key: bytes, growing: GrowingBytes) -> None:
        """Let the entry of a key share `growing` from now on, whose `data` becomes the value of the entry. Called after
        a restore. Raises `ValueError` if there is no such key."""


class IRunExecutor(Interface):
    """An application that can execute a run of commands together: consecutive commands of one verb.

    The commands may come from several sessions. An application need not provide this interface. It must come to the
    same state and results as if it executed the commands one by one.
    """

    run_verbs = Attribute("Collection[str]: the verbs whose commands come in runs; none of them is one that waits")

    def execute_run(commands: Sequence[Command], context: IContext) -> bool | Counters:
        """Execute two or more commands of one of `run_verbs`, if each of them would answer numbers that count up.

        Returns True if each command gets the result `Done((("revision", R),))`, where R is `context.revision` for the
        first one, and one more for each of the others. Returns `Counters` if there are other fields before the
        revision, whose values count up in the same way. `context.session` and `context.ticket` are those of the first
        command, and `context.sessions` has the client id of each.

        Returns False, and changes nothing, if any of the commands would be refused or would have another result, or if
        it is not clear that none would: then the commands are executed one by one. An exception that is a fault of the
        program counts as False, so nothing may be changed by then either.
        """


class IPlainChecker(Interface):
    """An application that can check many command lines of one verb together. An application need not provide this
    interface.
    """

    plain_words = Attribute(
        "Mapping[str, int]: verb -> the number of words, 1 or more, of the commands that are checked together"
    )

    def check_plain(verb: str, columns: Sequence[Sequence[bytes]]) -> Sequence[Command] | None:
        """Check commands of one of the verbs in `plain_words`, as `check` does; return them in the normalised form.

        `columns` has one sequence for each place behind the verb: the words that the commands have in that place, in
        the order of the commands. A word has one or more characters, all of them printable ASCII, without space and
        quote; it was not quoted, and may have the form of an option. The one word of a verb that takes the rest of the
        line is a text, which may have spaces between its words.

        Returns None if `check` would refuse one of the commands: then each is checked by itself.
        """


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
    versions = Attribute("Sequence[int]: the versions that it can make, ascending")

    def make(version: int) -> IReplicatedApplication:
        """Import the application's module, and build the application in this version, with its first state."""


def _as_a_name(_instance: object, _attribute: object, value: str) -> None:
    if not is_application_name(value):
        raise ValueError(f"{value!r} is no name for an application: 1 to 64 letters, digits and _, no digit first")


@implementer(IPlugin, IApplicationMaker)
@frozen
class ApplicationMaker:
    """Makes one application for `IApplicationMaker`, by calling a function of the application's module, which is
    imported only then.

    `module` is the name of the module, and `factory` that of the function. A plugin file needs only one of these.
    """

    name: str = field(validator=_as_a_name)
    help: str
    module: str
    factory: str
    """Name of the function of `module` that builds the application. Its argument is the version, if there are several
    versions; else it has none."""
    versions: Sequence[int] = (1,)

    def make(self, version: int) -> Any:
        from twisted.python.reflect import namedAny

        factory = namedAny(f"{self.module}.{self.factory}")
        return factory() if len(self.versions) == 1 else factory(version)
