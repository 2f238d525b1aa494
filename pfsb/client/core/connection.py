"""One connection of the line protocol, without a socket: requests become bytes, bytes become replies and events."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field

from pfsb.client.core.replies import EventLine, Reply, read_reply

LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Maximum size of a received line, in bytes. A pfsb server's lines hold at most a few values, and are shorter."""

_NUMBERED = re.compile(r"#([0-9]{1,19}) ")

Heard = Callable[[Reply], None]


@define(eq=False)
class LineConnection:
    """Matches replies to requests: a reply with a number belongs to the request with that number, a reply without one
    to the oldest request without a number."""

    on_event: Callable[[EventLine], None]
    on_refused: Callable[[str], None]
    """Called with the reason, as a text for people, if the server refuses this connection, or does not speak the
    protocol."""
    _partial: bytes = b""
    _rows: list[str] = field(factory=list)
    _numbered: dict[int, Heard] = field(factory=dict)
    _in_order: deque[Heard] = field(factory=deque)
    _closed: bool = False

    def request(self, number: int | None, line: str, heard: Heard) -> bytes:
        """Return the bytes to send for a request.

        `heard` is called, once, with the reply, unless the connection is closed before it comes.
        """
        if number is None:
            self._in_order.append(heard)
            return f"{line}\n".encode()
        self._numbered[number] = heard
        return f"#{number} {line}\n".encode()

    def receive(self, data: bytes) -> None:
        """Process bytes that the server has sent; a line may be cut between two calls."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            if self._closed:
                return
            self._receive_line(line.removesuffix(b"\r").decode("utf-8", "replace"))
        if len(self._partial) > LINE_BYTES_MAX:
            self._refuse("it sends a line without end, as no pfsb server does")

    def forget(self) -> None:
        """Ignore the replies to all requests that are unanswered."""
        self._numbered.clear()
        self._in_order.clear()

    def close(self) -> None:
        """Ignore all bytes and replies from now on."""
        self._closed = True
        self._partial = b""
        self.forget()

    def _receive_line(self, line: str) -> None:
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
            self._deliver(number, reply)

    def _deliver(self, number: int | None, reply: Reply) -> None:
        if number is not None:
            heard = self._numbered.pop(number, None)
            if heard is not None:
                heard(reply)
        elif self._in_order:
            self._in_order.popleft()(reply)
        else:
            # A reply without a request comes from a server that has no room for this connection (BUSY).
            self._refuse(reply.line)

    def _refuse(self, why: str) -> None:
        self.close()
        self.on_refused(why)
