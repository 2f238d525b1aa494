"""Lines of the log that show each update as a server executes it: all servers show the same ones, in the same order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from twisted.logger import Logger

from pfsb.paxos.messages import ClientUpdate
from pfsb.sessions import bundle
from pfsb.sessions.cluster_settings import ClusterSettings, WrongSetting
from pfsb.sessions.ordered_settings import Abilities
from pfsb.sessions.state_machine import ANNOUNCE, BIRTH

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
                yield f"server {update.server_id}: {_words_of_server(command)}"
            elif number:
                yield f"{content.client_id} #{number} {_words(command)}"


def _words_of_server(command: Sequence[Any]) -> str:
    """A command of a server's own session. The settings at the birth of the cluster, and what a server announces, are
    encoded in the command: the line shows what people want to know of them."""
    try:
        if command[0] == BIRTH:
            shown = ClusterSettings.decode(command[1]).shown()
            return f"{BIRTH} apps={shown['apps']} members={shown['members']}"
        if command[0] == ANNOUNCE:
            announced = Abilities.decode(command[1])
            place = f" client={_word(announced.client)}" if announced.client else ""
            return f"{ANNOUNCE} apps={','.join(announced.apps)}{place}"
    except WrongSetting:
        pass  # no server has made these bytes: they are shown as they are
    return _words(command)


def _words(command: Sequence[Any]) -> str:
    return " ".join(map(_word, command))


def _word(word: Any) -> str:
    text = word.decode("utf-8", "backslashreplace") if isinstance(word, bytes) else str(word)
    if len(text) > WORD_CHARACTERS_MAX:
        text = text[:WORD_CHARACTERS_MAX] + "..."
    return text if text.isprintable() and text and not set(text) & {" ", '"'} else json.dumps(text, ensure_ascii=False)
