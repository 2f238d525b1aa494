"""Chat: one ordered log of what everybody said (design part 6, interface part 3).

Lines are numbered from 1, without gaps. The log is the whole state; it is kept in memory for as long as the
server lives, since a client may LISTEN or LOG from any line on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
from zope.interface import implementer

from pfsb.applications.arguments import (
    Arguments,
    Runners,
    bounded_rows,
    check_command,
    not_understood,
    refuse_other_format,
    row_limit,
    runner,
    usages,
)
from pfsb.interfaces import (
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
class Chat:
    """What was said, in the order in which it was executed."""

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
        self._lines: list[tuple[str, str]] = []  # (client id, text); line I stands at I - 1
        self._changes: Runners = {"SAY": ((str, str), self._say)}
        self._questions: Runners = {"LOG": ((str, int, int), self._log)}

    def check(self, command: tuple[str, ...]) -> Command:
        return check_command(command, _USAGES, _RULES)

    def execute(self, command: Command, context: IContext) -> Any:
        run = runner(self._changes, command)
        return not_understood(command) if run is None else run(command, context)

    def query(self, command: Command) -> Result:
        run = runner(self._questions, command)
        answer: Result = not_understood(command) if run is None else run(command)
        return answer

    def session_ended(self, client_id: str, context: IContext) -> None:
        """What was said stays said."""

    def time_passed(self, context: IContext) -> None:
        """Nothing in a chat ever falls due."""

    def next_deadline(self) -> int | None:
        return None

    def length(self) -> int:
        return len(self._lines)

    def events(self, first: int, limit: int) -> Sequence[Event]:
        """Lines `first` to `first + limit - 1`, as far as there are any."""
        return [Event("CHAT", row) for row in self._rows(first, limit)]

    def snapshot(self) -> bytes:
        """msgpack: (format, [(client id, text), ...])."""
        data: bytes = msgpack.packb((_snapshot_format, self._lines))
        return data

    def restore(self, data: bytes) -> None:
        """Raises `ValueError` for a snapshot of another format."""
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
    """0 stands for "from now on"."""
    asked.words(0, 0, options=("from",))
    return ("LISTEN", asked.option("from", 0))


def _check_unlisten(asked: Arguments) -> Command:
    asked.words(0, 0)
    return ("UNLISTEN",)


def _check_log(asked: Arguments) -> Command:
    asked.words(0, 0, options=("from", "limit"))
    return ("LOG", asked.option("from", 1), asked.limit())


_USAGES = usages(Chat.commands)
_RULES = {"SAY": _check_say, "LISTEN": _check_listen, "UNLISTEN": _check_unlisten, "LOG": _check_log}
