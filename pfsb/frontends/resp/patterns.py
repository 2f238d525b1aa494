"""KEYS and SCAN: which range of keys a pattern stands for, and where a cursor goes on."""

from __future__ import annotations

import re
from collections import OrderedDict
from itertools import count
from typing import Final

from pfsb.applications.arguments import quoted
from pfsb.applications.interfaces import BadRequest

CURSORS_MAX: Final = 10_000
_LAST_CHARACTER: Final = "\U0010ffff"
_SURROGATES: Final = (0xD800, 0xE000)
_PREFIX: Final = re.compile(r"((?:[^*?\[\\]|\\.)*)(\*?)", re.DOTALL)


def range_of(pattern: str) -> tuple[str, str]:
    """The keys from (included) to (excluded, "": to the last) that match `prefix*`, or that one key.

    A backslash takes the meaning from the next character. Raises `BadRequest` for any other pattern: only a range of
    the order of keys is found without looking at them all.
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
    """Numbers that stand for keys: a cursor of Redis is a number, and programs take it for one.

    A key has no number of its own that would fit. So this server remembers, for the last `CURSORS_MAX` of them.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._keys: OrderedDict[int, str] = OrderedDict()

    def to(self, key: str) -> int:
        """A cursor that goes on from `key`."""
        number = next(self._numbers)
        self._keys[number] = key
        if len(self._keys) > CURSORS_MAX:
            self._keys.popitem(last=False)
        return number

    def key_of(self, cursor: str) -> str:
        """Where that cursor goes on. Raises `BadRequest` if it is none of this server's."""
        if cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) in self._keys:
            return self._keys[int(cursor)]
        raise BadRequest(
            f"{quoted(cursor)} is no cursor of this server, or is too old: begin again with 0, and stay at one server"
        )
