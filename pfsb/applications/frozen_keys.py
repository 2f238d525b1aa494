"""The state of `pfsb.applications.key_value` at one moment, which is read key by key while commands change the keys."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate, compress, filterfalse, islice, repeat, tee
from operator import add
from typing import Final

import msgpack
from sortedcontainers import SortedList

from pfsb.applications.interfaces import GrowingBytes
from pfsb.support.limits import PIECE_BYTES

Entry = tuple[bytes, int, GrowingBytes | None]
"""(value, revision at which it was written, the `GrowingBytes` that answers to APPEND share, or None if there is
none)."""

KEYS_AT_ONCE: Final = 1_024
"""Number of keys that are read together."""
_ENTRY_BYTES: Final = 5
"""Minimum number of bytes of an entry in a row, besides key and value."""


class FrozenKeys:
    """All keys, values and revisions of one moment, in the byte order of the keys.

    No key is copied at that moment. A cursor passes through the sorted list of the store while commands change it. An
    entry that is ahead of the cursor, and about to be changed, is kept aside until the cursor has passed. A row has
    three lists: keys, their values, their revisions.
    """

    head = ()

    def __init__(self, entries: dict[bytes, Entry], keys: SortedList[bytes], unsorted: Iterable[bytes]) -> None:
        """`entries` and `keys` are those of the store, which changes them; `keys` may lack the keys in `unsorted`."""
        self._entries = entries
        self._keys = keys
        self._beside: SortedList[bytes] = SortedList(unsorted)
        """Keys of that moment that `_keys` may lack: keys that were not sorted in yet, and deleted ones."""
        self._start = b""
        """The cursor: all keys below it were read."""
        self._last = max([*keys[-1:], *self._beside[-1:]], default=b"")
        """The last key of that moment. Keys behind it are new."""
        if not entries:
            self._start = b"\0"
        self._then: dict[bytes, Entry | None] = {}
        """Key that has changed since, from the cursor on -> its entry at that moment; None: it had none."""

    def keep(self, key: bytes, entry: Entry | None) -> None:
        """Keep the entry of a key aside before it is changed."""
        if self._start <= key <= self._last and key not in self._then:
            self._then[key] = entry

    def keep_deleted(self, key: bytes, entry: Entry) -> None:
        """Keep the entry of a key aside before the key is deleted."""
        self.keep(key, entry)
        if self._then.get(key) is not None and key not in self._beside:
            self._beside.add(key)

    def keep_all(self, keys: Iterable[bytes]) -> None:
        """Keep the entries of these keys aside before they are changed. No key stands twice in `keys`."""
        ahead = filter(self._last.__ge__, filter(self._start.__le__, keys))
        fresh = [*filterfalse(self._then.__contains__, ahead)]
        self._then.update(zip(fresh, map(self._entries.get, fresh), strict=True))

    def rows(self) -> Iterator[bytes]:
        pack = msgpack.Packer().pack
        keys: list[bytes] = []
        values: list[bytes] = []
        revisions: list[int] = []
        ends: list[int] = []  # number of bytes up to the end of each entry
        begin = 0  # the end of the last entry that was packed
        while True:
            cut = bisect_left(ends, begin + PIECE_BYTES) + 1
            if cut > len(ends) and self._start <= self._last:
                more, entries = self._read()
                keys += more
                for column, added in zip((values, revisions), zip(*entries, strict=True), strict=False):
                    column += added  # type: ignore[operator]
                sizes = map(add, map(_ENTRY_BYTES.__add__, map(len, more)), map(len, values[len(ends) :]))
                ends += islice(accumulate(sizes, initial=ends[-1] if ends else begin), 1, None)
            elif ends:
                yield pack((keys[:cut], values[:cut], revisions[:cut]))
                begin = ends[:cut][-1]
                del keys[:cut], values[:cut], revisions[:cut], ends[:cut]
            else:
                return

    def _read(self) -> tuple[list[bytes], list[Entry]]:
        """Move the cursor behind the next keys; return them and their entries of that moment. There may be none, since
        a key that is new counts as one of the next."""
        then = self._then
        present = self._keys.irange(self._start, self._last)
        if then:
            present, same = tee(present)
            present = compress(present, map(then.get, same, repeat(True)))  # without those that are new
        found = [*islice(present, KEYS_AT_ONCE)]
        beside = [*islice(self._beside.irange(self._start, self._last), KEYS_AT_ONCE)]
        end = min([each[-1] for each in (found, beside) if len(each) == KEYS_AT_ONCE], default=self._last)
        if beside:
            found = sorted({*found, *beside})
            del found[bisect_right(found, end) :]
        self._start = end + b"\0"  # the key that follows it in byte order
        if not then:
            return found, [*map(self._entries.__getitem__, found)]
        entries: list[Entry] = [*map(then.get, found, map(self._entries.get, found))]  # type: ignore[list-item]
        deque(map(then.pop, found, repeat(None)), maxlen=0)
        return found, entries
