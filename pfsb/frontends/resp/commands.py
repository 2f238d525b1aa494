"""Translated commands: each of these commands of Redis becomes one command of the line protocol, and a form of reply.

Functions have the names that Redis gives the commands; docs/protocol.rst describes the commands of the line protocol. A
translation only takes the arguments apart: whether a key or a value is allowed is checked, once, by the application.
Keys and values are any bytes (`Data`). Names of locks, and what is said in the chat, are texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from pfsb.applications.arguments import Data, Quoted, integer_in, quoted, rows_max
from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.resp import replies
from pfsb.frontends.resp.patterns import NO_KEYS, Cursors, range_of
from pfsb.frontends.resp.replies import Dialect, Form

_ADDS_FAST: Final = "write denyoom fast"
SCAN_COUNT_DEFAULT: Final = 10
"""Number of keys in one reply to SCAN without COUNT, as in Redis."""
REVISION_DIGITS_MAX: Final = 18
"""Maximum number of digits of a revision in GETAT, as of `at=` in the line protocol."""


@frozen
class TranslatedCommand:
    """The command of the line protocol that a command of Redis becomes, and the form of its reply
    (`pfsb.frontends.resp.replies`)."""

    verb: str
    args: tuple[str, ...]
    form: Form


@frozen
class Client:
    """The facts about a client that a translation may depend on."""

    dialect: Dialect
    cursors: Cursors


Translate = Callable[[Sequence[bytes], Client], TranslatedCommand]
"""Function of (arguments, `Client`) that translates one command of Redis; it may raise `BadRequest`.

It returns the command of the line protocol to run, and the form of its reply. `RespConversation` calls it for each
command that arrives, after it has compared the number of words with the arity of the command.
"""


@frozen
class Keys:
    """Which words of a command are keys, and what the command does with them, in the terms of Redis."""

    flags: str
    """Redis's words for what is done with the keys, such as `RO access`."""
    last: int = 1
    """Position of the last key; -1 stands for the last word. The first key is the word after the name."""
    step: int = 1


@frozen
class RedisCommand:
    """One command of Redis, in the terms in which Redis's own COMMAND describes commands."""

    arity: int
    """Number of words, including the name; a negative number -N stands for N or more words."""
    help: str
    translate: Translate | None
    """Translates the arguments of this command; None for a command about the connection (`ConnectionCommands`)."""
    group: str
    """The group of Redis's documentation to which the command belongs; `pfsb` for one that Redis does not have."""
    flags: str
    """Redis's words for properties of the command, such as `readonly fast`."""
    keys: Keys | None = None
    since: str = "1.0.0"
    """The version of Redis that had the command first."""
    categories: str | None = None
    """The categories of Redis's access control to which the command belongs beside those that its flags tell. None: the
    category of its group."""
    subcommands: Mapping[str, RedisCommand] = field(factory=dict)
    """Name -> command, for the second words of a command such as CLIENT."""

    def goes_with(self, words: int) -> bool:
        return words == self.arity if self.arity > 0 else words >= -self.arity


def wrong_number_of_arguments(name: str) -> BadRequest:
    """The error for a wrong number of arguments, in the words of Redis."""
    return BadRequest(f"wrong number of arguments for '{name.lower()}' command")


def text_argument(argument: bytes) -> str:
    """An argument that is a text, and no key or value. Raises `BadRequest` if it is not UTF-8."""
    try:
        return argument.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"byte {error.start + 1} of an argument is not UTF-8: only keys and values may be other bytes"
        ) from None


def _get(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    return TranslatedCommand("GET", (Data(args[0]),), client.dialect.value)


def _getat(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    key, revision = args
    if not (revision.isdigit() and len(revision) <= REVISION_DIGITS_MAX):
        raise BadRequest(f"{quoted(revision)} is no revision (example: GETAT colour 812)")
    return TranslatedCommand("GET", (Data(key), f"at={revision.decode()}"), client.dialect.value)


def _set(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    key, value = map(Data, args[:2])
    if len(args) == 2:
        return TranslatedCommand("PUT", (key, value), replies.ok)
    if {option.upper() for option in args[2:]} == {b"NX"}:
        form = replies.set_if_absent(replies.OK, client.dialect.nil)
        return TranslatedCommand("CAS", (key, "nil", value), form)
    options = quoted(b" ".join(args[2:]))
    raise BadRequest(f"SET takes the option NX only, and not {options}: keys do not expire here")


def _setnx(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    key, value = map(Data, args)
    form = replies.set_if_absent(replies.integer(1), replies.integer(0))
    return TranslatedCommand("CAS", (key, "nil", value), form)


def _del(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    return TranslatedCommand("DEL", tuple(map(Data, args)), replies.DELETED)


def _exists(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    return TranslatedCommand("MGET", tuple(map(Data, args)), replies.how_many_of(args))


def _strlen(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    return TranslatedCommand("GET", (Data(args[0]),), replies.length)


def _append(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    return TranslatedCommand("APPEND", tuple(map(Data, args)), replies.length)


def _mget(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    return TranslatedCommand("MGET", tuple(map(Data, args)), client.dialect.values_of(args))


def _mset(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    if len(args) % 2:
        raise wrong_number_of_arguments("mset")
    return TranslatedCommand("MPUT", tuple(map(Data, args)), replies.ok)


def _step(sign: int) -> Translate:
    """Make the `Translate` function of INCR and INCRBY (`sign` is 1), or of DECR and DECRBY (`sign` is -1)."""

    def translate(args: Sequence[bytes], client: Client) -> TranslatedCommand:
        key, *steps = args
        step = integer_in(steps[0]) if steps else 1
        if step is None:
            raise BadRequest(f"{quoted(steps[0])} is no integer of 64 bits (example: 12)")
        return TranslatedCommand("INCR", (Data(key), str(sign * step)), replies.VALUE)

    return translate


def _keys(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    first, end = range_of(args[0])
    return TranslatedCommand("KEYS", (Data(first), Data(end), f"limit={rows_max}"), replies.keys)


def _scan(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    cursor, *options = args
    pattern, limit, has_keys = b"*", SCAN_COUNT_DEFAULT, True
    if len(options) % 2:
        raise BadRequest(f"SCAN's options come with a value each, {quoted(options[-1])} has none")
    for name, value in zip(options[::2], options[1::2], strict=True):
        match name.upper():
            case b"MATCH":
                pattern = value
            case b"COUNT" if (wanted := integer_in(value) or 0) > 0:
                limit = min(wanted, rows_max)
            case b"TYPE":
                has_keys = value.lower() == b"string"  # all values here have the type that TYPE calls "string" in Redis
            case _:
                problem = quoted(b"%b %b" % (name, value))
                raise BadRequest(f"SCAN takes MATCH prefix*, COUNT n and TYPE name, not {problem}")
    first, end = range_of(pattern) if has_keys else NO_KEYS
    if cursor != b"0":
        first = max(first, client.cursors.key_of(cursor))
    form = replies.page_of_keys(client.cursors.cursor_at)
    return TranslatedCommand("KEYS", (Data(first), Data(end), f"limit={limit}"), form)


def _lock(verb: str) -> Translate:
    """Make the `Translate` function of LOCK or TRYLOCK, as `verb` says. Its arguments are a name, and options as in the
    line protocol."""

    def translate(args: Sequence[bytes], client: Client) -> TranslatedCommand:
        name, *options = map(text_argument, args)
        return TranslatedCommand(verb, (Quoted(name), *options), replies.integer_field("token"))

    return translate


def _unlock(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    name, *options = map(text_argument, args)
    return TranslatedCommand("UNLOCK", (Quoted(name), *options), replies.ok)


def _say(args: Sequence[bytes], client: Client) -> TranslatedCommand:
    return TranslatedCommand("SAY", (" ".join(map(text_argument, args)),), replies.INDEX)


TRANSLATED: Final[dict[str, RedisCommand]] = {
    "GET": RedisCommand(2, "The value of a key.", _get, "string", "readonly fast", Keys("RO access")),
    "GETAT": RedisCommand(
        3, "The value that a key had at an earlier revision.", _getat, "pfsb", "readonly", Keys("RO access")
    ),
    "SET": RedisCommand(
        -3,
        "Set a key to a value; NX: only if it is not there.",
        _set,
        "string",
        "write denyoom",
        Keys("RW access update variable_flags"),
    ),
    "SETNX": RedisCommand(3, "Set a key that is not there.", _setnx, "string", _ADDS_FAST, Keys("OW insert")),
    "DEL": RedisCommand(-2, "Remove keys.", _del, "generic", "write", Keys("RM delete", -1)),
    "UNLINK": RedisCommand(-2, "Remove keys.", _del, "generic", "write fast", Keys("RM delete", -1), "4.0.0"),
    "EXISTS": RedisCommand(
        -2, "How many of these keys there are.", _exists, "generic", "readonly fast", Keys("RO", -1)
    ),
    "STRLEN": RedisCommand(2, "The bytes of a value.", _strlen, "string", "readonly fast", Keys("RO"), "2.2.0"),
    "APPEND": RedisCommand(
        3, "Add bytes to the end of a value.", _append, "string", _ADDS_FAST, Keys("RW insert"), "2.0.0"
    ),
    "INCR": RedisCommand(2, "Add 1 to an integer.", _step(1), "string", _ADDS_FAST, Keys("RW access update")),
    "INCRBY": RedisCommand(3, "Add to an integer.", _step(1), "string", _ADDS_FAST, Keys("RW access update")),
    "DECR": RedisCommand(2, "Take 1 from an integer.", _step(-1), "string", _ADDS_FAST, Keys("RW access update")),
    "DECRBY": RedisCommand(3, "Take from an integer.", _step(-1), "string", _ADDS_FAST, Keys("RW access update")),
    "MGET": RedisCommand(
        -2, "The values of several keys, as of one moment.", _mget, "string", "readonly fast", Keys("RO access", -1)
    ),
    "MSET": RedisCommand(
        -3, "Set several keys, all or nothing.", _mset, "string", "write denyoom", Keys("OW update", -1, 2), "1.0.1"
    ),
    "KEYS": RedisCommand(
        2, "The keys that begin with prefix*.", _keys, "generic", "readonly", categories="keyspace dangerous"
    ),
    "SCAN": RedisCommand(
        -2, "The keys, or those that begin with prefix*, page by page.", _scan, "generic", "readonly", since="2.8.0"
    ),
    "LOCK": RedisCommand(-2, "Wait for a lock [wait=SECONDS]; its token.", _lock("LOCK"), "pfsb", "write blocking"),
    "TRYLOCK": RedisCommand(2, "Take a lock at once or not at all; its token.", _lock("TRYLOCK"), "pfsb", "write"),
    "UNLOCK": RedisCommand(-2, "Let go of a lock [token=T].", _unlock, "pfsb", "write"),
    "SAY": RedisCommand(-2, "Say something in the chat; its number there.", _say, "pfsb", "write"),
}
"""Name -> each command of Redis that becomes a command of the line protocol."""
