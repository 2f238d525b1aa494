"""Calls to the applications of a cluster as values: each has the line to send, and the function that reads its reply.

The public functions here make a call without sending it. For each of them a clerk has a method that makes the call and
carries it out. Calls as values can be given to a clerk's `run_all`, which carries them out together.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar, get_args

from attrs import field, frozen

from pfsb.client.clerks.errors import BadCall, ServerFault, error_of
from pfsb.client.core.replies import Reply, read_fields

T = TypeVar("T")

ReadLevel = Literal["linearizable", "sequential", "stale"]
"""How a question is answered (docs/protocol.rst, *Reads*)."""
READ_LEVELS: Final[tuple[str, ...]] = get_args(ReadLevel)

_VERB: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_OPTION: Final = re.compile(r"[^\s=\"]+")


def _as_one_line(_call: object, _attribute: object, line: str) -> None:
    if not isinstance(line, str) or "\n" in line:
        # A server would take the rest for a command of its own, and the client would take its reply for another one.
        raise BadCall(f"a call is one line of text, and not {line!r:.80}", "BADREQUEST", "none")


@frozen
class Call(Generic[T]):
    """One command for a cluster, with the function that makes a result of type T from the reply to it."""

    line: str = field(validator=_as_one_line)
    _read: Callable[[Reply], T]
    """Function that makes the result of a reply that is OK, or of a refusal whose code is in `forgiven`. Called by
    `read`."""
    forgiven: frozenset[str] = frozenset()
    """Codes of those refusals that give a result of this call (as NOTFOUND gives None) instead of an error."""
    is_question: bool = False
    """True if the program says that this command of another application changes nothing. For commands of pfsb's own
    applications it is False: the client library knows from the verb which of them are questions."""

    def read(self, reply: Reply) -> T:
        """The result that the reply to this call stands for. Raises a `ClerkError` for a refusal whose code is not
        among `forgiven`.

        Also raises one for an OK reply without the fields that every pfsb server sends with it.
        """
        if not reply.ok and reply.code not in self.forgiven:
            raise error_of(reply)
        try:
            return self._read(reply)
        except (KeyError, ValueError) as error:
            raise ServerFault(f"no pfsb server replies so: {reply.line}", "BADREPLY", "done") from error


@frozen
class Entry:
    """A key with the value and revision that it had at one moment.

    A key and a value are any bytes. As a str they are the text of these bytes in UTF-8; bytes that are not UTF-8 become
    halves of surrogate pairs, as in `os.fsdecode`. Each call takes such a str, too, and so gives back what it got.
    """

    key: str
    value: str
    revision: int
    """The revision at which the key was last written."""

    @property
    def key_bytes(self) -> bytes:
        """The bytes of the key."""
        return self.key.encode(errors="surrogateescape")

    @property
    def value_bytes(self) -> bytes:
        """The bytes of the value."""
        return self.value.encode(errors="surrogateescape")


@frozen
class ChatLine:
    """One line of the chat; `index` counts from 1, without gaps."""

    index: int
    client: str
    text: str


def get(key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> Call[str | None]:
    """Get the value of a key; the result is None if it is absent. `read` is linearizable, sequential or stale.

    With `at`, a revision, the value is the one that the key had then, and `read` does not count: `NotKept` is raised if
    the servers do not have that revision any more. A value that is not UTF-8 becomes the str that `Entry` describes;
    `get_bytes` gives it as bytes.
    """
    return Call(_line("GET", key) + _level_or_revision(read, at), _value_or_none, frozenset({"NOTFOUND"}))


def get_bytes(key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> Call[bytes | None]:
    """Get the bytes of the value of a key; the result is None if it is absent. `read` and `at` are as in `get`."""

    def made(reply: Reply) -> bytes | None:
        return str(reply.fields["value"]).encode(errors="surrogateescape") if reply.ok else None

    return Call(_line("GET", key) + _level_or_revision(read, at), made, frozenset({"NOTFOUND"}))


def entry(key: str | bytes, *, read: ReadLevel = "linearizable", at: int | None = None) -> Call[Entry | None]:
    """Get the value of a key and the revision at which it was written; the result is None if the key is absent.
    `read` and `at` are as in `get`."""

    def made(reply: Reply) -> Entry | None:
        fields = reply.fields
        return Entry(_text_of(key), str(fields["value"]), int(fields["revision"])) if reply.ok else None

    return Call(_line("GET", key) + _level_or_revision(read, at), made, frozenset({"NOTFOUND"}))


def put(key: str | bytes, value: str | bytes) -> Call[int]:
    """Set a key; the result is the revision of this change."""
    return Call(_line("PUT", key, value), _number("revision"))


def delete(key: str | bytes) -> Call[bool]:
    """Remove a key; the result says whether it existed."""
    return Call(_line("DEL", key), lambda reply: bool(reply.fields["deleted"]))


def cas(key: str | bytes, old: str | bytes | None, new: str | bytes) -> Call[bool]:
    """Compare and set: give a key the value `new` if its value is `old`, or for `old` None if the key is absent; the
    result says whether the key was set."""
    expected = "nil" if old is None else _quoted(old)
    return Call(f"CAS {_quoted(key)} {expected} {_quoted(new)}", lambda reply: reply.ok, frozenset({"CONFLICT"}))


def if_revision(key: str | bytes, revision: int | Literal["any"], call: Call[T]) -> Call[T | None]:
    """Compare and set by revision: carry out `call`, which sets or removes keys, if `key` was last written at
    `revision`; 0: if it is absent, "any": if it is there.

    The result is that of `call`; None if `key` was last written at another revision, and nothing was changed.
    """
    if revision != "any" and _whole("revision", revision) < 0:
        raise _wrong("revision", revision, 'an int from 0 on, or "any"')
    if not isinstance(call, Call):
        raise _wrong("call", call, "a call, as calls.put makes one")

    def made(reply: Reply) -> T | None:
        return None if reply.code == "PRECONDITION" else call.read(reply)

    return Call(f"IF {_quoted(key)} {revision} {call.line}", made, call.forgiven | {"PRECONDITION"})


def incr(key: str | bytes, by: int = 1) -> Call[int]:
    """Add `by` to the integer at a key, or to 0 if the key is absent; the result is the sum.

    Fails with `StateError` if the value is no integer.
    """
    return Call(f"INCR {_quoted(key)} {_whole('by', by)}", _number("value"))


def append(key: str | bytes, text: str | bytes) -> Call[str]:
    """Append text to the value of a key; the result is the new value."""
    return Call(_line("APPEND", key, text), _text("value"))


def puthash(key: str | bytes, value: str | bytes) -> Call[str]:
    """Set a key to a hash of its old value: the 32-bit FNV-1a hash of the old value followed by `value`, in decimal
    digits.

    The result is the old value; "" if the key was absent.
    """
    return Call(_line("PUTHASH", key, value), _text("previous"))


def mput(values: Mapping[str, str | bytes] | Mapping[bytes, str | bytes]) -> Call[int]:
    """Set several keys, either all or none; the result is the revision at which they were written."""
    words = [word for pair in _pairs("mput", values) for word in pair]
    return Call(_line("MPUT", *words), _number("revision"))


def mget(*keys: str | bytes) -> Call[dict[str, Entry]]:
    """Get several keys, as they were at one moment; the result has an `Entry` for each of these keys that exists."""
    return Call(_line("MGET", *keys), lambda reply: {each.key: each for each in _entries(reply)})


def range_(first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> Call[list[Entry]]:
    """Get at most `limit` entries, in byte order of the keys, from key `first` on to before key `end`.

    If `end` is "", the range goes on to the last key.
    """
    return Call(f"{_line('RANGE', first, end)} limit={_whole('limit', limit)}", _entries)


def keys(first: str | bytes = "", end: str | bytes = "", *, limit: int = 1_000) -> Call[list[str]]:
    """Get the keys of the entries that `range_` with the same arguments would give, without their values."""
    return Call(
        f"{_line('KEYS', first, end)} limit={_whole('limit', limit)}",
        lambda reply: [str(read_fields(row)["key"]) for row in reply.rows],
    )


def say(text: str) -> Call[int]:
    """Add a line to the chat; the result is its index."""
    return Call(_line("SAY", text), _number("index"))


def lock(name: str, wait: float | None = None) -> Call[int]:
    """Get a lock; the result is the fencing token of this grant.

    The call fails with `LockTimeout` if the session does not get the lock within `wait` seconds; None: it waits for
    ever.
    """
    option = "" if wait is None else f" wait={_seconds('wait', wait):.3f}"
    return Call(_line("LOCK", name) + option, _number("token"))


def unlock(name: str, token: int) -> Call[None]:
    """Give a lock back. Fails with `StateError` if the session does not hold the lock with that token."""
    return Call(f"{_line('UNLOCK', name)} token={_whole('token', token)}", lambda _reply: None)


def listen(first: int | None) -> Call[int | None]:
    """Follow the chat from line number `first` on; None: from now on. The result is the number of the first line that
    will come, or `first` if the server does not tell it."""

    def made(reply: Reply) -> int | None:
        return int(reply.fields["from"]) if "from" in reply.fields else first

    return Call("LISTEN" if first is None else f"LISTEN from={_whole('first', first)}", made)


def settings(*, read: ReadLevel = "linearizable") -> Call[dict[str, int | str]]:
    """Get the settings that all servers of the cluster share, by name; see docs/operating.rst for their meaning."""

    def made(reply: Reply) -> dict[str, int | str]:
        rows = map(read_fields, reply.rows)
        return {str(row["name"]): row["value"] for row in rows}

    return Call(f"SETTINGS{_level(read)}", made)


def change_settings(values: Mapping[str, int | str]) -> Call[int]:
    """Change settings of the cluster, either all or none; the result is the revision of the change.

    Fails with `BadCall` for a wrong name or value, and with `StateError` if some server cannot run what is asked for.
    """
    words = " ".join(_quoted(f"{name}={value}") for name, value in _pairs("change_settings", values))
    return Call(f"SETTINGS SET {words}", _number("revision"))


def command(
    verb: str,
    *words: str | bytes | int,
    read_reply: Callable[[Reply], T],
    options: Mapping[str, str | int] | None = None,
    forgiven: frozenset[str] = frozenset(),
    read: ReadLevel | None = None,
) -> Call[T]:
    """Make a call of an application that has no functions here, such as one of your own.

    `words` are the arguments: a str or bytes is sent as a text, which never is an option; an int as a number. `options`
    become `name=value` behind them. `read_reply` makes the result from the reply: `Reply.fields` has the fields of a
    result, and `Reply.row_fields` those of each row. It is also given the refusals whose codes are in `forgiven`.

    `read` says that the verb is a question, and how it is to be answered: linearizable, sequential or stale. None: the
    verb changes something, or may.
    """
    if not isinstance(verb, str) or _VERB.fullmatch(verb) is None:
        raise _wrong("the verb", verb, "a word of letters, as in TODO")
    parts = [verb.upper(), *[str(word) if _is_whole(word) else _quoted(word) for word in words]]
    for name, value in _pairs("options", options or {}):
        if not isinstance(name, str) or _OPTION.fullmatch(name) is None:
            raise _wrong("the name of an option", name, "a word")
        if not _is_whole(value) and not (isinstance(value, str) and value.isprintable() and not {" ", '"'} & {*value}):
            raise _wrong(f"the option {name}", value, "an int or one word")
        parts.append(f"{name}={value}")
    line = " ".join(parts)
    return Call(line if read is None else line + _level(read), read_reply, forgiven, is_question=read is not None)


def _level_or_revision(read: ReadLevel, at: int | None) -> str:
    level = _level(read)
    if at is None:
        return level
    if _whole("at", at) < 0:
        raise _wrong("at", at, "a revision, an int from 0 on")
    return f" at={at}"


def _line(verb: str, *words: str | bytes) -> str:
    return " ".join([verb, *map(_quoted, words)])


def _wrong(what: str, value: object, right: str) -> BadCall:
    """The error for an argument of the wrong type. Its text names the argument by `what`, the type and value that were
    given, and, by `right`, what would be right."""
    return BadCall(f"{what} is {value!r:.60}, of type {type(value).__name__}; it must be {right}", "BADREQUEST", "none")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(what: str, value: int) -> int:
    """Return `value`, the argument that errors call `what`. Raises `BadCall` if it is no int: it would not be sent as a
    number."""
    if not _is_whole(value):
        raise _wrong(what, value, "an int")
    return value


def _seconds(what: str, value: float) -> float:
    """Return `value`, a time in seconds that errors call `what`. Raises `BadCall` for anything but a finite number from
    0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _wrong(what, value, "a number of seconds from 0 on, or None for no end")
    return value


def _pairs(what: str, values: Any) -> list[tuple[Any, Any]]:
    """The (key, value) pairs of the mapping `values`, which errors call `what`. Raises `BadCall` if it is no
    mapping."""
    if not isinstance(values, Mapping):
        raise _wrong(f"the argument of {what}", values, "a dict")
    return list(values.items())


def _quoted(text: Any) -> str:
    """`text` as a JSON string of the line protocol, in which half of a surrogate pair stands for a byte that is not
    UTF-8."""
    if not isinstance(text, str | bytes):
        hint = f" (here: {str(text)!r:.60})" if _is_whole(text) or isinstance(text, float) else ""
        raise _wrong("a key, value, name or text", text, f"a str or bytes{hint}")
    text = _text_of(text)
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise BadCall(
            f"{text!r} has half a surrogate pair at character {error.start + 1}", "BADREQUEST", "none"
        ) from None
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


_ESCAPED: Final = re.compile("[\x7f-\x9f\udc80-\udcff]")
"""Regular expression of the characters that must be escaped in a line of the line protocol, and that JSON does not
escape."""


def _text_of(data: str | bytes) -> str:
    """The text that stands for any bytes: see `Entry`."""
    return data.decode(errors="surrogateescape") if isinstance(data, bytes) else data


def _level(read: ReadLevel) -> str:
    if read not in READ_LEVELS:
        raise BadCall(f"read is one of {', '.join(READ_LEVELS)}, not {read!r}", "BADREQUEST", "none")
    return "" if read == "linearizable" else f" read={read}"


def _value_or_none(reply: Reply) -> str | None:
    return str(reply.fields["value"]) if reply.ok else None


def _number(name: str) -> Callable[[Reply], int]:
    return lambda reply: int(reply.fields[name])


def _text(name: str) -> Callable[[Reply], str]:
    return lambda reply: str(reply.fields[name])


def _entries(reply: Reply) -> list[Entry]:
    rows = map(read_fields, reply.rows)
    return [Entry(str(row["key"]), str(row["value"]), int(row["revision"])) for row in rows]
