"""Lines of the log that show each update as a server executes it: all servers show the same ones, in the same order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from twisted.logger import Logger

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle

WORD_CHARACTERS_MAX: Final = 60
"""Maximum number of characters that are shown of a word of a command."""

_log = Logger()


def tell_executed(seq: int, updates: Sequence[ClientUpdate]) -> None:
    """Log a line for each command in the updates of a slot, or one for a slot without commands."""
    lines = [line for update in updates for line in commands_of(update)]
    for line in lines or ["nothing"]:
        _log.info("executed {seq}: {line}", seq=seq, line=line)


def commands_of(update: ClientUpdate) -> Iterator[str]:
    """A line of text for each command in an update, with the command's session and number, and for each operation of a
    server's own session."""
    for content in bundle.decode(update.payload) or ():
        for number, command in content.entries:
            if content.client_id == bundle.SERVER:
                yield f"server {update.server_id}: {_words(command)}"
            elif number:
                yield f"{content.client_id} #{number} {_words(command)}"


def _words(command: Sequence[Any]) -> str:
    return " ".join(map(_word, command))


def _word(word: Any) -> str:
    text = word.decode("utf-8", "backslashreplace") if isinstance(word, bytes) else str(word)
    if len(text) > WORD_CHARACTERS_MAX:
        text = text[:WORD_CHARACTERS_MAX] + "..."
    return text if text.isprintable() and text and not set(text) & {" ", '"'} else json.dumps(text, ensure_ascii=False)
