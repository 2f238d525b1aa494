"""LineSplitter: splits the bytes of a connection into lines, in bounded memory. Commands of telnet (RFC 854), which may
stand among the bytes, are left out.

Options that a client of telnet offers or asks for are refused, each by an answer: some clients wait for it. A client
shows nothing after Ctrl-C until it has the answer to the timing mark that it asks for (RFC 860).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

IAC: Final = 0xFF
_SUBNEGOTIATION: Final = 0xFA
_SUBNEGOTIATION_END: Final = 0xF0
_REFUSALS: Final = {0xFB: 0xFE, 0xFD: 0xFC}
"""Telnet command -> the command that refuses it: WILL, an offer of the client, by DONT, and DO, a wish, by WONT."""
_FIRST_WITH_OPTION: Final = 0xFB
"""The lowest of the telnet commands that have one more byte, an option: WILL, WONT, DO and DONT, 0xFB to 0xFE."""
_COMMAND: Final = re.compile(rb"\xff[\xfb-\xfe].", re.DOTALL)
_COMMANDS: Final = re.compile(rb"(?:\xff[\xfb-\xfe].)+", re.DOTALL)
"""Regular expression of whole commands with an option that follow each other."""
_SUBNEGOTIATION_BYTES_MAX: Final = 1_024
"""Maximum length of telnet's subnegotiation, in bytes. After that many, the bytes are taken for text again.

Real ones have a few dozen bytes. Text that only looks like the beginning of one must not make all later text vanish.
"""
_START_BYTES: Final = 32
"""Number of bytes that are kept of a line that is too long: enough to read its command number."""


SKIPPED_BYTES_MAX: Final = 1_048_576
"""Number of bytes up to which a line that is too long is skipped. A client that goes on sending is not listened to any
more."""


@frozen
class TooLong:
    """A line of more bytes than allowed, of which only the `start` was kept."""

    start: bytes


@frozen
class Endless:
    """A line that is too long, and goes on for more than `SKIPPED_BYTES_MAX`."""


class LineSplitter:
    """Splits bytes into lines, which end with LF, with CR LF or with CR NUL.

    The last is what telnet sends for the Enter key when it sends each character at once. Between two calls the splitter
    keeps the beginning of one line, at most `line_bytes_max` bytes and a CR.
    """

    def __init__(self, line_bytes_max: int, answer: Callable[[bytes], object] | None = None) -> None:
        """`line_bytes_max` is the maximum length of a line, in bytes. `answer` is called with bytes that must be sent
        to the client, the answers to its telnet commands; None: these get no answer."""
        self._line_bytes_max = line_bytes_max
        self._partial = b""
        self._skipping = False
        self._skipped_bytes = 0
        """Number of bytes of a line that were skipped so far."""
        self._is_over = False
        self._skipped_cr = False
        """Whether the last byte so far of a line that is skipped was a CR."""
        self._telnet = _TelnetFilter()
        self._answer = answer

    @property
    def bytes_kept(self) -> int:
        """Number of bytes of an incomplete line that are kept."""
        return len(self._partial)

    @property
    def is_between_lines(self) -> bool:
        """Whether the next byte begins a line: nothing of an incomplete line or of a telnet command has come."""
        return not (self._partial or self._skipping or self._telnet.inside)

    def feed(self, data: bytes) -> list[bytes | TooLong | Endless]:
        """The lines that are complete with `data`; and a `TooLong` for a line as soon as it is known to be too long.

        After an `Endless` no more are given, whatever bytes come: the caller should end the connection.
        """
        if self._is_over:
            return []
        if IAC in data or self._telnet.inside:
            data = self._telnet.feed(data)
            self._answer_telnet()
        if b"\0" in data:
            data = self._with_line_ends(data)
        pieces = data.split(b"\n")
        if self._skipping:
            if len(pieces) == 1:
                self._skipped_cr = data.endswith(b"\r") if data else self._skipped_cr
                self._skipped_bytes += len(data)
                if self._skipped_bytes <= SKIPPED_BYTES_MAX:
                    return []
                self._skipped_bytes, self._is_over = 0, True
                return [Endless()]
            del pieces[0]
            self._skipping, self._skipped_bytes = False, 0
        elif self._partial:
            pieces[0] = self._partial + pieces[0]
        self._partial = pieces.pop()
        lines: list[bytes | TooLong | Endless] = [self._line(piece) for piece in pieces]
        # One byte more than allowed may be the CR of a line end whose LF is still under way.
        if len(self._partial) > self._line_bytes_max + 1:
            lines.append(TooLong(self._partial[:_START_BYTES]))
            self._skipped_cr = self._partial.endswith(b"\r")
            self._partial = b""
            self._skipping = True
        return lines

    def _with_line_ends(self, data: bytes) -> bytes:
        """The data with LF in place of each CR NUL. The CR of the first one may have been the last byte of the data
        before."""
        if data.startswith(b"\0"):
            if self._partial.endswith(b"\r"):
                self._partial, data = self._partial[:-1], b"\n" + data[1:]
            elif self._skipping and self._skipped_cr:
                data = b"\n" + data[1:]
        return data.replace(b"\r\0", b"\n")

    def _answer_telnet(self) -> None:
        answers, self._telnet.answers = self._telnet.answers, {}
        if answers and self._answer is not None:
            self._answer(b"".join(answers))

    def _line(self, piece: bytes) -> bytes | TooLong:
        if piece.endswith(b"\r"):
            piece = piece[:-1]
        return piece if len(piece) <= self._line_bytes_max else TooLong(piece[:_START_BYTES])


@define
class _TelnetFilter:
    """Removes telnet's commands from a stream of bytes, even if a command arrives in several pieces.

    Offers and wishes are refused; the same one is answered once for all bytes that come together, so that the answers
    are bounded. An escaped 0xFF (two of them) stays as one byte 0xFF. The line is then refused, since 0xFF does not
    occur in UTF-8.
    """

    _command: bytes = b""
    """The beginning of an incomplete telnet command, from its IAC on; empty outside of one."""
    _subnegotiated: int = 0
    """Number of bytes of the present telnet subnegotiation so far; 0 outside of one."""
    _out: bytearray = field(factory=bytearray)
    answers: dict[bytes, None] = field(factory=dict)
    """The answers to be sent, in the order of the commands; the keys of a dict, which holds each once."""

    @property
    def inside(self) -> bool:
        return bool(self._command or self._subnegotiated)

    def feed(self, data: bytes) -> bytes:
        position, end = 0, len(data)
        while position < end:
            if self._command:
                self._continue_command(data[position])
                position += 1
            elif data[position] == IAC:
                position = self._begin_command(data, position)
            else:
                stop = data.find(IAC, position)
                position = self._take_text(data, position, end if stop < 0 else stop)
        out, self._out = bytes(self._out), bytearray()
        return out

    def _begin_command(self, data: bytes, position: int) -> int:
        """Handles telnet commands from `position` on, where a command begins. Whole commands that follow each other are
        all refused at once. Otherwise only the first byte is taken, as the beginning of a command of which more bytes
        must be read. Returns the position after the last byte that was taken."""
        commands = None if self._subnegotiated else _COMMANDS.match(data, position)
        if commands is None:
            self._command = data[position : position + 1]
            return position + 1
        for command in dict.fromkeys(_COMMAND.findall(commands[0])):
            self._refuse(command)
        return commands.end()

    def _take_text(self, data: bytes, position: int, stop: int) -> int:
        """Takes the bytes from `position` on, up to `stop` at most, which hold no telnet command. They are kept as
        text, or left out if they are part of a subnegotiation. Returns the position behind the last byte that was
        taken."""
        if not self._subnegotiated:
            self._out += data[position:stop]
            return stop
        taken = min(stop - position, _SUBNEGOTIATION_BYTES_MAX + 1 - self._subnegotiated)
        self._subnegotiated += taken
        if self._subnegotiated > _SUBNEGOTIATION_BYTES_MAX:
            self._subnegotiated = 0
        return position + taken

    def _refuse(self, command: bytes) -> None:
        """Answers a command of three bytes, if it needs an answer."""
        if command[1] in _REFUSALS:
            self.answers[bytes([IAC, _REFUSALS[command[1]], command[2]])] = None

    def _continue_command(self, byte: int) -> None:
        if len(self._command) == 1 and byte >= _FIRST_WITH_OPTION and byte != IAC:
            self._command += bytes([byte])
            return
        if len(self._command) == 1:
            self._end_command(byte)
        else:
            self._refuse(self._command + bytes([byte]))
        self._command = b""

    def _end_command(self, byte: int) -> None:
        if self._subnegotiated:
            self._subnegotiated = 0 if byte == _SUBNEGOTIATION_END else self._subnegotiated + 1
        elif byte == _SUBNEGOTIATION:
            self._subnegotiated = 1
        elif byte == IAC:
            self._out.append(IAC)
