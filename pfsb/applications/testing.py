"""Tests of an application without servers: `Machine` executes its commands as a cluster does, and compares.

An application is right only if every server that executes the same commands comes to the same answers and the same
state; so does a server that has been started again from a snapshot. `Machine` holds the application twice, so that a
test of a single command shows if two servers would come to different states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import msgpack
from attrs import define, field, frozen
from zope.interface import implementer

from pfsb.applications.arguments import Quoted
from pfsb.applications.interfaces import (
    PENDING,
    BadRequest,
    Command,
    CommandDescription,
    IContext,
    IFrozenState,
    IReplicatedApplication,
    Result,
    Ticket,
)
from pfsb.applications.results import check_result
from pfsb.support.limits import PIECE_BYTES_MAX

_SCALARS: Final = (str, int, bytes)


@frozen
class _Raised:
    """A refusal that the application has made by raising `BadRequest`, in place of a result."""

    code: str
    text: str


class WrongApplication(AssertionError):
    """Raised if an application does what no application may do; the text says what."""


@frozen
class LargeQuotas:
    """Quotas that no small test reaches. They are the defaults of a cluster."""

    value_bytes: int = 1_048_576
    kv_bytes: int = 268_435_456
    chat_bytes: int = 67_108_864
    instance_bytes: int = 67_108_864
    session_locks: int = 10_000


@implementer(IContext)
@define(eq=False)
class TrialContext:
    """The context of a call in a test (`IContext`): the facts that the application may use, and the answers that it has
    given to earlier commands, which were PENDING."""

    revision: int = 0
    time_ms: int = 1_000_000
    session: str = ""
    sessions: Sequence[str] = ()
    ticket: Ticket = ("", 0)
    quotas: Any = field(factory=LargeQuotas)
    completed: list[tuple[Ticket, Result]] = field(factory=list)

    def complete(self, ticket: Ticket, result: Result) -> None:
        check_result(result)
        self.completed.append((ticket, result))


@define(eq=False)
class Machine:
    """Executes commands on one application, as each of them is given, and returns the results.

    Every command is executed on a second copy, too, which was made from the snapshot after the command before. The two
    must come to the same answer and the same snapshot; `WrongApplication` is raised if they do not, or if an answer is
    none that a client can be told. An application that provides `IFrozenState` is frozen before each command, and its
    pieces are taken after it.
    """

    make: Callable[[], IReplicatedApplication]
    """Makes the application in its first state, as its class does. Called for each copy."""
    application: IReplicatedApplication = field(init=False)
    _copy: IReplicatedApplication = field(init=False)
    _context: TrialContext = field(init=False, factory=TrialContext)
    _context_of_copy: TrialContext = field(init=False, factory=TrialContext)

    def __attrs_post_init__(self) -> None:
        self.application, self._copy = self.make(), self.make()

    def run(self, client_id: str, verb: str, *words: str) -> Any:
        """Check and execute a command of a client, with a revision and a command number of its own; returns its result,
        or PENDING.

        `words` are texts, as if they stood in quotes in a line. Raises `BadRequest` if the application refuses to order
        the command.
        """
        command = self._checked(verb, words)
        for context in (self._context, self._context_of_copy):
            context.revision += 1
            context.session, context.ticket = client_id, (client_id, context.revision)
        waits = self._waits(command[0])
        return self._on_both(lambda application, context: self._executed(application, command, context, waits))

    def ask(self, verb: str, *words: str) -> Result:
        """Check and answer a question; returns the result. Raises `BadRequest` as `run` does."""
        command = self._checked(verb, words)
        result: Result = self._on_both(lambda application, _context: right_result(command, application.query(command)))
        return result

    def end(self, client_id: str) -> None:
        """End a session: its client has left, or was not heard of for its ttl."""
        self._on_both(lambda application, context: application.session_ended(client_id, context))

    def pass_time(self, seconds: float) -> None:
        """Let the state machine's time pass: waits whose end is due are answered."""
        for context in (self._context, self._context_of_copy):
            context.time_ms += int(seconds * 1_000)
        self._on_both(self._time_passed)

    def take_completed(self) -> list[tuple[Ticket, Result]]:
        """The answers, since the last call of this method, to commands that have waited: ((client id, command number),
        result). Command numbers count all commands of this machine, from 1 on."""
        completed, self._context.completed = self._context.completed, []
        self._context_of_copy.completed = []
        return completed

    # ------------------------------------------------------------------ inside

    def _checked(self, verb: str, words: Sequence[str]) -> Command:
        return as_ordered(self.application, self.application.check((verb, *map(Quoted, words))))

    def _waits(self, verb: str) -> bool:
        descriptions: Sequence[CommandDescription] = self.application.commands
        return any(each.waits for each in descriptions if each.verb == verb)

    @staticmethod
    def _executed(application: IReplicatedApplication, command: Command, context: TrialContext, waits: bool) -> Any:
        try:
            result = application.execute(command, context)
        except BadRequest as error:
            return _Raised(error.code, str(error))
        return result if result is PENDING and waits else right_result(command, result)

    @staticmethod
    def _time_passed(application: IReplicatedApplication, context: TrialContext) -> None:
        deadline = right_deadline(application)
        if deadline is not None and deadline <= context.time_ms:
            application.time_passed(context)

    def _on_both(self, act: Callable[[IReplicatedApplication, TrialContext], Any]) -> Any:
        check_frozen = frozen_meanwhile(self.application)
        first, second = act(self.application, self._context), act(self._copy, self._context_of_copy)
        check_frozen()
        if first != second:
            raise WrongApplication(f"a server that was restored from a snapshot answers {second}, another one {first}")
        if self._context.completed != self._context_of_copy.completed:
            raise WrongApplication(
                f"a server that was restored from a snapshot completes {self._context_of_copy.completed}, another one "
                f"{self._context.completed}"
            )
        snapshot = right_snapshot(self.application)
        if right_snapshot(self._copy) != snapshot:
            raise WrongApplication("two servers that have executed the same commands have different snapshots")
        self._copy = restored(self.make, snapshot)
        if IFrozenState.providedBy(self.application):
            self._copy = restored_from_pieces(self.make, right_pieces(self.application), snapshot)
        if isinstance(first, _Raised):
            raise BadRequest(first.text, first.code)
        return first


def as_ordered(application: IReplicatedApplication, command: Any) -> Command:
    """Return `command`, which `check` of the application has returned, in the form in which servers get it from the
    log. Raises `WrongApplication` if it is no command that can be encoded."""
    verbs = {each.verb for each in application.commands}
    if not isinstance(command, tuple) or not command or command[0] not in verbs:
        raise WrongApplication(
            f"check has returned {command!r:.80}; a command is a tuple that begins with a verb: (verb, argument, ...)"
        )
    for part in command:
        if not isinstance(part, _SCALARS) or isinstance(part, bool):
            raise WrongApplication(
                f"check has returned {command!r:.80}; {part!r:.40} is a {type(part).__name__}, and the parts of a "
                "command are str, int or bytes"
            )
    try:
        ordered: Command = msgpack.unpackb(msgpack.packb(command), use_list=False)
    except (ValueError, OverflowError) as error:
        raise WrongApplication(f"check has returned {command!r:.80}, which cannot be encoded: {error}") from None
    return ordered


def right_result(command: Command, result: Any) -> Any:
    """Return the result of a command or question. Raises `WrongApplication` if no client can be told this result."""
    try:
        check_result(result)
    except Exception as error:
        raise WrongApplication(
            f"{command[0]} is answered with {result!r:.80}: {error}; an answer is a Done or a Refused"
        ) from None
    return result


def right_snapshot(application: IReplicatedApplication) -> bytes:
    """The snapshot of an application. Raises `WrongApplication` if it is no bytes."""
    snapshot: Any = application.snapshot()
    if type(snapshot) is not bytes:
        raise WrongApplication(f"snapshot() returns a {type(snapshot).__name__}; the whole state must be bytes")
    return snapshot


def restored(make: Callable[[], IReplicatedApplication], snapshot: bytes) -> IReplicatedApplication:
    """A new application, which `make` makes, with the state of a snapshot. Raises `WrongApplication` if the snapshot of
    the new application differs from it."""
    application = make()
    application.restore(snapshot)
    if right_snapshot(application) != snapshot:
        raise WrongApplication("restore(snapshot) gives another state: its snapshot differs from the one it was given")
    return application


def right_pieces(application: Any) -> list[bytes]:
    """All pieces of the present state of an application that provides `IFrozenState`. Raises `WrongApplication` if one
    is no bytes, or too large."""
    pieces = [*application.freeze()]
    for piece in pieces:
        if type(piece) is not bytes or len(piece) > PIECE_BYTES_MAX:
            raise WrongApplication(f"freeze() makes {piece!r:.40}; a piece is bytes, {PIECE_BYTES_MAX} of them at most")
    return pieces


def frozen_meanwhile(application: Any) -> Callable[[], None]:
    """Freeze an application. Call the returned function when the application has executed commands: it takes the pieces
    that were not taken yet. It raises `WrongApplication` if all pieces are not those of the frozen state.

    Nothing happens if the application does not provide `IFrozenState`.
    """
    if not IFrozenState.providedBy(application):
        return lambda: None
    expected = right_pieces(application)
    pieces = application.freeze()
    taken = [*islice(pieces, max(len(expected) - 1, 0) // 2)]

    def check() -> None:
        if [*taken, *pieces] != expected:
            raise WrongApplication("freeze() makes other pieces if commands are executed while they are taken")

    return check


def restored_from_pieces(
    make: Callable[[], IReplicatedApplication], pieces: Sequence[bytes], snapshot: bytes
) -> IReplicatedApplication:
    """A new application, which `make` makes, with the state of these pieces. Raises `WrongApplication` if its snapshot
    is not `snapshot`, if its pieces differ, or if it does not notice that a piece is missing."""
    application: Any = make()
    for piece in pieces:
        application.take_piece(piece)
    application.pieces_end()
    if right_snapshot(application) != snapshot or right_pieces(application) != [*pieces]:
        raise WrongApplication("take_piece() gives another state: its snapshot or its pieces differ")
    short: Any = make()
    for piece in pieces[:-1]:
        short.take_piece(piece)
    try:
        short.pieces_end()
    except ValueError:
        restored_application: IReplicatedApplication = application
        return restored_application
    raise WrongApplication("pieces_end() does not notice that a piece is missing; it raises ValueError then")


def right_deadline(application: IReplicatedApplication) -> int | None:
    """The `next_deadline` of an application. Raises `WrongApplication` if it is neither an int nor None."""
    deadline: Any = application.next_deadline()
    if deadline is not None and type(deadline) is not int:
        raise WrongApplication(f"next_deadline() returns {deadline!r:.40}; it is an int in milliseconds, or None")
    found: int | None = deadline
    return found
