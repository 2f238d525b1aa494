"""The state of `pfsb.applications.key_value` at one moment, which is read key by key while commands change the keys."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate, compress, filterfalse, islice, repeat
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
READS_MAX: Final = 8
"""Maximum number of times that `KEYS_AT_ONCE` keys are read for one row, so that a row does not take long to make, even
where most keys are new and count for nothing."""
READ_AHEAD: Final = 32_768
"""Number of entries that are read before their rows are made. While they last, a place with 400,000 new keys is passed,
a part of it for each row."""
_ENTRY_BYTES: Final = 5
"""Minimum number of bytes of an entry in a row, besides key and value."""


class _ReadEntries:
    """Entries that were read, and are not in rows yet."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._revisions: list[int] = []
        self._ends: list[int] = []
        """For each entry the number of bytes of all entries up to it, those that were taken before included."""
        self._taken = 0
        """Number of bytes of the entries that were taken."""

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: list[bytes], entries: list[Entry]) -> int:
        """Add the next entries, and return how many they are."""
        if keys:
            values, revisions, _ = zip(*entries, strict=True)
            sizes = map(add, map(_ENTRY_BYTES.__add__, map(len, keys)), map(len, values))
            self._ends += islice(accumulate(sizes, initial=self._ends[-1] if self._ends else self._taken), 1, None)
            self._keys += keys
            self._values += values
            self._revisions += revisions
        return len(keys)

    @property
    def has_row(self) -> bool:
        """Whether the entries fill a row."""
        return bool(self._ends) and self._ends[-1] >= self._taken + PIECE_BYTES

    def take_row(self) -> tuple[list[bytes], list[bytes], list[int]]:
        """Remove and return keys, values and revisions of the next row: as many as fill it, or all."""
        cut = bisect_left(self._ends, self._taken + PIECE_BYTES) + 1
        row = (self._keys[:cut], self._values[:cut], self._revisions[:cut])
        self._taken = self._ends[:cut][-1]
        del self._keys[:cut], self._values[:cut], self._revisions[:cut], self._ends[:cut]
        return row


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

    def entry_then(self, key: bytes) -> Entry | None:
        """The entry of a key at that moment, as long as the cursor has not passed the key."""
        return self._then[key] if key in self._then else self._entries.get(key)

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
        entries = _ReadEntries()
        while True:
            if len(entries) < READ_AHEAD or not entries.has_row:
                self._read_some(entries)
            if entries.has_row or self._is_done:
                if not entries:
                    return
                yield pack(entries.take_row())

    def _read_some(self, entries: _ReadEntries) -> None:
        """Read about `KEYS_AT_ONCE` entries; fewer if there are not so many, or if many keys are new."""
        for _ in range(READS_MAX):
            if self._is_done or entries.add(*self._read()) > KEYS_AT_ONCE // 2:
                return

    @property
    def _is_done(self) -> bool:
        """Whether all keys of that moment were read."""
        return self._start > self._last

    def _read(self) -> tuple[list[bytes], list[Entry]]:
        """Move the cursor behind the next keys; return those that are not new, and their entries of that moment."""
        then = self._then
        found = [*islice(self._keys.irange(self._start, self._last), KEYS_AT_ONCE)]
        beside = [*islice(self._beside.irange(self._start, self._last), KEYS_AT_ONCE)]
        end = min([each[-1] for each in (found, beside) if len(each) == KEYS_AT_ONCE], default=self._last)
        if beside:
            found = sorted({*found, *beside})
            del found[bisect_right(found, end) :]
        self._start = end + b"\0"  # the key that follows it in byte order
        if not then:
            return found, [*map(self._entries.__getitem__, found)]
        found = [*compress(found, map(then.get, found, repeat(True)))]
        entries: list[Entry] = [*map(then.get, found, map(self._entries.get, found))]  # type: ignore[list-item]
        deque(map(then.pop, found, repeat(None)), maxlen=0)
        return found, entries
