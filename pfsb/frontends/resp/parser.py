"""CommandParser: splits the bytes of a connection into commands of the Redis protocol (RESP), in bounded memory.

A command is an array of bulk strings: `*2 CRLF $3 CRLF GET CRLF $1 CRLF k CRLF`. The length of each argument comes
before it, so an argument that is too large is skipped without being kept, and none is searched for its end.

Redis also takes commands that are typed as lines. Here only those of `LINE_COMMANDS` may be: they read and change no
key. So a text of another protocol that comes to a port of Redis, with values on lines of their own, changes nothing.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from pfsb.applications.arguments import quoted

ARGUMENTS_MAX: Final = 1_048_576
"""Maximum number of arguments of a command, as in Redis."""
BULK_BYTES_MAX: Final = 536_870_912
"""Maximum length of an argument, in bytes, as in Redis. Bytes that announce a longer one are taken for no command."""
LINE_COMMANDS: Final = frozenset((b"PING", b"INFO", b"QUIT"))
"""Names of the commands that may be typed as a line, as health checks of load balancers and `redis-benchmark` do."""
LINE_BYTES_MAX: Final = 1_024
"""Maximum length, in bytes, of a command that is typed as a line, with the end of the line."""
_HEADER_BYTES_MAX: Final = 32
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,9}")
_NEGATIVE: Final = re.compile(rb"-[1-9][0-9]{0,18}")
SKIPPED_BYTES_MAX: Final = 1_048_576
"""Number of bytes up to which a command that is too large is skipped. A client that goes on sending is not listened to
any more."""
ARGUMENT_OVERHEAD_BYTES: Final = 1
"""Number of bytes that each argument adds to the length of its command beside its own, like the space in a line.

So a command of many empty arguments reaches the limit, too.
"""


_LISTED: Final = ", ".join(sorted(map(bytes.decode, LINE_COMMANDS)))


@frozen
class TooLarge:
    """A command of more bytes than allowed, of which no part was kept."""


@frozen
class Endless:
    """A command that is too large and goes on for more than `SKIPPED_BYTES_MAX`. The parser gives nothing after it."""


@frozen
class Malformed:
    """Bytes that are no command. It is unknown where the next command begins, so the parser gives nothing after it."""

    text: str


Item = list[bytes] | TooLarge | Endless | Malformed


class _Unreadable(Exception):
    """Raised for bytes that are no command; the text of the exception is for the client."""


class CommandParser:
    """Splits bytes into commands.

    Between two calls it keeps the beginning of one command: a header, and at most `command_bytes_max` bytes of
    arguments.
    """

    def __init__(self, command_bytes_max: int) -> None:
        self._command_bytes_max = command_bytes_max
        self._line_bytes_max = min(LINE_BYTES_MAX, command_bytes_max)
        self._beginning: list[bytes] = []
        """The beginning of an incomplete header or argument, in the pieces in which it came."""
        self._missing = 0
        """Number of bytes that must come, at least, before the header or argument that has begun can be complete."""
        self._to_skip = 0
        """Number of bytes still to come of an argument that is too large, and is skipped."""
        self._left = 0
        """Number of arguments still to come of the present command; 0 if the next header is that of a command."""
        self._arguments: list[bytes] = []
        self._command_bytes = 0
        self._is_too_large = False
        self._skipped_bytes = 0
        """Number of bytes that were skipped of a command that is too large."""
        self._is_over = False

    @property
    def bytes_kept(self) -> int:
        """Number of bytes of an incomplete command that are kept."""
        return sum(map(len, self._beginning)) + sum(map(len, self._arguments))

    @property
    def is_between_commands(self) -> bool:
        """Whether the next byte begins a command: False if a part of a command has come, or after bytes that are no
        command."""
        return not (self._left or self._to_skip or self._missing or self._is_over)

    def feed(self, data: bytes) -> list[Item]:
        """The commands that are complete with `data`, and a `TooLarge`, `Endless` or `Malformed` for each that is none.
        After an `Endless` or a `Malformed`, an empty list is returned whatever bytes come."""
        if self._is_over:
            return []
        if len(data) < self._missing:
            self._beginning.append(data)
            self._missing -= len(data)
            return []
        if self._beginning:
            data = b"".join((*self._beginning, data))
            self._beginning.clear()
        items: list[Item] = []
        try:
            self._read(data, items)
        except _Unreadable as error:
            self._is_over = True
            self._arguments = []
            items.append(Malformed(str(error)))
        return items

    def _read(self, data: bytes, items: list[Item]) -> None:
        position, end = min(self._to_skip, len(data)), len(data)
        self._to_skip -= position
        self._skipped_bytes += position
        self._missing = 0
        while position < end:
            if self._skipped_bytes > SKIPPED_BYTES_MAX:
                break
            next_position = self._argument(data, position) if self._left else self._command(data, position)
            if self._missing:
                self._beginning.append(data[position:])
                return
            if self._is_too_large:
                self._skipped_bytes += min(next_position, end) - position
            if not self._left and (self._arguments or self._is_too_large):
                items.append(TooLarge() if self._is_too_large else self._arguments)
                self._arguments, self._is_too_large, self._skipped_bytes = [], False, 0
            position = next_position
        if self._skipped_bytes > SKIPPED_BYTES_MAX:
            self._is_over = True
            items.append(Endless())

    def _command(self, data: bytes, position: int) -> int:
        """Reads the header `*COUNT`, or a command that is typed as a line, at `position`. Returns the position after
        it. If it is incomplete, `_missing` is set, and the returned position means nothing.

        Empty arrays and empty lines are skipped, as in Redis. Raises `_Unreadable` for bytes that begin no command.
        """
        if data[position] in b"\r\n":
            return position + 1
        if data[position : position + 1].isalpha():
            return self._line_command(data, position)
        count, next_position = self.read_header(data, position, b"*")
        if count > ARGUMENTS_MAX:
            raise _Unreadable(f"a command has {count} arguments, {ARGUMENTS_MAX} are possible")
        self._left = count
        self._command_bytes = 0
        return next_position

    def _line_command(self, data: bytes, position: int) -> int:
        """Reads a command that is typed as a line, at `position`. Returns the position after it. If the line is
        incomplete, `_missing` is set, and the returned position means nothing. Raises `_Unreadable` if the line is no
        command."""
        end = data.find(b"\n", position, position + self._line_bytes_max)
        if end < 0 and len(data) - position < self._line_bytes_max:
            self._missing = 1
            return position
        words = data[position : max(end, position)].split()
        if not words or words[0].upper() not in LINE_COMMANDS:
            name = quoted(words[0] if words else data[position : position + 8])
            raise _Unreadable(f"{name} cannot be typed as a line, but {_LISTED} can: a command is an array of strings")
        self._arguments = words
        return end + 1

    def _argument(self, data: bytes, position: int) -> int:
        """Reads the header `$LENGTH` at `position`, and the argument behind it.

        Returns the position after the argument. It is behind the end of `data` if the rest of an argument that is too
        large is still to come; that rest will be skipped. If any other argument is incomplete, `_missing` is set, and
        the returned position means nothing. Raises `_Unreadable` for bytes that are no argument.
        """
        length, start = self.read_header(data, position, b"$")
        if self._missing:
            return start
        if length > BULK_BYTES_MAX:
            raise _Unreadable(f"an argument has {length} bytes, {BULK_BYTES_MAX} are possible")
        stop = start + length
        if self._command_bytes + length + ARGUMENT_OVERHEAD_BYTES > self._command_bytes_max:
            self._is_too_large = True
            self._arguments.clear()
        if self._is_too_large:
            self._left -= 1
            self._to_skip = max(stop + 2 - len(data), 0)
        elif stop + 2 > len(data):
            self._missing = stop + 2 - len(data)
        elif data[stop : stop + 2] != b"\r\n":
            raise _Unreadable(f"an argument of {length} bytes does not end where it said that it would")
        else:
            self._arguments.append(data[start:stop])
            self._left -= 1
            self._command_bytes += length + ARGUMENT_OVERHEAD_BYTES
        return stop + 2

    def read_header(self, data: bytes, position: int, kind: bytes) -> tuple[int, int]:
        """The number in the header that begins at `position` with the byte `kind`, `*` or `$`; and the position after
        the header.

        If the header is incomplete, `_missing` is set, and the two numbers mean nothing. Raises `_Unreadable` if there
        is no header of this kind.
        """
        if data[position : position + 1] != kind:
            found = quoted(chr(data[position]))
            raise _Unreadable(f"expected {kind.decode()} and not {found}: a command is an array of bulk strings")
        end = data.find(b"\r\n", position, position + _HEADER_BYTES_MAX)
        digits = data[position + 1 : end]
        if end < 0:
            if len(data) - position >= _HEADER_BYTES_MAX:
                raise _Unreadable(f"the length after {kind.decode()} does not end")
            self._missing = 1
            return 0, position
        if kind == b"*" and _NEGATIVE.fullmatch(digits):
            return 0, end + 2
        if _LENGTH.fullmatch(digits) is None:
            raise _Unreadable(f"after {kind.decode()} comes a length, and not {quoted(digits.decode('latin-1'))}")
        return int(digits), end + 2
