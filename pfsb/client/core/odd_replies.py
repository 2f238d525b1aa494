"""Replies and events that no pfsb server sends: the client leaves a server that sends one, and asks another server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfsb.client.core.replies import EventLine, Reply

_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "HELLO": ("last", "opened", "epoch"),
    "LOCK": ("token",),
    "TRYLOCK": ("token",),
}
"""Verb -> names of the fields that an OK reply must have, and that must be integers."""
_NUMBERS_IF_GIVEN: Final[Mapping[str, str]] = {"HELLO": "forgotten", "LISTEN": "from"}
"""Verb -> name of a field that an OK reply may have, and that must be an integer then."""
_TAKES_A_LOCK: Final = frozenset({"LOCK", "TRYLOCK"})


class OddReply(ValueError):
    """Raised for a reply or an event that lacks a field which a pfsb server sends with it."""


def check_reply(verb: str, reply: Reply) -> None:
    """Raise `OddReply` unless an OK reply to this verb has the fields that the client needs.

    Refusals and the replies to other verbs are not looked at: the client passes them on as they are.
    """
    if not reply.ok or (verb not in _NUMBERS and verb not in _NUMBERS_IF_GIVEN):
        return
    fields = reply.fields
    for name in _NUMBERS.get(verb, ()):
        _check_number(reply.line, fields, name)
    if verb in _TAKES_A_LOCK and "name" not in fields:
        raise OddReply(f"it sends a reply without name: {reply.line}")
    optional = _NUMBERS_IF_GIVEN.get(verb, "")
    if optional in fields:
        _check_number(reply.line, fields, optional)


def check_event(event: EventLine) -> None:
    """Raise `OddReply` unless a CHAT event has the fields that the client needs; other events are not looked at."""
    if event.name == "CHAT":
        fields = event.fields
        _check_number(event.line, fields, "index")
        for name in ("client", "text"):
            if name not in fields:
                raise OddReply(f"it sends an event without {name}: {event.line}")


def _check_number(line: str, fields: Mapping[str, int | str], name: str) -> None:
    if not isinstance(fields.get(name), int):
        raise OddReply(f"it sends a line in which {name} is no number: {line}")
