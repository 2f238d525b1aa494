"""Translated commands: each of these commands of Redis becomes one command of the line protocol, and a form of reply.

Functions have the names that Redis gives the commands; docs/protocol.rst describes the commands of the line protocol. A
translation only takes the arguments apart: whether a key or a value is allowed is checked, once, by the application.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from pfsb.applications.arguments import Quoted, parse_integer, quoted, rows_max
from pfsb.applications.interfaces import BadRequest
from pfsb.frontends.resp import replies
from pfsb.frontends.resp.patterns import Cursors, range_of
from pfsb.frontends.resp.replies import Dialect, Form

SCAN_COUNT_DEFAULT: Final = 10
"""Number of keys in one reply to SCAN without COUNT, as in Redis."""


@frozen
class TranslatedCommand:
    """The command of the line protocol that a command of Redis becomes, and the form of its reply (`replies`)."""

    verb: str
    args: tuple[str, ...]
    form: Form


@frozen
class Client:
    """The facts about a client that a translation may depend on."""

    dialect: Dialect
    cursors: Cursors


Translate = Callable[[Sequence[str], Client], TranslatedCommand]
"""Function of (arguments, `Client`) that translates one command of Redis; it may raise `BadRequest`.

It returns the command of the line protocol to run, and the form of its reply. `RespConversation` calls it for each
command that arrives, after it has compared the number of words with the arity of the command.
"""


@frozen
class RedisCommand:
    """One command of Redis, in the terms in which Redis's own COMMAND describes commands."""

    arity: int
    """Number of words, including the name; a negative number -N stands for N or more words."""
    help: str
    translate: Translate | None = None
    """Translates the arguments of this command; None for a command about the connection (`ConnectionCommands`)."""
    changes: bool = False
    keys: tuple[int, int, int] = (1, 1, 1)
    """Which words of the command are keys: (first position, last, step), where last = -1 stands for the last word."""

    def goes_with(self, words: int) -> bool:
        return words == self.arity if self.arity > 0 else words >= -self.arity


def wrong_number_of_arguments(name: str) -> BadRequest:
    """The error for a wrong number of arguments, in the words of Redis."""
    return BadRequest(f"wrong number of arguments for '{name.lower()}' command")


def _get(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("GET", (Quoted(args[0]),), client.dialect.value)


def _set(args: Sequence[str], client: Client) -> TranslatedCommand:
    key, value, *options = args
    if not options:
        return TranslatedCommand("PUT", (key, value), replies.ok)
    if len(options) == 1 and options[0].upper() == "NX":
        return TranslatedCommand(
            "CAS", (key, "nil", Quoted(value)), replies.set_if_absent(replies.OK, client.dialect.nil)
        )
    raise BadRequest(f"SET takes the option NX only, and not {quoted(' '.join(options))}: keys do not expire here")


def _setnx(args: Sequence[str], client: Client) -> TranslatedCommand:
    key, value = args
    form = replies.set_if_absent(replies.integer(1), replies.integer(0))
    return TranslatedCommand("CAS", (key, "nil", Quoted(value)), form)


def _del(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("DEL", tuple(args), replies.DELETED)


def _exists(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("MGET", tuple(map(Quoted, args)), replies.how_many_of(args))


def _strlen(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("GET", (Quoted(args[0]),), replies.length)


def _append(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("APPEND", tuple(args), replies.length)


def _mget(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("MGET", tuple(map(Quoted, args)), client.dialect.values_of(args))


def _mset(args: Sequence[str], client: Client) -> TranslatedCommand:
    if len(args) % 2:
        raise wrong_number_of_arguments("mset")
    return TranslatedCommand("MPUT", tuple(args), replies.ok)


def _step(sign: int) -> Translate:
    """Make the `Translate` function of INCR and INCRBY (`sign` is 1), or of DECR and DECRBY (`sign` is -1)."""

    def translate(args: Sequence[str], client: Client) -> TranslatedCommand:
        key, *steps = args
        step = parse_integer(steps[0]) if steps else 1
        if step is None:
            raise BadRequest(f"{quoted(steps[0])} is no integer of 64 bits (example: 12)")
        return TranslatedCommand("INCR", (key, str(sign * step)), replies.VALUE)

    return translate


def _keys(args: Sequence[str], client: Client) -> TranslatedCommand:
    first, end = range_of(args[0])
    return TranslatedCommand("KEYS", (Quoted(first), Quoted(end), f"limit={rows_max}"), replies.keys)


def _scan(args: Sequence[str], client: Client) -> TranslatedCommand:
    cursor, *options = args
    pattern, limit = "*", SCAN_COUNT_DEFAULT
    if len(options) % 2:
        raise BadRequest(f"SCAN's options come with a value each, {quoted(options[-1])} has none")
    for name, value in zip(options[::2], options[1::2], strict=True):
        match name.upper():
            case "MATCH":
                pattern = value
            case "COUNT" if (wanted := parse_integer(value) or 0) > 0:
                limit = min(wanted, rows_max)
            case "TYPE" if value.lower() == "string":
                pass
            case _:
                raise BadRequest(f"SCAN takes MATCH prefix*, COUNT n and TYPE string, not {quoted(f'{name} {value}')}")
    first, end = range_of(pattern)
    if cursor != "0":
        first = max(first, client.cursors.key_of(cursor))
    return TranslatedCommand(
        "KEYS", (Quoted(first), Quoted(end), f"limit={limit}"), replies.page_of_keys(client.cursors.cursor_at)
    )


def _lock(verb: str) -> Translate:
    """Make the `Translate` function of LOCK or TRYLOCK, as `verb` says. Its arguments are a name, and options as in the
    line protocol."""

    def translate(args: Sequence[str], client: Client) -> TranslatedCommand:
        return TranslatedCommand(verb, (Quoted(args[0]), *args[1:]), replies.integer_field("token"))

    return translate


def _unlock(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("UNLOCK", (Quoted(args[0]), *args[1:]), replies.ok)


def _say(args: Sequence[str], client: Client) -> TranslatedCommand:
    return TranslatedCommand("SAY", (" ".join(args),), replies.INDEX)


TRANSLATED: Final[dict[str, RedisCommand]] = {
    "GET": RedisCommand(2, "The value of a key.", _get),
    "SET": RedisCommand(-3, "Set a key to a value; NX: only if it is not there.", _set, True),
    "SETNX": RedisCommand(3, "Set a key that is not there.", _setnx, True),
    "DEL": RedisCommand(-2, "Remove keys.", _del, True, (1, -1, 1)),
    "UNLINK": RedisCommand(-2, "Remove keys.", _del, True, (1, -1, 1)),
    "EXISTS": RedisCommand(-2, "How many of these keys there are.", _exists, keys=(1, -1, 1)),
    "STRLEN": RedisCommand(2, "The bytes of a value.", _strlen),
    "APPEND": RedisCommand(3, "Add text to the end of a value.", _append, True),
    "INCR": RedisCommand(2, "Add 1 to an integer.", _step(1), True),
    "INCRBY": RedisCommand(3, "Add to an integer.", _step(1), True),
    "DECR": RedisCommand(2, "Take 1 from an integer.", _step(-1), True),
    "DECRBY": RedisCommand(3, "Take from an integer.", _step(-1), True),
    "MGET": RedisCommand(-2, "The values of several keys, as of one moment.", _mget, keys=(1, -1, 1)),
    "MSET": RedisCommand(-3, "Set several keys, all or nothing.", _mset, True, (1, -1, 2)),
    "KEYS": RedisCommand(2, "The keys that begin with prefix*.", _keys, keys=(0, 0, 0)),
    "SCAN": RedisCommand(-2, "The keys, or those that begin with prefix*, page by page.", _scan, keys=(0, 0, 0)),
    "LOCK": RedisCommand(-2, "Wait for a lock [wait=SECONDS]; its token.", _lock("LOCK"), True, (0, 0, 0)),
    "TRYLOCK": RedisCommand(2, "Take a lock at once or not at all; its token.", _lock("TRYLOCK"), True, (0, 0, 0)),
    "UNLOCK": RedisCommand(-2, "Let go of a lock [token=T].", _unlock, True, (0, 0, 0)),
    "SAY": RedisCommand(-2, "Say something in the chat; its number there.", _say, True, (0, 0, 0)),
}
