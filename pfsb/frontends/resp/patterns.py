"""Patterns and cursors of KEYS and SCAN: the range of keys of a pattern, and the key that a cursor stands for."""

from __future__ import annotations

import re
from collections import OrderedDict
from itertools import count
from typing import Final

from pfsb.applications.arguments import key_bytes_max, quoted
from pfsb.applications.interfaces import BadRequest

CURSORS_MAX: Final = 10_000
"""Maximum number of cursors that a server remembers, for all of its clients together."""
NO_KEYS: Final = (b"\0", b"\0")
"""A range (first key, end) in which no key lies."""
_PREFIX: Final = re.compile(rb"((?:[^*?\[\\]|\\.|\\\Z)*)(\**)", re.DOTALL)


def range_of(pattern: bytes) -> tuple[bytes, bytes]:
    """The range of the keys that match a pattern: its first key, and its end (excluded; b"" stands for no end).

    A pattern is `prefix*` or one whole key, where a backslash makes the next character an ordinary one. Raises
    `BadRequest` for any other pattern, since its keys would be found only by looking at all keys.
    """
    found = _PREFIX.fullmatch(pattern)
    if found is None:
        raise BadRequest(f"the pattern {quoted(pattern)} is neither prefix* nor a whole key; no others are known here")
    prefix, is_prefix = re.sub(rb"\\(.)", rb"\1", found[1], flags=re.DOTALL), bool(found[2])
    if len(prefix) > key_bytes_max or not (prefix or is_prefix):
        return NO_KEYS
    if is_prefix or len(prefix) == key_bytes_max:
        return prefix, _after_all_that_begin_with(prefix)
    return prefix, prefix + b"\0"


def _after_all_that_begin_with(prefix: bytes) -> bytes:
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b""


class Cursors:
    """The cursors of one server: numbers that stand for keys.

    Client libraries expect a cursor to be a number, and a key does not fit into a number. So the server remembers the
    keys for which the last `CURSORS_MAX` cursors stand.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._keys: OrderedDict[int, bytes] = OrderedDict()

    def cursor_at(self, key: bytes) -> int:
        """A new cursor, from which a later SCAN continues at `key`."""
        number = next(self._numbers)
        self._keys[number] = key
        if len(self._keys) > CURSORS_MAX:
            self._keys.popitem(last=False)
        return number

    def key_of(self, cursor: bytes) -> bytes:
        """The key at which a SCAN with this cursor continues. Raises `BadRequest` for an unknown cursor."""
        if cursor.isdigit() and len(cursor) < 20 and int(cursor) in self._keys:
            return self._keys[int(cursor)]
        raise BadRequest(
            f"{quoted(cursor)} is no cursor of this server, or is too old: begin again with 0, and stay at one server"
        )
