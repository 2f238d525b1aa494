"""Replies and events of a server as values, with their fields (docs/protocol.rst)."""

from __future__ import annotations

import re
from json import JSONDecoder

from attrs import frozen

_ERROR = re.compile(r"ERR (\S+)(?: fate=(none|unknown|done))? ?(.*)", re.DOTALL)
_NAME = re.compile(r"(?<![^\s=\"])([^\s=\"]+)=")
"""Pattern of `name=` in a line. The lookbehind lets a name begin only at the start of a word: without it, a search
would begin anew at each character of a long word."""
_INTEGER = re.compile(r"-?[0-9]{1,1000}")
_JSON = JSONDecoder()


@frozen
class Reply:
    """The reply to one request: its rows and its last line as the server wrote them, without the request's number."""

    line: str
    rows: tuple[str, ...] = ()
    code: str = ""
    """The error code of a refusal; empty if the reply is OK."""
    fate: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        return not self.code

    @property
    def fields(self) -> dict[str, int | str]:
        """The name=value pairs of the OK line; empty for a refusal."""
        return read_fields(self.line.removeprefix("OK")) if self.ok else {}

    @property
    def row_fields(self) -> list[dict[str, int | str]]:
        """The name=value pairs of each row."""
        return [read_fields(row) for row in self.rows]

    def lines(self) -> list[str]:
        """The rows and the last line, as a person wants to see them."""
        return [*(f"+{row}" for row in self.rows), self.line]


@frozen
class EventLine:
    """An event, which a server has sent without being asked: the line `* NAME name=value ...`."""

    name: str
    line: str

    @property
    def fields(self) -> dict[str, int | str]:
        """The name=value pairs of the event."""
        return read_fields(self.line[len(self.name) + 2 :])


def read_fields(text: str) -> dict[str, int | str]:
    """The name=value pairs of a line. Integers become int, JSON strings are decoded, other words stay as they are.

    A string that is not JSON, as no pfsb server sends it, becomes a text together with the rest of the line.
    """
    fields: dict[str, int | str] = {}
    position = 0
    while found := _NAME.search(text, position):
        position = found.end()
        if text[position : position + 1] == '"':
            fields[found[1]], position = read_string(text, position)
        else:
            end = text.find(" ", position)
            word = text[position : len(text) if end < 0 else end]
            fields[found[1]] = int(word) if _INTEGER.fullmatch(word) else word
            position += len(word)
    return fields


def read_string(text: str, start: int) -> tuple[str, int]:
    """(value, position after its end) of the JSON string that begins at `start`.

    If no such string begins there, the value is the rest of the text.
    """
    try:
        value, end = _JSON.raw_decode(text, start)
    except ValueError:
        return text[start:], len(text)
    return str(value), end


def read_reply(line: str, rows: tuple[str, ...] = ()) -> Reply | None:
    """The reply that consists of `rows` and this line; None if the line is neither OK nor ERR, and so ends no reply."""
    if line == "OK" or line.startswith("OK "):
        return Reply(line, rows)
    if found := _ERROR.fullmatch(line):
        return Reply(line, rows, found[1], found[2] or "unknown", found[3])
    return None


def refusal(code: str, fate: str, text: str) -> Reply:
    """A refusal that the client itself gives, in the form of a server's reply."""
    return Reply(f"ERR {code} fate={fate} {text}", (), code, fate, text)
