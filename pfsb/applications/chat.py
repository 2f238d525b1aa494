"""Chat: one ordered log of lines that clients say (docs/protocol.rst).

Lines are numbered from 1, without gaps. The log is the whole state of the application. The whole log is kept in memory,
since a client may LISTEN or LOG from any line on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from types import MappingProxyType

import msgpack
from attrs import frozen
from zope.interface import implementer

from pfsb.applications.application import Verb
from pfsb.applications.arguments import (
    Arguments,
    bounded_rows,
    row_limit,
    rows_of_limit,
    utf8_length,
    value_bytes_max,
)
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Counters,
    Done,
    Event,
    Fields,
    IContext,
    IEventLog,
    IPlainChecker,
    IQuotaUser,
    IRunExecutor,
    Quotas,
    Refused,
    Result,
)
from pfsb.applications.pieces import PiecewiseApplication

_TWO_PARTS = {2}
_ONLY_TEXTS = {str}


@frozen
class FrozenLines:
    """The lines of the chat up to one moment. Lines are only added, so these stay in their places."""

    lines: list[tuple[str, str]]
    """All lines, to which later ones are added."""
    length: int
    """Number of lines at that moment."""
    head: tuple[()] = ()

    def rows(self) -> Iterator[bytes]:
        """The rows: each is a line, (client id, text). Full pieces never change, since they begin with the first line
        and take as many as fit."""
        return map(msgpack.Packer().pack, islice(self.lines, self.length))


@implementer(IEventLog, IQuotaUser, IRunExecutor, IPlainChecker)
class Chat(PiecewiseApplication[FrozenLines]):
    """The lines that were said, in the order of execution."""

    name = "chat"
    snapshot_format = 2
    quota = "chat_bytes"
    listen_verb = "LISTEN"
    run_verbs = ("SAY",)
    plain_words: Mapping[str, int] = MappingProxyType({"SAY": 1})
    work_in_rows: Mapping[str, Callable[[Command], int]] = MappingProxyType({"LOG": rows_of_limit})
    commands: Sequence[CommandDescription] = (
        CommandDescription("SAY", "SAY text...", "Say something to all who listen.", rest_of_line=True),
        CommandDescription(
            "LISTEN",
            "LISTEN [from=I]",
            "Be told every line that is said, from now on or from line I on.",
            changes=False,
        ),
        CommandDescription("UNLISTEN", "UNLISTEN", "Be told no more lines.", changes=False),
        CommandDescription(
            "LOG",
            "LOG [from=I] [limit=N]",
            "Show what was said, from the first line or from line I on.",
            changes=False,
        ),
    )

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        """(client id, text) of each line; line number I is at index I - 1."""
        self._used_bytes = 0
        """Bytes of UTF-8 of all lines, and of the client ids beside them, as a running sum."""
        super().__init__(
            {
                "SAY": Verb(_check_say, (str, str), self._say),
                "LISTEN": Verb(_check_listen),
                "UNLISTEN": Verb(_check_unlisten),
                "LOG": Verb(_check_log, (str, int, int), self._log),
            }
        )

    def length(self) -> int:
        return len(self.lines)

    def events(self, first: int, limit: int) -> Sequence[Event]:
        """The lines with the numbers `first` to `first + limit - 1`, as far as they exist, as events."""
        return [Event("CHAT", row) for row in self._rows(first, limit)]

    def state_now(self) -> FrozenLines:
        return FrozenLines(self.lines, len(self.lines))

    def begin(self, head: Sequence[object]) -> None:
        self.lines, self._used_bytes = [], 0

    def take_rows(self, rows: Sequence[tuple[str, str]]) -> None:
        self._used_bytes += sum(utf8_length(who) + utf8_length(text) for who, text in rows)
        self.lines += rows

    def used(self) -> int:
        return self._used_bytes

    def _say(self, command: Command, context: IContext) -> Result:
        who, text, quotas = context.session, command[1], context.quotas
        size = len((who + text).encode())
        used = self._used_bytes + size
        if used > quotas.chat_bytes or size > quotas.value_bytes:
            refused = _refused(utf8_length(text), used, quotas)
            if refused is not None:
                return refused
        self._used_bytes = used
        self.lines.append((who, text))
        return Done((("index", len(self.lines)), ("revision", context.revision)))

    def execute_run(self, commands: Sequence[Command], context: IContext) -> bool | Counters:
        """Say several lines. Returns False if a command has other types than SAY has, or if a quota would be
        exceeded."""
        if {*map(len, commands)} != _TWO_PARTS:
            return False
        _, texts = zip(*commands, strict=True)
        if {*map(type, texts)} != _ONLY_TEXTS:
            return False
        sessions, quotas = context.sessions, context.quotas
        sizes = [*map(len, map(str.encode, texts))]
        used = self._used_bytes + sum(sizes) + sum(map(len, map(str.encode, sessions)))
        if used > quotas.chat_bytes or max(sizes) > quotas.value_bytes:
            return False
        first = len(self.lines) + 1
        self._used_bytes = used
        self.lines += zip(sessions, texts, strict=True)
        return (("index", first),)

    def check_plain(self, verb: str, columns: Sequence[Sequence[bytes]]) -> Sequence[Command] | None:
        """Check the texts of several SAYs together (`IPlainChecker.check_plain`); None if one is too long. The texts
        are of printable ASCII, so nothing but their lengths can be wrong.
        """
        (texts,) = columns
        if max(map(len, texts)) > value_bytes_max:
            return None
        return [*zip(repeat(verb), map(bytes.decode, texts))]

    def _log(self, command: Command) -> Result:
        _, first, limit = command
        return bounded_rows(tuple(self._rows(first, row_limit(limit))))

    def _rows(self, first: int, limit: int) -> list[Fields]:
        start = max(first, 1)
        lines = self.lines[start - 1 : start - 1 + max(limit, 0)]
        return [(("index", index), ("client", who), ("text", text)) for index, (who, text) in enumerate(lines, start)]


def _refused(size: int, used: int, quotas: Quotas) -> Refused | None:
    """The refusal (TOOLARGE) of a text of `size` bytes after which all lines of the chat would have `used` bytes, if
    one of the two numbers is above its quota; None if the quotas allow both."""
    if size > quotas.value_bytes:
        return Refused("TOOLARGE", f"the text has {size} bytes, {quotas.value_bytes} are allowed (value_bytes)")
    if used <= quotas.chat_bytes:
        return None
    return Refused(
        "TOOLARGE",
        f"the chat would have {used} bytes, and chat_bytes allows {quotas.chat_bytes}: nothing more can be said until "
        "that setting is raised",
    )


def _check_say(asked: Arguments) -> Command:
    (text,) = asked.words(1, 1)
    if not text:
        raise asked.refused("there is nothing to say")
    return ("SAY", asked.value(text, "text"))


def _check_listen(asked: Arguments) -> Command:
    """Check LISTEN; in the normalised command 0 stands for "from now on"."""
    asked.words(0, 0, options=("from",))
    return ("LISTEN", asked.option("from", 0))


def _check_unlisten(asked: Arguments) -> Command:
    asked.words(0, 0)
    return ("UNLISTEN",)


def _check_log(asked: Arguments) -> Command:
    asked.words(0, 0, options=("from", "limit"))
    return ("LOG", asked.option("from", 1), asked.limit())
