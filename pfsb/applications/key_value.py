"""KeyValue: a map of keys to values, each with the revision at which it was last written (docs/protocol.rst).

Keys and values are any bytes: in commands from `check` on, in the state, in snapshots and in answers. Clients send them
as text, which is UTF-8 here, or as bytes (`Data`); front ends that have only text make it of an answer (`text_of`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from operator import itemgetter
from types import MappingProxyType

from sortedcontainers import SortedList
from zope.interface import implementer

from pfsb.applications.application import Verb, not_understood
from pfsb.applications.arguments import (
    Arguments,
    Quoted,
    bounded_rows,
    decoded,
    integer_in,
    integer_max,
    integer_min,
    key_bytes_max,
    paged_rows,
    parse_integer,
    quoted,
    rows_max,
    rows_of_limit,
    value_bytes_max,
)
from pfsb.applications.frozen_keys import Entry, FrozenKeys
from pfsb.applications.interfaces import (
    Command,
    CommandDescription,
    Done,
    DoneGrowing,
    Fields,
    GrowingBytes,
    IContext,
    IGrowingValues,
    IPlainChecker,
    IQuotaUser,
    IRunExecutor,
    Quotas,
    Refused,
    Result,
)
from pfsb.applications.pieces import PiecewiseApplication

UNSORTED_KEYS_MAX = 4_096
"""Maximum number of new keys that wait to be put into the sorted list. With few keys in the list, putting in all new
keys together costs a tenth of putting in each by itself; with a million keys it costs the same, some ten
milliseconds."""

GROWING_FROM_BYTES = 257
"""Minimum size of a value, in bytes, at which the reply cache keeps an answer to APPEND as a length only: as the
beginning of bytes that all such answers for the key share (`GrowingBytes`). A shorter value is kept whole, which takes
less memory."""

BYTES_PER_ROW = 2_048
"""Number of bytes of a value that count as one row, when the work of a command that makes a new value of a key's
present one is told in rows (`work_in_rows`)."""

MPUT_BYTES_MAX = 56_000
"""Maximum number of bytes of the keys and values of one MPUT, where each key and each value counts two bytes more than
it has.

A key of one byte takes two bytes in a line of a client, but three in a bundle. So an MPUT of very many such keys could
be too large for a frame, although its line is not longer than `command_bytes`. Under the default of `command_bytes` no
MPUT reaches this limit.
"""

_CONDITIONAL = ("PUT", "DEL", "CAS", "INCR", "APPEND", "PUTHASH", "MPUT")
"""Verbs of the commands that IF runs. It runs no other IF: nested ones could be deeper than Python's stack."""

_THREE_PARTS = {3}
_ONLY_BYTES = {bytes}
_value_of = itemgetter(0)


@implementer(IQuotaUser, IRunExecutor, IPlainChecker, IGrowingValues)
class KeyValue(PiecewiseApplication[FrozenKeys]):
    """A map from key to value. Every command that changes it is atomic, and has one revision."""

    name = "kv"
    snapshot_format = 2
    quota = "kv_bytes"
    run_verbs = ("PUT",)
    plain_words: Mapping[str, int] = MappingProxyType(
        {"GET": 1, "PUT": 2, "DEL": 1, "INCR": 1, "APPEND": 2, "PUTHASH": 2}
    )
    commands: Sequence[CommandDescription] = (
        CommandDescription(
            "GET",
            "GET key [read=linearizable/sequential/stale] [at=REVISION]",
            "Show the value of a key, or with at= the value that it had at an earlier revision.",
            changes=False,
        ),
        CommandDescription("PUT", "PUT key value", "Set a key to a value."),
        CommandDescription("DEL", "DEL key [key ...]", "Remove keys, and tell how many there were.", shrinks=True),
        CommandDescription("CAS", "CAS key old new", "Set a key if its value is old, or if it is absent: old = nil."),
        CommandDescription("INCR", "INCR key [n]", "Add 1 or n to an integer; an absent key counts as 0."),
        CommandDescription("APPEND", "APPEND key text", "Add text to the end of a value."),
        CommandDescription("PUTHASH", "PUTHASH key value", "Set a key to the FNV-1a hash of its old value and this."),
        CommandDescription("MPUT", "MPUT key value [key value ...]", "Set several keys, all or nothing."),
        CommandDescription(
            "IF",
            "IF key revision command...",
            "Run a command that changes keys if this key was last written at the revision; 0: if it is absent, any: if "
            "it is there.",
            inner_at=3,
        ),
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
        self.entries: dict[bytes, Entry] = {}
        """Key -> (value, revision at which it was set, the `GrowingBytes` that its answers to APPEND share, or None if
        there is none)."""
        self.used_bytes = 0
        """Number of bytes of all keys and values, which the quota `kv_bytes` bounds. It is a running sum, so a command
        looks at no more keys than it changes."""
        self._keys: SortedList[bytes] = SortedList()
        """The keys in order, except the new ones in `_unsorted`. The method `_in_order` puts those in their places
        first."""
        self._unsorted: list[bytes] = []
        """New keys that are not in `_keys` yet."""
        self.work_in_rows = {
            "RANGE": rows_of_limit,
            "KEYS": rows_of_limit,
            "MGET": lambda command: len(command) - 1,
            "APPEND": self._work_with_value,
            "PUTHASH": self._work_with_value,
            "IF": self._work_of_inner,
        }
        super().__init__(
            {
                "GET": Verb(_check_key_only, (str, bytes), self._get),
                "PUT": Verb(_check_key_and_value, (str, bytes, bytes), self._put),
                "DEL": Verb(_check_del, (str, bytes, ...), self._del),
                "CAS": Verb(_check_cas, (str, bytes, int, bytes, bytes), self._cas),
                "INCR": Verb(_check_incr, (str, bytes, int), self._incr),
                "APPEND": Verb(_check_key_and_value, (str, bytes, bytes), self._append),
                "PUTHASH": Verb(_check_key_and_value, (str, bytes, bytes), self._put_hash),
                "MPUT": Verb(_check_mput, (str, bytes, ...), self._mput),
                "IF": Verb(self._check_if, (str, bytes, int, str, object, ...), self._if),
                "MGET": Verb(_check_mget, (str, bytes, ...), self._mget),
                "RANGE": Verb(_check_range, (str, bytes, bytes, int), self._range),
                "KEYS": Verb(_check_keys, (str, bytes, bytes, int), self._list_keys),
            }
        )

    def state_now(self) -> FrozenKeys:
        return FrozenKeys(self.entries, self._keys, self._unsorted)

    def begin(self, head: Sequence[object]) -> None:
        self.entries = {}
        self.used_bytes = 0
        self._keys, self._unsorted = SortedList(), []

    def take_rows(self, rows: Sequence[tuple[Sequence[bytes], Sequence[bytes], Sequence[int]]]) -> None:
        for keys, values, revisions in rows:
            self.entries.update(zip(keys, zip(values, revisions, repeat(None)), strict=True))
            self.used_bytes += sum(map(len, keys)) + sum(map(len, values))
            self._keys.update(keys)

    def growing_at(self, key: bytes) -> GrowingBytes | None:
        entry = self.entries.get(key)
        return None if entry is None else entry[2]

    def growing_then(self, key: bytes) -> GrowingBytes | None:
        frozen = self._frozen
        if frozen is None:
            return self.growing_at(key)
        entry = frozen.entry_then(key)
        return None if entry is None else entry[2]

    def share(self, key: bytes, growing: GrowingBytes) -> None:
        entry = self.entries.get(key)
        if entry is None:
            raise ValueError(f"there is no key {quoted(key)}, which answers share")
        value, revision, _ = entry
        growing.key, growing.data = key, value
        self.entries[key] = (value, revision, growing)

    def check_plain(self, verb: str, columns: Sequence[Sequence[bytes]]) -> Sequence[Command] | None:
        """Check commands of one verb together: `columns` has all their keys, and if the verb takes a value, all their
        values (`IPlainChecker.check_plain`). None if one of them is too long.

        Words of ASCII have the same bytes in UTF-8, so that only their lengths need a check.
        """
        if max(map(len, columns[0])) > key_bytes_max:
            return None
        if len(columns) == 1:
            return [*zip(repeat(verb), columns[0], repeat(1))] if verb == "INCR" else [*zip(repeat(verb), columns[0])]
        if max(map(len, columns[1])) > value_bytes_max:
            return None
        return [*zip(repeat(verb), *columns)]

    def _put(self, command: Command, context: IContext) -> Result:
        _, key, value = command
        return self._write(key, value, context) or Done((("revision", context.revision),))

    def execute_run(self, commands: Sequence[Command], context: IContext) -> bool:
        """Set the keys of several PUTs.

        Returns False if a command has other types than PUT has, or if a quota might be reached. Values that the new
        ones replace are not looked at before all commands are known to fit: the sum of all keys and values is compared
        with the room that is left. All loops over the commands are inside functions of the interpreter: so a PUT takes
        a twentieth of the byte code that it takes by itself.
        """
        if {*map(len, commands)} != _THREE_PARTS:
            return False
        _, keys, values = zip(*commands, strict=True)
        if {*map(type, chain(keys, values))} != _ONLY_BYTES:
            return False
        quotas, entries = context.quotas, self.entries
        if max(map(len, values)) > quotas.value_bytes:
            return False
        if self.used_bytes + sum(map(len, keys)) + sum(map(len, values)) > quotas.kv_bytes:
            return False
        revisions = range(context.revision, context.revision + len(keys))
        new = dict(zip(keys, zip(values, revisions, repeat(None)), strict=False))  # of equal keys the last one counts
        replaced = [*filter(None, map(entries.get, new))]
        growth = sum(map(len, map(_value_of, new.values()))) - sum(map(len, map(_value_of, replaced)))
        if len(replaced) < len(new):
            added = [key for key in new if key not in entries]
            growth += sum(map(len, added))
            self._unsorted += added
            if len(self._unsorted) > UNSORTED_KEYS_MAX:
                self._in_order()
        self.used_bytes += growth
        if self._frozen is not None:
            self._frozen.keep_all(new)
        entries.update(new)
        return True

    def _del(self, command: Command, context: IContext) -> Result:
        """Run DEL. A key that is given twice counts once."""
        deleted = 0
        for key in command[1:]:
            entry = self.entries.pop(key, None)
            if entry is not None:
                if self._frozen is not None:
                    self._frozen.keep_deleted(key, entry)
                self.used_bytes -= len(key) + len(entry[0])
                self._in_order().remove(key)
                deleted += 1
        return Done((("deleted", deleted), ("revision", context.revision)))

    def _cas(self, command: Command, context: IContext) -> Result:
        _, key, must_exist, old, new = command
        entry = self.entries.get(key)
        if must_exist and entry is None:
            return Refused("CONFLICT", f"there is no key {quoted(key)}")
        if entry is not None and not (must_exist and entry[0] == old):
            wanted = quoted(old) if must_exist else "absent"
            return Refused("CONFLICT", f"key {quoted(key)} is {quoted(entry[0])}, not {wanted}")
        return self._write(key, new, context) or Done((("revision", context.revision),))

    def _incr(self, command: Command, context: IContext) -> Result:
        _, key, step = command
        old = self._value(key, b"0")
        number = integer_in(old)
        if number is None:
            return Refused("CONFLICT", f"key {quoted(key)} is {quoted(old)}, which is no integer of 64 bits")
        if not integer_min <= number + step <= integer_max:
            return Refused(
                "CONFLICT", f"key {quoted(key)} is {decoded(old)}; adding {step} leaves the 64 bits of an integer"
            )
        value = b"%d" % (number + step)
        return self._write(key, value, context) or Done((("value", value), ("revision", context.revision)))

    def _append(self, command: Command, context: IContext) -> Result:
        _, key, text = command
        entry = self.entries.get(key)
        if entry is None:
            return self._write(key, text, context) or Done((("value", text), ("revision", context.revision)))
        value, growth, growing = entry[0] + text, len(text), entry[2]
        size = len(value)
        quotas, used = context.quotas, self.used_bytes + growth
        if growth and (size > quotas.value_bytes or used > quotas.kv_bytes):
            return self._refused(key, size, growth, quotas)
        self.used_bytes = used
        if size >= GROWING_FROM_BYTES:
            growing = growing or GrowingBytes(key=key)
            growing.data = value
        if self._frozen is not None:
            self._frozen.keep(key, entry)
        self.entries[key] = (value, context.revision, growing)
        fields = (("value", value), ("revision", context.revision))
        return Done(fields) if growing is None else DoneGrowing(fields, growing=growing)

    def _put_hash(self, command: Command, context: IContext) -> Result:
        _, key, value = command
        previous = self._value(key, b"")
        hashed = b"%d" % fnv1a_32(previous + value)
        done = Done((("previous", previous), ("revision", context.revision)))
        return self._write(key, hashed, context) or done

    def _mput(self, command: Command, context: IContext) -> Result:
        """Run MPUT. A key that is given twice gets the later value.

        Before the first key is set, the quotas are compared with the size that the state will have with all of them.
        """
        if len(command) < 3 or len(command) % 2 == 0:
            return not_understood(command)
        quotas, revision = context.quotas, context.revision
        growth, entries = 0, {}
        for key, value in dict(zip(command[1::2], command[2::2], strict=True)).items():
            size, old = len(value), self.entries.get(key)
            added = size - len(old[0]) if old is not None else size + len(key)
            if added > 0 and size > quotas.value_bytes:
                return self._refused(key, size, added, quotas)
            growth += added
            entries[key] = value, revision, None
        if growth > 0 and self.used_bytes + growth > quotas.kv_bytes:
            return self._refused(b"", 0, growth, quotas)
        self.used_bytes += growth
        for key, entry in entries.items():
            self._put_entry(key, entry)
        return Done((("revision", revision),))

    def _check_if(self, asked: Arguments) -> Command:
        """Check IF. The normalised command is (IF, key, revision, VERB, argument, ...), where the normalised command
        that is to be run stands at the end. The revision -1 stands for any."""
        key, revision, verb, *rest = asked.words(3, math.inf)
        if verb.upper() not in _CONDITIONAL:
            raise asked.refused(f"IF runs one of {', '.join(_CONDITIONAL)}, and not {quoted(verb)}")
        number = -1 if revision == "any" else parse_integer(revision)
        if number is None or (number < 0 and revision != "any"):
            raise asked.refused(f"the revision is a number from 0 on or any, and not {quoted(revision)}")
        return ("IF", asked.key_bytes(key), number, *self.check((verb.upper(), *rest)))

    def _if(self, command: Command, context: IContext) -> Result:
        """Run the command at the end of `command`, if its condition holds: the key was last written at the revision
        that `command` names; for the revision 0 the key is absent, for -1 it is there. Otherwise refuse it
        (PRECONDITION)."""
        _, key, revision, *inner = command
        if inner[0] not in _CONDITIONAL:
            return not_understood(tuple(inner))
        entry = self.entries.get(key)
        found = 0 if entry is None else entry[1]
        if found == revision or (revision < 0 and found):
            result: Result = self.execute(tuple(inner), context)
            return result
        if entry is None:
            return Refused("PRECONDITION", f"there is no key {quoted(key)}")
        if revision == 0:
            return Refused("PRECONDITION", f"there is a key {quoted(key)} already")
        return Refused("PRECONDITION", f"key {quoted(key)} has revision {found}, not {revision}")

    def _get(self, command: Command) -> Result:
        entry = self.entries.get(command[1])
        if entry is None:
            return Refused("NOTFOUND", f"there is no key {quoted(command[1])}")
        return Done((("value", entry[0]), ("revision", entry[1])))

    def _mget(self, command: Command) -> Result:
        """Answer MGET: a row for each key that exists, in the order of the command."""
        return bounded_rows(tuple(self._row(key) for key in command[1 : rows_max + 1] if key in self.entries))

    def _range(self, command: Command) -> Result:
        return self._page(command, self._row)

    def _list_keys(self, command: Command) -> Result:
        return self._page(command, _key_only_row)

    def _page(self, command: Command, row: Callable[[bytes], Fields]) -> Result:
        _, first, end, limit = command
        return paged_rows(map(row, self._in_order().irange(first, end or None, (True, False))), limit)

    def _row(self, key: bytes) -> Fields:
        value, revision, *_ = self.entries[key]
        return (("key", key), ("value", value), ("revision", revision))

    def _value(self, key: bytes, default: bytes) -> bytes:
        entry = self.entries.get(key)
        return default if entry is None else entry[0]

    def _work_with_value(self, command: Command) -> int:
        """How much work, in rows, a command that changes the value of its key on the base of the present one is: every
        server copies the present value, however short the command is."""
        entry = self.entries.get(command[1])
        return 0 if entry is None else len(entry[0]) // BYTES_PER_ROW

    def _work_of_inner(self, command: Command) -> int:
        """How much work the command is that IF runs. Whether IF will run it is not known yet."""
        inner = command[3:]
        work = self.work_in_rows.get(inner[0])
        return 0 if work is None else work(inner)

    def _write(self, key: bytes, value: bytes, context: IContext) -> Refused | None:
        """Set a key, and return None. If the state would grow beyond a quota, return a refusal, and change nothing.

        This method runs for each PUT, so it is written without calls of other methods where nothing is new or refused.
        """
        entry = self.entries.get(key)
        if entry is None:
            growth = len(key) + len(value)
        else:
            growth = len(value) - len(entry[0])
            if not growth:
                if self._frozen is not None:
                    self._frozen.keep(key, entry)
                self.entries[key] = (value, context.revision, None)
                return None
        return self._store(key, (value, context.revision, None), growth, context.quotas)

    def _store(self, key: bytes, entry: Entry, growth: int, quotas: Quotas) -> Refused | None:
        """Give a key the entry `entry`, by which the state grows by `growth` bytes, and return None.

        If the state would grow, and the value or the state would exceed its quota, return a refusal instead, and change
        nothing.
        """
        if growth > 0 and (len(entry[0]) > quotas.value_bytes or self.used_bytes + growth > quotas.kv_bytes):
            return self._refused(key, len(entry[0]), growth, quotas)
        self.used_bytes += growth
        self._put_entry(key, entry)
        return None

    def _put_entry(self, key: bytes, entry: Entry) -> None:
        if key not in self.entries:
            self._unsorted.append(key)
            if len(self._unsorted) > UNSORTED_KEYS_MAX:
                self._in_order()
        if self._frozen is not None:
            self._frozen.keep(key, self.entries.get(key))
        self.entries[key] = entry

    def used(self) -> int:
        return self.used_bytes

    def _refused(self, key: bytes, size: int, growth: int, quotas: Quotas) -> Refused:
        """The refusal of a command that would give `key` a value of `size` bytes and let the state grow by `growth`
        bytes. Its text names the quota that would be exceeded: that of one value or that of the state."""
        if size > quotas.value_bytes:
            text = f"key {quoted(key)} would have {size} bytes, {quotas.value_bytes} are allowed (value_bytes)"
            return Refused("TOOLARGE", text)
        return Refused(
            "TOOLARGE",
            f"keys and values have {self.used_bytes} bytes, this command would add {growth}, and kv_bytes allows "
            f"{quotas.kv_bytes}: delete keys, or have that setting raised",
        )

    def _in_order(self) -> SortedList[bytes]:
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


def _key_only_row(key: bytes) -> Fields:
    return (("key", key),)


def _check_key_only(asked: Arguments) -> Command:
    (key,) = asked.words(1, 1)
    return (asked.verb, asked.key_bytes(key))


def _check_del(asked: Arguments) -> Command:
    return ("DEL", *map(asked.key_bytes, asked.words(1, rows_max)))


def _check_key_and_value(asked: Arguments) -> Command:
    key, value = asked.words(2, 2)
    return (asked.verb, asked.key_bytes(key), asked.utf8(value, "value"))


def _check_cas(asked: Arguments) -> Command:
    """Check CAS. The normalised command is (CAS, key, 1, old, new), or (CAS, key, 0, b"", new) for an absent key."""
    key, old, new = asked.words(3, 3)
    if old == "nil" and not isinstance(old, Quoted):
        return ("CAS", asked.key_bytes(key), 0, b"", asked.utf8(new, "value"))
    return ("CAS", asked.key_bytes(key), 1, asked.utf8(old, "old value"), asked.utf8(new, "new value"))


def _check_incr(asked: Arguments) -> Command:
    key, *step = asked.words(1, 2)
    return ("INCR", asked.key_bytes(key), asked.integer(step[0], "n") if step else 1)


def _check_mput(asked: Arguments) -> Command:
    words = asked.words(2, math.inf)
    if len(words) % 2:
        raise asked.refused(f"the last key, {quoted(words[-1])}, has no value")
    pairs = zip(words[::2], words[1::2], strict=True)
    data = [word for key, value in pairs for word in (asked.key_bytes(key), asked.utf8(value, "value"))]
    size = sum(map(len, data)) + 2 * len(data)
    if size > MPUT_BYTES_MAX:
        text = f"the keys and values take {size} bytes in all, {MPUT_BYTES_MAX} are allowed: set fewer at a time"
        raise asked.refused(text, "TOOLARGE")
    return ("MPUT", *data)


def _check_mget(asked: Arguments) -> Command:
    asked.refuse_options("at", "limit")
    return ("MGET", *map(asked.key_bytes, asked.words(1, rows_max)))


def _check_range(asked: Arguments) -> Command:
    asked.refuse_options("at")
    first, end = asked.words(2, 2, options=("limit",))
    return ("RANGE", *_bounds(asked, first, end), asked.limit())


def _check_keys(asked: Arguments) -> Command:
    asked.refuse_options("at")
    words = asked.words(0, 2, options=("limit",))
    if len(words) == 1:
        raise asked.refused("KEYS takes both from and to, or neither")
    return ("KEYS", *_bounds(asked, *words or ("", "")), asked.limit())


def _bounds(asked: Arguments, first: str, end: str) -> tuple[bytes, bytes]:
    return asked.utf8(first, "from", key_bytes_max), asked.utf8(end, "to", key_bytes_max)
