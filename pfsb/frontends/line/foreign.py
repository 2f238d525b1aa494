"""Recognises lines of other protocols, which come to the client port by mistake or by malice.

After such a line, nothing more that comes on its connection may be taken for a command: the bytes behind the line are
values to their sender. A web page can let a browser send an HTTP request to any port, with a body that the page
chooses; and a client of Redis sends a key or a value as a line of its own.
"""

from __future__ import annotations

import re
from typing import Final

_REQUEST_LINE: Final = re.compile(rb"(?:CONNECT +[^ ]+|[!-~]+ +(?:/|\*|[A-Za-z][A-Za-z0-9+.-]*://)[^ ]*) +HTTP/[0-9]")
_HEADER: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]+:")
_REDIS_COMMAND: Final = re.compile(rb"[ \t]*\*-?[0-9]+[ \t]*$")
_NO_TEXT: Final = re.compile(rb"[\x00-\x07\x0a-\x1a\x1c-\x1f]")
"""Regular expression of a byte that no person types. Tab, escape and backspace are not among them: keys that a terminal
does not know send these."""

_CLOSED: Final = "nothing of it ran, and the connection is closed"
_HTTP: Final = f"this port speaks the line protocol and that of Redis, and not HTTP; {_CLOSED}"
_REDIS: Final = (
    "this connection was greeted as one of the line protocol before a command of Redis came; "
    f'{_CLOSED}. Send a command as soon as you are connected, or use a port that is configured as "redis"'
)
_BYTES: Final = f"the first line is no text, so this is no client of the line protocol; {_CLOSED}"


def foreign_first_line(line: bytes) -> str | None:
    """The reason, as a sentence for a person, why the connection that begins with this line must be closed; None if it
    may go on.

    Some of these lines would be requests of the line protocol if another line had come before: `PUT / HTTP/1.1`.
    """
    if _REQUEST_LINE.match(line):
        return _HTTP
    if _NO_TEXT.search(line) or not _is_utf8(line):
        return _BYTES
    return foreign_line(line)


def foreign_line(line: bytes) -> str | None:
    """The reason, as a sentence for a person, why the connection on which this line has come must be closed; None if it
    may go on.

    A line for which there is a reason is no request of the line protocol, whose verbs hold neither colons nor
    asterisks.
    """
    if _HEADER.match(line):
        return _HTTP
    return _REDIS if _REDIS_COMMAND.match(line) else None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
