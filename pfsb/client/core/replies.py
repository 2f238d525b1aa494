"""What a server says, as values: replies, their fields, and events (docs/protocol.rst)."""

from __future__ import annotations

import re
from json import JSONDecoder

from attrs import frozen

_ERROR = re.compile(r"ERR (\S+)(?: fate=(none|unknown|done))? ?(.*)", re.DOTALL)
_NAME = re.compile(r"([^\s=\"]+)=")
_INTEGER = re.compile(r"-?[0-9]+")
_JSON = JSONDecoder()


@frozen
class Reply:
    """`rows` and `line` as the server wrote them, without the number."""

    line: str
    rows: tuple[str, ...] = ()
    code: str = ""
    """Empty: OK."""
    fate: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        return not self.code

    @property
    def fields(self) -> dict[str, int | str]:
        """The values of the OK line."""
        return read_fields(self.line.removeprefix("OK")) if self.ok else {}

    def lines(self) -> list[str]:
        """All of it, as a person wants to see it."""
        return [*(f"+{row}" for row in self.rows), self.line]


@frozen
class EventLine:
    """`* NAME name=value ...`"""

    name: str
    line: str

    @property
    def fields(self) -> dict[str, int | str]:
        return read_fields(self.line[len(self.name) + 2 :])


def read_fields(text: str) -> dict[str, int | str]:
    """The name=value pairs of a line; integers as int, JSON strings as what they mean, words as they are."""
    fields: dict[str, int | str] = {}
    position = 0
    while found := _NAME.search(text, position):
        position = found.end()
        if text[position : position + 1] == '"':
            fields[found[1]], position = _JSON.raw_decode(text, position)
        else:
            word = text[position:].split(" ", 1)[0]
            fields[found[1]] = int(word) if _INTEGER.fullmatch(word) else word
            position += len(word)
    return fields


def read_reply(line: str, rows: tuple[str, ...] = ()) -> Reply | None:
    """A reply's last line, or None if it is none."""
    if line == "OK" or line.startswith("OK "):
        return Reply(line, rows)
    if found := _ERROR.fullmatch(line):
        return Reply(line, rows, found[1], found[2] or "unknown", found[3])
    return None


def refusal(code: str, fate: str, text: str) -> Reply:
    """What the client itself has to say to a command, in the form of a server's reply."""
    return Reply(f"ERR {code} fate={fate} {text}", (), code, fate, text)
