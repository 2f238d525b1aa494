"""The client's end of one connection of the line protocol (interface part 3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from json import JSONDecoder
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A server's line is at most a few values; a stream without line ends is no pfsb server."""

_NUMBERED = re.compile(r"#([0-9]+) ")
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


Heard = Callable[[Reply], None]


@define(eq=False)
class _Expected:
    number: int | None
    heard: Heard


@define(eq=False, slots=False)
class ClientProtocol(Protocol):
    """Sends lines, and matches replies to them: those with a number by it, the others by their order."""

    on_event: Callable[[EventLine], None]
    on_lost: Callable[[Failure], None]
    _partial: bytes = b""
    _rows: list[str] = field(factory=list)
    _expected: list[_Expected] = field(factory=list)

    def request(self, number: int | None, line: str, heard: Heard) -> None:
        """Send one line; `heard` is called with its reply, unless the connection is lost first."""
        self._expected.append(_Expected(number, heard))
        prefix = "" if number is None else f"#{number} "
        assert self.transport is not None
        self.transport.write(f"{prefix}{line}\n".encode())

    def forget(self) -> None:
        """Whatever is still unanswered will not be waited for."""
        self._expected.clear()

    def abort(self) -> None:
        """As `close`, but the server is to notice at once, also if it waits for something."""
        transport: Any = self.transport
        self.close()
        transport.abortConnection()

    def close(self) -> None:
        """Hear nothing more, and say nothing more."""
        self.on_event = self.on_lost = _ignore
        self.forget()
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
        if len(self._partial) > LINE_BYTES_MAX:
            self._partial = b""
            assert self.transport is not None
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._expected.clear()
        self.on_lost(reason)

    def _line(self, line: str) -> None:
        if line.startswith("* "):
            self.on_event(EventLine(line[2:].split(" ", 1)[0], line))
            return
        found = _NUMBERED.match(line)
        number = int(found[1]) if found else None
        text = line[found.end() :] if found else line
        if text.startswith("+"):
            self._rows.append(text[1:])
            return
        reply = read_reply(text, tuple(self._rows))
        if reply is not None:
            self._rows.clear()
            self._tell(number, reply)

    def _tell(self, number: int | None, reply: Reply) -> None:
        for index, expected in enumerate(self._expected):
            if expected.number == number:
                del self._expected[index]
                expected.heard(reply)
                return
        if number is None:
            self._refused(reply)

    def _refused(self, reply: Reply) -> None:
        """An error that answers nothing we asked: the server does not want this connection (BUSY)."""
        lost, self.on_lost = self.on_lost, _ignore
        self.close()
        lost(Failure(ConnectionDone(reply.line)))


def _ignore(_what: object) -> None:
    pass
