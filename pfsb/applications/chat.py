"""Chat: one ordered log of lines that clients say (docs/protocol.rst).

Lines are numbered from 1, without gaps. The log is the whole state of the application. The whole log is kept in memory,
since a client may LISTEN or LOG from any line on.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack
from zope.interface import implementer

from pfsb.applications.application import Application, Verb
from pfsb.applications.arguments import Arguments, bounded_rows, refuse_other_format, row_limit
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Done,
    Event,
    Fields,
    IContext,
    IEventLog,
    IReplicatedApplication,
    Result,
)

_snapshot_format = 1


@implementer(IReplicatedApplication, IEventLog)
class Chat(Application):
    """The lines that were said, in the order of execution."""

    name = "chat"
    listen_verb = "LISTEN"
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
        self._lines: list[tuple[str, str]] = []  # (client id, text); line number I is at index I - 1
        super().__init__(
            {
                "SAY": Verb(_check_say, (str, str), self._say),
                "LISTEN": Verb(_check_listen),
                "UNLISTEN": Verb(_check_unlisten),
                "LOG": Verb(_check_log, (str, int, int), self._log),
            }
        )

    def length(self) -> int:
        return len(self._lines)

    def events(self, first: int, limit: int) -> Sequence[Event]:
        """The lines with the numbers `first` to `first + limit - 1`, as far as they exist, as events."""
        return [Event("CHAT", row) for row in self._rows(first, limit)]

    def snapshot(self) -> bytes:
        """The state as msgpack: (format, [(client id, text), ...])."""
        data: bytes = msgpack.packb((_snapshot_format, self._lines))
        return data

    def restore(self, data: bytes) -> None:
        """Replace the state by that of a snapshot. Raises `ValueError` for a snapshot of another format."""
        found, *state = msgpack.unpackb(data, use_list=False)
        refuse_other_format(self.name, found, _snapshot_format)
        (lines,) = state
        self._lines = list(lines)

    def _say(self, command: Command, context: IContext) -> Result:
        self._lines.append((context.session, command[1]))
        return Done((("index", len(self._lines)), ("revision", context.revision)))

    def _log(self, command: Command) -> Result:
        _, first, limit = command
        return bounded_rows(tuple(self._rows(first, row_limit(limit))))

    def _rows(self, first: int, limit: int) -> list[Fields]:
        start = max(first, 1)
        lines = self._lines[start - 1 : start - 1 + max(limit, 0)]
        return [(("index", index), ("client", who), ("text", text)) for index, (who, text) in enumerate(lines, start)]


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
