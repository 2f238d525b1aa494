"""KeyValue: a map of keys to values, each with the revision at which it was last written (docs/protocol.rst)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import repeat

import msgpack
from sortedcontainers import SortedList
from zope.interface import implementer

from pfsb.applications.application import Application, Verb, not_understood
from pfsb.applications.arguments import (
    Arguments,
    Quoted,
    bounded_rows,
    integer_max,
    integer_min,
    key_bytes_max,
    paged_rows,
    parse_integer,
    quoted,
    refuse_other_format,
    rows_max,
    utf8_length,
)
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Done,
    DoneGrowing,
    Fields,
    GrowingText,
    IContext,
    IQuotaUser,
    IReplicatedApplication,
    Quotas,
    Refused,
    Result,
)

_snapshot_format = 1

UNSORTED_KEYS_MAX = 4_096
"""Maximum number of new keys that wait to be put into the sorted list. With few keys in the list, putting in all new
keys together costs a tenth of putting in each by itself; with a million keys it costs the same, some ten
milliseconds."""

GROWING_FROM_BYTES = 257
"""Minimum size of a value, in bytes, at which the reply cache keeps an answer to APPEND as a length only: as the
beginning of a text that all such answers for the key share (`GrowingText`). A shorter value is kept whole, which takes
less memory."""

_Entry = tuple[str, int, int, GrowingText | None]
"""(value, revision, bytes of the value in UTF-8, the text whose beginnings are kept answers or None)."""


@implementer(IReplicatedApplication, IQuotaUser)
class KeyValue(Application):
    """A map from key to value. Every command that changes it is atomic, and has one revision."""

    name = "kv"
    quota = "kv_bytes"
    commands: Sequence[CommandDescription] = (
        CommandDescription(
            "GET", "GET key [read=linearizable/sequential/stale]", "Show the value of a key.", changes=False
        ),
        CommandDescription("PUT", "PUT key value", "Set a key to a value."),
        CommandDescription("DEL", "DEL key [key ...]", "Remove keys, and tell how many there were."),
        CommandDescription("CAS", "CAS key old new", "Set a key if its value is old, or if it is absent: old = nil."),
        CommandDescription("INCR", "INCR key [n]", "Add 1 or n to an integer; an absent key counts as 0."),
        CommandDescription("APPEND", "APPEND key text", "Add text to the end of a value."),
        CommandDescription("PUTHASH", "PUTHASH key value", "Set a key to the FNV-1a hash of its old value and this."),
        CommandDescription("MPUT", "MPUT key value [key value ...]", "Set several keys, all or nothing."),
        CommandDescription("MGET", "MGET key [key ...]", "Show several keys, as of one moment.", changes=False),
        CommandDescription(
            "RANGE",
            "RANGE from to [limit=N]",
            'Show the keys from (included) to (excluded) in byte order; to = "": to the last. If one answer cannot '
            'hold them all, it says next="key": go on with from = that key.',
            changes=False,
        ),
        CommandDescription(
            "KEYS", "KEYS [from to] [limit=N]", "List keys without their values, all or as in RANGE.", changes=False
        ),
    )

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._used_bytes = 0
        """Bytes of UTF-8 of all keys and values, as a running sum: no command looks at more than it changes."""
        self._keys: SortedList[str] = SortedList()
        """Keys in the order of their UTF-8 bytes, without those in `_unsorted`; `_in_order` returns them all. Python
        compares text by code points, which gives the order of the UTF-8 bytes (but not of UTF-16).
        """
        self._unsorted: list[str] = []
        """New keys that are not in `_keys` yet."""
        super().__init__(
            {
                "GET": Verb(_check_key_only, (str, str), self._get),
                "PUT": Verb(_check_key_and_value, (str, str, str), self._put),
                "DEL": Verb(_check_del, (str, str, ...), self._del),
                "CAS": Verb(_check_cas, (str, str, int, str, str), self._cas),
                "INCR": Verb(_check_incr, (str, str, int), self._incr),
                "APPEND": Verb(_check_key_and_value, (str, str, str), self._append),
                "PUTHASH": Verb(_check_key_and_value, (str, str, str), self._put_hash),
                "MPUT": Verb(_check_mput, (str, ...), self._mput),
                "MGET": Verb(_check_mget, (str, ...), self._mget),
                "RANGE": Verb(_check_range, (str, str, str, int), self._range),
                "KEYS": Verb(_check_keys, (str, str, str, int), self._list_keys),
            }
        )

    def snapshot(self) -> bytes:
        """The state as msgpack: (format, keys in order, their values, their revisions).

        Keys, values and revisions are three lists, since one row for each key would make a tuple for each key.
        """
        keys = list(self._in_order())
        entries = [self._entries[key] for key in keys]
        columns = keys, [entry[0] for entry in entries], [entry[1] for entry in entries]
        data: bytes = msgpack.packb((_snapshot_format, *columns))
        return data

    def restore(self, data: bytes) -> None:
        """Replace the state by that of a snapshot. Raises `ValueError` for a snapshot of another format."""
        found, *columns = msgpack.unpackb(data)
        refuse_other_format(self.name, found, _snapshot_format)
        keys, values, revisions = columns
        self._entries.clear()  # before the new entries are made: memory may not hold a million keys twice
        sizes = [utf8_length(value) for value in values]
        self._entries = dict(zip(keys, zip(values, revisions, sizes, repeat(None)), strict=True))
        self._used_bytes = sum(sizes) + sum(map(utf8_length, keys))
        self._keys, self._unsorted = SortedList(keys), []

    def _put(self, command: Command, context: IContext) -> Result:
        _, key, value = command
        return self._write(key, value, context) or Done((("revision", context.revision),))

    def _del(self, command: Command, context: IContext) -> Result:
        """Run DEL. A key that is given twice counts once."""
        deleted = 0
        for key in command[1:]:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._used_bytes -= utf8_length(key) + entry[2]
                self._in_order().remove(key)
                deleted += 1
        return Done((("deleted", deleted), ("revision", context.revision)))

    def _cas(self, command: Command, context: IContext) -> Result:
        _, key, must_exist, old, new = command
        entry = self._entries.get(key)
        if must_exist and entry is None:
            return Refused("CONFLICT", f"there is no key {quoted(key)}")
        if entry is not None and not (must_exist and entry[0] == old):
            wanted = quoted(old) if must_exist else "absent"
            return Refused("CONFLICT", f"key {quoted(key)} is {quoted(entry[0])}, not {wanted}")
        return self._write(key, new, context) or Done((("revision", context.revision),))

    def _incr(self, command: Command, context: IContext) -> Result:
        _, key, step = command
        old = self._value(key, "0")
        number = parse_integer(old)
        if number is None:
            return Refused("CONFLICT", f"key {quoted(key)} is {quoted(old)}, which is no integer of 64 bits")
        if not integer_min <= number + step <= integer_max:
            return Refused("CONFLICT", f"key {quoted(key)} is {old}; adding {step} leaves the 64 bits of an integer")
        value = str(number + step)
        return self._write(key, value, context) or Done((("value", value), ("revision", context.revision)))

    def _append(self, command: Command, context: IContext) -> Result:
        _, key, text = command
        entry = self._entries.get(key)
        if entry is None:
            return self._write(key, text, context) or Done((("value", text), ("revision", context.revision)))
        value, growth = entry[0] + text, len(text.encode())
        size, growing = entry[2] + growth, entry[3]
        quotas, used = context.quotas, self._used_bytes + growth
        if growth and (size > quotas.value_bytes or used > quotas.kv_bytes):
            return self._refused(key, size, growth, quotas)
        self._used_bytes = used
        if size >= GROWING_FROM_BYTES:
            growing = growing or GrowingText("", 0)
            growing.grow(value, size)
        self._entries[key] = (value, context.revision, size, growing)
        fields = (("value", value), ("revision", context.revision))
        return Done(fields) if growing is None else DoneGrowing(fields, growing=growing)

    def _put_hash(self, command: Command, context: IContext) -> Result:
        _, key, value = command
        previous = self._value(key, "")
        hashed = str(fnv1a_32((previous + value).encode()))
        done = Done((("previous", previous), ("revision", context.revision)))
        return self._write(key, hashed, context) or done

    def _mput(self, command: Command, context: IContext) -> Result:
        """Run MPUT. A key that is given twice gets the later value.

        The quotas are compared with what all keys together make of the state, before the first one is written.
        """
        if len(command) < 3 or len(command) % 2 == 0:
            return not_understood(command)
        quotas, revision = context.quotas, context.revision
        growth, entries = 0, {}
        for key, value in dict(zip(command[1::2], command[2::2], strict=True)).items():
            size, old = utf8_length(value), self._entries.get(key)
            added = size - old[2] if old is not None else size + utf8_length(key)
            if added > 0 and size > quotas.value_bytes:
                return self._refused(key, size, added, quotas)
            growth += added
            entries[key] = value, revision, size, None
        if growth > 0 and self._used_bytes + growth > quotas.kv_bytes:
            return self._refused("", 0, growth, quotas)
        self._used_bytes += growth
        for key, entry in entries.items():
            self._put_entry(key, entry)
        return Done((("revision", revision),))

    def _get(self, command: Command) -> Result:
        entry = self._entries.get(command[1])
        if entry is None:
            return Refused("NOTFOUND", f"there is no key {quoted(command[1])}")
        return Done((("value", entry[0]), ("revision", entry[1])))

    def _mget(self, command: Command) -> Result:
        """Answer MGET: a row for each key that exists, in the order of the command."""
        return bounded_rows(tuple(self._row(key) for key in command[1 : rows_max + 1] if key in self._entries))

    def _range(self, command: Command) -> Result:
        return self._page(command, self._row)

    def _list_keys(self, command: Command) -> Result:
        return self._page(command, _key_only_row)

    def _page(self, command: Command, row: Callable[[str], Fields]) -> Result:
        _, first, end, limit = command
        return paged_rows(map(row, self._in_order().irange(first, end or None, (True, False))), limit)

    def _row(self, key: str) -> Fields:
        value, revision, *_ = self._entries[key]
        return (("key", key), ("value", value), ("revision", revision))

    def _value(self, key: str, default: str) -> str:
        entry = self._entries.get(key)
        return default if entry is None else entry[0]

    def _write(self, key: str, value: str, context: IContext) -> Refused | None:
        """Set a key. Returns a refusal, and changes nothing, if the state would grow beyond a quota.

        This method runs for each PUT, so it is written without calls of other methods where nothing is new or refused.
        """
        size = growth = len(value.encode())
        entry = self._entries.get(key)
        if entry is None:
            growth += utf8_length(key)
        else:
            growth -= entry[2]
            if not growth:
                self._entries[key] = (value, context.revision, size, None)
                return None
        return self._store(key, (value, context.revision, size, None), growth, context.quotas)

    def _store(self, key: str, entry: _Entry, growth: int, quotas: Quotas) -> Refused | None:
        """Set a key to an entry by which the state grows by `growth` bytes; None if it is set.

        Returns a refusal, and changes nothing, if the state grows and the value or the state exceeds its quota.
        """
        if growth > 0 and (entry[2] > quotas.value_bytes or self._used_bytes + growth > quotas.kv_bytes):
            return self._refused(key, entry[2], growth, quotas)
        self._used_bytes += growth
        self._put_entry(key, entry)
        return None

    def _put_entry(self, key: str, entry: _Entry) -> None:
        if key not in self._entries:
            self._unsorted.append(key)
            if len(self._unsorted) > UNSORTED_KEYS_MAX:
                self._in_order()
        self._entries[key] = entry

    def used(self) -> int:
        return self._used_bytes

    def _refused(self, key: str, size: int, growth: int, quotas: Quotas) -> Refused:
        """The refusal of a value of `size` bytes for `key`, or of one by which the state grows by `growth` bytes."""
        if size > quotas.value_bytes:
            text = f"key {quoted(key)} would have {size} bytes, {quotas.value_bytes} are allowed (value_bytes)"
            return Refused("TOOLARGE", text)
        return Refused(
            "TOOLARGE",
            f"keys and values have {self._used_bytes} bytes, this command would add {growth}, and kv_bytes allows "
            f"{quotas.kv_bytes}: delete keys, or have that setting raised",
        )

    def _in_order(self) -> SortedList[str]:
        if self._unsorted:
            self._keys.update(self._unsorted)
            self._unsorted = []
        return self._keys


def fnv1a_32(data: bytes) -> int:
    """The 32-bit FNV-1a hash of `data` (Fowler, Noll, Vo; draft-eastlake-fnv)."""
    digest = 2_166_136_261
    for byte in data:
        digest = ((digest ^ byte) * 16_777_619) & 0xFFFFFFFF
    return digest


def _key_only_row(key: str) -> Fields:
    return (("key", key),)


def _check_key_only(asked: Arguments) -> Command:
    (key,) = asked.words(1, 1)
    return (asked.verb, asked.key(key))


def _check_del(asked: Arguments) -> Command:
    return ("DEL", *map(asked.key, asked.words(1, rows_max)))


def _check_key_and_value(asked: Arguments) -> Command:
    key, value = asked.words(2, 2)
    return (asked.verb, asked.key(key), asked.value(value))


def _check_cas(asked: Arguments) -> Command:
    """Check CAS. The normalised command is (CAS, key, 1, old, new), or (CAS, key, 0, "", new) for an absent key."""
    key, old, new = asked.words(3, 3)
    if old == "nil" and not isinstance(old, Quoted):
        return ("CAS", asked.key(key), 0, "", asked.value(new))
    return ("CAS", asked.key(key), 1, asked.value(old, "old value"), asked.value(new, "new value"))


def _check_incr(asked: Arguments) -> Command:
    key, *step = asked.words(1, 2)
    return ("INCR", asked.key(key), asked.integer(step[0], "n") if step else 1)


def _check_mput(asked: Arguments) -> Command:
    words = asked.words(2, math.inf)
    if len(words) % 2:
        raise asked.refused(f"the last key, {quoted(words[-1])}, has no value")
    pairs = zip(words[::2], words[1::2], strict=True)
    return ("MPUT", *(word for key, value in pairs for word in (asked.key(key), asked.value(value))))


def _check_mget(asked: Arguments) -> Command:
    return ("MGET", *map(asked.key, asked.words(1, rows_max)))


def _check_range(asked: Arguments) -> Command:
    first, end = asked.words(2, 2, options=("limit",))
    return ("RANGE", *_bounds(asked, first, end), asked.limit())


def _check_keys(asked: Arguments) -> Command:
    words = asked.words(0, 2, options=("limit",))
    if len(words) == 1:
        raise asked.refused("KEYS takes both from and to, or neither")
    return ("KEYS", *_bounds(asked, *words or ("", "")), asked.limit())


def _bounds(asked: Arguments, first: str, end: str) -> tuple[str, str]:
    return asked.text(first, "from", key_bytes_max), asked.text(end, "to", key_bytes_max)
