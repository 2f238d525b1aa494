"""Patterns and cursors of KEYS and SCAN: the range of keys of a pattern, and the key that a cursor stands for."""

from __future__ import annotations

import re
from collections import OrderedDict
from itertools import count
from typing import Final

from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import BadRequest

CURSORS_MAX: Final = 10_000
"""Maximum number of cursors that a server remembers, for all of its clients together."""
_LAST_CHARACTER: Final = "\U0010ffff"
_SURROGATES: Final = (0xD800, 0xE000)
_PREFIX: Final = re.compile(r"((?:[^*?\[\\]|\\.)*)(\*?)", re.DOTALL)


def range_of(pattern: str) -> tuple[str, str]:
    """The range of the keys that match a pattern: its first key, and its end (excluded; "" stands for no end).

    A pattern is `prefix*` or one whole key, where a backslash makes the next character an ordinary one. Raises
    `BadRequest` for any other pattern, since its keys would be found only by looking at all keys.
    """
    found = _PREFIX.fullmatch(pattern)
    if found is None:
        raise BadRequest(f"the pattern {quoted(pattern)} is neither prefix* nor a whole key; no others are known here")
    prefix = re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)
    if found[2]:
        return prefix, _after_all_that_begin_with(prefix)
    return prefix, f"{prefix}\x01"


def _after_all_that_begin_with(prefix: str) -> str:
    stem = prefix.rstrip(_LAST_CHARACTER)
    if not stem:
        return ""
    code = ord(stem[-1]) + 1
    return stem[:-1] + chr(_SURROGATES[1] if code == _SURROGATES[0] else code)


class Cursors:
    """The cursors of one server: numbers that stand for keys.

    Client libraries expect a cursor to be a number, and a key does not fit into a number. So the server remembers the
    keys for which the last `CURSORS_MAX` cursors stand.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._keys: OrderedDict[int, str] = OrderedDict()

    def cursor_at(self, key: str) -> int:
        """A new cursor, from which a later SCAN continues at `key`."""
        number = next(self._numbers)
        self._keys[number] = key
        if len(self._keys) > CURSORS_MAX:
            self._keys.popitem(last=False)
        return number

    def key_of(self, cursor: str) -> str:
        """The key at which a SCAN with this cursor continues. Raises `BadRequest` for an unknown cursor."""
        if cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) in self._keys:
            return self._keys[int(cursor)]
        raise BadRequest(
            f"{quoted(cursor)} is no cursor of this server, or is too old: begin again with 0, and stay at one server"
        )
