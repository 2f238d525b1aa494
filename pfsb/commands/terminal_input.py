"""Help for a person who types commands: completion of verbs and options, and a history of lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from attrs import evolve, frozen
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import History

from pfsb.client.core.replies import Reply

HISTORY_FILE: Final = "~/.pfsb_history"
HISTORY_LINES_MAX: Final = 2_000
READ_LEVELS: Final = ("linearizable", "sequential", "stale")
_OPTION: Final = re.compile(r"([a-z_]+)=")


@frozen
class KnownCommand:
    """A command as HELP shows it."""

    verb: str
    """The words in capital letters at the beginning of the usage, such as "SETTINGS SET"."""
    usage: str
    help: str

    @property
    def options(self) -> list[str]:
        """The names of the options that the usage shows, each with the equals sign behind it, such as "token="."""
        return [f"{name}=" for name in dict.fromkeys(_OPTION.findall(self.usage))]


def commands_of(reply: Reply) -> dict[str, KnownCommand]:
    """Verb -> command, of a reply to HELP."""
    found: dict[str, KnownCommand] = {}
    last: str | None = None
    for row in reply.rows:
        if row.startswith(" ") and last is not None:  # the help of the command before it goes on
            command = found[last]
            found[last] = evolve(command, help=f"{command.help} {row.strip()}".strip())
            continue
        usage, _, text = row.strip().partition("  ")
        verb = re.match(r"[A-Z][A-Z0-9]*(?: [A-Z][A-Z0-9]*)*(?=\s|$)", usage)
        last = None if verb is None else verb[0]
        if last is not None:
            found[last] = KnownCommand(last, usage, text.strip())
    return found


class CommandCompleter(Completer):
    """Completes the verb at the beginning of a line, and behind it the names of options."""

    def __init__(self) -> None:
        self.commands: dict[str, KnownCommand] = {}
        """Verb -> command, as a server has told in its reply to HELP; empty until then."""

    def learn(self, help_reply: Reply) -> None:
        """Take the commands of a reply to HELP."""
        self.commands = commands_of(help_reply)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        line = document.current_line_before_cursor.lstrip()
        yield from self._verbs(line)
        command = self._command(line)
        if command is not None:
            yield from self._options(command, line)

    def _verbs(self, line: str) -> Iterator[Completion]:
        """Completions for a line that is the beginning of a verb; or is HELP, a space and the beginning of a verb."""
        begin = line[5:] if line.upper().startswith("HELP ") else line
        for verb, command in self.commands.items():
            if verb.startswith(begin.upper()) and verb != begin.upper():
                yield Completion(f"{verb} ", -len(begin), display=command.usage, display_meta=command.help)

    def _command(self, line: str) -> KnownCommand | None:
        """The known command with whose verb, and a space, the line begins: the one with the longest verb if there are
        several; None if there is none."""
        upper = line.upper()
        found = [verb for verb in self.commands if upper.startswith(f"{verb} ")]
        return self.commands[max(found, key=len)] if found else None

    def _options(self, command: KnownCommand, line: str) -> Iterator[Completion]:
        *before, word = line.split(" ")
        if word.startswith("read=") and "read=" in command.options:
            values: Iterable[str] = (f"read={level}" for level in READ_LEVELS)
        else:
            values = (name for name in command.options if not any(given.startswith(name) for given in before))
        for text in values:
            if text.startswith(word) and text != word:
                yield Completion(text, -len(word), display_meta=command.usage)


class LineHistory(History):
    """The history of the lines that were typed, in a file that only its owner may read: one typed line in each line of
    the file."""

    def __init__(self, path: str = HISTORY_FILE) -> None:
        super().__init__()
        self._path = Path(path).expanduser()
        self.trouble = ""
        """Why the last line that could not be saved was not, as a text for people; empty: all lines were saved."""

    def load_history_strings(self) -> Iterable[str]:
        """The latest lines of the file, `HISTORY_LINES_MAX` at most, the last one first. If the file has more than
        twice as many lines, the older ones are deleted from it."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []  # there is no history file yet, or it cannot be read: begin with an empty history
        kept = [line for line in lines if line.strip()][-HISTORY_LINES_MAX:]
        if len(lines) > 2 * HISTORY_LINES_MAX:
            self._write("".join(f"{line}\n" for line in kept), os.O_TRUNC)
        return reversed(kept)

    def store_string(self, string: str) -> None:
        """Add what was typed or pasted to the file, each line of it as a line of its own, without spaces at its
        ends. A line with AUTH, which this client does not send, is left out: it may hold a token."""
        lines = [line.strip() for line in string.splitlines() if line.strip()]
        kept = [line for line in lines if line.split(None, 1)[0].upper() != "AUTH"]
        self._write("".join(f"{line}\n" for line in kept), os.O_APPEND)

    def _write(self, text: str, flag: int) -> None:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
            with os.fdopen(file, "w", encoding="utf-8", errors="replace") as stream:
                stream.write(text)
        except OSError as error:
            self.trouble = str(error)
