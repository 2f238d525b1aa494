"""Random commands of Redis, asked of two servers, whose replies are compared."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

from attrs import define, field

from pfsb.applications.arguments import key_bytes_max
from tests.frontends.resp.reading import Error, Reply, Simple, read_reply

Words = list[bytes]

REPLY_SECONDS: Final = 30.0


class RedisConnection:
    """A connection that speaks the Redis protocol, and waits for each reply. It may be used in a thread."""

    def __init__(self, port: int, protocol: int = 2) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), REPLY_SECONDS)
        self._file = self._socket.makefile("rb")
        if protocol == 3:
            self.ask(b"HELLO", b"3")

    def ask(self, *words: bytes) -> Reply:
        """Sends a command. Returns its reply."""
        self.send(b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))
        return self.reply()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> Reply:
        """The next reply. Raises `EOFError` if the connection ends before."""
        return read_reply(self._file)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


# ------------------------------------------------------------------------------------------------- random commands

KEYS: Final = (
    b"a", b"b", b"ab", b"abc", b"n", b"n1", b"with space", b"\xff", b"\xff\xff", b"\0", b"a\r\n", b"\xc3\xa9", b"*x",
    b"[b]", b"back\\slash", b"nil", b"read=stale", b"limit=1", b"k" * (key_bytes_max - 1), b"k" * key_bytes_max,
    b"\xff" * key_bytes_max,
)  # fmt: skip
"""Keys for commands that read and change them: few, so that commands meet; the longest ones that there can be."""
INTEGERS: Final = (
    b"0", b"1", b"-1", b"7", b"10", b"-10", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775806",
    b"9223372036854775808", b"01", b"-0", b"00", b"-01", b"+1", b" 1", b"1 ", b"1.0", b"", b"-", b"abc", b"1\0",
    b"\xff", b"\xd9\xa1", b"1_0", b"0x1", b"1e2", b"99999999999999999999",
)  # fmt: skip
PATTERNS: Final = (
    b"*", b"**", b"a*", b"ab", b"abc", b"", b"\\*x", b"\\*x*", b"\\a*", b"a\\", b"\xff*", b"\xff", b"\0*", b"k*",
    b"k" * key_bytes_max, b"k" * key_bytes_max + b"*", b"k" * (key_bytes_max + 1), b"\xff" * key_bytes_max,
    b"\\[b]", b"back\\\\slash", b"back\\\\*", b"nothing*", b"with *", b"]",
)  # fmt: skip


class RandomCommands:
    """Commands that Redis and pfsb both have, with arguments that both, one or none of the two accept."""

    def __init__(self, seed: int) -> None:
        self._dice = Random(seed)
        self._makers: tuple[Callable[[], Words], ...] = (
            lambda: [b"GET", self._key()],
            lambda: [b"SET", self._key(), self._value()],
            lambda: [b"SET", self._key(), self._value(), b"NX"],
            lambda: [b"set", self._key(), self._value(), *self._some([b"nx", b"NX", b"Nx", b"FOO"], 3)],
            lambda: [b"SETNX", self._key(), self._value()],
            lambda: [self._one(b"DEL", b"UNLINK", b"del"), *self._keys(4)],
            lambda: [b"EXISTS", *self._keys(5)],
            lambda: [b"STRLEN", self._key()],
            lambda: [b"APPEND", self._key(), self._value()],
            lambda: [self._one(b"INCR", b"DECR"), self._number_key()],
            lambda: [self._one(b"INCRBY", b"DECRBY"), self._number_key(), self._one(*INTEGERS)],
            lambda: [b"SET", self._number_key(), self._one(*INTEGERS)],
            lambda: [b"MGET", *self._keys(6)],
            lambda: [b"MSET", *[word for key in self._keys(4) for word in (key, self._value())]],
            lambda: [b"KEYS", self._one(*PATTERNS)],
            self._scan,
            lambda: [b"PING", *self._some([self._value()], 2)],
            lambda: [b"ECHO", self._value()],
            lambda: [b"SELECT", self._one(b"0", b"00", b"-1", b"x", b"99", b"")],
            self._client,
            self._wrong_number,
        )

    def __iter__(self) -> Iterator[Words]:
        while True:
            yield self._dice.choice(self._makers)()

    def _one(self, *words: bytes) -> bytes:
        return self._dice.choice(words)

    def _some(self, words: Sequence[bytes], most: int) -> Words:
        return [self._dice.choice(words) for _ in range(self._dice.randint(0, most))]

    def _key(self) -> bytes:
        return self._dice.choice(KEYS)

    def _keys(self, most: int) -> Words:
        return [self._key() for _ in range(self._dice.randint(1, most))]

    def _number_key(self) -> bytes:
        return self._one(b"n", b"n1", b"n1", self._key())

    def _value(self) -> bytes:
        kind = self._dice.randrange(4)
        if kind == 0:
            return self._one(*INTEGERS)
        if kind == 1:
            return self._dice.randbytes(self._dice.choice((0, 1, 2, 10, 300)))
        return self._one(b"", b"blue", b"two words", b"\r\n", b"*1\r\n", b"\0", b"nil", b"x" * 1_000, b"\xff\xfe")

    def _scan(self) -> Words:
        options = (
            [b"MATCH", self._one(*PATTERNS)], [b"COUNT", self._one(b"1", b"3", b"1000", b"0", b"-1", b"01", b"x")],
            [b"TYPE", self._one(b"string", b"STRING", b"hash", b"list", b"zset")], [b"MATCH"], [b"NOSUCH", b"1"],
        )  # fmt: skip
        chosen = [self._dice.choice(options) for _ in range(self._dice.randint(0, 2))]
        return [b"SCAN", b"0", *[word for option in chosen for word in option]]

    def _client(self) -> Words:
        return [b"CLIENT", *self._dice.choice((
            [b"SETNAME", self._one(b"me", b"", b"a b", b"a\n")], [b"GETNAME"], [b"setname"], [b"NOSUCH"],
            [b"NO-EVICT", b"on"],
        ))]  # fmt: skip

    def _wrong_number(self) -> Words:
        name = self._one(
            b"GET", b"SET", b"DEL", b"INCR", b"MGET", b"MSET", b"APPEND", b"ECHO", b"KEYS", b"SCAN", b"NOSUCH"
        )
        return [name, *self._some([b"a", b"b"], 1), *([b"b"] * 3 if name == b"GET" else [])]


# ------------------------------------------------------------------------------------------------- the comparison


@define
class Comparison:
    """Asks two servers the same commands, and counts differences by their kind."""

    redis: RedisConnection
    pfsb: RedisConnection
    differences: Counter[str] = field(factory=Counter)
    examples: dict[str, str] = field(factory=dict)
    """Kind -> the first difference of this kind."""
    agreed: Counter[str] = field(factory=Counter)
    """Name of a command and kind of its reply -> how often both have replied with it."""

    def ask(self, words: Words) -> None:
        """Ask both servers, and note a difference. Then remove the keys of the command at both, so that the difference
        leads to no others."""
        if words[0].upper() == b"SCAN" and len(words) > 1:
            one, other = (_scanned(connection, words) for connection in (self.redis, self.pfsb))
        else:
            one, other = (_comparable(words, connection.ask(*words)) for connection in (self.redis, self.pfsb))
        name = words[0].upper().decode(errors="backslashreplace")
        if one == other:
            self.agreed[f"{name} {type(one).__name__}"] += 1
            return
        kind = f"{name} {type(one).__name__} {type(other).__name__}"
        self.differences[kind] += 1
        self.examples.setdefault(kind, f"{words!r:.300}: {one!r:.300} and {other!r:.300}")
        keys = [word for word in words[1:] if word and len(word) <= key_bytes_max]
        for connection in (self.redis, self.pfsb):
            if keys:
                connection.ask(b"DEL", *keys)

    def report(self) -> str:
        return "\n".join(f"{number} x {kind}: {self.examples[kind]}" for kind, number in self.differences.items())


def _comparable(words: Words, reply: Reply) -> Reply:
    """A reply without what need not be equal: the texts of errors, and the order of KEYS."""
    if isinstance(reply, Error):
        return Error("")
    if words[0] == b"KEYS" and isinstance(reply, list):
        return sorted(reply)
    return reply


def _scanned(connection: RedisConnection, words: Words) -> Reply:
    """All keys that SCAN finds, cursor by cursor; the error of the first reply if it is one."""
    found: set[bytes] = set()
    cursor, rounds = words[1], 0
    while cursor != b"0" or not rounds:
        reply = connection.ask(words[0], cursor, *words[2:])
        if isinstance(reply, Error):
            return Error("")
        cursor, page = reply
        found |= {*page}
        rounds += 1
    return frozenset(found)


def description(entry: Reply, with_parts: bool) -> Reply:
    """The entry of COMMAND INFO for a command, in a form in which it can be compared.

    Tips are left out, which are for clients of a cluster of Redis, notes on keys, and if not `with_parts` the
    subcommands.
    """
    name, arity, flags, first, last, step, categories, tips, keys, parts = entry
    types = [*map(type, (flags, categories, tips, keys, parts))]
    where = [_as_map(each) for each in keys]
    return [name, arity, types, sorted(flags), sorted(categories), first, last, step, where, with_parts and parts]


def _as_map(specification: Reply) -> Reply:
    """Where the keys of a command are, as dicts, whether it came in RESP 2 or 3; sets of flags are sorted."""
    if not isinstance(specification, list | dict):
        return specification
    if isinstance(specification, list) and isinstance(specification[0], Simple):
        return sorted(specification)
    parts = specification if isinstance(specification, list) else [x for pair in specification.items() for x in pair]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name: _as_map(value) for name, value in pairs if name != b"notes"}
