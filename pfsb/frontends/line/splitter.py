"""From the bytes of a connection to its lines, in bounded memory; telnet's own bytes are taken out (RFC 854)."""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen

IAC: Final = 0xFF
_SUBNEGOTIATION: Final = 0xFA
_SUBNEGOTIATION_END: Final = 0xF0
_FIRST_WITH_OPTION: Final = 0xFB
"""WILL, WONT, DO and DONT: 0xFB to 0xFE, each with one more byte."""
_SUBNEGOTIATION_BYTES_MAX: Final = 1_024
"""Telnet's are a few dozen bytes; noise that looks like the beginning of one must not swallow what follows for ever."""
_START_BYTES: Final = 32
"""Enough of a line that is too long to read the number that it begins with."""


@frozen
class TooLong:
    """Stands for a line of more bytes than allowed, of which only the `start` was kept."""

    start: bytes


class LineSplitter:
    """Cuts what arrives at LF, without a CR before it. Keeps at most `line_bytes_max` bytes and what just arrived."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._partial = b""
        self._skipping = False
        self._telnet = _TelnetFilter()

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """The lines that `data` completes, and a `TooLong` as soon as a line is known to be one."""
        if IAC in data or self._telnet.inside:
            data = self._telnet.feed(data)
        pieces = data.split(b"\n")
        if self._skipping:
            if len(pieces) == 1:
                return []
            del pieces[0]
            self._skipping = False
        elif self._partial:
            pieces[0] = self._partial + pieces[0]
        self._partial = pieces.pop()
        lines = [self._line(piece) for piece in pieces]
        # The CR of a CRLF that is still under way does not count.
        if len(self._partial) > self._line_bytes_max + 1:
            lines.append(TooLong(self._partial[:_START_BYTES]))
            self._partial = b""
            self._skipping = True
        return lines

    def _line(self, piece: bytes) -> bytes | TooLong:
        if piece.endswith(b"\r"):
            piece = piece[:-1]
        return piece if len(piece) <= self._line_bytes_max else TooLong(piece[:_START_BYTES])


@define
class _TelnetFilter:
    """Takes out negotiation, also when it is cut anywhere by the network. An escaped 0xFF stays: it is no UTF-8."""

    _command: bytes = b""
    """What has come of a command that began with IAC."""
    _subnegotiated: int = 0
    """Bytes of the subnegotiation so far; 0: not in one."""
    _out: bytearray = field(factory=bytearray)

    @property
    def inside(self) -> bool:
        return bool(self._command or self._subnegotiated)

    def feed(self, data: bytes) -> bytes:
        for byte in data:
            if self._command:
                self._continue_command(byte)
            elif byte == IAC:
                self._command = bytes([IAC])
            elif self._subnegotiated:
                self._count_subnegotiation()
            else:
                self._out.append(byte)
        out, self._out = bytes(self._out), bytearray()
        return out

    def _continue_command(self, byte: int) -> None:
        if len(self._command) == 1 and byte >= _FIRST_WITH_OPTION and byte != IAC:
            self._command += bytes([byte])
            return
        if len(self._command) == 1:
            self._end_command(byte)
        self._command = b""

    def _end_command(self, byte: int) -> None:
        if self._subnegotiated:
            self._subnegotiated = 0 if byte == _SUBNEGOTIATION_END else self._subnegotiated + 1
        elif byte == _SUBNEGOTIATION:
            self._subnegotiated = 1
        elif byte == IAC:
            self._out.append(IAC)

    def _count_subnegotiation(self) -> None:
        self._subnegotiated += 1
        if self._subnegotiated > _SUBNEGOTIATION_BYTES_MAX:
            self._subnegotiated = 0
